//! Activations in the order of 64-byte weight tiles.
//!
//! The order of an integer sum is free. So instead of unpacking weights into the order of the activations, the
//! activations (a few kilobytes) are permuted once into the order in which a register of packed codes gives its fields:
//!
//! ```text
//! tile t = 64 bytes = 256 codes;   field f (0..4) of byte p = (byte >> 2f) & 3
//! x[256 t + 64 f + p] = the activation that meets field f of byte p of tile t
//! I2_S:  byte p, field f  is element  128 (p / 32) + 32 (3 − f) + p % 32  of the tile
//! ```
//!
//! One kernel then serves every 2-bit layout without scales inside, on bytes as the file holds them.

use crate::quant::qk256::{TILE, TILE_BYTES};

/// One activation row as int8, in tile order, padded with zeros to whole tiles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TileActs {
    values: Vec<i8>,
    sum: i32,
}

impl TileActs {
    /// Permutes `q` (natural order, one value per column) for I2_S and QK256 rows.
    pub fn new(q: &[i8]) -> TileActs {
        let mut values = vec![0; q.len().div_ceil(TILE) * TILE];
        for (out, tile) in values.as_chunks_mut::<TILE>().0.iter_mut().zip(q.chunks(TILE)) {
            // Runs of 32 stay together: run g of half h (elements 128h + 32g …) meets field 3 − g of bytes 32h …
            for (run, source) in tile.chunks(32).enumerate() {
                let (half, field) = (run / 4, 3 - run % 4);
                out[TILE_BYTES * field + 32 * half..][..source.len()].copy_from_slice(source);
            }
        }
        TileActs { values, sum: q.iter().map(|&v| i32::from(v)).sum() }
    }

    /// Values in tile order; the length is a multiple of 256.
    pub fn values(&self) -> &[i8] {
        &self.values
    }

    /// `Σ q`: what a kernel on codes 0, 1, 2 subtracts.
    pub fn sum(&self) -> i32 {
        self.sum
    }

    /// Asserts what a kernel's loads rely on: `codes` is `rows` rows of `row_bytes`, whole half-tiles, and no row is longer
    /// than the activations.
    #[track_caller]
    pub(crate) fn assert_fits(&self, codes: &[u8], row_bytes: usize, rows: usize) {
        super::assert_rows(codes, row_bytes, rows);
        assert!(row_bytes.is_multiple_of(32), "rows of {row_bytes} bytes are not whole blocks of 32");
        let tiles = row_bytes.div_ceil(TILE_BYTES);
        assert_eq!(self.values.len(), tiles * TILE, "activations do not fit rows of {row_bytes} bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_activation_meets_its_weight() {
        for cols in [1_usize, 31, 32, 33, 128, 255, 256, 300, 640] {
            let q: Vec<i8> = (0..cols).map(|i| (i % 251) as i8).collect();
            let acts = TileActs::new(&q);
            assert_eq!(acts.values().len(), cols.div_ceil(256) * 256);
            for (at, &value) in acts.values().iter().enumerate() {
                let (tile, field, p) = (at / 256, at % 256 / 64, at % 64);
                let element = 256 * tile + 128 * (p / 32) + 32 * (3 - field) + p % 32;
                assert_eq!(value, q.get(element).copied().unwrap_or(0), "cols {cols}, at {at}");
            }
        }
    }
}
