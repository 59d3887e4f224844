//! Q6_K: ggml's blocks of 256 six-bit weights, an i8 scale for each 16 and an f16 scale for all; GGUF type 14. Dense:
//! widened to f32.
//!
//! ```text
//! block: 210 bytes, two halves of 128 elements;  element j = 128h + 32g + l  (g = 0 … 3, l = 0 … 31)
//! low four bits:   byte 64h + 32(g % 2) + l, nibble g / 2
//! high two bits:   byte 128 + 32h + l, at shift 2g
//! sub-scale:       byte 192 + j / 16, i8
//! bytes 208–209    the scale d, f16
//! x = (d * sub-scale) * (q - 32), each product rounded to f32
//! ```
//!
//! Source: `block_q6_K` in llama.cpp's `ggml/src/ggml-common.h`; the bytes of its quantiser are in
//! `fixtures/golden/golden-q6_k.bin`.

use super::blocks::{Blocks, f16_at};

/// Elements in a block.
pub const BLOCK: usize = 256;
/// Bytes in a block: 128 of low bits, 64 of high bits, 16 sub-scales and the scale.
pub const BLOCK_BYTES: usize = 210;

pub(super) const BLOCKS: Blocks = Blocks { elements: BLOCK, bytes: BLOCK_BYTES, value_at, scale };

/// Value of element `j` of a block, before its sub-scale and the scale: −32 … 31.
#[inline]
pub fn value_at(block: &[u8], j: usize) -> i8 {
    let (h, g, l) = (j / 128, j % 128 / 32, j % 32);
    let low = (block[64 * h + 32 * (g % 2) + l] >> (4 * (g / 2))) & 15;
    let high = (block[128 + 32 * h + l] >> (2 * g)) & 3;
    (low | (high << 4)).cast_signed() - 32
}

/// The sub-scale of element `j` of a block.
#[inline]
pub fn sub_scale(block: &[u8], j: usize) -> i8 {
    block[192 + j / 16].cast_signed()
}

/// The block's scale, widened.
#[inline]
pub fn scale(block: &[u8]) -> f32 {
    f16_at(block, 208)
}

/// Widens to f32.
pub(super) fn widen(bytes: &[u8]) -> Vec<f32> {
    let widen = |block: &[u8; BLOCK_BYTES]| {
        let at = |j| scale(block) * f32::from(sub_scale(block, j)) * f32::from(value_at(block, j));
        std::array::from_fn::<f32, BLOCK, _>(at)
    };
    bytes.as_chunks::<BLOCK_BYTES>().0.iter().flat_map(widen).collect()
}
