//! GEMV over rows of blocks: sixteen rows at a time, each block's sums turned into one register of a lane a row, then
//! scaled for all rows at once.

use super::memory::*;
use crate::kernels::acts::Acts;
use crate::kernels::panel::{self, Extra, Unit};
use crate::kernels::streams::apart;
use crate::quant::{bitnet32, q2_0, q4_0, q4_1, q6_k, q8_0, tq1_0, tq2_0};
use std::arch::x86_64::*;

/// Lane `r` is the sum of the lanes of `v[r]`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn sums_of_16(v: [__m512i; 16]) -> __m512i {
    let quad = |i: usize| quad([v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]]);
    let eight = |a: __m512i, b: __m512i| {
        // a0+a2 a1+a3 b0+b2 b1+b3, a lane of 128 bits each.
        _mm512_add_epi32(_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b))
    };
    let (low, high) = (eight(quad(0), quad(1)), eight(quad(2), quad(3)));
    _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(low, high), _mm512_shuffle_i32x4::<0xdd>(low, high))
}

/// Lane `r` is the sum of the lanes of `v[r]`, eight lanes each.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn sums_of_16_halves(v: [__m256i; 16]) -> __m512i {
    // Rows r and r + 8 share a register.
    let pair = |r: usize| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(v[r]), v[r + 8]);
    let low = quad([pair(0), pair(1), pair(2), pair(3)]);
    let high = quad([pair(4), pair(5), pair(6), pair(7)]);
    let sums =
        _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(low, high), _mm512_shuffle_i32x4::<0xdd>(low, high));
    // Rows 0–3, 8–11, 4–7, 12–15 so far.
    _mm512_shuffle_i32x4::<0xd8>(sums, sums)
}

/// In every 128 bits: the four sums of the four lanes of `v[0]`, `v[1]`, `v[2]`, `v[3]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn quad(v: [__m512i; 4]) -> __m512i {
    let two = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (ab, cd) = (two(v[0], v[1]), two(v[2], v[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// Sixteen rows of blocks.
struct Rows<'a> {
    row: [&'a [u8]; 16],
}

impl<'a> Rows<'a> {
    fn new(w: &'a [u8], row_bytes: usize, rows: [usize; 16]) -> Rows<'a> {
        Rows { row: rows.map(|row| &w[row * row_bytes..][..row_bytes]) }
    }

    /// Block `b` of row `r`.
    #[inline]
    fn block<U: Unit>(&self, r: usize, b: usize) -> &'a [u8] {
        &self.row[r][b * U::BYTES..][..U::BYTES]
    }

    /// The f16 at byte `at` of block `b` of each row, widened.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn halves<U: Unit>(&self, b: usize, at: usize) -> __m512 {
        let mut bytes = [0; 32];
        for (r, half) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            half.copy_from_slice(&self.block::<U>(r, b)[at..at + 2]);
        }
        load_f16(&bytes)
    }
}

/// Lane `r` of `y` is the value of row `rows[r]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn scatter(out: &mut [f32], rows: [usize; 16], y: __m512) {
    let mut values = [0.0; 16];
    store(&mut values, y);
    for (row, value) in rows.into_iter().zip(values) {
        out[row] = value;
    }
}

/// `y = fma(d_w · d_a, isum, y)` and what [`Extra`] adds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn scale<U: Unit>(rows: &Rows<'_>, unit: usize, block: usize, x: &Acts, isum: __m512i, y: __m512) -> __m512 {
    let d = rows.halves::<U>(unit, U::SCALE);
    let d = match U::EXTRA {
        Extra::RowFactor => d,
        _ => _mm512_mul_ps(d, _mm512_set1_ps(x.scales()[block])),
    };
    let y = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(isum), y);
    match U::EXTRA {
        Extra::Min => _mm512_fmadd_ps(rows.halves::<U>(unit, U::MIN), _mm512_set1_ps(x.mins()[block]), y),
        _ => y,
    }
}

