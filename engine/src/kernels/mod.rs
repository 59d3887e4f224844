//! Kernels: one file per instruction set, the same names in each, dispatched once into a struct of functions.
//!
//! ```text
//! scalar.rs   the meaning of every operation
//! avx2.rs     AVX2 + FMA + F16C
//! avx512.rs   AVX-512 F/BW/VL/DQ, with VNNI or without
//! check.rs    holds every table to scalar, bit for bit
//! plugin/     kernels from outside: the C ABI, and adapters for other programs' libraries
//! ```
//!
//! A [`Kernels`] table can be had only for an instruction set that this processor has ([`get`]), so holding one is the
//! proof that its functions may be called.

pub mod check;
pub mod plugin;
pub mod scalar;
pub mod tiles;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::error::{Error, Result};
use std::fmt;
pub use tiles::TileActs;

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
}

impl Isa {
    /// Every instruction set Assay knows, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Avx2, Isa::Avx512Bw, Isa::Avx512Vnni];

    /// Name on the command line and in receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512Bw => "avx512bw",
            Isa::Avx512Vnni => "avx512vnni",
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

/// The operations of the contract for one instruction set. Every entry gives the same bits in every table.
///
/// Shapes: a matrix is `(rows, cols)`, row-major; `w` is its encoded bytes as the file holds them (no alignment is
/// needed), `x` one activation row of `cols` values, `out` one value per row. All functions panic where lengths do not
/// fit: that is what makes their loads safe.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// The instruction set of this table.
    pub isa: Isa,
    /// `out[r] = Σ_c (code[r][c] − 1) · q[c]`, exact in i32: rows of 2-bit codes in 64-byte tiles (the last one may be
    /// half a tile), activations in the order of the tiles. `codes.len() = out.len() * row_bytes`.
    pub gemv_i2s_i8: fn(codes: &[u8], row_bytes: usize, x: &TileActs, out: &mut [i32]),
    /// `out[r] = dot(w[r], x)` for little-endian f16 weights, widened.
    pub gemv_f16_f32: fn(w: &[u8], x: &[f32], out: &mut [f32]),
    /// `out[r] = dot(w[r], x)` for little-endian f32 weights.
    pub gemv_f32_f32: fn(w: &[u8], x: &[f32], out: &mut [f32]),
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
    /// `out_r = ((acc_r as f32) / s) · w_scale`.
    pub dequantise_i32: fn(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]),
    /// Rounds to little-endian f16, ties to even; returns the index of the first finite input that overflows to infinity,
    /// or of the first NaN or infinity.
    pub narrow_f16: fn(x: &[f32], out: &mut [u8]) -> Option<usize>,
    /// Widens little-endian f16 (exact).
    pub widen_f16: fn(x: &[u8], out: &mut [f32]),
    /// `out_d = Σ_chunks Σ_t fma(p_t, v_t[d], ·)`: positions in chunks of [`crate::exact::ATTENTION_CHUNK`], each chunk
    /// summed from +0.0 for rising `t`, chunks added rising onto +0.0. `v` is `(p.len(), out.len())` little-endian f16.
    pub weigh_f16: fn(p: &[f32], v: &[u8], out: &mut [f32]),
}

/// The table of an instruction set.
///
/// # Errors
/// - [`Error::Isa`] if this processor or this build lacks it.
pub fn get(isa: Isa) -> Result<&'static Kernels> {
    let table = match isa {
        Isa::Scalar => Some(&scalar::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernels(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bw => avx512::kernels_bw(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => avx512::kernels_vnni(),
        #[cfg(not(target_arch = "x86_64"))]
        _ => None,
    };
    table.ok_or_else(|| Error::Isa { wanted: isa.name().to_owned(), available: available_names() })
}

/// Every table that this processor can run, slowest first. Scalar is always there.
pub fn available() -> Vec<&'static Kernels> {
    Isa::ALL.into_iter().filter_map(|isa| get(isa).ok()).collect()
}

/// The fastest table of this processor.
pub fn best() -> &'static Kernels {
    available().last().copied().unwrap_or(&scalar::KERNELS)
}

fn available_names() -> String {
    let mut names = vec!["scalar"];
    #[cfg(target_arch = "x86_64")]
    for (isa, table) in [
        (Isa::Avx2, avx2::kernels()),
        (Isa::Avx512Bw, avx512::kernels_bw()),
        (Isa::Avx512Vnni, avx512::kernels_vnni()),
    ] {
        names.extend(table.map(|_| isa.name()));
    }
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
