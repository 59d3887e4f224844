//! The program from its arguments to its files.

use super::*;
use crate::testing::small_model;
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder with a model, and an empty one for results.
fn workplace() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(folder.path().join("model.gguf"), small_model("bitnet").bytes()).unwrap();
    (folder, out)
}

/// Runs the program on a request; its exit code and what it wrote on standard error.
fn program(folder: &Path, request: &Value) -> (i32, String) {
    let path = folder.join("request.json");
    fs::write(&path, request.to_string()).unwrap();
    let args = ["run".to_owned(), path.display().to_string(), folder.join("out").display().to_string()];
    let mut stderr = Vec::new();
    let code = main(&args, &mut Vec::new(), &mut stderr);
    (code, String::from_utf8(stderr).unwrap())
}

fn request(folder: &Path) -> Value {
    json!({
        "protocol": 1,
        "model": folder.join("model.gguf").display().to_string(),
        "activation": "relu2",
        "threads": 2,
        "sequences": [
            {"id": "0", "tokens": [1, 4], "steps": 2, "tensors": ["blk.0.q", "blk.0.none", "../x", "output_norm"]},
            {"id": "b-2", "tokens": [0], "steps": 0, "tensors": []},
        ],
    })
}

#[test]
fn arrays_and_a_result_are_written() {
    let (folder, out) = workplace();
    assert_eq!(program(folder.path(), &request(folder.path())), (0, String::new()));
    let result: Value = serde_json::from_slice(&fs::read(out.join("result.json")).unwrap()).unwrap();
    assert_eq!(result["reference"]["name"], "oracle");
    assert_eq!(result["feeding"], "one-token-at-a-time");
    let first = &result["sequences"][0];
    assert_eq!(first["generated"].as_array().unwrap().len(), 2);
    assert_eq!(first["tensors"], json!({"blk.0.q": "0.blk.0.q.npy", "output_norm": "0.output_norm.npy"}));
    assert_eq!(result["sequences"][1]["logits"], "b-2.logits.npy");
    assert_eq!(fs::read(out.join("0.logits.npy")).unwrap().len(), 128 + 4 * 5 * 4);
    assert_eq!(fs::read(out.join("0.blk.0.q.npy")).unwrap().len(), 128 + 4 * 4 * 4);
    let mut files: Vec<String> =
        fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(
        files,
        ["0.blk.0.q.npy", "0.logits.npy", "0.output_norm.npy", "b-2.logits.npy", "result.json"]
    );
}

#[test]
fn what_is_wrong_is_one_line_and_an_exit_code() {
    let (folder, out) = workplace();
    let good = request(folder.path());
    let changed = |pointer: &str, value: Value| {
        let mut request = good.clone();
        *request.pointer_mut(pointer).unwrap() = value;
        program(folder.path(), &request)
    };
    for (pointer, value, code, message) in [
        ("/protocol", json!(2), 3, "protocol 2; it speaks 1"),
        ("/activation", json!("gelu"), 3, "activation 'gelu'"),
        ("/model", json!("none\n.gguf"), 2, "none .gguf: "),
        ("/model", json!(folder.path().display().to_string()), 2, "this is not a file"),
        ("/sequences/1/tokens/0", json!(5), 2, "sequence 'b-2': token 5 is outside of the vocabulary of 5"),
        ("/sequences/1/id", json!("0"), 2, "sequence '0' is asked for twice"),
    ] {
        let (got, stderr) = changed(pointer, value);
        assert_eq!(got, code, "{stderr}");
        assert!(stderr.contains(message) && stderr.lines().count() == 1, "{stderr}");
    }
    assert_eq!(fs::read_dir(out).unwrap().count(), 0);

    fs::write(folder.path().join("model.gguf"), small_model("gpt2").bytes()).unwrap();
    let (code, stderr) = program(folder.path(), &good);
    assert_eq!(code, 3);
    assert!(stderr.contains("model.gguf: the oracle cannot do this: architecture 'gpt2'"), "{stderr}");
    fs::remove_dir(folder.path().join("out")).unwrap();
    fs::write(folder.path().join("model.gguf"), small_model("llama").bytes()).unwrap();
    assert_eq!(program(folder.path(), &good).0, 2);
}

#[test]
fn it_describes_itself() {
    let mut stdout = Vec::new();
    assert_eq!(main(&["describe".to_owned()], &mut stdout, &mut Vec::new()), 0);
    let described: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(described["protocol"], 1);
    assert_eq!(described["architectures"], json!(["bitnet-b1.58", "bitnet-25", "bitnet", "llama"]));
    assert_eq!(described["tensors"].as_array().unwrap().len(), 19);
    let mut stdout = Vec::new();
    main(&["--f16-attention".to_owned(), "describe".to_owned()], &mut stdout, &mut Vec::new());
    assert!(String::from_utf8(stdout).unwrap().contains("f64 with attention rounded to f16"));
    assert_eq!(main(&[], &mut Vec::new(), &mut Vec::new()), 2);
}

#[test]
fn the_first_of_equals_is_chosen() {
    assert_eq!(first_largest(&[-1.0, 2.0, 0.0, 2.0]), 1);
    assert_eq!(first_largest(&[-0.0, 0.0]), 0);
}