// ---- codes of a block of 32, in the order of the activations ----

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn codes_q8_0(block: &[u8], _part: usize) -> __m256i {
    // The sign bit turned: value + 128.
    _mm256_xor_si256(load_32_bytes(&block[2..]), _mm256_set1_epi8(-128))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn nibbles(bytes: &[u8]) -> __m256i {
    let both = _mm256_broadcastsi128_si256(load_16_bytes(bytes));
    let shifted = _mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4));
    _mm256_and_si256(shifted, _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn codes_q4_0(block: &[u8], _part: usize) -> __m256i {
    nibbles(&block[2..])
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn codes_q4_1(block: &[u8], _part: usize) -> __m256i {
    nibbles(&block[4..])
}

/// The four fields of eight bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn two_bits(bytes: &[u8]) -> __m256i {
    let word = u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"));
    let shifted = _mm256_srlv_epi64(_mm256_set1_epi64x(word.cast_signed()), _mm256_setr_epi64x(0, 2, 4, 6));
    _mm256_and_si256(shifted, _mm256_set1_epi8(3))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn codes_bitnet32(block: &[u8], _part: usize) -> __m256i {
    two_bits(block)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn codes_q2_0(block: &[u8], part: usize) -> __m256i {
    two_bits(&block[2 + 8 * part..])
}

// ---- codes of a block of 256 ----

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn fields(block: &[u8]) -> [__m512i; 4] {
    let w = load_64_bytes(block);
    let field = _mm512_set1_epi8(3);
    [
        _mm512_and_si512(w, field),
        _mm512_and_si512(_mm512_srli_epi16::<2>(w), field),
        _mm512_and_si512(_mm512_srli_epi16::<4>(w), field),
        _mm512_and_si512(_mm512_srli_epi16::<6>(w), field),
    ]
}

/// Codes of 64 elements each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn codes_q6_k(block: &[u8]) -> [__m512i; 4] {
    let (four_bits, two_bits) = (_mm512_set1_epi8(15), _mm512_set1_epi8(3));
    let mut codes = [_mm512_setzero_si512(); 4];
    for half in 0..2 {
        let low = load_64_bytes(&block[64 * half..]);
        let high = _mm512_broadcast_i64x4(load_32_bytes(&block[128 + 32 * half..]));
        for nibble in 0..2 {
            let low = _mm512_and_si512(_mm512_srlv_epi64(low, _mm512_set1_epi64(4 * nibble)), four_bits);
            let shift = 4 * nibble;
            let shift =
                _mm512_setr_epi64(shift, shift, shift, shift, shift + 2, shift + 2, shift + 2, shift + 2);
            let high = _mm512_and_si512(_mm512_srlv_epi64(high, shift), two_bits);
            codes[2 * half + nibble as usize] = _mm512_or_si512(low, _mm512_slli_epi16::<4>(high));
        }
    }
    codes
}

/// The activations of a block of 256 in four registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn acts_256(x: &[i8]) -> [__m512i; 4] {
    [load_64_i8(x), load_64_i8(&x[64..]), load_64_i8(&x[128..]), load_64_i8(&x[192..])]
}

macro_rules! gemv {
    ($name:ident, $features:literal, $dot:ident, $dot_half:ident, $trits:ident) => {
        pub(super) mod $name {
            use super::*;

            macro_rules! blocks_of_32 {
                ($function:ident, $unit:ident, $module:ident, $codes:ident) => {
                    #[target_feature(enable = $features)]
                    pub(in super::super) fn $function(w: &[u8], x: &Acts, out: &mut [f32]) {
                        type U = panel::$unit;
                        const PARTS: usize = U::STEPS / U::SUMMED;
                        let row_bytes =
                            x.assert_blocks(U::ORDER, $module::BLOCK, $module::BLOCK_BYTES, w, out.len());
                        for numbers in apart(out.len()) {
                            let rows = Rows::new(w, row_bytes, numbers);
                            let mut y = _mm512_setzero_ps();
                            for (b, acts) in x.slots().as_chunks::<32>().0.iter().enumerate() {
                                let unit = b / PARTS;
                                let part = b - unit * PARTS;
                                let acts = load_32_i8(acts);
                                let mut dots = [_mm256_setzero_si256(); 16];
                                for r in 0..16 {
                                    let block = rows.block::<U>(r, unit);
                                    if part == 0 {
                                        prefetch_block(block, unit);
                                    }
                                    dots[r] = $dot_half($codes(block, part), acts);
                                }
                                let codes = sums_of_16_halves(dots);
                                let offset = _mm512_set1_epi32(U::OFFSET * x.sums()[b]);
                                y = scale::<U>(&rows, unit, b, x, _mm512_sub_epi32(codes, offset), y);
                            }
                            if U::EXTRA == Extra::RowFactor {
                                y = _mm512_div_ps(y, _mm512_set1_ps(x.scales()[0]));
                            }
                            scatter(out, numbers, y);
                        }
                    }
                };
            }

            blocks_of_32!(bitnet32_i8, BitNet32, bitnet32, codes_bitnet32);
            blocks_of_32!(q2_0_q8_0, Q2_0, q2_0, codes_q2_0);
            blocks_of_32!(q8_0_q8_0, Q8_0, q8_0, codes_q8_0);
            blocks_of_32!(q4_0_q8_0, Q4_0, q4_0, codes_q4_0);
            blocks_of_32!(q4_1_q8_1, Q4_1, q4_1, codes_q4_1);

            macro_rules! blocks_of_256 {
                ($function:ident, $unit:ident, $module:ident, |$block:ident, $x:ident| $prepare:expr, |$acts:ident| $sum:expr) => {
                    #[target_feature(enable = $features)]
                    pub(in super::super) fn $function(w: &[u8], x: &Acts, out: &mut [f32]) {
                        type U = panel::$unit;
                        let row_bytes =
                            x.assert_blocks(U::ORDER, $module::BLOCK, $module::BLOCK_BYTES, w, out.len());
                        let per_block = U::ORDER.slots();
                        let parts = 256 / U::ORDER.summed().unwrap_or(256);
                        for numbers in apart(out.len()) {
                            let rows = Rows::new(w, row_bytes, numbers);
                            let mut y = _mm512_setzero_ps();
                            for b in 0..x.scales().len() {
                                let $x = &x.slots_and_slack()[b * per_block..][..per_block + 64];
                                let $acts = $prepare;
                                let mut dots = [_mm512_setzero_si512(); 16];
                                for r in 0..16 {
                                    let $block = rows.block::<U>(r, b);
                                    prefetch_block($block, b);
                                    dots[r] = $sum;
                                }
                                let mut isum = sums_of_16(dots);
                                if U::EXTRA != Extra::SubScales {
                                    let offset = _mm512_set1_epi32(U::OFFSET * x.sums()[b * parts]);
                                    isum = _mm512_sub_epi32(isum, offset);
                                }
                                y = scale::<U>(&rows, b, b, x, isum, y);
                            }
                            scatter(out, numbers, y);
                        }
                    }
                };
            }

            blocks_of_256!(tq2_0_q8_k, Tq2_0, tq2_0, |block, x| acts_256(x), |acts| {
                let codes = fields(block);
                let mut sum = _mm512_setzero_si512();
                for f in 0..4 {
                    sum = $dot(sum, codes[f], acts[f]);
                }
                sum
            });
            blocks_of_256!(
                tq1_0_q8_k,
                Tq1_0,
                tq1_0,
                |block, x| [
                    load_64_i8(x),
                    load_64_i8(&x[52..]),
                    load_64_i8(&x[104..]),
                    load_64_i8(&x[156..]),
                    load_64_i8(&x[208..]),
                ],
                |acts| $trits(load_some_bytes(&block[..52]), &acts)
            );
            // Sub-scales belong to sixteen elements, four lanes: the offset is taken off before they multiply.
            blocks_of_256!(
                q6_k_q8_k,
                Q6K,
                q6_k,
                |block, x| acts_256(x).map(|x| {
                    (x, $dot(_mm512_setzero_si512(), _mm512_set1_epi8(32), x))
                }),
                |acts| {
                    let codes = codes_q6_k(block);
                    let sub_scales = _mm512_cvtepi8_epi32(load_16_bytes(&block[192..]));
                    let zero = _mm512_setzero_si512();
                    let mut sum = zero;
                    for i in 0..4 {
                        let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
                        let lanes = _mm512_add_epi32(lanes, _mm512_set1_epi32(4 * i as i32));
                        let sub_scale = _mm512_permutexvar_epi32(lanes, sub_scales);
                        let (x, offset) = acts[i];
                        let values = _mm512_sub_epi32($dot(zero, codes[i], x), offset);
                        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(values, sub_scale));
                    }
                    sum
                }
            );
        }
    };
}

