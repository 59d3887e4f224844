//! Rows of float weights, reductions over 32 lanes, and the weighted sum of attention.

use super::memory::{Lanes, load, load_f16, load32, load32_bf16, load32_f16, load32_f32, padded, store};
use crate::kernels::streams::{Weighing, apart, parts, weigh_by};
use crate::kernels::{float_shape, put};
use std::arch::aarch64::*;
use std::array::from_fn;

#[inline]
#[target_feature(enable = "neon")]
fn zero() -> Lanes {
    [vdupq_n_f32(0.0); 8]
}

#[inline]
#[target_feature(enable = "neon")]
fn fma32(lanes: &mut Lanes, a: Lanes, b: Lanes) {
    for i in 0..8 {
        lanes[i] = vfmaq_f32(lanes[i], a[i], b[i]);
    }
}

/// [`crate::exact::reduce::tree`].
#[inline]
#[target_feature(enable = "neon")]
fn tree(lanes: Lanes) -> f32 {
    let by_16: [_; 4] = from_fn(|i| vaddq_f32(lanes[i], lanes[i + 4]));
    let by_8 = [vaddq_f32(by_16[0], by_16[2]), vaddq_f32(by_16[1], by_16[3])];
    let by_4 = vaddq_f32(by_8[0], by_8[1]);
    let by_2 = vadd_f32(vget_low_f32(by_4), vget_high_f32(by_4));
    vget_lane_f32::<0>(by_2) + vget_lane_f32::<1>(by_2)
}

macro_rules! of_format {
    ($gemv:ident, $gemm:ident, $load32:ident, $round:literal) => {
        #[target_feature(enable = "neon")]
        pub(super) fn $gemv(w: &[u8], x: &[f32], out: &mut [f32]) {
            gemm(w, x.len(), x, out, |w: &[u8; $round]| $load32(w));
        }

        #[target_feature(enable = "neon")]
        pub(super) fn $gemm(w: &[u8], cols: usize, x: &[f32], out: &mut [f32]) {
            gemm(w, cols, x, out, |w: &[u8; $round]| $load32(w));
        }
    };
}

of_format!(gemv_f16_f32, gemm_f16_f32, load32_f16, 64);
of_format!(gemv_bf16_f32, gemm_bf16_f32, load32_bf16, 64);
of_format!(gemv_f32_f32, gemm_f32_f32, load32_f32, 128);

/// Rows of float weights, of which `ROUND` bytes are 32, with every token of `x`: two rows of one token at a time, or one
/// row of two tokens, which share the widened weights.
#[inline]
#[target_feature(enable = "neon")]
fn gemm<const ROUND: usize>(
    w: &[u8],
    cols: usize,
    x: &[f32],
    out: &mut [f32],
    widen: impl Fn(&[u8; ROUND]) -> Lanes,
) {
    let row_bytes = ROUND / 32 * cols;
    let (rows, tokens) = float_shape(w, row_bytes, cols, x, out);
    for numbers in apart::<2>(rows) {
        let group = numbers.map(|row| &w[row * row_bytes..][..row_bytes]);
        let mut token = 0;
        while token + 2 <= tokens {
            for r in 0..2 {
                let values: [_; 2] = dot_tile([group[r]], cols, &x[token * cols..], &widen);
                put(out, rows, [numbers[r]], token, &values);
            }
            token += 2;
        }
        if token < tokens {
            let values: [_; 1] = dot_tile(group, cols, &x[token * cols..], &widen);
            put(out, rows, numbers, token, &values);
        }
    }
}

/// `R` rows with `T` tokens, each pair in its own 32 lanes: those of two pairs and what they share are 24 of the 32
/// registers.
#[inline]
#[target_feature(enable = "neon")]
fn dot_tile<const R: usize, const T: usize, const ROUND: usize>(
    rows: [&[u8]; R],
    cols: usize,
    x: &[f32],
    widen: &impl Fn(&[u8; ROUND]) -> Lanes,
) -> [[f32; R]; T] {
    let rows = rows.map(|row| row.as_chunks::<ROUND>());
    let rounds = parts(rows.map(|row| row.0), 0..cols / 32);
    let tokens: [_; T] = from_fn(|t| x[t * cols..][..cols].as_chunks::<32>());
    let token_rounds = parts(tokens.map(|token| token.0), 0..cols / 32);
    let mut lanes = [[zero(); R]; T];
    for i in 0..cols / 32 {
        let w: [Lanes; R] = from_fn(|r| widen(&rounds[r][i]));
        for t in 0..T {
            let x = load32(&token_rounds[t][i]);
            for r in 0..R {
                fma32(&mut lanes[t][r], w[r], x);
            }
        }
    }
    if !cols.is_multiple_of(32) {
        for t in 0..T {
            let x = load32(&padded(tokens[t].1));
            for r in 0..R {
                fma32(&mut lanes[t][r], widen(&padded(rows[r].1)), x);
            }
        }
    }
    lanes.map(|lanes| lanes.map(|lanes| tree(lanes)))
}

