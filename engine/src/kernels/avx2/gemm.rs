//! GEMM over packed codes: eight rows to a register, one step of one token broadcast to all of them. The blocking and the
//! unpacking are in [`crate::kernels::panel`].

use super::memory::{fetch, load, load_halves, load_i32, load_words, store, store_i32, store_words};
use crate::kernels::acts::{Batch, GROUP, Order};
use crate::kernels::panel::{self, Block, Extra, Factors, Inner, Tile, Tokens, Unit, Words};
use crate::kernels::streams::parts;
use std::arch::x86_64::*;

/// Rows in a register.
const L: usize = 8;
/// Registers of rows in a panel.
const R: usize = 2;
/// Tokens in one pass over a panel: their sums with two registers of rows, the codes and a product fit in sixteen.
const T: usize = GROUP / 2;

/// Sums of the registers of rows with some tokens.
type Sums<const N: usize> = [[__m256i; N]; R];

/// Words of a register's rows, side by side: four words of four rows in each quarter of a register, turned four times.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [&[u8]; L], out: &mut [Words<L>]) {
    let (fours, rest) = out.as_chunks_mut::<4>();
    let done = fours.len();
    for (i, four) in fours.iter_mut().enumerate() {
        let at = |l: usize| rows[l][16 * i..].first_chunk().expect("four words");
        let r = [
            load_halves([at(0), at(4)]),
            load_halves([at(1), at(5)]),
            load_halves([at(2), at(6)]),
            load_halves([at(3), at(7)]),
        ];
        let low = [_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpacklo_epi32(r[2], r[3])];
        let high = [_mm256_unpackhi_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[2], r[3])];
        store_words(&mut four[0], _mm256_unpacklo_epi64(low[0], low[1]));
        store_words(&mut four[1], _mm256_unpackhi_epi64(low[0], low[1]));
        store_words(&mut four[2], _mm256_unpacklo_epi64(high[0], high[1]));
        store_words(&mut four[3], _mm256_unpackhi_epi64(high[0], high[1]));
    }
    if !rest.is_empty() {
        panel::transpose(rows.map(|row| &row[16 * done..]), rest);
    }
}

/// The four activations of a token in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(x: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)))
}

/// `Σ code · q` over some steps.
#[inline]
#[target_feature(enable = "avx2")]
fn sum<U: Unit>(panels: [&[Words<L>]; R], tokens: &[Tokens]) -> Sums<GROUP> {
    let (low, high) = (sum_part::<U, 0>(panels, tokens), sum_part::<U, T>(panels, tokens));
    let mut sums = [[_mm256_setzero_si256(); GROUP]; R];
    for r in 0..R {
        sums[r][..T].copy_from_slice(&low[r]);
        sums[r][T..].copy_from_slice(&high[r]);
    }
    sums
}

