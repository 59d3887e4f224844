//! Facts of this machine and of this build. Each is `unknown` (or absent) where it cannot be read; none is
//! ever an error, and none names a user, a host or a path.

use super::text::{Sha256Hex, U64};
use super::types::{Build, Cache, Cpu, Environment, Tool, UNKNOWN};
use std::collections::BTreeMap;
use std::fs;

/// Environment variables that are written into a receipt, when set: those that change which code runs.
pub const VARIABLES: &[&str] =
    &["CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "OMP_NUM_THREADS", "RAYON_NUM_THREADS", "REQUIRE_ISA"];

/// `Cargo.lock` of the build; empty where the build had none.
const CARGO_LOCK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/Cargo.lock"));

/// This program.
pub fn tool() -> Tool {
    Tool {
        name: "assay".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: env!("ASSAY_GIT_COMMIT").into(),
        dirty: match env!("ASSAY_GIT_DIRTY") {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        },
    }
}

/// This machine and this build.
pub fn environment() -> Environment {
    let read = |name: &&str| Some((name.to_string(), std::env::var(name).ok()?));
    Environment {
        os: std::env::consts::OS.into(),
        kernel: text_of("/proc/sys/kernel/osrelease"),
        cpu: cpu(),
        memory_bytes: kilobytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:"),
        virtualisation: virtualisation(),
        governor: text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        build: build(),
        variables: VARIABLES.iter().filter_map(read).collect::<BTreeMap<_, _>>(),
    }
}

fn build() -> Build {
    Build {
        rustc: env!("ASSAY_RUSTC").into(),
        target: env!("ASSAY_TARGET").into(),
        profile: env!("ASSAY_PROFILE").into(),
        rustflags: env!("ASSAY_RUSTFLAGS").into(),
        cargo_lock_sha256: match CARGO_LOCK {
            [] => UNKNOWN.into(),
            bytes => Sha256Hex::of(bytes).into(),
        },
    }
}

fn cpu() -> Cpu {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Cpu {
        brand: cpuinfo_field(&cpuinfo, "model name").unwrap_or_else(|| UNKNOWN.into()),
        logical: std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()),
        features: features(),
        caches: (0..16).map_while(cache).flatten().collect(),
    }
}

/// The value after `name :` in the first processor's entry.
fn cpuinfo_field(cpuinfo: &str, name: &str) -> Option<String> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// The features that kernels ask for, of those that this processor has, by the detection that dispatch uses.
fn features() -> Vec<String> {
    macro_rules! detected {
        ($detect:ident: $($feature:tt),+) => {
            [$(($feature, std::arch::$detect!($feature))),+]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let all = detected!(is_x86_feature_detected: "sse4.1", "avx", "f16c", "fma", "avx2", "avxvnni", "avx512f",
        "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512vnni");
    #[cfg(target_arch = "aarch64")]
    let all = detected!(is_aarch64_feature_detected: "neon", "fp16", "dotprod", "i8mm", "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all: [(&str, bool); 0] = [];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

/// `None` past the last cache; `Some(None)` for one whose facts cannot be read.
fn cache(index: u32) -> Option<Option<Cache>> {
    let folder = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
    fs::metadata(&folder).ok()?;
    let fact = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok();
    let facts = || {
        Some(Cache {
            level: fact("level")?.trim().parse().ok()?,
            kind: fact("type")?.trim().to_lowercase(),
            bytes: size(&fact("size")?)?.into(),
        })
    };
    Some(facts())
}

/// `32K` → 32768.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// `MemTotal:  16384 kB` → bytes.
fn kilobytes(text: &str, name: &str) -> Option<U64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024).map(U64::from)
}

/// Largest resident set of this process so far, bytes.
pub fn peak_memory_bytes() -> Option<U64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

fn virtualisation() -> String {
    let Ok(cpuinfo) = fs::read_to_string("/proc/cpuinfo") else { return UNKNOWN.into() };
    let flags = cpuinfo_field(&cpuinfo, "flags").unwrap_or_default();
    let container = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| fs::metadata(path).is_ok());
    match (flags.split_whitespace().any(|flag| flag == "hypervisor"), container) {
        (true, true) => "hypervisor, container",
        (true, false) => "hypervisor",
        (false, true) => "container",
        (false, false) => "none seen",
    }
    .into()
}

/// The trimmed text of a file, or `unknown`.
fn text_of(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => UNKNOWN.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_their_files_forms() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: A B @ 2 GHz\nflags\t\t: fpu hypervisor\n\nmodel name\t: C\n";
        assert_eq!(cpuinfo_field(cpuinfo, "model name").as_deref(), Some("A B @ 2 GHz"));
        assert_eq!(cpuinfo_field("", "model name"), None);
        assert_eq!(kilobytes("MemFree: 1 kB\nMemTotal:       16 kB\n", "MemTotal:"), Some(U64::from(16_384)));
        assert_eq!(kilobytes("MemTotal: many kB\n", "MemTotal:"), None);
        assert_eq!(
            [size("48K\n"), size("2M"), size("7"), size("K"), size("1X")],
            [Some(49_152), Some(2_097_152), Some(7), None, None]
        );
    }

    #[test]
    fn every_fact_is_a_value_or_unknown() {
        let environment = environment();
        assert!(!environment.kernel.is_empty() && !environment.cpu.brand.is_empty());
        assert_ne!(environment.build.target, UNKNOWN);
        assert!(!tool().commit.is_empty());
    }
}
