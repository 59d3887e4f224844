//! TQ2_0: llama.cpp's blocks of 256 two-bit ternary weights with an f16 scale; GGUF type 35.
//!
//! ```text
//! block: 66 bytes;  element j in byte 32(j / 128) + j % 32, at shift 2(j % 128 / 32)
//!              bits 1..0   bits 3..2   bits 5..4   bits 7..6
//! byte 0       e0          e32         e64         e96
//!   …
//! byte 32      e128        e160        e192        e224
//! bytes 64–65  the scale, f16
//! code 0, 1, 2 = -1, 0, +1; ggml never writes 3
//! ```
//!
//! Source: `block_tq2_0` in llama.cpp's `ggml/src/ggml-common.h`; the bytes of its quantiser are in
//! `fixtures/golden/golden-tq2_0.bin`.

use super::blocks::{self, Blocks, f16_at};
use super::{Ternary, dense, find_code_3};
use half::f16;

/// Elements in a block.
pub const BLOCK: usize = 256;
/// Bytes in a block: 64 of codes and the scale.
pub const BLOCK_BYTES: usize = 66;

pub(super) const BLOCKS: Blocks = Blocks { elements: BLOCK, bytes: BLOCK_BYTES, value_at, scale };

/// Value of element `j` of a block, before the scale: −1, 0 or +1.
#[inline]
pub fn value_at(block: &[u8], j: usize) -> i8 {
    ((block[32 * (j / 128) + j % 32] >> (2 * (j % 128 / 32))) & 3).cast_signed() - 1
}

/// The block's scale, widened.
#[inline]
pub fn scale(block: &[u8]) -> f32 {
    f16_at(block, 64)
}

/// Encodes `values` (−1, 0, +1; a multiple of 256 of them), with the scale `scale`; blocks of zeros get the scale 0, as
/// from ggml, unless there are no others, so that no matrix loses its scale.
///
/// # Panics
/// - if the number of values is not a multiple of 256 or a value is not −1, 0 or +1.
pub fn encode(values: &[i8], scale: f16) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "TQ2_0 needs a multiple of {BLOCK} values");
    let scale_of = blocks::ggml_scales(values, scale);
    let mut out = Vec::with_capacity(blocks.len() * BLOCK_BYTES);
    for block in blocks {
        for half in block.as_chunks::<128>().0 {
            for byte in 0..32 {
                out.push(
                    (0..4).rev().fold(0, |bits, k| (bits << 2) | super::ternary_code(half[32 * k + byte])),
                );
            }
        }
        out.extend_from_slice(&scale_of(block).to_le_bytes());
    }
    out
}

/// Decodes to row-major values and the scale; `None` if blocks that hold a non-zero value do not share one scale.
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Option<Ternary> {
    BLOCKS.decode(bytes, rows, cols)
}

/// Says what is wrong with a payload of the right size: code 3, or a scale that is NaN or infinite.
pub(super) fn find_bad(bytes: &[u8], cols: usize) -> Option<String> {
    let code_3 = |block: &[u8]| {
        find_code_3(&block[..64])?;
        (0..BLOCK).find(|&j| value_at(block, j) == 2)
    };
    BLOCKS.find_bad(bytes, cols, code_3, dense::describe_code_3)
}