#[target_feature(enable = "neon")]
pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    let mut lanes = zero();
    for (a, b) in a.iter().zip(b) {
        fma32(&mut lanes, load32(a), load32(b));
    }
    if !a_tail.is_empty() {
        fma32(&mut lanes, load32(&padded(a_tail)), load32(&padded(b_tail)));
    }
    tree(lanes)
}

#[target_feature(enable = "neon")]
pub(super) fn sum_f32(a: &[f32]) -> f32 {
    let (rounds, tail) = a.as_chunks::<32>();
    let mut lanes = zero();
    let add = |lanes: &mut Lanes, a: Lanes| {
        for i in 0..8 {
            lanes[i] = vaddq_f32(lanes[i], a[i]);
        }
    };
    for a in rounds {
        add(&mut lanes, load32(a));
    }
    if !tail.is_empty() {
        add(&mut lanes, load32(&padded(tail)));
    }
    tree(lanes)
}

#[target_feature(enable = "neon")]
pub(super) fn max_f32(a: &[f32]) -> f32 {
    let (blocks, tail) = a.as_chunks::<4>();
    let mut m = vdupq_n_f32(f32::NEG_INFINITY);
    for block in blocks {
        m = vmaxq_f32(m, load(block));
    }
    let m = tail.iter().fold(vmaxvq_f32(m), |m, &v| if v > m { v } else { m });
    // −0 + 0 = +0.
    m + 0.0
}

#[target_feature(enable = "neon")]
pub(super) fn find_non_finite(a: &[f32]) -> Option<usize> {
    let (blocks, tail) = a.as_chunks::<4>();
    let exponent = vdupq_n_u32(0x7f80_0000);
    let first = |values: &[f32]| values.iter().position(|v| !v.is_finite());
    for (i, block) in blocks.iter().enumerate() {
        let bits = vandq_u32(vreinterpretq_u32_f32(load(block)), exponent);
        if vmaxvq_u32(vceqq_u32(bits, exponent)) != 0 {
            return first(block).map(|at| 4 * i + at);
        }
    }
    first(tail).map(|at| 4 * blocks.len() + at)
}

#[target_feature(enable = "neon")]
pub(super) fn weigh_f16(p: &[f32], v: &[u8], d: usize, out: &mut [f32]) {
    weigh_by::<16, 32, 4>(
        p,
        v,
        d,
        out,
        |part, out| weigh_block::<4, 4>(part, out),
        |part, out| weigh_block::<1, 8>(part, out),
        |part, out| weigh_block::<1, 1>(part, out),
    );
}

/// `Q` queries with the dimensions `at … at + 4 B`, or as many as there are, in registers over a chunk of positions.
#[inline]
#[target_feature(enable = "neon")]
fn weigh_block<const Q: usize, const B: usize>(part: Weighing<'_>, out: &mut [f32]) {
    let (p, n) = (part.queries::<Q>(), (part.d - part.at).min(4 * B));
    let mut lanes = [[vdupq_n_f32(0.0); B]; Q];
    for t in 0..part.len {
        let v = part.value(t, n);
        let mut wide = [vdupq_n_f32(0.0); B];
        match v.as_chunks::<8>().0.as_array::<B>() {
            Some(v) => {
                for b in 0..B {
                    wide[b] = load_f16(&v[b]);
                }
            }
            None => {
                for b in 0..B {
                    wide[b] = load_f16(&padded(&v[(2 * n).min(8 * b)..(2 * n).min(8 * b + 8)]));
                }
            }
        }
        for q in 0..Q {
            let p = vdupq_n_f32(p[q][t]);
            for b in 0..B {
                lanes[q][b] = vfmaq_f32(lanes[q][b], p, wide[b]);
            }
        }
    }
    for q in 0..Q {
        let out = &mut out[q * part.d + part.at..][..n];
        for b in 0..B {
            let out = &mut out[n.min(4 * b)..n.min(4 * b + 4)];
            let mut block = padded(out);
            let sum = vaddq_f32(load(&block), lanes[q][b]);
            store(&mut block, sum);
            out.copy_from_slice(&block[..out.len()]);
        }
    }
}
