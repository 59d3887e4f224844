//! T5: Assay's own exact format, five ternary weights to a byte in rows of 64-byte tiles; 1.6 bits a weight.
//!
//! ```text
//! row r:  bytes r * row_bytes … , row_bytes = ceil(cols / 320) * 64
//! tile t: 64 bytes = one AVX-512 register, two AVX2 registers
//!         byte p, trit k (k = 0 … 4) is column 320t + 64k + p:  trit k of all bytes is 64 columns in order
//!         trits in a byte as in `trits`, the encoding of TQ1_0
//! past the last column: zero (trit 1)
//! tail:   one f32 scale after the last row
//! ```
//!
//! A byte that is none of the 243 encodings is an error. GGUF has no type id for it: it is stored as a 1-D I8 tensor of
//! its bytes, named by the metadata (`docs/formats.md`), never guessed from sizes.

use super::{Ternary, blocks, dense, f32_at, trits};

/// Weights in a tile.
pub const BLOCK: usize = 320;
/// Bytes in a tile.
pub const BLOCK_BYTES: usize = 64;

/// Bytes of one row of `cols` weights.
pub const fn row_bytes(cols: usize) -> usize {
    cols.div_ceil(BLOCK) * BLOCK_BYTES
}

/// Value of element `j` (0 ≤ j < 320) of a tile: −1, 0 or +1.
#[inline]
pub fn value_at(tile: &[u8], j: usize) -> i8 {
    trits::value(tile[j % BLOCK_BYTES], j / BLOCK_BYTES)
}

/// Value of a column of a row.
fn value_in_row(row: &[u8], column: usize) -> i8 {
    value_at(&row[column / BLOCK * BLOCK_BYTES..], column % BLOCK)
}

/// Encodes `values` (−1, 0, +1; row-major, `rows * cols`) and one scale; rows are padded with zeros.
///
/// # Panics
/// - if `cols` is 0 or does not divide the number of values, or a value is not −1, 0 or +1.
pub fn encode(values: &[i8], cols: usize, scale: f32) -> Vec<u8> {
    assert!(cols > 0 && values.len().is_multiple_of(cols), "whole rows of {cols} values are needed");
    let mut out = Vec::with_capacity(values.len() / cols * row_bytes(cols) + 4);
    for row in values.chunks_exact(cols) {
        for tile in row.chunks(BLOCK) {
            let value = |j: usize| tile.get(j).copied().unwrap_or(0);
            out.extend(
                (0..BLOCK_BYTES).map(|p| trits::pack([0, 1, 2, 3, 4].map(|k| value(BLOCK_BYTES * k + p)))),
            );
        }
    }
    out.extend_from_slice(&scale.to_le_bytes());
    out
}

/// Decodes to row-major values and the scale. The inverse of [`encode`].
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Ternary {
    let values = blocks::decode_rows(bytes, (rows, cols), row_bytes(cols), value_in_row);
    Ternary { rows, cols, values, scale: f32_at(bytes, rows * row_bytes(cols)) }
}

/// Says what is wrong with a payload of the right size: a byte that encodes no trits, padding that is not zero, or a bad
/// scale.
pub(super) fn find_bad(bytes: &[u8], rows: usize, cols: usize) -> Option<String> {
    let row_bytes = row_bytes(cols);
    for (r, row) in bytes[..rows * row_bytes].chunks_exact(row_bytes).enumerate() {
        if let Some(at) = row.iter().position(|&byte| !trits::is_encoding(byte)) {
            return Some(trits::describe_bad(r, at / BLOCK_BYTES * BLOCK + at % BLOCK_BYTES));
        }
        let padding = cols..cols.next_multiple_of(BLOCK);
        if let Some(column) = padding.into_iter().find(|&column| value_in_row(row, column) != 0) {
            return Some(dense::describe_padding(r, column));
        }
    }
    dense::describe_bad_scale(f32_at(bytes, rows * row_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_encodes_no_trits_is_named_by_row_and_column() {
        let bad = (0..=255).find(|&byte| !trits::is_encoding(byte)).expect("13 of them");
        let mut bytes = encode(&[-1; 1300], 650, 1.0);
        assert_eq!(find_bad(&bytes, 2, 650), None);
        bytes[3 * 64 + 64 + 5] = bad;
        assert!(find_bad(&bytes, 2, 650).expect("found").contains("row 1, column 325,"));
    }

    #[test]
    fn padding_that_is_not_zero_is_found() {
        let mut bytes = encode(&[0; 600], 300, 1.0);
        // Row 1, column 300: trit 4 of byte 300 - 256.
        bytes[64 + 44] = trits::pack([0, 0, 0, 0, 1]);
        let said = find_bad(&bytes, 2, 300).expect("found");
        assert!(said.contains("row 1") && said.contains("column 300"), "{said}");
    }
}
