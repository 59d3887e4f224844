//! Kernels from outside: right ones hold, each wrong one is found for what it is, and none takes the program down.
#![cfg(unix)]
#![expect(clippy::print_stderr, reason = "a test that did not run must be seen")]

use assay_variables::{PEERS, skip_slow};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compiles one file to a shared library, without cargo.
fn rustc(folder: &TempDir, source: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let library = folder.path().join(name);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition", "2024", "-O", "--crate-type", "cdylib", "-Awarnings", "-o"])
        .arg(&library)
        .arg(source)
        .args(flags)
        .output()
        .expect("rustc starts: it is there where cargo is");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

fn bad(folder: &TempDir, name: &str, flags: &[&str]) -> PathBuf {
    rustc(folder, &root().join("harness/tests/plugins/bad.rs"), name, flags)
}

/// Whether a C compiler is there; if not, says so where it is seen.
fn has_cc() -> bool {
    let has = Command::new("cc").arg("--version").output().is_ok();
    if !has {
        eprintln!("skipped: no C compiler (cc)");
    }
    has
}

fn check<S: AsRef<OsStr>>(args: &[S]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command.args(["kernels", "check", "--timeout", "5"]).args(args).output().expect("assay starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("assay is not ended by a signal")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(output)))
}

/// The kinds of findings of a kernel: (group, kind, message).
fn findings<'a>(report: &'a Value, kernel: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let kernels = report["kernels"].as_array().expect("kernels");
    let found =
        kernels.iter().find(|k| k["kernel"]["name"] == kernel).unwrap_or_else(|| panic!("no {kernel}"));
    let groups = found["groups"].as_array().expect("groups").iter();
    let said = |group: &'a Value, key: &str| group["finding"][key].as_str().expect("text");
    groups
        .filter(|group| !group["finding"].is_null())
        .map(|group| (group["group"].as_str().expect("text"), said(group, "kind"), said(group, "message")))
        .collect()
}

/// Checks, and expects every kernel to hold and the receipt to verify.
fn holds(library: &Path) {
    let out = tempfile::tempdir().expect("folder");
    let output = check(&[
        OsStr::new("--plugin"),
        library.as_ref(),
        "--json".as_ref(),
        "--out".as_ref(),
        out.path().as_ref(),
    ]);
    let report = json(&output);
    assert_eq!((code(&output), report["held"].as_bool()), (0, Some(true)), "{report:#}");
    let receipt = report["receipt"].as_str().expect("a receipt");
    let verified = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["receipt", "verify", receipt])
        .output()
        .expect("starts");
    assert_eq!(code(&verified), 0, "{}{}", String::from_utf8_lossy(&verified.stdout), stderr(&verified));
}

#[test]
fn the_rust_example_holds() {
    let folder = tempfile::tempdir().expect("folder");
    holds(&rustc(&folder, &root().join("examples/plugins/rust/ternary.rs"), "good.so", &[]));
}

#[test]
fn the_c_example_holds() {
    if !has_cc() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let library = folder.path().join("good.so");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I"])
        .arg(root().join("engine/include"));
    let output =
        cc.arg("-o").arg(&library).arg(root().join("examples/plugins/c/ternary.c")).output().expect("cc");
    assert!(output.status.success(), "{}", stderr(&output));
    holds(&library);
}

/// What each kernel of `plugins/bad.rs` must be found for.
const BAD: [(&str, &str, &str); 30] = [
    ("wrong_shift", "fields-reversed", "wrong shift"),
    ("group_64", "wrong-group-64-for-128", "groups of 64"),
    ("sequential", "sequential-decode-of-interleaved", "four neighbours"),
    ("i16_wraps", "i16-accumulator-overflow", "wrapped"),
    ("i16_lanes_saturate", "i16-accumulator-overflow", "saturated"),
    ("sum_twice", "activation-sum-twice", "subtracted twice"),
    ("no_zero", "code-map-without-zero", "-2, -1, +1, +2"),
    ("tail_skipped", "tail-skipped", "do not count"),
    ("never_written", "output-not-written", "still hold"),
    ("last_row_not_written", "output-not-written", "still hold"),
    ("adds", "adds-to-the-output", "added to what"),
    ("writes_past_the_end", "out-of-bounds-write", "past the end of the outputs"),
    ("writes_before_the_start", "out-of-bounds-write", "before"),
    ("reads_past_the_end", "out-of-bounds-read", "past the end of the weights (byte 3 "),
    ("reads_before_the_start", "out-of-bounds-read", "before the start of the activations (1 bytes)"),
    ("reads_the_padding", "stale-tail", "between rows"),
    ("writes_its_input", "writes-its-input", "into the weights"),
    ("null_pointer", "crash", "null or wild pointer"),
    ("aborts", "crash", "SIGABRT"),
    ("illegal_instruction", "crash", "SIGILL"),
    ("exits", "exit", "exit code 0"),
    ("hangs", "hang", "did not return within"),
    ("static_buffer", "not-thread-safe", "static buffer"),
    ("other_every_time", "not-repeatable", "second time"),
    ("no_scale", "missing-tensor-scale", "scale of the tensor"),
    ("nan_on_zeros", "nan-on-zero-row", "row of zeros"),
    ("tokens_mixed_up", "tokens-in-another-order", "other tokens"),
    ("flushes_subnormals", "ftz-on", "float environment"),
    ("declines", "declines-everything", "declines all"),
    ("fails", "failed", "-5"),
];

