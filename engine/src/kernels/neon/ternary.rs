//! Rows of codes with one scale a row: exact sums in i32. A register is a quarter of a tile of 64 bytes; it gives several
//! registers of codes, each of which meets the same quarter of a run of activations.

use super::memory::{load_bytes, load_i8};
use crate::kernels::acts::{Acts, Order};
use crate::kernels::streams::{by_rows, parts};
use crate::quant::{qk256, t5};
use std::arch::aarch64::*;
use std::array::from_fn;

/// Fields 0, 1, 2, 3 of 16 bytes: 0..=3, so that they are the same as int8.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn two_bits(w: uint8x16_t) -> [int8x16_t; 4] {
    let field = |w: uint8x16_t| vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(3)));
    [field(w), field(vshrq_n_u8::<2>(w)), field(vshrq_n_u8::<4>(w)), field(vshrq_n_u8::<6>(w))]
}

/// A nibble is two codes, and a table lookup gives each of them as −2, −1, +1, +2.
#[inline]
#[target_feature(enable = "neon")]
fn pm2(w: uint8x16_t) -> [int8x16_t; 4] {
    const LOW: [i8; 16] = [-2, -1, 1, 2, -2, -1, 1, 2, -2, -1, 1, 2, -2, -1, 1, 2];
    const HIGH: [i8; 16] = [-2, -2, -2, -2, -1, -1, -1, -1, 1, 1, 1, 1, 2, 2, 2, 2];
    let (low, high) = (load_i8(&LOW), load_i8(&HIGH));
    let nibbles = [vandq_u8(w, vdupq_n_u8(15)), vshrq_n_u8::<4>(w)];
    let value = |table: int8x16_t, i: usize| vqtbl1q_s8(table, nibbles[i]);
    [value(low, 0), value(high, 0), value(low, 1), value(high, 1)]
}

/// The five trits of 16 bytes, as −1, 0, +1: `[q ≥ 171] − [q < 86]`, then `q = 3 q mod 256`. A true compare is −1.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn trits(mut q: uint8x16_t) -> [int8x16_t; 5] {
    let mut trits = [vdupq_n_s8(0); 5];
    for trit in &mut trits {
        let (below, above) = (vcltq_u8(q, vdupq_n_u8(86)), vcgeq_u8(q, vdupq_n_u8(171)));
        *trit = vreinterpretq_s8_u8(vsubq_u8(below, above));
        q = vaddq_u8(q, vaddq_u8(q, q));
    }
    trits
}

macro_rules! rows {
    ($name:ident, $features:literal) => {
        pub(super) mod $name {
            use super::super::products::$name::{add, widen, zero};
            use super::*;

            /// Rows of `out`, four at a time, so that they share the loads of activations. A quarter of a tile gives `RUNS` registers of `codes`; after `quarters` of them the sums are
            /// widened.
            #[inline]
            #[target_feature(enable = $features)]
            fn gemv<const RUNS: usize>(
                w: &[u8],
                row_bytes: usize,
                x: &Acts,
                out: &mut [i32],
                quarters: usize,
                codes: impl Fn(uint8x16_t) -> [int8x16_t; RUNS],
            ) {
                by_rows::<_, 4>(w, row_bytes, out, |rows| sums(rows, x, quarters, &codes));
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn sums<const R: usize, const RUNS: usize>(
                rows: [&[u8]; R],
                x: &Acts,
                quarters: usize,
                codes: &impl Fn(uint8x16_t) -> [int8x16_t; RUNS],
            ) -> [i32; R] {
                let n = rows[0].len() / 16;
                let rows: [&[[u8; 16]]; R] = parts(rows.map(|row| row.as_chunks().0), 0..n);
                let tiles = x.slots().as_chunks::<64>().0.as_chunks::<RUNS>().0;
                let mut sums = [vdupq_n_s32(0); R];
                for begin in (0..n).step_by(quarters) {
                    let mut narrow = [zero(); R];
                    for i in begin..n.min(begin + quarters) {
                        let runs = &tiles[i / 4];
                        let x: [int8x16_t; RUNS] = from_fn(|f| load_i8(&runs[f].as_chunks().0[i % 4]));
                        for r in 0..R {
                            narrow[r] = add(narrow[r], codes(load_bytes(&rows[r][i])), &x);
                        }
                    }
                    for r in 0..R {
                        sums[r] = widen(sums[r], narrow[r]);
                    }
                }
                sums.map(|sum| vaddvq_s32(sum))
            }

            /// No overflow: a quarter adds eight products of codes up to 3 to a lane of i16, ten quarters 80:
            /// 80 · 3 · 128 = 30 720 < 32 768.
            #[target_feature(enable = $features)]
            pub(in super::super) fn gemv_i2s_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
                x.assert_fits(&[Order::I2S, Order::I2S64], qk256::TILE_BYTES, w, row_bytes, out.len());
                gemv(w, row_bytes, x, out, 10, |w| two_bits(w));
                out.iter_mut().for_each(|sum| *sum -= x.sum());
            }

            /// No overflow: a quarter adds eight products of values up to 2 to a lane of i16, fifteen quarters 120:
            /// 120 · 2 · 128 = 30 720 < 32 768.
            #[target_feature(enable = $features)]
            pub(in super::super) fn gemv_pm2_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
                x.assert_fits(&[Order::Linear256], qk256::TILE_BYTES, w, row_bytes, out.len());
                gemv(w, row_bytes, x, out, 15, |w| pm2(w));
            }

            /// No overflow: sixteen columns add two products of codes up to 3 to a lane of i16, 42 times 84:
            /// 84 · 3 · 128 = 32 256 < 32 768.
            #[target_feature(enable = $features)]
            pub(in super::super) fn gemv_r4_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
                x.assert_fits_r4(w, row_bytes, out.len());
                by_rows(w, 4 * row_bytes, out.as_chunks_mut::<4>().0, |group: [_; 1]| [r4_sums(group[0], x)]);
            }

            /// The four rows of a group, whose first row has the highest field of each byte.
            #[inline]
            #[target_feature(enable = $features)]
            fn r4_sums(group: &[u8], x: &Acts) -> [i32; 4] {
                let (columns, acts) = (group.as_chunks::<16>().0, x.slots().as_chunks::<16>().0);
                let mut sums = [vdupq_n_s32(0); 4];
                for (columns, acts) in columns.chunks(42).zip(acts.chunks(42)) {
                    let mut narrow = [zero(); 4];
                    for (w, x) in columns.iter().zip(acts) {
                        let (codes, x) = (two_bits(load_bytes(w)), load_i8(x));
                        for row in 0..4 {
                            narrow[row] = add(narrow[row], [codes[3 - row]], &[x]);
                        }
                    }
                    for row in 0..4 {
                        sums[row] = widen(sums[row], narrow[row]);
                    }
                }
                let mut out = [0; 4];
                for row in 0..4 {
                    out[row] = vaddvq_s32(sums[row]) - x.sum();
                }
                out
            }

            /// No overflow: a quarter adds ten products of values up to 1 to a lane of i16, 25 quarters 250:
            /// 250 · 128 = 32 000 < 32 768.
            #[target_feature(enable = $features)]
            pub(in super::super) fn gemv_t5_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
                x.assert_fits(&[Order::T5], t5::BLOCK_BYTES, w, row_bytes, out.len());
                gemv(w, row_bytes, x, out, 25, |w| trits(w));
            }
        }
    };
}

rows!(plain, "neon");
rows!(dot, "neon,dotprod");
