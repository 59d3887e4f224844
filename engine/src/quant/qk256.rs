//! QK256: rows of 64-byte tiles of 256 two-bit weights, for shapes whose rows I2_S cannot hold.
//!
//! ```text
//! row r:  bytes r * row_bytes … , row_bytes = ceil(cols / 256) * 64
//! tile:   two I2_S blocks of 128 (see `i2s`): 64 bytes = one AVX-512 register, two AVX2 registers
//! past the last column: code 1 (zero)
//! tail:   one f32 scale after the last row
//! ```
//!
//! GGUF has no type id for it: it is stored as a 1-D I8 tensor of its bytes, named by the metadata
//! (`docs/formats.md`), never guessed from sizes.

use super::{Ternary, blocks, f32_at, find_code_3, i2s};

/// Weights in a tile.
pub const TILE: usize = 256;
/// Bytes in a tile.
pub const TILE_BYTES: usize = 64;

/// Bytes of one row of `cols` weights.
pub const fn row_bytes(cols: usize) -> usize {
    cols.div_ceil(TILE) * TILE_BYTES
}

/// Encodes `values` (−1, 0, +1; row-major, `rows * cols`) and one scale; rows are padded with zeros.
///
/// # Panics
/// - if `cols` is 0 or does not divide the number of values, or a value is not −1, 0 or +1.
pub fn encode(values: &[i8], cols: usize, scale: f32) -> Vec<u8> {
    assert!(cols > 0 && values.len().is_multiple_of(cols), "whole rows of {cols} values are needed");
    let padded = cols.div_ceil(TILE) * TILE;
    let mut out = Vec::with_capacity(values.len() / cols * row_bytes(cols) + 4);
    for row in values.chunks(cols) {
        let mut row = row.to_vec();
        row.resize(padded, 0);
        out.extend(i2s::encode_codes(&row));
    }
    out.extend_from_slice(&scale.to_le_bytes());
    out
}

/// Decodes to row-major values and the scale. The inverse of [`encode`].
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Ternary {
    let value = |row: &[u8], c: usize| i2s::value_at(&row[c / 128 * 32..], c % 128);
    let values = blocks::decode_rows(bytes, (rows, cols), row_bytes(cols), value);
    Ternary { rows, cols, values, scale: f32_at(bytes, rows * row_bytes(cols)) }
}

/// Says what is wrong with a payload of the right size: code 3, padding that is not zero, or a bad scale.
pub(super) fn find_bad(bytes: &[u8], rows: usize, cols: usize) -> Option<String> {
    let row_bytes = row_bytes(cols);
    let codes = &bytes[..rows * row_bytes];
    if let Some((at, shift)) = find_code_3(codes) {
        let col = at % row_bytes / 32 * 128 + (6 - shift as usize) / 2 * 32 + at % 32;
        return Some(super::dense::describe_code_3(at / row_bytes, col));
    }
    let padded = row_bytes * 4;
    for (r, row) in codes.chunks(row_bytes.max(1)).enumerate() {
        if let Some(c) = (cols..padded).find(|&c| i2s::value_at(&row[c / 128 * 32..], c % 128) != 0) {
            return Some(format!(
                "row {r}: padding at column {c} is not code 1 (zero); write the file again"
            ));
        }
    }
    super::dense::describe_bad_scale(f32_at(bytes, rows * row_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ragged_rows_round_trip() {
        for cols in [1, 31, 128, 255, 256, 257, 300, 640] {
            let values: Vec<i8> = (0..3 * cols).map(|i| ((i * 11 + i / 251) % 3) as i8 - 1).collect();
            let bytes = encode(&values, cols, -1.5);
            assert_eq!(find_bad(&bytes, 3, cols), None);
            assert_eq!(decode(&bytes, 3, cols), Ternary { rows: 3, cols, values, scale: -1.5 });
        }
    }

    #[test]
    fn padding_that_is_not_zero_is_found() {
        let mut bytes = encode(&[0; 600], 300, 1.0);
        // Row 1, column 300: block 2 of the row, element 44: byte 12, group 1 (shift 4).
        bytes[128 + 64 + 12] ^= 0b11 << 4;
        let said = find_bad(&bytes, 2, 300).expect("found");
        assert!(said.contains("row 1") && said.contains("300"), "{said}");
    }
}
