//! Activation formats, and the way back from integer sums.

use super::elementwise::map;
use super::floats::{find_non_finite, largest};
use super::memory::*;
use super::ternary::sum_ints;
use crate::exact::I8_FLOOR;
use std::arch::x86_64::*;

#[target_feature(enable = "avx2")]
pub(super) fn quantise_i8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let (blocks, tail) = x.as_chunks::<32>();
    let (out, out_tail) = q.as_chunks_mut::<32>();
    let s = 127.0 / tail.iter().fold(magnitude(blocks).max(I8_FLOOR), |a, v| a.max(v.abs()));
    for (block, out) in blocks.iter().zip(out) {
        round_32(block, s, out);
    }
    if !tail.is_empty() {
        let mut block = [0; 32];
        round_32(&padded(tail), s, &mut block);
        out_tail.copy_from_slice(&block[..tail.len()]);
    }
    s
}

/// `max|x|`.
#[inline]
#[target_feature(enable = "avx2")]
fn magnitude(x: &[[f32; 32]]) -> f32 {
    let mut m = [_mm256_setzero_ps(); 4];
    for block in x {
        let v = load32(block);
        for i in 0..4 {
            m[i] = _mm256_max_ps(m[i], _mm256_andnot_ps(_mm256_set1_ps(-0.0), v[i]));
        }
    }
    largest(_mm256_max_ps(_mm256_max_ps(m[0], m[1]), _mm256_max_ps(m[2], m[3])))
}

/// No product is beyond 127: of the largest magnitude it is 127 but for a rounding, which `rint` takes away.
#[target_feature(enable = "avx2")]
pub(super) fn quantise_q8_k(x: &[f32], q: &mut [i8], d: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 256 * d.len()));
    let (x, q) = (x.as_chunks::<256>().0, q.as_chunks_mut::<256>().0);
    for ((x, q), d) in x.iter().zip(q).zip(d) {
        let a = magnitude(x.as_chunks().0);
        let m = x.iter().find(|v| v.abs() == a).map_or(0.0, |m| *m);
        let i = -127.0 / m;
        if a == 0.0 || i.is_infinite() {
            (*q, *d) = ([0; 256], 0.0);
            continue;
        }
        for (x, q) in x.as_chunks::<32>().0.iter().zip(q.as_chunks_mut().0) {
            round_32(x, i, q);
        }
        *d = 1.0 / i;
    }
}

/// Blocks of 32; calls `done(block, a / 127, values)` after each.
#[inline]
#[target_feature(enable = "avx2")]
fn q8_blocks(x: &[f32], q: &mut [i8], mut done: impl FnMut(usize, f32, &[i8; 32])) {
    let (x, q) = (x.as_chunks::<32>().0, q.as_chunks_mut::<32>().0);
    for (block, (x, q)) in x.iter().zip(q).enumerate() {
        let a = magnitude(std::slice::from_ref(x));
        let i = 127.0 / a;
        if a == 0.0 || i.is_infinite() {
            *q = [0; 32];
            done(block, 0.0, q);
        } else {
            round_32(x, i, q);
            done(block, a / 127.0, q);
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn quantise_q8_0(x: &[f32], q: &mut [i8], d: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 32 * d.len()));
    q8_blocks(x, q, |block, d32, _| d[block] = d32);
    map(d, |d| round_f16(d));
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn quantise_q8_1(x: &[f32], q: &mut [i8], d: &mut [f32], s: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 32 * d.len()));
    assert_eq!(d.len(), s.len());
    q8_blocks(x, q, |block, d32, q| {
        // Pairs are at most 254 in magnitude.
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), load_i8(q));
        let sum = sum_ints(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        d[block] = d32;
        s[block] = d32 * sum as f32;
    });
    map(d, |d| round_f16(d));
    map(s, |s| round_f16(s));
}

/// To f16 and back.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn round_f16(v: __m256) -> __m256 {
    _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v))
}

