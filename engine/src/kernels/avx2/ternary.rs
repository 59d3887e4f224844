//! Rows of codes with one scale a row: exact sums in i32.

use super::memory::*;
use crate::kernels::acts::{Acts, Order};
use crate::kernels::streams::{by_rows, parts};
use crate::quant::{qk256, t5};
use std::arch::x86_64::*;

/// Fields of a byte that hold a 2-bit code.
const FIELDS: usize = 4;

#[target_feature(enable = "avx2")]
pub(super) fn gemv_i2s_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::I2S, Order::I2S64], qk256::TILE_BYTES, w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |rows: [_; 4]| dot_i2s_i8(rows, x));
}

#[target_feature(enable = "avx2")]
pub(super) fn gemv_pm2_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::Linear256], qk256::TILE_BYTES, w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |rows: [_; 4]| dot_pm2_i8(rows, x));
}

#[target_feature(enable = "avx2")]
pub(super) fn gemv_t5_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits(&[Order::T5], t5::BLOCK_BYTES, w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |rows: [_; 4]| dot_t5_i8(rows, x));
}

/// The sums of codes of `R` rows: half a tile (32 bytes) is one register. `add` adds its products to a row's `narrow` sums;
/// after `HALVES` of them `fold` makes one register of i16 of them, which is widened.
#[inline]
#[target_feature(enable = "avx2")]
fn dot<const R: usize, const RUNS: usize, const HALVES: usize, S: Copy>(
    rows: [&[u8]; R],
    x: &Acts,
    zero: S,
    add: impl Fn(S, __m256i, &[__m256i; RUNS]) -> S,
    fold: impl Fn(S) -> __m256i,
) -> [i32; R] {
    let halves = rows[0].len() / 32;
    let rows = parts(rows.map(|row| row.as_chunks::<32>().0), 0..halves);
    let tiles = x.slots().as_chunks::<64>().0.as_chunks::<RUNS>().0;
    let mut sums = [_mm256_setzero_si256(); R];
    for begin in (0..halves).step_by(HALVES) {
        let mut narrow = [zero; R];
        for i in begin..halves.min(begin + HALVES) {
            // Half h of every run of the tile.
            let (tile, h) = (&tiles[i / 2], i % 2);
            let mut x = [_mm256_setzero_si256(); RUNS];
            for f in 0..RUNS {
                x[f] = load_i8(&tile[f].as_chunks().0[h]);
            }
            for r in 0..R {
                prefetch(&rows[r][i]);
                narrow[r] = add(narrow[r], load_bytes(&rows[r][i]), &x);
            }
        }
        for r in 0..R {
            let wide = _mm256_madd_epi16(fold(narrow[r]), _mm256_set1_epi16(1));
            sums[r] = _mm256_add_epi32(sums[r], wide);
        }
    }
    sums.map(|sum| sum_ints(sum))
}

/// One shift for four fields, see [`field_sums`].
///
/// No overflow: `maddubs` adds two products, at most 2 · 3 · 128 = 768 in magnitude for a low field and 3072 for a high one.
/// Five halves are ten of each: 7680 and 30 720 < 32 768; folded, 15 360.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_i2s_i8<const R: usize>(rows: [&[u8]; R], x: &Acts) -> [i32; R] {
    let zero = [_mm256_setzero_si256(); 2];
    let sums =
        dot::<R, FIELDS, 5, _>(rows, x, zero, |sums, w, x| field_sums(sums, w, x), |sums| fold_fields(sums));
    sums.map(|sum| sum - x.sum())
}

/// Of `w` and `w >> 4` the low field is taken as it is and the next one in its place, as 4 · code: their sums of pairs are
/// `sums[0]` and `sums[1]`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn field_sums(sums: [__m256i; 2], w: __m256i, x: &[__m256i; FIELDS]) -> [__m256i; 2] {
    let (low_field, high_field) = (_mm256_set1_epi8(3), _mm256_set1_epi8(12));
    let [mut low, mut high] = sums;
    for (w, x) in [(w, [x[0], x[1]]), (_mm256_srli_epi16::<4>(w), [x[2], x[3]])] {
        low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_and_si256(w, low_field), x[0]));
        high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_and_si256(w, high_field), x[1]));
    }
    [low, high]
}

/// The high sums are multiples of 4.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn fold_fields([low, high]: [__m256i; 2]) -> __m256i {
    _mm256_add_epi16(low, _mm256_srai_epi16::<2>(high))
}

