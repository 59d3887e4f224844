//! Weight formats: which one a tensor has, how many bytes that takes, and all of its values.
//!
//! The layouts are those of `docs/formats.md`. Each is one formula in `element.rs` that finds the element of a column; nothing is
//! unpacked in the order in which it is packed.

mod element;

use crate::error::{Error, Result, shown};
use crate::gguf::{Entry, File, Value};

/// A weight format, by its name in `docs/formats.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    F16,
    Bf16,
    I2S,
    I2S64,
    LinearPm2,
    Qk256,
    I2R4,
    T5,
    BitNet32,
    Tq1_0,
    Tq2_0,
    Q2_0,
    Q8_0,
    Q4_0,
    Q4_1,
    Q6K,
}

/// How the elements of a matrix lie in bytes: rows in blocks, then a tail.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Elements of a block; a row is whole blocks.
    elements: usize,
    /// Bytes of a block.
    bytes: usize,
    /// The last block of a row may be used in part.
    padded: bool,
    /// Bytes after the last row. If there are any, the first four are the scale of the matrix, an f32.
    tail: usize,
    /// Rows that share their bytes.
    together: usize,
}

impl Format {
    fn layout(self) -> Layout {
        let blocks = |elements, bytes| Layout { elements, bytes, padded: false, tail: 0, together: 1 };
        match self {
            Format::F32 => blocks(1, 4),
            Format::F16 | Format::Bf16 => blocks(1, 2),
            Format::I2S => Layout { tail: 32, ..blocks(128, 32) },
            Format::I2S64 => Layout { tail: 32, ..blocks(64, 16) },
            Format::LinearPm2 => Layout { padded: true, ..blocks(256, 64) },
            Format::Qk256 => Layout { padded: true, tail: 4, ..blocks(256, 64) },
            Format::I2R4 => Layout { padded: true, tail: 4, together: 4, ..blocks(128, 32) },
            Format::T5 => Layout { padded: true, tail: 4, ..blocks(320, 64) },
            Format::BitNet32 => blocks(32, 10),
            Format::Tq1_0 => blocks(256, 54),
            Format::Tq2_0 => blocks(256, 66),
            Format::Q2_0 => blocks(64, 18),
            Format::Q8_0 => blocks(32, 34),
            Format::Q4_0 => blocks(32, 18),
            Format::Q4_1 => blocks(32, 20),
            Format::Q6K => blocks(256, 210),
        }
    }

    /// The format that ggml's type number stands for.
    fn of_kind(kind: u32) -> Option<Format> {
        Some(match kind {
            0 => Format::F32,
            1 => Format::F16,
            2 => Format::Q4_0,
            3 => Format::Q4_1,
            8 => Format::Q8_0,
            14 => Format::Q6K,
            30 => Format::Bf16,
            34 => Format::Tq1_0,
            35 => Format::Tq2_0,
            36 => Format::I2S,
            42 => Format::Q2_0,
            _ => return None,
        })
    }

    /// The format that `assay.layout` names, in files whose matrices are stored as I8.
    fn of_name(name: &str) -> Option<Format> {
        Some(match name {
            "qk256" => Format::Qk256,
            "i2_r4" => Format::I2R4,
            "t5" => Format::T5,
            "bitnet32-f16" => Format::BitNet32,
            "i2_s-64/16" => Format::I2S64,
            "linear-pm2" => Format::LinearPm2,
            _ => return None,
        })
    }
}

/// ggml's type number of I8: bytes that `assay.layout` explains.
const I8: u32 = 24;

/// A tensor as it lies in a file: its format, its shape, its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    bytes: &'a [u8],
}

