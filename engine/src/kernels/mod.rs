//! Kernels: one folder per instruction set, the same names in each, dispatched once into a struct of functions.
//!
//! ```text
//! scalar/     the meaning of every operation
//! avx2/       AVX2 + FMA + F16C
//! avx512/     AVX-512 F/BW/VL/DQ, with VNNI or without
//! neon/       NEON, with dot products or without
//! entries.rs  which entries of a table are its own
//! acts.rs     activations in the order in which kernels meet them
//! streams.rs  which rows a GEMV takes together
//! panel.rs    GEMM: blocking and unpacking
//! check/      holds every table to scalar, bit for bit
//! probe.rs    bare loops: what a core can do at most
//! plugin/     kernels from outside: the C ABI, and adapters for other programs' libraries
//! ```
//!
//! A [`Kernels`] table can be had only for an instruction set that this processor has ([`get`]), so holding one is the
//! proof that its functions may be called.

pub mod acts;
pub mod check;
mod entries;
mod formats;
mod panel;
pub mod plugin;
pub mod probe;
pub mod scalar;
mod streams;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use crate::error::{Error, Result};
pub use acts::{Acts, Batch, Group};
pub use entries::ENTRIES;
pub use formats::{Entries, Multiply};
use std::fmt;

/// An instruction set that has a table of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust: the reference.
    Scalar,
    /// x86 AVX2 with FMA and F16C.
    Avx2,
    /// x86 AVX-512 F, BW, VL and DQ, without VNNI.
    Avx512Bw,
    /// x86 AVX-512 with VNNI.
    Avx512Vnni,
    /// ARM NEON, without dot products.
    Neon,
    /// ARM NEON with the dot product instructions (`sdot`).
    NeonDot,
}

impl Isa {
    /// Every instruction set Assay knows, slowest first on each architecture.
    pub const ALL: [Isa; 6] =
        [Isa::Scalar, Isa::Avx2, Isa::Avx512Bw, Isa::Avx512Vnni, Isa::Neon, Isa::NeonDot];

