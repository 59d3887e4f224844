//! Encoding into any format, with an error instead of a panic where it cannot hold what is given.

use super::{
    Format, Scale, Ternary, bitnet32, i2_r4, i2s, linear_pm2, q2_0, q4_0, q4_1, q6_k, q8_0, qk256, t5, tq1_0,
    tq2_0,
};
use crate::error::{Error, Result};
use half::{bf16, f16};

impl Format {
    /// Whether a matrix in this format can have the scale `scale`, to the bit. For dense formats: whether the weights
    /// ±`scale` can be stored, and told from 0.
    pub fn holds_scale(self, scale: f32) -> bool {
        match self {
            Format::F32 => scale != 0.0,
            Format::F16 => scale != 0.0 && is_f16(scale),
            Format::Bf16 => scale != 0.0 && bf16::from_f32(scale).to_f32().to_bits() == scale.to_bits(),
            _ => match self.info().scale {
                Scale::Matrix => true,
                Scale::Block => is_f16(scale),
                Scale::None => scale.to_bits() == 1.0_f32.to_bits(),
            },
        }
    }

    /// Whether the format has a code for an integer value; dense formats widen any.
    pub fn holds_value(self, value: i8) -> bool {
        match self {
            Format::LinearPm2 => matches!(value, -2 | -1 | 1 | 2),
            Format::BitNet32 => (-2..=1).contains(&value),
            Format::Q2_0 => (-1..=2).contains(&value),
            _ if self.info().ternary => (-1..=1).contains(&value),
            _ => true,
        }
    }

    /// The bytes of a ternary matrix. Decoding gives back the same values and the same bits of the scale. F32, F16 and BF16
    /// hold the products of values and scale.
    ///
    /// # Errors
    /// - [`Error::Shape`] if the rows are not whole blocks; [`Error::Weights`] if a value has no code or the scale does
    ///   not fit; both name `tensor`.
    pub fn encode_ternary(self, tensor: &str, matrix: &Ternary) -> Result<Vec<u8>> {
        let Ternary { rows, cols, values, scale } = matrix;
        self.bytes(*rows, *cols).map_err(|e| e.in_tensor(tensor))?;
        let refuse = |problem| Err(Error::Weights { tensor: tensor.to_owned(), problem });
        if let Some(at) = values.iter().position(|&value| !self.holds_value(value)) {
            let (value, row, column) = (values[at], at / cols, at % cols);
            return refuse(format!("{} has no code for {value}, at row {row}, column {column}", self.name()));
        }
        if !self.holds_scale(*scale) {
            let kept = if self.info().scale == Scale::None { "1" } else { "an f16" };
            return refuse(format!("the scale {scale} is not {kept}, and {} holds no other", self.name()));
        }
        let f16_scale = f16::from_f32(*scale);
        Ok(match self {
            Format::I2S => i2s::encode(values, *scale),
            Format::I2S64 => i2s::encode_64(values, *scale),
            Format::LinearPm2 => linear_pm2::encode(values, *cols),
            Format::Qk256 => qk256::encode(values, *cols, *scale),
            Format::I2R4 => i2_r4::encode(values, *cols, *scale),
            Format::T5 => t5::encode(values, *cols, *scale),
            Format::BitNet32 => bitnet32::encode(values, f16_scale),
            Format::Tq1_0 => tq1_0::encode(values, f16_scale),
            Format::Tq2_0 => tq2_0::encode(values, f16_scale),
            Format::Q2_0 => q2_0::encode(values, f16_scale),
            _ => {
                let floats: Vec<f32> = values.iter().map(|&value| f32::from(value) * scale).collect();
                self.encode_dense(tensor, &floats, *rows, *cols)?
            }
        })
    }

    /// The bytes of a dense matrix: F32 exactly, F16 and BF16 rounded to nearest even, the others by ggml's reference
    /// quantisers.
    ///
    /// # Errors
    /// - [`Error::Shape`] if the rows are not whole blocks, or for a ternary format.
    /// - [`Error::Weights`] if a weight or scale is no finite number after rounding; both name `tensor`.
    ///
    /// # Panics
    /// - if there are not `rows * cols` values.
    pub fn encode_dense(self, tensor: &str, values: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>> {
        assert_eq!(values.len(), rows * cols, "as many values as the shape says");
        self.bytes(rows, cols).map_err(|e| e.in_tensor(tensor))?;
        let bytes: Vec<u8> = match self {
            Format::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Format::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Format::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            Format::Q8_0 => q8_0::encode(values),
            Format::Q4_0 => q4_0::encode(values),
            Format::Q4_1 => q4_1::encode(values),
            Format::Q6K => q6_k::encode(values),
            ternary => {
                return Err(Error::Shape {
                    name: format!("tensor '{tensor}'"),
                    problem: "floats cannot be stored in a ternary format".to_owned(),
                    expected: "a dense format".to_owned(),
                    got: ternary.name().to_owned(),
                });
            }
        };
        self.validate(tensor, &bytes, rows, cols)?;
        Ok(bytes)
    }
}

fn is_f16(scale: f32) -> bool {
    f16::from_f32(scale).to_f32().to_bits() == scale.to_bits()
}
