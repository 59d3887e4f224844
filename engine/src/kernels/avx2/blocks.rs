//! GEMV over rows of blocks: eight rows at a time, each block's sums turned into one register of a lane a row, then
//! scaled for all rows at once.

use super::memory::*;
use super::ternary::{field_sums, fold_fields, trit_sums};
use crate::kernels::acts::Acts;
use crate::kernels::panel::{self, Extra, Unit};
use crate::kernels::streams::apart;
use crate::quant::{bitnet32, q2_0, q4_0, q4_1, q6_k, q8_0, tq1_0, tq2_0};
use std::arch::x86_64::*;
use std::array::from_fn;

/// Lane `r` is the sum of the lanes of `v[r]`.
#[inline]
#[target_feature(enable = "avx2")]
fn sums_of_8(v: [__m256i; 8]) -> __m256i {
    let two = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let quad = |i: usize| {
        // In every 128 bits: the sums of the four lanes of four rows.
        let (ab, cd) = (two(v[i], v[i + 1]), two(v[i + 2], v[i + 3]));
        _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
    };
    halves_added(quad(0), quad(4))
}

/// The same for lanes of i16, in pairs: two steps in i16, then they are widened. No lane is above 8191 in magnitude: four of
/// them are below 2^15.
#[inline]
#[target_feature(enable = "avx2")]
fn sums_of_8_pairs(v: [__m256i; 8]) -> __m256i {
    let two = |a, b| _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let quad = |i: usize| {
        let (ab, cd) = (two(v[i], v[i + 1]), two(v[i + 2], v[i + 3]));
        let pairs = _mm256_add_epi16(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    };
    halves_added(quad(0), quad(4))
}

/// Both halves of `a`, then both halves of `b`.
#[inline]
#[target_feature(enable = "avx2")]
fn halves_added(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
}

/// The f16 at byte `at` of each row's block, widened.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves<const BYTES: usize>(blocks: &[&[u8; BYTES]; 8], at: usize) -> __m256 {
    let h = |r: usize| i16::from_le_bytes([blocks[r][at], blocks[r][at + 1]]);
    _mm256_cvtph_ps(_mm_setr_epi16(h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7)))
}

/// Eight rows at a time: `y = fma(d_w · d_a, isum, y)` and what [`Extra`] adds. `isums` gives the exact sums of one block of
/// activations (its number, and the part of the weight block that it meets) with eight weight blocks.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn gemv<U: Unit, const BYTES: usize>(
    w: &[u8],
    x: &Acts,
    out: &mut [f32],
    isums: impl Fn(&[&[u8; BYTES]; 8], usize, usize) -> __m256i,
) {
    let parts = U::STEPS / U::SUMMED;
    let row_bytes = x.assert_blocks(U::ORDER, U::ORDER.elements() * parts, BYTES, w, out.len());
    let units = row_bytes / BYTES;
    for numbers in apart(out.len()) {
        let rows: [&[[u8; BYTES]]; 8] = numbers.map(|row| &w[row * row_bytes..].as_chunks().0[..units]);
        let mut y = _mm256_setzero_ps();
        for unit in 0..units {
            let blocks: [&[u8; BYTES]; 8] = from_fn(|r| &rows[r][unit]);
            blocks.iter().for_each(|block| prefetch_block(block, unit));
            let d = halves(&blocks, U::SCALE);
            for part in 0..parts {
                let b = unit * parts + part;
                let isum = _mm256_cvtepi32_ps(isums(&blocks, b, part));
                y = match U::EXTRA {
                    Extra::RowFactor => _mm256_fmadd_ps(d, isum, y),
                    _ => _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(x.scales()[b])), isum, y),
                };
                if U::EXTRA == Extra::Min {
                    y = _mm256_fmadd_ps(halves(&blocks, U::MIN), _mm256_set1_ps(x.mins()[b]), y);
                }
            }
        }
        if U::EXTRA == Extra::RowFactor {
            y = _mm256_div_ps(y, _mm256_set1_ps(x.scales()[0]));
        }
        let mut values = [0.0; 8];
        store(&mut values, y);
        for (row, value) in numbers.into_iter().zip(values) {
            out[row] = value;
        }
    }
}

