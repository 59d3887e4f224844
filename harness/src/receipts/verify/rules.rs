//! The rules, in the order in which they are checked, and what a broken one means.

use crate::exit::Exit;
use crate::receipts::text::Sha256Hex;
use crate::receipts::types::Statement;
use assay_engine::kind::Kind;
use serde::Serialize;

/// Defines [`Rule`] and the list of all in order, so that neither can miss one.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $verdict:ident;)+) => {
        /// A rule. Their order is the order of checking.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Rule { $($(#[$doc])* $name),+ }

        impl Rule {
            /// Every rule, in order.
            pub const ALL: &'static [Rule] = &[$(Rule::$name),+];

            /// Its name in reports and documents.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$name => $text),+ }
            }

            /// The verdict when it is broken.
            pub const fn verdict(self) -> Verdict {
                match self { $(Rule::$name => Verdict::$verdict),+ }
            }
        }
    };
}

rules! {
    /// A signed receipt is in a DSSE envelope that can be opened.
    Envelope = "envelope", Tampered;
    /// At most [`MAX_BYTES`](super::MAX_BYTES).
    Size = "size", Tampered;
    /// Nested at most [`MAX_DEPTH`](super::MAX_DEPTH) deep.
    Depth = "depth", Tampered;
    /// UTF-8, and one JSON value.
    Json = "json", Tampered;
    /// No key twice in an object.
    DuplicateKeys = "duplicate-keys", Tampered;
    /// A major version that this code knows.
    Version = "version", Inconclusive;
    /// As the schema says; no unknown field outside `extensions`.
    Schema = "schema", Tampered;
    /// No float, no integer past 2^53 − 1, not even in `extensions`.
    Numbers = "numbers", Tampered;
    /// The bytes are the canonical form (RFC 8785) of what they say.
    CanonicalForm = "canonical-form", Tampered;
    /// The claim id is that of the claim.
    ClaimId = "claim-id", Tampered;
    /// The bytes have the id that the caller or the file name gives.
    ReceiptId = "receipt-id", Tampered;
    /// The file name's date is that of `created`.
    FileName = "file-name", Tampered;
    /// Signed with the keys that the caller gives.
    Signature = "signature", Tampered;
    /// The model file has the digest and length that the receipt gives.
    Files = "files", Tampered;
    /// The kind has the parts that it needs, and no others.
    Kind = "kind", Tampered;
    /// The subject is the model or the case list.
    Subject = "subject", Tampered;
    /// Every tensor of the architecture, in its shape, in a format that fits its place; the decoded-weights digest.
    Tensors = "tensors", Tampered;
    /// A way of choosing tokens that this version knows to write.
    Sampling = "sampling", Inconclusive;
    /// Tokens, steps, rows of logits and vocabulary fit each other.
    TokenCounts = "token-counts", Tampered;
    /// A digest per layer.
    LayerChain = "layer-chain", Tampered;
    /// The operations recorded are those of the pass, and end in the claim.
    Trace = "trace", Tampered;
    /// Rounding to nearest with subnormals, and the register's bits say so.
    FloatEnvironment = "float-environment", Tampered;
    /// An instruction set that there is and that the environment has; threads and batch in bounds.
    Execution = "execution", Tampered;
    /// Something was computed.
    ComputePath = "compute-path", Inconclusive;
    /// Each counter is possible in itself.
    WorkRows = "work-rows", Tampered;
    /// The counters add up to what the shape and the token count require.
    Work = "work", Tampered;
    /// The bytes of weights are those of the tensors' formats, read by the kernels of those formats.
    WeightBytes = "weight-bytes", Tampered;
    /// Each kernel is one of its operation, and of the instruction set that was asked for, or its fallback is explained.
    Kernels = "kernels", Tampered;
    /// Each fallback names a kernel that ran.
    Fallbacks = "fallbacks", Tampered;
    /// A device if and only if kernels ran on one.
    Device = "device", Tampered;
    /// Samples are possible and of the tokens that ran; discarded ones exist.
    Measurement = "measurement", Tampered;
    /// The audit's runs are possible and of the receipt's own claim.
    Audit = "audit", Tampered;
    /// The metrics of parity are possible and fit the claim; the thresholds are those of this version.
    ParityMetrics = "parity-metrics", Tampered;
    /// Each operation of the list of cases was run on its kernel of the instruction set.
    KernelResults = "kernel-results", Tampered;
    /// The status follows from the metrics.
    Status = "status", Tampered;
    /// Not written in the future.
    Created = "created", Tampered;
    /// Nothing was corrected in the future.
    Corrections = "corrections", Tampered;
    /// Not older than the caller allows.
    Age = "age", Inconclusive;
    /// No fallback, no correction, a build that can be made again, where the caller is strict.
    Policy = "policy", Inconclusive;
    /// It stands in the ledger that the caller names, whose chain holds.
    Chain = "chain", Tampered;
}

