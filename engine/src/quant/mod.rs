//! Weight formats: one row of [`Format::info`] and one file each.
//!
//! A format is a way to lay `rows × cols` weights out in bytes. Ternary formats encode and decode to `i8` values and one
//! f32 scale; dense formats widen to f32. Encoding and decoding here are for fixtures, tests and digests: kernels
//! read the encoded bytes in place.

pub mod bitnet32;
mod blocks;
pub mod dense;
mod encode;
pub mod i2_r4;
pub mod i2s;
pub mod linear_pm2;
pub mod q2_0;
pub mod q4_0;
pub mod q4_1;
pub mod q6_k;
pub mod q8_0;
pub mod qk256;
pub mod t5;
mod ternary;
pub mod tq1_0;
pub mod tq2_0;
mod trits;

pub use ternary::Ternary;

use crate::error::{Error, Result};

/// A weight format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// IEEE binary32, little-endian.
    F32,
    /// IEEE binary16, little-endian.
    F16,
    /// The upper half of binary32, little-endian.
    Bf16,
    /// Microsoft bitnet.cpp's 2-bit file format, see [`i2s`].
    I2S,
    /// The same with blocks of 64 elements, as its ARM builds pack, see [`i2s`].
    I2S64,
    /// GGUF type 36 as BitNet-rs reads it, see [`linear_pm2`].
    LinearPm2,
    /// 2-bit rows of 64-byte tiles, see [`qk256`].
    Qk256,
    /// 2-bit rows, four to a byte, see [`i2_r4`].
    I2R4,
    /// Five weights to a byte in rows of 64-byte tiles, see [`t5`].
    T5,
    /// 2-bit blocks of 32 with an f16 scale each, see [`bitnet32`].
    BitNet32,
    /// llama.cpp's blocks of five weights to a byte, see [`tq1_0`].
    Tq1_0,
    /// llama.cpp's 2-bit ternary blocks, see [`tq2_0`].
    Tq2_0,
    /// llama.cpp's 2-bit blocks of 64, see [`q2_0`].
    Q2_0,
    /// ggml's 8-bit blocks, see [`q8_0`].
    Q8_0,
    /// ggml's 4-bit blocks, see [`q4_0`].
    Q4_0,
    /// ggml's 4-bit blocks with a minimum, see [`q4_1`].
    Q4_1,
    /// ggml's 6-bit blocks of 256, see [`q6_k`].
    Q6K,
}

/// Where the scale of a matrix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Nowhere: weights are what they say.
    None,
    /// One f32 after the codes.
    Matrix,
    /// An f16 in every block.
    Block,
}

/// What is fixed about a [`Format`]. A row of `cols` weights takes `ceil(cols / block) * block_bytes` bytes; `tail_bytes`
/// follow the last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatInfo {
    /// Name as the field writes it.
    pub name: &'static str,
    /// `cols` must be a multiple of this many elements.
    pub cols_multiple: usize,
    /// And the number of rows one of this many: rows that share bytes.
    pub rows_multiple: usize,
    /// Elements in a block, or in a tile of a row.
    pub block: usize,
    /// Bytes in a block.
    pub block_bytes: usize,
    /// Bytes after the last row: the scale and its padding.
    pub tail_bytes: usize,
    /// Values are −1, 0, +1 (or −2 … +2) with one scale, not floats.
    pub ternary: bool,
    /// Where the scale is.
    pub scale: Scale,
}

impl FormatInfo {
    /// Rows that are whole blocks of floats.
    const fn dense(name: &'static str, block: usize, block_bytes: usize, scale: Scale) -> FormatInfo {
        FormatInfo {
            name,
            cols_multiple: block,
            rows_multiple: 1,
            block,
            block_bytes,
            tail_bytes: 0,
            ternary: false,
            scale,
        }
    }

    /// Ternary rows that are whole blocks, an f16 scale in each.
    const fn blocks(name: &'static str, block: usize, block_bytes: usize) -> FormatInfo {
        FormatInfo { ternary: true, ..FormatInfo::dense(name, block, block_bytes, Scale::Block) }
    }

    /// I2_S: whole blocks, and the padded scale after them.
    const fn i2s(name: &'static str, block: usize, block_bytes: usize) -> FormatInfo {
        let blocks = FormatInfo::blocks(name, block, block_bytes);
        FormatInfo { tail_bytes: i2s::TAIL_BYTES, scale: Scale::Matrix, ..blocks }
    }

    /// Rows of any number of columns, padded to whole tiles.
    const fn tiles(name: &'static str, block: usize, block_bytes: usize, tail_bytes: usize) -> FormatInfo {
        let scale = if tail_bytes == 0 { Scale::None } else { Scale::Matrix };
        let blocks = FormatInfo::blocks(name, block, block_bytes);
        FormatInfo { cols_multiple: 1, tail_bytes, scale, ..blocks }
    }
}

