//! I2_S: Microsoft bitnet.cpp's 2-bit format, GGUF type 36, in its 128/32 layout; and the 64/16 one of ARM builds.
//!
//! ```text
//! element e of the flat matrix (r * cols + c) is in block e / 128, as j = e % 128
//! block b:   bytes 32b … 32b+31;  element j in byte 32b + j % 32
//!            bits, least significant first:   1..0   3..2   5..4   7..6
//!            j / 32:                             3      2      1      0
//! code 0, 1, 2 = -1, 0, +1; 3 is invalid
//! tail:      one f32 scale, then 28 bytes of padding
//! ```
//!
//! 64/16 is the same with blocks of 64 elements in 16 bytes: element j of a block is in byte j % 16, at shift
//! 6 − 2(j / 16). Its files have the same type and size: it is read only when asked for.
//!
//! Source: `quantize_i2_s` in microsoft/BitNet, `src/ggml-bitnet-mad.cpp`, commit 01eb415 (the x86 build with
//! `ACT_PARALLEL`), whose bytes are in `fixtures/golden/golden-i2_s.bin`.

use super::{Format, Ternary, dense, f32_at, find_code_3, ternary_code};

/// How tensors of GGUF type 36 are packed. A file does not tell; only the first is ever assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// 128 elements in 32 bytes: what x86 builds of bitnet.cpp write.
    #[default]
    Blocks128,
    /// 64 elements in 16 bytes: what its ARM builds write.
    Blocks64,
    /// What EffortlessMetrics/BitNet-rs takes type 36 for, see [`super::linear_pm2`].
    LinearPm2,
}

impl Packing {
    /// Every packing, the default first.
    pub const ALL: [Packing; 3] = [Packing::Blocks128, Packing::Blocks64, Packing::LinearPm2];

    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Packing::Blocks128 => "128/32",
            Packing::Blocks64 => "64/16",
            Packing::LinearPm2 => "linear-pm2",
        }
    }

    /// The format that a tensor of type 36 then has.
    pub const fn format(self) -> Format {
        match self {
            Packing::Blocks128 => Format::I2S,
            Packing::Blocks64 => Format::I2S64,
            Packing::LinearPm2 => Format::LinearPm2,
        }
    }
}

/// Elements in a block.
pub const BLOCK: usize = 128;
/// Bytes in a block.
pub const BLOCK_BYTES: usize = 32;
/// Elements in a block of the 64/16 layout.
pub const BLOCK_64: usize = 64;
/// Bytes in a block of the 64/16 layout.
pub const BLOCK_64_BYTES: usize = 16;
/// Bytes after the codes: the scale and its padding.
pub const TAIL_BYTES: usize = 32;

/// Encodes `values` (−1, 0, +1; row-major; a multiple of 128 of them) and one scale.
///
/// # Panics
/// - if the number of values is not a multiple of 128, or a value is not −1, 0 or +1.
pub fn encode(values: &[i8], scale: f32) -> Vec<u8> {
    with_tail(encode_codes(values), scale)
}

/// As [`encode`], in the 64/16 layout.
///
/// # Panics
/// - if the number of values is not a multiple of 64, or a value is not −1, 0 or +1.
pub fn encode_64(values: &[i8], scale: f32) -> Vec<u8> {
    with_tail(codes::<BLOCK_64_BYTES>(values), scale)
}

fn with_tail(mut codes: Vec<u8>, scale: f32) -> Vec<u8> {
    codes.extend_from_slice(&tail(scale));
    codes
}

/// What follows the codes of a tensor.
pub fn tail(scale: f32) -> [u8; TAIL_BYTES] {
    let mut tail = [0; TAIL_BYTES];
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    tail
}

/// The codes alone, without the tail.
///
/// # Panics
/// - as [`encode`].
pub fn encode_codes(values: &[i8]) -> Vec<u8> {
    codes::<BLOCK_BYTES>(values)
}

/// Blocks of `BYTES` bytes, each of four groups of `BYTES` elements.
fn codes<const BYTES: usize>(values: &[i8]) -> Vec<u8> {
    assert!(values.len().is_multiple_of(4 * BYTES), "I2_S needs a multiple of {} values", 4 * BYTES);
    let mut out = Vec::with_capacity(values.len() / 4 + TAIL_BYTES);
    for block in values.chunks_exact(4 * BYTES) {
        for byte in 0..BYTES {
            out.push((0..4).fold(0, |bits, group| (bits << 2) | ternary_code(block[BYTES * group + byte])));
        }
    }
    out
}

