//! Element by element: norms, activations, softmax, RoPE.

use super::floats::{dot_f32, max_f32, sum_f32};
use super::memory::*;
use crate::exact::exp::{LN2_HIGH, LN2_LOW, LOG2_E, MAX, MIN, POLYNOMIAL};
use std::arch::x86_64::*;

/// `x_i = f(x_i)`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn map(x: &mut [f32], f: impl Fn(__m256) -> __m256) {
    let (blocks, tail) = x.as_chunks_mut::<8>();
    for block in blocks {
        store(block, f(load(block)));
    }
    if !tail.is_empty() {
        let mut block = padded(tail);
        let mapped = f(load(&block));
        store(&mut block, mapped);
        tail.copy_from_slice(&block[..tail.len()]);
    }
}

/// `out_i = f(a_i, b_i)`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn map2(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(__m256, __m256) -> __m256) {
    assert_eq!((a.len(), b.len()), (out.len(), out.len()));
    let (a, a_tail) = a.as_chunks::<8>();
    let (b, b_tail) = b.as_chunks::<8>();
    let (blocks, tail) = out.as_chunks_mut::<8>();
    for i in 0..blocks.len() {
        store(&mut blocks[i], f(load(&a[i]), load(&b[i])));
    }
    if !tail.is_empty() {
        let mut block = [0.0; 8];
        store(&mut block, f(load(&padded(a_tail)), load(&padded(b_tail))));
        tail.copy_from_slice(&block[..tail.len()]);
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((x.len(), w.len()), (out.len(), out.len()));
    let r = _mm256_set1_ps(1.0 / (dot_f32(x, x) / x.len() as f32 + eps).sqrt());
    map2(x, w, out, |x, w| _mm256_mul_ps(_mm256_mul_ps(x, r), w));
}

/// [`crate::exact::exp::exp`] of eight values.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn exp(x: __m256) -> __m256 {
    let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
    let x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(MIN)), _mm256_set1_ps(MAX));
    let k = _mm256_mul_ps(x, _mm256_set1_ps(LOG2_E));
    let k = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(k);
    let r = _mm256_fnmadd_ps(k, _mm256_set1_ps(LN2_HIGH), x);
    let r = _mm256_fnmadd_ps(k, _mm256_set1_ps(LN2_LOW), r);
    let mut p = _mm256_set1_ps(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*c));
    }
    let y = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0));
    let power = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(k));
    let y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), power));
    _mm256_blendv_ps(y, _mm256_set1_ps(f32::from_bits(0x7fc0_0000)), nan)
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn exp_f32(x: &mut [f32]) {
    map(x, |v| exp(v));
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn silu_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    let (one, sign) = (_mm256_set1_ps(1.0), _mm256_set1_ps(-0.0));
    map2(g, u, out, |g, u| {
        let below = _mm256_add_ps(one, exp(_mm256_xor_ps(g, sign)));
        _mm256_mul_ps(_mm256_div_ps(g, below), u)
    });
}

#[target_feature(enable = "avx2")]
pub(super) fn relu2_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    map2(g, u, out, |g, u| {
        // `maxps` gives its second operand where the first is not the greater: +0 for −0.
        let m = _mm256_max_ps(g, _mm256_setzero_ps());
        _mm256_mul_ps(_mm256_mul_ps(m, m), u)
    });
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn softmax(s: &mut [f32]) {
    let m = _mm256_set1_ps(max_f32(s));
    map(s, |v| exp(_mm256_sub_ps(v, m)));
    let z = _mm256_set1_ps(sum_f32(s));
    map(s, |v| _mm256_div_ps(v, z));
}

#[target_feature(enable = "avx2")]
pub(super) fn scale_f32(x: &mut [f32], f: f32) {
    let f = _mm256_set1_ps(f);
    map(x, |v| _mm256_mul_ps(v, f));
}

#[target_feature(enable = "avx2")]
pub(super) fn add_f32(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    let ((x, x_tail), (y, y_tail)) = (x.as_chunks_mut::<8>(), y.as_chunks::<8>());
    for (x, y) in x.iter_mut().zip(y) {
        store(x, _mm256_add_ps(load(x), load(y)));
    }
    for (x, y) in x_tail.iter_mut().zip(y_tail) {
        *x += y;
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    let (x0, x1) = x[..2 * n].split_at_mut(n);
    let ((x0, x0_tail), (x1, x1_tail)) = (x0.as_chunks_mut::<8>(), x1.as_chunks_mut::<8>());
    let ((c, c_tail), (s, s_tail)) = (cos.as_chunks::<8>(), sin.as_chunks::<8>());
    for i in 0..c.len() {
        rotate_halves(&mut x0[i], &mut x1[i], &c[i], &s[i]);
    }
    let tail = c_tail.len();
    if tail > 0 {
        let (mut a, mut b) = (padded(x0_tail), padded(x1_tail));
        rotate_halves(&mut a, &mut b, &padded(c_tail), &padded(s_tail));
        x0_tail.copy_from_slice(&a[..tail]);
        x1_tail.copy_from_slice(&b[..tail]);
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn rope_pairs(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    let (x, x_tail) = x[..2 * n].as_chunks_mut::<16>();
    let ((c, c_tail), (s, s_tail)) = (cos.as_chunks::<8>(), sin.as_chunks::<8>());
    for i in 0..c.len() {
        rotate_pairs(&mut x[i], &c[i], &s[i]);
    }
    if !x_tail.is_empty() {
        let mut block = padded(x_tail);
        rotate_pairs(&mut block, &padded(c_tail), &padded(s_tail));
        x_tail.copy_from_slice(&block[..x_tail.len()]);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn rotate_halves(x0: &mut [f32; 8], x1: &mut [f32; 8], c: &[f32; 8], s: &[f32; 8]) {
    let (a, b, c, s) = (load(x0), load(x1), load(c), load(s));
    store(x0, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    store(x1, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
}

/// Even elements become `x0·c − (x1·s)`, odd ones `x0·s + (x1·c)`: `fmaddsub` does both.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn rotate_pairs(x: &mut [f32; 16], c: &[f32; 8], s: &[f32; 8]) {
    let (c, s) = (load(c), load(s));
    // c0 s0 c1 s1 | c4 s4 c5 s5 and c2 s2 c3 s3 | c6 s6 c7 s7
    let (low, high) = (_mm256_unpacklo_ps(c, s), _mm256_unpackhi_ps(c, s));
    let turns = [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)];
    for (x, turn) in x.as_chunks_mut::<8>().0.iter_mut().zip(turns) {
        let v = load(x);
        let swapped = _mm256_permute_ps::<0b10_11_00_01>(turn);
        let cross = _mm256_mul_ps(_mm256_movehdup_ps(v), swapped);
        store(x, _mm256_fmaddsub_ps(_mm256_moveldup_ps(v), turn, cross));
    }
}
