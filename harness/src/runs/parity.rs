//! A run held to golden data: the exact digest decides; the distance to the C++ program is measured beside it.

use super::compare::{Comparison, compare};
use super::engine::{Backend, Run, run_with_logits};
use super::golden::{Entry, Golden};
use super::{Error, Result};
use assay_engine::kernels::{Kernels, scalar};
use assay_engine::kind::Kind;
use assay_engine::model::{Activation, Model};

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
    let vocab = run.outcome.vocab;
    let near = |kernels: &'static Kernels, model: &Model<'_>| -> Result<bool> {
        let backend = Backend { kernels, threads: run.backend.threads, batch: 0 };
        let (_, theirs) = run_with_logits(model, backend, &run.request.prompt, 0)?;
        let rows = run.request.prompt.len();
        let all = compare(&logits[..rows * vocab], &theirs[..rows * vocab], vocab);
        Ok(all.is_some_and(|all| all.cosine_min >= SAME_GRAPH))
    };
    if near(&scalar::KERNELS, model)? {
        return Ok(None); // a matter of rounding
    }
    let gate = match model.activation {
        Activation::Relu2 => Activation::Silu,
        _ => Activation::Relu2,
    };
    if gate == Activation::Silu && near(&scalar::KERNELS, &Model { activation: gate, ..model.clone() })? {
        return Ok(Some(Kind::SiluForRelu2));
    }
    for (attention, feed_forward) in [(true, true), (true, false), (false, true)] {
        let mut without = model.clone();
        for layer in &mut without.weights.layers {
            layer.attn_sub_norm = layer.attn_sub_norm.take().filter(|_| !attention);
            layer.ffn_sub_norm = layer.ffn_sub_norm.take().filter(|_| !feed_forward);
        }
        if model.config.arch.sub_norms && near(&scalar::KERNELS, &without)? {
            return Ok(Some(Kind::SubNormSkipped));
        }
    }
    Ok(near(&LAYER_NORM, model)?.then_some(Kind::LayernormForRmsnorm))
}

/// The right kernels, with a layer norm in place of the RMS norm.
static LAYER_NORM: Kernels = Kernels { rms_norm: layer_norm, ..scalar::KERNELS };

/// `out_i = (x_i − mean) / sqrt(var + eps) · w_i`, in f64.
fn layer_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let var = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    let r = 1.0 / (var + f64::from(eps)).sqrt();
    for ((out, &x), &w) in out.iter_mut().zip(x).zip(w) {
        *out = ((f64::from(x) - mean) * r * f64::from(w)) as f32;
    }
}

fn not_comparable(entry: &Entry, problem: &str) -> Error {
    Error::Golden {
        path: entry.logits_one_token_at_a_time.file.clone(),
        problem: problem.to_owned(),
        advice: "restore the golden data",
    }
}
