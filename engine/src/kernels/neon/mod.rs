//! NEON (ARM, 64 bits), with the dot product instructions or without: the 32 lanes of a reduction are eight registers of
//! four.
//!
//! ```text
//! memory.rs        loads and stores: every pointer; lanes, tails
//! ternary.rs       rows of 2-bit codes
//! floats.rs        rows of floats; reductions; the weighted sum of attention
//! elementwise.rs   norms, activation functions, softmax, RoPE
//! activations.rs   between the forms of an activation row: int8, f16, f32
//! ```
//!
//! Same names as in `scalar.rs`, which says what each function means. Two tables differ in the ternary dot alone. Bodies
//! are safe: they read and write through references to arrays; a ragged tail is copied into an array of +0.0 and takes
//! the same path.

mod activations;
mod elementwise;
mod floats;
mod memory;
mod ternary;

use super::{Isa, Kernels};
use activations::{dequantise_i32, narrow_f16, quantise_i8, widen_f16};
use elementwise::{
    add_f32, exp_f32, relu2_mul, rms_norm, rope_halves, rope_pairs, scale_f32, silu_mul, softmax,
};
use floats::{dot_f32, find_non_finite, gemv_f16_f32, gemv_f32_f32, max_f32, sum_f32, weigh_f16};
use std::arch::is_aarch64_feature_detected;
use ternary::{gemv_i2s_i8, gemv_i2s_i8_dot};

/// The table without dot products, where this processor has NEON. Weights are read as little-endian registers, so a
/// big-endian program has none.
pub(super) fn kernels() -> Option<&'static Kernels> {
    (cfg!(target_endian = "little") && is_aarch64_feature_detected!("neon")).then_some(&NEON)
}

/// The table with dot products, where this processor has them too.
pub(super) fn kernels_dot() -> Option<&'static Kernels> {
    (kernels().is_some() && is_aarch64_feature_detected!("dotprod")).then_some(&NEON_DOT)
}

/// The step from safe code into a `#[target_feature]` function.
macro_rules! enter {
    ($function:ident($($argument:ident),*)) => {
        |$($argument),*| {
            // SAFETY: the closure is reached only through `NEON` and `NEON_DOT`, which `kernels` and `kernels_dot` give out
            // only where the processor has every feature that the functions of that table enable.
            unsafe { $function($($argument),*) }
        }
    };
}

#[expect(unsafe_code, reason = "the step from a checked table into code for dot products")]
static NEON_DOT: Kernels =
    Kernels { isa: Isa::NeonDot, gemv_i2s_i8: enter!(gemv_i2s_i8_dot(codes, row_bytes, x, out)), ..NEON };

#[expect(unsafe_code, reason = "the step from a checked table into NEON code")]
static NEON: Kernels = Kernels {
    isa: Isa::Neon,
    gemv_i2s_i8: enter!(gemv_i2s_i8(codes, row_bytes, x, out)),
    gemv_f16_f32: enter!(gemv_f16_f32(w, x, out)),
    gemv_f32_f32: enter!(gemv_f32_f32(w, x, out)),
    dot_f32: enter!(dot_f32(a, b)),
    sum_f32: enter!(sum_f32(a)),
    max_f32: enter!(max_f32(a)),
    find_non_finite: enter!(find_non_finite(a)),
    rms_norm: enter!(rms_norm(x, w, eps, out)),
    exp_f32: enter!(exp_f32(x)),
    silu_mul: enter!(silu_mul(g, u, out)),
    relu2_mul: enter!(relu2_mul(g, u, out)),
    softmax: enter!(softmax(s)),
    scale_f32: enter!(scale_f32(x, f)),
    add_f32: enter!(add_f32(x, y)),
    rope_halves: enter!(rope_halves(x, cos, sin)),
    rope_pairs: enter!(rope_pairs(x, cos, sin)),
    quantise_i8: enter!(quantise_i8(x, q)),
    dequantise_i32: enter!(dequantise_i32(acc, s, w_scale, out)),
    narrow_f16: enter!(narrow_f16(x, out)),
    widen_f16: enter!(widen_f16(x, out)),
    weigh_f16: enter!(weigh_f16(p, v, out)),
    ..super::scalar::KERNELS
};
