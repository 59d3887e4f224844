//! Activation formats, and the way back from integer sums.

use super::floats::largest;
use super::memory::*;
use crate::exact::I8_FLOOR;
use std::arch::x86_64::*;

#[target_feature(enable = "avx2")]
pub(super) fn quantise_i8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let (blocks, tail) = x.as_chunks::<32>();
    let (out, out_tail) = q.as_chunks_mut::<32>();
    let sign = _mm256_set1_ps(-0.0);
    let mut m = [_mm256_set1_ps(I8_FLOOR); 4];
    for block in blocks {
        let v = load32(block);
        for i in 0..4 {
            m[i] = _mm256_max_ps(m[i], _mm256_andnot_ps(sign, v[i]));
        }
    }
    let m = largest(_mm256_max_ps(_mm256_max_ps(m[0], m[1]), _mm256_max_ps(m[2], m[3])));
    let s = 127.0 / tail.iter().fold(m, |a, v| a.max(v.abs()));
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
