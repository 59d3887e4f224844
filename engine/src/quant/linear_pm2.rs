//! linear-pm2: how EffortlessMetrics/BitNet-rs reads GGUF type 36; never the default, since no real file is packed so.
//!
//! ```text
//! row r:  bytes r * row_bytes … , row_bytes = ceil(cols / 256) * 64
//!           bits 1..0   bits 3..2   bits 5..4   bits 7..6
//! byte 0    e0          e1          e2          e3
//!   …
//! code 0, 1, 2, 3 = -2, -1, +1, +2: there is no zero; no scale (it is 1)
//! past the last column: anything, since no code is zero; written as code 0
//! ```
//!
//! It is here so that its files, and the defect, can be shown, and so that kernels meet a second codebook.

use super::{Ternary, blocks};

/// Weights in a tile of a row.
pub const BLOCK: usize = 256;
/// Bytes in a tile of a row.
pub const BLOCK_BYTES: usize = 64;

const CODEBOOK: [i8; 4] = [-2, -1, 1, 2];

/// Bytes of one row of `cols` weights.
pub const fn row_bytes(cols: usize) -> usize {
    cols.div_ceil(BLOCK) * BLOCK_BYTES
}

/// Value of element `j` of a tile, or of a whole row: −2, −1, +1 or +2.
#[inline]
pub fn value_at(tile: &[u8], j: usize) -> i8 {
    CODEBOOK[usize::from((tile[j / 4] >> (2 * (j % 4))) & 3)]
}

/// Encodes `values` (−2, −1, +1, +2; row-major, `rows * cols`).
///
/// # Panics
/// - if `cols` is 0 or does not divide the number of values, or a value has no code.
pub fn encode(values: &[i8], cols: usize) -> Vec<u8> {
    assert!(cols > 0 && values.len().is_multiple_of(cols), "whole rows of {cols} values are needed");
    let mut out = Vec::with_capacity(values.len() / cols * row_bytes(cols));
    for row in values.chunks_exact(cols) {
        let end = out.len() + row_bytes(cols);
        out.extend(row.chunks(4).map(|four| four.iter().rev().fold(0, |bits, &v| (bits << 2) | code_of(v))));
        out.resize(end, 0);
    }
    out
}

fn code_of(value: i8) -> u8 {
    match value {
        -2 => 0,
        -1 => 1,
        1 => 2,
        2 => 3,
        other => panic!("{other} has no code"),
    }
}

/// Decodes to row-major values; the scale is 1. The inverse of [`encode`].
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Ternary {
    let values = blocks::decode_rows(bytes, (rows, cols), row_bytes(cols), value_at);
    Ternary { rows, cols, values, scale: 1.0 }
}
