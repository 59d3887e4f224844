//! Activation formats, and the way back from integer sums.

use super::memory::*;
use crate::exact::I8_FLOOR;
use std::arch::x86_64::*;

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
    for (x, q) in x.chunks(16).zip(q.chunks_mut(16)) {
        // `cvtps` rounds ties to even; the narrowing saturates, which is the clamp.
        let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load_some(x), factor));
        store_some_i8(q, _mm512_cvtsepi32_epi8(rounded));
    }
    s
}

#[target_feature(enable = "avx512f")]
pub(super) fn dequantise_i32(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]) {
    assert_eq!(acc.len(), out.len());
    let (divisor, factor) = (_mm512_set1_ps(s), _mm512_set1_ps(w_scale));
    for (acc, out) in acc.chunks(16).zip(out.chunks_mut(16)) {
        let quotient = _mm512_div_ps(_mm512_cvtepi32_ps(load_some_i32(acc)), divisor);
        store_some(out, _mm512_mul_ps(quotient, factor));
    }
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
