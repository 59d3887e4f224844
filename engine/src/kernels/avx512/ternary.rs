//! Rows of codes with one scale a row: exact sums in i32.

use super::blocks::{sums_of_16, trit_pairs_bw, trit_sums_vnni};
use super::memory::*;
use crate::kernels::acts::{Acts, Order};
use crate::kernels::streams::{by_rows, parts};
use crate::quant::qk256::{TILE, TILE_BYTES};
use crate::quant::t5;
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemv_i2s_i8(codes: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::I2S, Order::I2S64], TILE_BYTES, codes, row_bytes, out.len());
    by_rows(codes, row_bytes, out, |rows: [_; 4]| dot_i2s_i8(rows, x));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn gemv_i2s_i8_vnni(codes: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::I2S, Order::I2S64], TILE_BYTES, codes, row_bytes, out.len());
    by_rows(codes, row_bytes, out, |rows: [_; 8]| dot_i2s_i8_vnni(rows, x));
}

/// Whole tiles of rows of equal length, and the half tiles after them.
#[inline]
fn tiles_of<const R: usize>(rows: [&[u8]; R]) -> ([&[[u8; TILE_BYTES]]; R], [&[u8]; R]) {
    let tiles = rows[0].len() / TILE_BYTES;
    (parts(rows.map(|row| row.as_chunks().0), 0..tiles), parts(rows, tiles * TILE_BYTES..rows[0].len()))
}

/// The four runs of activations that meet fields 0, 1, 2, 3 of a tile.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_acts(tile: &[i8; TILE]) -> [__m512i; 4] {
    let runs = tile.as_chunks::<TILE_BYTES>().0;
    [load_i8(&runs[0]), load_i8(&runs[1]), load_i8(&runs[2]), load_i8(&runs[3])]
}

/// Adds a tile of a row to `sums`: those of pairs in i16 of the low fields as they are, and of the high ones as 4 · code.
///
/// One shift for four fields: of `w` and `w >> 4`, the low field is taken as it is and the next one in its place.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn add_tile(sums: &mut [__m512i; 2], w: __m512i, x: &[__m512i; 4]) {
    let (low_field, high_field) = (_mm512_set1_epi8(3), _mm512_set1_epi8(12));
    for (w, x) in [(w, [x[0], x[1]]), (_mm512_srli_epi16::<4>(w), [x[2], x[3]])] {
        let product = _mm512_maddubs_epi16(_mm512_and_si512(w, low_field), x[0]);
        sums[0] = _mm512_add_epi16(sums[0], product);
        let product = _mm512_maddubs_epi16(_mm512_and_si512(w, high_field), x[1]);
        sums[1] = _mm512_add_epi16(sums[1], product);
    }
}

/// `R` rows with `maddubs`. The missing half of a last half-tile is code 0, whose products are 0.
///
/// No overflow: `maddubs` multiplies codes 0..=3 with −128..=127 and adds two products: at most 2 · 3 · 128 = 768 in
/// magnitude for a low field and 3072 for a high one. Five tiles add ten of each in i16: 7680 and 30 720 < 32 768. The
/// high sum is a multiple of 4: shifted, it is at most 7680, both together 15 360; then they are widened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn dot_i2s_i8<const R: usize>(rows: [&[u8]; R], x: &Acts) -> [i32; R] {
    const TILES: usize = 5;
    let (rows, halves) = tiles_of(rows);
    let x_tiles = x.slots().as_chunks::<TILE>().0;
    let (whole, last) = x_tiles.split_at(rows[0].len());
    let mut sums = [_mm512_setzero_si512(); R];
    for (block, tiles) in whole.chunks(TILES).enumerate() {
        let rows = parts(rows, TILES * block..TILES * block + tiles.len());
        let mut narrow = [[_mm512_setzero_si512(); 2]; R];
        for (t, x) in tiles.iter().enumerate() {
            let x = load_acts(x);
            for r in 0..R {
                let tile = &rows[r][t];
                prefetch(tile);
                add_tile(&mut narrow[r], load_bytes(tile), &x);
            }
        }
        for r in 0..R {
            sums[r] = _mm512_add_epi32(sums[r], widen(narrow[r]));
        }
    }
    for x in last {
        let x = load_acts(x);
        for r in 0..R {
            let mut narrow = [_mm512_setzero_si512(); 2];
            add_tile(&mut narrow, load_some_bytes(halves[r]), &x);
            sums[r] = _mm512_add_epi32(sums[r], widen(narrow));
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        out[r] = _mm512_reduce_add_epi32(sums[r]) - x.sum();
    }
    out
}

