//! `y = W x` for several tokens: activations prepared by weight format, rows shared out over threads, work counted.

use super::weights::Linear;
use crate::error::{Error, Result};
use crate::kernels::acts::{GROUP, wanted_by};
use crate::kernels::{Acts, Batch, Entries, Group, Kernels};
use crate::quant::Format;
use crate::work::{Key, Operation, Work};
use rayon::prelude::*;

/// Rows at most that one kernel call computes for several tokens before the next rows: few enough that their sums stay in
/// a second-level cache. One token takes all rows of its task, since a GEMV reads rows that lie far apart.
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

/// One matrix that activations meet.
pub(super) struct Job<'j, 'a> {
    pub(super) place: Place,
    pub(super) layer: &'j Linear<'a>,
    /// It becomes `(tokens, rows)`.
    pub(super) out: &'j mut Vec<f32>,
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

/// `out[t] = W x[t]` (times the layer's `.scale`) for every job; all have as many columns. `x(t, row)` writes the
/// activations of token `t`. It is called once for neighbours whose formats ask for the same activations, and the rows of
/// those are shared out together.
pub(super) fn linear(
    kernels: &Kernels,
    work: &Work,
    tokens: usize,
    jobs: &mut [Job<'_, '_>],
    x: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
) -> Result<()> {
    for jobs in jobs.chunk_by_mut(|a, b| same_activations(a.layer.w.format, b.layer.w.format)) {
        let first = &jobs[0];
        debug_assert!(jobs.iter().all(|job| job.layer.w.cols == first.layer.w.cols), "other columns");
        let acts = prepare(kernels, first.place, first.layer.w.format, (tokens, first.layer.w.cols), &x)?;
        multiply_all(kernels, work, tokens, &acts, jobs);
    }
    Ok(())
}

/// Whether [`prepare`] does the same for both.
fn same_activations(a: Format, b: Format) -> bool {
    a == b || wanted_by(a).is_some() && wanted_by(a) == wanted_by(b)
}

/// The activation format is fixed by the weight format, as in ggml (`docs/numerics.md`).
fn prepare(
    kernels: &Kernels,
    place: Place,
    format: Format,
    (tokens, cols): (usize, usize),
    x: &(impl Fn(usize, &mut [f32]) -> Result<()> + Sync),
) -> Result<Prepared> {
    let finite = |token: usize, x: &[f32]| match (kernels.find_non_finite)(x) {
        Some(element) => Err(place.error(token, "NaN or infinity", element)),
        None => Ok(()),
    };
    if wanted_by(format).is_none() {
        let mut floats = vec![0.0; tokens * cols];
        let rows = floats.par_chunks_mut(cols).enumerate();
        let each = rows.map(|(token, row)| {
            x(token, row)?;
            finite(token, row)?;
            match format {
                Format::F16 => round_f16(kernels, row).map_err(|at| place.error(token, F16_OVERFLOW, at)),
                Format::Bf16 => match (kernels.round_bf16)(row) {
                    Some(at) => Err(place.error(token, "a value beyond bf16", at)),
                    None => Ok(()),
                },
                _ => Ok(()),
            }
        });
        all(each.collect())?;
        return Ok(Prepared::Floats(floats));
    }
    // One row of memory serves all tokens of a thread, one after the other.
    let memory = || vec![0.0; cols];
    let quantised = |row: &mut Vec<f32>, token: usize| {
        x(token, row)?;
        finite(token, row)?;
        let acts = kernels.quantise(format, row).expect("a format of quantised activations");
        acts.map_err(|at| place.error(token, "activations whose scale is beyond f16", at))
    };
    if tokens < GEMM_TOKENS {
        let each = (0..tokens).into_par_iter().map_init(memory, quantised);
        return all(each.collect()).map(Prepared::Tokens);
    }
    let group = |row: &mut Vec<f32>, first: usize| {
        let tokens = first..tokens.min(first + GROUP);
        tokens.map(|token| quantised(row, token)).collect::<Result<_>>().map(Group::new)
    };
    let each = (0..tokens.div_ceil(GROUP)).into_par_iter().map_init(memory, |row, i| group(row, GROUP * i));
    all(each.collect()).map(|groups| Prepared::Batch(Batch::of(groups)))
}

/// Some rows of a matrix with all tokens: what one thread does at a time.
struct Task<'t, 'a> {
    place: Place,
    layer: &'t Linear<'a>,
    first: usize,
    /// One slice a token.
    outs: Vec<&'t mut [f32]>,
}

fn multiply_all(kernels: &Kernels, work: &Work, tokens: usize, acts: &Prepared, jobs: &mut [Job<'_, '_>]) {
    // Equal shares: with 384 of 2560 rows a task, two threads would have four and three of them.
    let rows: usize = jobs.iter().map(|job| job.layer.w.rows).sum();
    let rows_per_task = rows.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(ROWS_TOGETHER);
    let mut tasks = Vec::new();
    for Job { place, layer, out } in jobs {
        let rows = layer.w.rows;
        out.resize(tokens * rows, 0.0);
        let start = tasks.len();
        tasks.extend((0..rows).step_by(rows_per_task).map(|first| Task {
            place: *place,
            layer,
            first,
            outs: Vec::with_capacity(tokens),
        }));
        for row in out.chunks_mut(rows) {
            for (task, part) in tasks[start..].iter_mut().zip(row.chunks_mut(rows_per_task)) {
                task.outs.push(part);
            }
        }
    }
    tasks.into_par_iter().for_each_init(Sums::default, |sums, Task { place, layer, first, mut outs }| {
        let w = &layer.w;
        let rows = outs.first().map_or(0, |out| out.len());
        let parts = if tokens == 1 { 1 } else { rows.div_ceil(ROWS_PER_CALL) };
        let rows_per_call = rows.div_ceil(parts.max(1)).next_multiple_of(ROWS_TOGETHER);
        for part in (0..rows).step_by(rows_per_call) {
            let count = rows_per_call.min(rows - part);
            let bytes = w.rows_at(first + part, count);
            let mut outs: Vec<&mut [f32]> = outs.iter_mut().map(|out| &mut out[part..part + count]).collect();
            let (kernel, calls) = multiply(kernels, layer, bytes, acts, sums, &mut outs);
            if let Some(scale) = layer.extra_scale {
                outs.iter_mut().for_each(|out| (kernels.scale_f32)(out, scale));
            }
            let key = Key { operation: place.operation, kernel, isa: kernels.isa, columns: w.cols };
            work.add(key, calls, count * tokens, bytes.len() * tokens);
        }
    });
}

/// Memory for what kernels give before it is scaled or put where it belongs, `(tokens, rows)`.
#[derive(Default)]
struct Sums {
    exact: Vec<i32>,
    floats: Vec<f32>,
}

/// Runs the kernel of a format on the rows of `bytes`, one slice of `outs` a token; returns its name and how often it was
/// called.
fn multiply(
    kernels: &Kernels,
    Linear { w, .. }: &Linear<'_>,
    bytes: &[u8],
    acts: &Prepared,
    sums: &mut Sums,
    outs: &mut [&mut [f32]],
) -> (&'static str, usize) {
    let of_format = kernels.multiply(w.format);
    let (rows, row_bytes, w_scale) = (outs.first().map_or(0, |out| out.len()), w.row_bytes(), w.scale());
    let tokens = outs.len();
    match (of_format.entries, acts) {
        (Entries::Rows(gemv, _), Prepared::Tokens(acts)) => {
            sums.exact.resize(rows, 0);
            for (acts, out) in acts.iter().zip(outs) {
                gemv(bytes, row_bytes, acts, &mut sums.exact);
                (kernels.dequantise_i32)(&sums.exact, acts.scales()[0], w_scale, out);
            }
            (of_format.gemv, tokens)
        }
        (Entries::Rows(_, gemm), Prepared::Batch(batch)) => {
            sums.exact.resize(rows * tokens, 0);
            gemm(bytes, row_bytes, batch, &mut sums.exact);
            for ((acts, sums), out) in batch.rows().zip(sums.exact.chunks(rows)).zip(outs) {
                (kernels.dequantise_i32)(sums, acts.scales()[0], w_scale, out);
            }
            (of_format.gemm, 1)
        }
        (Entries::Blocks(gemv, _), Prepared::Tokens(acts)) => {
            acts.iter().zip(outs).for_each(|(acts, out)| gemv(bytes, acts, out));
            (of_format.gemv, tokens)
        }
        (Entries::Blocks(_, gemm), Prepared::Batch(batch)) => {
            gathered(&mut sums.floats, outs, |out| gemm(bytes, batch, out));
            (of_format.gemm, 1)
        }
        (Entries::Floats(gemv, _), Prepared::Floats(x)) if tokens < GEMM_TOKENS => {
            x.chunks(w.cols).zip(outs).for_each(|(x, out)| gemv(bytes, x, out));
            (of_format.gemv, tokens)
        }
        (Entries::Floats(_, gemm), Prepared::Floats(x)) => {
            gathered(&mut sums.floats, outs, |out| gemm(bytes, w.cols, x, out));
            (of_format.gemm, 1)
        }
        _ => unreachable!("activations were prepared for {}", w.format.name()),
    }
}

/// Gives `f` one `(tokens, rows)` matrix and puts its rows where they belong.
fn gathered(all: &mut Vec<f32>, outs: &mut [&mut [f32]], f: impl FnOnce(&mut [f32])) {
    let rows = outs.first().map_or(0, |out| out.len());
    all.resize(rows * outs.len(), 0.0);
    f(all);
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
