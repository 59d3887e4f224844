//! Q4_0: ggml's blocks of 32 four-bit weights with an f16 scale; GGUF type 2. Dense: widened to f32.
//!
//! ```text
//! block: 18 bytes
//! bytes 0–1    the scale d, f16
//!              bits 3..0   bits 7..4
//! byte 2       e0          e16
//!   …
//! byte 17      e15         e31
//! x = (nibble - 8) * d
//! ```
//!
//! Source: `block_q4_0` in llama.cpp's `ggml/src/ggml-common.h`; the bytes of its quantiser are in
//! `fixtures/golden/golden-q4_0.bin`.

use super::blocks::{Blocks, encode_blocks, f16_at, inverse, largest, put_f16};

/// Elements in a block.
pub const BLOCK: usize = 32;
/// Bytes in a block: the scale and 16 of nibbles.
pub const BLOCK_BYTES: usize = 18;

pub(super) const BLOCKS: Blocks = Blocks { elements: BLOCK, bytes: BLOCK_BYTES, value_at, scale };

/// Value of element `j` of a block, before the scale: −8 … 7.
#[inline]
pub fn value_at(block: &[u8], j: usize) -> i8 {
    ((block[2 + j % 16] >> (4 * (j / 16))) & 15).cast_signed() - 8
}

/// The block's scale, widened.
#[inline]
pub fn scale(block: &[u8]) -> f32 {
    f16_at(block, 0)
}

/// Quantises `values` (a multiple of 32 of them), as ggml's `quantize_row_q4_0_ref` does: the element of largest magnitude,
/// the first of equals, gets code −8, which has no opposite; the rest are rounded with ties up.
///
/// # Panics
/// - if the number of values is not a multiple of 32.
pub fn encode(values: &[f32]) -> Vec<u8> {
    encode_blocks(values, |x: &[f32; BLOCK], out| {
        let d = largest(x) / -8.0;
        let id = inverse(d);
        put_f16(out, d);
        // Truncation of what is not negative, give or take a rounding: -8 * (1 / d) * d + 8.5 is at least 0.
        let code = |x: f32| ((x * id + 8.5) as i8).cast_unsigned().min(15);
        out.extend((0..BLOCK / 2).map(|j| code(x[j]) | (code(x[j + BLOCK / 2]) << 4)));
    })
}
