//! One digest for every number of threads, every cut of the prompt, and every way to begin.

use super::Result;
use super::engine::{Backend, go_on, run};
use assay_engine::decode::{Hooks, Request};
use assay_engine::kernels::Kernels;
use assay_engine::kind::Kind;
use assay_engine::model::{Model, Rows, Session, saved};
use assay_engine::threads::Pool;
use assay_engine::trace::hash_f32;
use sha2::{Digest, Sha256};
use std::fmt;
use std::ops::ControlFlow;

/// How a sequence begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With nothing.
    Cold,
    /// The first half of the prompt was computed before, saved, and read back.
    Resumed,
    /// Another sequence had the first half of the prompt too, and went on otherwise.
    SharedPrefix,
}

impl Start {
    /// Every way.
    pub const ALL: [Start; 3] = [Start::Cold, Start::Resumed, Start::SharedPrefix];
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Start::Cold => "cold",
            Start::Resumed => "resumed from a saved state",
            Start::SharedPrefix => "after a shared prefix",
        })
    }
}

/// One run of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Threads.
    pub threads: usize,
    /// Tokens of the prompt fed at a time; 0 is all of them.
    pub batch: usize,
    /// How it began.
    pub start: Start,
    /// Digest of the logits of all tokens, in hex.
    pub digest: String,
}

/// Runs `prompt` and `steps` with each number of threads and each cut of the prompt, and each way to begin with the first cut.
///
/// # Errors
/// - the engine's.
pub fn matrix(
    model: &Model<'_>,
    (prompt, steps): (&[u32], usize),
    kernels: &'static Kernels,
    threads: &[usize],
    batches: &[usize],
) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for &threads in threads {
        for &batch in batches {
            let backend = Backend { kernels, threads, batch };
            let run = run(model, backend, prompt, steps, &mut |_, _| Ok(()))?;
            let digest = hex::encode(run.outcome.logits_sha256);
            cells.push(Cell { threads, batch, start: Start::Cold, digest });
        }
        let batch = batches.first().copied().unwrap_or(0);
        for start in [Start::Resumed, Start::SharedPrefix] {
            let digest = in_two(model, (prompt, steps), Backend { kernels, threads, batch }, start)?;
            cells.push(Cell { threads, batch, start, digest });
        }
    }
    Ok(cells)
}

/// Digest of the logits of a run whose prompt is computed in two sessions.
fn in_two(
    model: &Model<'_>,
    (prompt, steps): (&[u32], usize),
    backend: Backend,
    start: Start,
) -> Result<String> {
    let Backend { kernels, threads, batch } = backend;
    let request = Request { prompt: prompt.to_vec(), steps, batch, ..Request::default() };
    let half = prompt.len() / 2;
    let mut hash = Sha256::new();
    let mut first = Session::new(model, kernels, prompt.len())?;
    let pool = Pool::new(threads)?;
    hash_f32(&mut hash, &pool.run(|| first.feed(&prompt[..half], Rows::All))?);
    let state = if start == Start::Resumed {
        let (mut bytes, identity) = (Vec::new(), model.identity([0; 32]));
        saved::write(first.state(), model, identity, &mut bytes).expect("a vector takes all");
        saved::read(&bytes, model, identity, request.capacity())?
    } else {
        let otherwise: Vec<u32> = prompt[half..].iter().rev().copied().collect();
        pool.run(|| first.feed(&otherwise, Rows::None))?;
        first.state().prefix(half, model, request.capacity())?
    };
    let mut session = Session::resume(model, kernels, state);
    let mut on_logits = |_, row: &[f32]| {
        hash_f32(&mut hash, row);
        Ok(())
    };
    let mut hooks = Hooks { on_logits: &mut on_logits, on_token: &mut |_| ControlFlow::Continue(()) };
    go_on(&mut session, backend, request, &mut hooks)?;
    Ok(hex::encode(hash.finalize()))
}

/// What is wrong with a matrix: runs that differ from each other, or all of them from the contract.
pub fn problem(cells: &[Cell], expected: &str) -> Option<String> {
    let first = cells.first()?;
    let place = |cell: &Cell| format!("{} threads, batch {}, {}", cell.threads, cell.batch, cell.start);
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
