//! NEON (ARM, 64 bits), with the dot product instructions or without: the 32 lanes of a reduction are eight registers of
//! four.
//!
//! ```text
//! memory.rs        loads and stores: every pointer; lanes, tails
//! products.rs      sums of products of 8-bit integers: `plain` or `dot`
//! ternary.rs       rows of codes with one scale
//! blocks.rs        rows of blocks
//! gemm.rs          both, for several tokens
//! floats.rs        rows of floats; reductions; the weighted sum of attention
//! elementwise.rs   norms, activation functions, softmax, RoPE
//! activations.rs   between the forms of an activation row: int8, blocks, f16, bf16, f32
//! probe.rs         bare loops
//! ```
//!
//! Same names as in `scalar/`, which says what each function means. Two tables differ in the products of integers alone.
//! Bodies are safe: they read and write through references to arrays; a ragged tail is copied into an array of +0.0 and
//! takes the same path.
#![expect(unsafe_code, reason = "the step from a checked table into NEON code")]

mod activations;
mod blocks;
mod elementwise;
mod floats;
mod gemm;
mod memory;
mod probe;
mod products;
mod ternary;

use super::probe::Probe;
use super::{Isa, Kernels};
use std::arch::is_aarch64_feature_detected;

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
    ($function:path, ($($argument:ident),*)) => {
        |$($argument),*| {
            // SAFETY: the closure is reached only through `NEON` and `NEON_DOT`, which `kernels` and `kernels_dot` give out
            // only where the processor has every feature that the functions of that table enable.
            unsafe { $function($($argument),*) }
        }
    };
}

static NEON_DOT: Kernels = Kernels {
    isa: Isa::NeonDot,
    gemv_i2s_i8: enter!(ternary::dot::gemv_i2s_i8, (w, row_bytes, x, out)),
    gemm_i2s_i8: enter!(gemm::dot::i2s_i8, (w, row_bytes, x, out)),
    gemv_pm2_i8: enter!(ternary::dot::gemv_pm2_i8, (w, row_bytes, x, out)),
    gemm_pm2_i8: enter!(gemm::dot::pm2_i8, (w, row_bytes, x, out)),
    gemv_r4_i8: enter!(ternary::dot::gemv_r4_i8, (w, row_bytes, x, out)),
    gemm_r4_i8: enter!(gemm::dot::r4_i8, (w, row_bytes, x, out)),
    gemv_t5_i8: enter!(ternary::dot::gemv_t5_i8, (w, row_bytes, x, out)),
    gemm_t5_i8: enter!(gemm::dot::t5_i8, (w, row_bytes, x, out)),
    gemv_bitnet32_i8: enter!(blocks::dot::bitnet32_i8, (w, x, out)),
    gemm_bitnet32_i8: enter!(gemm::dot::bitnet32_i8, (w, x, out)),
    gemv_tq1_0_q8_k: enter!(blocks::dot::tq1_0_q8_k, (w, x, out)),
    gemm_tq1_0_q8_k: enter!(gemm::dot::tq1_0_q8_k, (w, x, out)),
    gemv_tq2_0_q8_k: enter!(blocks::dot::tq2_0_q8_k, (w, x, out)),
    gemm_tq2_0_q8_k: enter!(gemm::dot::tq2_0_q8_k, (w, x, out)),
    gemv_q2_0_q8_0: enter!(blocks::dot::q2_0_q8_0, (w, x, out)),
    gemm_q2_0_q8_0: enter!(gemm::dot::q2_0_q8_0, (w, x, out)),
    gemv_q8_0_q8_0: enter!(blocks::dot::q8_0_q8_0, (w, x, out)),
    gemm_q8_0_q8_0: enter!(gemm::dot::q8_0_q8_0, (w, x, out)),
    gemv_q4_0_q8_0: enter!(blocks::dot::q4_0_q8_0, (w, x, out)),
    gemm_q4_0_q8_0: enter!(gemm::dot::q4_0_q8_0, (w, x, out)),
    gemv_q4_1_q8_1: enter!(blocks::dot::q4_1_q8_1, (w, x, out)),
    gemm_q4_1_q8_1: enter!(gemm::dot::q4_1_q8_1, (w, x, out)),
    gemv_q6_k_q8_k: enter!(blocks::dot::q6_k_q8_k, (w, x, out)),
    gemm_q6_k_q8_k: enter!(gemm::dot::q6_k_q8_k, (w, x, out)),
    ..NEON
};

