//! GEMM over packed codes: four rows to a register, one step of one token met by all of them. The blocking and the
//! unpacking are in [`crate::kernels::panel`].

use super::memory::{
    load, load_16_bytes, load_i32, load_tokens, load_words, prefetch, store, store_i32, store_words,
};
use super::products::dot::add_lane;
use crate::kernels::acts::{Batch, GROUP, Order};
use crate::kernels::panel::{self, Block, Extra, Factors, Inner, Tile, Tokens, Unit, Words};
use crate::kernels::streams::parts;
use std::arch::aarch64::*;

/// Rows in a register.
const L: usize = 4;
/// Registers of rows in a panel: their sums with eight tokens are sixteen of the 32 registers.
const R: usize = 2;
/// Tokens whose activations of one step are a register.
const T: usize = GROUP / 2;

/// Sums of the registers of rows with each token of a group.
type Sums = [[int32x4_t; GROUP]; R];

/// Words of a register's rows, side by side: four words of four rows, turned.
#[inline]
#[target_feature(enable = "neon")]
fn transpose(rows: [&[u8]; L], out: &mut [Words<L>]) {
    let (fours, rest) = out.as_chunks_mut::<4>();
    let done = fours.len();
    for (i, four) in fours.iter_mut().enumerate() {
        let row = |l: usize| vreinterpretq_u32_u8(load_16_bytes(&rows[l][16 * i..]));
        let r = [row(0), row(1), row(2), row(3)];
        // Words 0 and 2, then 1 and 3, of two rows in turn.
        let pair = |a, b| [vreinterpretq_u64_u32(vtrn1q_u32(a, b)), vreinterpretq_u64_u32(vtrn2q_u32(a, b))];
        let (low, high) = (pair(r[0], r[1]), pair(r[2], r[3]));
        store_words(&mut four[0], vreinterpretq_u32_u64(vtrn1q_u64(low[0], high[0])));
        store_words(&mut four[1], vreinterpretq_u32_u64(vtrn1q_u64(low[1], high[1])));
        store_words(&mut four[2], vreinterpretq_u32_u64(vtrn2q_u64(low[0], high[0])));
        store_words(&mut four[3], vreinterpretq_u32_u64(vtrn2q_u64(low[1], high[1])));
    }
    if !rest.is_empty() {
        panel::transpose(rows.map(|row| &row[16 * done..]), rest);
    }
}

/// Codes of a step as i8: beyond 127 they are `code − 128`, which is the value.
#[inline]
#[target_feature(enable = "neon")]
fn load_codes<U: Unit>(step: &Words<L>) -> int8x16_t {
    let codes = vreinterpretq_u8_u32(load_words(step));
    vreinterpretq_s8_u8(if U::MAX > 127 { veorq_u8(codes, vdupq_n_u8(0x80)) } else { codes })
}

/// What is left to subtract for each activation of a block.
const fn offset<U: Unit>() -> i32 {
    if U::MAX > 127 { U::OFFSET - 128 } else { U::OFFSET }
}

/// `Σ code · q` over some steps, without dot products: a row's four products of a step are two in each of two lanes.
///
/// No overflow: a step adds one product, at most 128 · max code in magnitude, to a lane of i16; as many of them are added as
/// stay below 2^15, then they are widened. Where codes are any i8 that is one, 128 · 128.
#[inline]
#[target_feature(enable = "neon")]
fn sum_plain<U: Unit>(panels: [&[Words<L>]; R], tokens: &[Tokens]) -> Sums {
    let narrow_steps = if U::MAX > 127 { 1 } else { (32_767 / (128 * U::MAX)) as usize };
    let panels = parts(panels, 0..tokens.len());
    let mut sums = [[vdupq_n_s32(0); GROUP]; R];
    for begin in (0..tokens.len()).step_by(narrow_steps) {
        // Half of the tokens: their sums in i16 take two registers each.
        for half in 0..2 {
            let mut narrow = [[[vdupq_n_s16(0); 2]; T]; R];
            for s in begin..tokens.len().min(begin + narrow_steps) {
                let x = load_tokens(&tokens[s])[half];
                let x = [
                    vdupq_laneq_s32::<0>(x),
                    vdupq_laneq_s32::<1>(x),
                    vdupq_laneq_s32::<2>(x),
                    vdupq_laneq_s32::<3>(x),
                ];
                for r in 0..R {
                    let w = load_codes::<U>(&panels[r][s]);
                    for t in 0..T {
                        let (x, [low, high]) = (vreinterpretq_s8_s32(x[t]), narrow[r][t]);
                        let low = vmlal_s8(low, vget_low_s8(w), vget_low_s8(x));
                        narrow[r][t] = [low, vmlal_high_s8(high, w, x)];
                    }
                }
            }
            for r in 0..R {
                for t in 0..T {
                    let [low, high] = narrow[r][t];
                    let wide = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
                    sums[r][half * T + t] = vaddq_s32(sums[r][half * T + t], wide);
                }
            }
        }
    }
    sums
}

