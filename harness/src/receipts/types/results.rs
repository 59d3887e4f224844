//! What comparisons found: against another implementation, and of kernels against the scalar ones.

use crate::receipts::text::{Decimal, KernelName, Label, Sha256Hex, Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a reference is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parity {
    /// What it was.
    pub reference: Reference,
    /// How the reference was given the prompt.
    pub feeding: Feeding,
    /// Positions compared.
    #[schemars(range(min = 1))]
    pub positions: u32,
    /// Smallest cosine of the two rows of logits over the positions.
    pub cosine_min: Decimal,
    /// Mean cosine.
    pub cosine_mean: Decimal,
    /// Largest difference of two logits.
    pub max_abs: Decimal,
    /// Mean Kullback-Leibler divergence of the reference's distribution from ours, nats.
    pub kl_mean: Decimal,
    /// Largest divergence.
    pub kl_max: Decimal,
    /// Positions where the most likely token is the same.
    pub top1_agree: u32,
    /// Mean share of the ten most likely tokens that are the same, 0 to 1.
    pub top10_agree: Decimal,
    /// Greedy decoding, each feeding itself.
    pub greedy: Greedy,
    /// What was asked for.
    pub thresholds: Thresholds,
    /// The digest that our logits must have, when another implementation of the contract gave one.
    pub expected_logits_sha256: Option<Sha256Hex>,
}

/// The other implementation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its commit.
    pub commit: Option<String>,
    /// How it was built.
    pub build: Option<String>,
    /// Digest of the program, or of the stored vectors.
    pub sha256: Option<Sha256Hex>,
    /// Published defects that it has.
    pub known_defects: Vec<Word>,
}

/// How the reference was given the prompt. Some do not agree with themselves between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Feeding {
    /// One token per call.
    OneTokenAtATime,
    /// Several tokens per call.
    Batch,
}

/// Greedy decoding, each feeding itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Greedy {
    /// Steps taken by both.
    pub steps: u32,
    /// Steps before the first that differs.
    pub equal: u32,
    /// The first that differs.
    pub first_divergence: Option<Divergence>,
}

/// A step where the two chose different tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Divergence {
    /// The step, from 0.
    pub step: u32,
    /// Our token.
    pub ours: u32,
    /// The reference's.
    pub theirs: u32,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// `cosine_min` at least this.
    pub cosine_min: Decimal,
    /// `greedy.equal` at least this.
    pub greedy_equal: u32,
}

/// What one kernel gave for the cases of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelResult {
    /// The operation.
    pub operation: Word,
    /// The kernel.
    pub kernel: KernelName,
    /// Cases.
    pub cases: u32,
    /// Digest of all outputs, in the order of the cases: the claim's, if the kernel is right.
    pub outputs_sha256: Sha256Hex,
}

/// What one kernel from outside gave for one group of cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginResult {
    /// The kernel.
    pub kernel: Label,
    /// The group.
    pub group: Label,
    /// Cases that held.
    pub cases: u32,
    /// Cases that it does not take.
    pub declined: u32,
    /// Digest of the outputs that were right; `null` where the group did not come to its end.
    pub outputs_sha256: Option<Sha256Hex>,
    /// Of results held to a bound: the largest error, as a share of the terms' magnitudes.
    pub largest_error: Option<Decimal>,
    /// What was wrong; `null` if nothing was.
    pub finding: Option<PluginFinding>,
}

/// Something that is wrong with a kernel from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginFinding {
    /// The kind of mistake; `not-run` for a group that was left out after others had killed their process.
    pub kind: Label,
    /// What was seen.
    pub message: String,
    /// The case.
    pub case: String,
}
