//! Activation formats, and the way back from integer sums.

use super::elementwise::map;
use super::floats::find_non_finite;
use super::memory::*;
use crate::exact::I8_FLOOR;
use std::arch::x86_64::*;
use std::ops::Range;

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn quantise_i8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let mut m = [_mm512_set1_ps(I8_FLOOR); 2];
    let (rounds, tail) = x.as_chunks::<32>();
    for round in rounds {
        let v = load32(round);
        for i in 0..2 {
            m[i] = _mm512_max_ps(m[i], _mm512_abs_ps(v[i]));
        }
    }
    let v = load32_some(tail);
    for i in 0..2 {
        m[i] = _mm512_max_ps(m[i], _mm512_abs_ps(v[i]));
    }
    let s = 127.0 / _mm512_reduce_max_ps(_mm512_max_ps(m[0], m[1]));
    let factor = _mm512_set1_ps(s);
    // `cvtps` rounds ties to even; the narrowing saturates, which is the clamp.
    let rounded = |x| _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, factor)));
    let ((x, x_tail), (q, tail)) = (x.as_chunks(), q.as_chunks_mut::<16>());
    for (x, q) in x.iter().zip(q) {
        store_some_i8(q, rounded(load(x)));
    }
    store_some_i8(tail, rounded(load_some(x_tail)));
    s
}

/// `max|x|`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn magnitude(x: &[[f32; 32]]) -> f32 {
    let mut m = [_mm512_setzero_ps(); 2];
    for block in x {
        let v = load32(block);
        for i in 0..2 {
            m[i] = _mm512_max_ps(m[i], _mm512_abs_ps(v[i]));
        }
    }
    _mm512_reduce_max_ps(_mm512_max_ps(m[0], m[1]))
}

/// `q = rint(x · factor)`, saturated.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn round_32(x: &[f32; 32], factor: f32, q: &mut [i8; 32]) {
    let factor = _mm512_set1_ps(factor);
    for (x, q) in load32(x).into_iter().zip(q.as_chunks_mut::<16>().0) {
        store_some_i8(q, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, factor))));
    }
}

/// No product is beyond 127: of the largest magnitude it is 127 but for a rounding, which `rint` takes away.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn quantise_q8_0(x: &[f32], q: &mut [i8], d: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 32 * d.len()));
    q8_blocks(x, q, |block, d32, _| d[block] = d32);
    map(d, |d| round_f16(d));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn quantise_q8_1(x: &[f32], q: &mut [i8], d: &mut [f32], s: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 32 * d.len()));
    assert_eq!(d.len(), s.len());
    q8_blocks(x, q, |block, d32, q| {
        let sum = _mm512_reduce_add_epi32(_mm512_madd_epi16(
            _mm512_cvtepi8_epi16(load_32_i8(q)),
            _mm512_set1_epi16(1),
        ));
        d[block] = d32;
        s[block] = d32 * sum as f32;
    });
    map(d, |d| round_f16(d));
    map(s, |s| round_f16(s));
}

/// To f16 and back.
#[inline]
#[target_feature(enable = "avx512f")]
fn round_f16(v: __m512) -> __m512 {
    _mm512_cvtph_ps(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v))
}

#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn round_bf16(x: &mut [f32]) -> Option<usize> {
    map(x, |v| {
        // Half a step less one, and one if what stays is odd: a tie goes to even. A carry takes the largest to infinity.
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        // A carry out of a NaN would make a number of it.
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let rounded = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x0040_0000));
        _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(!0xffff)))
    });
    find_non_finite(x)
}

#[target_feature(enable = "avx512f")]
pub(super) fn dequantise_i32(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]) {
    assert_eq!(acc.len(), out.len());
    let (divisor, factor) = (_mm512_set1_ps(s), _mm512_set1_ps(w_scale));
    if DIVISORS.contains(&s) {
        let reciprocal = _mm512_set1_ps(1.0 / s);
        map_i32(acc, out, |acc| _mm512_mul_ps(divide(acc, divisor, reciprocal), factor));
    } else {
        map_i32(acc, out, |acc| _mm512_mul_ps(_mm512_div_ps(acc, divisor), factor));
    }
}

/// `out_i = f(acc_i)`, the sums as floats.
#[inline]
#[target_feature(enable = "avx512f")]
fn map_i32(acc: &[i32], out: &mut [f32], f: impl Fn(__m512) -> __m512) {
    let ((acc, acc_tail), (out, tail)) = (acc.as_chunks(), out.as_chunks_mut());
    for (acc, out) in acc.iter().zip(out) {
        store(out, f(_mm512_cvtepi32_ps(load16(acc))));
    }
    store_some(tail, f(_mm512_cvtepi32_ps(load_some_i32(acc_tail))));
}

/// Divisors of [`divide`]: `2^-60` to `2^60`.
const DIVISORS: Range<f32> = f32::from_bits((127 - 60) << 23)..f32::from_bits((127 + 60) << 23);

/// `a / b` as the division instruction rounds it, which takes longer than these five: `a` is an integer up to 2^31, `b` one
/// of [`DIVISORS`], `y` is `1 / b`, rounded.
///
/// `q0 = a y` has a relative error of 2^-23 at most, so that `q1` is within one unit in the last place of the quotient. From
/// such a `q1`, with its remainder, which is exact, and the rounded reciprocal, `fma(r, y, q1)` is the rounded quotient
/// (Markstein's theorem: Computation of elementary functions on the IBM RISC System/6000 processor, 1990). Nothing
/// overflows or underflows: `q b` is near `a`, so that remainders are 0 or at least `a` 2^-48.
#[inline]
#[target_feature(enable = "avx512f")]
fn divide(a: __m512, b: __m512, y: __m512) -> __m512 {
    let q0 = _mm512_mul_ps(a, y);
    let q1 = _mm512_fmadd_ps(_mm512_fnmadd_ps(q0, b, a), y, q0);
    _mm512_fmadd_ps(_mm512_fnmadd_ps(q1, b, a), y, q1)
}

/// Finds the first that is no finite f16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn narrow_f16(x: &[f32], out: &mut [u8]) -> Option<usize> {
    assert_eq!(2 * x.len(), out.len());
    let exponent = _mm256_set1_epi16(0x7c00);
    let mut first = None;
    for (i, (x, out)) in x.chunks(16).zip(out.chunks_mut(32)).enumerate() {
        let narrow = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(load_some(x));
        store_some_f16(out, narrow);
        let bad = _mm256_cmpeq_epi16_mask(_mm256_and_si256(narrow, exponent), exponent);
        if bad != 0 && first.is_none() {
            first = Some(16 * i + bad.trailing_zeros() as usize);
        }
    }
    first
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn widen_f16(x: &[u8], out: &mut [f32]) {
    assert_eq!(x.len(), 2 * out.len());
    for (x, out) in x.chunks(32).zip(out.chunks_mut(16)) {
        store_some(out, load_some_f16(x));
    }
}
