//! Models × references × prompts.

use super::diagnose::{Diagnosis, diagnose};
use super::judge::Class;
use super::live::{Live, Ours, Plan, Prompt, compare, ours};
use super::{Error, Result};
use crate::references::{Failure, Kind, Prepared, Reference, prepare};
use assay_engine::gguf::Gguf;
use assay_engine::model::{Activation, Model};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;
use std::path::Path;

/// Tokens of a seeded prompt: from 4 on, this many lengths.
const LENGTHS: u32 = 13;

/// `count` prompts of 4 to 16 tokens below `vocab`, the first of each being `begin` where there is one: the same on every machine.
pub fn seeded_prompts(vocab: usize, begin: Option<u32>, count: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut numbers = ChaCha20Rng::seed_from_u64(seed);
    // The vocabulary is bounded by the configuration, far below 2^32: the bias is none that matters here.
    let mut below = |n: u32| ((u64::from(numbers.next_u32()) * u64::from(n)) >> 32) as u32;
    let prompt = |_| {
        let length = 4 + below(LENGTHS);
        let rest = (0..length).map(|_| below(vocab as u32)).collect::<Vec<u32>>();
        begin.into_iter().chain(rest).take(length as usize).collect()
    };
    (0..count).map(prompt).collect()
}

/// How a cell came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Parity holds for every prompt.
    Held,
    /// It does not, and a known mistake explains it.
    Explained,
    /// It does not.
    Mismatch,
    /// The reference crashed, hung, or wrote nonsense.
    Finding,
    /// The reference cannot run the model, or nothing that it can run has exactly its weights.
    Refused,
}

impl Verdict {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Held => "held",
            Verdict::Explained => "explained",
            Verdict::Mismatch => "MISMATCH",
            Verdict::Finding => "FINDING",
            Verdict::Refused => "refused",
        }
    }
}

/// One model and one reference.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The model file's name.
    pub model: String,
    /// The reference's name.
    pub reference: String,
    /// How it came out.
    pub verdict: Verdict,
    /// Why, where it did not hold.
    pub why: Option<String>,
    /// What was found; `None` where nothing could be compared.
    pub live: Option<Live>,
    /// Known mistakes, tried where parity did not hold.
    pub diagnosis: Option<Diagnosis>,
}

/// The numbers of a cell, over all prompts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Numbers {
    /// Prompts compared.
    pub prompts: usize,
    /// Of which parity holds.
    pub prompts_held: usize,
    /// Greedy steps before the first difference, over all prompts.
    pub equal_steps: usize,
    /// Greedy steps.
    pub steps: usize,
    /// Rows with another most likely token that roundings explain.
    pub ties: usize,
    /// And that they do not.
    pub mismatches: usize,
    /// Smallest cosine of a row.
    pub cosine_min: f64,
    /// Smallest cosine of the engine's rows and its own under other roundings.
    pub sensitivity: f64,
    /// Largest difference of two logits.
    pub max_abs: f64,
}

impl Live {
    /// The numbers over all prompts.
    pub fn numbers(&self) -> Numbers {
        let judged = || self.prompts.iter().map(|prompt| &prompt.judged);
        Numbers {
            prompts: self.prompts.len(),
            prompts_held: judged().filter(|judged| judged.held()).count(),
            equal_steps: judged().map(|judged| judged.equal_steps).sum(),
            steps: judged().map(|judged| judged.steps).sum(),
            ties: judged().map(|judged| judged.count(Class::Tie)).sum(),
            mismatches: judged().map(|judged| judged.count(Class::Mismatch)).sum(),
            cosine_min: judged().map(|judged| judged.comparison.cosine_min).fold(1.0, f64::min),
            sensitivity: judged().map(|judged| judged.sensitivity).fold(1.0, f64::min),
            max_abs: judged().map(|judged| judged.comparison.max_abs).fold(0.0, f64::max),
        }
    }

    /// Parity holds for every prompt.
    pub fn held(&self) -> bool {
        !self.prompts.is_empty() && self.prompts.iter().all(|prompt| prompt.judged.held())
    }