impl<'a> Stored<'a> {
    /// Finds the tensor `name`, which `entry` describes, in `file`.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] for a format that is not in [`Format`]
    /// - [`Error::Malformed`] for a shape that the format cannot have
    /// - [`Error::Truncated`] if the file does not hold all bytes
    pub(crate) fn find(file: &File<'a>, name: &str, entry: &Entry) -> Result<Stored<'a>> {
        let (format, dimensions) = if entry.kind == I8 {
            described(file, name)?
        } else {
            let refused = || Error::Refused(format!("tensor {}: type {} of ggml", shown(name), entry.kind));
            (Format::of_kind(entry.kind).ok_or_else(refused)?, entry.dimensions.clone())
        };
        let wrong = |problem: &str| Error::malformed(format!("tensor {}", shown(name)), problem);
        let (rows, cols) =
            rows_and_cols(&dimensions).ok_or_else(|| wrong("its shape is empty or too large"))?;
        let size = size(format, rows, cols).map_err(wrong)?;
        if entry.kind == I8 && entry.dimensions != [size as u64] {
            return Err(wrong(&format!(
                "{rows} x {cols} take {size} bytes, got shape {:?}",
                entry.dimensions
            )));
        }
        Ok(Stored { format, rows, cols, bytes: file.data(name, entry, size as u64)? })
    }

    /// All values, `(rows, cols)`, row-major. Exact, but for Q4_1, whose sum is rounded to f32.
    ///
    /// # Errors
    ///
    /// The first element that is an invalid code, NaN or infinity, by row and column.
    pub(crate) fn values(&self) -> Result<Vec<f32>, String> {
        let Layout { elements, bytes, tail, together, .. } = self.format.layout();
        let group_bytes = self.cols.div_ceil(elements) * bytes * together;
        let groups = &self.bytes[..self.bytes.len() - tail];
        let scale = match self.bytes[groups.len()..] {
            [a, b, c, d, ..] => f64::from(f32::from_le_bytes([a, b, c, d])),
            _ => 1.0,
        };
        let mut values = Vec::with_capacity(self.rows * self.cols);
        for row in 0..self.rows {
            let group = &groups[row / together * group_bytes..][..group_bytes];
            for col in 0..self.cols {
                let at = |problem: &str| format!("row {row}, column {col}: {problem}");
                let value = element::value(self.format, group, row % together, col).map_err(at)? * scale;
                if !value.is_finite() {
                    return Err(at("the value is not finite"));
                }
                values.push(value as f32);
            }
        }
        Ok(values)
    }
}

/// Format and dimensions of an I8 tensor, from the metadata.
fn described(file: &File, name: &str) -> Result<(Format, Vec<u64>)> {
    let Some(Value::Text(layout)) = file.metadata.get("assay.layout") else {
        return Err(Error::Refused(format!("tensor {}: I8 without 'assay.layout'", shown(name))));
    };
    let refused = || Error::Refused(format!("tensor {}: layout {}", shown(name), shown(layout)));
    let format = Format::of_name(layout).ok_or_else(refused)?;
    let key = format!("assay.shape.{name}");
    let Some(Value::Array(values)) = file.metadata.get(&key) else {
        return Err(Error::Missing(format!("key {}", shown(&key))));
    };
    let sizes: Option<Vec<u64>> = values
        .iter()
        .map(|value| match value {
            Value::Integer(n) => u64::try_from(*n).ok(),
            _ => None,
        })
        .collect();
    match sizes {
        Some(sizes) if sizes.len() == 2 => Ok((format, sizes)),
        _ => Err(Error::malformed(format!("key {}", shown(&key)), "expected two sizes")),
    }
}

/// `ne[0]` is the row; everything else together counts rows.
fn rows_and_cols(dimensions: &[u64]) -> Option<(usize, usize)> {
    let sizes: Option<Vec<usize>> = dimensions.iter().map(|n| usize::try_from(*n).ok()).collect();
    let sizes = sizes?;
    let (cols, others) = sizes.split_first()?;
    let rows = others.iter().try_fold(1_usize, |product, n| product.checked_mul(*n))?;
    (rows > 0 && *cols > 0).then_some((rows, *cols))
}

/// Bytes of a matrix, or why it cannot be.
fn size(format: Format, rows: usize, cols: usize) -> Result<usize, &'static str> {
    let layout = format.layout();
    if !layout.padded && !cols.is_multiple_of(layout.elements) {
        return Err("its rows are not whole blocks of its format");
    }
    if !rows.is_multiple_of(layout.together) {
        return Err("its rows do not come in fours");
    }
    let row = cols.div_ceil(layout.elements).checked_mul(layout.bytes);
    let all = row.and_then(|row| row.checked_mul(rows)).and_then(|all| all.checked_add(layout.tail));
    all.ok_or("its shape is too large")
}

#[cfg(test)]
mod tests;
