//! The subject and the claim: what ran, given what, and what came out, all of it the same on any machine.

use crate::receipts::text::{Decimal, Label, Sha256Hex, U64, Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The model file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelFacts {
    /// Digest of the whole file.
    pub sha256: Sha256Hex,
    /// Its length in bytes.
    pub bytes: U64,
    /// `general.architecture`.
    pub architecture: String,
    /// Activation of the feed-forward part that was used: `relu2`, `silu`.
    pub activation: Word,
    /// Hyper-parameters.
    pub shape: Shape,
    /// One digest for the same weights in whatever format: see `canonical::decoded_weights_sha256`.
    pub decoded_weights_sha256: Option<Sha256Hex>,
    /// Every tensor, in the file's order.
    pub tensors: Vec<TensorFacts>,
    /// Where the file came from, when a seed made it.
    pub fixture: Option<Fixture>,
    /// Digest of the tokenizer, when one was used.
    pub tokenizer_sha256: Option<Sha256Hex>,
}

/// Hyper-parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Transformer layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub embedding: u32,
    /// Width of the feed-forward part.
    pub feed_forward: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub heads_kv: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
}

/// One tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TensorFacts {
    /// Its name in the file.
    pub name: String,
    /// Its weight format.
    pub format: String,
    /// Rows (outputs); 1 for a vector.
    pub rows: U64,
    /// Columns (inputs).
    pub cols: U64,
    /// Digest of its bytes in the file.
    pub sha256: Sha256Hex,
    /// Digest of its decoded values.
    pub decoded_sha256: Option<Sha256Hex>,
}

/// The seed that made the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// The fixture's name.
    pub name: String,
    /// Its seed.
    pub seed: U64,
    /// The generator's version.
    pub generator_version: u32,
}

/// What the model was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The prompt.
    #[schemars(length(min = 1))]
    pub prompt_token_ids: Vec<u32>,
    /// Tokens to generate.
    pub steps: u32,
    /// How the next token was chosen.
    pub sampling: Sampling,
}

/// How the next token was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Sampling {
    /// The largest logit; of equals the one with the smallest id.
    Greedy {},
    /// Drawn with a seed.
    Seeded {
        /// The generator: `chacha20`.
        rng: Word,
        /// Its seed.
        seed: U64,
        /// Logits are divided by it.
        temperature: Decimal,
        /// Only this many of the most likely tokens.
        top_k: Option<u32>,
        /// Only the most likely tokens that together reach this probability.
        top_p: Option<Decimal>,
    },
}

/// What is claimed to come out the same anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Claim {
    /// Of a model run, with or without a reference.
    ModelRun(ModelRunClaim),
    /// Of a kernel check.
    KernelCheck(KernelCheckClaim),
    /// Of a check of kernels from outside.
    PluginCheck(PluginCheckClaim),
}

/// The arithmetic contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Contract {
    /// `exact-v1`.
    ExactV1,
}

/// What came out of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelRunClaim {
    /// The arithmetic contract.
    pub contract: Contract,
    /// The generated tokens, one per step.
    pub generated_token_ids: Vec<u32>,
    /// Digest of all logits.
    pub logits: Logits,
    /// Digest of the residual stream after each layer, over all tokens.
    pub layer_chain: Vec<Sha256Hex>,
    /// Digest of the RoPE tables.
    pub rope_table_sha256: Sha256Hex,
}

/// All logits of a run: `(rows, vocab)` f32, little-endian, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logits {
    /// One row per token that went through the model: prompt and generated.
    pub rows: u32,
    /// Columns.
    pub vocab: u32,
    /// Digest of the bytes.
    pub sha256: Sha256Hex,
}

/// What the scalar kernels gave for a list of cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelCheckClaim {
    /// The arithmetic contract.
    pub contract: Contract,
    /// The cases.
    pub case_list: CaseList,
    /// What came out, an entry per operation.
    #[schemars(length(min = 1))]
    pub operations: Vec<CheckedOperation>,
}

/// A list of cases, by what makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseList {
    /// The seed.
    pub seed: U64,
    /// The version of what turns the seed into cases.
    pub version: u32,
}

/// What the scalar kernels gave for one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckedOperation {
    /// The operation.
    pub operation: Word,
    /// Cases.
    pub cases: u32,
    /// Digest of all outputs, in the order of the cases.
    pub outputs_sha256: Sha256Hex,
}

/// What kernels from outside were held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginCheckClaim {
    /// The arithmetic contract.
    pub contract: Contract,
    /// The cases: those of the list for plug-ins, whose versions are its own.
    pub case_list: CaseList,
    /// The name that the library gives itself.
    pub name: Label,
    /// Its version, in its own words.
    pub version: String,
    /// SHA-256 of the library.
    pub library_sha256: Sha256Hex,
    /// What it says of its kernels.
    #[schemars(length(min = 1))]
    pub kernels: Vec<PluginKernel>,
}

/// What a kernel from outside says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginKernel {
    /// Its name.
    pub name: Label,
    /// Weight format.
    pub weights: Label,
    /// Activation format.
    pub activations: Label,
    /// Kind of result: `i32`, `f32-exact`, `f32-close`.
    pub result: Label,
    /// Tokens that it takes at once.
    #[schemars(range(min = 1))]
    pub max_tokens: u32,
}
