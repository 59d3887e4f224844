//! How far the engine's own logits move when only roundings change. Without this number nobody can tell a near tie between two tokens from a
//! wrong kernel, nor a model that amplifies roundings from an implementation that is wrong.

use super::Result;
use crate::runs::compare::{cosine, max_abs};
use crate::runs::engine::{Backend, run_with_logits};
use assay_engine::kernels::{self, Kernels, scalar};
use assay_engine::model::Model;
use std::sync::LazyLock;

/// What changed roundings do to the logits after some tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    /// Smallest cosine of a row and the row under other roundings.
    pub cosine_min: f64,
    /// For each row the largest change of a logit.
    pub max_abs: Vec<f64>,
}

/// Runs the model on `tokens` with three sets of other roundings, and compares with `logits`, `(tokens, vocab)`.
///
/// The sets: norms whose results are moved by up to two units in the last place, in two patterns (what another order of additions, or another
/// `expf`, does); and values that are rounded to f16 moved by a quarter of an f16 unit (what a program does that keeps keys and values in f32).
///
/// # Errors
/// - the engine's.
pub fn sensitivity(
    model: &Model<'_>,
    backend: Backend,
    tokens: &[u32],
    logits: &[f32],
) -> Result<Sensitivity> {
    let vocab = model.config.vocab;
    let mut found = Sensitivity { cosine_min: 1.0, max_abs: vec![0.0; tokens.len()] };
    let tables = MOVED.iter().find(|tables| tables[0].isa == backend.kernels.isa);
    for kernels in tables.into_iter().flatten() {
        let backend = Backend { kernels, batch: 0, ..backend };
        let (_, moved) = run_with_logits(model, backend, tokens, 0)?;
        let rows = logits.chunks(vocab).zip(moved.chunks(vocab));
        for ((a, b), largest) in rows.zip(&mut found.max_abs) {
            *largest = largest.max(max_abs(a, b));
            found.cosine_min = found.cosine_min.min(cosine(a, b));
        }
    }
    Ok(found)
}

/// The tables of this processor, each under the three sets of roundings.
static MOVED: LazyLock<Vec<[Kernels; 3]>> =
    LazyLock::new(|| kernels::available().into_iter().map(moved).collect());

/// A table that rounds to f16 otherwise; `None` for an instruction set that is not here.
pub(super) fn other_f16(table: &Kernels) -> Option<&'static Kernels> {
    MOVED.iter().find(|tables| tables[0].isa == table.isa).map(|[.., f16]| f16)
}

fn moved(table: &'static Kernels) -> [Kernels; 3] {
    [
        Kernels { rms_norm: |x, w, eps, out| moved_norm(3, x, w, eps, out), ..*table },
        Kernels { rms_norm: |x, w, eps, out| moved_norm(5, x, w, eps, out), ..*table },
        Kernels { narrow_f16: moved_f16, ..*table },
    ]
}

/// The norm, with element `i` moved by −2 … 2 units in the last place.
fn moved_norm(period: usize, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    (scalar::KERNELS.rms_norm)(x, w, eps, out);
    for (i, value) in out.iter_mut().enumerate() {
        *value = match (i * period + i / 7) % 5 {
            0 => value.next_down().next_down(),
            1 => value.next_down(),
            2 => *value,
            3 => value.next_up(),
            _ => value.next_up().next_up(),
        };
    }
}

/// Rounds to f16 after moving every other value by 2^-13 of itself up or down.
fn moved_f16(x: &[f32], out: &mut [u8]) -> Option<usize> {
    let by = |i: usize| if i.is_multiple_of(2) { 1.0 + 1.0 / 8192.0 } else { 1.0 - 1.0 / 8192.0 };
    let moved: Vec<f32> = x.iter().enumerate().map(|(i, value)| value * by(i)).collect();
    (scalar::KERNELS.narrow_f16)(&moved, out)
}
