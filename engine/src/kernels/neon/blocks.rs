//! GEMV over rows of blocks: four rows at a time, each block's sums turned into one register of a lane a row, then scaled
//! for all rows at once.

use super::memory::{load_8_bytes, load_16_bytes, load_16_i8, load_f16, store};
use super::ternary::{trits, two_bits};
use crate::kernels::acts::Acts;
use crate::kernels::panel::{self, Extra, Unit};
use crate::kernels::streams::apart;
use crate::quant::{bitnet32, q2_0, q4_0, q4_1, q6_k, q8_0, tq1_0, tq2_0};
use std::arch::aarch64::*;
use std::array::from_fn;

/// Lane `r` is the sum of the lanes of `v[r]`.
#[inline]
#[target_feature(enable = "neon")]
fn sums_of_4(v: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]))
}

/// The f16 at byte `at` of each row's block, widened.
#[inline]
#[target_feature(enable = "neon")]
fn halves<const BYTES: usize>(blocks: &[&[u8; BYTES]; 4], at: usize) -> float32x4_t {
    let mut bytes = [0; 8];
    for (r, half) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        half.copy_from_slice(&blocks[r][at..at + 2]);
    }
    load_f16(&bytes)
}

/// Four rows at a time: `y = fma(d_w · d_a, isum, y)` and what [`Extra`] adds. `isums` gives the exact sums of one block of
/// activations (its number, and the part of the weight block that it meets) with four weight blocks.
#[inline]
#[target_feature(enable = "neon")]
fn gemv<U: Unit, const BYTES: usize>(
    w: &[u8],
    x: &Acts,
    out: &mut [f32],
    isums: impl Fn(&[&[u8; BYTES]; 4], usize, usize) -> int32x4_t,
) {
    let parts = U::STEPS / U::SUMMED;
    let row_bytes = x.assert_blocks(U::ORDER, U::ORDER.elements() * parts, BYTES, w, out.len());
    let units = row_bytes / BYTES;
    for numbers in apart::<4>(out.len()) {
        let rows: [&[[u8; BYTES]]; 4] = numbers.map(|row| &w[row * row_bytes..].as_chunks().0[..units]);
        let mut y = vdupq_n_f32(0.0);
        for unit in 0..units {
            let blocks: [&[u8; BYTES]; 4] = from_fn(|r| &rows[r][unit]);
            let d = halves(&blocks, U::SCALE);
            for part in 0..parts {
                let b = unit * parts + part;
                let d = if U::EXTRA == Extra::RowFactor { d } else { vmulq_n_f32(d, x.scales()[b]) };
                y = vfmaq_f32(y, d, vcvtq_f32_s32(isums(&blocks, b, part)));
                if U::EXTRA == Extra::Min {
                    y = vfmaq_n_f32(y, halves(&blocks, U::MIN), x.mins()[b]);
                }
            }
        }
        if U::EXTRA == Extra::RowFactor {
            y = vdivq_f32(y, vdupq_n_f32(x.scales()[0]));
        }
        let mut values = [0.0; 4];
        store(&mut values, y);
        for (row, value) in numbers.into_iter().zip(values) {
            out[row] = value;
        }
    }
}

/// `codes − U::OFFSET · Σ q` of block `b` of the activations.
#[inline]
#[target_feature(enable = "neon")]
fn less_offset<U: Unit>(codes: int32x4_t, x: &Acts, b: usize) -> int32x4_t {
    vsubq_s32(codes, vdupq_n_s32(U::OFFSET * x.sums()[b]))
}

/// Activations `at .. at + 32`.
#[inline]
#[target_feature(enable = "neon")]
fn load_acts(x: &Acts, at: usize) -> [int8x16_t; 2] {
    [load_16_i8(&x.slots()[at..]), load_16_i8(&x.slots()[at + 16..])]
}

// ---- codes of a block of 32, in the order of the activations ----

/// Low and high nibbles of sixteen bytes.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles(bytes: &[u8]) -> [int8x16_t; 2] {
    let both = load_16_bytes(bytes);
    [vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8::<4>(both))]
}

