//! Rows of codes with one scale a row: exact sums in i32.

use super::blocks::{trit_pairs_bw, trit_sums_vnni};
use super::memory::*;
use crate::kernels::acts::{Acts, Order};
use crate::quant::qk256::{TILE, TILE_BYTES};
use crate::quant::t5;
use std::arch::x86_64::*;
use std::array::from_fn;

/// Four rows at a time, so that they share the loads of activations; then one by one.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn by_rows<T>(
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemv_i2s_i8(codes: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::I2S, Order::I2S64], TILE_BYTES, codes, row_bytes, out.len());
    by_rows(codes, row_bytes, out, |w| dot_i2s_i8(w, row_bytes, x), |w| dot_i2s_i8(w, row_bytes, x));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn gemv_i2s_i8_vnni(codes: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::I2S, Order::I2S64], TILE_BYTES, codes, row_bytes, out.len());
    by_rows(
        codes,
        row_bytes,
        out,
        |w| dot_i2s_i8_vnni(w, row_bytes, x),
        |w| dot_i2s_i8_vnni(w, row_bytes, x),
    );
}

/// Tile `t` of a row; the missing half of a last half-tile is code 0, whose products are 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn load_tile(row: (&[[u8; TILE_BYTES]], &[u8]), t: usize) -> __m512i {
    match row.0.get(t) {
        Some(tile) => {
            prefetch(tile);
            load_bytes(tile)
        }
        None => load_some_bytes(row.1),
    }
}

/// The four runs of activations that meet fields 0, 1, 2, 3 of a tile.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_acts(tile: &[i8; TILE]) -> [__m512i; 4] {
    let runs = tile.as_chunks::<TILE_BYTES>().0;
    [load_i8(&runs[0]), load_i8(&runs[1]), load_i8(&runs[2]), load_i8(&runs[3])]
}

/// `R` rows with `maddubs`.
///
/// One shift for four fields: of `w` and `w >> 4`, the low field is taken as it is and the next one as 4 · code.
///
/// No overflow: `maddubs` multiplies codes 0..=3 with −128..=127 and adds two products: at most 2 · 3 · 128 = 768 in
/// magnitude for a low field and 3072 for a high one. Five tiles add ten of each in i16: 7680 and 30 720 < 32 768. The
/// high sum is a multiple of 4: shifted, it is at most 7680, both together 15 360; then they are widened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn dot_i2s_i8<const R: usize>(rows: &[u8], row_bytes: usize, x: &Acts) -> [i32; R] {
    const TILES: usize = 5;
    let rows: [_; R] = from_fn(|r| rows[r * row_bytes..][..row_bytes].as_chunks());
    let tiles = x.slots().as_chunks::<TILE>().0;
    let (low_field, high_field) = (_mm512_set1_epi8(3), _mm512_set1_epi8(12));
    let mut sums = [_mm512_setzero_si512(); R];
    for (block, tiles) in tiles.chunks(TILES).enumerate() {
        let (mut low, mut high) = ([_mm512_setzero_si512(); R], [_mm512_setzero_si512(); R]);
        for (t, x) in tiles.iter().enumerate() {
            let x = load_acts(x);
            for r in 0..R {
                let w = load_tile(rows[r], TILES * block + t);
                for (w, x) in [(w, [x[0], x[1]]), (_mm512_srli_epi16::<4>(w), [x[2], x[3]])] {
                    let product = _mm512_maddubs_epi16(_mm512_and_si512(w, low_field), x[0]);
                    low[r] = _mm512_add_epi16(low[r], product);
                    let product = _mm512_maddubs_epi16(_mm512_and_si512(w, high_field), x[1]);
                    high[r] = _mm512_add_epi16(high[r], product);
                }
            }
        }
        for r in 0..R {
            let narrow = _mm512_add_epi16(low[r], _mm512_srai_epi16::<2>(high[r]));
            sums[r] = _mm512_add_epi32(sums[r], _mm512_madd_epi16(narrow, _mm512_set1_epi16(1)));
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        out[r] = _mm512_reduce_add_epi32(sums[r]) - x.sum();
    }
    out
}