/// `sum + Σ₄ code · q` in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_vnni(sum: __m512i, codes: __m512i, x: __m512i) -> __m512i {
    _mm512_dpbusd_epi32(sum, codes, x)
}

/// The same without VNNI, for codes up to 63: `maddubs` adds two products, at most 2 · 63 · 128 = 16 128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn dot_bw(sum: __m512i, codes: __m512i, x: __m512i) -> __m512i {
    let pairs = _mm512_maddubs_epi16(codes, x);
    _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot_half_vnni(codes: __m256i, x: __m256i) -> __m256i {
    _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, x)
}

/// Codes up to 255 by way of i16: a product is at most 255 · 128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn dot_half_bw(codes: __m256i, x: __m256i) -> __m256i {
    let sums = _mm512_madd_epi16(_mm512_cvtepu8_epi16(codes), _mm512_cvtepi8_epi16(x));
    _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums))
}

/// `Σ trit · q` of bytes of five trits; `x[k]` meets trit `k`.
///
/// No trit is taken out: `q_{k+1} = 3 q_k mod 256` and `256 t_k = 3 q_k − q_{k+1}`, so the sum is
/// `(3 Σ_k q_k x_k − Σ_k q_{k+1} x_k) / 256`, exactly, in every lane.
///
/// No overflow: a lane holds 4 · 5 products of at most 255 · 128, three times that is below 2^21.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn trits_vnni(w: __m512i, x: &[__m512i; 5]) -> __m512i {
    let (sums, nexts) = trit_sums_vnni(w, x, _mm512_setzero_si512(), _mm512_setzero_si512());
    let thrice = _mm512_add_epi32(sums, _mm512_add_epi32(sums, sums));
    _mm512_srai_epi32::<8>(_mm512_sub_epi32(thrice, nexts))
}