/// `codes − U::OFFSET · Σ q` of part `part` of the activations' sums.
#[inline]
#[target_feature(enable = "avx2")]
fn less_offset<U: Unit>(codes: __m256i, x: &Acts, part: usize) -> __m256i {
    _mm256_sub_epi32(codes, _mm256_set1_epi32(U::OFFSET * x.sums()[part]))
}

/// A register for each of eight blocks. It is a loop because the closure of a `map` is compiled for this instruction set
/// only where `map` is inlined, and the compiler may choose not to.
macro_rules! of_8 {
    ($blocks:ident, |$block:ident| $register:expr) => {{
        let mut registers = [_mm256_setzero_si256(); 8];
        for r in 0..8 {
            let $block = $blocks[r];
            registers[r] = $register;
        }
        registers
    }};
}

// ---- blocks of 32 ----

/// Low and high nibbles of sixteen bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(bytes: &[u8]) -> __m256i {
    let low = load_16_bytes(bytes);
    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), _mm_srli_epi16::<4>(low));
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// The four fields of eight bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn two_bits(bytes: &[u8]) -> __m256i {
    let word = u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"));
    let shifted = _mm256_srlv_epi64(_mm256_set1_epi64x(word.cast_signed()), _mm256_setr_epi64x(0, 2, 4, 6));
    _mm256_and_si256(shifted, _mm256_set1_epi8(3))
}

/// No overflow: `maddubs` adds two products of codes up to 15, at most 2 · 15 · 128 = 3840 in magnitude.
macro_rules! blocks_of_32 {
    ($function:ident, $unit:ident, $module:ident, |$block:ident, $part:ident| $codes:expr) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $function(w: &[u8], x: &Acts, out: &mut [f32]) {
            gemv::<panel::$unit, { $module::BLOCK_BYTES }>(w, x, out, |blocks, b, $part| {
                let acts = load_32_i8(&x.slots()[32 * b..]);
                let pairs = of_8!(blocks, |$block| _mm256_maddubs_epi16($codes, acts));
                less_offset::<panel::$unit>(sums_of_8_pairs(pairs), x, b)
            });
        }
    };
}

blocks_of_32!(bitnet32_i8, BitNet32, bitnet32, |block, _part| two_bits(block));
blocks_of_32!(q2_0_q8_0, Q2_0, q2_0, |block, part| two_bits(&block[2 + 8 * part..]));
blocks_of_32!(q4_0_q8_0, Q4_0, q4_0, |block, _part| nibbles(&block[2..]));
blocks_of_32!(q4_1_q8_1, Q4_1, q4_1, |block, _part| nibbles(&block[4..]));

/// 32 bytes as i16.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(v: __m256i) -> [__m256i; 2] {
    let high = _mm256_extracti128_si256::<1>(v);
    [_mm256_cvtepi8_epi16(_mm256_castsi256_si128(v)), _mm256_cvtepi8_epi16(high)]
}

/// Values as they are, by way of i16: a product is at most 128 · 128, a lane of i32 takes four.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q8_0_q8_0(w: &[u8], x: &Acts, out: &mut [f32]) {
    gemv::<panel::Q8_0, { q8_0::BLOCK_BYTES }>(w, x, out, |blocks, b, _| {
        let acts = widen(load_32_i8(&x.slots()[32 * b..]));
        sums_of_8(of_8!(blocks, |block| {
            let values = widen(load_32_bytes(&block[2..]));
            let (low, high) = (_mm256_madd_epi16(values[0], acts[0]), _mm256_madd_epi16(values[1], acts[1]));
            _mm256_add_epi32(low, high)
        }))
    });
}

// ---- blocks of 256 ----

/// No overflow: two registers of bytes have two low and two high fields each, four times 768 and 3072; folded, 6144.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tq2_0_q8_k(w: &[u8], x: &Acts, out: &mut [f32]) {
    gemv::<panel::Tq2_0, { tq2_0::BLOCK_BYTES }>(w, x, out, |blocks, b, _| {
        let x_of = |h: usize, f: usize| load_32_i8(&x.slots()[256 * b + 64 * f + 32 * h..]);
        let acts: [[__m256i; 4]; 2] = from_fn(|h| from_fn(|f| x_of(h, f)));
        let pairs = of_8!(blocks, |block| {
            let zero = [_mm256_setzero_si256(); 2];
            let first = field_sums(zero, load_32_bytes(block), &acts[0]);
            fold_fields(field_sums(first, load_32_bytes(&block[32..]), &acts[1]))
        });
        less_offset::<panel::Tq2_0>(sums_of_8_pairs(pairs), x, b)
    });
}

