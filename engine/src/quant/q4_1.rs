//! Q4_1: ggml's blocks of 32 four-bit weights with an f16 scale and an f16 minimum; GGUF type 3. Dense: widened to f32.
//!
//! ```text
//! block: 20 bytes
//! bytes 0–1    the scale d, f16
//! bytes 2–3    the minimum m, f16
//!              bits 3..0   bits 7..4
//! byte 4       e0          e16
//!   …
//! byte 19      e15         e31
//! x = nibble * d + m, each step rounded to f32
//! ```
//!
//! Source: `block_q4_1` in llama.cpp's `ggml/src/ggml-common.h`; the bytes of its quantiser are in
//! `fixtures/golden/golden-q4_1.bin`.

use super::blocks::{Blocks, encode_blocks, f16_at, inverse, put_f16};

/// Elements in a block.
pub const BLOCK: usize = 32;
/// Bytes in a block: the scale, the minimum, and 16 of nibbles.
pub const BLOCK_BYTES: usize = 20;

pub(super) const BLOCKS: Blocks = Blocks { elements: BLOCK, bytes: BLOCK_BYTES, value_at, scale };

/// Value of element `j` of a block, before scale and minimum: 0 … 15.
#[inline]
pub fn value_at(block: &[u8], j: usize) -> i8 {
    ((block[4 + j % 16] >> (4 * (j / 16))) & 15).cast_signed()
}

/// The block's scale, widened.
#[inline]
pub fn scale(block: &[u8]) -> f32 {
    f16_at(block, 0)
}

/// The block's minimum, widened: what every element has added.
#[inline]
pub fn min(block: &[u8]) -> f32 {
    f16_at(block, 2)
}

/// Widens to f32.
pub(super) fn widen(bytes: &[u8]) -> Vec<f32> {
    let widen = |block: &[u8; BLOCK_BYTES]| {
        std::array::from_fn::<f32, BLOCK, _>(|j| f32::from(value_at(block, j)) * scale(block) + min(block))
    };
    bytes.as_chunks::<BLOCK_BYTES>().0.iter().flat_map(widen).collect()
}

/// Says what is wrong with a payload of the right size: a scale or minimum that is NaN or infinite.
pub(super) fn find_bad(bytes: &[u8], cols: usize) -> Option<String> {
    let bad = |block: &[u8]| (!min(block).is_finite()).then_some(0);
    let describe = |row, column| {
        format!("block minimum at row {row}, column {column} is NaN or infinite; the file is damaged")
    };
    BLOCKS.find_bad(bytes, cols, bad, describe)
}

/// Quantises `values` (a multiple of 32 of them), as ggml's `quantize_row_q4_1_ref` does: 16 steps from the smallest to the
/// largest, ties up.
///
/// # Panics
/// - if the number of values is not a multiple of 32.
pub fn encode(values: &[f32]) -> Vec<u8> {
    encode_blocks(values, |x: &[f32; BLOCK], out| {
        let min = x.iter().fold(f32::MAX, |min, &x| if x < min { x } else { min });
        let max = x.iter().fold(f32::MIN, |max, &x| if x > max { x } else { max });
        let d = (max - min) / 15.0;
        let id = inverse(d);
        put_f16(out, d);
        put_f16(out, min);
        let code = |x: f32| (((x - min) * id + 0.5) as i8).cast_unsigned().min(15);
        out.extend((0..BLOCK / 2).map(|j| code(x[j]) | (code(x[j + BLOCK / 2]) << 4)));
    })
}
