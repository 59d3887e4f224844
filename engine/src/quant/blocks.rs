//! What formats with a scale in every block share: decoding to one scale, and naming the place of damage.

use super::Ternary;
use half::f16;

/// How a block format lays out one block. Rows are whole blocks.
pub(super) struct Blocks {
    /// Elements in a block.
    pub(super) elements: usize,
    /// Bytes in a block.
    pub(super) bytes: usize,
    /// Integer value of an element, before the scale.
    pub(super) value_at: fn(&[u8], usize) -> i8,
    /// The block's scale.
    pub(super) scale: fn(&[u8]) -> f32,
}

impl Blocks {
    /// Row-major values and the one scale of all blocks that hold a non-zero value; `None` if they have several. Blocks of
    /// zeros are ignored; where there are no others, the scale is the first block's.
    ///
    /// # Panics
    /// - if `bytes` is shorter than the shape needs.
    pub(super) fn decode(&self, bytes: &[u8], rows: usize, cols: usize) -> Option<Ternary> {
        let mut values = Vec::with_capacity(rows * cols);
        let (mut first, mut common) = (None, None);
        for block in bytes[..rows * cols / self.elements * self.bytes].chunks_exact(self.bytes) {
            let start = values.len();
            values.extend((0..self.elements).map(|j| (self.value_at)(block, j)));
            let scale = (self.scale)(block);
            first.get_or_insert(scale);
            let zero = values[start..].iter().all(|&value| value == 0);
            if !zero && common.get_or_insert(scale).to_bits() != scale.to_bits() {
                return None;
            }
        }
        Some(Ternary { rows, cols, values, scale: common.or(first).unwrap_or(0.0) })
    }

    /// Every element times its block's scale, the product rounded to f32.
    pub(super) fn widen(&self, bytes: &[u8]) -> Vec<f32> {
        let widen = |block| {
            let scale = (self.scale)(block);
            (0..self.elements).map(move |j| f32::from((self.value_at)(block, j)) * scale)
        };
        bytes.chunks_exact(self.bytes).flat_map(widen).collect()
    }

    /// Says what is wrong with the first bad block: an element that `bad` finds, described by row and column, or a scale
    /// that is NaN or infinite.
    pub(super) fn find_bad(
        &self,
        bytes: &[u8],
        cols: usize,
        bad: impl Fn(&[u8]) -> Option<usize>,
        describe: fn(usize, usize) -> String,
    ) -> Option<String> {
        bytes.chunks_exact(self.bytes).enumerate().find_map(|(b, block)| {
            let place = |j: usize| ((b * self.elements + j) / cols, (b * self.elements + j) % cols);
            if let Some((row, column)) = bad(block).map(place) {
                return Some(describe(row, column));
            }
            let (row, column) = place(0);
            let finite = (self.scale)(block).is_finite();
            (!finite).then(|| {
                format!("block scale at row {row}, column {column} is NaN or infinite; the file is damaged")
            })
        })
    }

    /// As [`Blocks::find_bad`] for formats in which every code is valid.
    pub(super) fn find_bad_scale(&self, bytes: &[u8], cols: usize) -> Option<String> {
        self.find_bad(bytes, cols, |_| None, |_, _| String::new())
    }
}

/// The f16 at byte `at`, widened.
#[inline]
pub(super) fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Row-major values of rows that start on a byte of their own, `row_bytes` apart.
pub(super) fn decode_rows(
    bytes: &[u8],
    (rows, cols): (usize, usize),
    row_bytes: usize,
    value_at: impl Fn(&[u8], usize) -> i8,
) -> Vec<i8> {
    let mut values = Vec::with_capacity(rows * cols);
    for row in bytes[..rows * row_bytes].chunks_exact(row_bytes) {
        values.extend((0..cols).map(|column| value_at(row, column)));
    }
    values
}

/// The scale of each block as ggml's quantisers write it: 0 for a block of zeros. In a matrix of nothing else, `scale`.
pub(super) fn ggml_scales(values: &[i8], scale: f16) -> impl Fn(&[i8]) -> f16 {
    let of_zeros = if values.iter().all(|&value| value == 0) { scale } else { f16::ZERO };
    move |block| if block.iter().all(|&value| value == 0) { of_zeros } else { scale }
}

/// Encodes whole blocks of floats, one after the other.
///
/// # Panics
/// - if the number of values is not a multiple of the block.
pub(super) fn encode_blocks<const BLOCK: usize>(
    values: &[f32],
    encode: impl Fn(&[f32; BLOCK], &mut Vec<u8>),
) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "a multiple of {BLOCK} values is needed");
    let mut out = Vec::new();
    blocks.iter().for_each(|block| encode(block, &mut out));
    out
}

/// The element of largest magnitude with its sign, the first of equals; 0 for zeros.
pub(super) fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest })
}

/// `1 / d`; 0 for 0.
pub(super) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Appends `x` rounded to f16.
pub(super) fn put_f16(out: &mut Vec<u8>, x: f32) {
    out.extend_from_slice(&f16::from_f32(x).to_le_bytes());
}