static NEON: Kernels = Kernels {
    isa: Isa::Neon,
    gemv_i2s_i8: enter!(ternary::plain::gemv_i2s_i8, (w, row_bytes, x, out)),
    gemm_i2s_i8: enter!(gemm::plain::i2s_i8, (w, row_bytes, x, out)),
    gemv_pm2_i8: enter!(ternary::plain::gemv_pm2_i8, (w, row_bytes, x, out)),
    gemm_pm2_i8: enter!(gemm::plain::pm2_i8, (w, row_bytes, x, out)),
    gemv_r4_i8: enter!(ternary::plain::gemv_r4_i8, (w, row_bytes, x, out)),
    gemm_r4_i8: enter!(gemm::plain::r4_i8, (w, row_bytes, x, out)),
    gemv_t5_i8: enter!(ternary::plain::gemv_t5_i8, (w, row_bytes, x, out)),
    gemm_t5_i8: enter!(gemm::plain::t5_i8, (w, row_bytes, x, out)),
    gemv_bitnet32_i8: enter!(blocks::plain::bitnet32_i8, (w, x, out)),
    gemm_bitnet32_i8: enter!(gemm::plain::bitnet32_i8, (w, x, out)),
    gemv_tq1_0_q8_k: enter!(blocks::plain::tq1_0_q8_k, (w, x, out)),
    gemm_tq1_0_q8_k: enter!(gemm::plain::tq1_0_q8_k, (w, x, out)),
    gemv_tq2_0_q8_k: enter!(blocks::plain::tq2_0_q8_k, (w, x, out)),
    gemm_tq2_0_q8_k: enter!(gemm::plain::tq2_0_q8_k, (w, x, out)),
    gemv_q2_0_q8_0: enter!(blocks::plain::q2_0_q8_0, (w, x, out)),
    gemm_q2_0_q8_0: enter!(gemm::plain::q2_0_q8_0, (w, x, out)),
    gemv_q8_0_q8_0: enter!(blocks::plain::q8_0_q8_0, (w, x, out)),
    gemm_q8_0_q8_0: enter!(gemm::plain::q8_0_q8_0, (w, x, out)),
    gemv_q4_0_q8_0: enter!(blocks::plain::q4_0_q8_0, (w, x, out)),
    gemm_q4_0_q8_0: enter!(gemm::plain::q4_0_q8_0, (w, x, out)),
    gemv_q4_1_q8_1: enter!(blocks::plain::q4_1_q8_1, (w, x, out)),
    gemm_q4_1_q8_1: enter!(gemm::plain::q4_1_q8_1, (w, x, out)),
    gemv_q6_k_q8_k: enter!(blocks::plain::q6_k_q8_k, (w, x, out)),
    gemm_q6_k_q8_k: enter!(gemm::plain::q6_k_q8_k, (w, x, out)),
    gemv_f16_f32: enter!(floats::gemv_f16_f32, (w, x, out)),
    gemm_f16_f32: enter!(floats::gemm_f16_f32, (w, cols, x, out)),
    gemv_bf16_f32: enter!(floats::gemv_bf16_f32, (w, x, out)),
    gemm_bf16_f32: enter!(floats::gemm_bf16_f32, (w, cols, x, out)),
    gemv_f32_f32: enter!(floats::gemv_f32_f32, (w, x, out)),
    gemm_f32_f32: enter!(floats::gemm_f32_f32, (w, cols, x, out)),
    dot_f32: enter!(floats::dot_f32, (a, b)),
    sum_f32: enter!(floats::sum_f32, (a)),
    max_f32: enter!(floats::max_f32, (a)),
    find_non_finite: enter!(floats::find_non_finite, (a)),
    rms_norm: enter!(elementwise::rms_norm, (x, w, eps, out)),
    exp_f32: enter!(elementwise::exp_f32, (x)),
    silu_mul: enter!(elementwise::silu_mul, (g, u, out)),
    relu2_mul: enter!(elementwise::relu2_mul, (g, u, out)),
    softmax: enter!(elementwise::softmax, (s)),
    scale_f32: enter!(elementwise::scale_f32, (x, f)),
    add_f32: enter!(elementwise::add_f32, (x, y)),
    rope_halves: enter!(elementwise::rope_halves, (x, cos, sin)),
    rope_pairs: enter!(elementwise::rope_pairs, (x, cos, sin)),
    quantise_i8: enter!(activations::quantise_i8, (x, q)),
    quantise_q8_k: enter!(activations::quantise_q8_k, (x, q, d)),
    quantise_q8_0: enter!(activations::quantise_q8_0, (x, q, d)),
    quantise_q8_1: enter!(activations::quantise_q8_1, (x, q, d, s)),
    dequantise_i32: enter!(activations::dequantise_i32, (acc, s, w_scale, out)),
    narrow_f16: enter!(activations::narrow_f16, (x, out)),
    widen_f16: enter!(activations::widen_f16, (x, out)),
    round_bf16: enter!(activations::round_bf16, (x)),
    weigh_f16: enter!(floats::weigh_f16, (p, v, d, out)),
};

/// The bare loops; to be given out only with the table.
pub(super) fn probe() -> Probe {
    Probe {
        isa: Isa::Neon,
        multiply_adds: enter!(probe::multiply_adds, (rounds)),
        read: enter!(probe::read, (bytes, streams, ahead)),
    }
}

/// The bare loops with dot products; to be given out only with their table.
pub(super) fn probe_dot() -> Probe {
    Probe { isa: Isa::NeonDot, multiply_adds: enter!(probe::multiply_adds_dot, (rounds)), ..probe() }
}
