//! A run held to golden data: the exact digest decides; the distance to the C++ program is measured beside it.

use super::compare::{Comparison, compare};
use super::engine::{Backend, Run, run_with_logits};
use super::golden::{Entry, Golden};
use super::{Error, Result, hypotheses};
use assay_engine::kernels::scalar;
use assay_engine::kind::Kind;
use assay_engine::model::Model;

/// Smallest cosine of any position that parity with golden logits allows. Two float kernels of the same graph agree to the
/// last digits until one int8 rounding flips; 0.9999 is what that costs at worst on the golden models.
pub const COSINE_MIN: f64 = 0.9999;

/// What the comparison found.
#[derive(Debug, Clone)]
pub struct Parity {
    /// The run that was compared.
    pub run: Run,
    /// Digest that the contract requires, in hex.
    pub expected_sha256: String,
    /// Positions up to the first different token, compared.
    pub comparison: Comparison,
    /// The reference's tokens.
    pub reference_tokens: Vec<u32>,
    /// For logits that are not exact: the known error in the graph that gives such logits.
    pub kind: Option<Kind>,
}

/// A greedy step at which the two chose different tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstDifference {
    /// Step, from 0.
    pub step: usize,
    /// The engine's token.
    pub ours: u32,
    /// The reference's token.
    pub theirs: u32,
}

impl Parity {
    /// The engine's logits have exactly the bits of the contract.
    pub fn exact(&self) -> bool {
        hex::encode(self.run.outcome.logits_sha256) == self.expected_sha256
    }

    /// Greedy tokens that are equal before the first difference.
    pub fn equal_tokens(&self) -> usize {
        self.first_difference().map_or(self.reference_tokens.len(), |difference| difference.step)
    }

    /// The first step with different tokens.
    pub fn first_difference(&self) -> Option<FirstDifference> {
        let pairs = self.run.outcome.generated.iter().zip(&self.reference_tokens).enumerate();
        let mut different = pairs.filter(|(_, (ours, theirs))| ours != theirs);
        different.next().map(|(step, (&ours, &theirs))| FirstDifference { step, ours, theirs })
    }

    /// Why parity does not hold; empty if it does.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if !self.exact() {
            let got = hex::encode(self.run.outcome.logits_sha256);
            let named = self.kind.map_or(String::new(), |kind| format!(": the error is that {kind}"));
            failures
                .push(format!("logits digest is {got}, exact-v1 requires {}{named}", self.expected_sha256));
        }
        if self.comparison.cosine_min < COSINE_MIN {
            failures.push(format!("cosine {} is below {COSINE_MIN}", self.comparison.cosine_min));
        }
        if let Some(FirstDifference { step, ours, theirs }) = self.first_difference() {
            failures.push(format!("greedy step {step}: ours is token {ours}, the reference's is {theirs}"));
        }
        failures
    }

    /// Every requirement is met.
    pub fn held(&self) -> bool {
        self.failures().is_empty()
    }
}

/// Runs `model` on the entry's prompt and compares with the reference's logits.
///
/// Rows are compared while both sides have been fed the same tokens: up to and including the row that chose the first
/// different token.
///
/// # Errors
/// - the engine's, or golden data that do not fit the model or hold NaN.
pub fn against_golden(golden: &Golden, entry: &Entry, model: &Model<'_>, backend: Backend) -> Result<Parity> {
    let reference = golden.logits(entry)?;
    let (prompt, steps) = (&entry.prompt_token_ids, entry.greedy_token_ids.len());
    if model.config.vocab != entry.vocab_size {
        return Err(not_comparable(entry, "its vocabulary size is not the model's"));
    }
    let (run, logits) = run_with_logits(model, backend, prompt, steps)?;
    let same = run.outcome.generated.iter().zip(&entry.greedy_token_ids).take_while(|(a, b)| a == b).count();
    let rows = prompt.len() + same;
    let values = rows * entry.vocab_size;
    let comparison = compare(&logits[..values], &reference[..values], entry.vocab_size);
    let mut parity = Parity {
        run,
        expected_sha256: entry.exact_v1_logits_sha256.clone(),
        comparison: comparison.ok_or_else(|| not_comparable(entry, "its logits hold NaN or infinity"))?,
        reference_tokens: entry.greedy_token_ids.clone(),
        kind: None,
    };
    if !parity.exact() {
        let file = golden.model(entry)?;
        parity.kind = wrong_graph(&Model::load(&file.gguf()?, None)?, &parity.run, &logits)?;
    }
    Ok(parity)
}

/// Cosine with the logits of a wrong graph above which that graph is what ran.
const SAME_GRAPH: f64 = 0.999;

/// What is wrong with a graph whose logits for the prompt are `logits` up to rounding, while those of the right one,
/// `model`, are not. Generated tokens do not count: rounding may choose others.
fn wrong_graph(model: &Model<'_>, run: &Run, logits: &[f32]) -> Result<Option<Kind>> {
    let backend = Backend { kernels: &scalar::KERNELS, threads: run.backend.threads, batch: 0 };
    let prompt = &run.request.prompt[..];
    let logits = &logits[..prompt.len() * run.outcome.vocab];
    let near = |cosine: &f64| *cosine >= SAME_GRAPH;
    if hypotheses::cosine(model, backend, prompt, logits)?.is_some_and(|cosine| near(&cosine)) {
        return Ok(None); // a matter of rounding
    }
    let tried = hypotheses::ALL.iter().filter_map(|hypothesis| {
        let cosine = hypothesis.cosine(model, backend, prompt, logits)??;
        near(&cosine).then_some((hypothesis.kind, cosine))
    });
    Ok(tried.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(kind, _)| kind))
}

fn not_comparable(entry: &Entry, problem: &str) -> Error {
    Error::Golden {
        path: entry.logits_one_token_at_a_time.file.clone(),
        problem: problem.to_owned(),
        advice: "restore the golden data",
    }
}