    /// Name on the command line and in receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512Bw => "avx512bw",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Neon => "neon",
            Isa::NeonDot => "neondot",
        }
    }

    /// Finds an instruction set by its name.
    ///
    /// # Errors
    /// - [`Error::Isa`] for a name that is none of [`Isa::ALL`].
    pub fn parse(name: &str) -> Result<Isa> {
        let found = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        found.ok_or_else(|| Error::Isa { wanted: name.to_owned(), available: available_names() })
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `(w, row_bytes, x, out)`: rows of codes, `row_bytes` each, and one activation row; `out[r]` is row `r`'s exact sum.
pub type GemvRows = fn(&[u8], usize, &Acts, &mut [i32]);
/// As [`GemvRows`] for several tokens: `out` is `(tokens, rows)`.
pub type GemmRows = fn(&[u8], usize, &Batch, &mut [i32]);
/// `(w, x, out)`: rows of blocks with a scale each and one activation row.
pub type GemvBlocks = fn(&[u8], &Acts, &mut [f32]);
/// As [`GemvBlocks`] for several tokens: `out` is `(tokens, rows)`.
pub type GemmBlocks = fn(&[u8], &Batch, &mut [f32]);
/// `(w, x, out)`: rows of little-endian floats.
pub type GemvFloats = fn(&[u8], &[f32], &mut [f32]);
/// `(w, cols, x, out)`: as [`GemvFloats`] for several tokens: `x` is `(tokens, cols)`, `out` is `(tokens, rows)`.
pub type GemmFloats = fn(&[u8], usize, &[f32], &mut [f32]);

/// `(x, q, d, s)`: values, and of each block its scale and its scaled sum.
pub type QuantiseSums = fn(&[f32], &mut [i8], &mut [f32], &mut [f32]);

/// The operations of the contract for one instruction set. Every entry gives the same bits in every table.
///
/// Shapes: a matrix is `(rows, cols)`, row-major; `w` is its encoded bytes as the file holds them (no alignment is
/// needed), `x` one activation row of `cols` values, `out` one value per row. `gemv_<weights>_<activations>` takes one
/// activation row; `gemm_…` takes several and gives, for each, the bits of `gemv_…`. All functions panic where lengths do
/// not fit: that is what makes their loads safe.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// The instruction set of this table.
    pub isa: Isa,
    /// `out[r] = Σ_c (code[r][c] − 1) · q[c]`, exact in i32: rows of 2-bit codes in 64-byte tiles (the last one may be
    /// half a tile), in either bit order of I2_S. `w.len() = out.len() * row_bytes`.
    pub gemv_i2s_i8: GemvRows,
    /// [`Kernels::gemv_i2s_i8`] for several tokens.
    pub gemm_i2s_i8: GemmRows,
    /// `out[r] = Σ_c value[r][c] · q[c]`, exact in i32: linear-pm2, codes 0, 1, 2, 3 are −2, −1, +1, +2.
    pub gemv_pm2_i8: GemvRows,
    /// [`Kernels::gemv_pm2_i8`] for several tokens.
    pub gemm_pm2_i8: GemmRows,
    /// `out[r] = Σ_c (code[r][c] − 1) · q[c]`, exact in i32: I2_R4, four rows to a byte; `out` is whole groups of them.
    pub gemv_r4_i8: GemvRows,
    /// [`Kernels::gemv_r4_i8`] for several tokens.
    pub gemm_r4_i8: GemmRows,
    /// `out[r] = Σ_c value[r][c] · q[c]`, exact in i32: T5, five ternary values a byte.
    pub gemv_t5_i8: GemvRows,
    /// [`Kernels::gemv_t5_i8`] for several tokens.
    pub gemm_t5_i8: GemmRows,
    /// `y = fma(d_w, isum, y)` over blocks of 32, rising, from +0.0; `out[r] = y / s`.
    pub gemv_bitnet32_i8: GemvBlocks,
    /// [`Kernels::gemv_bitnet32_i8`] for several tokens.
    pub gemm_bitnet32_i8: GemmBlocks,
    /// `y = fma(d_w · d_a, isum, y)` over blocks of 256, rising, from +0.0.
    pub gemv_tq1_0_q8_k: GemvBlocks,
    /// [`Kernels::gemv_tq1_0_q8_k`] for several tokens.
    pub gemm_tq1_0_q8_k: GemmBlocks,
    /// `y = fma(d_w · d_a, isum, y)` over blocks of 256, rising, from +0.0.
    pub gemv_tq2_0_q8_k: GemvBlocks,
    /// [`Kernels::gemv_tq2_0_q8_k`] for several tokens.
    pub gemm_tq2_0_q8_k: GemmBlocks,
    /// `y = fma(d_w · d_a, isum, y)` over blocks of 32, rising, from +0.0; two of them share a `d_w`.
    pub gemv_q2_0_q8_0: GemvBlocks,
    /// [`Kernels::gemv_q2_0_q8_0`] for several tokens.
    pub gemm_q2_0_q8_0: GemmBlocks,
    /// `y = fma(d_w · d_a, isum, y)` over blocks of 32, rising, from +0.0.
    pub gemv_q8_0_q8_0: GemvBlocks,
    /// [`Kernels::gemv_q8_0_q8_0`] for several tokens.
    pub gemm_q8_0_q8_0: GemmBlocks,
    /// `y = fma(d_w · d_a, isum, y)` over blocks of 32, rising, from +0.0.
    pub gemv_q4_0_q8_0: GemvBlocks,
    /// [`Kernels::gemv_q4_0_q8_0`] for several tokens.
    pub gemm_q4_0_q8_0: GemmBlocks,
    /// `y = fma(m_w, s_a, fma(d_w · d_a, isum, y))` over blocks of 32, rising, from +0.0.
    pub gemv_q4_1_q8_1: GemvBlocks,
    /// [`Kernels::gemv_q4_1_q8_1`] for several tokens.
    pub gemm_q4_1_q8_1: GemmBlocks,
    /// `y = fma(d_w · d_a, Σ sub-scale · sub-sum, y)` over blocks of 256, rising, from +0.0.
    pub gemv_q6_k_q8_k: GemvBlocks,
    /// [`Kernels::gemv_q6_k_q8_k`] for several tokens.
    pub gemm_q6_k_q8_k: GemmBlocks,
    /// `out[r] = dot(w[r], x)` for little-endian f16 weights, widened.
    pub gemv_f16_f32: GemvFloats,
    /// [`Kernels::gemv_f16_f32`] for several tokens.
    pub gemm_f16_f32: GemmFloats,
    /// `out[r] = dot(w[r], x)` for little-endian bf16 weights, widened.
    pub gemv_bf16_f32: GemvFloats,
    /// [`Kernels::gemv_bf16_f32`] for several tokens.
    pub gemm_bf16_f32: GemmFloats,
    /// `out[r] = dot(w[r], x)` for little-endian f32 weights.
    pub gemv_f32_f32: GemvFloats,
    /// [`Kernels::gemv_f32_f32`] for several tokens.
    pub gemm_f32_f32: GemmFloats,
    /// `R32` of `lane = fma(a_i, b_i, lane)`.
    pub dot_f32: fn(a: &[f32], b: &[f32]) -> f32,
    /// `R32` of `lane = lane + a_i`.
    pub sum_f32: fn(a: &[f32]) -> f32,
    /// Largest value; −∞ for an empty slice; a zero result is +0. Inputs hold no NaN.
    pub max_f32: fn(a: &[f32]) -> f32,
    /// Index of the first NaN or infinity.
    pub find_non_finite: fn(a: &[f32]) -> Option<usize>,
    /// `r = 1 / sqrt(dot(x, x) / n + eps)`; `out_i = (x_i · r) · w_i`.
    pub rms_norm: fn(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]),
    /// `x_i = exp(x_i)`, see [`crate::exact::exp`].
    pub exp_f32: fn(x: &mut [f32]),
    /// `out_i = silu(g_i) · u_i`, `silu(g) = g / (1 + exp(−g))`.
    pub silu_mul: fn(g: &[f32], u: &[f32], out: &mut [f32]),
    /// `out_i = relu2(g_i) · u_i`, `relu2(g) = max(g, 0)²` with `max(−0, 0) = +0`.
    pub relu2_mul: fn(g: &[f32], u: &[f32], out: &mut [f32]),
    /// `m = max`; `e_t = exp(s_t − m)`; `z = sum(e)`; `s_t = e_t / z`.
    pub softmax: fn(s: &mut [f32]),
    /// `x_i = x_i · f`.
    pub scale_f32: fn(x: &mut [f32], f: f32),
    /// `x_i = x_i + y_i`.
    pub add_f32: fn(x: &mut [f32], y: &[f32]),
    /// RoPE on pairs `(i, i + n)`, `n = cos.len()`: `x0' = fma(x0, c, −(x1·s))`, `x1' = fma(x0, s, x1·c)`; elements
    /// past `2n` stay.
    pub rope_halves: fn(x: &mut [f32], cos: &[f32], sin: &[f32]),
    /// RoPE on pairs `(2i, 2i + 1)`, the same formula.
    pub rope_pairs: fn(x: &mut [f32], cos: &[f32], sin: &[f32]),
    /// `a = max(1e-5, max|x|)`; returns `s = 127 / a`; `q_i = clamp(rint(x_i · s), −128, 127)`. Inputs are finite.
    pub quantise_i8: fn(x: &[f32], q: &mut [i8]) -> f32,
    /// `q8_K`, blocks of 256: `m` = the value of largest magnitude, the first of equals; `i = −127 / m`;
    /// `q = min(127, rint(i · x))`; `d = 1 / i`. Where `m` is 0, or so small that `i` is infinite: `q = 0, d = 0`. Inputs
    /// are finite; one `d` a block.
    pub quantise_q8_k: fn(x: &[f32], q: &mut [i8], d: &mut [f32]),
    /// `q8_0`, blocks of 32: `a = max|x|`; `d = f16(a / 127)`, widened; `q = rint(x · (127 / a))`. Where `a` is 0, or so
    /// small that `127 / a` is infinite: `q = 0, d = 0`. Inputs are finite; `d` is infinite where f16 overflows.
    pub quantise_q8_0: fn(x: &[f32], q: &mut [i8], d: &mut [f32]),
    /// `q8_1`: as `q8_0`, and `s = f16((a / 127) · Σ q)`, widened.
    pub quantise_q8_1: QuantiseSums,
    /// `out_r = ((acc_r as f32) / s) · w_scale`.
    pub dequantise_i32: fn(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]),
    /// Rounds to little-endian f16, ties to even; returns the index of the first finite input that overflows to infinity,
    /// or of the first NaN or infinity.
    pub narrow_f16: fn(x: &[f32], out: &mut [u8]) -> Option<usize>,
    /// Widens little-endian f16 (exact).
    pub widen_f16: fn(x: &[u8], out: &mut [f32]),
    /// Rounds to bf16, ties to even, and back; returns the index of the first that is NaN or infinite afterwards.
    pub round_bf16: fn(x: &mut [f32]) -> Option<usize>,
    /// `out_d = Σ_chunks Σ_t fma(p_t, v_t[d], ·)`: positions in chunks of [`crate::exact::ATTENTION_CHUNK`], each chunk
    /// summed from +0.0 for rising `t`, chunks added rising onto +0.0. `v` is `(positions, d)` little-endian f16, `p` is
    /// `(queries, positions)`, `out` is `(queries, d)`: every query for itself.
    pub weigh_f16: fn(p: &[f32], v: &[u8], d: usize, out: &mut [f32]),
}

