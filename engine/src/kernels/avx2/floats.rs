//! Float weights and the reductions of the contract, see [`crate::exact::reduce`].

use super::memory::*;
use crate::kernels::streams::{Weighing, apart, weigh_by};
use crate::kernels::{float_shape, put};
use std::arch::x86_64::*;

/// 32 lanes: lane `l` is element `l % 8` of register `l / 8`.
pub(super) type Lanes = [__m256; 4];

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn fma32(lanes: &mut Lanes, a: Lanes, b: Lanes) {
    for i in 0..4 {
        lanes[i] = _mm256_fmadd_ps(a[i], b[i], lanes[i]);
    }
}

/// [`crate::exact::reduce::tree`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn tree(lanes: Lanes) -> f32 {
    let by_16 = [_mm256_add_ps(lanes[0], lanes[2]), _mm256_add_ps(lanes[1], lanes[3])];
    let by_8 = _mm256_add_ps(by_16[0], by_16[1]);
    let by_4 = _mm_add_ps(_mm256_castps256_ps128(by_8), _mm256_extractf128_ps::<1>(by_8));
    let by_2 = _mm_add_ps(by_4, _mm_movehl_ps(by_4, by_4));
    _mm_cvtss_f32(_mm_add_ss(by_2, _mm_movehdup_ps(by_2)))
}

/// Largest of eight values without NaN.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn largest(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
}

/// GEMV and GEMM over rows of float weights, of which `$round` bytes are 32: two rows of one token at a time, or one row of two tokens, which share the widened weights.
/// A macro and not a generic function: a closure is compiled for this instruction set only where it is inlined.
macro_rules! of_format {
    ($gemv:ident, $gemm:ident, $tile:ident, $round:literal, $whole:ident) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $gemv(w: &[u8], x: &[f32], out: &mut [f32]) {
            $gemm(w, x.len(), x, out);
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $gemm(w: &[u8], cols: usize, x: &[f32], out: &mut [f32]) {
            let row_bytes = $round / 32 * cols;
            let (rows, tokens) = float_shape(w, row_bytes, cols, x, out);
            for numbers in apart::<2>(rows) {
                let mut group = [&[][..]; 2];
                for (row, number) in group.iter_mut().zip(numbers) {
                    *row = &w[number * row_bytes..][..row_bytes];
                }
                let mut token = 0;
                while token + 2 <= tokens {
                    for (numbers, few) in numbers.as_chunks::<1>().0.iter().zip(group.as_chunks::<1>().0) {
                        let values: [_; 2] = $tile(*few, cols, &x[token * cols..]);
                        put(out, rows, *numbers, token, &values);
                    }
                    token += 2;
                }
                while token < tokens {
                    let values: [_; 1] = $tile(group, cols, &x[token * cols..]);
                    put(out, rows, numbers, token, &values);
                    token += 1;
                }
            }
        }

        /// `R` rows with `T` tokens, each pair in its own 32 lanes: two pairs hide the latency of the fma.
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $tile<const R: usize, const T: usize>(rows: [&[u8]; R], cols: usize, x: &[f32]) -> [[f32; R]; T] {
            let (mut rounds, mut tails) = ([&[][..]; R], [&[][..]; R]);
            for r in 0..R {
                let (whole, tail) = rows[r].as_chunks::<$round>();
                (rounds[r], tails[r]) = (&whole[..cols / 32], tail);
            }
            let (mut token_rounds, mut token_tails) = ([&[][..]; T], [&[][..]; T]);
            for t in 0..T {
                let (whole, tail) = x[t * cols..][..cols].as_chunks::<32>();
                (token_rounds[t], token_tails[t]) = (&whole[..cols / 32], tail);
            }
            let mut lanes = [[[_mm256_setzero_ps(); 4]; R]; T];
            for i in 0..cols / 32 {
                let mut w = [[_mm256_setzero_ps(); 4]; R];
                for r in 0..R {
                    prefetch(&rounds[r][i]);
                    w[r] = $whole(&rounds[r][i]);
                }
                for t in 0..T {
                    let x = load32(&token_rounds[t][i]);
                    for r in 0..R {
                        fma32(&mut lanes[t][r], w[r], x);
                    }
                }
            }
            if !cols.is_multiple_of(32) {
                for t in 0..T {
                    let x = load32(&padded(token_tails[t]));
                    for r in 0..R {
                        fma32(&mut lanes[t][r], $whole(&padded(tails[r])), x);
                    }
                }
            }
            // Loops, not `map`: its closure is not always compiled for this instruction set.
            let mut values = [[0.0; R]; T];
            for t in 0..T {
                for r in 0..R {
                    values[t][r] = tree(lanes[t][r]);
                }
            }
            values
        }
    };
}