impl Format {
    /// Every format, in the order of the enum.
    pub const ALL: [Format; 17] = {
        use Format::*;
        [
            F32, F16, Bf16, I2S, I2S64, LinearPm2, Qk256, I2R4, T5, BitNet32, Tq1_0, Tq2_0, Q2_0, Q8_0, Q4_0,
            Q4_1, Q6K,
        ]
    };

    /// The table: one row per format.
    pub const fn info(self) -> FormatInfo {
        match self {
            Format::F32 => FormatInfo::dense("F32", 1, 4, Scale::None),
            Format::F16 => FormatInfo::dense("F16", 1, 2, Scale::None),
            Format::Bf16 => FormatInfo::dense("BF16", 1, 2, Scale::None),
            Format::I2S => FormatInfo::i2s("I2_S", i2s::BLOCK, i2s::BLOCK_BYTES),
            Format::I2S64 => FormatInfo::i2s("I2_S-64/16", i2s::BLOCK_64, i2s::BLOCK_64_BYTES),
            Format::LinearPm2 => {
                FormatInfo::tiles("linear-pm2", linear_pm2::BLOCK, linear_pm2::BLOCK_BYTES, 0)
            }
            Format::Qk256 => FormatInfo::tiles("QK256", qk256::TILE, qk256::TILE_BYTES, 4),
            Format::I2R4 => FormatInfo {
                rows_multiple: i2_r4::ROWS,
                ..FormatInfo::tiles("I2_R4", i2_r4::BLOCK, i2_r4::BLOCK_BYTES, 4)
            },
            Format::T5 => FormatInfo::tiles("T5", t5::BLOCK, t5::BLOCK_BYTES, 4),
            Format::BitNet32 => FormatInfo::blocks("BitNet32-F16", bitnet32::BLOCK, bitnet32::BLOCK_BYTES),
            Format::Tq1_0 => FormatInfo::blocks("TQ1_0", tq1_0::BLOCK, tq1_0::BLOCK_BYTES),
            Format::Tq2_0 => FormatInfo::blocks("TQ2_0", tq2_0::BLOCK, tq2_0::BLOCK_BYTES),
            Format::Q2_0 => FormatInfo::blocks("Q2_0", q2_0::BLOCK, q2_0::BLOCK_BYTES),
            Format::Q8_0 => FormatInfo::dense("Q8_0", q8_0::BLOCK, q8_0::BLOCK_BYTES, Scale::Block),
            Format::Q4_0 => FormatInfo::dense("Q4_0", q4_0::BLOCK, q4_0::BLOCK_BYTES, Scale::Block),
            Format::Q4_1 => FormatInfo::dense("Q4_1", q4_1::BLOCK, q4_1::BLOCK_BYTES, Scale::Block),
            Format::Q6K => FormatInfo::dense("Q6_K", q6_k::BLOCK, q6_k::BLOCK_BYTES, Scale::Block),
        }
    }

    /// Name as the field writes it.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// The format of that name, in upper or lower case.
    pub fn parse(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of one encoded row of `cols` weights; a tensor's scale is not in a row.
    pub const fn row_bytes(self, cols: usize) -> usize {
        let info = self.info();
        cols.div_ceil(info.block) * info.block_bytes
    }

    /// Bytes that a `(rows, cols)` matrix takes, its scale and padding included.
    ///
    /// # Errors
    /// - the number of columns or rows is not a multiple of the format's block, or the size overflows `usize`.
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
        if !rows.is_multiple_of(info.rows_multiple) {
            return Err(Error::Shape {
                name: info.name.to_owned(),
                problem: "the number of rows does not fit the format's groups".to_owned(),
                expected: format!("rows in multiples of {}", info.rows_multiple),
                got: format!("{rows} x {cols}"),
            });
        }
        rows.checked_mul(cols).ok_or_else(|| bad("the number of elements overflows"))?;
        let row = cols.div_ceil(info.block).checked_mul(info.block_bytes);
        let size = row.and_then(|row| row.checked_mul(rows)?.checked_add(info.tail_bytes));
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
        let problem = self.find_bad(bytes, rows, cols);
        problem.map_or(Ok(()), |problem| Err(Error::Weights { tensor: tensor.to_owned(), problem }))
    }

