//! Q2_0: llama.cpp's blocks of 64 two-bit weights with an f16 scale; GGUF type 42.
//!
//! ```text
//! block: 18 bytes
//! bytes 0–1    the scale, f16
//!              bits 1..0   bits 3..2   bits 5..4   bits 7..6
//! byte 2       e0          e1          e2          e3
//!   …
//! byte 17      e60         e61         e62         e63
//! code 0, 1, 2, 3 = -1, 0, +1, +2
//! ```
//!
//! +2 is a valid weight; a matrix that holds one is not ternary. One release of bitnet.cpp gave id 42 to TL2: such a file
//! is told by its sizes, which do not fit.
//!
//! Source: llama.cpp's `block_q2_0`, as of v0.5.0; the bytes of its quantiser are in `fixtures/golden/golden-q2_0.bin`.

use super::Ternary;
use super::blocks::{self, Blocks, f16_at};
use half::f16;

/// Elements in a block.
pub const BLOCK: usize = 64;
/// Bytes in a block: the scale and 16 of codes.
pub const BLOCK_BYTES: usize = 18;

pub(super) const BLOCKS: Blocks = Blocks { elements: BLOCK, bytes: BLOCK_BYTES, value_at, scale };

/// Value of element `j` of a block, before the scale: −1, 0, +1 or +2.
#[inline]
pub fn value_at(block: &[u8], j: usize) -> i8 {
    ((block[2 + j / 4] >> (2 * (j % 4))) & 3).cast_signed() - 1
}

/// The block's scale, widened.
#[inline]
pub fn scale(block: &[u8]) -> f32 {
    f16_at(block, 0)
}

/// Encodes `values` (−1 … +2; a multiple of 64 of them), with the scale `scale`; blocks of zeros get the scale 0, as
/// from ggml, unless there are no others, so that no matrix loses its scale.
///
/// # Panics
/// - if the number of values is not a multiple of 64 or a value is outside −1 … +2.
pub fn encode(values: &[i8], scale: f16) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "Q2_0 needs a multiple of {BLOCK} values");
    let scale_of = blocks::ggml_scales(values, scale);
    let mut out = Vec::with_capacity(blocks.len() * BLOCK_BYTES);
    for block in blocks {
        out.extend_from_slice(&scale_of(block).to_le_bytes());
        for four in block.as_chunks::<4>().0 {
            out.push(four.iter().rev().fold(0, |bits, &value| (bits << 2) | code_of(value)));
        }
    }
    out
}

fn code_of(value: i8) -> u8 {
    assert!((-1..=2).contains(&value), "{value} has no code");
    (value + 1).cast_unsigned()
}

/// Decodes to row-major values and the scale; `None` if a value is +2, or blocks that hold a non-zero value do not share
/// one scale.
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Option<Ternary> {
    BLOCKS.decode(bytes, rows, cols).filter(|decoded| !decoded.values.contains(&2))
}

/// Says what is wrong with a payload of the right size: a scale that is NaN or infinite.
pub(super) fn find_bad(bytes: &[u8], cols: usize) -> Option<String> {
    BLOCKS.find_bad_scale(bytes, cols)
}