/// The four fields of eight bytes.
#[inline]
#[target_feature(enable = "neon")]
fn fields(bytes: &[u8]) -> [int8x16_t; 2] {
    let word = load_8_bytes(bytes);
    let both = vcombine_u8(word, vshr_n_u8::<2>(word));
    let field = |w: uint8x16_t| vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(3)));
    [field(both), field(vshrq_n_u8::<4>(both))]
}

// ---- values of a block of 256 ----

/// Quarter `i` of the bytes of TQ1_0: 52 bytes as three quarters of 16 and one of 4. After those it is bytes whose trits are
/// all the value 0 (3 · 128 = 128 mod 256), whatever activations they meet.
#[inline]
#[target_feature(enable = "neon")]
fn quarter_tq1_0(block: &[u8; tq1_0::BLOCK_BYTES], i: usize) -> uint8x16_t {
    if i < 3 {
        return load_16_bytes(&block[16 * i..]);
    }
    let last = u32::from_le_bytes(*block[48..].first_chunk().expect("four bytes"));
    vreinterpretq_u8_u32(vsetq_lane_u32::<0>(last, vdupq_n_u32(0x8080_8080)))
}

/// Elements `16 i .. 16 i + 16` of Q6_K, before their sub-scale: −32 ..= 31.
#[inline]
#[target_feature(enable = "neon")]
fn values_q6_k(block: &[u8; q6_k::BLOCK_BYTES], i: usize) -> int8x16_t {
    let (half, part, at) = (i / 8, i % 8 / 2, 16 * (i % 2));
    let low = load_16_bytes(&block[64 * half + 32 * (part % 2) + at..]);
    let low = if part < 2 { vandq_u8(low, vdupq_n_u8(15)) } else { vshrq_n_u8::<4>(low) };
    let high = load_16_bytes(&block[128 + 32 * half + at..]);
    // The two high bits of part p are at 2 p: they go to bit 4.
    let high = match part {
        0 => vshlq_n_u8::<4>(high),
        1 => vshlq_n_u8::<2>(high),
        2 => high,
        _ => vshrq_n_u8::<2>(high),
    };
    let codes = vorrq_u8(low, vandq_u8(high, vdupq_n_u8(0x30)));
    vsubq_s8(vreinterpretq_s8_u8(codes), vdupq_n_s8(32))
}