    /// What is wrong with a payload of the right size.
    fn find_bad(self, bytes: &[u8], rows: usize, cols: usize) -> Option<String> {
        match self {
            Format::F32 => dense::find_bad_f32(bytes).map(|i| dense::describe_bad(i, cols)),
            Format::F16 => dense::find_bad_f16(bytes).map(|i| dense::describe_bad(i, cols)),
            Format::Bf16 => dense::find_bad_bf16(bytes).map(|i| dense::describe_bad(i, cols)),
            Format::I2S => i2s::find_bad(bytes, rows, cols),
            Format::I2S64 => i2s::find_bad_64(bytes, rows, cols),
            Format::LinearPm2 => None,
            Format::Qk256 => qk256::find_bad(bytes, rows, cols),
            Format::I2R4 => i2_r4::find_bad(bytes, rows, cols),
            Format::T5 => t5::find_bad(bytes, rows, cols),
            Format::BitNet32 => bitnet32::find_bad(bytes, cols),
            Format::Tq1_0 => tq1_0::find_bad(bytes, cols),
            Format::Tq2_0 => tq2_0::find_bad(bytes, cols),
            Format::Q2_0 => q2_0::find_bad(bytes, cols),
            Format::Q8_0 => q8_0::BLOCKS.find_bad_scale(bytes, cols),
            Format::Q4_0 => q4_0::BLOCKS.find_bad_scale(bytes, cols),
            Format::Q4_1 => q4_1::find_bad(bytes, cols),
            Format::Q6K => q6_k::BLOCKS.find_bad_scale(bytes, cols),
        }
    }

    /// Decodes a ternary matrix to row-major `i8` values and its scale; `None` for dense formats, for block formats
    /// whose blocks do not share one scale (blocks of zeros aside), and for Q2_0 with a value +2.
    ///
    /// # Panics
    /// - if `bytes` has not passed [`Format::validate`] for this shape.
    pub fn decode_ternary(self, bytes: &[u8], rows: usize, cols: usize) -> Option<Ternary> {
        match self {
            Format::F32 | Format::F16 | Format::Bf16 => None,
            Format::Q8_0 | Format::Q4_0 | Format::Q4_1 | Format::Q6K => None,
            Format::I2S => Some(i2s::decode(bytes, rows, cols)),
            Format::I2S64 => Some(i2s::decode_64(bytes, rows, cols)),
            Format::LinearPm2 => Some(linear_pm2::decode(bytes, rows, cols)),
            Format::Qk256 => Some(qk256::decode(bytes, rows, cols)),
            Format::I2R4 => Some(i2_r4::decode(bytes, rows, cols)),
            Format::T5 => Some(t5::decode(bytes, rows, cols)),
            Format::BitNet32 => bitnet32::decode(bytes, rows, cols),
            Format::Tq1_0 => tq1_0::decode(bytes, rows, cols),
            Format::Tq2_0 => tq2_0::decode(bytes, rows, cols),
            Format::Q2_0 => q2_0::decode(bytes, rows, cols),
        }
    }

    /// Widens whole rows of a dense format to f32; `None` for ternary formats.
    pub fn widen(self, bytes: &[u8]) -> Option<Vec<f32>> {
        match self {
            Format::F32 => Some(dense::f32_from_bytes(bytes)),
            Format::F16 => Some(dense::f32_from_f16_bytes(bytes)),
            Format::Bf16 => Some(dense::f32_from_bf16_bytes(bytes)),
            Format::Q8_0 => Some(q8_0::BLOCKS.widen(bytes)),
            Format::Q4_0 => Some(q4_0::BLOCKS.widen(bytes)),
            Format::Q4_1 => Some(q4_1::widen(bytes)),
            Format::Q6K => Some(q6_k::widen(bytes)),
            _ => None,
        }
    }
}

/// The 2-bit code of a ternary value.
fn ternary_code(value: i8) -> u8 {
    assert!((-1..=1).contains(&value), "{value} is not ternary");
    (value + 1).cast_unsigned()
}

/// Reads the little-endian f32 at byte `at`.
pub(crate) fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Index of the first byte that holds the 2-bit code 3, and its shift, in `bytes`.
///
/// A code is 3 where both of its bits are set.
pub(crate) fn find_code_3(bytes: &[u8]) -> Option<(usize, u32)> {
    let hit = |byte: u8| byte & (byte >> 1) & 0x55;
    let at = dense::find(bytes, |byte| hit(*byte) != 0)?;
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
        assert_eq!(Format::I2S64.bytes(8, 768), Ok(1568));
        assert_eq!(Format::T5.bytes(3, 321), Ok(3 * 128 + 4));
        assert_eq!(Format::I2R4.bytes(8, 768), Ok(1540));
        assert!(Format::I2R4.bytes(6, 768).is_err());
        assert_eq!(Format::LinearPm2.bytes(3, 257), Ok(3 * 128));
        assert_eq!(Format::Tq1_0.bytes(8, 768), Ok(1296));
        assert_eq!(Format::Tq2_0.bytes(8, 768), Ok(1584));
        assert_eq!(Format::Q2_0.bytes(8, 768), Ok(1728));
        assert_eq!(Format::Q6K.bytes(8, 768), Ok(5040));
        assert!(Format::I2S.bytes(8, 300).is_err());
        assert!(Format::F32.bytes(usize::MAX / 2, 4).is_err());
    }

    #[test]
    fn every_format_is_in_the_list_and_found_by_its_name() {
        for (position, format) in Format::ALL.into_iter().enumerate() {
            assert_eq!(format as usize, position);
            assert_eq!(Format::parse(&format.name().to_lowercase()), Some(format));
        }
        assert_eq!(Format::parse("TL1"), None);
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
