//! Float weights and the reductions of the contract, see [`crate::exact::reduce`].

use super::memory::*;
use crate::kernels::streams::{Weighing, apart, weigh_by};
use crate::kernels::{float_shape, put};
use std::arch::x86_64::*;

/// 32 lanes: lane `l` is element `l % 16` of register `l / 16`.
pub(super) type Lanes = [__m512; 2];

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn fma32(lanes: &mut Lanes, a: Lanes, b: Lanes) {
    for i in 0..2 {
        lanes[i] = _mm512_fmadd_ps(a[i], b[i], lanes[i]);
    }
}

/// [`crate::exact::reduce::tree`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn tree(lanes: Lanes) -> f32 {
    let by_16 = _mm512_add_ps(lanes[0], lanes[1]);
    let by_8 = _mm256_add_ps(_mm512_castps512_ps256(by_16), _mm512_extractf32x8_ps::<1>(by_16));
    let by_4 = _mm_add_ps(_mm256_castps256_ps128(by_8), _mm256_extractf128_ps::<1>(by_8));
    let by_2 = _mm_add_ps(by_4, _mm_movehl_ps(by_4, by_4));
    _mm_cvtss_f32(_mm_add_ss(by_2, _mm_movehdup_ps(by_2)))
}

/// [`tree`] of eight at once: two sums share a register from the second level of the tree on, four from the third.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn trees(lanes: [Lanes; 8]) -> [f32; 8] {
    let mut by_16 = [_mm512_setzero_ps(); 8];
    for i in 0..8 {
        by_16[i] = _mm512_add_ps(lanes[i][0], lanes[i][1]);
    }
    // Two sums a register, eight terms each: the quarters 0 and 1 of both, and 2 and 3.
    let mut by_8 = [_mm512_setzero_ps(); 4];
    for i in 0..4 {
        let (a, b) = (by_16[2 * i], by_16[2 * i + 1]);
        by_8[i] = _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
        );
    }
    // Four sums, a quarter each: the even quarters of both, and the odd ones.
    let mut by_4 = [_mm512_setzero_ps(); 2];
    for i in 0..2 {
        let (a, b) = (by_8[2 * i], by_8[2 * i + 1]);
        by_4[i] = _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
        );
    }
    // In every quarter two terms of sum `quarter`, then two of sum `4 + quarter`.
    let [a, b] = [_mm512_castps_pd(by_4[0]), _mm512_castps_pd(by_4[1])];
    let by_2 =
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    let sums = _mm512_add_ps(by_2, _mm512_movehdup_ps(by_2));
    let mut values = [0.0; 16];
    let order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    store(&mut values, _mm512_permutexvar_ps(order, sums));
    *values.first_chunk().expect("eight of sixteen")
}

// ---- 32 weights of a row: a whole round, or what is left of the row ----

