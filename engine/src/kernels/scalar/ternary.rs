//! Rows of codes with one scale a row: exact sums in i32.
//!
//! No overflow: |Σ| ≤ max |value| · 128 · cols, which the model loader keeps below 2^31.

use crate::kernels::acts::{Acts, Batch, Order};
use crate::kernels::batch_rows;
use crate::quant::{i2_r4, i2s, linear_pm2, qk256, t5};

pub(super) fn gemv_i2s_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::I2S, Order::I2S64], qk256::TILE_BYTES, w, row_bytes, out.len());
    match x.order() {
        Order::I2S64 => sums(w, row_bytes, x, out, |row, c| {
            i2s::value_at_64(&row[c / i2s::BLOCK_64 * i2s::BLOCK_64_BYTES..], c % i2s::BLOCK_64)
        }),
        _ => sums(w, row_bytes, x, out, |row, c| {
            i2s::value_at(&row[c / i2s::BLOCK * i2s::BLOCK_BYTES..], c % i2s::BLOCK)
        }),
    }
}

pub(super) fn gemv_pm2_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::Linear256], linear_pm2::BLOCK_BYTES, w, row_bytes, out.len());
    sums(w, row_bytes, x, out, |row, c| {
        linear_pm2::value_at(&row[c / linear_pm2::BLOCK * linear_pm2::BLOCK_BYTES..], c % linear_pm2::BLOCK)
    });
}

pub(super) fn gemv_t5_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::T5], t5::BLOCK_BYTES, w, row_bytes, out.len());
    sums(w, row_bytes, x, out, |row, c| t5::value_at(&row[c / t5::BLOCK * t5::BLOCK_BYTES..], c % t5::BLOCK));
}

pub(super) fn gemv_r4_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits_r4(w, row_bytes, out.len());
    for (g, out) in out.chunks_exact_mut(i2_r4::ROWS).enumerate() {
        let bytes = &w[i2_r4::ROWS * row_bytes * g..][..i2_r4::ROWS * row_bytes];
        for (r, out) in out.iter_mut().enumerate() {
            let products = bytes
                .iter()
                .zip(x.natural())
                .map(|(&byte, &q)| i32::from(i2_r4::value_of(byte, r)) * i32::from(q));
            *out = products.sum();
        }
    }
}

/// `out[r] = Σ_c value(row r, c) · q[c]`
fn sums(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32], value: impl Fn(&[u8], usize) -> i8) {
    for (r, out) in out.iter_mut().enumerate() {
        let row = &w[r * row_bytes..][..row_bytes];
        let products = x.natural().iter().enumerate().map(|(c, &q)| i32::from(value(row, c)) * i32::from(q));
        *out = products.sum();
    }
}

pub(super) fn gemm_i2s_i8(w: &[u8], row_bytes: usize, x: &Batch, out: &mut [i32]) {
    batch_rows(x, out).for_each(|(x, out)| gemv_i2s_i8(w, row_bytes, x, out));
}

pub(super) fn gemm_pm2_i8(w: &[u8], row_bytes: usize, x: &Batch, out: &mut [i32]) {
    batch_rows(x, out).for_each(|(x, out)| gemv_pm2_i8(w, row_bytes, x, out));
}

pub(super) fn gemm_r4_i8(w: &[u8], row_bytes: usize, x: &Batch, out: &mut [i32]) {
    batch_rows(x, out).for_each(|(x, out)| gemv_r4_i8(w, row_bytes, x, out));
}

pub(super) fn gemm_t5_i8(w: &[u8], row_bytes: usize, x: &Batch, out: &mut [i32]) {
    batch_rows(x, out).for_each(|(x, out)| gemv_t5_i8(w, row_bytes, x, out));
}
