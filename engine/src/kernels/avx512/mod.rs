//! AVX-512 F, BW, VL and DQ, with VNNI or without: the 32 lanes of a reduction are two registers of sixteen.
//!
//! Same names and order as `scalar.rs`, which says what each function means. Two tables differ in the ternary dot alone.
//! Bodies are safe: they read and write through references; a ragged tail is a load whose mask is the slice's length and
//! gives +0.0 elsewhere.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer; the step from a checked table into AVX-512 code"
)]

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

/// The table without VNNI, where this processor has AVX-512 F, BW, VL and DQ (and AVX2, FMA, F16C, which they imply).
pub(super) fn kernels_bw() -> Option<&'static Kernels> {
    let has = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    has.then_some(&BW)
}

/// The table with VNNI, where this processor has that too.
pub(super) fn kernels_vnni() -> Option<&'static Kernels> {
    let has = kernels_bw().is_some() && is_x86_feature_detected!("avx512vnni");
    has.then_some(&VNNI)
}

/// The step from safe code into a `#[target_feature]` function.
macro_rules! enter {
    ($function:path, ($($argument:ident),*)) => {
        |$($argument),*| {
            // SAFETY: the closure is reached only through `BW` and `VNNI`, which `kernels_bw` and `kernels_vnni` give out
            // only where the processor has every feature that the functions of that table enable.
            unsafe { $function($($argument),*) }
        }
    };
}

static VNNI: Kernels = Kernels {
    isa: Isa::Avx512Vnni,
    gemv_i2s_i8: enter!(ternary::gemv_i2s_i8_vnni, (w, row_bytes, x, out)),
    gemm_i2s_i8: enter!(gemm::vnni::i2s_i8, (w, row_bytes, x, out)),
    gemv_pm2_i8: enter!(ternary::gemv_pm2_i8_vnni, (w, row_bytes, x, out)),
    gemm_pm2_i8: enter!(gemm::vnni::pm2_i8, (w, row_bytes, x, out)),
    gemv_r4_i8: enter!(ternary::gemv_r4_i8_vnni, (w, row_bytes, x, out)),
    gemm_r4_i8: enter!(gemm::vnni::r4_i8, (w, row_bytes, x, out)),
    gemv_t5_i8: enter!(ternary::gemv_t5_i8_vnni, (w, row_bytes, x, out)),
    gemm_t5_i8: enter!(gemm::vnni::t5_i8, (w, row_bytes, x, out)),
    gemv_bitnet32_i8: enter!(blocks::vnni::bitnet32_i8, (w, x, out)),
    gemm_bitnet32_i8: enter!(gemm::vnni::bitnet32_i8, (w, x, out)),
    gemv_tq1_0_q8_k: enter!(blocks::vnni::tq1_0_q8_k, (w, x, out)),
    gemm_tq1_0_q8_k: enter!(gemm::vnni::tq1_0_q8_k, (w, x, out)),
    gemv_tq2_0_q8_k: enter!(blocks::vnni::tq2_0_q8_k, (w, x, out)),
    gemm_tq2_0_q8_k: enter!(gemm::vnni::tq2_0_q8_k, (w, x, out)),
    gemv_q2_0_q8_0: enter!(blocks::vnni::q2_0_q8_0, (w, x, out)),
    gemm_q2_0_q8_0: enter!(gemm::vnni::q2_0_q8_0, (w, x, out)),
    gemv_q8_0_q8_0: enter!(blocks::vnni::q8_0_q8_0, (w, x, out)),
    gemm_q8_0_q8_0: enter!(gemm::vnni::q8_0_q8_0, (w, x, out)),
    gemv_q4_0_q8_0: enter!(blocks::vnni::q4_0_q8_0, (w, x, out)),
    gemm_q4_0_q8_0: enter!(gemm::vnni::q4_0_q8_0, (w, x, out)),
    gemv_q4_1_q8_1: enter!(blocks::vnni::q4_1_q8_1, (w, x, out)),
    gemm_q4_1_q8_1: enter!(gemm::vnni::q4_1_q8_1, (w, x, out)),
    gemv_q6_k_q8_k: enter!(blocks::vnni::q6_k_q8_k, (w, x, out)),
    gemm_q6_k_q8_k: enter!(gemm::vnni::q6_k_q8_k, (w, x, out)),
    ..BW
};

static BW: Kernels = Kernels {
    isa: Isa::Avx512Bw,
    gemv_i2s_i8: enter!(ternary::gemv_i2s_i8, (w, row_bytes, x, out)),
    gemm_i2s_i8: enter!(gemm::bw::i2s_i8, (w, row_bytes, x, out)),
    gemv_pm2_i8: enter!(ternary::gemv_pm2_i8, (w, row_bytes, x, out)),
    gemm_pm2_i8: enter!(gemm::bw::pm2_i8, (w, row_bytes, x, out)),
    gemv_r4_i8: enter!(ternary::gemv_r4_i8, (w, row_bytes, x, out)),
    gemm_r4_i8: enter!(gemm::bw::r4_i8, (w, row_bytes, x, out)),
    gemv_t5_i8: enter!(ternary::gemv_t5_i8, (w, row_bytes, x, out)),
    gemm_t5_i8: enter!(gemm::bw::t5_i8, (w, row_bytes, x, out)),
    gemv_bitnet32_i8: enter!(blocks::bw::bitnet32_i8, (w, x, out)),
    gemm_bitnet32_i8: enter!(gemm::bw::bitnet32_i8, (w, x, out)),
    gemv_tq1_0_q8_k: enter!(blocks::bw::tq1_0_q8_k, (w, x, out)),
    gemm_tq1_0_q8_k: enter!(gemm::bw::tq1_0_q8_k, (w, x, out)),
    gemv_tq2_0_q8_k: enter!(blocks::bw::tq2_0_q8_k, (w, x, out)),
    gemm_tq2_0_q8_k: enter!(gemm::bw::tq2_0_q8_k, (w, x, out)),
    gemv_q2_0_q8_0: enter!(blocks::bw::q2_0_q8_0, (w, x, out)),
    gemm_q2_0_q8_0: enter!(gemm::bw::q2_0_q8_0, (w, x, out)),
    gemv_q8_0_q8_0: enter!(blocks::bw::q8_0_q8_0, (w, x, out)),
    gemm_q8_0_q8_0: enter!(gemm::bw::q8_0_q8_0, (w, x, out)),
    gemv_q4_0_q8_0: enter!(blocks::bw::q4_0_q8_0, (w, x, out)),
    gemm_q4_0_q8_0: enter!(gemm::bw::q4_0_q8_0, (w, x, out)),
    gemv_q4_1_q8_1: enter!(blocks::bw::q4_1_q8_1, (w, x, out)),
    gemm_q4_1_q8_1: enter!(gemm::bw::q4_1_q8_1, (w, x, out)),
    gemv_q6_k_q8_k: enter!(blocks::bw::q6_k_q8_k, (w, x, out)),
    gemm_q6_k_q8_k: enter!(gemm::bw::q6_k_q8_k, (w, x, out)),
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

/// The bare loops without VNNI; to be given out only with the table.
pub(super) fn probe_bw() -> Probe {
    Probe {
        isa: Isa::Avx512Bw,
        multiply_adds: enter!(probe::multiply_adds_bw, (rounds)),
        read: enter!(probe::read, (bytes, streams, ahead)),
    }
}

/// The bare loops with VNNI; to be given out only with the table.
pub(super) fn probe_vnni() -> Probe {
    Probe { isa: Isa::Avx512Vnni, multiply_adds: enter!(probe::multiply_adds_vnni, (rounds)), ..probe_bw() }
}
