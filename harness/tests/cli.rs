//! The program as a user runs it: results, exit codes, one-line errors, nothing half-written.

use assay_variables::{SEED, skip_slow};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden").join(name)
}

fn assay(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_assay")).args(args).output().expect("assay starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(output)))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", stderr(output)))
}

const TOKENS: &str = "1021,104,101,108,300,301,500,32,77,900,12,55";
const B158_STABLE: &str = "3d340968341b344cae64dc475ccf5793f19db452161cdba5e9819a3e21aff45e";

/// Exit code 2, nothing on stdout, one line on stderr that begins with `error:` and says `expected`.
fn refused(args: &[&str], expected: &str) {
    let output = assay(args);
    let said = stderr(&output);
    assert_eq!(code(&output), 2, "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout");
    assert_eq!(said.lines().count(), 1, "{args:?}: one line, not: {said}");
    assert!(
        said.starts_with("error: ") && said.contains(expected),
        "{args:?}: {expected:?} is not in: {said}"
    );
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn run_gives_the_digest_of_the_contract_and_writes_the_logits() {
    let folder = tempfile::tempdir().expect("folder");
    let logits = folder.path().join("logits.f32");
    let receipts = folder.path().join("receipts");
    let (model, steps) = (golden("b158-stable.gguf"), "32");
    let args = ["run", text(&model), "--tokens", TOKENS, "--steps", steps, "--batch", "5", "--json"];
    let more = ["--logits", text(&logits), "--out", text(&receipts)];
    let output = assay(&[&args[..], &more[..]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = json(&output);
    assert_eq!(said["logits"]["sha256"], B158_STABLE);
    assert_eq!((&said["logits"]["rows"], &said["logits"]["vocab"]), (&44.into(), &1024.into()));
    assert_eq!(said["token_ids"].as_array().expect("ids").len(), 32);
    let written = fs::read(&logits).expect("logits");
    assert_eq!(written.len(), 44 * 1024 * 4);
    assert_eq!(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&written)), B158_STABLE);

    let receipt = said["receipt"].as_str().expect("a receipt");
    let verified = assay(&["receipt", "verify", receipt, "--model", text(&model)]);
    assert_eq!(code(&verified), 0, "{}", String::from_utf8_lossy(&verified.stdout));
    let other = golden("b158-chaotic.gguf");
    assert_eq!(code(&assay(&["receipt", "verify", receipt, "--model", text(&other)])), 5, "another model");
}

#[test]
fn text_goes_through_the_tokenizer_and_back() {
    let output =
        assay(&["run", text(&golden("b158-stable.gguf")), "--prompt", "hello", "--steps", "2", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("tokenizer.ggml.pre"), "the missing pre-tokenizer is warned about");
    let said = json(&output);
    assert_eq!(said["prompt_token_ids"][0], 1021, "the begin token");
    assert!(said["text"].is_string());
}

fn assay_reading(input: &[u8], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    let command = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("assay starts");
    child.stdin.take().expect("stdin").write_all(input).expect("written");
    child.wait_with_output().expect("assay ends")
}

#[test]
fn text_becomes_ids_that_run_takes_and_comes_back() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("text");
    fs::write(&file, "the é\n").expect("written");
    let model = golden("b158-stable.gguf");
    let model = text(&model);
    let ids = |args: &[&str]| {
        let output = assay_reading("the é\n".as_bytes(), &[&["tokenize", model, "--ids"], args].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stderr(&output).contains("tokenizer.ggml.pre"), "the missing pre-tokenizer is warned about");
        String::from_utf8(output.stdout).expect("ids").trim_end().to_owned()
    };
    let of_input = ids(&[]);
    assert!(of_input.starts_with("1021,"), "the begin token: {of_input}");
    assert_eq!(of_input, ids(&["--text", "-"]));
    assert_eq!(of_input, ids(&["--text", text(&file)]));
    assert_eq!(of_input, ids(&["--prompt", "the é\n"]));

    let ran = assay(&["run", model, "--prompt", "the é\n", "--steps", "1", "--json"]);
    let prompt: Vec<String> =
        json(&ran)["prompt_token_ids"].as_array().expect("ids").iter().map(Value::to_string).collect();
    assert_eq!(prompt.join(","), of_input);

    let (_, bare) = of_input.split_once(',').expect("more ids");
    let back = assay(&["tokenize", model, "--decode", bare]);
    assert_eq!(String::from_utf8_lossy(&back.stdout), "\"the é\\n\"\n");
    assert!(stderr(&back).is_empty(), "no text was cut: {}", stderr(&back));
}

#[test]
fn tokens_are_listed_with_what_they_stand_for() {
    let model = golden("b158-stable.gguf");
    let args = ["tokenize", text(&model), "--prompt", "a\u{1f980}<|eot_id|>"];
    let output = assay(&args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("\"a\"") && said.contains("bytes f0") && said.contains("\"<|eot_id|>\""), "{said}");
    let said = json(&assay(&[&args[..], &["--json"]].concat()));
    let tokens = said["tokens"].as_array().expect("tokens");
    let last = tokens.last().expect("a token");
    assert_eq!((&last["text"], &last["control"]), (&"<|eot_id|>".into(), &true.into()));
    assert_eq!(tokens.len(), said["token_ids"].as_array().expect("ids").len());
    let plain = json(&assay(&[&args[..], &["--special", "plain", "--json"]].concat()));
    let plain = plain["tokens"].as_array().expect("tokens");
    assert!(plain[1..].iter().all(|token| token["control"] == false), "{plain:?}");
}

#[test]
fn what_cannot_be_tokenized_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("latin1");
    fs::write(&file, b"gr\xfc\xdfe").expect("written");
    let model = golden("b158-stable.gguf");
    let tokenize = |more: &[&str], expected: &str| {
        refused(&[&["tokenize", text(&model)], more].concat(), expected);
    };
    tokenize(&["--decode", "1,1024"], "vocabulary of 1024 tokens, got 1024");
    tokenize(&["--text", "/no/such/text"], "/no/such/text");
    fs::create_dir(folder.path().join("folder")).expect("folder");
    tokenize(&["--text", text(&folder.path().join("folder"))], "folder");
    let output = assay(&["tokenize", text(&model), "--text", text(&file)]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("not UTF-8: byte 0xfc at offset 2"), "{}", stderr(&output));
    let tensors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/t5_4x320.gguf");
    refused(&["tokenize", text(&tensors), "--prompt", "a"], "no tokenizer in the file");
}

