//! Element by element: norms, activations, softmax, RoPE.

use super::floats::{dot_f32, max_f32, sum_f32};
use crate::exact::exp::exp;

pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((x.len(), w.len()), (out.len(), out.len()));
    let r = 1.0 / (dot_f32(x, x) / x.len() as f32 + eps).sqrt();
    for i in 0..x.len() {
        out[i] = (x[i] * r) * w[i];
    }
}

pub(super) fn exp_f32(x: &mut [f32]) {
    for v in x {
        *v = exp(*v);
    }
}

pub(super) fn silu_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    assert_eq!((g.len(), u.len()), (out.len(), out.len()));
    for i in 0..out.len() {
        out[i] = (g[i] / (1.0 + exp(-g[i]))) * u[i];
    }
}

pub(super) fn relu2_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    assert_eq!((g.len(), u.len()), (out.len(), out.len()));
    for i in 0..out.len() {
        let m = if g[i] > 0.0 { g[i] } else { 0.0 };
        out[i] = (m * m) * u[i];
    }
}

pub(super) fn softmax(s: &mut [f32]) {
    let m = max_f32(s);
    for v in s.iter_mut() {
        *v = exp(*v - m);
    }
    let z = sum_f32(s);
    for v in s {
        *v /= z;
    }
}

pub(super) fn scale_f32(x: &mut [f32], f: f32) {
    for v in x {
        *v *= f;
    }
}

pub(super) fn add_f32(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

pub(super) fn rotate(x0: f32, x1: f32, c: f32, s: f32) -> (f32, f32) {
    (x0.mul_add(c, -(x1 * s)), x0.mul_add(s, x1 * c))
}

pub(super) fn rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    for i in 0..n {
        (x[i], x[i + n]) = rotate(x[i], x[i + n], cos[i], sin[i]);
    }
}

pub(super) fn rope_pairs(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    for i in 0..n {
        (x[2 * i], x[2 * i + 1]) = rotate(x[2 * i], x[2 * i + 1], cos[i], sin[i]);
    }
}
