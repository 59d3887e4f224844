//! Weight formats: one row of [`Format::info`] and one file each.
//!
//! A format is a way to lay `rows × cols` weights out in bytes. Ternary formats encode and decode to `i8` values and one
//! f32 scale; dense formats widen to f32. Encoding and decoding here are for fixtures, tests and digests: kernels
//! read the encoded bytes in place.

pub mod bitnet32;
pub mod dense;
pub mod i2s;
pub mod qk256;

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};

/// A weight format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// IEEE binary32, little-endian.
    F32,
    /// IEEE binary16, little-endian.
    F16,
    /// Microsoft bitnet.cpp's 2-bit file format, see [`i2s`].
    I2S,
    /// 2-bit rows of 64-byte tiles, see [`qk256`].
    Qk256,
    /// 2-bit blocks of 32 with an f16 scale each, see [`bitnet32`].
    BitNet32,
}

/// What is fixed about a [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatInfo {
    /// Name as the field writes it.
    pub name: &'static str,
    /// `cols` must be a multiple of this many elements.
    pub cols_multiple: usize,
    /// Values are −1, 0, +1 (or −2 … +1) with one scale, not floats.
    pub ternary: bool,
}

impl Format {
    /// Every format, in the order of the enum.
    pub const ALL: [Format; 5] = [Format::F32, Format::F16, Format::I2S, Format::Qk256, Format::BitNet32];

    /// The table: one row per format.
    pub const fn info(self) -> FormatInfo {
        match self {
            Format::F32 => FormatInfo { name: "F32", cols_multiple: 1, ternary: false },
            Format::F16 => FormatInfo { name: "F16", cols_multiple: 1, ternary: false },
            Format::I2S => FormatInfo { name: "I2_S", cols_multiple: 128, ternary: true },
            Format::Qk256 => FormatInfo { name: "QK256", cols_multiple: 1, ternary: true },
            Format::BitNet32 => FormatInfo { name: "BitNet32-F16", cols_multiple: 32, ternary: true },
        }
    }

    /// Name as the field writes it.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Bytes of one encoded row of `cols` weights; a tensor's scale is not in a row.
    pub const fn row_bytes(self, cols: usize) -> usize {
        match self {
            Format::F32 => 4 * cols,
            Format::F16 => 2 * cols,
            Format::I2S => cols / 4,
            Format::Qk256 => qk256::row_bytes(cols),
            Format::BitNet32 => cols / bitnet32::BLOCK * bitnet32::BLOCK_BYTES,
        }
    }

    /// Bytes that a `(rows, cols)` matrix takes, its scale and padding included.
    ///
    /// # Errors
    /// - the number of columns is not a multiple of the format's block, or the size overflows `usize`.
    pub fn bytes(self, rows: usize, cols: usize) -> Result<usize> {
        let info = self.info();
        let bad = |problem: &str| Error::Shape {
            name: info.name.to_owned(),
            problem: problem.to_owned(),
            expected: format!("columns in multiples of {}", info.cols_multiple),
            got: format!("{rows} x {cols}"),
        };
        if !cols.is_multiple_of(info.cols_multiple) {
            return Err(bad("the row length does not fit the format's block"));
        }
        let elements = rows.checked_mul(cols).ok_or_else(|| bad("the number of elements overflows"))?;
        let size = match self {
            Format::F32 => elements.checked_mul(4),
            Format::F16 => elements.checked_mul(2),
            Format::I2S => (elements / 4).checked_add(i2s::TAIL_BYTES),
            Format::Qk256 => rows.checked_mul(qk256::row_bytes(cols)).and_then(|n| n.checked_add(4)),
            Format::BitNet32 => (elements / 32).checked_mul(bitnet32::BLOCK_BYTES),
        };
        size.ok_or_else(|| bad("the number of bytes overflows"))
    }

