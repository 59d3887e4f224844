//! References: programs that speak the protocol, programs that do not, and what parity says of them.
#![cfg(unix)]
#![expect(clippy::print_stderr, reason = "says what was skipped")]

use assay_harness::references::protocol::{PROTOCOL, schemas};
use assay_harness::references::{Failure, Program, Request, Sequence};
use assay_variables::{PEERS, PROGRAM, REQUIRE_PEERS, UPDATE};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const ASSAY: &str = env!("CARGO_BIN_EXE_assay");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn golden(name: &str) -> String {
    root().join("fixtures/golden").join(name).display().to_string()
}

fn assay(arguments: &[&str]) -> Output {
    let output =
        Command::new(ASSAY).args(arguments).env(PEERS.name(), peers()).env(PROGRAM.name(), ASSAY).output();
    output.expect("assay runs")
}

fn peers() -> PathBuf {
    PEERS.read().unwrap_or_else(|| root().join("target/peers"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn parsed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", stdout(output), stderr(output)))
}

/// llama.cpp is here; a person is told if not.
fn llama() -> bool {
    let here = peers().join("node-llama-cpp-linux-x64-3.22.1").is_dir();
    let required = REQUIRE_PEERS.read().expect("a flag");
    assert!(here || !required, "llama.cpp is not here; run: assay reference install llama.cpp");
    if !here {
        eprintln!("skipped: llama.cpp is not here; run: assay reference install llama.cpp");
    }
    here
}

#[test]
fn the_schemas_are_fresh() {
    for (path, schema) in schemas() {
        let mut text = format!("{schema:#}");
        text.push('\n');
        let path = root().join(path);
        if UPDATE.read().expect("a flag") {
            std::fs::write(&path, &text).expect("write");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{} is stale; run: ASSAY_UPDATE=1 cargo test -p assay-harness --test references",
            path.display()
        );
    }
}

/// A folder with what a reference of two tokens and one step over a vocabulary of three may write.
struct Written(tempfile::TempDir);

impl Written {
    fn new() -> Written {
        let folder = tempfile::tempdir().expect("folder");
        let written = Written(folder);
        written.array("0.npy", "<f4", (3, 3), &[0.0; 9]);
        written.result(|_| ());
        written
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn array(&self, name: &str, kind: &str, (rows, cols): (usize, usize), values: &[f32]) {
        let mut head = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
        while (head.len() + 11) % 64 != 0 {
            head.push(' ');
        }
        head.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((head.len() as u16).to_le_bytes());
        bytes.extend(head.into_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        std::fs::write(self.path(name), bytes).expect("write");
    }

    fn result(&self, change: impl FnOnce(&mut Value)) {
        let mut result = json!({
            "protocol": 1,
            "reference": {"name": "fake", "version": "7"},
            "feeding": "one-token-at-a-time",
            "sequences": [{"id": "0", "generated": [0], "logits": "0.npy"}],
        });
        change(&mut result);
        std::fs::write(self.path("result.json"), result.to_string()).expect("write");
    }

    /// What is read from a program that writes this.
    fn run(&self) -> Result<assay_harness::references::Outputs, Failure> {
        let script = format!("cp {}/* \"$2\"", self.0.path().display());
        ask(&script)
    }
}

/// A shell script in the place of a reference: `$1` is the request, `$2` the folder.
fn ask(script: &str) -> Result<assay_harness::references::Outputs, Failure> {
    let script = format!("shift; {script}");
    let program = Program(["/bin/sh", "-c", &script, "sh"].map(str::to_owned).to_vec());
    let sequence =
        Sequence { id: "0".into(), tokens: vec![1, 0], steps: 1, tensors: vec!["output_norm".into()] };
    let request = Request {
        protocol: PROTOCOL,
        model: "/models/none.gguf".into(),
        activation: "silu".into(),
        threads: 1,
        sequences: vec![sequence],
    };
    program.run(&request, 3, Duration::from_secs(2))
}

#[test]
fn a_program_that_speaks_the_protocol_is_understood() {
    let written = Written::new();
    written.array("norm.npy", "<f4", (3, 2), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    written.result(|result| {
        result["notes"] = json!(["a note"]);
        result["sequences"][0]["tensors"] = json!({"output_norm": "norm.npy"});
    });
    let outputs = written.run().expect("a result");
    assert_eq!((&outputs.identity.name[..], &outputs.identity.version[..]), ("fake", "7"));
    assert_eq!(outputs.notes, ["a note"]);
    assert_eq!(outputs.sequences[0].generated, [0]);
    assert_eq!(outputs.sequences[0].logits.len(), 9);
    assert_eq!(outputs.sequences[0].tensors["output_norm"], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn a_program_that_dies_hangs_or_refuses_is_told_apart() {
    let died = [
        ("echo hello >&2; echo 'no such model' >&2; exit 5", "ended with the exit code 5: no such model"),
        ("kill -SEGV $$", "was ended by SIGSEGV"),
        (
            "echo 'GGML_ASSERT(x) failed' >&2; echo 'gdb: not found' >&2; kill -ABRT $$",
            "SIGABRT: GGML_ASSERT(x) failed",
        ),
    ];
    for (script, expected) in died {
        let failure = ask(script).expect_err(script);
        assert!(failure.is_finding() && failure.to_string().contains(expected), "{failure}");
    }
    let start = Instant::now();
    // What it started holds its output open, and is ended with it.
    let failure = ask("sleep 300 & sleep 300").expect_err("hangs");
    assert_eq!(failure, Failure::Hung(2));
    assert!(start.elapsed() < Duration::from_secs(60));
    let refused = ask("echo 'no architecture llama' >&2; exit 3").expect_err("refuses");
    assert_eq!(refused, Failure::Refused("no architecture llama".to_owned()));
    assert!(!refused.is_finding());
    let nowhere = Program(vec!["/nonexistent/program".to_owned()]);
    let failure = nowhere.describe(Duration::from_secs(2)).expect_err("is not there");
    assert!(
        matches!(&failure, Failure::Start(problem) if problem.contains("/nonexistent/program")),
        "{failure}"
    );
}

#[test]
fn what_is_no_result_is_a_finding_that_says_what_is_wrong() {
    let garbage = |expected: &str, change: &dyn Fn(&Written)| {
        let written = Written::new();
        change(&written);
        let failure = written.run().expect_err(expected);
        assert!(matches!(failure, Failure::Garbage(_)), "{failure}");
        assert!(failure.to_string().contains(expected), "{expected}: {failure}");
    };
    let result = |change: fn(&mut Value)| move |written: &Written| written.result(change);
    garbage("result.json cannot be read", &|w| std::fs::remove_file(w.path("result.json")).expect("there"));
    garbage("result.json:", &|w| std::fs::write(w.path("result.json"), "{").expect("write"));
    garbage("unknown field `extra`", &result(|r| r["extra"] = json!(1)));
    garbage("version 2 of the protocol", &result(|r| r["protocol"] = json!(2)));
    garbage("has no name", &result(|r| r["reference"]["name"] = json!(" ")));
    garbage("the sequence '0' is missing", &result(|r| r["sequences"] = json!([])));
    garbage(
        "'1' was not asked for",
        &result(|r| {
            let mut other = r["sequences"][0].clone();
            other["id"] = json!("1");
            r["sequences"].as_array_mut().expect("a list").push(other);
        }),
    );
    garbage(
        "there twice",
        &result(|r| {
            let same = r["sequences"][0].clone();
            r["sequences"].as_array_mut().expect("a list").push(same);
        }),
    );
    garbage("2 generated tokens of 1", &result(|r| r["sequences"][0]["generated"] = json!([1, 1])));
    garbage(
        "generated token 1, but its largest logit is 0's",
        &result(|r| r["sequences"][0]["generated"] = json!([1])),
    );
    garbage("token 3 is not below 3", &result(|r| r["sequences"][0]["generated"] = json!([3])));
    garbage("not a plain file name", &result(|r| r["sequences"][0]["logits"] = json!("../0.npy")));
    garbage("not a plain file name", &result(|r| r["sequences"][0]["logits"] = json!("/etc/passwd")));
    garbage("absent.npy", &result(|r| r["sequences"][0]["logits"] = json!("absent.npy")));
    garbage("'q' was not asked for", &result(|r| r["sequences"][0]["tensors"] = json!({"q": "0.npy"})));
    garbage("shape [2, 3], expected [3, 3]", &|w| w.array("0.npy", "<f4", (2, 3), &[0.0; 6]));
    garbage("holds '<i4'", &|w| w.array("0.npy", "<i4", (3, 3), &[0.0; 9]));
    garbage("is no .npy file", &|w| std::fs::write(w.path("0.npy"), "text").expect("write"));
    garbage("0.npy:", &|w| w.array("0.npy", "<f4", (3, 3), &[0.0; 8]));
    garbage("row 1, column 1 is NaN", &|w| {
        w.array("0.npy", "<f4", (3, 3), &{
            let mut values = [0.0; 9];
            values[4] = f32::NAN;
            values
        })
    });
    // A head that asks for more memory than there is.
    let written = Written::new();
    written.array("norm.npy", "<f4", (3, 1 << 60), &[0.0; 9]);
    written.result(|r| r["sequences"][0]["tensors"] = json!({"output_norm": "norm.npy"}));
    assert!(written.run().expect_err("absurd").to_string().contains("less than its shape"));
}

#[test]
fn the_oracle_agrees_and_its_receipt_is_valid() {
    let out = tempfile::tempdir().expect("folder");
    let folder = out.path().display().to_string();
    let model = golden("b158-stable.gguf");
    let output =
        assay(&["parity", &model, "--prompts", "2", "--steps", "8", "--explain", "--out", &folder, "--json"]);
    let found = parsed(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    assert_eq!(
        (&found["held"], &found["mismatches"], &found["steps"]),
        (&json!(true), &json!(0), &json!(16))
    );
    assert!(found["cosine_min"].as_f64().is_some_and(|cosine| cosine >= 0.9999), "{found:#}");
    let cells = found["explanation"]["cells"].as_array().expect("cells");
    assert!(cells.iter().all(|cell| cell["alone"].is_number()), "every operation was compared alone");
    let picture =
        std::fs::read_to_string(found["explanation"]["picture"].as_str().expect("a path")).expect("picture");
    assert!(picture.starts_with("<svg ") && picture.contains("blk.3.ffn_gated"));
    let receipts: Vec<&str> =
        found["receipts"].as_array().expect("receipts").iter().filter_map(Value::as_str).collect();
    assert_eq!(receipts.len(), 2);
    for receipt in receipts {
        let verified = assay(&["receipt", "verify", receipt]);
        assert_eq!(verified.status.code(), Some(0), "{}", stdout(&verified));
    }
}

/// The oracle, told that the gate is SiLU.
fn silu_oracle(folder: &Path) -> String {
    let path = folder.join("silu.sh");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = describe ]; then exec '{ASSAY}' reference-child oracle describe; fi\n\
         sed 's/\"relu2\"/\"silu\"/' \"$2\" > \"$2.silu\" && exec '{ASSAY}' reference-child oracle --f16-attention run \"$2.silu\" \"$3\"\n"
    );
    std::fs::write(&path, script).expect("write");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    path.display().to_string()
}

/// What must be said of a reference that runs SiLU where the model has squared ReLU.
fn is_diagnosed(output: &Output) {
    let found = parsed(output);
    assert_eq!(output.status.code(), Some(1), "{found:#}");
    let suspects = found["diagnosis"]["suspects"].as_array().expect("suspects");
    assert_eq!(suspects.len(), 1, "{suspects:#?}");
    assert_eq!(suspects[0]["id"], "silu-for-relu2");
    assert!(suspects[0]["cosine"].as_f64().is_some_and(|cosine| cosine > 0.9998), "{suspects:#?}");
    assert!(found["diagnosis"]["correct"].as_f64().is_some_and(|cosine| cosine < 0.995), "{found:#}");
    let said = found["explanation"]["sentence"].as_str().expect("a sentence");
    assert!(said.starts_with("first wrong operation: blk.0.ffn_gated"), "{said}");
    let cells = found["explanation"]["cells"].as_array().expect("cells");
    let wrong = |cell: &&Value| cell["wrong"] == json!(true);
    let names: Vec<&str> = cells.iter().filter(wrong).filter_map(|cell| cell["operation"].as_str()).collect();
    assert!(!names.is_empty() && names.iter().all(|name| *name == "ffn_gated"), "{names:?}");
}

#[test]
fn a_gate_of_silu_is_diagnosed_and_found_where_it_is() {
    let folder = tempfile::tempdir().expect("folder");
    let program = silu_oracle(folder.path());
    let model = golden("b158-stable.gguf");
    let output = assay(&["parity", &model, "--reference", &program, "--steps", "8", "--explain", "--json"]);
    is_diagnosed(&output);
    let told = assay(&["reference", "describe", &program]);
    assert!(told.status.success() && stdout(&told).contains("oracle"), "{}", stdout(&told));
    let matrix = assay(&[
        "parity",
        "--matrix",
        &model,
        "--reference",
        &program,
        "--prompts",
        "2",
        "--steps",
        "4",
        "--json",
    ]);
    let found = parsed(&matrix);
    assert_eq!(matrix.status.code(), Some(1), "a cell that is explained is not one that holds: {found:#}");
    assert_eq!(
        (&found["cells"][0]["verdict"], &found["cells"][0]["explained_by"]),
        (&json!("explained"), &json!(["silu-for-relu2"]))
    );
}

#[test]
fn unmodified_llama_cpp_is_diagnosed_so_and_the_override_agrees() {
    if !llama() {
        return;
    }
    let model = golden("b158-stable.gguf");
    let reference = ["--reference", "llama.cpp:haswell", "--steps", "8", "--explain", "--json"];
    let run = |more: &[&str]| assay(&[&["parity", &model], &reference[..], more].concat());
    is_diagnosed(&run(&["--unmodified"]));
    let output = run(&[]);
    let found = parsed(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    let notes = found["notes"].to_string();
    assert!(notes.contains("replaced by squared ReLU") && notes.contains("exact copy"), "{notes}");
    assert!(found["cosine_min"].as_f64().is_some_and(|cosine| cosine >= 0.9999), "{found:#}");
}

#[test]
fn libraries_of_a_user_need_the_right_interface() {
    let model = golden("bitnet-stable.gguf");
    let inconclusive = |arguments: &[&str], expected: &str| {
        let output = assay(&[&["parity", &model, "--steps", "2"], arguments].concat());
        assert_eq!(output.status.code(), Some(7), "{}{}", stdout(&output), stderr(&output));
        assert!(stderr(&output).contains(expected), "{expected}: {}", stderr(&output));
    };
    let folder = tempfile::tempdir().expect("folder");
    let library = format!("library:{}", folder.path().display());
    let refused = |arguments: &[&str], expected: &str| {
        let output = assay(&[&["parity", &model], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{}{}", stdout(&output), stderr(&output));
        assert!(stderr(&output).contains(expected), "{expected}: {}", stderr(&output));
    };
    refused(&["--reference", "library:/nonexistent", "--abi", "bitnet.cpp"], "a folder of libraries");
    refused(&["--reference", &library], "--abi of library:PATH");
    refused(&["--reference", &library, "--abi", "2019"], "llama.cpp-v0.5.0, bitnet.cpp");
    refused(&["--reference", "no-such-program"], "reference-protocol.md");
    refused(&["--reference", "oracle:f8"], "oracle:f64");
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        inconclusive(&["--reference", &library, "--abi", "bitnet.cpp"], "libggml.so: cannot be opened");
        inconclusive(
            &["--reference", &library, "--abi", "llama.cpp-v0.5.0"],
            "libggml-base.so: is not there",
        );
    }
    if llama() {
        // Libraries of v0.5.0 under the names of the older interface.
        let bins = peers().join("node-llama-cpp-linux-x64-3.22.1/package/bins/linux-x64");
        for (from, to) in [("libggml.v0.5.0.so", "libggml.so"), ("libllama.v0.5.0.so", "libllama.so")] {
            std::fs::copy(bins.join(from), folder.path().join(to)).expect("copy");
        }
        for file in std::fs::read_dir(&bins).expect("folder").flatten() {
            std::fs::copy(file.path(), folder.path().join(file.file_name())).expect("copy");
        }
        inconclusive(&["--reference", &library, "--abi", "bitnet.cpp"], "choose another --abi");
    }
}

#[test]
fn a_script_of_a_few_lines_is_a_reference() {
    let numpy = Command::new("python3")
        .args(["-c", "import numpy"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !numpy {
        eprintln!("skipped: python3 with numpy is not here");
        return;
    }
    let script = root().join("examples/references/script.py");
    let reference = format!("python3 {}", script.display());
    let model = golden("llama-stable.gguf");
    let output = assay(&["parity", &model, "--reference", &reference, "--steps", "4", "--json"]);
    let found = parsed(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    assert_eq!((&found["max_ulp"], &found["equal_steps"]), (&json!(0), &json!(4)));
}

#[test]
fn thresholds_of_a_file_are_used_and_recorded() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("thresholds.json");
    std::fs::write(&file, r#"{"cosine_min": 1.0, "cosine_min_chaotic": 1.0, "nmse_exact": 0.0}"#)
        .expect("write");
    let (file, out) = (file.display().to_string(), folder.path().join("out").display().to_string());
    let model = golden("b158-stable.gguf");
    let output = assay(&["parity", &model, "--steps", "4", "--thresholds", &file, "--out", &out, "--json"]);
    let found = parsed(&output);
    assert_eq!(output.status.code(), Some(1), "{found:#}");
    let receipt = found["receipts"][0].as_str().expect("a receipt");
    let text: Value = serde_json::from_slice(&std::fs::read(receipt).expect("read")).expect("JSON");
    assert_eq!(text["predicate"]["status"], "failed");
    assert_eq!(text["predicate"]["parity"]["live"]["thresholds_sha256"].as_str().map(str::len), Some(64));
    // The table of this version does not say what the file says: nobody can hold it to that here.
    assert_eq!(assay(&["receipt", "verify", receipt]).status.code(), Some(7));
    std::fs::write(folder.path().join("thresholds.json"), r#"{"cosine": 1}"#).expect("write");
    let output = assay(&["parity", &model, "--thresholds", &file]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("unknown field"), "{}", stderr(&output));
}
