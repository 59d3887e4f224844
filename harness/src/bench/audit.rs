//! An audit of timed runs, after those of MLPerf: what is timed must be what is checked, nothing may come from a cache, and the answer must
//! depend on the question.

use super::limit;
use crate::runs::Result;
use crate::runs::engine::{self, Backend, Run};
use assay_engine::kernels;
use assay_engine::model::Model;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// Tokens to generate.
    pub steps: usize,
    /// Timed runs of the prompt, at least 2.
    pub repeats: usize,
}

/// What was seen; whether it is in order is for the receipt's rules to say.
#[derive(Debug, Clone)]
pub struct Audited {
    /// The run that the others are held to.
    pub checked: Run,
    /// The same prompt, timed.
    pub timed: Vec<Run>,
    /// Another prompt.
    pub other: Run,
    /// Bytes a second that the run's threads were seen to read at most; `None` where there is no loop to measure it with.
    pub bandwidth: Option<f64>,
}

/// Another prompt of the same length: every id is the next one of the vocabulary.
fn other_prompt(prompt: &[u32], vocab: usize) -> Vec<u32> {
    // Bounded by the configuration, far below u32::MAX.
    prompt.iter().map(|id| (id + 1) % vocab as u32).collect()
}

/// Runs the prompt once to be checked and `repeats` times to be timed, another prompt once, and measures between them what the machine
/// reads. `progress` is told what is being done.
///
/// # Errors
/// - the engine's.
pub fn audit(
    model: &Model<'_>,
    file: &[u8],
    backend: Backend,
    plan: &Plan,
    progress: &mut dyn FnMut(&str),
) -> Result<Audited> {
    let run = |prompt: &[u32]| engine::run(model, backend, prompt, plan.steps, &mut |_, _| Ok(()));
    // The widest loops there are: the bound is the machine's, not the backend's.
    let reading = || limit::reading(kernels::best(), file, backend.threads);
    progress("the run to check");
    let checked = run(&plan.prompt)?;
    let mut bandwidth = reading();
    let mut timed = Vec::with_capacity(plan.repeats);
    for repeat in 0..plan.repeats {
        progress(&format!("timed run {} of {}", repeat + 1, plan.repeats));
        timed.push(run(&plan.prompt)?);
        bandwidth = bandwidth.zip(reading()).map(|(a, b)| a.max(b));
    }
    progress("another prompt");
    let other = run(&other_prompt(&plan.prompt, model.config.vocab))?;
    Ok(Audited { checked, timed, other, bandwidth })
}
