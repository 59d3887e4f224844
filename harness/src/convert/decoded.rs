//! What a tensor decodes to, its `.scale` tensor included.

use assay_engine::Result;
use assay_engine::gguf::Gguf;
use assay_engine::quant::Ternary;
use assay_engine::tensor::Matrix;
use sha2::{Digest, Sha256};

/// Values and scale of a ternary matrix, and the factor of its `.scale` tensor.
pub(super) struct Decoded {
    pub(super) ternary: Ternary,
    pub(super) extra: Option<f32>,
}

impl Decoded {
    /// Decodes a ternary matrix; or a dense one that holds multiples of `dense_scale`. `None` if it is neither.
    pub(super) fn of(
        gguf: &Gguf<'_>,
        matrix: &Matrix<'_>,
        dense_scale: Option<f32>,
    ) -> Result<Option<Decoded>> {
        let ternary = match dense_scale {
            Some(scale) => from_floats(matrix, scale),
            None => matrix.ternary(),
        };
        let Some(ternary) = ternary else { return Ok(None) };
        Ok(Some(Decoded { ternary, extra: extra_scale(gguf, matrix.name)? }))
    }

    /// The product of both scales. Exact: two f32 have 48 bits of mantissa together, f64 has 53.
    fn product(&self) -> f64 {
        f64::from(self.ternary.scale) * f64::from(self.extra.unwrap_or(1.0))
    }

    /// The product of both scales, where one f32 holds it.
    pub(super) fn one_scale(&self) -> Option<f32> {
        let rounded = self.product() as f32;
        (f64::from(rounded).to_bits() == self.product().to_bits()).then_some(rounded)
    }

    /// The decoded-weights digest with the product of both scales; where no f32 holds the product, SHA-256 of the digest
    /// with scale 1 and the product's f64 bits.
    pub(super) fn digest(&self) -> [u8; 32] {
        let with = |scale| Ternary { scale, ..self.ternary.clone() }.digest();
        match self.one_scale() {
            Some(scale) => with(scale),
            None => Sha256::new_with_prefix(with(1.0))
                .chain_update(self.product().to_le_bytes())
                .finalize()
                .into(),
        }
    }
}

/// The name of the `.scale` tensor beside a `.weight`.
pub(super) fn scale_name(weight: &str) -> Option<String> {
    Some(format!("{}.scale", weight.strip_suffix(".weight")?))
}

fn extra_scale(gguf: &Gguf<'_>, weight: &str) -> Result<Option<f32>> {
    let Some(tensor) = scale_name(weight).and_then(|name| gguf.tensor(&name).copied()) else {
        return Ok(None);
    };
    let matrix = Matrix::of(gguf, &tensor)?;
    matrix.validate()?;
    Ok(matrix.dense().and_then(|scale| scale.first().copied()))
}

/// Values whose products with `scale` are the weights, to the bit; `None` if a weight is no such product.
fn from_floats(matrix: &Matrix<'_>, scale: f32) -> Option<Ternary> {
    let value =
        |x: &f32| [0, 1, -1, 2, -2].into_iter().find(|&v| (f32::from(v) * scale).to_bits() == x.to_bits());
    let values = matrix.dense()?.iter().map(value).collect::<Option<Vec<i8>>>()?;
    Some(Ternary { rows: matrix.rows, cols: matrix.cols, values, scale })
}