#[test]
fn parity_holds_and_a_changed_model_does_not() {
    let folder = tempfile::tempdir().expect("folder");
    let reference = format!("golden:{}", text(&golden("")));
    let model = golden("b25-varied.gguf");
    let output = assay(&["parity", text(&model), "--reference", &reference, "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = json(&output);
    assert_eq!((&said["exact"], &said["greedy_equal"]), (&true.into(), &32.into()));
    assert!(said["cosine_min"].as_f64().expect("number") >= 0.9999);

    let changed = folder.path().join("b25-varied.gguf");
    let mut bytes = fs::read(&model).expect("model");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&changed, bytes).expect("written");
    let output = assay(&["parity", text(&changed), "--reference", &reference]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("the file was changed"), "{}", stderr(&output));
}

#[test]
fn logits_that_differ_from_the_golden_ones_are_a_mismatch() {
    let folder = tempfile::tempdir().expect("folder");
    for name in ["b25-varied.gguf", "b25-varied.seq.f32"] {
        fs::copy(golden(name), folder.path().join(name)).expect("copied");
    }
    let index = fs::read_to_string(golden("models.json")).expect("index");
    let mut index: Value = serde_json::from_str(&index).expect("index");
    let entry = &mut index["models"]["b25-varied"];
    entry["exact_v1_logits_sha256"] = "0".repeat(64).into();
    entry["greedy_token_ids"][7] = 1.into();
    fs::write(folder.path().join("models.json"), index.to_string()).expect("written");
    let reference = format!("golden:{}", text(folder.path()));
    let output = assay(&["parity", text(&golden("b25-varied.gguf")), "--reference", &reference, "--json"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let said = json(&output);
    assert_eq!((&said["held"], &said["greedy_equal"]), (&false.into(), &7.into()));
    assert_eq!(said["failures"].as_array().expect("failures").len(), 2, "{}", said["failures"]);
}

#[test]
fn bad_model_files_are_refused_by_every_command_that_takes_one() {
    let folder = tempfile::tempdir().expect("folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let model = fs::read(golden("b25-varied.gguf")).expect("model");
    let cases = [
        (folder.path().join("missing.gguf"), "No such file"),
        (folder.path().to_owned(), "is a directory"),
        (file("empty.gguf", b""), "cut short"),
        (file("text.gguf", b"not a model, but long enough to hold a header"), "GGUF"),
        (file("cut.gguf", &model[..model.len() / 2]), "'token_embd.weight'"),
        (file("head.gguf", &model[..1000]), "'tokenizer.ggml.tokens'"),
    ];
    let logits = folder.path().join("never.f32");
    for (path, expected) in &cases {
        refused(&["inspect", text(path)], expected);
        refused(&["run", text(path), "--tokens", "1", "--logits", text(&logits)], expected);
        assert!(!logits.exists(), "no partial output");
    }
    for (path, _) in &cases[..2] {
        refused(&["parity", text(path), "--reference", "golden"], text(path));
    }
    let left = fs::read_dir(folder.path()).expect("folder").count();
    assert_eq!(left, 4, "no temporary files are left behind");
}

#[test]
fn bad_requests_are_refused() {
    let model = golden("b25-varied.gguf");
    let run = |more: &[&str], expected: &str| refused(&[&["run", text(&model)], more].concat(), expected);
    run(&["--tokens", "1024"], "token id: expected 0 to 1023, got 1024");
    run(&["--tokens", "1", "--steps", "512"], "context");
    run(&["--tokens", "1", "--threads", "0"], "threads");
    run(&["--tokens", "1", "--logits", text(&golden(""))], "is a directory");
    run(&["--tokens", "1", "--steps", "1", "--logits", "/no/such/folder/l.f32"], "/no/such/folder");
    run(&["--tokens", "1", "--steps", "18446744073709551615"], "context");
    refused(
        &["parity", text(&model), "--reference", "golden:/no/such/folder"],
        "/no/such/folder/models.json",
    );
    refused(&["parity", text(&model), "--reference", "llama"], "golden:DIR");
    refused(&["receipt", "verify", "/no/such/receipt.json"], "No such file");
    refused(&["fixtures", "generate", "--only", "no-such"], "no-such");
    // Usage errors come from the argument parser, with its usage text and the same code.
    assert_eq!(code(&assay(&["run", text(&model)])), 2);
    assert_eq!(code(&assay(&["run", text(&model), "--tokens", "1", "--isa", "sse9"])), 2);
}

#[test]
fn inspect_lists_and_finds_problems() {
    let output = assay(&["inspect", text(&golden("bitnet-stable.gguf")), "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = json(&output);
    assert_eq!(said["tensors"].as_array().expect("tensors").len(), 46);
    assert_eq!(said["problems"], Value::Array(vec![]));
    assert!(said["decoded_weights_sha256"].is_string());

    let folder = tempfile::tempdir().expect("folder");
    let damaged = folder.path().join("damaged.gguf");
    let mut bytes = fs::read(golden("bitnet-stable.gguf")).expect("model");
    let tensor = &said["tensors"].as_array().expect("tensors")[1..];
    let i2s = tensor.iter().find(|tensor| tensor["kind"] == "I2_S").expect("an I2_S tensor");
    let data = bytes.len()
        - said["tensors"].as_array().map_or(0, |all| {
            all.iter()
                .map(|t| t["offset"].as_u64().unwrap_or(0) + t["bytes"].as_u64().unwrap_or(0))
                .max()
                .unwrap_or(0)
        }) as usize;
    bytes[data + i2s["offset"].as_u64().expect("offset") as usize] = 0xff;
    fs::write(&damaged, bytes).expect("written");
    let output = assay(&["inspect", text(&damaged), "--json"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let problems = json(&output)["problems"].to_string();
    assert!(problems.contains("code 3 at row 0, column 0"), "{problems}");
    refused(&["run", text(&damaged), "--tokens", "1"], "code 3");
}

#[test]
fn fixtures_are_generated_verified_and_missed() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("fixtures");
    let output = assay(&["fixtures", "generate", "--out", text(&out)]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(code(&assay(&["fixtures", "verify", text(&out)])), 0);
    let first = out.join("qk256_3x300.gguf");
    let mut bytes = fs::read(&first).expect("fixture");
    bytes[300] ^= 4;
    fs::write(&first, bytes).expect("written");
    let output = assay(&["fixtures", "verify", text(&out)]);
    assert_eq!(code(&output), 1);
    assert!(String::from_utf8_lossy(&output.stdout).contains("DIFFERS"));
    for tensors in ["qk256_4x256.gguf", "bitnet32_2x64.gguf"] {
        let path = out.join(tensors);
        assert_eq!(code(&assay(&["inspect", text(&path)])), 0, "{tensors}");
        refused(&["run", text(&path), "--tokens", "1"], "general.architecture");
    }
}

/// The tests' own model file: the one that is part of the program.
fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tiny/tiny.gguf")
}

#[test]
fn the_built_in_model_runs_without_arguments_and_a_seed_draws_the_same_again() {
    let greedy = json(&assay(&["run", "--steps", "4", "--json"]));
    assert_eq!((&greedy["model"], &greedy["ended_by"]), (&"tiny.gguf".into(), &"steps".into()));
    assert!(greedy["text"].is_string());
    let draw = |seed: &str, isa: &str| {
        let more =
            ["--prompt", "To be", "--temperature", "0.9", "--steps", "24", "--seed", seed, "--isa", isa];
        json(&assay(&[&["run", "--json"], &more[..]].concat()))["token_ids"].clone()
    };
    let best = assay_engine::kernels::best().isa.name();
    assert_eq!(draw("1", "scalar"), draw("1", best));
    assert_ne!(draw("1", best), draw("2", best));
}

#[test]
fn the_seed_of_the_environment_is_the_default_and_the_option_wins() {
    let with_seed = |value: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command.args(args).env(SEED.name(), value).output().expect("assay starts")
    };
    let draw = |value: &str, more: &[&str]| {
        let draw = ["run", "--json", "--prompt", "To be", "--temperature", "0.9", "--steps", "24"];
        json(&with_seed(value, &[&draw, more].concat()))["token_ids"].clone()
    };
    let (zero, two) = (draw("", &["--seed", "0"]), draw("", &["--seed", "2"]));
    assert_eq!((&draw("", &[]), &draw("2", &[]), &draw("abc", &["--seed", "2"])), (&zero, &two, &two));
    assert_ne!(zero, two);
    for args in [
        &["run", "--tokens", "1", "--steps", "1"][..],
        &["kernels", "check"],
        #[cfg(unix)]
        &["parity", "--matrix"],
    ] {
        let refused = with_seed("abc", args);
        let said =
            "error: ASSAY_SEED: expected a number from 0 to 2^64 - 1, got 'abc'; correct it or unset it\n";
        assert_eq!((code(&refused), &*stderr(&refused)), (2, said), "{args:?}");
        assert!(refused.stdout.is_empty());
    }
    #[cfg(unix)]
    {
        let model = golden("b25-varied.gguf");
        let seeded = ["parity", "--matrix", text(&model), "--prompts", "1", "--steps", "1", "--json"];
        assert_eq!(json(&with_seed("7", &seeded))["seed"], 7);
    }
}

#[test]
fn a_saved_state_goes_on_to_the_same_tokens_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, state) = (tiny(), folder.path().join("prompt.kv"));
    let run = |more: &[&str]| assay(&[&["run", text(&model), "--json"], more].concat());
    let whole = json(&run(&["--tokens", "256,84,104,101,32", "--steps", "8"]));
    let saved = run(&["--tokens", "256,84,104", "--steps", "0", "--save-state", text(&state)]);
    assert_eq!(code(&saved), 0, "{}", stderr(&saved));
    let resumed =
        json(&run(&["--tokens", "256,84,104,101,32", "--steps", "8", "--load-state", text(&state)]));
    assert_eq!(resumed["token_ids"], whole["token_ids"]);
    assert_eq!((&resumed["resumed_tokens"], &resumed["logits"]["rows"]), (&3.into(), &10.into()));
    let load = |tokens: &str, expected: &str| {
        refused(&["run", text(&model), "--tokens", tokens, "--load-state", text(&state)], expected);
    };
    load("256,84,105,101", "begins with 2");
    load("256,84,104", "goes on");
    let other = golden("b158-stable.gguf");
    refused(&["run", text(&other), "--tokens", "1", "--load-state", text(&state)], "another model");
    let mut bytes = fs::read(&state).expect("state");
    bytes[300] ^= 1;
    fs::write(&state, bytes).expect("written");
    load("256,84,104,101", "SHA-256 does not fit");
}

#[test]
fn generation_ends_before_a_stop_string() {
    let model = tiny();
    let args = ["run", text(&model), "--prompt", "PROSPERO. ", "--steps", "60", "--json"];
    let whole = json(&assay(&args));
    let text_of = |said: &serde_json::Value| said["text"].as_str().expect("text").to_owned();
    let all = text_of(&whole);
    let stop: String = all.chars().skip(10).take(3).collect();
    let ended = json(&assay(&[&args[..], &["--stop", &stop]].concat()));
    assert_eq!(text_of(&ended), all[..all.find(&stop).expect("there")]);
    assert_eq!(ended["ended_by"], "stop-string");
}

#[test]
fn what_a_run_cannot_do_is_refused_before_it_begins() {
    let (model, golden) = (tiny(), golden("b158-stable.gguf"));
    let run = |more: &[&str], expected: &str| refused(&[&["run", text(&model)], more].concat(), expected);
    run(&["--prompt", "hello", "--chat"], "no chat template");
    run(&["--tokens", "1", "--steps", "500"], "the model's context");
    run(&["--tokens", "1", "--temperature", "NaN"], "temperature");
    run(&["--tokens", "1", "--temperature", "1", "--top-p", "0"], "top-p");
    run(&[], "--prompt");
    refused(&["run", text(&golden), "--tokens", "9999"], "token id");
    refused(&["fixtures", "generate", "--shape", "7b", "--out", "/tmp"], "2b-4t");
}

#[test]
fn perplexity_is_one_number_for_every_cut_and_its_inputs_are_checked() {
    if skip_slow("perplexity in every cut") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let (model, play) = (tiny(), folder.path().join("play.txt"));
    let words = "PROSPERO. Now my charms are all o'erthrown, and what strength I have's mine own. ".repeat(6);
    fs::write(&play, &words).expect("written");
    let args = ["perplexity", text(&model), "--text", text(&play), "--json"];
    let said = |more: &[&str]| json(&assay(&[&args[..], more].concat()));
    let whole = said(&["--stride", "64", "--isa", "scalar", "--threads", "1"]);
    assert_eq!(whole["tokens"], words.len());
    assert_eq!(said(&["--stride", "64", "--batch", "7", "--threads", "3"])["sha256"], whole["sha256"]);
    assert_ne!(said(&["--stride", "255"])["sha256"], whole["sha256"], "another question");
    let run = |more: &[&str], expected: &str| refused(&[&args[..4], more].concat(), expected);
    run(&["--stride", "256"], "stride");
    run(&["--context", "1"], "context");
    run(&["--context", "4096"], "context");
    fs::write(&play, [b'a', 0xff]).expect("written");
    run(&[], "not UTF-8");
    fs::write(&play, "").expect("written");
    run(&[], "tokens of the text");
    refused(&["perplexity", text(&model), "--text", "/no/such/file"], "/no/such/file");
}

#[cfg(unix)]
#[test]
fn bench_times_prompts_and_tokens_on_every_number_of_threads() {
    let args = ["bench", "--rounds", "2", "--prefill", "16", "--depth", "4,32", "--steps", "3", "--json"];
    let said = json(&assay(&args));
    let lines = said["lines"].as_array().expect("lines");
    assert_eq!(lines.len(), 6);
    for line in lines {
        assert!(line["tokens_per_second"]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{line}");
    }
    refused(&["bench", "--depth", "5000"], "context");
    refused(&["bench", "--rounds", "0"], "at least 1");
    refused(&["bench", "--peer", "llama.cpp"], "needs a model file");
}

#[test]
fn logits_never_replace_the_model_or_what_is_no_file() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, link) = (folder.path().join("m.gguf"), folder.path().join("link.gguf"));
    fs::copy(golden("b25-varied.gguf"), &model).expect("copied");
    let before = fs::read(&model).expect("model");
    let run = |logits: &Path, expected: &str| {
        refused(&["run", text(&model), "--tokens", "1", "--steps", "1", "--logits", text(logits)], expected);
    };
    run(&model, "is an input of this command");
    run(folder.path(), "is a directory");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&model, &link).expect("link");
        run(&link, "is an input of this command");
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        run(&pipe, "is not a regular file");
        refused(&["inspect", text(&pipe)], "is not a regular file");
        refused(&["receipt", "verify", text(&pipe)], "is not a regular file");
    }
    assert_eq!(fs::read(&model).expect("model"), before, "the model is untouched");
}

#[test]
fn outputs_are_asked_for_before_the_work() {
    let folder = tempfile::tempdir().expect("folder");
    let (blocked, logits) = (folder.path().join("file"), folder.path().join("logits"));
    fs::write(&blocked, b"in the way").expect("written");
    let model = golden("b25-varied.gguf");
    let args = ["run", text(&model), "--tokens", "1", "--logits", text(&logits), "--out", text(&blocked)];
    refused(&args, text(&blocked));
    assert!(!logits.exists(), "nothing is half-written");
    refused(&["check", "--out", text(&blocked)], text(&blocked));
    refused(&["check", "--threads", "0", "--out", text(&folder.path().join("out"))], "0 threads");
}

#[test]
fn an_unreadable_receipt_does_not_hide_a_tampered_one() {
    let folder = tempfile::tempdir().expect("folder");
    let junk = folder.path().join("junk.json");
    fs::write(&junk, b"{").expect("written");
    let output = assay(&["receipt", "verify", text(&junk), "/no/such.json", "--json"]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let said = json(&output);
    assert_eq!(said[0]["verdict"], "TAMPERED");
    assert!(said[1]["error"].as_str().expect("an error").contains("No such file"));
}

#[test]
fn kernels_are_listed_checked_and_receipted() {
    let folder = tempfile::tempdir().expect("folder");
    let output = assay(&["kernels", "check", "--isa", "scalar", "--out", text(folder.path()), "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = json(&output);
    assert_eq!(said[0]["held"], true);
    let receipt = said[0]["receipt"].as_str().expect("a receipt");
    assert_eq!(code(&assay(&["receipt", "verify", receipt])), 0);
    let asked = assay(&["receipt", "verify", receipt, "--model", text(&golden("b25-varied.gguf"))]);
    assert_eq!(code(&asked), 7, "a kernel check names no model, so it cannot be held to one");
    assert_eq!(json(&assay(&["kernels", "list", "--json"]))[0]["available"], true);
}

#[test]
fn the_run_in_the_readme_is_what_it_prints() {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).expect("README");
    let command = readme.lines().find_map(|line| line.strip_prefix("$ assay run ")).expect("an example");
    let output = Command::new(env!("CARGO_BIN_EXE_assay"))
        .arg("run")
        .args(command.split_whitespace())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .expect("assay starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let decided = said.lines().filter(|line| ["tokens", "logits"].iter().any(|word| line.starts_with(word)));
    for line in decided {
        assert!(readme.contains(line), "not in the README: {line}");
    }
}

#[cfg(feature = "report")]
#[test]
fn a_report_joins_two_sides_and_a_flipped_byte_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let side = |name: &str, isa: &[&str]| {
        let out = folder.path().join(name);
        let model = golden("b25-varied.gguf");
        let args = ["run", text(&model), "--tokens", "1,2,3", "--steps", "4", "--out", text(&out)];
        assert_eq!(code(&assay(&[&args[..], isa].concat())), 0);
        out
    };
    let (baseline, candidate) = (side("a", &["--isa", "scalar"]), side("b", &[]));
    let out = folder.path().join("report");
    let args = ["report", text(&baseline), text(&candidate), "--out", text(&out)];
    let output = assay(&args);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let markdown = fs::read_to_string(out.join("report.md")).expect("report");
    assert!(markdown.contains("| same |"), "{markdown}");
    assert!(fs::read_to_string(out.join("report.csv")).expect("CSV").contains("candidate_digest"));

    let receipt =
        fs::read_dir(candidate.join("model-run")).expect("folder").next().expect("one").expect("one").path();
    let mut bytes = fs::read(&receipt).expect("receipt");
    let at = bytes.windows(7).position(|w| w == b"threads").expect("a field") + 9;
    bytes[at] ^= 1;
    fs::write(&receipt, bytes).expect("written");
    let verified = assay(&["receipt", "verify", text(&receipt)]);
    assert_eq!(code(&verified), 5, "{}", String::from_utf8_lossy(&verified.stdout));
    let output = assay(&args);
    assert_eq!(code(&output), 1);
    assert!(fs::read_to_string(out.join("report.md")).expect("report").contains("TAMPERED"));
}

#[test]
fn the_self_test_kills_every_fault_and_says_how() {
    if skip_slow("the self-test of the command") {
        return;
    }
    let output = assay(&["check", "--self-test", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = json(&output);
    let outcomes = said["outcomes"].as_array().expect("outcomes");
    assert_eq!((&said["held"], &said["killed"]), (&true.into(), &said["faults"]));
    assert_eq!(said["faults"].as_u64(), Some(outcomes.len() as u64));
    for outcome in outcomes {
        let message = outcome["message"].as_str().expect("a message");
        assert!(message.contains(outcome["id"].as_str().expect("an id")), "{message}");
    }
    let plain = assay(&["check", "--self-test"]);
    let text = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(text.contains(&format!("kill rate  {0} of {0} (100.0%)", outcomes.len())), "{text}");
    assert_eq!(code(&assay(&["check", "--self-test", "--out", "somewhere"])), 2, "nothing is written");
}
