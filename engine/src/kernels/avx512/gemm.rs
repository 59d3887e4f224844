//! GEMM over packed codes: sixteen rows to a register, one step of one token broadcast to all of them. The blocking and the
//! unpacking are in [`crate::kernels::panel`].

use super::memory::{fetch, load, load_quarters, load_words, load16, store, store_words, store16};
use crate::kernels::acts::{Batch, GROUP, Order};
use crate::kernels::panel::{self, Block, Extra, Factors, Inner, Tile, Tokens, Unit, Words};
use crate::kernels::streams::parts;
use std::arch::x86_64::*;

/// Rows in a register.
const L: usize = 16;

/// Sums of `R` registers of rows with each token of a group.
type Sums<const R: usize> = [[__m512i; GROUP]; R];

/// Words of a register's rows, side by side: four words of four rows in each quarter of a register, turned four times.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [&[u8]; L], out: &mut [Words<L>]) {
    let (fours, rest) = out.as_chunks_mut::<4>();
    let done = fours.len();
    for (i, four) in fours.iter_mut().enumerate() {
        let at = |l: usize| rows[l][16 * i..].first_chunk().expect("four words");
        let r = [
            load_quarters([at(0), at(4), at(8), at(12)]),
            load_quarters([at(1), at(5), at(9), at(13)]),
            load_quarters([at(2), at(6), at(10), at(14)]),
            load_quarters([at(3), at(7), at(11), at(15)]),
        ];
        let low = [_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpacklo_epi32(r[2], r[3])];
        let high = [_mm512_unpackhi_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[2], r[3])];
        store_words(&mut four[0], _mm512_unpacklo_epi64(low[0], low[1]));
        store_words(&mut four[1], _mm512_unpackhi_epi64(low[0], low[1]));
        store_words(&mut four[2], _mm512_unpacklo_epi64(high[0], high[1]));
        store_words(&mut four[3], _mm512_unpackhi_epi64(high[0], high[1]));
    }
    if !rest.is_empty() {
        panel::transpose(rows.map(|row| &row[16 * done..]), rest);
    }
}

/// The four activations of a token in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(x: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)))
}

/// `Σ code · q` over some steps, with `dpbusd`, which neither saturates nor overflows: see the bound of a row in
/// [`crate::kernels::Kernels`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn sum_vnni<U: Unit, const R: usize>(panels: [&[Words<L>]; R], tokens: &[Tokens]) -> Sums<R> {
    let mut sums = [[_mm512_setzero_si512(); GROUP]; R];
    let (eights, rest) = tokens.as_chunks::<8>();
    // Eight steps a turn: what a loop adds and compares takes the ports of the products.
    let mut of_eights = [&[][..]; R];
    for r in 0..R {
        of_eights[r] = panels[r].as_chunks::<8>().0;
    }
    let of_eights = parts(of_eights, 0..eights.len());
    for (i, x) in eights.iter().enumerate() {
        for s in 0..8 {
            let mut w = [_mm512_setzero_si512(); R];
            for r in 0..R {
                w[r] = load_words(&of_eights[r][i][s]);
            }
            dot_vnni(&mut sums, w, &x[s]);
        }
    }
    let panels = parts(panels, tokens.len() - rest.len()..tokens.len());
    for (s, x) in rest.iter().enumerate() {
        let mut w = [_mm512_setzero_si512(); R];
        for r in 0..R {
            w[r] = load_words(&panels[r][s]);
        }
        dot_vnni(&mut sums, w, x);
    }
    sums
}

/// One step of every row with every token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_vnni<const R: usize>(sums: &mut Sums<R>, w: [__m512i; R], x: &Tokens) {
    for t in 0..GROUP {
        let x = broadcast(x[t]);
        for r in 0..R {
            sums[r][t] = _mm512_dpbusd_epi32(sums[r][t], w[r], x);
        }
    }
}

/// The same with `maddubs`.
///
/// No overflow: it adds two products, at most 2 · 128 · max code in magnitude; as many of them are added in i16 as stay
/// below 2^15, then they are widened. Codes beyond 127 would overflow at once: their nibbles are taken apart, eight steps of
/// each (8 · 2 · 128 · 15 = 30 720), and put together in i32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn sum_bw<U: Unit, const R: usize>(panels: [&[Words<L>]; R], tokens: &[Tokens]) -> Sums<R> {
    let narrow_steps = if U::MAX > 127 { 8 } else { (32_767 / (2 * 128 * U::MAX)) as usize };
    let panels = parts(panels, 0..tokens.len());
    let nibble = _mm512_set1_epi8(15);
    let mut sums = [[_mm512_setzero_si512(); GROUP]; R];
    for begin in (0..tokens.len()).step_by(narrow_steps) {
        let end = tokens.len().min(begin + narrow_steps);
        if U::MAX > 127 {
            for r in 0..R {
                let mut low = [_mm512_setzero_si512(); GROUP];
                let mut high = [_mm512_setzero_si512(); GROUP];
                for s in begin..end {
                    let w = load_words(&panels[r][s]);
                    let w =
                        [_mm512_and_si512(w, nibble), _mm512_and_si512(_mm512_srli_epi16::<4>(w), nibble)];
                    for t in 0..GROUP {
                        let x = broadcast(tokens[s][t]);
                        low[t] = _mm512_add_epi16(low[t], _mm512_maddubs_epi16(w[0], x));
                        high[t] = _mm512_add_epi16(high[t], _mm512_maddubs_epi16(w[1], x));
                    }
                }
                for t in 0..GROUP {
                    let low = _mm512_madd_epi16(low[t], _mm512_set1_epi16(1));
                    let high = _mm512_madd_epi16(high[t], _mm512_set1_epi16(16));
                    sums[r][t] = _mm512_add_epi32(sums[r][t], _mm512_add_epi32(low, high));
                }
            }
        } else {
            let mut narrow = [[_mm512_setzero_si512(); GROUP]; R];
            for s in begin..end {
                let mut w = [_mm512_setzero_si512(); R];
                for r in 0..R {
                    w[r] = load_words(&panels[r][s]);
                }
                for t in 0..GROUP {
                    let x = broadcast(tokens[s][t]);
                    for r in 0..R {
                        narrow[r][t] = _mm512_add_epi16(narrow[r][t], _mm512_maddubs_epi16(w[r], x));
                    }
                }
            }
            for r in 0..R {
                for t in 0..GROUP {
                    let wide = _mm512_madd_epi16(narrow[r][t], _mm512_set1_epi16(1));
                    sums[r][t] = _mm512_add_epi32(sums[r][t], wide);
                }
            }
        }
    }
    sums
}