/// The same for tokens `FIRST .. FIRST + T`.
///
/// No overflow: `maddubs` adds two products, at most 2 · 128 · max code in magnitude; as many of them are added in i16 as stay
/// below 2^15, then they are widened. Codes beyond 127 would overflow at once: their nibbles are taken apart, eight steps of
/// each (8 · 2 · 128 · 15 = 30 720), and put together in i32.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_part<U: Unit, const FIRST: usize>(panels: [&[Words<L>]; R], tokens: &[Tokens]) -> Sums<T> {
    let narrow_steps = if U::MAX > 127 { 8 } else { (32_767 / (2 * 128 * U::MAX)) as usize };
    let panels = parts(panels, 0..tokens.len());
    let mut sums = [[_mm256_setzero_si256(); T]; R];
    for begin in (0..tokens.len()).step_by(narrow_steps) {
        let range = begin..tokens.len().min(begin + narrow_steps);
        let (panels, tokens) = (parts(panels, range.clone()), &tokens[range]);
        let more = if U::MAX > 127 {
            [nibble_sums::<FIRST>(panels[0], tokens), nibble_sums::<FIRST>(panels[1], tokens)]
        } else {
            code_sums::<FIRST>(panels, tokens)
        };
        for r in 0..R {
            for t in 0..T {
                sums[r][t] = _mm256_add_epi32(sums[r][t], more[r][t]);
            }
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2")]
fn code_sums<const FIRST: usize>(panels: [&[Words<L>]; R], tokens: &[Tokens]) -> Sums<T> {
    let panels = parts(panels, 0..tokens.len());
    let mut narrow = [[_mm256_setzero_si256(); T]; R];
    for (s, x) in tokens.iter().enumerate() {
        let w = [load_words(&panels[0][s]), load_words(&panels[1][s])];
        for t in 0..T {
            let x = broadcast(x[FIRST + t]);
            for r in 0..R {
                narrow[r][t] = _mm256_add_epi16(narrow[r][t], _mm256_maddubs_epi16(w[r], x));
            }
        }
    }
    for sum in narrow.as_flattened_mut() {
        *sum = _mm256_madd_epi16(*sum, _mm256_set1_epi16(1));
    }
    narrow
}

#[inline]
#[target_feature(enable = "avx2")]
fn nibble_sums<const FIRST: usize>(panel: &[Words<L>], tokens: &[Tokens]) -> [__m256i; T] {
    let nibble = _mm256_set1_epi8(15);
    let (mut low, mut high) = ([_mm256_setzero_si256(); T], [_mm256_setzero_si256(); T]);
    for (w, x) in panel.iter().zip(tokens) {
        let w = load_words(w);
        let w = [_mm256_and_si256(w, nibble), _mm256_and_si256(_mm256_srli_epi16::<4>(w), nibble)];
        for t in 0..T {
            let x = broadcast(x[FIRST + t]);
            low[t] = _mm256_add_epi16(low[t], _mm256_maddubs_epi16(w[0], x));
            high[t] = _mm256_add_epi16(high[t], _mm256_maddubs_epi16(w[1], x));
        }
    }
    let mut sums = [_mm256_setzero_si256(); T];
    for t in 0..T {
        let low = _mm256_madd_epi16(low[t], _mm256_set1_epi16(1));
        sums[t] = _mm256_add_epi32(low, _mm256_madd_epi16(high[t], _mm256_set1_epi16(16)));
    }
    sums
}

/// `y = fma(d_w · d_a, isum, y)` for a register of rows with each token, and what [`Extra`] adds.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn scale<U: Unit>(
    isums: [__m256i; GROUP],
    factors: &Factors<L>,
    scales: &[f32; GROUP],
    mins: &[f32; GROUP],
    y: &mut Tile<f32, L>,
) {
    let d = load(&factors.scales);
    for t in 0..GROUP {
        let d = if U::EXTRA == Extra::RowFactor { d } else { _mm256_mul_ps(d, _mm256_set1_ps(scales[t])) };
        let mut next = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(isums[t]), load(&y[t]));
        if U::EXTRA == Extra::Min {
            next = _mm256_fmadd_ps(load(&factors.mins), _mm256_set1_ps(mins[t]), next);
        }
        store(&mut y[t], next);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add<U: Unit>(inner: Inner<'_, L, R>, sums: &mut [Tile<i32, L>; R]) {
    let more = sum::<U>(inner.panels, inner.tokens);
    for r in 0..R {
        for t in 0..GROUP {
            let sum = _mm256_add_epi32(load_i32(&sums[r][t]), more[r][t]);
            store_i32(&mut sums[r][t], sum);
        }
    }
}

/// One block: its sums of codes, less the offset, scaled. Sub-sums of Q6_K are at most 16 · 32 · 128, times a sub-scale
/// 2^23, sixteen of them 2^27.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn step<U: Unit>(block: Block<'_, L, R>, y: &mut [Tile<f32, L>; R]) {
    let Inner { panels, tokens } = block.inner;
    let mut isums = [[_mm256_setzero_si256(); GROUP]; R];
    let each = U::SUMMED / block.sums.len();
    for (part, sums) in block.sums.iter().enumerate() {
        let range = part * each..(part + 1) * each;
        let codes = sum::<U>(parts(panels, range.clone()), &tokens[range]);
        for r in 0..R {
            for t in 0..GROUP {
                let offset = _mm256_set1_epi32(U::OFFSET * sums[t]);
                let sum = _mm256_sub_epi32(codes[r][t], offset);
                isums[r][t] = if U::EXTRA == Extra::SubScales {
                    let sub_scale = load_i32(&block.factors[r].sub_scales[part]);
                    _mm256_add_epi32(isums[r][t], _mm256_mullo_epi32(sum, sub_scale))
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
        #[target_feature(enable = "avx2")]
        pub(super) fn $function(w: &[u8], row_bytes: usize, x: &Batch, out: &mut [i32]) {
            panel::gemm_rows::<panel::$unit, L, R>(
                $orders,
                w,
                row_bytes,
                x,
                out,
                |rows, words| transpose(rows, words),
                |at| fetch(at),
                |inner, sums| add::<panel::$unit>(inner, sums),
            );
        }
    };
}

macro_rules! blocks {
    ($function:ident, $unit:ident) => {
        #[target_feature(enable = "avx2,fma")]
        pub(super) fn $function(w: &[u8], x: &Batch, out: &mut [f32]) {
            panel::gemm_blocks::<panel::$unit, L, R>(
                w,
                x,
                out,
                |rows, words| transpose(rows, words),
                |at| fetch(at),
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
