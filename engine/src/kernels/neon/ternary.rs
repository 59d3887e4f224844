//! Rows of 2-bit codes in tiles of 64 bytes × int8 activations in the order of the tiles.

use super::memory::{load_bytes, load_i8};
use crate::kernels::acts::{Acts, Order};
use crate::quant::qk256::{TILE, TILE_BYTES};
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;

#[target_feature(enable = "neon")]
pub(super) fn gemv_i2s_i8(codes: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::I2S, Order::I2S64], TILE_BYTES, codes, row_bytes, out.len());
    by_rows(codes, row_bytes, out, |w| dot_i2s_i8(w, row_bytes, x), |w| dot_i2s_i8(w, row_bytes, x));
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn gemv_i2s_i8_dot(codes: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::I2S, Order::I2S64], TILE_BYTES, codes, row_bytes, out.len());
    by_rows(codes, row_bytes, out, |w| dot_i2s_i8_dot(w, row_bytes, x), |w| dot_i2s_i8_dot(w, row_bytes, x));
}

/// Four rows at a time, so that they share the loads of activations; then one by one.
#[inline]
#[target_feature(enable = "neon")]
fn by_rows<T>(
    w: &[u8],
    row_bytes: usize,
    out: &mut [T],
    dot_4: impl Fn(&[u8]) -> [T; 4],
    dot_1: impl Fn(&[u8]) -> [T; 1],
) {
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (first, last) = w.split_at(4 * fours.len() * row_bytes);
    for (i, four) in fours.iter_mut().enumerate() {
        *four = dot_4(&first[4 * i * row_bytes..]);
    }
    for (i, one) in rest.iter_mut().enumerate() {
        [*one] = dot_1(&last[i * row_bytes..]);
    }
}

/// The quarters of `R` rows' tiles: one register of codes each.
fn quarters<const R: usize>(rows: &[u8], row_bytes: usize) -> [&[[u8; 16]]; R] {
    from_fn(|r| rows[r * row_bytes..][..row_bytes].as_chunks().0)
}

/// Fields 0, 1, 2, 3 of 16 bytes: 0..=3, so that they are the same as int8.
#[inline]
#[target_feature(enable = "neon")]
fn fields(w: uint8x16_t) -> [int8x16_t; 4] {
    let field = |w: uint8x16_t| vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(3)));
    [field(w), field(vshrq_n_u8::<2>(w)), field(vshrq_n_u8::<4>(w)), field(vshrq_n_u8::<6>(w))]
}

/// The activations that meet fields 0, 1, 2, 3 of quarter `i` of a row: quarter `i % 4` of each of a tile's four runs.
#[inline]
#[target_feature(enable = "neon")]
fn load_acts(tiles: &[[i8; TILE]], i: usize) -> [int8x16_t; 4] {
    let runs = tiles[i / 4].as_chunks::<16>().0;
    let x = |f: usize| load_i8(&runs[4 * f + i % 4]);
    [x(0), x(1), x(2), x(3)]
}

/// `R` rows at a time.
///
/// No overflow: codes 0..=3 times −128..=127 are at most 384 in magnitude. A quarter adds eight products to each lane of
/// i16 (four fields, from the lower and the upper half of the registers), ten quarters 80: 30 720 < 32 768. Then they are
/// widened; `vpadalq` adds its pairs in i32.
#[inline]
#[target_feature(enable = "neon")]
fn dot_i2s_i8<const R: usize>(rows: &[u8], row_bytes: usize, x: &Acts) -> [i32; R] {
    const QUARTERS: usize = 10;
    let rows = quarters::<R>(rows, row_bytes);
    let tiles = x.slots().as_chunks::<TILE>().0;
    let n = row_bytes / 16;
    let mut sums = [vdupq_n_s32(0); R];
    for begin in (0..n).step_by(QUARTERS) {
        let mut narrow = [vdupq_n_s16(0); R];
        for i in begin..n.min(begin + QUARTERS) {
            let x = load_acts(tiles, i);
            for r in 0..R {
                let w = fields(load_bytes(&rows[r][i]));
                for f in 0..4 {
                    narrow[r] = vmlal_s8(narrow[r], vget_low_s8(w[f]), vget_low_s8(x[f]));
                    narrow[r] = vmlal_high_s8(narrow[r], w[f], x[f]);
                }
            }
        }
        for r in 0..R {
            sums[r] = vpadalq_s16(sums[r], narrow[r]);
        }
    }
    from_fn(|r| vaddvq_s32(sums[r]) - x.sum())
}

/// `R` rows at a time, with `sdot`.
///
/// No overflow: `sdot` adds four products to a lane of i32, and no sum of a whole row leaves i32: see `scalar.rs`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_i2s_i8_dot<const R: usize>(rows: &[u8], row_bytes: usize, x: &Acts) -> [i32; R] {
    let rows = quarters::<R>(rows, row_bytes);
    let tiles = x.slots().as_chunks::<TILE>().0;
    let mut sums = [vdupq_n_s32(0); R];
    for i in 0..row_bytes / 16 {
        let x = load_acts(tiles, i);
        for r in 0..R {
            let w = fields(load_bytes(&rows[r][i]));
            for f in 0..4 {
                sums[r] = sdot(sums[r], w[f], x[f]);
            }
        }
    }
    from_fn(|r| vaddvq_s32(sums[r]) - x.sum())
}

/// `sum_l + Σ_k a_{4l+k} · b_{4l+k}` for `k` in 0..4. In assembly: the intrinsic is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
#[expect(unsafe_code, reason = "one instruction of assembly")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction reads and writes the registers named and nothing else; whoever may call this has it.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}
