//! Which rows a GEMV takes together.
//!
//! A core reads several streams of addresses faster than one: here eight gave about 1.4 times the bytes per second of one,
//! with the same bare loop (`assay kernels bench --setting stream` shows it for this machine). So the rows that a kernel
//! takes together are not neighbours but lie far apart, and each is followed by its neighbour:
//!
//! ```text
//! rows 0 .. n in R equal parts:   together are   i, n/R + i, 2 n/R + i, …   for i = 0, 1, …
//! ```

use std::ops::Range;

/// Groups of `R` of `rows` rows, a row of each of `R` equal parts, then what is left over. Where the last group is not full
/// it names the last row again.
#[inline(always)]
pub(super) fn apart<const R: usize>(rows: usize) -> impl Iterator<Item = [usize; R]> {
    let part = rows / R;
    (0..rows.div_ceil(R)).map(move |i| {
        let mut group = [0; R];
        for r in 0..R {
            group[r] = if i < part { r * part + i } else { (R * part + r).min(rows - 1) };
        }
        group
    })
}

/// Writes to `out` what `dot` gives for each row.
#[inline(always)]
pub(super) fn by_rows<T: Copy, const R: usize>(
    w: &[u8],
    row_bytes: usize,
    out: &mut [T],
    dot: impl Fn([&[u8]; R]) -> [T; R],
) {
    for rows in apart::<R>(out.len()) {
        // Loops and not `map`, whose closure the compiler may leave a call.
        let mut slices = [w; R];
        for r in 0..R {
            slices[r] = &w[rows[r] * row_bytes..][..row_bytes];
        }
        let dots = dot(slices);
        for r in 0..R {
            out[rows[r]] = dots[r];
        }
    }
}

/// The same part of each slice, all of one length then, so that one bound check serves for all. (With
/// `map` the compiler may not see that.)
#[inline(always)]
pub(super) fn parts<T, const R: usize>(mut slices: [&[T]; R], range: Range<usize>) -> [&[T]; R] {
    for slice in &mut slices {
        *slice = &slice[range.clone()];
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_taken_and_none_beyond() {
        for rows in 0..70 {
            let mut taken = vec![0; rows];
            for row in apart::<8>(rows).flatten() {
                taken[row] += 1;
            }
            assert!(taken.iter().all(|times| *times > 0), "{rows} rows: {taken:?}");
            let more: usize = taken.iter().map(|times| times - 1).sum();
            assert_eq!(more, rows.next_multiple_of(8) - rows, "{rows} rows: {taken:?}");
            assert!(taken.iter().rev().skip(1).all(|times| *times == 1), "{rows} rows: {taken:?}");
        }
    }
}