    /// The prompt that came out worst: one that does not hold before one that does, then by cosine.
    pub fn worst(&self) -> Option<&Prompt> {
        self.prompts.iter().min_by(|a, b| {
            let (a, b) = (&a.judged, &b.judged);
            a.held().cmp(&b.held()).then(a.comparison.cosine_min.total_cmp(&b.comparison.cosine_min))
        })
    }
}

/// One model: its own file, a copy that llama.cpp reads if it needs one, and what the engine gives on each.
#[derive(Debug)]
pub struct Side {
    /// The file.
    pub prepared: Prepared,
    /// What the engine gave on it.
    pub ours: Vec<Ours>,
}

/// Prepares `model` for references of `kind`, and runs the engine on it. Prompts follow from the model.
///
/// # Errors
/// - the model cannot be read or run, or none of llama.cpp's formats holds its weights exactly; that of `prompts`.
pub fn side<E: From<Error>>(
    model: &Path,
    (kind, activation): (Kind, Option<Activation>),
    folder: &Path,
    plan: &Plan<'_>,
    prompts: impl Fn(&Gguf<'_>, &Model<'_>) -> Result<Vec<Vec<u32>>, E>,
    progress: &mut dyn FnMut(&str),
) -> Result<Side, E> {
    let prepared = prepare(model, kind, activation, folder).map_err(Error::from)?;
    let ours = {
        let gguf = prepared.file.gguf().map_err(Error::from)?;
        let model = Model::load(&gguf, Some(prepared.activation)).map_err(Error::from)?;
        ours(&model, plan.backend, plan.steps, &prompts(&gguf, &model)?, progress)?
    };
    Ok(Side { prepared, ours })
}

/// Fills one cell. What goes wrong with the reference is its verdict, not an error.
///
/// # Errors
/// - the engine's.
pub fn cell(
    side: &Side,
    reference: &Reference,
    plan: &Plan<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Cell> {
    let empty = |verdict, why: String| Cell {
        model: side.prepared.file.name().to_owned(),
        reference: reference.name.clone(),
        verdict,
        why: Some(why),
        live: None,
        diagnosis: None,
    };
    let gguf = side.prepared.file.gguf()?;
    let model = Model::load(&gguf, Some(side.prepared.activation))?;
    let live = match compare(reference, (&side.prepared, &model), &side.ours, plan, progress) {
        Ok(live) => live,
        Err(Error::Reference { failure: failure @ Failure::Refused(_), .. }) => {
            return Ok(empty(Verdict::Refused, failure.to_string()));
        }
        Err(Error::Reference { failure, .. }) if failure.is_finding() => {
            return Ok(empty(Verdict::Finding, failure.to_string()));
        }
        Err(error) => return Err(error),
    };
    if live.held() {
        let alone = live.prompts.iter().filter(|prompt| prompt.judged.operations.is_some()).count();
        let why = (alone > 0).then(|| {
            format!(
                "roundings alone take its logits anywhere: {alone} prompts were judged operation by operation"
            )
        });
        return Ok(Cell { why, live: Some(live), ..empty(Verdict::Held, String::new()) });
    }
    let worst = live.worst().expect("a prompt that does not hold");
    let failures = worst.judged.failures().join("; ");
    let diagnosis =
        diagnose(&model, plan.backend, &worst.run.tokens(), &worst.theirs, plan.thresholds, progress)?;
    let explained = !diagnosis.suspects.is_empty();
    let verdict = if explained { Verdict::Explained } else { Verdict::Mismatch };
    let why = format!("{failures}; {}", diagnosis.sentence());
    Ok(Cell { live: Some(live), diagnosis: Some(diagnosis), ..empty(verdict, why) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_the_same_everywhere() {
        let prompts = seeded_prompts(512, Some(509), 100, 1);
        assert_eq!(prompts.len(), 100);
        assert!(
            prompts.iter().all(|p| (4..=16).contains(&p.len()) && p[0] == 509 && p.iter().all(|&t| t < 512))
        );
        assert_eq!(prompts[..2], seeded_prompts(512, Some(509), 2, 1));
        assert_ne!(prompts[0], seeded_prompts(512, Some(509), 1, 2)[0]);
    }
}
