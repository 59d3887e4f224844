//! What ran here, and how long it took.

use crate::receipts::text::{KernelName, RegisterBits, Sha256Hex, U64, Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The operations whose multiply-adds the model's shape fixes.
pub mod operation {
    /// A weight matrix of a layer times an activation row.
    pub const LINEAR: &str = "linear";
    /// The output head times an activation row.
    pub const HEAD: &str = "head";
    /// Query times cached keys: a row per cached position and head, `head_dim` columns.
    pub const ATTENTION_SCORES: &str = "attention_scores";
    /// Weights times cached values: a row per cached position and head, `head_dim` columns.
    pub const ATTENTION_VALUES: &str = "attention_values";
}

/// What ran here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// The instruction set that the run was told to use: what stands after the slash in a kernel's name.
    pub isa: Word,
    /// Threads.
    #[schemars(range(min = 1))]
    pub threads: u32,
    /// Prompt tokens given to the model at once.
    #[schemars(range(min = 1))]
    pub batch: u32,
    /// Counters, from inside the dispatched calls.
    pub work: Vec<Work>,
    /// What did not run on the kernel it should have run on.
    pub fallbacks: Vec<Fallback>,
    /// How the processor rounded.
    pub float_environment: FloatEnvironment,
    /// The accelerator, when one was used.
    pub device: Option<Device>,
    /// Whether anything was computed.
    pub compute_path: ComputePath,
    /// What each operation of the pass gave, in its order, so that a replay that differs can name the first that does. Absent where it
    /// was not recorded, not `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<OperationDigest>")]
    pub trace: Option<Vec<OperationDigest>>,
}

/// What one operation of the pass gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationDigest {
    /// Its name: `blk.0.attn_norm`.
    pub name: String,
    /// Digest of its output for all tokens, `(tokens, width)` f32, little-endian.
    pub sha256: Sha256Hex,
}

/// What one kernel did for one operation at one row length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// The operation: see [`operation`].
    pub operation: Word,
    /// The kernel that ran.
    pub kernel: KernelName,
    /// Elements of a row.
    pub columns: U64,
    /// Times that the kernel was called.
    pub calls: U64,
    /// Rows, over all calls.
    pub rows: U64,
    /// Multiply-adds, over all calls.
    pub macs: U64,
    /// Bytes of weights read, over all calls.
    pub weight_bytes: U64,
}

/// A kernel that stood in for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// The operation.
    pub operation: Word,
    /// The kernel that should have run.
    pub wanted: KernelName,
    /// The kernel that ran.
    pub used: KernelName,
    /// Why.
    pub reason: String,
}

/// How the processor rounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FloatEnvironment {
    /// The control register.
    pub register: FloatRegister,
    /// Its bits.
    pub value: RegisterBits,
    /// Rounds to nearest, ties to even.
    pub nearest: bool,
    /// Neither inputs nor results that are subnormal become zero.
    pub subnormals_kept: bool,
}

/// The control register of floating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FloatRegister {
    /// x86.
    Mxcsr,
    /// ARM.
    Fpcr,
}

/// The accelerator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its compute capability: `9.0`.
    pub compute_capability: String,
    /// The driver's version.
    pub driver: String,
    /// Digest of the device code.
    pub ptx_sha256: Option<Sha256Hex>,
    /// Options that the device code was compiled with.
    pub options: Vec<String>,
}

/// Whether anything was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ComputePath {
    /// Yes: the counters add up to what the model's shape and the token count require.
    Real,
    /// No: a stand-in gave the numbers.
    Mock,
}

/// How long it took here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// Runs before the first sample, not kept.
    pub warm_up: u32,
    /// Every sample, in order, the discarded ones too.
    pub samples: Vec<Sample>,
    /// Samples that summaries leave out.
    pub discarded: Vec<Discarded>,
    /// Largest resident set, bytes.
    pub peak_memory_bytes: Option<U64>,
    /// What this machine reads from memory with the same threads, bytes per second.
    pub read_bandwidth_bytes_per_s: Option<U64>,
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// What was timed.
    pub phase: Phase,
    /// Tokens in it; 0 for loading.
    pub tokens: u32,
    /// Nanoseconds.
    pub ns: U64,
}

/// What was timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Opening the model.
    Load,
    /// The prompt.
    Prefill,
    /// Tokens after it.
    Decode,
}

/// Evidence that the run was not a show: the same prompt again and again, timed, and another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The timed runs of the receipt's own prompt, in order.
    pub repeats: Vec<Repeat>,
    /// One run of another prompt of the same length.
    pub other_prompt: OtherPrompt,
    /// Bytes of weights that one token reads: every linear layer and the head.
    pub weight_bytes_per_token: U64,
    /// The most that this machine was seen to read with the same threads, bytes per second; `null` where there is no loop to
    /// measure it with.
    pub read_bandwidth_bytes_per_s: Option<U64>,
}

/// One timed run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// What came out while it was timed.
    pub generated_token_ids: Vec<u32>,
    /// Digest of all its logits.
    pub logits_sha256: Sha256Hex,
    /// Multiply-adds counted in it.
    pub macs: U64,
    /// Nanoseconds for the prompt.
    pub prefill_ns: U64,
    /// Nanoseconds for each token after it.
    pub decode_ns: Vec<U64>,
}

/// A run of another prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtherPrompt {
    /// The prompt.
    pub prompt_token_ids: Vec<u32>,
    /// Digest of all its logits.
    pub logits_sha256: Sha256Hex,
    /// Multiply-adds counted in it.
    pub macs: U64,
}

/// A sample that summaries leave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discarded {
    /// Its index in `samples`.
    pub index: u32,
    /// Why.
    pub reason: DiscardReason,
}

/// The reasons that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiscardReason {
    /// The run was stopped.
    Interrupted,
    /// The clock went backwards or stood still.
    ClockFault,
    /// The processor was throttled.
    Throttled,
    /// Other programs took processor time.
    OtherLoad,
    /// The system was out of memory and swapped.
    Swapping,
}
