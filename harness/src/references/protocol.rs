//! What is said to a reference and by it: `docs/reference-protocol.md` as types. The schemas are generated from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// The version of the protocol that this code speaks.
pub const PROTOCOL: u32 = 1;
/// Exit code of a reference that cannot do what is asked.
pub const CANNOT: i32 = 3;
/// The file that a reference writes last.
pub const RESULT_FILE: &str = "result.json";

/// What a reference is to compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Absolute path of a GGUF file.
    pub model: PathBuf,
    /// Gate of the feed-forward block: `relu2` or `silu`.
    pub activation: String,
    /// Threads to use.
    pub threads: u32,
    /// Independent sequences, each from an empty context.
    pub sequences: Vec<Sequence>,
}

/// One sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// Letters, digits and `-`.
    pub id: String,
    /// Token ids to feed, at least one.
    pub tokens: Vec<u32>,
    /// Tokens to generate after them, the most likely each time, and to feed too.
    pub steps: u32,
    /// Names of the tensors that are wanted.
    pub tensors: Vec<String>,
}

/// `result.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Who computed it.
    pub reference: Identity,
    /// How tokens were fed.
    pub feeding: Feeding,
    /// Sentences that belong into the receipt.
    #[serde(default)]
    pub notes: Vec<String>,
    /// One for each sequence of the request.
    pub sequences: Vec<Computed>,
}

/// Who a reference is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How it was built.
    #[serde(default)]
    pub build: Option<String>,
}

/// How tokens were fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Feeding {
    /// One token per call.
    OneTokenAtATime,
    /// Several tokens per call.
    Batch,
}

/// What was computed for one sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Computed {
    /// The sequence's.
    pub id: String,
    /// The generated token ids.
    pub generated: Vec<u32>,
    /// A `.npy` file beside the result: `(tokens + steps, vocab)`.
    pub logits: String,
    /// Files of wanted tensors, `(tokens + steps, width)` each.
    #[serde(default)]
    pub tensors: std::collections::BTreeMap<String, String>,
}

/// What a reference says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Who it is.
    pub reference: Identity,
    /// Values of `general.architecture` that it runs.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// Tensors that it can give, without `blk.N.`.
    #[serde(default)]
    pub tensors: Vec<String>,
}

/// The schemas, each with the file that it is committed in, from the root of the repository.
pub fn schemas() -> [(&'static str, Value); 3] {
    [
        ("schemas/reference-request-v1.schema.json", schemars::schema_for!(Request).into()),
        ("schemas/reference-result-v1.schema.json", schemars::schema_for!(Answer).into()),
        ("schemas/reference-description-v1.schema.json", schemars::schema_for!(Description).into()),
    ]
}
