//! One digest for every number of threads and every cut of the prompt.

use super::Result;
use super::engine::{Backend, run};
use super::golden::Entry;
use assay_engine::kernels::Kernels;
use assay_engine::kind::Kind;
use assay_engine::model::Model;

/// One run of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Threads.
    pub threads: usize,
    /// Tokens of the prompt fed at a time; 0 is all of them.
    pub batch: usize,
    /// Digest of the logits, in hex.
    pub digest: String,
}

/// Runs an entry's prompt and steps with each number of threads and each cut of the prompt.
///
/// # Errors
/// - the engine's.
pub fn matrix(
    model: &Model<'_>,
    entry: &Entry,
    kernels: &'static Kernels,
    threads: &[usize],
    batches: &[usize],
) -> Result<Vec<Cell>> {
    let one = |threads, batch| {
        let backend = Backend { kernels, threads, batch };
        let run =
            run(model, backend, &entry.prompt_token_ids, entry.greedy_token_ids.len(), &mut |_, _| Ok(()))?;
        Ok(Cell { threads, batch, digest: hex::encode(run.outcome.logits_sha256) })
    };
    threads.iter().flat_map(|&threads| batches.iter().map(move |&batch| one(threads, batch))).collect()
}

/// What is wrong with a matrix: runs that differ from each other, or all of them from the contract.
pub fn problem(cells: &[Cell], expected: &str) -> Option<String> {
    let first = cells.first()?;
    let place = |cell: &Cell| format!("{} threads, batch {}", cell.threads, cell.batch);
    if let Some(other) = cells.iter().find(|cell| cell.digest != first.digest) {
        return Some(format!(
            "{} gives logits {}, {} gives {}; the error is that {}",
            place(first),
            first.digest,
            place(other),
            other.digest,
            Kind::BatchVariantReduction
        ));
    }
    let wrong = first.digest != expected;
    wrong.then(|| format!("every run gives logits {}, expected {expected}", first.digest))
}
