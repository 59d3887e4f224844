//! Facts of the build, for receipts: compiler, target, flags, `Cargo.lock`, git commit. Each is `unknown` where
//! it cannot be had (a tarball has no git); nothing here fails the build.
//!
//! Runs again when sources, `Cargo.lock`, the environment named below or the checked-out commit change.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const UNKNOWN: &str = "unknown";

fn main() {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| UNKNOWN.into());
    let crate_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let root = crate_dir.parent().unwrap_or(&crate_dir).to_owned();

    for path in [
        "Cargo.toml",
        "Cargo.lock",
        "engine/src",
        "oracle/src",
        "variables/src",
        "harness/src",
        "harness/build.rs",
    ] {
        watch(&root.join(path));
    }
    fact("ASSAY_RUSTC", &output(&variable("RUSTC"), &["--version"], &root).unwrap_or_else(|| UNKNOWN.into()));
    let verbose = output(&variable("RUSTC"), &["-vV"], &root);
    let lines = verbose.as_deref().map(|text| text.lines().skip(1).collect::<Vec<_>>().join("; "));
    fact("ASSAY_RUSTC_VERBOSE", &lines.unwrap_or_else(|| UNKNOWN.into()));
    fact("ASSAY_TARGET", &variable("TARGET"));
    fact("ASSAY_PROFILE", &variable("PROFILE"));
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    fact("ASSAY_RUSTFLAGS", &flags_without_paths(&env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default()));
    copy_lock(&root, Path::new(&variable("OUT_DIR")));
    let (commit, dirty) = git_facts(&root).unwrap_or((UNKNOWN.into(), UNKNOWN));
    fact("ASSAY_GIT_COMMIT", &commit);
    fact("ASSAY_GIT_DIRTY", dirty);
}

fn fact(name: &str, value: &str) {
    println!("cargo::rustc-env={name}={}", value.replace(['\n', '\r'], " "));
}

/// Runs this again when `path` changes. A path that does not exist would make cargo run it every time.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// The compiler's flags, in one line, every word's path cut to its last component: a receipt names no folder.
fn flags_without_paths(encoded: &str) -> String {
    let last = |flag: &str| match (flag.find('/'), flag.rfind('/')) {
        (Some(first), Some(last)) => format!("{}…{}", &flag[..first], &flag[last..]),
        _ => flag.to_owned(),
    };
    encoded.split('\x1f').map(last).collect::<Vec<_>>().join(" ")
}

/// Puts `Cargo.lock`, or an empty file, where the library includes it from.
fn copy_lock(root: &Path, out_dir: &Path) {
    let lock = std::fs::read(root.join("Cargo.lock")).unwrap_or_default();
    if let Err(error) = std::fs::write(out_dir.join("Cargo.lock"), lock) {
        println!("cargo::warning=cannot copy Cargo.lock: {error}");
    }
}

/// The commit, and whether tracked files differ from it; `None` if `root` is not the top of a git checkout
/// with a commit (so that a tarball unpacked inside some other checkout does not take that one's).
fn git_facts(root: &Path) -> Option<(String, &'static str)> {
    let git = |arguments: &[&str]| output("git", arguments, root);
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "--verify", "HEAD"]);
    for name in ["HEAD", "refs/heads", "packed-refs"] {
        watch(&root.join(git(&["rev-parse", "--git-path", name])?));
    }
    let changes = git(&["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]);
    let dirty = changes.map_or(UNKNOWN, |changes| if changes.is_empty() { "false" } else { "true" });
    Some((commit?, dirty))
}

/// What a program prints, trimmed; `None` if it cannot be run or fails.
fn output(program: &str, arguments: &[&str], directory: &Path) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(directory).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