/// Sums of [`add_tile`] in i32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn widen([low, high]: [__m512i; 2]) -> __m512i {
    let narrow = _mm512_add_epi16(low, _mm512_srai_epi16::<2>(high));
    _mm512_madd_epi16(narrow, _mm512_set1_epi16(1))
}

/// [`add_tile`] in i32 with `dpbusd`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_tile_vnni(sums: &mut [__m512i; 2], w: __m512i, x: &[__m512i; 4]) {
    let (low_field, high_field) = (_mm512_set1_epi8(3), _mm512_set1_epi8(12));
    for (w, x) in [(w, [x[0], x[1]]), (_mm512_srli_epi16::<4>(w), [x[2], x[3]])] {
        sums[0] = _mm512_dpbusd_epi32(sums[0], _mm512_and_si512(w, low_field), x[0]);
        sums[1] = _mm512_dpbusd_epi32(sums[1], _mm512_and_si512(w, high_field), x[1]);
    }
}

/// `R` rows with `dpbusd`, which does not saturate. Two sums a row leave registers for eight rows.
///
/// No overflow: a lane adds eight products a tile to each sum, of the high fields at most 8 · (4 · max code) · 128 in
/// magnitude, and a tile is 256 columns: no lane exceeds cols · max code · 128 / 8. The high sum is a multiple of 4:
/// shifted and added, the two have the bound of the scalar kernel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn dot_i2s_i8_vnni<const R: usize>(rows: [&[u8]; R], x: &Acts) -> [i32; R] {
    let (rows, halves) = tiles_of(rows);
    let (whole, last) = x.slots().as_chunks::<TILE>().0.split_at(rows[0].len());
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    for (t, x) in whole.iter().enumerate() {
        let x = load_acts(x);
        for r in 0..R {
            let tile = &rows[r][t];
            prefetch(tile);
            add_tile_vnni(&mut sums[r], load_bytes(tile), &x);
        }
    }
    for x in last {
        let x = load_acts(x);
        for r in 0..R {
            add_tile_vnni(&mut sums[r], load_some_bytes(halves[r]), &x);
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        let [low, high] = sums[r];
        out[r] = _mm512_reduce_add_epi32(_mm512_add_epi32(low, _mm512_srai_epi32::<2>(high))) - x.sum();
    }
    out
}

/// Four groups of four rows, which may be in memory (`FAR`), with `dpbusd`: sums of whole bytes and of their low 6, 4 and 2 bits, see
/// [`crate::quant::i2_r4`]. The fields of a byte meet the same activations, so three masks serve four rows.
///
/// No overflow: of 2^16 columns, those of a chunk, the sum of whole bytes is at most 2^16 · 255 · 128 = 2 139 095 040 in
/// magnitude, below 2^31.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vnni")]
fn dot_r4_i8_vnni<const FAR: bool>(groups: [&[u8]; 4], x: &Acts) -> __m512i {
    let masks = [_mm512_set1_epi8(0x3f), _mm512_set1_epi8(0x0f), _mm512_set1_epi8(0x03)];
    let lines = [
        groups[0].as_chunks::<64>().0,
        groups[1].as_chunks::<64>().0,
        groups[2].as_chunks::<64>().0,
        groups[3].as_chunks::<64>().0,
    ];
    let lines = parts(lines, 0..groups[0].len() / 64);
    let mut total = _mm512_setzero_si512();
    for (chunk, x) in x.slots().as_chunks::<64>().0.chunks(R4_LINES).enumerate() {
        let lines = parts(lines, chunk * R4_LINES..chunk * R4_LINES + x.len());
        // Sixteen registers: four sums of each of four groups.
        let mut sums = [_mm512_setzero_si512(); 16];
        for (i, x) in x.iter().enumerate() {
            let x = load_i8(x);
            for g in 0..4 {
                if FAR {
                    prefetch(&lines[g][i]);
                }
                let w = load_bytes(&lines[g][i]);
                sums[4 * g] = _mm512_dpbusd_epi32(sums[4 * g], w, x);
                for f in 0..3 {
                    let low = _mm512_and_si512(w, masks[f]);
                    sums[4 * g + 1 + f] = _mm512_dpbusd_epi32(sums[4 * g + 1 + f], low, x);
                }
            }
        }
        total = _mm512_add_epi32(total, r4_fields(sums_of_16(sums)));
    }
    total
}

/// Bytes that may be in a second-level cache, where a prefetch only takes time.
const SECOND_LEVEL_CACHE: usize = 1 << 20;

/// Lines of 64 columns of four rows whose sums of bytes are taken together: 2^16 columns.
const R4_LINES: usize = 1024;

