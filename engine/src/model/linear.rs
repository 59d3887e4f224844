//! `y = W x` for several tokens: activations prepared by weight format, rows shared out over threads, work counted.

use super::weights::Linear;
use crate::error::{Error, Result};
use crate::kernels::acts::wanted_by;
use crate::kernels::{Acts, Batch, Entries, Kernels};
use crate::quant::Format;
use crate::tensor::Matrix;
use crate::work::{Key, Operation, Work};
use rayon::prelude::*;

/// Rows at most that one kernel call computes for several tokens before the next rows: few enough that their weights stay in the
/// first-level caches. One token takes all rows of its task, since a GEMV reads rows that lie far apart.
const ROWS_PER_CALL: usize = 96;

/// Rows that kernels take together at most: calls are multiples of it.
const ROWS_TOGETHER: usize = 16;

/// From this many tokens on, a GEMM kernel is faster than a GEMV kernel for each.
const GEMM_TOKENS: usize = 4;

/// Where in the graph a linear layer stands: for errors and counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) operation: Operation,
    pub(super) name: &'static str,
    pub(super) layer: usize,
    pub(super) position: usize,
}

impl Place {
    pub(super) fn error(&self, token: usize, problem: &'static str, element: usize) -> Error {
        let position = self.position + token;
        Error::Arithmetic { layer: self.layer, operation: self.name, problem, position, element }
    }
}

/// Activation rows in the form that a weight format's kernels take.
enum Prepared {
    /// One token after the other.
    Tokens(Vec<Acts>),
    /// Tokens interleaved, for a GEMM.
    Batch(Batch),
    /// `(tokens, cols)`.
    Floats(Vec<f32>),
}

/// The first error in order, so that what a run says does not depend on which thread was faster.
pub(super) fn all<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    results.into_iter().collect()
}

/// `out[t] = W x[t]` (times the layer's `.scale`): `x` is `(tokens, cols)`, `out` is `(tokens, rows)`.
pub(super) fn linear(
    kernels: &Kernels,
    work: &Work,
    place: Place,
    Linear { w, extra_scale }: &Linear<'_>,
    x: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let tokens = x.len() / w.cols;
    debug_assert_eq!((x.len(), out.len()), (tokens * w.cols, tokens * w.rows));
    let acts = prepare(kernels, place, w, x)?;
    // Equal shares: with 384 of 2560 rows a task, two threads would have four and three of them.
    let rows_per_task = w.rows.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(ROWS_TOGETHER);
    let task = || Vec::with_capacity(tokens);
    let mut tasks: Vec<Vec<&mut [f32]>> =
        std::iter::repeat_with(task).take(w.rows.div_ceil(rows_per_task)).collect();
    for row in out.chunks_mut(w.rows) {
        for (task, part) in tasks.iter_mut().zip(row.chunks_mut(rows_per_task)) {
            task.push(part);
        }
    }
    tasks.into_par_iter().enumerate().for_each(|(i, mut outs)| {
        let rows = outs.first().map_or(0, |out| out.len());
        let calls = if tokens == 1 { 1 } else { rows.div_ceil(ROWS_PER_CALL) };
        let rows_per_call = rows.div_ceil(calls.max(1)).next_multiple_of(ROWS_TOGETHER);
        for first in (0..rows).step_by(rows_per_call) {
            let count = rows_per_call.min(rows - first);
            let bytes = w.rows_at(i * rows_per_task + first, count);
            let mut outs: Vec<&mut [f32]> =
                outs.iter_mut().map(|out| &mut out[first..first + count]).collect();
            let kernel = multiply(kernels, w, bytes, &acts, &mut outs);
            if let Some(scale) = *extra_scale {
                outs.iter_mut().for_each(|out| (kernels.scale_f32)(out, scale));
            }
            let key = Key { operation: place.operation, kernel, isa: kernels.isa, columns: w.cols };
            work.add(key, count * tokens, bytes.len() * tokens);
        }
    });
    Ok(())
}

