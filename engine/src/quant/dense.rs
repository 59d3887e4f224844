//! Dense formats without blocks (F32, F16, BF16) and what all formats say about bad payloads.

use half::{bf16, f16};
use rayon::prelude::*;

/// Widens little-endian F32 bytes.
pub fn f32_from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Widens little-endian F16 bytes (exact).
pub fn f32_from_f16_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
}

/// Widens little-endian BF16 bytes (exact).
pub fn f32_from_bf16_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
}

/// Bytes that one thread looks through at a time.
const PIECE: usize = 1 << 20;

/// Index of the first item that is `bad`. Pieces are looked through by all threads, without a branch, so that the compiler can use
/// vectors: a file of gigabytes is validated whenever it is loaded.
pub(super) fn find<T: Sync>(items: &[T], bad: impl Fn(&T) -> bool + Sync) -> Option<usize> {
    let piece = PIECE / size_of::<T>();
    let dirty = |items: &[T]| items.iter().fold(false, |found, item| found | bad(item));
    // One piece is not worth waking other threads.
    let first = if items.len() > piece { piece * items.par_chunks(piece).position_first(dirty)? } else { 0 };
    items[first..].iter().position(bad).map(|at| first + at)
}

/// Index of the first NaN or infinity: all exponent bits set.
pub(super) fn find_bad_f32(bytes: &[u8]) -> Option<usize> {
    find(bytes.as_chunks::<4>().0, |b| u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000)
}

/// Index of the first NaN or infinity: all exponent bits set.
pub(super) fn find_bad_f16(bytes: &[u8]) -> Option<usize> {
    find(bytes.as_chunks::<2>().0, |b| u16::from_le_bytes(*b) & 0x7c00 == 0x7c00)
}

/// Index of the first NaN or infinity: all exponent bits set.
pub(super) fn find_bad_bf16(bytes: &[u8]) -> Option<usize> {
    find(bytes.as_chunks::<2>().0, |b| u16::from_le_bytes(*b) & 0x7f80 == 0x7f80)
}

pub(super) fn describe_bad(element: usize, cols: usize) -> String {
    let (row, column) = (element / cols, element % cols);
    format!("weight at row {row}, column {column} is NaN or infinite; the file is damaged")
}

pub(super) fn describe_code_3(row: usize, column: usize) -> String {
    format!(
        "code 3 at row {row}, column {column} is not ternary; the file is damaged or packed in another layout"
    )
}

pub(super) fn describe_padding(row: usize, column: usize) -> String {
    format!("row {row}: padding at column {column} is not zero; write the file again")
}

pub(super) fn describe_bad_scale(scale: f32) -> Option<String> {
    (!scale.is_finite()).then(|| format!("the tensor scale is {scale}; the file is damaged"))
}