/// The sixteen sub-scales of Q6_K.
#[inline]
#[target_feature(enable = "neon")]
fn sub_scales(block: &[u8; q6_k::BLOCK_BYTES]) -> [int32x4_t; 4] {
    let bytes = vreinterpretq_s8_u8(load_16_bytes(&block[192..]));
    let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
    [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
}

macro_rules! blocks {
    ($name:ident, $features:literal) => {
        pub(super) mod $name {
            use super::super::products::$name::{add, add_any, widen, zero};
            use super::*;

            /// Codes of blocks of 32.
            ///
            /// No overflow: four products of codes up to 15 in a lane of i16: 4 · 15 · 128 = 7680.
            #[inline]
            #[target_feature(enable = $features)]
            fn of_32<U: Unit, const BYTES: usize>(
                w: &[u8],
                x: &Acts,
                out: &mut [f32],
                codes: impl Fn(&[u8; BYTES], usize) -> [int8x16_t; 2],
            ) {
                gemv::<U, BYTES>(w, x, out, |blocks, b, part| {
                    let acts = load_acts(x, 32 * b);
                    let sum = |r: usize| widen(vdupq_n_s32(0), add(zero(), codes(blocks[r], part), &acts));
                    less_offset::<U>(sums_of_4([sum(0), sum(1), sum(2), sum(3)]), x, b)
                });
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn bitnet32_i8(w: &[u8], x: &Acts, out: &mut [f32]) {
                of_32::<panel::BitNet32, { bitnet32::BLOCK_BYTES }>(w, x, out, |block, _| fields(block));
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn q2_0_q8_0(w: &[u8], x: &Acts, out: &mut [f32]) {
                let codes = |block: &[u8; q2_0::BLOCK_BYTES], part: usize| fields(&block[2 + 8 * part..]);
                of_32::<panel::Q2_0, { q2_0::BLOCK_BYTES }>(w, x, out, codes);
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn q4_0_q8_0(w: &[u8], x: &Acts, out: &mut [f32]) {
                of_32::<panel::Q4_0, { q4_0::BLOCK_BYTES }>(w, x, out, |block, _| nibbles(&block[2..]));
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn q4_1_q8_1(w: &[u8], x: &Acts, out: &mut [f32]) {
                of_32::<panel::Q4_1, { q4_1::BLOCK_BYTES }>(w, x, out, |block, _| nibbles(&block[4..]));
            }

            /// Values as they are.
            #[target_feature(enable = $features)]
            pub(in super::super) fn q8_0_q8_0(w: &[u8], x: &Acts, out: &mut [f32]) {
                gemv::<panel::Q8_0, { q8_0::BLOCK_BYTES }>(w, x, out, |blocks, b, _| {
                    let acts = load_acts(x, 32 * b);
                    let sum = |r: usize| {
                        let values = |at: usize| vreinterpretq_s8_u8(load_16_bytes(&blocks[r][at..]));
                        add_any(add_any(vdupq_n_s32(0), values(2), acts[0]), values(18), acts[1])
                    };
                    sums_of_4([sum(0), sum(1), sum(2), sum(3)])
                });
            }

            /// No overflow: 32 products of codes up to 3 in a lane of i16: 32 · 3 · 128 = 12 288.
            #[target_feature(enable = $features)]
            pub(in super::super) fn tq2_0_q8_k(w: &[u8], x: &Acts, out: &mut [f32]) {
                gemv::<panel::Tq2_0, { tq2_0::BLOCK_BYTES }>(w, x, out, |blocks, b, _| {
                    let mut narrow = [zero(); 4];
                    for i in 0..4 {
                        let acts = from_fn(|f| load_16_i8(&x.slots()[256 * b + 64 * f + 16 * i..]));
                        for r in 0..4 {
                            let codes = two_bits(load_16_bytes(&blocks[r][16 * i..]));
                            narrow[r] = add(narrow[r], codes, &acts);
                        }
                    }
                    less_offset::<panel::Tq2_0>(sums_of_4(narrow.map(|sum| widen(vdupq_n_s32(0), sum))), x, b)
                });
            }

            /// No overflow: 40 products of values up to 1 in a lane of i16: 40 · 128 = 5120.
            #[target_feature(enable = $features)]
            pub(in super::super) fn tq1_0_q8_k(w: &[u8], x: &Acts, out: &mut [f32]) {
                gemv::<panel::Tq1_0, { tq1_0::BLOCK_BYTES }>(w, x, out, |blocks, b, _| {
                    let mut narrow = [zero(); 4];
                    for i in 0..4 {
                        let acts = from_fn(|k| load_16_i8(&x.slots_and_slack()[260 * b + 52 * k + 16 * i..]));
                        for r in 0..4 {
                            narrow[r] = add(narrow[r], trits(quarter_tq1_0(blocks[r], i)), &acts);
                        }
                    }
                    sums_of_4(narrow.map(|sum| widen(vdupq_n_s32(0), sum)))
                });
            }

            /// Sums of sixteen elements, a lane each, are multiplied by their sub-scales.
            ///
            /// No overflow: two products of values up to 32 in a lane of i16: 2 · 32 · 128 = 8192. A sum of sixteen is at
            /// most 2^16, times 128 2^23, sixteen of them 2^27.
            #[target_feature(enable = $features)]
            pub(in super::super) fn q6_k_q8_k(w: &[u8], x: &Acts, out: &mut [f32]) {
                gemv::<panel::Q6K, { q6_k::BLOCK_BYTES }>(w, x, out, |blocks, b, _| {
                    let row = |r: usize| {
                        let sum = |i: usize| {
                            let acts = [load_16_i8(&x.slots()[256 * b + 16 * i..])];
                            widen(vdupq_n_s32(0), add(zero(), [values_q6_k(blocks[r], i)], &acts))
                        };
                        let sub_scales = sub_scales(blocks[r]);
                        let mut total = vdupq_n_s32(0);
                        for i in 0..4 {
                            let four = [sum(4 * i), sum(4 * i + 1), sum(4 * i + 2), sum(4 * i + 3)];
                            total = vmlaq_s32(total, sums_of_4(four), sub_scales[i]);
                        }
                        total
                    };
                    sums_of_4([row(0), row(1), row(2), row(3)])
                });
            }
        }
    };
}

blocks!(plain, "neon");
blocks!(dot, "neon,dotprod");
