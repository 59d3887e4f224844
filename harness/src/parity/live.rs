//! Prompts through both sides: greedy tokens, each side going on from its own; and, where they part, the reference fed our tokens.

use super::explain::explain;
use super::judge::Judged;
use super::sensitivity::{Sensitivity, sensitivity};
use super::{Error, Result};
use crate::references::protocol::PROTOCOL;
use crate::references::{Failure, Feeding, Identity, Outputs, Prepared, Reference, Request, Rows, Sequence};
use crate::runs::engine::{Backend, Run, run_with_logits};
use crate::runs::thresholds::Thresholds;
use assay_engine::model::Model;
use std::time::Duration;

/// What is compared, and how.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'p> {
    /// How the engine runs.
    pub backend: Backend,
    /// Threads of the reference.
    pub reference_threads: usize,
    /// Greedy steps after each prompt.
    pub steps: usize,
    /// How long the reference may take for all prompts.
    pub timeout: Duration,
    /// What is asked for.
    pub thresholds: &'p Thresholds,
}

/// What was found for one prompt.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The engine's run.
    pub run: Run,
    /// The comparison.
    pub judged: Judged,
    /// The reference's logits, fed our tokens, `(prompt + steps, vocab)`.
    pub theirs: Vec<f32>,
}

/// What was found for some prompts.
#[derive(Debug, Clone)]
pub struct Live {
    /// Who the reference is.
    pub identity: Identity,
    /// How it was fed.
    pub feeding: Feeding,
    /// What it, and we, have to say.
    pub notes: Vec<String>,
    /// By prompt.
    pub prompts: Vec<Prompt>,
}

/// A prompt's run of the engine, and how far its logits move when roundings change. It serves every reference.
#[derive(Debug, Clone)]
pub struct Ours {
    run: Run,
    logits: Vec<f32>,
    sensitivity: Sensitivity,
}

/// Runs the engine on the prompts.
///
/// # Errors
/// - the engine's.
pub fn ours(
    model: &Model<'_>,
    backend: Backend,
    steps: usize,
    prompts: &[Vec<u32>],
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Ours>> {
    let one = |(i, prompt): (usize, &Vec<u32>)| {
        progress(&format!("prompt {} of {} on the engine", i + 1, prompts.len()));
        let (run, logits) = run_with_logits(model, backend, prompt, steps)?;
        let sensitivity = sensitivity(model, backend, &run.tokens(), &logits)?;
        Ok(Ours { run, logits, sensitivity })
    };
    prompts.iter().enumerate().map(one).collect()
}

/// Runs `reference` on what the engine ran, and compares. Where roundings alone take the logits of a model anywhere, its operations are compared one by
/// one instead.
///
/// # Errors
/// - [`Error::Reference`] if it refuses, or gives nothing that can be compared.
pub fn compare(
    reference: &Reference,
    (prepared, model): (&Prepared, &Model<'_>),
    ours: &[Ours],
    plan: &Plan<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Live> {
    let Some(vocab) = ours.first().map(|ours| ours.run.outcome.vocab) else {
        return Err(Error::Engine(assay_engine::Error::Input {
            what: "prompts",
            expected: "at least one".to_owned(),
            got: "none".to_owned(),
        }));
    };
    progress(&format!("{} on {} prompts", reference.name, ours.len()));
    let free: Vec<Sequence> = ours
        .iter()
        .enumerate()
        .map(|(i, ours)| sequence(i, ours.run.request.prompt.clone(), plan.steps))
        .collect();
    let Outputs { identity, feeding, mut notes, sequences } = ask(reference, prepared, plan, vocab, free)?;
    // Where both chose the same tokens, both were fed the same.
    let differs = |(i, (ours, theirs)): (usize, (&Ours, &Rows))| {
        (ours.run.outcome.generated != theirs.generated).then_some(i)
    };
    let again: Vec<usize> = ours.iter().zip(&sequences).enumerate().filter_map(differs).collect();
    let forced: Vec<Sequence> = again.iter().map(|&i| sequence(i, ours[i].run.tokens(), 0)).collect();
    let mut forced = match forced.is_empty() {
        true => Vec::new(),
        false => {
            progress(&format!("{} again on {} prompts, fed our tokens", reference.name, forced.len()));
            ask(reference, prepared, plan, vocab, forced)?.sequences
        }
    }
    .into_iter();
    let (mut prompts, all) = (Vec::new(), ours.len());
    for (i, (ours, rows)) in ours.iter().zip(sequences).enumerate() {
        let theirs = match again.contains(&i) {
            true => forced.next().map(|rows| rows.logits).unwrap_or_default(),
            false => rows.logits,
        };
        let judged = Judged::of(
            (&ours.logits, &theirs, vocab),
            ours.run.request.prompt.len(),
            (&ours.run.outcome.generated, &rows.generated),
            &ours.sensitivity,
            plan.thresholds,
        );
        let mut judged = judged.ok_or_else(|| Error::Reference {
            reference: reference.name.clone(),
            failure: Failure::Garbage("its logits cannot be compared with ours".to_owned()),
        })?;
        if judged.unstable && !judged.held() {
            progress(&format!("{} on prompt {} of {}, operation by operation", reference.name, i + 1, all));
            judged.operations = match explain(model, reference, prepared, &ours.run.tokens(), plan) {
                Ok(explanation) if explanation.logits != theirs => {
                    let problem = "it gives other logits for the same tokens when it is run again".to_owned();
                    return Err(Error::Reference {
                        reference: reference.name.clone(),
                        failure: Failure::Garbage(problem),
                    });
                }
                Ok(explanation) => Some(explanation.operations(plan.thresholds)),
                // It gives no tensors: then nothing decides, and the logits stand.
                Err(Error::Reference { failure: Failure::Refused(_), .. }) => None,
                Err(error) => return Err(error),
            };
        }
        prompts.push(Prompt { run: ours.run.clone(), judged, theirs });
    }
    notes.extend(prepared.note.clone());
    Ok(Live { identity, feeding, notes, prompts })
}

fn sequence(i: usize, tokens: Vec<u32>, steps: usize) -> Sequence {
    // The engine has run as many steps: they fit.
    Sequence {
        id: i.to_string(),
        tokens,
        steps: u32::try_from(steps).unwrap_or(u32::MAX),
        tensors: Vec::new(),
    }
}

/// Asks the reference for `sequences`.
///
/// # Errors
/// - [`Error::Reference`]
pub(super) fn ask(
    reference: &Reference,
    prepared: &Prepared,
    plan: &Plan<'_>,
    vocab: usize,
    sequences: Vec<Sequence>,
) -> Result<Outputs> {
    let request = Request {
        protocol: PROTOCOL,
        model: prepared.path.clone(),
        activation: prepared.activation.name().to_owned(),
        threads: u32::try_from(plan.reference_threads).unwrap_or(1),
        sequences,
    };
    let run = reference.program.run(&request, vocab, plan.timeout);
    run.map_err(|failure| Error::Reference { reference: reference.name.clone(), failure })
}