/// The table of an instruction set.
///
/// # Errors
/// - [`Error::Isa`] if this processor or this build lacks it.
pub fn get(isa: Isa) -> Result<&'static Kernels> {
    table(isa).ok_or_else(|| Error::Isa { wanted: isa.name().to_owned(), available: available_names() })
}

fn table(isa: Isa) -> Option<&'static Kernels> {
    match isa {
        Isa::Scalar => Some(&scalar::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernels(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bw => avx512::kernels_bw(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => avx512::kernels_vnni(),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::kernels(),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => neon::kernels_dot(),
        // Those of other architectures.
        _ => None,
    }
}

/// Every table that this processor can run, slowest first. Scalar is always there.
pub fn available() -> Vec<&'static Kernels> {
    Isa::ALL.into_iter().filter_map(table).collect()
}

/// The fastest table of this processor.
pub fn best() -> &'static Kernels {
    available().last().copied().unwrap_or(&scalar::KERNELS)
}

fn available_names() -> String {
    let names: Vec<_> = available().into_iter().map(|table| table.isa.name()).collect();
    names.join(", ")
}

/// Lengths of a GEMV over encoded rows, asserted once per call: `w` holds `out` rows of `row_bytes`.
#[track_caller]
pub(crate) fn assert_rows(w: &[u8], row_bytes: usize, rows: usize) {
    assert_eq!(
        Some(w.len()),
        row_bytes.checked_mul(rows),
        "weight bytes do not make {rows} rows of {row_bytes}"
    );
}

