//! Matrices: rows, columns, format, bytes. The one place where shapes are checked against files.

use crate::error::{Error, Result, shown};
use crate::gguf::{GgmlType, Gguf, TensorInfo};
use crate::quant::{Format, Ternary, dense, f32_at, i2s};
use sha2::{Digest, Sha256};

/// A weight matrix `(rows, cols)` in its encoded bytes, borrowed from a mapped file.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// How the bytes are laid out.
    pub format: Format,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// The encoded bytes, scale and padding included.
    pub bytes: &'a [u8],
}

/// `general.architecture` of a file that holds tensors and no model.
pub const TENSORS_ONLY: &str = "assay-tensors";

/// Metadata key that names the layout of I8 tensors that GGUF has no type for.
pub const LAYOUT_KEY: &str = "assay.layout";

/// Metadata key of the logical shape, `[cols, rows]`, of such a tensor.
pub fn shape_key(tensor: &str) -> String {
    format!("assay.shape.{tensor}")
}

impl<'a> Matrix<'a> {
    /// The logical matrix of a tensor: its GGUF type gives the format, or, for I8 bytes, the file's `assay.layout` and
    /// `assay.shape.<tensor>` do.
    ///
    /// # Errors
    /// - the type is known but not supported, the layout is unknown, or the size does not fit the shape.
    pub fn of(gguf: &Gguf<'a>, tensor: &TensorInfo<'a>) -> Result<Matrix<'a>> {
        // The directory's sizes have been checked against the file, so they fit.
        let (rows, cols) = (tensor.rows() as usize, tensor.cols() as usize);
        let (format, rows, cols) = match tensor.kind {
            GgmlType::F32 => (Format::F32, rows, cols),
            GgmlType::F16 => (Format::F16, rows, cols),
            GgmlType::I2_S => (Format::I2S, rows, cols),
            GgmlType::I8 if gguf.get(LAYOUT_KEY).is_some() => laid_out(gguf, tensor)?,
            other => {
                return Err(Error::Shape {
                    name: format!("tensor '{}'", shown(tensor.name)),
                    problem: "its type is not supported here; convert the file".to_owned(),
                    expected: "F32, F16, I2_S, or I8 with 'assay.layout'".to_owned(),
                    got: other.name().to_owned(),
                });
            }
        };
        let matrix = Matrix { name: tensor.name, format, rows, cols, bytes: gguf.data(tensor) };
        let expected = format.bytes(rows, cols).map_err(|e| e.in_tensor(&shown(tensor.name)))?;
        if expected != matrix.bytes.len() {
            return Err(Error::Shape {
                name: format!("tensor '{}'", shown(tensor.name)),
                problem: format!("{} of {rows} x {cols} has another size", format.name()),
                expected: format!("{expected} bytes"),
                got: format!("{} bytes", matrix.bytes.len()),
            });
        }
        Ok(matrix)
    }

    /// Holds the payload to its format: no invalid code, no NaN, no infinity.
    ///
    /// # Errors
    /// - [`Error::Weights`] names the tensor and the place.
    pub fn validate(&self) -> Result<()> {
        self.format.validate(&shown(self.name), self.bytes, self.rows, self.cols)
    }

    /// Bytes of one encoded row (the scale is not in a row).
    pub fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.cols)
    }

    /// Encoded rows `first .. first + count`.
    ///
    /// # Panics
    /// - if there are no such rows.
    pub fn rows_at(&self, first: usize, count: usize) -> &'a [u8] {
        &self.bytes[first * self.row_bytes()..(first + count) * self.row_bytes()]
    }

    /// The one f32 scale of an I2_S or QK256 matrix; 1 for other formats.
    pub fn scale(&self) -> f32 {
        match self.format {
            Format::I2S => f32_at(self.bytes, self.bytes.len() - i2s::TAIL_BYTES),
            Format::Qk256 => f32_at(self.bytes, self.bytes.len() - 4),
            Format::F32 | Format::F16 | Format::BitNet32 => 1.0,
        }
    }

    /// Widens a dense matrix to f32; `None` for ternary formats.
    pub fn dense(&self) -> Option<Vec<f32>> {
        match self.format {
            Format::F32 => Some(dense::f32_from_bytes(self.bytes)),
            Format::F16 => Some(dense::f32_from_f16_bytes(self.bytes)),
            Format::I2S | Format::Qk256 | Format::BitNet32 => None,
        }
    }

    /// Decodes a ternary matrix; `None` for dense ones and for blocks without a common scale. The matrix must have been
    /// validated.
    pub fn ternary(&self) -> Option<Ternary> {
        self.format.decode_ternary(self.bytes, self.rows, self.cols)
    }

    /// SHA-256 of the encoded bytes.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.bytes).into()
    }
}

/// Format and shape of an I8 tensor in a file that has `assay.layout`.
fn laid_out(gguf: &Gguf<'_>, tensor: &TensorInfo<'_>) -> Result<(Format, usize, usize)> {
    let layout = gguf.str(LAYOUT_KEY)?;
    let format = match layout {
        "qk256" => Format::Qk256,
        "bitnet32-f16" => Format::BitNet32,
        other => {
            return Err(Error::Metadata {
                key: LAYOUT_KEY.to_owned(),
                problem: "unknown layout",
                expected: "qk256 or bitnet32-f16".to_owned(),
                got: shown(other),
            });
        }
    };
    let key = shape_key(tensor.name);
    let shape: Vec<u64> = gguf.array(&key)?.items().into_iter().flatten().collect();
    let sides: Vec<usize> = shape.iter().filter_map(|&n| usize::try_from(n).ok()).collect();
    match sides[..] {
        [cols, rows] if cols > 0 && rows > 0 && sides.len() == shape.len() => Ok((format, rows, cols)),
        _ => Err(Error::Metadata {
            key,
            problem: "not a shape",
            expected: "two positive numbers: columns, rows".to_owned(),
            got: if shape.len() <= 4 { format!("{shape:?}") } else { format!("{} numbers", shape.len()) },
        }),
    }
}
