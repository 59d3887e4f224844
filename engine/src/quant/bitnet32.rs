//! BitNet32-F16: blocks of 32 two-bit weights with an f16 scale each, as EffortlessMetrics/BitNet-rs writes them.
//!
//! ```text
//! block: 10 bytes;  element j (0 ≤ j < 32) in byte j / 4, bits 2(j % 4)+1 … 2(j % 4)
//!        code 0, 1, 2, 3 = -2, -1, 0, +1;  bytes 8–9: f16 scale
//! ```
//!
//! It has no GGUF type id and no other known producer: fixtures name it in their metadata.

use super::Ternary;
use super::blocks::{Blocks, f16_at};
use half::f16;

/// Elements in a block.
pub const BLOCK: usize = 32;
/// Bytes in a block: 8 of codes and the scale.
pub const BLOCK_BYTES: usize = 10;

pub(super) const BLOCKS: Blocks = Blocks { elements: BLOCK, bytes: BLOCK_BYTES, value_at, scale };

/// Value of element `j` of a block, before the scale: −2 … +1.
#[inline]
pub fn value_at(block: &[u8], j: usize) -> i8 {
    ((block[j / 4] >> (2 * (j % 4))) & 3).cast_signed() - 2
}

/// The block's scale, widened.
#[inline]
pub fn scale(block: &[u8]) -> f32 {
    f16_at(block, 8)
}

/// Encodes `values` (−2 … +1; a multiple of 32 of them), every block with the scale `scale`.
///
/// # Panics
/// - if the number of values is not a multiple of 32 or a value is outside −2 … +1.
pub fn encode(values: &[i8], scale: f16) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "BitNet32-F16 needs a multiple of {BLOCK} values");
    let mut out = Vec::with_capacity(blocks.len() * BLOCK_BYTES);
    for block in blocks {
        for four in block.as_chunks::<4>().0 {
            out.push(four.iter().rev().fold(0, |bits, &value| (bits << 2) | code_of(value)));
        }
        out.extend_from_slice(&scale.to_le_bytes());
    }
    out
}

fn code_of(value: i8) -> u8 {
    assert!((-2..=1).contains(&value), "{value} has no code");
    (value + 2).cast_unsigned()
}

/// Decodes to row-major values and the scale; `None` if blocks that hold a non-zero value do not share one scale.
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Option<Ternary> {
    BLOCKS.decode(bytes, rows, cols)
}

/// Says what is wrong with a payload of the right size: a scale that is NaN or infinite.
pub(super) fn find_bad(bytes: &[u8], cols: usize) -> Option<String> {
    BLOCKS.find_bad_scale(bytes, cols)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_the_inverse_of_decoding() {
        let values: Vec<i8> = (0..128).map(|i| ((i * 7 + i / 13) % 4) as i8 - 2).collect();
        let bytes = encode(&values, f16::from_f32(0.375));
        assert_eq!(bytes.len(), 40);
        assert_eq!(decode(&bytes, 2, 64), Some(Ternary { rows: 2, cols: 64, values, scale: 0.375 }));
    }

    #[test]
    fn blocks_of_several_scales_have_no_one_scale() {
        let mut bytes = encode(&[1; 64], f16::from_f32(0.5));
        bytes[8..10].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
        assert_eq!(decode(&bytes, 1, 64), None);
    }
}