#[target_feature(enable = "avx2")]
pub(super) fn round_bf16(x: &mut [f32]) -> Option<usize> {
    map(x, |v| {
        // Half a step less one, and one if what stays is odd: a tie goes to even. A carry takes the largest to infinity.
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        // A carry out of a NaN would make a number of it.
        let quiet = _mm256_or_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x0040_0000)));
        let rounded = _mm256_blendv_ps(_mm256_castsi256_ps(up), quiet, _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        _mm256_and_ps(rounded, _mm256_castsi256_ps(_mm256_set1_epi32(!0xffff)))
    });
    find_non_finite(x)
}

#[target_feature(enable = "avx2")]
pub(super) fn dequantise_i32(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]) {
    assert_eq!(acc.len(), out.len());
    let ((acc, acc_tail), (out, out_tail)) = (acc.as_chunks::<8>(), out.as_chunks_mut::<8>());
    let (divisor, factor) = (_mm256_set1_ps(s), _mm256_set1_ps(w_scale));
    for (acc, out) in acc.iter().zip(out) {
        let quotient = _mm256_div_ps(_mm256_cvtepi32_ps(load_i32(acc)), divisor);
        store(out, _mm256_mul_ps(quotient, factor));
    }
    for (acc, out) in acc_tail.iter().zip(out_tail) {
        *out = (*acc as f32 / s) * w_scale;
    }
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn narrow_f16(x: &[f32], out: &mut [u8]) -> Option<usize> {
    assert_eq!(2 * x.len(), out.len());
    let (blocks, tail) = x.as_chunks::<8>();
    let (out, out_tail) = out.as_chunks_mut::<16>();
    let mut bad = None;
    for (i, (block, out)) in blocks.iter().zip(out).enumerate() {
        let found = narrow_8(block, out);
        bad = bad.or_else(|| found.map(|at| 8 * i + at));
    }
    if !tail.is_empty() {
        let mut block = [0; 16];
        let found = narrow_8(&padded(tail), &mut block);
        out_tail.copy_from_slice(&block[..out_tail.len()]);
        bad = bad.or_else(|| found.map(|at| 8 * blocks.len() + at));
    }
    bad
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn widen_f16(x: &[u8], out: &mut [f32]) {
    assert_eq!(x.len(), 2 * out.len());
    let ((x, x_tail), (out, out_tail)) = (x.as_chunks::<16>(), out.as_chunks_mut::<8>());
    for (x, out) in x.iter().zip(out) {
        store(out, load_f16(x));
    }
    if !out_tail.is_empty() {
        let mut block = [0.0; 8];
        store(&mut block, load_f16(&padded(x_tail)));
        out_tail.copy_from_slice(&block[..out_tail.len()]);
    }
}

/// `cvtps` rounds ties to even; the packs saturate, which is the clamp.
#[inline]
#[target_feature(enable = "avx2")]
fn round_32(x: &[f32; 32], s: f32, out: &mut [i8; 32]) {
    let (x, s) = (load32(x), _mm256_set1_ps(s));
    let round = |x: __m256| _mm256_cvtps_epi32(_mm256_mul_ps(x, s));
    let pairs = [_mm256_packs_epi32(round(x[0]), round(x[1])), _mm256_packs_epi32(round(x[2]), round(x[3]))];
    // The packs work in 128-bit halves: groups of four values come out as 0 2 4 6 | 1 3 5 7.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    store_bytes(out, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(pairs[0], pairs[1]), order));
}

/// Returns the first that is no finite f16.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow_8(x: &[f32; 8], out: &mut [u8; 16]) -> Option<usize> {
    let narrow = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(load(x));
    store_halves(out, narrow);
    let exponent = _mm_set1_epi16(0x7c00);
    let bad = _mm_movemask_epi8(_mm_cmpeq_epi16(_mm_and_si128(narrow, exponent), exponent));
    (bad != 0).then(|| bad.trailing_zeros() as usize / 2)
}
