//! What a receipt holds: plain data, one JSON object per struct, closed vocabulary outside `extensions`.
//!
//! Keys are in snake case except the three that in-toto fixes (`_type`, `subject`, `predicateType`). What is absent is
//! written as `null`, so that there is one form.

mod environment;
mod execution;
mod model;
mod results;

pub use environment::{Accelerator, Build, Cache, Cpu, Environment, UNKNOWN};
pub use execution::{
    Audit, ComputePath, Device, DiscardReason, Discarded, Execution, Fallback, FloatEnvironment,
    FloatRegister, Measurement, OperationDigest, OtherPrompt, Phase, Repeat, Sample, Work, operation,
};
pub use model::{
    CaseList, CheckedOperation, Claim, Contract, Fixture, Input, KernelCheckClaim, Logits, ModelFacts,
    ModelRunClaim, PluginCheckClaim, PluginKernel, Sampling, Shape, TensorFacts,
};
pub use results::{
    DifferenceClass, Divergence, Feeding, Greedy, KernelResult, LiveParity, OperationsAlone, Parity,
    PluginFinding, PluginResult, Reference, RowDifference, Thresholds,
};

use super::text::{DateTime, FileName, Sha256Hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `_type` of every in-toto statement of version 1.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of a receipt without the major version. A name, not an address: nothing is fetched.
pub const PREDICATE_BASE: &str = "https://assay-project.dev/receipt/v";
/// `predicateType` of the receipts that this code writes and reads.
pub const PREDICATE_TYPE: &str = "https://assay-project.dev/receipt/v1";

/// One receipt: an in-toto statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// What kind of statement this is.
    #[serde(rename = "_type")]
    pub statement_type: StatementType,
    /// What the claim is about: exactly one thing, by its digest.
    #[schemars(length(min = 1, max = 1))]
    pub subject: Vec<Subject>,
    /// What kind of predicate this is, with its major version.
    #[serde(rename = "predicateType")]
    pub predicate_type: PredicateType,
    /// Everything else.
    pub predicate: Predicate,
}

/// The one statement type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StatementType {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "https://in-toto.io/Statement/v1")]
    V1,
}

/// The one predicate type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PredicateType {
    /// [`PREDICATE_TYPE`].
    #[serde(rename = "https://assay-project.dev/receipt/v1")]
    V1,
}

/// A thing with a digest: the model file, or the list of cases of a kernel check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// What the writer called it; no part of the claim's identity.
    pub name: FileName,
    /// Its digest.
    pub digest: Digest,
}

/// The digests of a subject, by algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// SHA-256.
    pub sha256: Sha256Hex,
}

/// What is said about the subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    /// What was done.
    pub kind: Kind,
    /// SHA-256 of the canonical subject digests, model, input and claim.
    pub claim_id: Sha256Hex,
    /// When the receipt was written.
    pub created: DateTime,
    /// What wrote it.
    pub tool: Tool,
    /// The model; `null` for a kernel check.
    pub model: Option<ModelFacts>,
    /// What the model was given; `null` for a kernel check.
    pub input: Option<Input>,
    /// What is claimed to come out the same anywhere.
    pub claim: Claim,
    /// What ran here.
    pub execution: Execution,
    /// How long it took here.
    pub measurement: Option<Measurement>,
    /// Evidence that the run was not a show; only in a model run that was audited. Absent elsewhere, not `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Audit")]
    pub audit: Option<Audit>,
    /// How far a reference is away; only in a parity receipt, and always there.
    pub parity: Option<Parity>,
    /// What each kernel gave; only in a kernel check, and always there.
    pub kernel_results: Option<Vec<KernelResult>>,
    /// What kernels from outside gave; only in a plug-in check, and always there. Absent elsewhere, not `null`: receipts
    /// from before there were plug-ins have the same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<PluginResult>")]
    pub plugin_results: Option<Vec<PluginResult>>,
    /// Whether what was asked for held.
    pub status: Status,
    /// Where it ran.
    pub environment: Environment,
    /// What this receipt does not prove, in sentences.
    pub limits: Vec<String>,
    /// What was adjusted after the fact.
    pub corrections: Vec<Correction>,
    /// Anything else, under keys of the writer's choosing. Covered by the receipt id, not by the claim id.
    pub extensions: Map<String, Value>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A model was run.
    ModelRun,
    /// A model was run here and by a reference.
    Parity,
    /// Kernels were held against the scalar ones.
    KernelCheck,
    /// Kernels from outside were held to the contract.
    PluginCheck,
}

impl Kind {
    /// The name in JSON, which is also the folder's.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ModelRun => "model-run",
            Kind::Parity => "parity",
            Kind::KernelCheck => "kernel-check",
            Kind::PluginCheck => "plugin-check",
        }
    }
}

/// Whether what was asked for held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It held.
    Held,
    /// It did not.
    Failed,
}

/// The program that wrote the receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// `assay`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The git commit it was built from, or `unknown`.
    pub commit: String,
    /// Whether tracked files differed from that commit when it was built; `null` where unknown.
    pub dirty: Option<bool>,
}

/// One thing adjusted after the fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// When.
    pub at: DateTime,
    /// What: a JSON pointer into this receipt.
    pub field: String,
    /// What stood there.
    pub before: String,
    /// What stands there now.
    pub after: String,
    /// Why.
    pub reason: String,
}