    /// Holds encoded bytes to the format: exact size, no invalid code, no NaN or infinite weight or scale.
    ///
    /// # Errors
    /// - [`Error::Shape`] for a wrong size, [`Error::Weights`] for a wrong payload; both name `tensor`.
    pub fn validate(self, tensor: &str, bytes: &[u8], rows: usize, cols: usize) -> Result<()> {
        let expected = self.bytes(rows, cols).map_err(|e| e.in_tensor(tensor))?;
        if bytes.len() != expected {
            return Err(Error::Shape {
                name: tensor.to_owned(),
                problem: format!("wrong size for {} of {rows} x {cols}", self.name()),
                expected: format!("{expected} bytes"),
                got: format!("{} bytes", bytes.len()),
            });
        }
        let problem = match self {
            Format::F32 => dense::find_bad_f32(bytes).map(|i| dense::describe_bad(i, cols)),
            Format::F16 => dense::find_bad_f16(bytes).map(|i| dense::describe_bad(i, cols)),
            Format::I2S => i2s::find_bad(bytes, rows, cols),
            Format::Qk256 => qk256::find_bad(bytes, rows, cols),
            Format::BitNet32 => bitnet32::find_bad(bytes, cols),
        };
        problem.map_or(Ok(()), |problem| Err(Error::Weights { tensor: tensor.to_owned(), problem }))
    }

    /// Decodes a ternary matrix to row-major `i8` values and its scale; `None` for dense formats and for block
    /// formats whose blocks do not share one scale.
    ///
    /// # Panics
    /// - if `bytes` has not passed [`Format::validate`] for this shape.
    pub fn decode_ternary(self, bytes: &[u8], rows: usize, cols: usize) -> Option<Ternary> {
        match self {
            Format::F32 | Format::F16 => None,
            Format::I2S => Some(i2s::decode(bytes, rows, cols)),
            Format::Qk256 => Some(qk256::decode(bytes, rows, cols)),
            Format::BitNet32 => bitnet32::decode(bytes, rows, cols),
        }
    }
}

/// A decoded ternary matrix: `w[r][c] = values[r * cols + c] * scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ternary {
    /// Rows (outputs).
    pub rows: usize,
    /// Columns (inputs).
    pub cols: usize,
    /// Row-major values, `rows * cols` of them.
    pub values: Vec<i8>,
    /// The one scale of the matrix.
    pub scale: f32,
}

impl Ternary {
    /// The *decoded-weights digest*: SHA-256 over rows and cols (u64, little-endian), the values as bytes, row-major,
    /// and the bits of the scale (u32, little-endian). Equal for every format that stores the same weights.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update((self.rows as u64).to_le_bytes());
        hash.update((self.cols as u64).to_le_bytes());
        let bytes: Vec<u8> = self.values.iter().map(|&v| v.cast_unsigned()).collect();
        hash.update(&bytes);
        hash.update(self.scale.to_bits().to_le_bytes());
        hash.finalize().into()
    }
}

/// Reads the little-endian f32 at byte `at`.
pub(crate) fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Index of the first byte that holds the 2-bit code 3, and its shift, in `bytes`.
///
/// Eight bytes at a time: a code is 3 where both of its bits are set.
pub(crate) fn find_code_3(bytes: &[u8]) -> Option<(usize, u32)> {
    let hit = |byte: u8| byte & (byte >> 1) & 0x55;
    let (words, _) = bytes.as_chunks::<8>();
    let clean = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        word & (word >> 1) & 0x5555_5555_5555_5555 == 0
    };
    let skip = words.iter().take_while(|word| clean(word)).count() * 8;
    let at = skip + bytes[skip..].iter().position(|&byte| hit(byte) != 0)?;
    // The highest field comes first in the element order of I2_S.
    let field = (0..4).rev().find(|&field| (hit(bytes[at]) >> (2 * field)) & 1 == 1)?;
    Some((at, 2 * field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_formats_page() {
        assert_eq!(Format::I2S.bytes(8, 768), Ok(1568));
        assert_eq!(Format::Qk256.bytes(3, 300), Ok(3 * 128 + 4));
        assert_eq!(Format::BitNet32.bytes(2, 64), Ok(40));
        assert_eq!(Format::F16.bytes(2, 3), Ok(12));
        assert!(Format::I2S.bytes(8, 300).is_err());
        assert!(Format::F32.bytes(usize::MAX / 2, 4).is_err());
    }

    #[test]
    fn code_3_is_found_at_every_place() {
        for at in 0..40 {
            for shift in [0, 2, 4, 6] {
                let mut bytes = vec![0b10_01_00_10u8; 41];
                bytes[at] |= 3 << shift;
                assert_eq!(find_code_3(&bytes), Some((at, shift)), "byte {at} shift {shift}");
            }
        }
        assert_eq!(find_code_3(&[0b10_01_00_10; 41]), None);
    }
}
