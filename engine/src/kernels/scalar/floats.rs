//! Float weights and the reductions of the contract, see [`crate::exact::reduce`].

use super::elementwise::add_f32;
use crate::exact::ATTENTION_CHUNK;
use crate::exact::reduce::{LANES, tree};
use crate::kernels::{assert_rows, float_shape, weigh_shape};
use crate::quant::f32_at;
use half::{bf16, f16};

/// `R32(term, n)`: lane `l` takes terms `l, l + 32, …` in that order from +0.0; the last round is completed with terms of
/// operands +0.0.
pub(super) fn r32(n: usize, mut step: impl FnMut(f32, Option<usize>) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for round in (0..n).step_by(LANES) {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane = step(*lane, Some(round + l).filter(|&i| i < n));
        }
    }
    tree(lanes)
}

pub(super) fn dot_by(n: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> f32 {
    r32(n, |lane, i| {
        let (a, b) = i.map_or((0.0, 0.0), |i| (a(i), b(i)));
        a.mul_add(b, lane)
    })
}

pub(super) fn gemv_f16_f32(w: &[u8], x: &[f32], out: &mut [f32]) {
    assert_rows(w, 2 * x.len(), out.len());
    for (r, out) in out.iter_mut().enumerate() {
        let row = &w[r * 2 * x.len()..];
        let weight = |i: usize| f16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32();
        *out = dot_by(x.len(), weight, |i| x[i]);
    }
}

pub(super) fn gemv_f32_f32(w: &[u8], x: &[f32], out: &mut [f32]) {
    assert_rows(w, 4 * x.len(), out.len());
    for (r, out) in out.iter_mut().enumerate() {
        let row = &w[r * 4 * x.len()..];
        *out = dot_by(x.len(), |i| f32_at(row, 4 * i), |i| x[i]);
    }
}

pub(super) fn gemv_bf16_f32(w: &[u8], x: &[f32], out: &mut [f32]) {
    assert_rows(w, 2 * x.len(), out.len());
    for (r, out) in out.iter_mut().enumerate() {
        let row = &w[r * 2 * x.len()..];
        let weight = |i: usize| bf16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32();
        *out = dot_by(x.len(), weight, |i| x[i]);
    }
}

macro_rules! gemm {
    ($($gemm:ident = $gemv:ident, $weight_bytes:literal);*) => {
        $(pub(super) fn $gemm(w: &[u8], cols: usize, x: &[f32], out: &mut [f32]) {
            let (rows, tokens) = float_shape(w, $weight_bytes * cols, cols, x, out);
            for t in 0..tokens {
                $gemv(w, &x[t * cols..][..cols], &mut out[t * rows..][..rows]);
            }
        })*
    };
}

gemm! {
    gemm_f16_f32 = gemv_f16_f32, 2;
    gemm_bf16_f32 = gemv_bf16_f32, 2;
    gemm_f32_f32 = gemv_f32_f32, 4
}

pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    dot_by(a.len(), |i| a[i], |i| b[i])
}

pub(super) fn sum_f32(a: &[f32]) -> f32 {
    r32(a.len(), |lane, i| lane + i.map_or(0.0, |i| a[i]))
}

pub(super) fn max_f32(a: &[f32]) -> f32 {
    // −0 + 0 = +0: the sign of a zero does not depend on the order.
    a.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m }) + 0.0
}

pub(super) fn find_non_finite(a: &[f32]) -> Option<usize> {
    a.iter().position(|v| !v.is_finite())
}

pub(super) fn weigh_f16(p: &[f32], v: &[u8], d: usize, out: &mut [f32]) {
    let (queries, positions) = weigh_shape(p, v, d, out);
    out.fill(0.0);
    let mut chunk_sum = vec![0.0_f32; d];
    for query in 0..queries {
        let (p, out) = (&p[query * positions..][..positions], &mut out[query * d..][..d]);
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
}
