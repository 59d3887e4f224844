//! Which rows a GEMV takes together, and which queries a weighted sum.
//!
//! A core reads several streams of addresses faster than one: here eight gave about 1.4 times the bytes per second of one,
//! with the same bare loop (`assay kernels bench --setting stream` shows it for this machine). So the rows that a kernel
//! takes together are not neighbours but lie far apart, and each is followed by its neighbour:
//!
//! ```text
//! rows 0 .. n in R equal parts:   together are   i, n/R + i, 2 n/R + i, …   for i = 0, 1, …
//! ```

use super::weigh_shape;
use crate::exact::ATTENTION_CHUNK;
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

/// Some queries of a weighted sum (`weigh_f16`) over a chunk of positions, and the dimension from which on they are wanted.
#[derive(Clone, Copy)]
pub(super) struct Weighing<'a> {
    /// Weights from the first of the queries on, `positions` of each.
    p: &'a [f32],
    positions: usize,
    /// The first position of the chunk.
    first: usize,
    /// Positions in the chunk.
    pub(super) len: usize,
    v: &'a [u8],
    /// Dimensions of a value.
    pub(super) d: usize,
    /// The first dimension wanted.
    pub(super) at: usize,
}

impl<'a> Weighing<'a> {
    /// The weights of `Q` queries, all of one length.
    #[inline(always)]
    pub(super) fn queries<const Q: usize>(&self) -> [&'a [f32]; Q] {
        let mut queries = [self.p; Q];
        for (q, query) in queries.iter_mut().enumerate() {
            *query = &self.p[q * self.positions + self.first..];
        }
        parts(queries, 0..self.len)
    }

    /// `n` dimensions of position `t` of the chunk.
    #[inline(always)]
    pub(super) fn value(&self, t: usize, n: usize) -> &'a [u8] {
        &self.v[2 * ((self.first + t) * self.d + self.at)..][..2 * n]
    }
}

/// Takes a weighted sum apart: chunks of positions, onto +0.0 in rising order, and in each four queries at a time, `FOUR`
/// dimensions of them, then single ones, `WIDE` dimensions or at the end `NARROW`. Values are read from memory once: a
/// chunk of them stays in the second-level cache until all queries have met it. The functions add to the output of their
/// queries.
#[inline(always)]
pub(super) fn weigh_by<const FOUR: usize, const WIDE: usize, const NARROW: usize>(
    p: &[f32],
    v: &[u8],
    d: usize,
    out: &mut [f32],
    four: impl Fn(Weighing<'_>, &mut [f32]),
    wide: impl Fn(Weighing<'_>, &mut [f32]),
    narrow: impl Fn(Weighing<'_>, &mut [f32]),
) {
    let (queries, positions) = weigh_shape(p, v, d, out);
    out.fill(0.0);
    for first in (0..positions).step_by(ATTENTION_CHUNK) {
        let len = ATTENTION_CHUNK.min(positions - first);
        let mut query = 0;
        while query < queries {
            let (p, out) = (&p[query * positions..], &mut out[query * d..]);
            let together = if query + 4 <= queries { 4 } else { 1 };
            let mut at = 0;
            while at < d {
                let part = Weighing { p, positions, first, len, v, d, at };
                at += if together == 4 {
                    four(part, out);
                    FOUR
                } else if at + WIDE <= d {
                    wide(part, out);
                    WIDE
                } else {
                    narrow(part, out);
                    NARROW
                };
            }
            query += together;
        }
    }
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