#[inline]
#[target_feature(enable = "avx512f")]
fn whole_f16(w: &[u8; 64]) -> Lanes {
    let w = w.as_chunks::<32>().0;
    [load_f16(&w[0]), load_f16(&w[1])]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn some_f16(w: &[u8]) -> Lanes {
    let (low, high) = w.split_at(w.len().min(32));
    [load_some_f16(low), load_some_f16(high)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn whole_bf16(w: &[u8; 64]) -> Lanes {
    let w = w.as_chunks::<32>().0;
    [load_bf16(&w[0]), load_bf16(&w[1])]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn some_bf16(w: &[u8]) -> Lanes {
    let mut whole = [0; 64];
    whole[..w.len()].copy_from_slice(w);
    whole_bf16(&whole)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn whole_f32(w: &[u8; 128]) -> Lanes {
    let w = w.as_chunks::<64>().0;
    [_mm512_castsi512_ps(load_bytes(&w[0])), _mm512_castsi512_ps(load_bytes(&w[1]))]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn some_f32(w: &[u8]) -> Lanes {
    let (low, high) = w.split_at(w.len().min(64));
    [_mm512_castsi512_ps(load_some_bytes(low)), _mm512_castsi512_ps(load_some_bytes(high))]
}

/// GEMV and GEMM over rows of float weights, of which `$round` bytes are 32: eight rows of one token at a time, or two rows of four tokens, which share the widened weights.
/// A macro and not a generic function: a closure is compiled for this instruction set only where it is inlined.
macro_rules! of_format {
    ($gemv:ident, $gemm:ident, $tile:ident, $round:literal, $whole:ident, $some:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        pub(super) fn $gemv(w: &[u8], x: &[f32], out: &mut [f32]) {
            $gemm(w, x.len(), x, out);
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        pub(super) fn $gemm(w: &[u8], cols: usize, x: &[f32], out: &mut [f32]) {
            let row_bytes = $round / 32 * cols;
            let (rows, tokens) = float_shape(w, row_bytes, cols, x, out);
            for numbers in apart::<8>(rows) {
                let mut group = [&[][..]; 8];
                for (row, number) in group.iter_mut().zip(numbers) {
                    *row = &w[number * row_bytes..][..row_bytes];
                }
                let mut token = 0;
                while token + 4 <= tokens {
                    for (numbers, few) in numbers.as_chunks::<2>().0.iter().zip(group.as_chunks::<2>().0) {
                        let values: [_; 4] = $tile(*few, cols, &x[token * cols..]);
                        put(out, rows, *numbers, token, &values);
                    }
                    token += 4;
                }
                while token < tokens {
                    let values: [_; 1] = $tile(group, cols, &x[token * cols..]);
                    put(out, rows, numbers, token, &values);
                    token += 1;
                }
            }
        }

        /// `R` rows with `T` tokens, each pair in its own 32 lanes: eight pairs hide the latency of the fma.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
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
            let mut lanes = [[[_mm512_setzero_ps(); 2]; R]; T];
            for i in 0..cols / 32 {
                let mut w = [[_mm512_setzero_ps(); 2]; R];
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
                    let x = load32_some(token_tails[t]);
                    for r in 0..R {
                        fma32(&mut lanes[t][r], $some(tails[r]), x);
                    }
                }
            }
            const { assert!(R * T == 8) };
            let mut all = [[_mm512_setzero_ps(); 2]; 8];
            for t in 0..T {
                for r in 0..R {
                    all[t * R + r] = lanes[t][r];
                }
            }
            let all = trees(all);
            let mut values = [[0.0; R]; T];
            for t in 0..T {
                for r in 0..R {
                    values[t][r] = all[t * R + r];
                }
            }
            values
        }
    };
}

of_format!(gemv_f16_f32, gemm_f16_f32, tile_f16, 64, whole_f16, some_f16);
of_format!(gemv_bf16_f32, gemm_bf16_f32, tile_bf16, 64, whole_bf16, some_bf16);
of_format!(gemv_f32_f32, gemm_f32_f32, tile_f32, 128, whole_f32, some_f32);

#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    let mut lanes = [_mm512_setzero_ps(); 2];
    for (a, b) in a.iter().zip(b) {
        fma32(&mut lanes, load32(a), load32(b));
    }
    if !a_tail.is_empty() {
        fma32(&mut lanes, load32_some(a_tail), load32_some(b_tail));
    }
    tree(lanes)
}

#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn sum_f32(a: &[f32]) -> f32 {
    let (rounds, tail) = a.as_chunks::<32>();
    let mut lanes = [_mm512_setzero_ps(); 2];
    let add = |lanes: &mut Lanes, a: Lanes| {
        for i in 0..2 {
            lanes[i] = _mm512_add_ps(lanes[i], a[i]);
        }
    };
    for a in rounds {
        add(&mut lanes, load32(a));
    }
    if !tail.is_empty() {
        add(&mut lanes, load32_some(tail));
    }
    tree(lanes)
}

#[target_feature(enable = "avx512f")]
pub(super) fn max_f32(a: &[f32]) -> f32 {
    let (blocks, tail) = a.as_chunks::<16>();
    let mut m = _mm512_set1_ps(f32::NEG_INFINITY);
    for block in blocks {
        m = _mm512_max_ps(m, load(block));
    }
    m = _mm512_mask_max_ps(m, mask(tail.len()), m, load_some(tail));
    // −0 + 0 = +0.
    _mm512_reduce_max_ps(m) + 0.0
}

/// Which of sixteen are NaN or infinite.
#[inline]
#[target_feature(enable = "avx512f")]
fn non_finite(v: __m512) -> __mmask16 {
    let exponent = _mm512_set1_epi32(0x7f80_0000);
    _mm512_cmpeq_epi32_mask(_mm512_and_si512(_mm512_castps_si512(v), exponent), exponent)
}

#[target_feature(enable = "avx512f")]
pub(super) fn find_non_finite(a: &[f32]) -> Option<usize> {
    let (rounds, tail) = a.as_chunks::<64>();
    for (i, round) in rounds.iter().enumerate() {
        let mut bad = [0; 4];
        for (bad, block) in bad.iter_mut().zip(round.as_chunks::<16>().0) {
            *bad = non_finite(load(block));
        }
        if bad != [0; 4] {
            let bad = (0..4).fold(0, |all, b| all | u64::from(bad[b]) << (16 * b));
            return Some(64 * i + bad.trailing_zeros() as usize);
        }
    }
    for (i, block) in tail.chunks(16).enumerate() {
        let bad = non_finite(load_some(block));
        if bad != 0 {
            return Some(64 * rounds.len() + 16 * i + bad.trailing_zeros() as usize);
        }
    }
    None
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn weigh_f16(p: &[f32], v: &[u8], d: usize, out: &mut [f32]) {
    weigh_by::<64, 128, 64>(
        p,
        v,
        d,
        out,
        |part, out| weigh_block::<4, 4>(part, out),
        |part, out| weigh_block::<1, 8>(part, out),
        |part, out| weigh_block::<1, 4>(part, out),
    );
}

/// `Q` queries with the dimensions `at … at + 16 B`, or as many as there are, in registers over a chunk of positions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn weigh_block<const Q: usize, const B: usize>(part: Weighing<'_>, out: &mut [f32]) {
    let (p, n) = (part.queries::<Q>(), (part.d - part.at).min(16 * B));
    let mut lanes = [[_mm512_setzero_ps(); B]; Q];
    for t in 0..part.len {
        let v = part.value(t, n);
        let mut wide = [_mm512_setzero_ps(); B];
        match v.as_chunks::<32>().0.as_array::<B>() {
            Some(v) => {
                for b in 0..B {
                    wide[b] = load_f16(&v[b]);
                }
            }
            None => {
                for b in 0..B {
                    wide[b] = load_some_f16(&v[(2 * n).min(32 * b)..]);
                }
            }
        }
        for q in 0..Q {
            let p = _mm512_set1_ps(p[q][t]);
            for b in 0..B {
                lanes[q][b] = _mm512_fmadd_ps(p, wide[b], lanes[q][b]);
            }
        }
    }
    for q in 0..Q {
        let out = &mut out[q * part.d + part.at..][..n];
        for b in 0..B {
            let out = &mut out[n.min(16 * b)..];
            store_some(out, _mm512_add_ps(load_some(out), lanes[q][b]));
        }
    }
}