/// `R` rows with `dpbusd`, which does not saturate.
///
/// No shift at all: field `f` is taken in its place, as 4^f · code, and summed for itself.
///
/// No overflow: a lane adds four products a tile, of field 3 at most 4 · (64 · max code) · 128 = 256 · max code · 128 in
/// magnitude, and a tile is 256 columns: no lane exceeds cols · max code · 128, which the model loader keeps below 2^31.
/// Each sum is a multiple of 4^f: shifted and added, the four have the bound of the scalar kernel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn dot_i2s_i8_vnni<const R: usize>(rows: &[u8], row_bytes: usize, x: &Acts) -> [i32; R] {
    let rows: [_; R] = from_fn(|r| rows[r * row_bytes..][..row_bytes].as_chunks());
    let fields = [0x03, 0x0c, 0x30, 0xc0_u8.cast_signed()].map(|field| _mm512_set1_epi8(field));
    let mut sums = [[_mm512_setzero_si512(); 4]; R];
    for (t, x) in x.slots().as_chunks::<TILE>().0.iter().enumerate() {
        let x = load_acts(x);
        for r in 0..R {
            let w = load_tile(rows[r], t);
            for f in 0..4 {
                sums[r][f] = _mm512_dpbusd_epi32(sums[r][f], _mm512_and_si512(w, fields[f]), x[f]);
            }
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        let low = _mm512_add_epi32(sums[r][0], _mm512_srai_epi32::<2>(sums[r][1]));
        let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(sums[r][2]), _mm512_srai_epi32::<6>(sums[r][3]));
        out[r] = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high)) - x.sum();
    }
    out
}

/// Codes 0, 1, 2, 3 of a field as 0, 1, 3, 4: code + its high bit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pm2_codes(tile: __m512i) -> [__m512i; 4] {
    let shifted =
        [tile, _mm512_srli_epi16::<2>(tile), _mm512_srli_epi16::<4>(tile), _mm512_srli_epi16::<6>(tile)];
    shifted.map(|w| {
        let codes = _mm512_and_si512(w, _mm512_set1_epi8(3));
        let high = _mm512_and_si512(_mm512_srli_epi16::<1>(w), _mm512_set1_epi8(1));
        _mm512_add_epi8(codes, high)
    })
}

/// No overflow: a tile adds 256 products of at most 4 · 128 to a register's lanes; see the bound of a row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn gemv_pm2_i8_vnni(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::Linear256], TILE_BYTES, w, row_bytes, out.len());
    for (r, out) in out.iter_mut().enumerate() {
        let row = w[r * row_bytes..][..row_bytes].as_chunks();
        let mut sum = _mm512_setzero_si512();
        for (t, x) in x.slots().as_chunks::<TILE>().0.iter().enumerate() {
            let (codes, x) = (pm2_codes(load_tile(row, t)), load_acts(x));
            for f in 0..4 {
                sum = _mm512_dpbusd_epi32(sum, codes[f], x[f]);
            }
        }
        *out = _mm512_reduce_add_epi32(sum) - 2 * x.sum();
    }
}

/// No overflow: four times `maddubs`, at most 2 · 4 · 128 each, are 4096 in i16; then they are widened.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemv_pm2_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::Linear256], TILE_BYTES, w, row_bytes, out.len());
    for (r, out) in out.iter_mut().enumerate() {
        let row = w[r * row_bytes..][..row_bytes].as_chunks();
        let mut sum = _mm512_setzero_si512();
        for (t, x) in x.slots().as_chunks::<TILE>().0.iter().enumerate() {
            let (codes, x) = (pm2_codes(load_tile(row, t)), load_acts(x));
            let mut narrow = _mm512_setzero_si512();
            for f in 0..4 {
                narrow = _mm512_add_epi16(narrow, _mm512_maddubs_epi16(codes[f], x[f]));
            }
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(narrow, _mm512_set1_epi16(1)));
        }
        *out = _mm512_reduce_add_epi32(sum) - 2 * x.sum();
    }
}