/// A group of four rows: the fields of a byte and of its upper half, the higher one of each in its place, as 4 · code.
///
/// No overflow: `maddubs` adds two products of at most 12 · 128; ten pairs of 3072 are 30 720 < 32 768.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_r4_i8([group]: [&[u8]; 1], x: &Acts) -> [[i32; 4]; 1] {
    const LINES: usize = 10;
    let (low_field, high_field) = (_mm256_set1_epi8(3), _mm256_set1_epi8(12));
    let (lines, x_lines) = (group.as_chunks::<32>().0, x.slots().as_chunks::<32>().0);
    let mut sums = [_mm256_setzero_si256(); 4];
    for (lines, x) in lines.chunks(LINES).zip(x_lines.chunks(LINES)) {
        let mut narrow = [_mm256_setzero_si256(); 4];
        for (line, x) in lines.iter().zip(x) {
            prefetch(line);
            let (w, x) = (load_bytes(line), load_i8(x));
            let high = _mm256_srli_epi16::<4>(w);
            for (row, (w, field)) in [(high, high_field), (high, low_field), (w, high_field), (w, low_field)]
                .into_iter()
                .enumerate()
            {
                let pairs = _mm256_maddubs_epi16(_mm256_and_si256(w, field), x);
                narrow[row] = _mm256_add_epi16(narrow[row], pairs);
            }
        }
        for row in 0..4 {
            // Fields in their place are multiples of 4.
            let codes = if row % 2 == 0 { _mm256_srai_epi16::<2>(narrow[row]) } else { narrow[row] };
            let wide = _mm256_madd_epi16(codes, _mm256_set1_epi16(1));
            sums[row] = _mm256_add_epi32(sums[row], wide);
        }
    }
    let mut out = [0; 4];
    for row in 0..4 {
        out[row] = sum_ints(sums[row]) - x.sum();
    }
    [out]
}

#[target_feature(enable = "avx2")]
pub(super) fn gemv_r4_i8(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    x.assert_fits_r4(w, row_bytes, out.len());
    by_rows(w, 4 * row_bytes, out.as_chunks_mut::<4>().0, |groups: [_; 1]| dot_r4_i8(groups, x));
}

/// A nibble is two codes, and a table lookup gives each of them as 0, 1, 3, 4.
///
/// No overflow: `maddubs` adds two products, at most 2 · 4 · 128 = 1024 in magnitude. Seven halves are 28: 28 672 < 32 768.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_pm2_i8<const R: usize>(rows: [&[u8]; R], x: &Acts) -> [i32; R] {
    let low = _mm_setr_epi8(0, 1, 3, 4, 0, 1, 3, 4, 0, 1, 3, 4, 0, 1, 3, 4);
    let high = _mm_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 3, 3, 3, 3, 4, 4, 4, 4);
    let tables = [_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high)];
    let nibble = _mm256_set1_epi8(15);
    let add = |mut narrow: __m256i, w: __m256i, x: &[__m256i; FIELDS]| {
        for (i, w) in [w, _mm256_srli_epi16::<4>(w)].into_iter().enumerate() {
            let w = _mm256_and_si256(w, nibble);
            for f in 0..2 {
                let products = _mm256_maddubs_epi16(_mm256_shuffle_epi8(tables[f], w), x[2 * i + f]);
                narrow = _mm256_add_epi16(narrow, products);
            }
        }
        narrow
    };
    let zero = _mm256_setzero_si256();
    dot::<R, FIELDS, 7, _>(rows, x, zero, add, |sums| sums).map(|sum| sum - 2 * x.sum())
}

/// No overflow: half a tile adds at most 2560 in i16, see [`trit_sums`]; twelve of them are 30 720 < 32 768.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_t5_i8<const R: usize>(rows: [&[u8]; R], x: &Acts) -> [i32; R] {
    let zero = _mm256_setzero_si256();
    let sums = dot::<R, 5, 12, _>(rows, x, zero, |sums, w, x| trit_sums(sums, w, x), |sums| sums);
    sums.map(|sum| sum - x.sum())
}

/// `sums + Σ trit · q` of bytes of five trits, pairs in i16; `x[k]` meets trit `k`. It adds at most 5 · 2 · 2 · 128 = 2560.
///
/// `t = [q ≥ 86] + [q ≥ 171]`. Compares are signed: all is done on q − 128, which is q with its sign bit turned, and
/// 3 (q − 128) = 3 q − 128 (mod 256). A true compare is −1.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn trit_sums(mut sums: __m256i, w: __m256i, x: &[__m256i; 5]) -> __m256i {
    // 85 − 128 and 170 − 128: above them a trit is 1 and 2 at least.
    let (one, two) = (_mm256_set1_epi8(-43), _mm256_set1_epi8(42));
    let mut q = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    for k in 0..5 {
        if k > 0 {
            q = _mm256_add_epi8(q, _mm256_add_epi8(q, q));
        }
        let once = _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_cmpgt_epi8(q, one));
        let trits = _mm256_sub_epi8(once, _mm256_cmpgt_epi8(q, two));
        sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(trits, x[k]));
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_ints(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_unpackhi_epi64(v, v));
    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<1>(v)))
}