/// From the sums of whole bytes and of their low 6, 4 and 2 bits, in every four lanes: those of the fields.
#[inline]
#[target_feature(enable = "avx512f")]
fn r4_fields(sums: __m512i) -> __m512i {
    let next = _mm512_maskz_shuffle_epi32::<0b11_11_10_01>(0x7777, sums);
    let shifts = _mm512_setr_epi32(6, 4, 2, 0, 6, 4, 2, 0, 6, 4, 2, 0, 6, 4, 2, 0);
    _mm512_srav_epi32(_mm512_sub_epi32(sums, next), shifts)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn gemv_r4_i8_vnni(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits_r4(w, row_bytes, out.len());
    let far = w.len() > SECOND_LEVEL_CACHE;
    by_rows(w, 4 * row_bytes, out.as_chunks_mut::<4>().0, |groups: [_; 4]| {
        let codes = if far { dot_r4_i8_vnni::<true>(groups, x) } else { dot_r4_i8_vnni::<false>(groups, x) };
        let mut sums = [[0; 4]; 4];
        let all = sums.as_flattened_mut().as_mut_array().expect("four times four");
        store16(all, _mm512_sub_epi32(codes, _mm512_set1_epi32(x.sum())));
        sums
    });
}

/// Two groups of four rows with `maddubs`: the fields of a byte and of its upper half, the higher one of each in its place,
/// as 4 · code. The products of sixteen bits that whole bytes would need do not fit.
///
/// No overflow: see [`dot_i2s_i8`]; ten lines add ten pairs of 3072 at most: 30 720 < 32 768.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn dot_r4_i8(groups: [&[u8]; 2], x: &Acts) -> [[i32; 4]; 2] {
    const LINES: usize = 10;
    let (low_field, high_field) = (_mm512_set1_epi8(3), _mm512_set1_epi8(12));
    let lines =
        parts([groups[0].as_chunks::<64>().0, groups[1].as_chunks::<64>().0], 0..groups[0].len() / 64);
    let mut sums = [[_mm512_setzero_si512(); 4]; 2];
    for (chunk, x) in x.slots().as_chunks::<64>().0.chunks(LINES).enumerate() {
        let lines = parts(lines, chunk * LINES..chunk * LINES + x.len());
        let mut narrow = [[_mm512_setzero_si512(); 4]; 2];
        for (i, x) in x.iter().enumerate() {
            let x = load_i8(x);
            for g in 0..2 {
                prefetch(&lines[g][i]);
                let w = load_bytes(&lines[g][i]);
                let high = _mm512_srli_epi16::<4>(w);
                for (row, (w, field)) in
                    [(high, high_field), (high, low_field), (w, high_field), (w, low_field)]
                        .into_iter()
                        .enumerate()
                {
                    let pairs = _mm512_maddubs_epi16(_mm512_and_si512(w, field), x);
                    narrow[g][row] = _mm512_add_epi16(narrow[g][row], pairs);
                }
            }
        }
        for g in 0..2 {
            for row in 0..4 {
                // Fields in their place are multiples of 4.
                let codes =
                    if row % 2 == 0 { _mm512_srai_epi16::<2>(narrow[g][row]) } else { narrow[g][row] };
                let wide = _mm512_madd_epi16(codes, _mm512_set1_epi16(1));
                sums[g][row] = _mm512_add_epi32(sums[g][row], wide);
            }
        }
    }
    let mut out = [[0; 4]; 2];
    for g in 0..2 {
        for row in 0..4 {
            out[g][row] = _mm512_reduce_add_epi32(sums[g][row]) - x.sum();
        }
    }
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemv_r4_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits_r4(w, row_bytes, out.len());
    by_rows(w, 4 * row_bytes, out.as_chunks_mut::<4>().0, |groups: [_; 2]| dot_r4_i8(groups, x));
}

/// Codes 0, 1, 2, 3 of a field as 0, 1, 3, 4: code + its high bit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pm2_codes(tile: __m512i) -> [__m512i; 4] {
    let mut codes =
        [tile, _mm512_srli_epi16::<2>(tile), _mm512_srli_epi16::<4>(tile), _mm512_srli_epi16::<6>(tile)];
    for w in &mut codes {
        let high = _mm512_and_si512(_mm512_srli_epi16::<1>(*w), _mm512_set1_epi8(1));
        *w = _mm512_add_epi8(_mm512_and_si512(*w, _mm512_set1_epi8(3)), high);
    }
    codes
}

