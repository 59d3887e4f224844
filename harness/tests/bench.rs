//! `assay kernels bench`: who runs, what is refused, and that no time is given to a wrong answer. No test looks at a time.
#![cfg(unix)]

use assay_variables::PEERS;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command.args(["kernels", "bench", "--megabytes", "1", "--rounds", "3", "--turn", "1"]).args(args);
    command.output().expect("assay starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", stderr(output)))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    assert_eq!(code(output), 0, "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(output)))
}

fn lines(setting: &Value) -> Vec<(&str, &Value)> {
    let lines = setting["lines"].as_array().expect("lines").iter();
    lines.map(|line| (line["name"].as_str().expect("a name"), line)).collect()
}

/// Exit code 2, nothing on stdout, one line on stderr.
fn refused(args: &[&str], expected: &str) {
    let output = bench(args);
    let said = stderr(&output);
    assert_eq!((code(&output), said.lines().count()), (2, 1), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout");
    assert!(said.starts_with("error: ") && said.contains(expected), "{args:?}: {expected:?} not in {said}");
}

/// A plug-in compiled here.
fn plugin(folder: &TempDir, source: &str) -> PathBuf {
    let library = folder.path().join("plugin.so");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition", "2024", "-O", "--crate-type", "cdylib", "-Awarnings", "-o"])
        .arg(&library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(source))
        .output()
        .expect("rustc starts: it is there where cargo is");
    assert!(output.status.success(), "{}", stderr(&output));
    library
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

#[test]
fn every_format_is_timed_in_every_setting_on_every_instruction_set() {
    let output = bench(&["--format", "all", "--isa", "scalar", "--tokens", "2", "--cols", "1280", "--json"]);
    let said = json(&output);
    let names: Vec<&str> =
        said.as_array().expect("settings").iter().map(|s| s["setting"].as_str().expect("a name")).collect();
    assert_eq!(names, ["cache", "stream", "gemm"]);
    for (setting, tokens) in said.as_array().expect("settings").iter().zip([1, 1, 2]) {
        assert_eq!((&setting["cols"], &setting["tokens"]), (&1280.into(), &tokens.into()));
        let lines = lines(setting);
        assert_eq!(lines.len(), assay_engine::quant::Format::ALL.len(), "one for each format");
        for (name, line) in lines {
            let kernel = if tokens == 1 { "scalar gemv_" } else { "scalar gemm_" };
            assert!(name.starts_with(kernel), "{name}");
            for measured in ["gmacs", "gbytes"] {
                let [min, median, max] =
                    ["min", "median", "max"].map(|of| line[measured][of].as_f64().expect("a number"));
                assert!(0.0 < min && min <= median && median <= max, "{name}: {min} {median} {max}");
            }
            assert!(line["of_peer"].is_null(), "{name}: there is no peer");
        }
    }
}

#[test]
fn what_cannot_be_timed_is_refused_before_anything_runs() {
    refused(&["--format", "I2_S,nope"], "no weight format 'nope'; there are F32, F16");
    refused(&["--setting", "cache,nope"], "no setting 'nope'; there are cache, stream and gemm");
    refused(
        &["--format", "T5,TQ2_0", "--cols", "320"],
        "--cols: expected a multiple of 256 for TQ2_0, got 320",
    );
    refused(&["--plugin", "/no/such/plugin.so"], "/no/such/plugin.so: No such file");
    refused(&["--peer", "whisper.cpp"], "--peer: expected llama.cpp");
    for usage in [["--tokens", "0"], ["--cols", "0"], ["--rounds", "0"], ["--turn", "0"], ["--isa", "sse9"]] {
        let output = bench(&usage);
        assert_eq!((code(&output), output.stdout.len()), (2, 0), "{usage:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(usage[0]), "{}", stderr(&output));
    }
    let elsewhere = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    assert_eq!(code(&bench(&["--isa", elsewhere])), 2);
}

#[test]
fn an_absent_peer_is_skipped_with_the_command_that_fetches_it() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    let output = command.env(PEERS.name(), folder.path()).args(["kernels", "bench", "--peer", "llama.cpp"]);
    let output = output.output().expect("assay starts");
    assert_eq!((code(&output), output.stdout.len()), (7, 0));
    assert!(
        stderr(&output).starts_with("skipped: ")
            && stderr(&output).contains("assay reference install llama.cpp")
    );
}

#[test]
fn a_plug_in_is_timed_beside_ours_and_ours_are_held_against_it() {
    let folder = tempfile::tempdir().expect("folder");
    let library = plugin(&folder, "examples/plugins/rust/ternary.rs");
    // Its format is timed after the project's own.
    let args = ["--plugin", text(&library), "--isa", "scalar", "--cols", "512", "--json"];
    for setting in json(&bench(&args)).as_array().expect("settings") {
        let lines = lines(setting);
        let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
        let kind = if setting["tokens"] == 1 { "gemv" } else { "gemm" };
        let ours = ["i2s_i8 I2_S", "r4_i8 I2_R4", "t5_i8 T5", "i2s_i8 QK256"];
        let mut expected: Vec<String> = ours.iter().map(|name| format!("scalar {kind}_{name}")).collect();
        expected.push("gemv_qk256_i8".to_owned());
        assert_eq!(names, expected);
        let (theirs, ours) = lines.split_last().expect("lines");
        assert!(ours.iter().all(|(_, line)| line["of_peer"]["median"].is_f64()), "ours over theirs");
        assert!(theirs.1["of_peer"].is_null(), "nothing is held against itself");
    }
    refused(
        &["--plugin", text(&library), "--format", "I2_S"],
        "ternary-rust multiplies QK256, and --format names I2_S",
    );
}

#[test]
fn a_wrong_answer_is_named_and_gets_no_time() {
    let folder = tempfile::tempdir().expect("folder");
    // The first of its kernels takes the fields of a byte in reverse.
    let library = plugin(&folder, "harness/tests/plugins/bad.rs");
    let output = bench(&["--plugin", text(&library), "--isa", "scalar", "--format", "I2_S"]);
    let said = stderr(&output);
    assert_eq!((code(&output), output.stdout.len()), (1, 0), "{said}");
    assert!(
        said.contains("wrong_shift is wrong at token 0, row ") && said.contains("nothing was timed"),
        "{said}"
    );
}

#[test]
fn a_peer_gets_its_activations_aligned_and_bitnet_cpp_is_timed() {
    let folder = tempfile::tempdir().expect("folder");
    let library = plugin(&folder, "harness/tests/plugins/bitnet.rs");
    let peer = format!("bitnet.cpp:{}", text(&library));
    // 640 columns: too few to overflow.
    let args =
        ["--peer", &peer, "--isa", "scalar", "--format", "I2_S", "--cols", "640", "--tokens", "3", "--json"];
    for setting in json(&bench(&args)).as_array().expect("settings") {
        assert_eq!(lines(setting)[1].0, "bitnet.cpp/vec_dot_i2_i8_s");
    }
}
