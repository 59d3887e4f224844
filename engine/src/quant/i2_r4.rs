//! I2_R4: Assay's own layout of 2-bit weights, four rows to a byte; as large as I2_S, and faster where weights are in cache.
//!
//! ```text
//! rows 4g … 4g + 3:  4 * row_bytes bytes, row_bytes = ceil(cols / 128) * 32
//!         bits 7..6      bits 5..4        bits 3..2        bits 1..0
//! byte c  row 4g, col c  row 4g + 1, c    row 4g + 2, c    row 4g + 3, c
//! code 0, 1, 2 = −1, 0, +1; 3 is an error
//! past the last column: code 1 (zero)
//! tail:   one f32 scale after the last row; the number of rows is a multiple of 4
//! ```
//!
//! The four fields of a byte meet the same activation `q`. So a kernel needs no field by itself: with `B = Σ byte · q`, and
//! the same of the byte's low 6, 4 and 2 bits, the sums of the four rows are differences:
//!
//! ```text
//! Σ code₀ q = (B − B₆) / 64    Σ code₁ q = (B₆ − B₄) / 16    Σ code₂ q = (B₄ − B₂) / 4    Σ code₃ q = B₂
//! ```
//!
//! Three masks for four multiply-adds, where a layout whose fields are columns of one row needs four. GGUF has no type id
//! for it: it is stored as a 1-D I8 tensor of its bytes, named by the metadata (`docs/formats.md`).

use super::{Ternary, dense, f32_at, find_code_3, ternary_code};

/// Rows in a byte.
pub const ROWS: usize = 4;
/// Columns in a block: two cache lines of four rows.
pub const BLOCK: usize = 128;
/// Bytes in a block, for each of the four rows.
pub const BLOCK_BYTES: usize = 32;

/// Bytes of one row of `cols` weights, a quarter of those of its four rows.
pub const fn row_bytes(cols: usize) -> usize {
    cols.div_ceil(BLOCK) * BLOCK_BYTES
}

/// Value of row `row` (0 ≤ row < 4) of four at the column of `byte`; +2 for the code 3 of damaged data.
#[inline]
pub const fn value_of(byte: u8, row: usize) -> i8 {
    (byte >> (6 - 2 * row) & 3).cast_signed() - 1
}

/// Encodes `values` (−1, 0, +1; row-major, `rows * cols`) and one scale; rows are padded with zeros.
///
/// # Panics
/// - if `cols` is 0, the values are not whole groups of four rows, or a value is not −1, 0 or +1.
pub fn encode(values: &[i8], cols: usize, scale: f32) -> Vec<u8> {
    assert!(cols > 0 && values.len().is_multiple_of(ROWS * cols), "groups of four rows of {cols} are needed");
    let mut out = Vec::with_capacity(values.len() / cols * row_bytes(cols) + 4);
    for rows in values.chunks_exact(ROWS * cols) {
        let code = |row: usize, column: usize| match rows[row * cols..][..cols].get(column) {
            Some(value) => ternary_code(*value),
            None => 1,
        };
        let byte = |column| (0..ROWS).fold(0, |byte, row| byte << 2 | code(row, column));
        out.extend((0..ROWS * row_bytes(cols)).map(byte));
    }
    out.extend_from_slice(&scale.to_le_bytes());
    out
}

/// Decodes to row-major values and the scale. The inverse of [`encode`].
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Ternary {
    let size = rows * row_bytes(cols);
    let mut values = Vec::with_capacity(rows * cols);
    for four in bytes[..size].chunks_exact((ROWS * row_bytes(cols)).max(1)) {
        for row in 0..ROWS {
            values.extend(four[..cols].iter().map(|&byte| value_of(byte, row)));
        }
    }
    Ternary { rows, cols, values, scale: f32_at(bytes, size) }
}

/// Says what is wrong with a payload of the right size: code 3, padding that is not zero, or a bad scale.
pub(super) fn find_bad(bytes: &[u8], rows: usize, cols: usize) -> Option<String> {
    let (size, four_rows) = (rows * row_bytes(cols), ROWS * row_bytes(cols));
    if let Some((at, shift)) = find_code_3(&bytes[..size]) {
        let row = at / four_rows * ROWS + (6 - shift as usize) / 2;
        return Some(dense::describe_code_3(row, at % four_rows));
    }
    for (g, four) in bytes[..size].chunks_exact(four_rows.max(1)).enumerate() {
        for column in cols..four_rows {
            if let Some(row) = (0..ROWS).find(|&row| value_of(four[column], row) != 0) {
                return Some(dense::describe_padding(ROWS * g + row, column));
            }
        }
    }
    dense::describe_bad_scale(f32_at(bytes, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_rows_share_a_byte() {
        let values: Vec<i8> = (0..8 * 130).map(|i| ((i * 11 + i / 251) % 3) as i8 - 1).collect();
        let bytes = encode(&values, 130, -1.5);
        assert_eq!(bytes.len(), 8 * 64 + 4);
        let code = |row: usize, column: usize| (values[row * 130 + column] + 1) as u8;
        let byte = |g: usize, c: usize| (0..4).fold(0, |b, r| b << 2 | code(4 * g + r, c));
        assert_eq!((bytes[0], bytes[129], bytes[130]), (byte(0, 0), byte(0, 129), 0x55));
        assert_eq!(bytes[256 + 77], byte(1, 77));
        assert_eq!(find_bad(&bytes, 8, 130), None);
        assert_eq!(decode(&bytes, 8, 130), Ternary { rows: 8, cols: 130, values, scale: -1.5 });
    }

    #[test]
    fn damage_is_named_by_row_and_column() {
        let good = encode(&[0; 8 * 130], 130, 1.0);
        for (at, byte, part) in
            [(256 + 77, 0x5d, "row 6, column 77"), (130, 0x45, "row 1: padding at column 130")]
        {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let problem = find_bad(&bytes, 8, 130).expect("damage");
            assert!(problem.contains(part), "{problem}");
        }
    }
}
