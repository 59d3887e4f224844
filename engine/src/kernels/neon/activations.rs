//! Between the forms of an activation row: int8 with a scale, f16, f32.

use super::memory::{load, load_f16, load_i32, padded, store, store_halves, store_i8};
use crate::exact::I8_FLOOR;
use std::arch::aarch64::*;

#[target_feature(enable = "neon")]
pub(super) fn quantise_i8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let (blocks, tail) = x.as_chunks::<16>();
    let (out, out_tail) = q.as_chunks_mut::<16>();
    let mut m = [vdupq_n_f32(I8_FLOOR); 4];
    for block in blocks {
        for (m, v) in m.iter_mut().zip(block.as_chunks().0) {
            *m = vmaxq_f32(*m, vabsq_f32(load(v)));
        }
    }
    let m = vmaxvq_f32(vmaxq_f32(vmaxq_f32(m[0], m[1]), vmaxq_f32(m[2], m[3])));
    let s = 127.0 / tail.iter().fold(m, |a, v| a.max(v.abs()));
    for (block, out) in blocks.iter().zip(out) {
        round_16(block, s, out);
    }
    if !tail.is_empty() {
        let mut block = [0; 16];
        round_16(&padded(tail), s, &mut block);
        out_tail.copy_from_slice(&block[..tail.len()]);
    }
    s
}

/// `vcvtnq` rounds ties to even; the narrowings saturate, which is the clamp.
#[inline]
#[target_feature(enable = "neon")]
fn round_16(x: &[f32; 16], s: f32, out: &mut [i8; 16]) {
    let x = x.as_chunks().0;
    let round = |i: usize| vcvtnq_s32_f32(vmulq_n_f32(load(&x[i]), s));
    let low = vqmovn_high_s32(vqmovn_s32(round(0)), round(1));
    let high = vqmovn_high_s32(vqmovn_s32(round(2)), round(3));
    store_i8(out, vqmovn_high_s16(vqmovn_s16(low), high));
}

#[target_feature(enable = "neon")]
pub(super) fn dequantise_i32(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]) {
    assert_eq!(acc.len(), out.len());
    let ((acc, acc_tail), (out, out_tail)) = (acc.as_chunks::<4>(), out.as_chunks_mut::<4>());
    let divisor = vdupq_n_f32(s);
    for (acc, out) in acc.iter().zip(out) {
        let quotient = vdivq_f32(vcvtq_f32_s32(load_i32(acc)), divisor);
        store(out, vmulq_n_f32(quotient, w_scale));
    }
    for (acc, out) in acc_tail.iter().zip(out_tail) {
        *out = (*acc as f32 / s) * w_scale;
    }
}

#[target_feature(enable = "neon")]
pub(super) fn narrow_f16(x: &[f32], out: &mut [u8]) -> Option<usize> {
    assert_eq!(2 * x.len(), out.len());
    let (blocks, tail) = x.as_chunks::<8>();
    let (out, out_tail) = out.as_chunks_mut::<16>();
    let mut bad = None;
    for (i, (block, out)) in blocks.iter().zip(out).enumerate() {
        let found = narrow_8(block, out);
        bad = bad.or_else(|| found.map(|at| 8 * i + at));
    }
    if !tail.is_empty() {
        let mut block = [0; 16];
        let found = narrow_8(&padded(tail), &mut block);
        out_tail.copy_from_slice(&block[..out_tail.len()]);
        bad = bad.or_else(|| found.map(|at| 8 * blocks.len() + at));
    }
    bad
}

/// Returns the first that is no finite f16.
#[inline]
#[target_feature(enable = "neon")]
fn narrow_8(x: &[f32; 8], out: &mut [u8; 16]) -> Option<usize> {
    let x = x.as_chunks().0;
    let low = vcvt_f16_f32(load(&x[0]));
    let narrow = vreinterpretq_u16_f16(vcvt_high_f16_f32(low, load(&x[1])));
    store_halves(out, narrow);
    let exponent = vdupq_n_u16(0x7c00);
    let bad = vmovn_u16(vceqq_u16(vandq_u16(narrow, exponent), exponent));
    // One byte for each element.
    let bad = vget_lane_u64::<0>(vreinterpret_u64_u8(bad));
    (bad != 0).then(|| bad.trailing_zeros() as usize / 8)
}

#[target_feature(enable = "neon")]
pub(super) fn widen_f16(x: &[u8], out: &mut [f32]) {
    assert_eq!(x.len(), 2 * out.len());
    let ((x, x_tail), (out, out_tail)) = (x.as_chunks::<8>(), out.as_chunks_mut::<4>());
    for (x, out) in x.iter().zip(out) {
        store(out, load_f16(x));
    }
    if !out_tail.is_empty() {
        let mut block = [0.0; 4];
        store(&mut block, load_f16(&padded(x_tail)));
        out_tail.copy_from_slice(&block[..out_tail.len()]);
    }
}
