//! Matrices: rows, columns, format, bytes. The one place where shapes are checked against files.

use crate::error::{Error, Result, shown};
use crate::gguf::{GgmlType, Gguf, TensorInfo};
use crate::quant::{Format, Scale, Ternary, f32_at, i2s};
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

/// The GGUF types of the formats that have one. 36 is read in another packing when the caller says so.
const TYPES: [(Format, GgmlType); 11] = [
    (Format::F32, GgmlType::F32),
    (Format::F16, GgmlType::F16),
    (Format::Bf16, GgmlType::BF16),
    (Format::I2S, GgmlType::I2_S),
    (Format::Tq1_0, GgmlType::TQ1_0),
    (Format::Tq2_0, GgmlType::TQ2_0),
    (Format::Q2_0, GgmlType::Q2_0),
    (Format::Q8_0, GgmlType::Q8_0),
    (Format::Q4_0, GgmlType::Q4_0),
    (Format::Q4_1, GgmlType::Q4_1),
    (Format::Q6K, GgmlType::Q6_K),
];

/// The formats that travel as I8 bytes, named by [`LAYOUT_KEY`].
const LAYOUTS: [Format; 6] =
    [Format::Qk256, Format::I2R4, Format::T5, Format::BitNet32, Format::I2S64, Format::LinearPm2];

/// The GGUF type of a format; `None` for one that travels as I8 bytes.
pub fn type_of(format: Format) -> Option<GgmlType> {
    TYPES.iter().find(|(known, _)| *known == format).map(|(_, kind)| *kind)
}

/// The value of [`LAYOUT_KEY`] for a format: its name in lower case.
pub fn layout_name(format: Format) -> String {
    format.name().to_lowercase()
}

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
            GgmlType::I2_S => (gguf.i2s_packing().format(), rows, cols),
            GgmlType::I8 if gguf.get(LAYOUT_KEY).is_some() => laid_out(gguf, tensor)?,
            kind => (of_type(tensor, kind)?, rows, cols),
        };
        let mut bytes = gguf.data(tensor);
        if tensor.kind == GgmlType::I2_S && format == Format::LinearPm2 {
            // The type's size has room for a scale that this reading does not use.
            bytes = &bytes[..bytes.len() - i2s::TAIL_BYTES];
        }
        let matrix = Matrix { name: tensor.name, format, rows, cols, bytes };
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

    /// The one f32 scale of a matrix that has it after its codes (I2_S, QK256, I2_R4, T5); 1 for other formats.
    pub fn scale(&self) -> f32 {
        match self.format.info() {
            info if info.scale == Scale::Matrix => f32_at(self.bytes, self.bytes.len() - info.tail_bytes),
            _ => 1.0,
        }
    }

    /// Widens a dense matrix to f32; `None` for ternary formats.
    pub fn dense(&self) -> Option<Vec<f32>> {
        self.format.widen(self.bytes)
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

/// The format of a GGUF type that says it all.
fn of_type(tensor: &TensorInfo<'_>, kind: GgmlType) -> Result<Format> {
    let own = TYPES.iter().find(|(_, known)| *known == kind);
    own.map(|(format, _)| *format).ok_or_else(|| Error::Shape {
        name: format!("tensor '{}'", shown(tensor.name)),
        problem: "its type is not supported here; convert the file".to_owned(),
        expected: format!("{}, or I8 with 'assay.layout'", TYPES.map(|(_, kind)| kind.name()).join(", ")),
        got: kind.name().to_owned(),
    })
}

/// Format and shape of an I8 tensor in a file that has `assay.layout`.
fn laid_out(gguf: &Gguf<'_>, tensor: &TensorInfo<'_>) -> Result<(Format, usize, usize)> {
    let layout = gguf.str(LAYOUT_KEY)?;
    let format = LAYOUTS.into_iter().find(|format| layout_name(*format) == layout).ok_or_else(|| {
        let names: Vec<String> = LAYOUTS.map(layout_name).into();
        Error::Metadata {
            key: LAYOUT_KEY.to_owned(),
            problem: "unknown layout",
            expected: format!("one of {}", names.join(", ")),
            got: shown(layout),
        }
    })?;
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
