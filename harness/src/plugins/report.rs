//! What was found: plain data, which the child sends and the parent keeps.

use super::groups::Group;
use assay_engine::kernels::plugin::{Declared, ResultKind};
use serde::{Deserialize, Serialize};

/// Something that is wrong with a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// One word for the kind of mistake (docs/plugins.md lists them).
    pub kind: String,
    /// What was seen.
    pub message: String,
    /// The case: the same seed gives it again. Empty where it belongs to no case.
    pub case: String,
}

impl Finding {
    pub(super) fn new(kind: &str, message: impl Into<String>, case: String) -> Finding {
        Finding { kind: kind.to_owned(), message: message.into(), case }
    }
}

/// What came of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupResult {
    /// The group.
    pub group: Group,
    /// Cases whose outputs were as they must be.
    pub cases: u64,
    /// Cases that the kernel does not take.
    pub declined: u64,
    /// SHA-256 of all outputs that were right, u32 each, little-endian, in order.
    pub outputs_sha256: String,
    /// Of close results: the largest error, as a share of the terms' magnitudes.
    pub worst: Option<f64>,
    /// The first thing that was wrong. The rest of the group was not run.
    pub finding: Option<Finding>,
}

impl GroupResult {
    pub(super) fn new(group: Group) -> GroupResult {
        let outputs_sha256 = String::new();
        GroupResult { group, cases: 0, declined: 0, outputs_sha256, worst: None, finding: None }
    }
}

/// What a kernel says of itself, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// Name.
    pub name: String,
    /// Weight format.
    pub weights: String,
    /// Activation format.
    pub activations: String,
    /// Kind of result: `i32`, `f32-exact`, `f32-close`.
    pub result: String,
    /// Tokens taken at once.
    pub max_tokens: u32,
}

impl KernelFacts {
    pub(super) fn of(declared: &Declared) -> KernelFacts {
        KernelFacts {
            name: declared.name.clone(),
            weights: declared.weights.clone(),
            activations: declared.activations.clone(),
            result: declared.result.name().to_owned(),
            max_tokens: u32::try_from(declared.max_tokens).unwrap_or(u32::MAX),
        }
    }

    /// Whether its results are held to a bound, not to bits.
    pub fn is_close(&self) -> bool {
        self.result == ResultKind::F32Close.name()
    }
}

/// What came of one kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelReport {
    /// What it says of itself.
    pub kernel: KernelFacts,
    /// Whether every group held.
    pub held: bool,
    /// Its groups, in order.
    pub groups: Vec<GroupResult>,
    /// Groups that were not run, because the kernel had died too often.
    pub not_run: Vec<Group>,
}

impl KernelReport {
    /// Everything wrong with it.
    pub fn findings(&self) -> impl Iterator<Item = (Group, &Finding)> {
        self.groups.iter().filter_map(|result| Some((result.group, result.finding.as_ref()?)))
    }

    /// Cases that held.
    pub fn cases(&self) -> u64 {
        self.groups.iter().map(|result| result.cases).sum()
    }
}

/// Why a library could not be checked: nothing was decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It cannot be loaded, or is not what it should be; in the words of the child.
    #[error("{0}")]
    Refused(String),
    /// The child could not be started or understood.
    #[error("the child process that loads it: {0}; nothing was decided")]
    Child(String),
    /// A file cannot be read.
    #[error(transparent)]
    Engine(#[from] assay_engine::Error),
}

/// What came of a library.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The name that it gives itself.
    pub name: String,
    /// Its version, in its own words.
    pub version: String,
    /// The file's name.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Seed of the cases.
    pub seed: u64,
    /// Its kernels.
    pub kernels: Vec<KernelReport>,
    /// What was wrong before any kernel ran: it died while it was loaded.
    pub finding: Option<Finding>,
}

impl Report {
    /// Nothing was found, and something was checked.
    pub fn held(&self) -> bool {
        self.finding.is_none() && !self.kernels.is_empty() && self.kernels.iter().all(|kernel| kernel.held)
    }
}
