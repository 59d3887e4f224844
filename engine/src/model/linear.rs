//! `y = W x` for several tokens: activations prepared by weight format, rows shared out over threads, work counted.

use super::weights::Linear;
use crate::error::{Error, Result};
use crate::kernels::{Kernels, TileActs};
use crate::quant::Format;
use crate::tensor::Matrix;
use crate::work::{Key, Operation, Work};
use rayon::prelude::*;

/// Rows that one kernel call computes before the next token takes the same rows: small enough that their weights stay in
/// the first-level caches.
const ROWS_PER_CALL: usize = 64;

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

/// One activation row in the form that a weight format takes.
enum Acts {
    I8 { acts: TileActs, s: f32 },
    Float(Vec<f32>),
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
    let rows = x.par_chunks(w.cols).enumerate();
    let acts = all(rows.map(|(token, x)| prepare(kernels, place, token, w.format, x)).collect())?;
    let rows_per_task = w.rows.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(ROWS_PER_CALL);
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
        for first in (0..rows).step_by(ROWS_PER_CALL) {
            let count = ROWS_PER_CALL.min(rows - first);
            let bytes = w.rows_at(i * rows_per_task + first, count);
            for (acts, out) in acts.iter().zip(&mut outs) {
                let out = &mut out[first..first + count];
                let kernel = multiply(kernels, w, bytes, acts, out);
                if let Some(scale) = *extra_scale {
                    (kernels.scale_f32)(out, scale);
                }
                let key = Key { operation: place.operation, kernel, isa: kernels.isa, columns: w.cols };
                work.add(key, count, bytes.len());
            }
        }
    });
    Ok(())
}

/// The activation format is fixed by the weight format, as in ggml (`docs/numerics.md`).
fn prepare(kernels: &Kernels, place: Place, token: usize, format: Format, x: &[f32]) -> Result<Acts> {
    if let Some(element) = (kernels.find_non_finite)(x) {
        return Err(place.error(token, "NaN or infinity", element));
    }
    match format {
        Format::I2S | Format::Qk256 => {
            let mut q = vec![0; x.len()];
            let s = (kernels.quantise_i8)(x, &mut q);
            Ok(Acts::I8 { acts: TileActs::new(&q), s })
        }
        Format::F16 => {
            let mut rounded = x.to_vec();
            round_f16(kernels, &mut rounded).map_err(|at| place.error(token, F16_OVERFLOW, at))?;
            Ok(Acts::Float(rounded))
        }
        Format::F32 => Ok(Acts::Float(x.to_vec())),
        // `weights.rs` has refused the model.
        _ => Err(place.error(token, "no kernel reads this weight format yet", 0)),
    }
}

/// Runs the kernel of a format on `out.len()` rows and returns its name.
fn multiply(kernels: &Kernels, w: &Matrix<'_>, bytes: &[u8], acts: &Acts, out: &mut [f32]) -> &'static str {
    match acts {
        Acts::I8 { acts, s } => {
            let mut sums = [0; ROWS_PER_CALL];
            let sums = &mut sums[..out.len()];
            (kernels.gemv_i2s_i8)(bytes, w.row_bytes(), acts, sums);
            (kernels.dequantise_i32)(sums, *s, w.scale(), out);
            "gemv_i2s_i8"
        }
        Acts::Float(x) if w.format == Format::F16 => {
            (kernels.gemv_f16_f32)(bytes, x, out);
            "gemv_f16_f32"
        }
        Acts::Float(x) => {
            (kernels.gemv_f32_f32)(bytes, x, out);
            "gemv_f32_f32"
        }
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
