//! A decoded ternary matrix and its digest.

use sha2::{Digest, Sha256};

/// A decoded ternary matrix: `w[r][c] = values[r * cols + c] * scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ternary {
    /// Rows (outputs).
    pub rows: usize,
    /// Columns (inputs).
    pub cols: usize,
    /// Row-major values, `rows * cols` of them.
    pub values: Vec<i8>,
    /// The one scale of the matrix.
    pub scale: f32,
}

impl Ternary {
    /// The *decoded-weights digest*: SHA-256 over rows and cols (u64, little-endian), the values as bytes, row-major,
    /// and the bits of the scale (u32, little-endian). Equal for every format that stores the same weights.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update((self.rows as u64).to_le_bytes());
        hash.update((self.cols as u64).to_le_bytes());
        let bytes: Vec<u8> = self.values.iter().map(|&v| v.cast_unsigned()).collect();
        hash.update(&bytes);
        hash.update(self.scale.to_bits().to_le_bytes());
        hash.finalize().into()
    }
}