/// 52 bytes as 32 and 20: the bytes after those are code 0, whatever activations they meet.
///
/// No overflow: twice at most 2560, see [`trit_sums`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tq1_0_q8_k(w: &[u8], x: &Acts, out: &mut [f32]) {
    gemv::<panel::Tq1_0, { tq1_0::BLOCK_BYTES }>(w, x, out, |blocks, b, _| {
        let x_of = |at: usize, k: usize| load_32_i8(&x.slots_and_slack()[260 * b + 52 * k + at..]);
        let acts: [[__m256i; 5]; 2] = [from_fn(|k| x_of(0, k)), from_fn(|k| x_of(32, k))];
        let pairs = of_8!(blocks, |block| {
            let last = i32::from_le_bytes(*block[48..].first_chunk().expect("four bytes"));
            let low = _mm256_castsi128_si256(load_16_bytes(&block[32..]));
            let rest = _mm256_inserti128_si256::<1>(low, _mm_cvtsi32_si128(last));
            let first = trit_sums(_mm256_setzero_si256(), load_32_bytes(block), &acts[0]);
            trit_sums(first, rest, &acts[1])
        });
        less_offset::<panel::Tq1_0>(sums_of_8_pairs(pairs), x, b)
    });
}

/// Sums of pairs are multiplied by their sub-scale as they are widened: sixteen elements are half a register.
///
/// No overflow: `maddubs` adds two products of codes up to 63, at most 16 128 in magnitude; times 128, twice in a lane and
/// eight times, below 2^26. The sums of sixteen activations are at most 2048: they fit in i16.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q6_k_q8_k(w: &[u8], x: &Acts, out: &mut [f32]) {
    // Sub-scales 2 i in the low half, 2 i + 1 in the high one.
    let split = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    gemv::<panel::Q6K, { q6_k::BLOCK_BYTES }>(w, x, out, |blocks, b, _| {
        let acts: [__m256i; 8] = from_fn(|i| load_32_i8(&x.slots()[256 * b + 32 * i..]));
        let sums = x.sums()[16 * b..].as_chunks::<8>().0;
        // The packs work in halves: 0–3, 8–11 | 4–7, 12–15.
        let sums = _mm256_packs_epi32(load_i32(&sums[0]), load_i32(&sums[1]));
        let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(sums);
        sums_of_8(of_8!(blocks, |block| {
            let sub_scales = load_16_bytes(&block[192..]);
            let offset = _mm256_madd_epi16(_mm256_cvtepi8_epi16(sub_scales), sums);
            let split = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(sub_scales, split));
            let mut sum = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<5>(offset));
            for (i, codes) in codes_q6_k(block).into_iter().enumerate() {
                let both = _mm256_set1_epi16((0x0100 + 0x0202 * i) as i16);
                let pairs = _mm256_maddubs_epi16(codes, acts[i]);
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_shuffle_epi8(split, both)));
            }
            sum
        }))
    });
}

/// Codes of 32 elements each.
#[inline]
#[target_feature(enable = "avx2")]
fn codes_q6_k(block: &[u8; q6_k::BLOCK_BYTES]) -> [__m256i; 8] {
    let (four_bits, two_bits) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
    let mut codes = [_mm256_setzero_si256(); 8];
    for half in 0..2 {
        let low: [__m256i; 2] = from_fn(|i| load_32_bytes(&block[64 * half + 32 * i..]));
        let high = load_32_bytes(&block[128 + 32 * half..]);
        // The two high bits of part p are at 2 p: they go to bit 4.
        let high =
            [_mm256_slli_epi16::<4>(high), _mm256_slli_epi16::<2>(high), high, _mm256_srli_epi16::<2>(high)];
        for part in 0..4 {
            let low = if part < 2 { low[part] } else { _mm256_srli_epi16::<4>(low[part - 2]) };
            let (low, high) = (_mm256_and_si256(low, four_bits), _mm256_and_si256(high[part], two_bits));
            codes[4 * half + part] = _mm256_or_si256(low, high);
        }
    }
    codes
}
