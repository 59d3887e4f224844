//! Element by element: norms, activation functions, softmax, RoPE.

use super::floats::{dot_f32, max_f32, sum_f32};
use super::memory::{load, padded, store};
use crate::exact::exp::{LN2_HIGH, LN2_LOW, LOG2_E, MAX, MIN, POLYNOMIAL};
use std::arch::aarch64::*;

/// `x_i = f(x_i)`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn map(x: &mut [f32], f: impl Fn(float32x4_t) -> float32x4_t) {
    let (blocks, tail) = x.as_chunks_mut::<4>();
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
#[target_feature(enable = "neon")]
fn map2(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) {
    assert_eq!((a.len(), b.len()), (out.len(), out.len()));
    let (a, a_tail) = a.as_chunks::<4>();
    let (b, b_tail) = b.as_chunks::<4>();
    let (blocks, tail) = out.as_chunks_mut::<4>();
    for i in 0..blocks.len() {
        store(&mut blocks[i], f(load(&a[i]), load(&b[i])));
    }
    if !tail.is_empty() {
        let mut block = [0.0; 4];
        store(&mut block, f(load(&padded(a_tail)), load(&padded(b_tail))));
        tail.copy_from_slice(&block[..tail.len()]);
    }
}

#[target_feature(enable = "neon")]
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((x.len(), w.len()), (out.len(), out.len()));
    let r = vdupq_n_f32(1.0 / (dot_f32(x, x) / x.len() as f32 + eps).sqrt());
    map2(x, w, out, |x, w| vmulq_f32(vmulq_f32(x, r), w));
}

/// [`crate::exact::exp::exp`] of four values. `vfmaq(c, a, b)` is `fma(a, b, c)`, `vfmsq(c, a, b)` is `fma(-a, b, c)`.
#[inline]
#[target_feature(enable = "neon")]
fn exp(x: float32x4_t) -> float32x4_t {
    let number = vceqq_f32(x, x);
    let x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(MIN)), vdupq_n_f32(MAX));
    let k = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(LOG2_E)));
    let r = vfmsq_f32(x, k, vdupq_n_f32(LN2_HIGH));
    let r = vfmsq_f32(r, k, vdupq_n_f32(LN2_LOW));
    let mut p = vdupq_n_f32(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = vfmaq_f32(vdupq_n_f32(*c), p, r);
    }
    let y = vaddq_f32(vfmaq_f32(r, p, vmulq_f32(r, r)), vdupq_n_f32(1.0));
    let power = vshlq_n_s32::<23>(vcvtq_s32_f32(k));
    let y = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(y), power));
    vbslq_f32(number, y, vdupq_n_f32(f32::from_bits(0x7fc0_0000)))
}

#[target_feature(enable = "neon")]
pub(super) fn exp_f32(x: &mut [f32]) {
    map(x, |v| exp(v));
}

#[target_feature(enable = "neon")]
pub(super) fn silu_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    map2(g, u, out, |g, u| {
        let below = vaddq_f32(vdupq_n_f32(1.0), exp(vnegq_f32(g)));
        vmulq_f32(vdivq_f32(g, below), u)
    });
}

#[target_feature(enable = "neon")]
pub(super) fn relu2_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    map2(g, u, out, |g, u| {
        // +0 where g is not above 0, as in scalar: for −0 and NaN too.
        let above = vcgtq_f32(g, vdupq_n_f32(0.0));
        let m = vreinterpretq_f32_u32(vandq_u32(above, vreinterpretq_u32_f32(g)));
        vmulq_f32(vmulq_f32(m, m), u)
    });
}

#[target_feature(enable = "neon")]
pub(super) fn softmax(s: &mut [f32]) {
    let m = vdupq_n_f32(max_f32(s));
    map(s, |v| exp(vsubq_f32(v, m)));
    let z = vdupq_n_f32(sum_f32(s));
    map(s, |v| vdivq_f32(v, z));
}

#[target_feature(enable = "neon")]
pub(super) fn scale_f32(x: &mut [f32], f: f32) {
    map(x, |v| vmulq_n_f32(v, f));
}

#[target_feature(enable = "neon")]
pub(super) fn add_f32(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    let ((x, x_tail), (y, y_tail)) = (x.as_chunks_mut::<4>(), y.as_chunks::<4>());
    for (x, y) in x.iter_mut().zip(y) {
        store(x, vaddq_f32(load(x), load(y)));
    }
    for (x, y) in x_tail.iter_mut().zip(y_tail) {
        *x += y;
    }
}

/// `fma(x0, c, −(x1·s))` and `fma(x0, s, x1·c)`.
#[inline]
#[target_feature(enable = "neon")]
fn rotate(x0: float32x4_t, x1: float32x4_t, c: float32x4_t, s: float32x4_t) -> [float32x4_t; 2] {
    [vfmaq_f32(vnegq_f32(vmulq_f32(x1, s)), x0, c), vfmaq_f32(vmulq_f32(x1, c), x0, s)]
}

#[target_feature(enable = "neon")]
pub(super) fn rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    let (x0, x1) = x[..2 * n].split_at_mut(n);
    let ((x0, x0_tail), (x1, x1_tail)) = (x0.as_chunks_mut::<4>(), x1.as_chunks_mut::<4>());
    let ((c, c_tail), (s, s_tail)) = (cos.as_chunks::<4>(), sin.as_chunks::<4>());
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

#[inline]
#[target_feature(enable = "neon")]
fn rotate_halves(x0: &mut [f32; 4], x1: &mut [f32; 4], c: &[f32; 4], s: &[f32; 4]) {
    let [a, b] = rotate(load(x0), load(x1), load(c), load(s));
    store(x0, a);
    store(x1, b);
}

#[target_feature(enable = "neon")]
pub(super) fn rope_pairs(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    let (x, x_tail) = x[..2 * n].as_chunks_mut::<8>();
    let ((c, c_tail), (s, s_tail)) = (cos.as_chunks::<4>(), sin.as_chunks::<4>());
    for i in 0..c.len() {
        rotate_pairs(&mut x[i], &c[i], &s[i]);
    }
    if !x_tail.is_empty() {
        let mut block = padded(x_tail);
        rotate_pairs(&mut block, &padded(c_tail), &padded(s_tail));
        x_tail.copy_from_slice(&block[..x_tail.len()]);
    }
}

/// The even elements of eight are the `x0` of four pairs, the odd ones their `x1`.
#[inline]
#[target_feature(enable = "neon")]
fn rotate_pairs(x: &mut [f32; 8], c: &[f32; 4], s: &[f32; 4]) {
    let [low, high] = x.as_chunks_mut::<4>().0 else { unreachable!("eight elements are two registers") };
    let (v, w) = (load(low), load(high));
    let [a, b] = rotate(vuzp1q_f32(v, w), vuzp2q_f32(v, w), load(c), load(s));
    store(low, vzip1q_f32(a, b));
    store(high, vzip2q_f32(a, b));
}