/// `y = fma(d_w · d_a, isum, y)` for a register of rows with each token, and what [`Extra`] adds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn scale<U: Unit>(
    isums: [__m512i; GROUP],
    factors: &Factors<L>,
    scales: &[f32; GROUP],
    mins: &[f32; GROUP],
    y: &mut Tile<f32, L>,
) {
    let d = load(&factors.scales);
    for t in 0..GROUP {
        let d = if U::EXTRA == Extra::RowFactor { d } else { _mm512_mul_ps(d, _mm512_set1_ps(scales[t])) };
        let mut next = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(isums[t]), load(&y[t]));
        if U::EXTRA == Extra::Min {
            next = _mm512_fmadd_ps(load(&factors.mins), _mm512_set1_ps(mins[t]), next);
        }
        store(&mut y[t], next);
    }
}

macro_rules! gemm {
    ($name:ident, $features:literal, $sum:ident, $rows:literal, $blocks:literal) => {
        pub(super) mod $name {
            use super::*;

            #[inline]
            #[target_feature(enable = $features)]
            fn add<U: Unit, const R: usize>(inner: Inner<'_, L, R>, sums: &mut [Tile<i32, L>; R]) {
                let more = $sum::<U, R>(inner.panels, inner.tokens);
                for r in 0..R {
                    for t in 0..GROUP {
                        let sum = _mm512_add_epi32(load16(&sums[r][t]), more[r][t]);
                        store16(&mut sums[r][t], sum);
                    }
                }
            }

            /// One block: its sums of codes, less the offset, scaled. Sub-sums of Q6_K are at most 16 · 32 · 128, times a
            /// sub-scale 2^23, sixteen of them 2^27.
            #[inline]
            #[target_feature(enable = $features)]
            fn step<U: Unit, const R: usize>(block: Block<'_, L, R>, y: &mut [Tile<f32, L>; R]) {
                let Inner { panels, tokens } = block.inner;
                let mut isums = [[_mm512_setzero_si512(); GROUP]; R];
                let count = block.sums.len();
                let each = U::SUMMED / count;
                for (part, sums) in block.sums.iter().enumerate() {
                    let range = part * each..(part + 1) * each;
                    let codes = $sum::<U, R>(parts(panels, range.clone()), &tokens[range]);
                    for r in 0..R {
                        for t in 0..GROUP {
                            let offset = _mm512_set1_epi32(U::OFFSET * sums[t]);
                            let sum = _mm512_sub_epi32(codes[r][t], offset);
                            isums[r][t] = if U::EXTRA == Extra::SubScales {
                                let sub_scale = load16(&block.factors[r].sub_scales[part]);
                                _mm512_add_epi32(isums[r][t], _mm512_mullo_epi32(sum, sub_scale))
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
                    #[target_feature(enable = $features)]
                    pub(in super::super) fn $function(
                        w: &[u8],
                        row_bytes: usize,
                        x: &Batch,
                        out: &mut [i32],
                    ) {
                        panel::gemm_rows::<panel::$unit, L, $rows>(
                            $orders,
                            w,
                            row_bytes,
                            x,
                            out,
                            |rows, words| transpose(rows, words),
                            |at| fetch(at),
                            |inner, sums| add::<panel::$unit, $rows>(inner, sums),
                        );
                    }
                };
            }

            macro_rules! blocks {
                ($function:ident, $unit:ident) => {
                    #[target_feature(enable = $features)]
                    pub(in super::super) fn $function(w: &[u8], x: &Batch, out: &mut [f32]) {
                        panel::gemm_blocks::<panel::$unit, L, $blocks>(
                            w,
                            x,
                            out,
                            |rows, words| transpose(rows, words),
                            |at| fetch(at),
                            |block, y| step::<panel::$unit, $blocks>(block, y),
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
        }
    };
}

gemm!(vnni, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni", sum_vnni, 3, 2);
gemm!(bw, "avx512f,avx512bw,avx512vl,avx512dq", sum_bw, 2, 1);