/// The same with `sdot`, whose sums are i32: see the bound of a row in [`crate::kernels::Kernels`].
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sum_dot<U: Unit>(panels: [&[Words<L>]; R], tokens: &[Tokens]) -> Sums {
    let panels = parts(panels, 0..tokens.len());
    let mut sums = [[vdupq_n_s32(0); GROUP]; R];
    for (s, x) in tokens.iter().enumerate() {
        let x = load_tokens(x);
        for r in 0..R {
            let w = load_codes::<U>(&panels[r][s]);
            for (x, sums) in
                x.into_iter().map(|x| vreinterpretq_s8_s32(x)).zip(sums[r].as_chunks_mut::<T>().0)
            {
                let [a, b, c, d] = *sums;
                *sums = [
                    add_lane::<0>(a, w, x),
                    add_lane::<1>(b, w, x),
                    add_lane::<2>(c, w, x),
                    add_lane::<3>(d, w, x),
                ];
            }
        }
    }
    sums
}

/// `y = fma(d_w · d_a, isum, y)` for a register of rows with each token, and what [`Extra`] adds.
#[inline]
#[target_feature(enable = "neon")]
fn scale<U: Unit>(
    isums: [int32x4_t; GROUP],
    factors: &Factors<L>,
    scales: &[f32; GROUP],
    mins: &[f32; GROUP],
    y: &mut Tile<f32, L>,
) {
    let d = load(&factors.scales);
    for t in 0..GROUP {
        let d = if U::EXTRA == Extra::RowFactor { d } else { vmulq_n_f32(d, scales[t]) };
        let mut next = vfmaq_f32(load(&y[t]), d, vcvtq_f32_s32(isums[t]));
        if U::EXTRA == Extra::Min {
            next = vfmaq_n_f32(next, load(&factors.mins), mins[t]);
        }
        store(&mut y[t], next);
    }
}

macro_rules! gemm {
    ($name:ident, $features:literal, $sum:ident) => {
        pub(super) mod $name {
            use super::*;

            #[inline]
            #[target_feature(enable = $features)]
            fn add<U: Unit>(inner: Inner<'_, L, R>, sums: &mut [Tile<i32, L>; R]) {
                let more = $sum::<U>(inner.panels, inner.tokens);
                for r in 0..R {
                    for t in 0..GROUP {
                        let sum = vaddq_s32(load_i32(&sums[r][t]), more[r][t]);
                        store_i32(&mut sums[r][t], sum);
                    }
                }
            }

            /// One block: its sums of codes, less the offset, scaled. Sub-sums of Q6_K are at most 16 · 32 · 128, times a
            /// sub-scale 2^23, sixteen of them 2^27.
            #[inline]
            #[target_feature(enable = $features)]
            fn step<U: Unit>(block: Block<'_, L, R>, y: &mut [Tile<f32, L>; R]) {
                let Inner { panels, tokens } = block.inner;
                let mut isums = [[vdupq_n_s32(0); GROUP]; R];
                let each = U::SUMMED / block.sums.len();
                for (part, sums) in block.sums.iter().enumerate() {
                    let range = part * each..(part + 1) * each;
                    let codes = $sum::<U>(parts(panels, range.clone()), &tokens[range]);
                    for r in 0..R {
                        for t in 0..GROUP {
                            let sum = vsubq_s32(codes[r][t], vdupq_n_s32(offset::<U>() * sums[t]));
                            isums[r][t] = if U::EXTRA == Extra::SubScales {
                                let sub_scale = load_i32(&block.factors[r].sub_scales[part]);
                                vmlaq_s32(isums[r][t], sum, sub_scale)
                            } else {
                                sum
                            };
                        }
                    }
                }
                for r in 0..R {
                    scale::<U>(isums[r], block.factors[r], block.scales, block.mins, &mut y[r]);
                }
            }

            macro_rules! rows {
                ($function:ident, $unit:ident, $orders:expr) => {
                    #[target_feature(enable = $features)]
                    pub(in super::super) fn $function(
                        w: &[u8],
                        row_bytes: usize,
                        x: &Batch,
                        out: &mut [i32],
                    ) {
                        panel::gemm_rows::<panel::$unit, L, R>(
                            $orders,
                            w,
                            row_bytes,
                            x,
                            out,
                            |rows, words| transpose(rows, words),
                            |at| prefetch(at),
                            |inner, sums| add::<panel::$unit>(inner, sums),
                        );
                    }
                };
            }

            macro_rules! blocks {
                ($function:ident, $unit:ident) => {
                    #[target_feature(enable = $features)]
                    pub(in super::super) fn $function(w: &[u8], x: &Batch, out: &mut [f32]) {
                        panel::gemm_blocks::<panel::$unit, L, R>(
                            w,
                            x,
                            out,
                            |rows, words| transpose(rows, words),
                            |at| prefetch(at),
                            |block, y| step::<panel::$unit>(block, y),
                        );
                    }
                };
            }

            rows!(i2s_i8, I2s, &[Order::I2S, Order::I2S64]);
            rows!(pm2_i8, Pm2, &[Order::Linear256]);
            rows!(r4_i8, R4, &[Order::R4]);
            rows!(t5_i8, T5, &[Order::T5]);
            blocks!(bitnet32_i8, BitNet32);
            blocks!(tq1_0_q8_k, Tq1_0);
            blocks!(tq2_0_q8_k, Tq2_0);
            blocks!(q2_0_q8_0, Q2_0);
            blocks!(q8_0_q8_0, Q8_0);
            blocks!(q4_0_q8_0, Q4_0);
            blocks!(q4_1_q8_1, Q4_1);
            blocks!(q6_k_q8_k, Q6K);
        }
    };
}

gemm!(plain, "neon", sum_plain);
gemm!(dot, "neon,dotprod", sum_dot);