/// The activation format is fixed by the weight format, as in ggml (`docs/numerics.md`).
fn prepare(kernels: &Kernels, place: Place, w: &Matrix<'_>, x: &[f32]) -> Result<Prepared> {
    let rows = x.par_chunks(w.cols).enumerate();
    let finite = |token: usize, x: &[f32]| match (kernels.find_non_finite)(x) {
        Some(element) => Err(place.error(token, "NaN or infinity", element)),
        None => Ok(()),
    };
    if wanted_by(w.format).is_none() {
        let mut floats = x.to_vec();
        let rows = floats.par_chunks_mut(w.cols).enumerate();
        let each = rows.map(|(token, x)| {
            finite(token, x)?;
            match w.format {
                Format::F16 => round_f16(kernels, x).map_err(|at| place.error(token, F16_OVERFLOW, at)),
                Format::Bf16 => match (kernels.round_bf16)(x) {
                    Some(at) => Err(place.error(token, "a value beyond bf16", at)),
                    None => Ok(()),
                },
                _ => Ok(()),
            }
        });
        all(each.collect())?;
        return Ok(Prepared::Floats(floats));
    }
    let each = rows.map(|(token, x)| {
        finite(token, x)?;
        let acts = kernels.quantise(w.format, x).expect("a format of quantised activations");
        acts.map_err(|at| place.error(token, "activations whose scale is beyond f16", at))
    });
    let acts = all(each.collect())?;
    Ok(if acts.len() < GEMM_TOKENS { Prepared::Tokens(acts) } else { Prepared::Batch(Batch::new(acts)) })
}

/// Runs the kernel of a format on the rows of `bytes`, one slice of `outs` a token, and returns its name.
fn multiply(
    kernels: &Kernels,
    w: &Matrix<'_>,
    bytes: &[u8],
    acts: &Prepared,
    outs: &mut [&mut [f32]],
) -> &'static str {
    let of_format = kernels.multiply(w.format);
    let (rows, row_bytes) = (outs.first().map_or(0, |out| out.len()), w.row_bytes());
    match (of_format.entries, acts) {
        (Entries::Rows(gemv, _), Prepared::Tokens(acts)) => {
            let mut sums = vec![0; rows];
            for (acts, out) in acts.iter().zip(outs) {
                gemv(bytes, row_bytes, acts, &mut sums);
                (kernels.dequantise_i32)(&sums, acts.scales()[0], w.scale(), out);
            }
            of_format.gemv
        }
        (Entries::Rows(_, gemm), Prepared::Batch(batch)) => {
            let mut sums = vec![0; rows * outs.len()];
            gemm(bytes, row_bytes, batch, &mut sums);
            for ((acts, sums), out) in batch.rows().iter().zip(sums.chunks(rows)).zip(outs) {
                (kernels.dequantise_i32)(sums, acts.scales()[0], w.scale(), out);
            }
            of_format.gemm
        }
        (Entries::Blocks(gemv, _), Prepared::Tokens(acts)) => {
            acts.iter().zip(outs).for_each(|(acts, out)| gemv(bytes, acts, out));
            of_format.gemv
        }
        (Entries::Blocks(_, gemm), Prepared::Batch(batch)) => {
            gathered(outs, |out| gemm(bytes, batch, out));
            of_format.gemm
        }
        (Entries::Floats(gemv, _), Prepared::Floats(x)) if outs.len() < GEMM_TOKENS => {
            x.chunks(w.cols).zip(outs).for_each(|(x, out)| gemv(bytes, x, out));
            of_format.gemv
        }
        (Entries::Floats(_, gemm), Prepared::Floats(x)) => {
            gathered(outs, |out| gemm(bytes, w.cols, x, out));
            of_format.gemm
        }
        _ => unreachable!("activations were prepared for {}", w.format.name()),
    }
}

/// Gives `f` one `(tokens, rows)` matrix and puts its rows where they belong.
fn gathered(outs: &mut [&mut [f32]], f: impl FnOnce(&mut [f32])) {
    let rows = outs.first().map_or(0, |out| out.len());
    let mut all = vec![0.0; rows * outs.len()];
    f(&mut all);
    for (out, row) in outs.iter_mut().zip(all.chunks(rows.max(1))) {
        out.copy_from_slice(row);
    }
}

/// What an f16 rounding says when a value does not fit.
pub(super) const F16_OVERFLOW: &str = "NaN, infinity, or a value beyond f16";

/// Rounds every value to f16 and back; the index of one that does not fit.
pub(super) fn round_f16(kernels: &Kernels, x: &mut [f32]) -> Result<(), usize> {
    let mut narrow = vec![0; 2 * x.len()];
    if let Some(at) = (kernels.narrow_f16)(x, &mut narrow) {
        return Err(at);
    }
    (kernels.widen_f16)(&narrow, x);
    Ok(())
}
