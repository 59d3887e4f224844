//! Element by element: norms, activations, softmax, RoPE.

use super::floats::{dot_f32, max_f32, sum_f32};
use super::memory::*;
use crate::exact::exp::{LN2_HIGH, LN2_LOW, LOG2_E, MAX, MIN, POLYNOMIAL};
use std::arch::x86_64::*;

/// `x_i = f(x_i)`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn map(x: &mut [f32], f: impl Fn(__m512) -> __m512) {
    let (blocks, tail) = x.as_chunks_mut::<16>();
    for block in blocks {
        store(block, f(load(block)));
    }
    if !tail.is_empty() {
        store_some(tail, f(load_some(tail)));
    }
}

/// `out_i = f(a_i, b_i)`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn map2(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(__m512, __m512) -> __m512) {
    assert_eq!((a.len(), b.len()), (out.len(), out.len()));
    let (a, a_tail) = a.as_chunks::<16>();
    let (b, b_tail) = b.as_chunks::<16>();
    let (blocks, tail) = out.as_chunks_mut::<16>();
    for i in 0..blocks.len() {
        store(&mut blocks[i], f(load(&a[i]), load(&b[i])));
    }
    if !tail.is_empty() {
        store_some(tail, f(load_some(a_tail), load_some(b_tail)));
    }
}

#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((x.len(), w.len()), (out.len(), out.len()));
    let r = _mm512_set1_ps(1.0 / (dot_f32(x, x) / x.len() as f32 + eps).sqrt());
    map2(x, w, out, |x, w| _mm512_mul_ps(_mm512_mul_ps(x, r), w));
}

/// [`crate::exact::exp::exp`] of sixteen values.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp(x: __m512) -> __m512 {
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    let x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(MIN)), _mm512_set1_ps(MAX));
    let k = _mm512_mul_ps(x, _mm512_set1_ps(LOG2_E));
    let k = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(k);
    let r = _mm512_fnmadd_ps(k, _mm512_set1_ps(LN2_HIGH), x);
    let r = _mm512_fnmadd_ps(k, _mm512_set1_ps(LN2_LOW), r);
    let mut p = _mm512_set1_ps(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
    }
    let y = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0));
    let power = _mm512_slli_epi32::<23>(_mm512_cvtps_epi32(k));
    let y = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), power));
    _mm512_mask_blend_ps(nan, y, _mm512_set1_ps(f32::from_bits(0x7fc0_0000)))
}

#[target_feature(enable = "avx512f")]
pub(super) fn exp_f32(x: &mut [f32]) {
    map(x, |v| exp(v));
}

#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn silu_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    let (one, sign) = (_mm512_set1_ps(1.0), _mm512_set1_ps(-0.0));
    map2(g, u, out, |g, u| {
        let below = _mm512_add_ps(one, exp(_mm512_xor_ps(g, sign)));
        _mm512_mul_ps(_mm512_div_ps(g, below), u)
    });
}

#[target_feature(enable = "avx512f")]
pub(super) fn relu2_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    map2(g, u, out, |g, u| {
        // `maxps` gives its second operand where the first is not the greater: +0 for −0.
        let m = _mm512_max_ps(g, _mm512_setzero_ps());
        _mm512_mul_ps(_mm512_mul_ps(m, m), u)
    });
}

#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn softmax(s: &mut [f32]) {
    let m = _mm512_set1_ps(max_f32(s));
    map(s, |v| exp(_mm512_sub_ps(v, m)));
    let z = _mm512_set1_ps(sum_f32(s));
    map(s, |v| _mm512_div_ps(v, z));
}

#[target_feature(enable = "avx512f")]
pub(super) fn scale_f32(x: &mut [f32], f: f32) {
    let f = _mm512_set1_ps(f);
    map(x, |v| _mm512_mul_ps(v, f));
}

#[target_feature(enable = "avx512f")]
pub(super) fn add_f32(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    for (x, y) in x.chunks_mut(16).zip(y.chunks(16)) {
        store_some(x, _mm512_add_ps(load_some(x), load_some(y)));
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    let (x0, x1) = x[..2 * n].split_at_mut(n);
    for (((x0, x1), c), s) in x0.chunks_mut(16).zip(x1.chunks_mut(16)).zip(cos.chunks(16)).zip(sin.chunks(16))
    {
        let (a, b, c, s) = (load_some(x0), load_some(x1), load_some(c), load_some(s));
        store_some(x0, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        store_some(x1, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
    }
}

/// Even elements become `x0·c − (x1·s)`, odd ones `x0·s + (x1·c)`: `fmaddsub` does both.
#[target_feature(enable = "avx512f")]
pub(super) fn rope_pairs(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    // Index i is cos i, index 16 + i is sin i: c0 s0 c1 s1 … c7 s7.
    let pairs = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    for ((x, c), s) in x[..2 * n].chunks_mut(16).zip(cos.chunks(8)).zip(sin.chunks(8)) {
        let turn = _mm512_permutex2var_ps(load_some(c), pairs, load_some(s));
        let v = load_some(x);
        let swapped = _mm512_permute_ps::<0b10_11_00_01>(turn);
        let cross = _mm512_mul_ps(_mm512_movehdup_ps(v), swapped);
        store_some(x, _mm512_fmaddsub_ps(_mm512_moveldup_ps(v), turn, cross));
    }
}
