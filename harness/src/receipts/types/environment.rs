//! Where it ran. Collected by [`machine`](crate::receipts::machine).

use crate::receipts::text::U64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a text fact says where it cannot be read. Numbers that cannot be read are `null`.
pub const UNKNOWN: &str = "unknown";

/// Where it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Operating system: `linux`.
    pub os: String,
    /// Its release.
    pub kernel: String,
    /// The processor.
    pub cpu: Cpu,
    /// Main memory, bytes.
    pub memory_bytes: Option<U64>,
    /// `none seen`, or what lies between the program and the machine: `hypervisor`, `container`.
    pub virtualisation: String,
    /// Frequency governor of the first processor.
    pub governor: String,
    /// How the program was built.
    pub build: Build,
    /// The accelerator of the machine, whether it was used or not. Absent from older receipts, not `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Accelerator")]
    pub accelerator: Option<Accelerator>,
    /// Variables that can change what runs, out of a fixed list.
    pub variables: BTreeMap<String, String>,
}

/// The accelerator of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Accelerator {
    /// As its driver calls it; the names of several, one after the other.
    pub name: String,
    /// Version of the driver.
    pub driver: String,
}

/// The processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// As it calls itself.
    pub brand: String,
    /// Logical processors that this program may use.
    pub logical: Option<u32>,
    /// Features that were detected, out of those that kernels ask for.
    pub features: Vec<String>,
    /// Those of them that the compiler was allowed to use everywhere. Absent from older receipts, not `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    pub compiled_features: Option<Vec<String>>,
    /// Caches of the first processor.
    pub caches: Vec<Cache>,
}

/// One cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// 1 is nearest.
    pub level: u32,
    /// `data`, `instruction`, `unified`.
    pub kind: String,
    /// Bytes.
    pub bytes: U64,
}

/// How the program was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// `rustc --version`.
    pub rustc: String,
    /// The lines of `rustc -vV` that name host, commit and LLVM, joined by `; `. Absent from older receipts, not `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub rustc_verbose: Option<String>,
    /// Target triple.
    pub target: String,
    /// `debug` or `release`.
    pub profile: String,
    /// Flags given to the compiler; of a path only the last component.
    pub rustflags: String,
    /// Digest of `Cargo.lock`, or `unknown`.
    pub cargo_lock_sha256: String,
}