/// The five planes of activations of a tile of trits.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_planes(tile: &[i8; t5::BLOCK]) -> [__m512i; 5] {
    let planes = tile.as_chunks::<64>().0;
    from_fn(|k| load_i8(&planes[k]))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn gemv_t5_i8_vnni(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::T5], t5::BLOCK_BYTES, w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |w| dot_t5_i8_vnni(w, row_bytes, x), |w| dot_t5_i8_vnni(w, row_bytes, x));
}

/// `R` rows, see [`trits_vnni`](super::blocks::trits_vnni).
///
/// No overflow: sums wrap, but what is left of them, 256 · Σ trit · q of a lane's four columns in 64, is at most
/// 256 · 4 · 5 · 2 · 128 < 2^21 a tile, and after 1024 tiles it is divided by 256 and moved.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_t5_i8_vnni<const R: usize>(rows: &[u8], row_bytes: usize, x: &Acts) -> [i32; R] {
    let rows: [&[[u8; 64]]; R] = from_fn(|r| rows[r * row_bytes..][..row_bytes].as_chunks().0);
    let mut totals = [_mm512_setzero_si512(); R];
    for (block, tiles) in x.slots().as_chunks::<{ t5::BLOCK }>().0.chunks(1000).enumerate() {
        let (mut sums, mut nexts) = ([_mm512_setzero_si512(); R], [_mm512_setzero_si512(); R]);
        for (t, x) in tiles.iter().enumerate() {
            let x = load_planes(x);
            for r in 0..R {
                let w = &rows[r][1000 * block + t];
                prefetch(w);
                (sums[r], nexts[r]) = trit_sums_vnni(load_bytes(w), &x, sums[r], nexts[r]);
            }
        }
        for r in 0..R {
            let thrice = _mm512_add_epi32(sums[r], _mm512_add_epi32(sums[r], sums[r]));
            let whole = _mm512_srai_epi32::<8>(_mm512_sub_epi32(thrice, nexts[r]));
            totals[r] = _mm512_add_epi32(totals[r], whole);
        }
    }
    totals.map(|total| _mm512_reduce_add_epi32(total) - x.sum())
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemv_t5_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::T5], t5::BLOCK_BYTES, w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |w| dot_t5_i8(w, row_bytes, x), |w| dot_t5_i8(w, row_bytes, x));
}

/// `R` rows without VNNI. No overflow: a tile adds at most 2560 in i16; ten of them are widened together.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn dot_t5_i8<const R: usize>(rows: &[u8], row_bytes: usize, x: &Acts) -> [i32; R] {
    let rows: [&[[u8; 64]]; R] = from_fn(|r| rows[r * row_bytes..][..row_bytes].as_chunks().0);
    let mut totals = [_mm512_setzero_si512(); R];
    for (block, tiles) in x.slots().as_chunks::<{ t5::BLOCK }>().0.chunks(10).enumerate() {
        let mut narrow = [_mm512_setzero_si512(); R];
        for (t, x) in tiles.iter().enumerate() {
            let x = load_planes(x);
            for r in 0..R {
                let w = &rows[r][10 * block + t];
                prefetch(w);
                narrow[r] = _mm512_add_epi16(narrow[r], trit_pairs_bw(load_bytes(w), &x));
            }
        }
        for r in 0..R {
            let wide = _mm512_madd_epi16(narrow[r], _mm512_set1_epi16(1));
            totals[r] = _mm512_add_epi32(totals[r], wide);
        }
    }
    totals.map(|total| _mm512_reduce_add_epi32(total) - x.sum())
}
