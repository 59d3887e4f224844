//! Rows of codes with one scale a row: exact sums in i32.

use super::memory::*;
use crate::kernels::acts::{Acts, Order};
use crate::quant::qk256::{TILE, TILE_BYTES};
use std::arch::x86_64::*;
use std::array::from_fn;

#[target_feature(enable = "avx2")]
pub(super) fn gemv_i2s_i8(codes: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::I2S, Order::I2S64], TILE_BYTES, codes, row_bytes, out.len());
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (first, last) = codes.split_at(4 * fours.len() * row_bytes);
    for (i, four) in fours.iter_mut().enumerate() {
        *four = dot_i2s_i8(&first[4 * i * row_bytes..], row_bytes, x);
    }
    for (i, one) in rest.iter_mut().enumerate() {
        [*one] = dot_i2s_i8(&last[i * row_bytes..], row_bytes, x);
    }
}

/// `R` rows at a time, so that they share the loads of activations. Half a tile (32 bytes) is one register.
///
/// No overflow: `maddubs` multiplies codes 0..=3 with −128..=127 and adds two products: at most 2 · 3 · 128 = 768 in
/// magnitude. Ten halves of four fields are 40 of them in i16: 30 720 < 32 768; then they are widened.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn dot_i2s_i8<const R: usize>(rows: &[u8], row_bytes: usize, x: &Acts) -> [i32; R] {
    const HALVES: usize = 10;
    let halves = row_bytes / 32;
    let rows: [&[[u8; 32]]; R] = from_fn(|r| &rows[r * row_bytes..].as_chunks().0[..halves]);
    let tiles = x.slots().as_chunks::<TILE>().0;
    let (ones, field) = (_mm256_set1_epi16(1), _mm256_set1_epi8(3));
    let mut sums = [_mm256_setzero_si256(); R];
    for begin in (0..halves).step_by(HALVES) {
        let mut narrow = [_mm256_setzero_si256(); R];
        for i in begin..halves.min(begin + HALVES) {
            // Field f of half h meets run 2 f + h of its tile.
            let runs = tiles[i / 2].as_chunks::<32>().0;
            let x = |f: usize| load_i8(&runs[2 * f + i % 2]);
            let x = [x(0), x(1), x(2), x(3)];
            for r in 0..R {
                let w = load_bytes(&rows[r][i]);
                prefetch(&rows[r][i]);
                let w = [w, _mm256_srli_epi16::<2>(w), _mm256_srli_epi16::<4>(w), _mm256_srli_epi16::<6>(w)];
                for f in 0..4 {
                    let product = _mm256_maddubs_epi16(_mm256_and_si256(w[f], field), x[f]);
                    narrow[r] = _mm256_add_epi16(narrow[r], product);
                }
            }
        }
        for r in 0..R {
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(narrow[r], ones));
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        out[r] = sum_ints(sums[r]) - x.sum();
    }
    out
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_ints(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_unpackhi_epi64(v, v));
    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<1>(v)))
}
