//! Facts of this machine and of this build. Each is `unknown` (or absent) where it cannot be read; none is
//! ever an error, and none names a user, a host or a path.

use super::text::{DateTime, Sha256Hex, U64};
use super::types::{Accelerator, Build, Cache, Cpu, Environment, Tool, UNKNOWN};
use assay_variables::{DETERMINISTIC, SOURCE_DATE_EPOCH};
use std::fs;

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

/// The moment that a receipt says, and whether it holds times at all: with `ASSAY_DETERMINISTIC` it says `SOURCE_DATE_EPOCH` or the
/// beginning of 1970, and two runs give the same bytes.
///
/// # Errors
/// - one of the two variables has a value that it cannot have.
pub fn moment() -> Result<(DateTime, bool), assay_variables::Error> {
    if !DETERMINISTIC.read()? {
        return Ok((DateTime::now(), true));
    }
    Ok((DateTime::from_unix(SOURCE_DATE_EPOCH.read()?.unwrap_or(0)), false))
}

/// This machine and this build.
pub fn environment() -> Environment {
    Environment {
        os: std::env::consts::OS.into(),
        kernel: text_of("/proc/sys/kernel/osrelease"),
        cpu: cpu(),
        memory_bytes: kilobytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:"),
        virtualisation: virtualisation(),
        governor: text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        accelerator: Some(accelerator()),
        build: build(),
        variables: assay_variables::recorded(),
    }
}

fn build() -> Build {
    Build {
        rustc: env!("ASSAY_RUSTC").into(),
        rustc_verbose: Some(env!("ASSAY_RUSTC_VERBOSE").into()),
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
        features: features().iter().filter(|feature| feature.detected).map(Feature::name).collect(),
        compiled_features: Some(
            features().iter().filter(|feature| feature.compiled).map(Feature::name).collect(),
        ),
        caches: (0..16).map_while(cache).flatten().collect(),
    }
}

/// The value after `name :` in the first processor's entry.
fn cpuinfo_field(cpuinfo: &str, name: &str) -> Option<String> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// A feature that kernels ask for.
struct Feature {
    name: &'static str,
    /// This processor has it, by the detection that dispatch uses.
    detected: bool,
    /// The compiler was told that every processor has it.
    compiled: bool,
}

impl Feature {
    fn name(&self) -> String {
        self.name.to_owned()
    }
}

fn features() -> Vec<Feature> {
    macro_rules! detected {
        ($detect:ident: $($feature:tt),+) => {
            vec![$(Feature {
                name: $feature,
                detected: std::arch::$detect!($feature),
                compiled: cfg!(target_feature = $feature),
            }),+]
        };
    }
    #[cfg(target_arch = "x86_64")]
    return detected!(is_x86_feature_detected: "sse4.1", "avx", "f16c", "fma", "avx2", "avxvnni", "avx512f",
        "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512vnni");
    #[cfg(target_arch = "aarch64")]
    return detected!(is_aarch64_feature_detected: "neon", "fp16", "dotprod", "i8mm", "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Vec::new();
}

/// What NVIDIA's driver says of the cards that it runs; `unknown` where there is no such driver.
fn accelerator() -> Accelerator {
    let cards = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let model = |card: fs::DirEntry| {
        let text = fs::read_to_string(card.path().join("information")).ok()?;
        cpuinfo_field(&text, "Model")
    };
    let mut names: Vec<String> = cards.filter_map(model).collect();
    names.sort();
    Accelerator {
        name: if names.is_empty() { UNKNOWN.into() } else { names.join(", ") },
        driver: nvidia_version(&fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default()),
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug …` → `535.104.05`.
fn nvidia_version(text: &str) -> String {
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines()
        .next()
        .and_then(|line| line.split_whitespace().find(is_version))
        .unwrap_or(UNKNOWN)
        .to_owned()
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
    use assay_variables::{Guard, SEED, SIGNING_KEY};

    #[test]
    fn facts_are_read_from_their_files_forms() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: A B @ 2 GHz\nflags\t\t: fpu hypervisor\n\nmodel name\t: C\n";
        assert_eq!(cpuinfo_field(cpuinfo, "model name").as_deref(), Some("A B @ 2 GHz"));
        assert_eq!(cpuinfo_field("", "model name"), None);
        assert_eq!(kilobytes("MemFree: 1 kB\nMemTotal:       16 kB\n", "MemTotal:"), Some(U64::from(16_384)));
        assert_eq!(kilobytes("MemTotal: many kB\n", "MemTotal:"), None);
        let driver = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version:  gcc 12.3.0";
        assert_eq!([nvidia_version(driver), nvidia_version("")], ["535.104.05", UNKNOWN]);
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

    #[test]
    fn variables_are_those_that_the_table_records() {
        let _guard = Guard::new(&[(SEED.name(), Some("7")), (SIGNING_KEY.name(), Some("00"))]);
        let variables = environment().variables;
        assert_eq!(variables.get(SEED.name()).map(String::as_str), Some("7"));
        assert!(!variables.contains_key(SIGNING_KEY.name()));
    }
}