/// `sums + Σ_k q_k x_k` and `nexts + Σ_k q_{k+1} x_k`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn trit_sums_vnni(
    w: __m512i,
    x: &[__m512i; 5],
    mut sums: __m512i,
    mut nexts: __m512i,
) -> (__m512i, __m512i) {
    let mut q = w;
    for k in 0..5 {
        sums = _mm512_dpbusd_epi32(sums, q, x[k]);
        q = thrice(q);
        nexts = _mm512_dpbusd_epi32(nexts, q, x[k]);
    }
    (sums, nexts)
}

/// The same without VNNI: `t = [q ≥ 86] + [q ≥ 171]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn trits_bw(w: __m512i, x: &[__m512i; 5]) -> __m512i {
    _mm512_madd_epi16(trit_pairs_bw(w, x), _mm512_set1_epi16(1))
}

/// Sums of pairs in i16: five times at most 2 · 2 · 128, 2560.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn trit_pairs_bw(w: __m512i, x: &[__m512i; 5]) -> __m512i {
    let (mut q, one) = (w, _mm512_set1_epi8(1));
    let mut pairs = _mm512_setzero_si512();
    for x in x {
        let once = _mm512_maskz_mov_epi8(_mm512_cmpge_epu8_mask(q, _mm512_set1_epi8(86)), one);
        let twice = _mm512_cmpge_epu8_mask(q, _mm512_set1_epi8(171_u8.cast_signed()));
        let trits = _mm512_mask_add_epi8(once, twice, once, one);
        pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(trits, *x));
        q = thrice(q);
    }
    pairs
}

gemv!(vnni, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni", dot_vnni, dot_half_vnni, trits_vnni);
gemv!(bw, "avx512f,avx512bw,avx512vl,avx512dq", dot_bw, dot_half_bw, trits_bw);
