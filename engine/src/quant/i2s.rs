//! I2_S: Microsoft bitnet.cpp's 2-bit format, GGUF type 36, in its 128/32 layout.
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
//! Source: `quantize_i2_s` in microsoft/BitNet, `src/ggml-bitnet-mad.cpp`, commit 01eb415 (the x86 build with
//! `ACT_PARALLEL`), whose bytes are in `fixtures/golden/golden-i2_s.bin`.

use super::{Ternary, f32_at, find_code_3};

/// Elements in a block.
pub const BLOCK: usize = 128;
/// Bytes after the codes: the scale and its padding.
pub const TAIL_BYTES: usize = 32;

/// Encodes `values` (−1, 0, +1; row-major; a multiple of 128 of them) and one scale.
///
/// # Panics
/// - if the number of values is not a multiple of 128, or a value is not −1, 0 or +1.
pub fn encode(values: &[i8], scale: f32) -> Vec<u8> {
    let mut out = encode_codes(values);
    out.extend_from_slice(&scale.to_le_bytes());
    out.resize(out.len() + TAIL_BYTES - 4, 0);
    out
}

/// The codes alone, without the tail; shared with [`super::qk256`].
pub(super) fn encode_codes(values: &[i8]) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "I2_S needs a multiple of {BLOCK} values");
    let mut out = Vec::with_capacity(values.len() / 4 + TAIL_BYTES);
    for block in blocks {
        for byte in 0..32 {
            out.push((0..4).fold(0, |bits, group| (bits << 2) | code_of(block[32 * group + byte])));
        }
    }
    out
}

fn code_of(value: i8) -> u8 {
    assert!((-1..=1).contains(&value), "{value} is not ternary");
    (value + 1).cast_unsigned()
}

/// The value of element `j` (0 ≤ j < 128) of the 32-byte block that starts at `codes[0]`.
pub(super) fn value_at(codes: &[u8], j: usize) -> i8 {
    ((codes[j % 32] >> (6 - 2 * (j / 32))) & 3).cast_signed() - 1
}

/// Decodes to row-major values and the scale. The inverse of [`encode`].
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Ternary {
    let n = rows * cols;
    let values = (0..n).map(|e| value_at(&bytes[e / BLOCK * 32..], e % BLOCK)).collect();
    Ternary { rows, cols, values, scale: f32_at(bytes, n / 4) }
}

/// Says what is wrong with a payload of the right size: code 3, or a scale that is NaN or infinite.
pub(super) fn find_bad(bytes: &[u8], rows: usize, cols: usize) -> Option<String> {
    let codes = rows * cols / 4;
    if let Some((at, shift)) = find_code_3(&bytes[..codes]) {
        let element = at / 32 * BLOCK + (6 - shift as usize) / 2 * 32 + at % 32;
        return Some(super::dense::describe_code_3(element / cols, element % cols));
    }
    super::dense::describe_bad_scale(f32_at(bytes, codes))
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
        for element in [0, 31, 32, 127, 128, 383, 384, 500, 767] {
            let mut bytes = encode(&values, 1.0);
            bytes[element / 128 * 32 + element % 32] |= 3 << (6 - 2 * (element % 128 / 32));
            let said = find_bad(&bytes, 2, 384).expect("code 3 is found");
            assert!(said.contains(&format!("row {}, column {}", element / 384, element % 384)), "{said}");
        }
    }
}