/// `R` rows; `add` adds the products of a tile to a sum.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn dot_pm2_i8<const R: usize>(
    rows: [&[u8]; R],
    x: &Acts,
    add: impl Fn(__m512i, [__m512i; 4], [__m512i; 4]) -> __m512i,
) -> [i32; R] {
    let (rows, halves) = tiles_of(rows);
    let (whole, last) = x.slots().as_chunks::<TILE>().0.split_at(rows[0].len());
    let mut sums = [_mm512_setzero_si512(); R];
    for (t, x) in whole.iter().enumerate() {
        let x = load_acts(x);
        for r in 0..R {
            let tile = &rows[r][t];
            prefetch(tile);
            sums[r] = add(sums[r], pm2_codes(load_bytes(tile)), x);
        }
    }
    for x in last {
        let x = load_acts(x);
        for r in 0..R {
            sums[r] = add(sums[r], pm2_codes(load_some_bytes(halves[r])), x);
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        out[r] = _mm512_reduce_add_epi32(sums[r]) - 2 * x.sum();
    }
    out
}

/// No overflow: a tile adds 256 products of at most 4 · 128 to a register's lanes; see the bound of a row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn gemv_pm2_i8_vnni(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::Linear256], TILE_BYTES, w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |rows: [_; 4]| {
        dot_pm2_i8(rows, x, |mut sum, codes, x| {
            for f in 0..4 {
                sum = _mm512_dpbusd_epi32(sum, codes[f], x[f]);
            }
            sum
        })
    });
}

/// No overflow: four times `maddubs`, at most 2 · 4 · 128 each, are 4096 in i16; then they are widened.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemv_pm2_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::Linear256], TILE_BYTES, w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |rows: [_; 4]| {
        dot_pm2_i8(rows, x, |sum, codes, x| {
            let mut narrow = _mm512_setzero_si512();
            for f in 0..4 {
                narrow = _mm512_add_epi16(narrow, _mm512_maddubs_epi16(codes[f], x[f]));
            }
            _mm512_add_epi32(sum, _mm512_madd_epi16(narrow, _mm512_set1_epi16(1)))
        })
    });
}

/// The five planes of activations of a tile of trits.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_planes(tile: &[i8; t5::BLOCK]) -> [__m512i; 5] {
    let planes = tile.as_chunks::<64>().0;
    [load_i8(&planes[0]), load_i8(&planes[1]), load_i8(&planes[2]), load_i8(&planes[3]), load_i8(&planes[4])]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn gemv_t5_i8_vnni(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::T5], t5::BLOCK_BYTES, w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |rows: [_; 8]| dot_t5_i8_vnni(rows, x));
}

/// `R` rows, see [`trits_vnni`](super::blocks::trits_vnni).
///
/// No overflow: sums wrap, but what is left of them, 256 · Σ trit · q of a lane's four columns in 64, is at most
/// 256 · 4 · 5 · 2 · 128 < 2^21 a tile, and after 1024 tiles it is divided by 256 and moved.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_t5_i8_vnni<const R: usize>(rows: [&[u8]; R], x: &Acts) -> [i32; R] {
    let rows = rows.map(|row| row.as_chunks::<64>().0);
    let mut totals = [_mm512_setzero_si512(); R];
    for (block, tiles) in x.slots().as_chunks::<{ t5::BLOCK }>().0.chunks(1000).enumerate() {
        let rows = parts(rows, 1000 * block..1000 * block + tiles.len());
        let (mut sums, mut nexts) = ([_mm512_setzero_si512(); R], [_mm512_setzero_si512(); R]);
        for (t, x) in tiles.iter().enumerate() {
            let x = load_planes(x);
            for r in 0..R {
                let w = &rows[r][t];
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
    let mut out = [0; R];
    for r in 0..R {
        out[r] = _mm512_reduce_add_epi32(totals[r]) - x.sum();
    }
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemv_t5_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::T5], t5::BLOCK_BYTES, w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |rows: [_; 8]| dot_t5_i8(rows, x));
}

/// `R` rows without VNNI. No overflow: a tile adds at most 2560 in i16; ten of them are widened together.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn dot_t5_i8<const R: usize>(rows: [&[u8]; R], x: &Acts) -> [i32; R] {
    let rows = rows.map(|row| row.as_chunks::<64>().0);
    let mut totals = [_mm512_setzero_si512(); R];
    for (block, tiles) in x.slots().as_chunks::<{ t5::BLOCK }>().0.chunks(10).enumerate() {
        let rows = parts(rows, 10 * block..10 * block + tiles.len());
        let mut narrow = [_mm512_setzero_si512(); R];
        for (t, x) in tiles.iter().enumerate() {
            let x = load_planes(x);
            for r in 0..R {
                let w = &rows[r][t];
                prefetch(w);
                narrow[r] = _mm512_add_epi16(narrow[r], trit_pairs_bw(load_bytes(w), &x));
            }
        }
        for r in 0..R {
            let wide = _mm512_madd_epi16(narrow[r], _mm512_set1_epi16(1));
            totals[r] = _mm512_add_epi32(totals[r], wide);
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        out[r] = _mm512_reduce_add_epi32(totals[r]) - x.sum();
    }
    out
}
