//! Rows of blocks with a scale each: `y = fma(d_w · d_a, Σ value · q, y)` over rising blocks, from +0.0.

use crate::kernels::acts::{Acts, Batch, Order};
use crate::kernels::batch_rows;
use crate::quant::{bitnet32, q2_0, q4_0, q4_1, q6_k, q8_0, tq1_0, tq2_0};

/// `out[r]` = the fold of `step(y, block of row r, activation block)` over blocks of `bytes`, from +0.0. A weight block
/// meets `parts` activation blocks.
fn rows(bytes: usize, parts: usize, w: &[u8], out: &mut [f32], step: impl Fn(f32, &[u8], usize) -> f32) {
    let row_bytes = w.len() / out.len().max(1);
    for (r, out) in out.iter_mut().enumerate() {
        let blocks = w[r * row_bytes..][..row_bytes].chunks(bytes).enumerate();
        *out =
            blocks.fold(0.0, |y, (b, block)| (0..parts).fold(y, |y, part| step(y, block, parts * b + part)));
    }
}

/// `Σ_j value(j) · q[first + j]` for `n` elements.
fn isum(x: &Acts, first: usize, n: usize, value: impl Fn(usize) -> i8) -> i32 {
    let q = &x.natural()[first..][..n];
    q.iter().enumerate().map(|(j, &q)| i32::from(value(j)) * i32::from(q)).sum()
}

/// `y = fma(d_w, isum, y)`, then `y / s`.
pub(super) fn gemv_bitnet32_i8(w: &[u8], x: &Acts, out: &mut [f32]) {
    x.assert_blocks(Order::Linear32, bitnet32::BLOCK, bitnet32::BLOCK_BYTES, w, out.len());
    rows(bitnet32::BLOCK_BYTES, 1, w, out, |y, block, b| {
        let sum = isum(x, 32 * b, 32, |j| bitnet32::value_at(block, j));
        bitnet32::scale(block).mul_add(sum as f32, y)
    });
    out.iter_mut().for_each(|y| *y /= x.scales()[0]);
}

pub(super) fn gemv_tq1_0_q8_k(w: &[u8], x: &Acts, out: &mut [f32]) {
    x.assert_blocks(Order::Tq1_0, tq1_0::BLOCK, tq1_0::BLOCK_BYTES, w, out.len());
    rows(tq1_0::BLOCK_BYTES, 1, w, out, |y, block, b| {
        let sum = isum(x, 256 * b, 256, |j| tq1_0::value_at(block, j));
        (tq1_0::scale(block) * x.scales()[b]).mul_add(sum as f32, y)
    });
}

pub(super) fn gemv_tq2_0_q8_k(w: &[u8], x: &Acts, out: &mut [f32]) {
    x.assert_blocks(Order::Tq2_0, tq2_0::BLOCK, tq2_0::BLOCK_BYTES, w, out.len());
    rows(tq2_0::BLOCK_BYTES, 1, w, out, |y, block, b| {
        let sum = isum(x, 256 * b, 256, |j| tq2_0::value_at(block, j));
        (tq2_0::scale(block) * x.scales()[b]).mul_add(sum as f32, y)
    });
}

/// A block of 64 weights meets two of 32 activations: two steps.
pub(super) fn gemv_q2_0_q8_0(w: &[u8], x: &Acts, out: &mut [f32]) {
    x.assert_blocks(Order::Linear32, q2_0::BLOCK, q2_0::BLOCK_BYTES, w, out.len());
    rows(q2_0::BLOCK_BYTES, 2, w, out, |y, block, b| {
        let sum = isum(x, 32 * b, 32, |j| q2_0::value_at(block, 32 * (b % 2) + j));
        (q2_0::scale(block) * x.scales()[b]).mul_add(sum as f32, y)
    });
}

pub(super) fn gemv_q8_0_q8_0(w: &[u8], x: &Acts, out: &mut [f32]) {
    x.assert_blocks(Order::Natural32, q8_0::BLOCK, q8_0::BLOCK_BYTES, w, out.len());
    rows(q8_0::BLOCK_BYTES, 1, w, out, |y, block, b| {
        let sum = isum(x, 32 * b, 32, |j| q8_0::value_at(block, j));
        (q8_0::scale(block) * x.scales()[b]).mul_add(sum as f32, y)
    });
}

pub(super) fn gemv_q4_0_q8_0(w: &[u8], x: &Acts, out: &mut [f32]) {
    x.assert_blocks(Order::Natural32, q4_0::BLOCK, q4_0::BLOCK_BYTES, w, out.len());
    rows(q4_0::BLOCK_BYTES, 1, w, out, |y, block, b| {
        let sum = isum(x, 32 * b, 32, |j| q4_0::value_at(block, j));
        (q4_0::scale(block) * x.scales()[b]).mul_add(sum as f32, y)
    });
}

/// After each block the minimum of its weights: `y = fma(m_w, s_a, y)`.
pub(super) fn gemv_q4_1_q8_1(w: &[u8], x: &Acts, out: &mut [f32]) {
    x.assert_blocks(Order::Natural32, q4_1::BLOCK, q4_1::BLOCK_BYTES, w, out.len());
    rows(q4_1::BLOCK_BYTES, 1, w, out, |y, block, b| {
        let sum = isum(x, 32 * b, 32, |j| q4_1::value_at(block, j));
        let y = (q4_1::scale(block) * x.scales()[b]).mul_add(sum as f32, y);
        q4_1::min(block).mul_add(x.mins()[b], y)
    });
}

/// `isum` is the sum of sub-scale · sub-sum over sixteen sub-blocks of 16: at most 16 · 128 · 16 · 32 · 128 < 2^28.
pub(super) fn gemv_q6_k_q8_k(w: &[u8], x: &Acts, out: &mut [f32]) {
    x.assert_blocks(Order::Natural256, q6_k::BLOCK, q6_k::BLOCK_BYTES, w, out.len());
    rows(q6_k::BLOCK_BYTES, 1, w, out, |y, block, b| {
        let sub = |s: usize| {
            let sum = isum(x, 256 * b + 16 * s, 16, |j| q6_k::value_at(block, 16 * s + j));
            i32::from(q6_k::sub_scale(block, 16 * s)) * sum
        };
        let sum: i32 = (0..16).map(sub).sum();
        (q6_k::scale(block) * x.scales()[b]).mul_add(sum as f32, y)
    });
}

macro_rules! gemm {
    ($($gemm:ident = $gemv:ident),* $(,)?) => {
        $(pub(super) fn $gemm(w: &[u8], x: &Batch, out: &mut [f32]) {
            batch_rows(x, out).for_each(|(x, out)| $gemv(w, x, out));
        })*
    };
}

gemm! {
    gemm_bitnet32_i8 = gemv_bitnet32_i8,
    gemm_tq1_0_q8_k = gemv_tq1_0_q8_k,
    gemm_tq2_0_q8_k = gemv_tq2_0_q8_k,
    gemm_q2_0_q8_0 = gemv_q2_0_q8_0,
    gemm_q8_0_q8_0 = gemv_q8_0_q8_0,
    gemm_q4_0_q8_0 = gemv_q4_0_q8_0,
    gemm_q4_1_q8_1 = gemv_q4_1_q8_1,
    gemm_q6_k_q8_k = gemv_q6_k_q8_k,
}