#[test]
fn every_wrong_kernel_is_found_for_what_it_is_and_the_right_one_holds() {
    if skip_slow("every wrong kernel of a plug-in") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("receipts");
    let library = bad(&folder, "bad.so", &[]);
    let output =
        check(&[OsStr::new("--plugin"), library.as_ref(), "--json".as_ref(), "--out".as_ref(), out.as_ref()]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let report = json(&output);
    let mut missed = Vec::new();
    for (kernel, kind, message) in BAD {
        let found = findings(&report, kernel);
        if kernel == "flushes_subnormals" && !cfg!(target_arch = "x86_64") {
            continue;
        }
        if !found.iter().any(|(_, k, m)| *k == kind && m.contains(message)) {
            missed.push(format!("{kernel}: expected {kind} ({message}), found {found:?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert_eq!(findings(&report, "right_one"), [], "the one after all that die");
    // Findings too are worth a receipt, and it verifies.
    let receipt = report["receipt"].as_str().expect("a receipt");
    let verified = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["receipt", "verify", receipt])
        .output()
        .expect("starts");
    assert_eq!(code(&verified), 0, "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Exit code 2, and one line that says why.
fn refused(library: &Path, expected: &str) {
    let output = check(&[OsStr::new("--plugin"), library.as_ref()]);
    let said = stderr(&output);
    assert_eq!((code(&output), said.lines().count()), (2, 1), "{said}");
    assert!(said.contains(expected), "{expected:?} is not in: {said}");
}

#[test]
fn what_is_no_plug_in_of_this_version_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("folder");
    refused(
        &bad(&folder, "version.so", &["--cfg", "other_version"]),
        "was built for version 9 of the plug-in ABI",
    );
    refused(&bad(&folder, "symbol.so", &["--cfg", "no_symbol"]), "has no symbol assay_plugin_v1");
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no shared library").expect("written");
    refused(&text, "cannot be loaded");
    refused(&folder.path().join("missing.so"), "missing.so");
    refused(folder.path(), "is not a regular file");
}

#[test]
fn a_library_that_dies_while_it_is_loaded_is_a_finding() {
    let folder = tempfile::tempdir().expect("folder");
    let library = bad(&folder, "dies.so", &["--cfg", "dies_at_once"]);
    let output = check(&[OsStr::new("--plugin"), library.as_ref(), "--json".as_ref()]);
    let report = json(&output);
    assert_eq!((code(&output), report["finding"]["kind"].as_str()), (1, Some("crash")), "{report:#}");
}

#[test]
fn one_kernel_can_be_asked_for() {
    let folder = tempfile::tempdir().expect("folder");
    let library = bad(&folder, "bad.so", &[]);
    let args = |kernel: &'static str| {
        [OsStr::new("--plugin"), library.as_ref(), "--kernel".as_ref(), kernel.as_ref()]
    };
    let output = check(&args("right_one"));
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
    let output = check(&args("no_such"));
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("there is no kernel 'no_such'"), "{}", stderr(&output));
}

#[test]
fn the_16_bit_overflow_of_bitnet_cpp_is_named_and_a_wide_kernel_holds() {
    let folder = tempfile::tempdir().expect("folder");
    let source = root().join("harness/tests/plugins/bitnet.rs");
    let peer = |library: PathBuf| {
        check(&["--peer".to_owned(), format!("bitnet.cpp:{}", library.display()), "--json".to_owned()])
    };
    let output = peer(rustc(&folder, &source, "narrow.so", &[]));
    let report = json(&output);
    assert_eq!(code(&output), 1);
    // Random weights hide it, as they did where it was shipped: only the adversarial case shows it.
    let found = findings(&report, "bitnet.cpp/vec_dot_i2_i8_s");
    let [(group, kind, message)] = found[..] else { panic!("{found:?}") };
    assert_eq!((group, kind), ("extremes", "i16-accumulator-overflow"), "{message}");
    // 2560 columns, every code 2, every activation 127: 40640 in each of 16 lanes, less 65536.
    assert!(
        message.contains("a 16-bit accumulator wrapped: row 0 should be 325120 and is -723456"),
        "{message}"
    );
    let output = peer(rustc(&folder, &source, "wide.so", &["--cfg", "wide"]));
    assert_eq!(code(&output), 0, "{:#}", json(&output));
}

#[test]
fn llama_cpp_is_checked_where_it_is_fetched() {
    let fetched = ["target/peers".into()]
        .into_iter()
        .chain(PEERS.read())
        .map(|folder: PathBuf| root().join(folder))
        .find(|folder| folder.join("node-llama-cpp-linux-x64-3.22.1.tgz").is_file());
    let Some(folder) = fetched.filter(|_| cfg!(all(target_os = "linux", target_arch = "x86_64"))) else {
        eprintln!("skipped: llama.cpp's libraries are not here; run: assay reference install llama.cpp");
        return;
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    let output = command
        .env(PEERS.name(), folder)
        .args(["kernels", "check", "--peer", "llama.cpp", "--json"])
        .output();
    let output = output.expect("assay starts");
    let report = json(&output);
    assert_eq!(code(&output), 0, "{report:#}");
    assert_eq!(report["kernels"].as_array().map(Vec::len), Some(7));
}

#[test]
fn an_absent_peer_is_skipped_with_the_command_that_fetches_it() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    let output =
        command.env(PEERS.name(), folder.path()).args(["kernels", "check", "--peer", "llama.cpp"]).output();
    let output = output.expect("assay starts");
    assert_eq!(code(&output), 7);
    assert!(
        stderr(&output).starts_with("skipped: ")
            && stderr(&output).contains("assay reference install llama.cpp")
    );
}
