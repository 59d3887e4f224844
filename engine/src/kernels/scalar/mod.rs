//! Portable kernels: the meaning of every operation. Written for reading; every other table is held to this one.

mod activations;
mod blocks;
mod elementwise;
mod floats;
mod ternary;

use super::{Isa, Kernels};

/// The scalar table.
pub static KERNELS: Kernels = Kernels {
    isa: Isa::Scalar,
    gemv_i2s_i8: ternary::gemv_i2s_i8,
    gemm_i2s_i8: ternary::gemm_i2s_i8,
    gemv_pm2_i8: ternary::gemv_pm2_i8,
    gemm_pm2_i8: ternary::gemm_pm2_i8,
    gemv_r4_i8: ternary::gemv_r4_i8,
    gemm_r4_i8: ternary::gemm_r4_i8,
    gemv_t5_i8: ternary::gemv_t5_i8,
    gemm_t5_i8: ternary::gemm_t5_i8,
    gemv_bitnet32_i8: blocks::gemv_bitnet32_i8,
    gemm_bitnet32_i8: blocks::gemm_bitnet32_i8,
    gemv_tq1_0_q8_k: blocks::gemv_tq1_0_q8_k,
    gemm_tq1_0_q8_k: blocks::gemm_tq1_0_q8_k,
    gemv_tq2_0_q8_k: blocks::gemv_tq2_0_q8_k,
    gemm_tq2_0_q8_k: blocks::gemm_tq2_0_q8_k,
    gemv_q2_0_q8_0: blocks::gemv_q2_0_q8_0,
    gemm_q2_0_q8_0: blocks::gemm_q2_0_q8_0,
    gemv_q8_0_q8_0: blocks::gemv_q8_0_q8_0,
    gemm_q8_0_q8_0: blocks::gemm_q8_0_q8_0,
    gemv_q4_0_q8_0: blocks::gemv_q4_0_q8_0,
    gemm_q4_0_q8_0: blocks::gemm_q4_0_q8_0,
    gemv_q4_1_q8_1: blocks::gemv_q4_1_q8_1,
    gemm_q4_1_q8_1: blocks::gemm_q4_1_q8_1,
    gemv_q6_k_q8_k: blocks::gemv_q6_k_q8_k,
    gemm_q6_k_q8_k: blocks::gemm_q6_k_q8_k,
    gemv_f16_f32: floats::gemv_f16_f32,
    gemm_f16_f32: floats::gemm_f16_f32,
    gemv_bf16_f32: floats::gemv_bf16_f32,
    gemm_bf16_f32: floats::gemm_bf16_f32,
    gemv_f32_f32: floats::gemv_f32_f32,
    gemm_f32_f32: floats::gemm_f32_f32,
    dot_f32: floats::dot_f32,
    sum_f32: floats::sum_f32,
    max_f32: floats::max_f32,
    find_non_finite: floats::find_non_finite,
    rms_norm: elementwise::rms_norm,
    exp_f32: elementwise::exp_f32,
    silu_mul: elementwise::silu_mul,
    relu2_mul: elementwise::relu2_mul,
    softmax: elementwise::softmax,
    scale_f32: elementwise::scale_f32,
    add_f32: elementwise::add_f32,
    rope_halves: elementwise::rope_halves,
    rope_pairs: elementwise::rope_pairs,
    quantise_i8: activations::quantise_i8,
    quantise_q8_k: activations::quantise_q8_k,
    quantise_q8_0: activations::quantise_q8_0,
    quantise_q8_1: activations::quantise_q8_1,
    dequantise_i32: activations::dequantise_i32,
    narrow_f16: activations::narrow_f16,
    widen_f16: activations::widen_f16,
    round_bf16: activations::round_bf16,
    weigh_f16: floats::weigh_f16,
};
