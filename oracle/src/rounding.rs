//! What a linear layer does to its input first: the weight format decides it, as in ggml and in BitNet's BitLinear.
//!
//! The arithmetic that finds the integers is in `f32`, operation by operation as ggml does it, because those integers are part of
//! what a model computes. The values that they stand for are then exact in `f64`, or nearly.

use crate::error::{Error, Result};
use crate::float::{round_bf16, round_f16};
use crate::format::Format;

/// How a row of activations is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// Not at all.
    None,
    F16,
    Bf16,
    /// The whole row to 8 bits: `s = 127 / max(1e-5, max |x|)`, `q = clamp(rint(x s), -128, 127)`; stands for `q / s`.
    Row,
    /// Blocks of 256, ggml's Q8_K: `i = -127 / m`, where `m` is the value of largest magnitude, the first of equals;
    /// `q = min(127, rint(i x))`; stands for `q / i`.
    Blocks256,
    /// Blocks of 32, ggml's Q8_0 and Q8_1: `a = max |x|`, `q = rint(x (127 / a))`; stands for `q d`, `d = f16(a / 127)`.
    Blocks32,
}

impl Rounding {
    /// The rounding of what meets weights of this format.
    pub(crate) fn before(format: Format) -> Rounding {
        match format {
            Format::F32 => Rounding::None,
            Format::F16 => Rounding::F16,
            Format::Bf16 => Rounding::Bf16,
            Format::I2S | Format::I2S64 | Format::LinearPm2 | Format::Qk256 => Rounding::Row,
            Format::I2R4 | Format::T5 | Format::BitNet32 => Rounding::Row,
            Format::Tq1_0 | Format::Tq2_0 | Format::Q6K => Rounding::Blocks256,
            Format::Q2_0 | Format::Q8_0 | Format::Q4_0 | Format::Q4_1 => Rounding::Blocks32,
        }
    }

    /// `x` as the weights of the layer `name` meet it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] for the first element that is NaN or infinite before or after.
    pub(crate) fn apply(self, x: &[f64], name: &str) -> Result<Vec<f64>> {
        let narrow: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        // Looked at first: a maximum would hide a NaN.
        finite(&narrow, name)?;
        let rounded = match self {
            Rounding::None => x.to_vec(),
            Rounding::F16 => narrow.iter().map(|x| round_f16(*x)).collect(),
            Rounding::Bf16 => narrow.iter().map(|x| round_bf16(*x)).collect(),
            Rounding::Row => row(&narrow),
            Rounding::Blocks256 => narrow.chunks(256).flat_map(block_256).collect(),
            Rounding::Blocks32 => narrow.chunks(32).flat_map(block_32).collect(),
        };
        finite(&rounded, name)?;
        Ok(rounded)
    }
}

/// Fails with the first element of `what` that is NaN or infinite.
pub(crate) fn finite<T: Copy + Into<f64>>(values: &[T], what: &str) -> Result<()> {
    match values.iter().position(|x| !(*x).into().is_finite()) {
        Some(element) => Err(Error::NotFinite { what: what.to_owned(), element }),
        None => Ok(()),
    }
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

fn row(x: &[f32]) -> Vec<f64> {
    let s = 127.0 / largest(x).max(1e-5);
    let q = |x: &f32| (x * s).round_ties_even().clamp(-128.0, 127.0);
    x.iter().map(|x| f64::from(q(x)) / f64::from(s)).collect()
}

fn block_256(x: &[f32]) -> Vec<f64> {
    let m = x.iter().fold(0.0_f32, |m, x| if x.abs() > m.abs() { *x } else { m });
    let i = -127.0 / m;
    // A block of zeros, or one whose scale would vanish.
    if !i.is_finite() {
        return vec![0.0; x.len()];
    }
    x.iter().map(|x| f64::from((i * x).round_ties_even().min(127.0)) / f64::from(i)).collect()
}

fn block_32(x: &[f32]) -> Vec<f64> {
    let a = largest(x);
    let inverse = 127.0 / a;
    if !inverse.is_finite() {
        return vec![0.0; x.len()];
    }
    let d = round_f16(a / 127.0);
    x.iter().map(|x| f64::from((x * inverse).round_ties_even()) * d).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn golden(name: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden").join(name)).unwrap()
    }

    /// Four rows of 768: among them one of zeros, a tiny one, and ties at .5.
    fn activations() -> Vec<f32> {
        golden("golden-act.f32").as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
    }

    /// Integers that bitnet.cpp found, and the scales that belong to them.
    #[test]
    fn rows_are_rounded_as_bitnet_cpp_does() {
        let codes = golden("golden-act.i8");
        let scales = [0x3f800000, 0x4b41c960, 0x4b41c960, 0x3fa28f5c].map(f32::from_bits);
        for (r, (x, codes)) in activations().chunks(768).zip(codes.chunks(768)).enumerate() {
            let expected: Vec<f64> =
                codes.iter().map(|q| f64::from(q.cast_signed()) / f64::from(scales[r])).collect();
            assert!(row(x) == expected, "row {r}");
        }
    }

    fn f16(bytes: &[u8]) -> f64 {
        crate::float::f16_value(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    #[test]
    fn blocks_of_32_are_rounded_as_ggml_does() {
        let blocks = golden("golden-act-q8_0.bin");
        for (b, (x, block)) in activations().chunks(32).zip(blocks.chunks(34)).enumerate() {
            let expected: Vec<f64> =
                block[2..].iter().map(|q| f64::from(q.cast_signed()) * f16(block)).collect();
            assert!(block_32(x) == expected, "block {b}");
        }
    }

    /// ggml's block: scale f32, 256 codes, 16 sums i16. Its scale is `1 / i` rounded to f32, which the oracle does not round.
    #[test]
    fn blocks_of_256_are_rounded_as_ggml_does() {
        let blocks = golden("golden-act-q8_K.bin");
        for (b, (x, block)) in activations().chunks(256).zip(blocks.chunks(292)).enumerate() {
            let d = f64::from(f32::from_le_bytes([block[0], block[1], block[2], block[3]]));
            for (value, q) in block_256(x).iter().zip(&block[4..260]) {
                let expected = f64::from(q.cast_signed()) * d;
                assert!((value - expected).abs() <= expected.abs() * 1e-7, "block {b}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_named() {
        for rounding in [Rounding::None, Rounding::Row, Rounding::Blocks256, Rounding::Blocks32] {
            for bad in [f64::NAN, f64::INFINITY, 1e300] {
                let error = rounding.apply(&[1.0, bad], "blk.0.q").unwrap_err();
                assert_eq!(error.to_string(), "blk.0.q: element 1 is not finite");
            }
        }
        assert!(Rounding::F16.apply(&[65519.0], "q").is_ok());
        assert!(Rounding::F16.apply(&[65520.0], "q").is_err());
        assert!(Rounding::Blocks32.apply(&[1e9], "q").is_err());
    }

    #[test]
    fn blocks_whose_scale_would_vanish_are_zeros() {
        for tiny in [0.0, 1e-45] {
            assert_eq!(block_32(&[tiny; 3]), [0.0; 3]);
            assert_eq!(block_256(&[tiny; 3]), [0.0; 3]);
        }
    }
}
