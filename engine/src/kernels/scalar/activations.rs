//! Activation formats, and the way back from integer sums.

use crate::exact::I8_FLOOR;
use half::{bf16, f16};

pub(super) fn quantise_i8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let a = x.iter().fold(I8_FLOOR, |a, v| a.max(v.abs()));
    let s = 127.0 / a;
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * s).round_ties_even().clamp(-128.0, 127.0) as i8;
    }
    s
}

pub(super) fn dequantise_i32(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]) {
    assert_eq!(acc.len(), out.len());
    for (out, &acc) in out.iter_mut().zip(acc) {
        *out = (acc as f32 / s) * w_scale;
    }
}

pub(super) fn narrow_f16(x: &[f32], out: &mut [u8]) -> Option<usize> {
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

pub(super) fn widen_f16(x: &[u8], out: &mut [f32]) {
    assert_eq!(x.len(), 2 * out.len());
    for (out, x) in out.iter_mut().zip(x.as_chunks::<2>().0) {
        *out = f16::from_le_bytes(*x).to_f32();
    }
}

/// Blocks of 256: the value of largest magnitude, the first of equals, becomes −127.
pub(super) fn quantise_q8_k(x: &[f32], q: &mut [i8], d: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 256 * d.len()));
    for ((x, q), d) in x.chunks(256).zip(q.chunks_mut(256)).zip(d) {
        let m = x.iter().fold(0.0_f32, |m, &v| if v.abs() > m.abs() { v } else { m });
        let i = -127.0 / m;
        if m == 0.0 || i.is_infinite() {
            q.fill(0);
            *d = 0.0;
            continue;
        }
        for (q, &x) in q.iter_mut().zip(x) {
            *q = (i * x).round_ties_even().min(127.0) as i8;
        }
        *d = 1.0 / i;
    }
}

/// Blocks of 32; calls `done(block, a / 127, values)` after each.
fn q8_blocks(x: &[f32], q: &mut [i8], mut done: impl FnMut(usize, f32, &[i8])) {
    for (block, (x, q)) in x.chunks(32).zip(q.chunks_mut(32)).enumerate() {
        let a = x.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
        let i = 127.0 / a;
        if a == 0.0 || i.is_infinite() {
            q.fill(0);
            done(block, 0.0, q);
            continue;
        }
        for (q, &x) in q.iter_mut().zip(x) {
            *q = (x * i).round_ties_even() as i8;
        }
        done(block, a / 127.0, q);
    }
}

pub(super) fn quantise_q8_0(x: &[f32], q: &mut [i8], d: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 32 * d.len()));
    q8_blocks(x, q, |block, d32, _| d[block] = f16::from_f32(d32).to_f32());
}

pub(super) fn quantise_q8_1(x: &[f32], q: &mut [i8], d: &mut [f32], s: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (q.len(), 32 * d.len()));
    assert_eq!(d.len(), s.len());
    q8_blocks(x, q, |block, d32, q| {
        let sum: i32 = q.iter().map(|&q| i32::from(q)).sum();
        d[block] = f16::from_f32(d32).to_f32();
        s[block] = f16::from_f32(d32 * sum as f32).to_f32();
    });
}

pub(super) fn round_bf16(x: &mut [f32]) -> Option<usize> {
    let mut bad = None;
    for (i, x) in x.iter_mut().enumerate() {
        *x = bf16::from_f32(*x).to_f32();
        if !x.is_finite() && bad.is_none() {
            bad = Some(i);
        }
    }
    bad
}