of_format!(gemv_f16_f32, gemm_f16_f32, tile_f16, 64, load32_f16);
of_format!(gemv_bf16_f32, gemm_bf16_f32, tile_bf16, 64, load32_bf16);
of_format!(gemv_f32_f32, gemm_f32_f32, tile_f32, 128, load32_f32);

#[target_feature(enable = "avx2,fma")]
pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    let mut lanes = [_mm256_setzero_ps(); 4];
    for (a, b) in a.iter().zip(b) {
        fma32(&mut lanes, load32(a), load32(b));
    }
    if !a_tail.is_empty() {
        fma32(&mut lanes, load32(&padded(a_tail)), load32(&padded(b_tail)));
    }
    tree(lanes)
}

#[target_feature(enable = "avx2")]
pub(super) fn sum_f32(a: &[f32]) -> f32 {
    let (rounds, tail) = a.as_chunks::<32>();
    let mut lanes = [_mm256_setzero_ps(); 4];
    let add = |lanes: &mut Lanes, a: Lanes| {
        for i in 0..4 {
            lanes[i] = _mm256_add_ps(lanes[i], a[i]);
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

#[target_feature(enable = "avx2")]
pub(super) fn max_f32(a: &[f32]) -> f32 {
    let (blocks, tail) = a.as_chunks::<8>();
    let mut m = _mm256_set1_ps(f32::NEG_INFINITY);
    for block in blocks {
        m = _mm256_max_ps(m, load(block));
    }
    let m = tail.iter().fold(largest(m), |m, &v| if v > m { v } else { m });
    // −0 + 0 = +0.
    m + 0.0
}

#[target_feature(enable = "avx2")]
pub(super) fn find_non_finite(a: &[f32]) -> Option<usize> {
    let (blocks, tail) = a.as_chunks::<8>();
    let exponent = _mm256_set1_epi32(0x7f80_0000);
    for (i, block) in blocks.iter().enumerate() {
        let bits = _mm256_and_si256(_mm256_castps_si256(load(block)), exponent);
        let bad = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(bits, exponent)));
        if bad != 0 {
            return Some(8 * i + bad.trailing_zeros() as usize);
        }
    }
    tail.iter().position(|v| !v.is_finite()).map(|i| 8 * blocks.len() + i)
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn weigh_f16(p: &[f32], v: &[u8], d: usize, out: &mut [f32]) {
    weigh_by::<16, 64, 8>(
        p,
        v,
        d,
        out,
        |part, out| weigh_block::<4, 2>(part, out),
        |part, out| weigh_block::<1, 8>(part, out),
        |part, out| weigh_block::<1, 1>(part, out),
    );
}

/// `Q` queries with the dimensions `at … at + 8 B`, or as many as there are, in registers over a chunk of positions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weigh_block<const Q: usize, const B: usize>(part: Weighing<'_>, out: &mut [f32]) {
    let (p, n) = (part.queries::<Q>(), (part.d - part.at).min(8 * B));
    let mut lanes = [[_mm256_setzero_ps(); B]; Q];
    for t in 0..part.len {
        let v = part.value(t, n);
        let mut wide = [_mm256_setzero_ps(); B];
        match v.as_chunks::<16>().0.as_array::<B>() {
            Some(v) => {
                for b in 0..B {
                    wide[b] = load_f16(&v[b]);
                }
            }
            None => {
                for b in 0..B {
                    wide[b] = load_f16(&padded(&v[(2 * n).min(16 * b)..(2 * n).min(16 * b + 16)]));
                }
            }
        }
        for q in 0..Q {
            let p = _mm256_set1_ps(p[q][t]);
            for b in 0..B {
                lanes[q][b] = _mm256_fmadd_ps(p, wide[b], lanes[q][b]);
            }
        }
    }
    for q in 0..Q {
        let out = &mut out[q * part.d + part.at..][..n];
        for b in 0..B {
            let out = &mut out[n.min(8 * b)..n.min(8 * b + 8)];
            let mut block = padded(out);
            let sum = _mm256_add_ps(load(&block), lanes[q][b]);
            store(&mut block, sum);
            out.copy_from_slice(&block[..out.len()]);
        }
    }
}