/// The value of element `j` (0 ≤ j < 128) of the 32-byte block that starts at `block[0]`.
#[inline]
pub fn value_at(block: &[u8], j: usize) -> i8 {
    value_of::<BLOCK_BYTES>(block, j)
}

/// The value of element `j` (0 ≤ j < 64) of the 16-byte block of the 64/16 layout that starts at `block[0]`.
#[inline]
pub fn value_at_64(block: &[u8], j: usize) -> i8 {
    value_of::<BLOCK_64_BYTES>(block, j)
}

#[inline]
fn value_of<const BYTES: usize>(block: &[u8], j: usize) -> i8 {
    ((block[j % BYTES] >> (6 - 2 * (j / BYTES))) & 3).cast_signed() - 1
}

/// Decodes to row-major values and the scale. The inverse of [`encode`].
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Ternary {
    decode_blocks::<BLOCK_BYTES>(bytes, rows, cols)
}

/// As [`decode`], for the 64/16 layout.
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode_64(bytes: &[u8], rows: usize, cols: usize) -> Ternary {
    decode_blocks::<BLOCK_64_BYTES>(bytes, rows, cols)
}

fn decode_blocks<const BYTES: usize>(bytes: &[u8], rows: usize, cols: usize) -> Ternary {
    let n = rows * cols;
    let value = |e: usize| value_of::<BYTES>(&bytes[e / (4 * BYTES) * BYTES..], e % (4 * BYTES));
    Ternary { rows, cols, values: (0..n).map(value).collect(), scale: f32_at(bytes, n / 4) }
}

/// Says what is wrong with a payload of the right size: code 3, or a scale that is NaN or infinite.
pub(super) fn find_bad(bytes: &[u8], rows: usize, cols: usize) -> Option<String> {
    find_bad_in::<BLOCK_BYTES>(bytes, rows, cols)
}

/// As [`find_bad`], for the 64/16 layout.
pub(super) fn find_bad_64(bytes: &[u8], rows: usize, cols: usize) -> Option<String> {
    find_bad_in::<BLOCK_64_BYTES>(bytes, rows, cols)
}

fn find_bad_in<const BYTES: usize>(bytes: &[u8], rows: usize, cols: usize) -> Option<String> {
    let codes = rows * cols / 4;
    if let Some((at, shift)) = find_code_3(&bytes[..codes]) {
        let element = at / BYTES * 4 * BYTES + (6 - shift as usize) / 2 * BYTES + at % BYTES;
        return Some(dense::describe_code_3(element / cols, element % cols));
    }
    dense::describe_bad_scale(f32_at(bytes, codes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_the_inverse_of_decoding() {
        let values: Vec<i8> = (0..3 * 256).map(|i| ((i * 7 + i / 251) % 3) as i8 - 1).collect();
        let bytes = encode(&values, 0.75);
        assert_eq!(decode(&bytes, 3, 256), Ternary { rows: 3, cols: 256, values, scale: 0.75 });
    }

    #[test]
    fn code_3_is_named_by_row_and_column() {
        let values: Vec<i8> = (0..2 * 384).map(|i| ((i * 5 + i / 7) % 3) as i8 - 1).collect();
        for element in [0, 15, 16, 63, 64, 383, 384, 500, 767] {
            let mut bytes = encode_64(&values, 1.0);
            bytes[element / 64 * 16 + element % 16] |= 3 << (6 - 2 * (element % 64 / 16));
            let said = find_bad_64(&bytes, 2, 384).expect("code 3 is found");
            assert!(said.contains(&format!("row {}, column {}", element / 384, element % 384)), "{said}");
        }
        for element in [0, 31, 32, 127, 128, 383, 384, 500, 767] {
            let mut bytes = encode(&values, 1.0);
            bytes[element / 128 * 32 + element % 32] |= 3 << (6 - 2 * (element % 128 / 32));
            let said = find_bad(&bytes, 2, 384).expect("code 3 is found");
            assert!(said.contains(&format!("row {}, column {}", element / 384, element % 384)), "{said}");
        }
    }
}
