//! Which entries of a table multiply a weight format, and what they ask of activations.

use super::acts::{Acts, Order, Quantiser, wanted_by};
use super::{GemmBlocks, GemmFloats, GemmRows, GemvBlocks, GemvFloats, GemvRows, Kernels};
use crate::quant::Format;

/// The two entries for a weight format, by the shape of their arguments.
#[derive(Debug, Clone, Copy)]
pub enum Entries {
    /// Exact sums of rows with one scale; they are scaled by [`Kernels::dequantise_i32`].
    Rows(GemvRows, GemmRows),
    /// Rows of blocks with a scale each.
    Blocks(GemvBlocks, GemmBlocks),
    /// Rows of floats.
    Floats(GemvFloats, GemmFloats),
}

/// The kernels of a weight format.
#[derive(Debug, Clone, Copy)]
pub struct Multiply {
    /// Name of the entry for one token.
    pub gemv: &'static str,
    /// Name of the entry for several tokens.
    pub gemm: &'static str,
    /// Both entries.
    pub entries: Entries,
}

impl Kernels {
    /// The entries that multiply weights of `format`.
    pub fn multiply(&self, format: Format) -> Multiply {
        macro_rules! entries {
            ($kind:ident, $gemv:ident, $gemm:ident) => {
                Multiply {
                    gemv: stringify!($gemv),
                    gemm: stringify!($gemm),
                    entries: Entries::$kind(self.$gemv, self.$gemm),
                }
            };
        }
        match format {
            Format::I2S | Format::I2S64 | Format::Qk256 => entries!(Rows, gemv_i2s_i8, gemm_i2s_i8),
            Format::LinearPm2 => entries!(Rows, gemv_pm2_i8, gemm_pm2_i8),
            Format::I2R4 => entries!(Rows, gemv_r4_i8, gemm_r4_i8),
            Format::T5 => entries!(Rows, gemv_t5_i8, gemm_t5_i8),
            Format::BitNet32 => entries!(Blocks, gemv_bitnet32_i8, gemm_bitnet32_i8),
            Format::Tq1_0 => entries!(Blocks, gemv_tq1_0_q8_k, gemm_tq1_0_q8_k),
            Format::Tq2_0 => entries!(Blocks, gemv_tq2_0_q8_k, gemm_tq2_0_q8_k),
            Format::Q2_0 => entries!(Blocks, gemv_q2_0_q8_0, gemm_q2_0_q8_0),
            Format::Q8_0 => entries!(Blocks, gemv_q8_0_q8_0, gemm_q8_0_q8_0),
            Format::Q4_0 => entries!(Blocks, gemv_q4_0_q8_0, gemm_q4_0_q8_0),
            Format::Q4_1 => entries!(Blocks, gemv_q4_1_q8_1, gemm_q4_1_q8_1),
            Format::Q6K => entries!(Blocks, gemv_q6_k_q8_k, gemm_q6_k_q8_k),
            Format::F16 => entries!(Floats, gemv_f16_f32, gemm_f16_f32),
            Format::Bf16 => entries!(Floats, gemv_bf16_f32, gemm_bf16_f32),
            Format::F32 => entries!(Floats, gemv_f32_f32, gemm_f32_f32),
        }
    }

    /// Quantises a row of activations as the weights of `format` ask; `None` for float weights, which take floats.
    ///
    /// # Errors
    /// - the index of the first element of a block whose scale overflows f16.
    pub fn quantise(&self, format: Format, x: &[f32]) -> Option<Result<Acts, usize>> {
        let (quantiser, order) = wanted_by(format)?;
        Some(self.quantise_as(quantiser, order, x))
    }

    fn quantise_as(&self, quantiser: Quantiser, order: Order, x: &[f32]) -> Result<Acts, usize> {
        let mut q = vec![0; x.len()];
        let Some(block) = quantiser.block() else {
            let s = (self.quantise_i8)(x, &mut q);
            return Ok(Acts::row(order, q, s));
        };
        let mut d = vec![0.0; x.len() / block];
        let mut mins = Vec::new();
        match quantiser {
            Quantiser::Q8K => (self.quantise_q8_k)(x, &mut q, &mut d),
            Quantiser::Q8_1 => {
                mins.resize(d.len(), 0.0);
                (self.quantise_q8_1)(x, &mut q, &mut d, &mut mins);
            }
            Quantiser::Q8_0 | Quantiser::I8 => (self.quantise_q8_0)(x, &mut q, &mut d),
        }
        let bad = [&d, &mins].into_iter().find_map(|values| (self.find_non_finite)(values));
        bad.map_or(Ok(()), |at| Err(at * block))?;
        Ok(Acts::new(order, q, d, mins))
    }
}