impl Rule {
    /// The published kind of error that a broken rule shows.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Rule::FloatEnvironment => Some(Kind::FtzOn),
            Rule::ComputePath
            | Rule::WorkRows
            | Rule::Work
            | Rule::WeightBytes
            | Rule::Kernels
            | Rule::Fallbacks
            | Rule::Device
            | Rule::Measurement
            | Rule::Audit => Some(Kind::ReportedNotRun),
            _ => None,
        }
    }
}

/// What became of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Checked, and so.
    Held,
    /// Checked, and not so.
    Broken,
    /// Not checked; the message says why.
    NotChecked,
}

/// One rule's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleResult {
    /// The rule.
    pub rule: Rule,
    /// What became of it.
    pub outcome: Outcome,
    /// What was seen, or why it was not checked.
    pub message: String,
    /// What this result does to the verdict; `None` if it leaves it valid.
    pub consequence: Option<Verdict>,
}

/// What can be said of the receipt. The worst consequence of a rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Verdict {
    /// Every rule that must be checked was, and held.
    Valid,
    /// Valid, and the claim came out the same when it was run again.
    Reproduced,
    /// It cannot be checked here. Never a pass.
    Inconclusive,
    /// The claim came out otherwise when it was run again.
    Diverged,
    /// A rule is broken: this is not what Assay wrote.
    Tampered,
}

impl Verdict {
    /// How the program ends.
    pub fn exit(self) -> Exit {
        match self {
            Verdict::Valid | Verdict::Reproduced => Exit::Held,
            Verdict::Tampered => Exit::Tampered,
            Verdict::Diverged => Exit::Diverged,
            Verdict::Inconclusive => Exit::Inconclusive,
        }
    }

    /// The name: `VALID`.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Valid => "VALID",
            Verdict::Reproduced => "REPRODUCED",
            Verdict::Diverged => "DIVERGED",
            Verdict::Tampered => "TAMPERED",
            Verdict::Inconclusive => "INCONCLUSIVE",
        }
    }
}

/// The verdict, every rule's result in the order of [`Rule::ALL`], and the receipt when it could be read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What can be said.
    pub verdict: Verdict,
    /// SHA-256 of the receipt's bytes (in an envelope: of its payload): the receipt id, when they are canonical.
    pub receipt_id: Sha256Hex,
    /// The ids of the caller's keys that signed it; none if the rule on signatures does not hold.
    pub signed_by: Vec<Sha256Hex>,
    /// A result per rule.
    pub rules: Vec<RuleResult>,
    /// The receipt, when it could be read. A `VALID` receipt may well say that its run *failed*.
    #[serde(skip)]
    pub statement: Option<Statement>,
}

impl Report {
    /// The rule that decided the verdict: the first broken one, otherwise the first that had to be checked and was
    /// not.
    pub fn decided_by(&self) -> Option<&RuleResult> {
        let broken = self.rules.iter().find(|result| result.outcome == Outcome::Broken);
        broken.or_else(|| self.rules.iter().find(|result| result.consequence.is_some()))
    }

    /// The result of `rule`.
    pub fn result(&self, rule: Rule) -> Option<&RuleResult> {
        self.rules.iter().find(|result| result.rule == rule)
    }
}
