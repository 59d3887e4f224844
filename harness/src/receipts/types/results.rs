//! What comparisons found: against another implementation, and of kernels against the scalar ones.

use crate::receipts::text::{Decimal, KernelName, Label, Sha256Hex, U64, Word};
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
    /// What a reference that ran beside the engine adds. Absent for stored logits, not `null`: receipts from before there were
    /// such references have the same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LiveParity")]
    pub live: Option<LiveParity>,
}

/// What a reference that ran beside the engine adds. It was fed our tokens, one at a time, after it had chosen its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LiveParity {
    /// Largest normalised mean squared error of a row.
    pub nmse_max: Decimal,
    /// Largest distance of two logits in units in the last place.
    pub max_ulp: U64,
    /// Largest rank of the reference's most likely token among ours, from 1.
    pub rank_max: u32,
    /// Smallest cosine of a row of ours and the same row when only roundings change.
    pub own_cosine: Decimal,
    /// Rows with another most likely token.
    pub differences: Vec<RowDifference>,
    /// The operations one by one, where roundings alone take the logits so far that they say nothing; `null` elsewhere.
    pub operations: Option<OperationsAlone>,
    /// A difference is a tie up to this many times what changed roundings do to a logit.
    pub tie_factor: Decimal,
    /// Digest of the file that the thresholds come from; `null` for the table of this version.
    pub thresholds_sha256: Option<Sha256Hex>,
    /// Known mistakes that explain the reference, the best first.
    pub explained_by: Vec<Word>,
    /// What the reference, and the preparation of the model, have to say.
    pub notes: Vec<String>,
}

/// The operations of a model, each run on the reference's own input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationsAlone {
    /// How many there are.
    #[schemars(range(min = 1))]
    pub all: u32,
    /// How many could be compared.
    pub compared: u32,
    /// As many must be.
    pub asked: u32,
    /// Names of those that differ by more than roundings do.
    pub wrong: Vec<String>,
}

/// A row with another most likely token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowDifference {
    /// The row, from 0.
    pub row: u32,
    /// Our token.
    pub ours: u32,
    /// The reference's.
    pub theirs: u32,
    /// How far our logit of our token is above our logit of theirs.
    pub gap: Decimal,
    /// How far the reference's logit of its token is above its logit of ours.
    pub their_gap: Decimal,
    /// The largest change of a logit of this row when only roundings change.
    pub perturbation: Decimal,
    /// What it means.
    pub class: DifferenceClass,
}

/// What a difference of tokens means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceClass {
    /// Other roundings of the same arithmetic may choose the other.
    Tie,
    /// Roundings do not explain it.
    Mismatch,
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