/// The tokens of a batch, each with its row of `out`, which is `(tokens, rows)`.
#[track_caller]
pub(crate) fn batch_rows<'a, T>(
    x: &'a Batch,
    out: &'a mut [T],
) -> impl Iterator<Item = (&'a Acts, &'a mut [T])> {
    let rows = out.len() / x.tokens();
    assert_eq!(rows * x.tokens(), out.len(), "outputs are not whole rows for {} tokens", x.tokens());
    // Without rows there is nothing to write, and nothing to give out.
    x.rows().zip(out.chunks_exact_mut(rows.max(1)))
}

/// Rows and tokens of a GEMM over float weights, asserted once per call.
#[track_caller]
pub(crate) fn float_shape(w: &[u8], row_bytes: usize, cols: usize, x: &[f32], out: &[f32]) -> (usize, usize) {
    // Without columns there is one token: its sums are empty.
    let tokens = x.len().checked_div(cols).unwrap_or(1);
    assert_eq!(tokens * cols, x.len(), "activations are not whole rows of {cols}");
    let rows = out.len() / tokens.max(1);
    assert_eq!(rows * tokens, out.len(), "outputs are not whole rows for {tokens} tokens");
    assert_rows(w, row_bytes, rows);
    (rows, tokens)
}

/// Queries and positions of a weighted sum, asserted once per call.
#[track_caller]
pub(crate) fn weigh_shape(p: &[f32], v: &[u8], d: usize, out: &[f32]) -> (usize, usize) {
    // Without dimensions there is one query: nothing tells how many there are.
    let queries = out.len().checked_div(d).unwrap_or(1);
    assert_eq!(queries * d, out.len(), "outputs are not whole rows of {d}");
    let positions = p.len().checked_div(queries).unwrap_or(0);
    assert_eq!(queries * positions, p.len(), "weights are not whole rows for {queries} queries");
    if queries > 0 {
        assert_rows(v, 2 * d, positions);
    }
    (queries, positions)
}

/// Puts the values of rows `numbers` and `T` tokens from `token` on into `out`, which is `(tokens, rows)`.
#[inline]
pub(crate) fn put<const R: usize, const T: usize>(
    out: &mut [f32],
    rows: usize,
    numbers: [usize; R],
    token: usize,
    values: &[[f32; R]; T],
) {
    for t in 0..T {
        for r in 0..R {
            out[(token + t) * rows + numbers[r]] = values[t][r];
        }
    }
}
