//! Activation formats, and the way back from integer sums.

use super::elementwise::map;
use super::floats::find_non_finite;
use super::memory::{load, load_f16, load_i8, load_i32, padded, store, store_halves, store_i8};
use crate::exact::I8_FLOOR;
use std::arch::aarch64::*;

#[target_feature(enable = "neon")]
pub(super) fn quantise_i8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let (blocks, tail) = x.as_chunks::<16>();
    let (out, out_tail) = q.as_chunks_mut::<16>();
    let s = 127.0 / tail.iter().fold(magnitude(blocks).max(I8_FLOOR), |a, v| a.max(v.abs()));
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

/// `max|x|`.
#[inline]
#[target_feature(enable = "neon")]
fn magnitude(x: &[[f32; 16]]) -> f32 {
    let mut m = [vdupq_n_f32(0.0); 4];
    for block in x {
        for (m, v) in m.iter_mut().zip(block.as_chunks().0) {
            *m = vmaxq_f32(*m, vabsq_f32(load(v)));
        }
    }
    vmaxvq_f32(vmaxq_f32(vmaxq_f32(m[0], m[1]), vmaxq_f32(m[2], m[3])))
}

/// No product is beyond 127: of the largest magnitude it is 127 but for a rounding, which `rint` takes away.
#[target_feature(enable = "neon")]
pub(super) fn quantise_q8_k(x: &[f32], q: &mut [i8], d: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 256 * d.len()));
    let (x, q) = (x.as_chunks::<256>().0, q.as_chunks_mut::<256>().0);
    for ((x, q), d) in x.iter().zip(q).zip(d) {
        let a = magnitude(x.as_chunks().0);
        let m = x.iter().find(|v| v.abs() == a).map_or(0.0, |m| *m);
        let i = -127.0 / m;
        if a == 0.0 || i.is_infinite() {
            (*q, *d) = ([0; 256], 0.0);
            continue;
        }
        for (x, q) in x.as_chunks().0.iter().zip(q.as_chunks_mut().0) {
            round_16(x, i, q);
        }
        *d = 1.0 / i;
    }
}

/// Blocks of 32; calls `done(block, a / 127, values)` after each.
#[inline]
#[target_feature(enable = "neon")]
fn q8_blocks(x: &[f32], q: &mut [i8], mut done: impl FnMut(usize, f32, &[[i8; 16]])) {
    let (x, q) = (x.as_chunks::<32>().0, q.as_chunks_mut::<32>().0);
    for (block, (x, q)) in x.iter().zip(q).enumerate() {
        let (x, q) = (x.as_chunks().0, q.as_chunks_mut().0);
        let a = magnitude(x);
        let i = 127.0 / a;
        if a == 0.0 || i.is_infinite() {
            q.fill([0; 16]);
            done(block, 0.0, q);
        } else {
            x.iter().zip(q.iter_mut()).for_each(|(x, q)| round_16(x, i, q));
            done(block, a / 127.0, q);
        }
    }
}

#[target_feature(enable = "neon")]
pub(super) fn quantise_q8_0(x: &[f32], q: &mut [i8], d: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 32 * d.len()));
    q8_blocks(x, q, |block, d32, _| d[block] = d32);
    map(d, |d| round_f16(d));
}

#[target_feature(enable = "neon")]
pub(super) fn quantise_q8_1(x: &[f32], q: &mut [i8], d: &mut [f32], s: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 32 * d.len()));
    assert_eq!(d.len(), s.len());
    q8_blocks(x, q, |block, d32, q| {
        // Sixteen values are at most 2048 in i16.
        let sum: i32 = q.iter().map(|q| i32::from(vaddlvq_s8(load_i8(q)))).sum();
        d[block] = d32;
        s[block] = d32 * sum as f32;
    });
    map(d, |d| round_f16(d));
    map(s, |s| round_f16(s));
}

/// To f16 and back.
#[inline]
#[target_feature(enable = "neon")]
fn round_f16(v: float32x4_t) -> float32x4_t {
    vcvt_f32_f16(vcvt_f16_f32(v))
}

#[target_feature(enable = "neon")]
pub(super) fn round_bf16(x: &mut [f32]) -> Option<usize> {
    map(x, |v| {
        // Half a step less one, and one if what stays is odd: a tie goes to even. A carry takes the largest to infinity.
        let bits = vreinterpretq_u32_f32(v);
        let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
        let up = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
        // A carry out of a NaN would make a number of it.
        let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
        let rounded = vbslq_u32(vceqq_f32(v, v), up, quiet);
        vreinterpretq_f32_u32(vandq_u32(rounded, vdupq_n_u32(!0xffff)))
    });
    find_non_finite(x)
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
