//! Q8_0: ggml's blocks of 32 signed bytes with an f16 scale; GGUF type 8. Dense: widened to f32.
//!
//! ```text
//! block: 34 bytes:  bytes 0–1 the scale d, f16;  byte 2 + j element j, i8
//! x = q * d
//! ```
//!
//! Source: `block_q8_0` in llama.cpp's `ggml/src/ggml-common.h`; the bytes of its quantiser are in
//! `fixtures/golden/golden-q8_0.bin`.

use super::blocks::{Blocks, encode_blocks, f16_at, inverse, put_f16};

/// Elements in a block.
pub const BLOCK: usize = 32;
/// Bytes in a block: the scale and one for each element.
pub const BLOCK_BYTES: usize = 34;

pub(super) const BLOCKS: Blocks = Blocks { elements: BLOCK, bytes: BLOCK_BYTES, value_at, scale };

/// Value of element `j` of a block, before the scale: −128 … 127.
#[inline]
pub fn value_at(block: &[u8], j: usize) -> i8 {
    block[2 + j].cast_signed()
}

/// The block's scale, widened.
#[inline]
pub fn scale(block: &[u8]) -> f32 {
    f16_at(block, 0)
}

/// Quantises `values` (a multiple of 32 of them), as ggml's `quantize_row_q8_0_ref` does: `d = max|x| / 127`, and
/// `q = x * (1 / d)` rounded to nearest, ties away from zero.
///
/// # Panics
/// - if the number of values is not a multiple of 32.
pub fn encode(values: &[f32]) -> Vec<u8> {
    encode_blocks(values, |x: &[f32; BLOCK], out| {
        let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let d = largest / 127.0;
        put_f16(out, d);
        out.extend(x.map(|x| ((x * inverse(d)).round() as i8).cast_unsigned()));
    })
}
