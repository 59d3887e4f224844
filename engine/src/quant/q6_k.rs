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

use super::blocks::{Blocks, encode_blocks, f16_at, largest};
use half::f16;

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

/// Groups in a block: 16 elements with a sub-scale.
const GROUP: usize = 16;
/// Below this a group or block counts as zero, as in ggml.
const NOTHING: f32 = 1e-15;

/// Quantises `values` (a multiple of 256 of them), as ggml's `quantize_row_q6_K_ref` does without an importance matrix: the
/// best scale of each group of 16 by `search`, those rounded to 8 bits against the largest, then every element rounded
/// again to the scale that its group really has.
///
/// # Panics
/// - if the number of values is not a multiple of 256.
pub fn encode(values: &[f32]) -> Vec<u8> {
    encode_blocks(values, encode_block)
}

fn encode_block(x: &[f32; BLOCK], out: &mut Vec<u8>) {
    let groups = x.as_chunks::<GROUP>().0;
    let found: Vec<_> = groups.iter().map(search).collect();
    let scales: Vec<f32> = found.iter().map(|(scale, _)| *scale).collect();
    let widest = largest(&scales);
    if widest.abs() < NOTHING {
        out.resize(out.len() + BLOCK_BYTES, 0);
        return;
    }
    let to_i8 = -128.0 / widest;
    let d = f16::from_f32(1.0 / to_i8);
    let sub_scales: Vec<i8> = scales.iter().map(|s| (s * to_i8).round_ties_even().min(127.0) as i8).collect();
    let mut codes = [0; BLOCK];
    for (g, codes) in codes.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let step = d.to_f32() * f32::from(sub_scales[g]);
        // A group whose scale rounds to zero decodes to zero whatever its codes: ggml leaves those of the search.
        *codes = if step == 0.0 { found[g].1 } else { groups[g].map(|x| code(x / step)) };
    }
    pack(&codes, out);
    out.extend(sub_scales.iter().map(|s| s.cast_unsigned()));
    out.extend(d.to_le_bytes());
}

/// Rounds to −32 … 31, ties to even, and adds 32.
fn code(x: f32) -> u8 {
    (x.round_ties_even().clamp(-32.0, 31.0) as i8 + 32).cast_unsigned()
}

/// The scale of a group, and its codes: of 19 inverse scales around −32 / (the element of largest magnitude), the one whose
/// best fit leaves the least error, each element weighed by its square. For codes `l` the best scale is
/// `S = Σ w x l / Σ w l²`, and it takes `S Σ w x l` off the error. Each sum is in f32, in the order of elements.
fn search(x: &[f32; GROUP]) -> (f32, [u8; GROUP]) {
    let max = largest(x);
    if max.abs() < NOTHING {
        return (0.0, [0; GROUP]);
    }
    let fit = |inverse: f32| {
        let codes = x.map(|x| code(inverse * x));
        let (mut xl, mut ll) = (0.0_f32, 0.0_f32);
        for (x, &code) in x.iter().zip(&codes) {
            let (w, l) = (x * x, f32::from(code) - 32.0);
            xl += w * x * l;
            ll += w * l * l;
        }
        (xl, ll, codes)
    };
    let (xl, ll, mut codes) = fit(-32.0 / max);
    let mut scale = if ll == 0.0 { 0.0 } else { xl / ll };
    let mut best = scale * xl;
    for step in (-9..=9_i8).filter(|&step| step != 0) {
        let (xl, ll, others) = fit(-(32.0 + 0.1 * f32::from(step)) / max);
        if ll > 0.0 && xl * xl > best * ll {
            (scale, codes) = (xl / ll, others);
            best = scale * xl;
        }
    }
    (scale, codes)
}

/// Writes low nibbles, then high bits.
fn pack(codes: &[u8; BLOCK], out: &mut Vec<u8>) {
    let code = |h: usize, g: usize, l: usize| codes[128 * h + 32 * g + l];
    for (h, pair) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        out.extend((0..32).map(|l| (code(h, pair, l) & 15) | ((code(h, pair + 2, l) & 15) << 4)));
    }
    for h in 0..2 {
        out.extend((0..32).map(|l| (0..4).rev().fold(0, |bits, g| (bits << 2) | (code(h, g, l) >> 4))));
    }
}
