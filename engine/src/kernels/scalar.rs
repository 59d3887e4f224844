//! Portable kernels: the meaning of every operation. Written for reading; every other table is held to this one.

use super::{Isa, Kernels, TileActs, assert_rows};
use crate::exact::exp::exp;
use crate::exact::reduce::{LANES, tree};
use crate::exact::{ATTENTION_CHUNK, I8_FLOOR};
use crate::quant::qk256::{TILE, TILE_BYTES};
use half::f16;

/// The scalar table.
pub static KERNELS: Kernels = Kernels {
    isa: Isa::Scalar,
    gemv_i2s_i8,
    gemv_f16_f32,
    gemv_f32_f32,
    dot_f32,
    sum_f32,
    max_f32,
    find_non_finite,
    rms_norm,
    exp_f32,
    silu_mul,
    relu2_mul,
    softmax,
    scale_f32,
    add_f32,
    rope_halves,
    rope_pairs,
    quantise_i8,
    dequantise_i32,
    narrow_f16,
    widen_f16,
    weigh_f16,
};

fn gemv_i2s_i8(codes: &[u8], row_bytes: usize, x: &TileActs, out: &mut [i32]) {
    x.assert_fits(codes, row_bytes, out.len());
    for (r, out) in out.iter_mut().enumerate() {
        *out = dot_i2s_i8(&codes[r * row_bytes..][..row_bytes], x.values()) - x.sum();
    }
}

/// `Σ code · q`. |Σ| ≤ 3 · 128 · cols: the model loader keeps cols below 2^31 / 384.
fn dot_i2s_i8(row: &[u8], x: &[i8]) -> i32 {
    let mut acc = 0;
    for (tile, x) in row.chunks(TILE_BYTES).zip(x.as_chunks::<TILE>().0) {
        for (p, &byte) in tile.iter().enumerate() {
            for field in 0..4 {
                let code = i32::from((byte >> (2 * field)) & 3);
                acc += code * i32::from(x[TILE_BYTES * field + p]);
            }
        }
    }
    acc
}

/// `R32(term, n)`: lane `l` takes terms `l, l + 32, …` in that order from +0.0; the last round is completed with terms of
/// operands +0.0.
fn r32(n: usize, mut step: impl FnMut(f32, Option<usize>) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for round in (0..n).step_by(LANES) {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane = step(*lane, Some(round + l).filter(|&i| i < n));
        }
    }
    tree(lanes)
}

fn dot_by(n: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> f32 {
    r32(n, |lane, i| {
        let (a, b) = i.map_or((0.0, 0.0), |i| (a(i), b(i)));
        a.mul_add(b, lane)
    })
}

fn gemv_f16_f32(w: &[u8], x: &[f32], out: &mut [f32]) {
    assert_rows(w, 2 * x.len(), out.len());
    for (r, out) in out.iter_mut().enumerate() {
        let row = &w[r * 2 * x.len()..];
        let weight = |i: usize| f16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32();
        *out = dot_by(x.len(), weight, |i| x[i]);
    }
}

fn gemv_f32_f32(w: &[u8], x: &[f32], out: &mut [f32]) {
    assert_rows(w, 4 * x.len(), out.len());
    for (r, out) in out.iter_mut().enumerate() {
        let row = &w[r * 4 * x.len()..];
        *out = dot_by(x.len(), |i| crate::quant::f32_at(row, 4 * i), |i| x[i]);
    }
}

fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    dot_by(a.len(), |i| a[i], |i| b[i])
}

fn sum_f32(a: &[f32]) -> f32 {
    r32(a.len(), |lane, i| lane + i.map_or(0.0, |i| a[i]))
}

fn max_f32(a: &[f32]) -> f32 {
    // −0 + 0 = +0: the sign of a zero does not depend on the order.
    a.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m }) + 0.0
}

fn find_non_finite(a: &[f32]) -> Option<usize> {
    a.iter().position(|v| !v.is_finite())
}

fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((x.len(), w.len()), (out.len(), out.len()));
    let r = 1.0 / (dot_f32(x, x) / x.len() as f32 + eps).sqrt();
    for i in 0..x.len() {
        out[i] = (x[i] * r) * w[i];
    }
}

fn exp_f32(x: &mut [f32]) {
    for v in x {
        *v = exp(*v);
    }
}

fn silu_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    assert_eq!((g.len(), u.len()), (out.len(), out.len()));
    for i in 0..out.len() {
        out[i] = (g[i] / (1.0 + exp(-g[i]))) * u[i];
    }
}

fn relu2_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    assert_eq!((g.len(), u.len()), (out.len(), out.len()));
    for i in 0..out.len() {
        let m = if g[i] > 0.0 { g[i] } else { 0.0 };
        out[i] = (m * m) * u[i];
    }
}

fn softmax(s: &mut [f32]) {
    let m = max_f32(s);
    for v in s.iter_mut() {
        *v = exp(*v - m);
    }
    let z = sum_f32(s);
    for v in s {
        *v /= z;
    }
}

fn scale_f32(x: &mut [f32], f: f32) {
    for v in x {
        *v *= f;
    }
}

fn add_f32(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

fn rotate(x0: f32, x1: f32, c: f32, s: f32) -> (f32, f32) {
    (x0.mul_add(c, -(x1 * s)), x0.mul_add(s, x1 * c))
}

fn rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    for i in 0..n {
        (x[i], x[i + n]) = rotate(x[i], x[i + n], cos[i], sin[i]);
    }
}

fn rope_pairs(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    for i in 0..n {
        (x[2 * i], x[2 * i + 1]) = rotate(x[2 * i], x[2 * i + 1], cos[i], sin[i]);
    }
}

fn quantise_i8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let a = x.iter().fold(I8_FLOOR, |a, v| a.max(v.abs()));
    let s = 127.0 / a;
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * s).round_ties_even().clamp(-128.0, 127.0) as i8;
    }
    s
}

fn dequantise_i32(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]) {
    assert_eq!(acc.len(), out.len());
    for (out, &acc) in out.iter_mut().zip(acc) {
        *out = (acc as f32 / s) * w_scale;
    }
}

fn narrow_f16(x: &[f32], out: &mut [u8]) -> Option<usize> {
    assert_eq!(2 * x.len(), out.len());
    let mut bad = None;
    for (i, (out, &x)) in out.as_chunks_mut::<2>().0.iter_mut().zip(x).enumerate() {
        let narrow = f16::from_f32(x);
        if !narrow.is_finite() && bad.is_none() {
            bad = Some(i);
        }
        *out = narrow.to_le_bytes();
    }
    bad
}

fn widen_f16(x: &[u8], out: &mut [f32]) {
    assert_eq!(x.len(), 2 * out.len());
    for (out, x) in out.iter_mut().zip(x.as_chunks::<2>().0) {
        *out = f16::from_le_bytes(*x).to_f32();
    }
}

fn weigh_f16(p: &[f32], v: &[u8], out: &mut [f32]) {
    let d = out.len();
    assert_rows(v, 2 * d, p.len());
    out.fill(0.0);
    let mut chunk_sum = vec![0.0_f32; d];
    for (p, v) in p.chunks(ATTENTION_CHUNK).zip(v.chunks((2 * d * ATTENTION_CHUNK).max(1))) {
        chunk_sum.fill(0.0);
        for (t, p) in p.iter().enumerate() {
            for (i, sum) in chunk_sum.iter_mut().enumerate() {
                let at = 2 * (t * d + i);
                *sum = p.mul_add(f16::from_le_bytes([v[at], v[at + 1]]).to_f32(), *sum);
            }
        }
        add_f32(out, &chunk_sum);
    }
}
