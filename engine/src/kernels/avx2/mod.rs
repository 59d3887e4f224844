//! AVX2 with FMA and F16C: the 32 lanes of a reduction are four registers of eight.
//!
//! Same names and order as `scalar.rs`, which says what each function means. Bodies are safe: they read and write through
//! references to arrays; a ragged tail is copied into an array of +0.0 and takes the same path.
#![expect(unsafe_code, reason = "loads and stores by pointer; the step from a checked table into AVX2 code")]

mod activations;
mod blocks;
mod elementwise;
mod floats;
mod gemm;
mod memory;
mod probe;
mod ternary;

use super::probe::Probe;
use super::{Isa, Kernels};

/// The table, where this processor has AVX2, FMA and F16C. There is no other way to it: holding it is the proof.
pub(super) fn kernels() -> Option<&'static Kernels> {
    let has = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    has.then_some(&KERNELS)
}

/// The step from safe code into a `#[target_feature]` function.
macro_rules! enter {
    ($function:path, ($($argument:ident),*)) => {
        |$($argument),*| {
            // SAFETY: the closure is reached only through `KERNELS`, which `kernels` gives out only where the processor has
            // every feature that the functions of this file enable.
            unsafe { $function($($argument),*) }
        }
    };
}

static KERNELS: Kernels = Kernels {
    isa: Isa::Avx2,
    gemv_i2s_i8: enter!(ternary::gemv_i2s_i8, (w, row_bytes, x, out)),
    gemm_i2s_i8: enter!(gemm::i2s_i8, (w, row_bytes, x, out)),
    gemv_pm2_i8: enter!(ternary::gemv_pm2_i8, (w, row_bytes, x, out)),
    gemm_pm2_i8: enter!(gemm::pm2_i8, (w, row_bytes, x, out)),
    gemv_r4_i8: enter!(ternary::gemv_r4_i8, (w, row_bytes, x, out)),
    gemm_r4_i8: enter!(gemm::r4_i8, (w, row_bytes, x, out)),
    gemv_t5_i8: enter!(ternary::gemv_t5_i8, (w, row_bytes, x, out)),
    gemm_t5_i8: enter!(gemm::t5_i8, (w, row_bytes, x, out)),
    gemv_bitnet32_i8: enter!(blocks::bitnet32_i8, (w, x, out)),
    gemm_bitnet32_i8: enter!(gemm::bitnet32_i8, (w, x, out)),
    gemv_tq1_0_q8_k: enter!(blocks::tq1_0_q8_k, (w, x, out)),
    gemm_tq1_0_q8_k: enter!(gemm::tq1_0_q8_k, (w, x, out)),
    gemv_tq2_0_q8_k: enter!(blocks::tq2_0_q8_k, (w, x, out)),
    gemm_tq2_0_q8_k: enter!(gemm::tq2_0_q8_k, (w, x, out)),
    gemv_q2_0_q8_0: enter!(blocks::q2_0_q8_0, (w, x, out)),
    gemm_q2_0_q8_0: enter!(gemm::q2_0_q8_0, (w, x, out)),
    gemv_q8_0_q8_0: enter!(blocks::q8_0_q8_0, (w, x, out)),
    gemm_q8_0_q8_0: enter!(gemm::q8_0_q8_0, (w, x, out)),
    gemv_q4_0_q8_0: enter!(blocks::q4_0_q8_0, (w, x, out)),
    gemm_q4_0_q8_0: enter!(gemm::q4_0_q8_0, (w, x, out)),
    gemv_q4_1_q8_1: enter!(blocks::q4_1_q8_1, (w, x, out)),
    gemm_q4_1_q8_1: enter!(gemm::q4_1_q8_1, (w, x, out)),
    gemv_q6_k_q8_k: enter!(blocks::q6_k_q8_k, (w, x, out)),
    gemm_q6_k_q8_k: enter!(gemm::q6_k_q8_k, (w, x, out)),
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
        isa: Isa::Avx2,
        multiply_adds: enter!(probe::multiply_adds, (rounds)),
        read: enter!(probe::read, (bytes, streams, ahead)),
    }
}
