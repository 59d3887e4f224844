//! `assay convert`: the same weights in every format, or nothing written.

use assay_engine::gguf::{GgmlType, Gguf, Writer};
use assay_engine::quant::i2s::{self, Packing};
use assay_engine::quant::{Format, Ternary};
use assay_engine::tensor::Matrix;
use assay_harness::convert::{self, HEADS, Request, Row};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every format that holds any ternary values with an f16 scale.
const LOSSLESS: [Format; 12] = [
    Format::I2S,
    Format::I2S64,
    Format::Qk256,
    Format::I2R4,
    Format::T5,
    Format::BitNet32,
    Format::Tq1_0,
    Format::Tq2_0,
    Format::Q2_0,
    Format::F16,
    Format::Bf16,
    Format::F32,
];

const ROWS: usize = 8;
const COLS: usize = 768;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden").join(name)
}

fn golden_values() -> Vec<i8> {
    let bytes = fs::read(golden("golden-ternary.i8")).expect("golden matrix");
    bytes.iter().map(|b| b.cast_signed()).collect()
}

/// A file with the golden matrix as `data` of type 36, a norm and an embedding.
fn file(architecture: &str, data: Vec<u8>) -> Vec<u8> {
    let mut writer = Writer::new();
    let floats = |n: usize| (0..n).flat_map(|i| (i as f32 / 64.0 - 7.0).to_le_bytes()).collect::<Vec<u8>>();
    writer.put("general.architecture", architecture).put("general.name", "a name").put("some.number", 7_u32);
    writer.tensor("token_embd.weight", &[COLS as u64, 2], GgmlType::F32, floats(2 * COLS));
    writer.tensor("blk.0.attn_q.weight", &[COLS as u64, ROWS as u64], GgmlType::I2_S, data);
    writer.tensor("blk.0.attn_norm.weight", &[COLS as u64], GgmlType::F32, floats(COLS));
    writer.to_bytes().expect("written")
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(name: &str, bytes: &[u8]) -> (Folder, PathBuf) {
        let folder = Folder::new();
        let path = folder.path(name);
        fs::write(&path, bytes).expect("written");
        (folder, path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("folder");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn to(target: Format) -> Request {
    Request { target, fallback: None, head: None, packing: Packing::default(), arch: None }
}

/// The digests of decoded weights, by name.
fn digests(rows: &[Row]) -> Vec<(String, String)> {
    rows.iter().filter_map(|row| Some((row.name.clone(), row.decoded_sha256.clone()?))).collect()
}

#[test]
fn every_format_and_back_gives_the_same_file() {
    let matrix = Ternary { rows: ROWS, cols: COLS, values: golden_values(), scale: 1.21875 };
    let original = file("bitnet-b1.58", i2s::encode(&matrix.values, matrix.scale));
    let (folder, input) = Folder::with("in.gguf", &original);
    for target in LOSSLESS {
        let (there, back) = (folder.path("there.gguf"), folder.path("back.gguf"));
        let rows = convert::convert(&input, &there, to(target)).expect("converted").rows;
        let row = rows.iter().find(|row| row.name == "blk.0.attn_q.weight").expect("row");
        assert_eq!((row.from, row.to), ("I2_S", target.name()));
        assert_eq!(row.decoded_sha256, Some(hex::encode(matrix.digest())), "{}", target.name());
        assert_eq!(row.bytes_after, target.bytes(ROWS, COLS).expect("size"));
        if target.info().ternary {
            let again = convert::convert(&there, &back, to(Format::I2S)).expect("converted back").rows;
            assert_eq!(digests(&again), digests(&rows), "{}", target.name());
            assert!(fs::read(&back).expect("file") == original, "{} and back", target.name());
        }
    }
    assert_eq!(folder.names(), ["back.gguf", "in.gguf", "there.gguf"], "no temporary file is left");
}

#[test]
fn formats_convert_into_each_other() {
    let original = file("bitnet-b1.58", i2s::encode(&golden_values(), 1.21875));
    let (folder, input) = Folder::with("in.gguf", &original);
    let ternary: Vec<Format> = LOSSLESS.into_iter().filter(|format| format.info().ternary).collect();
    for first in &ternary {
        let (one, two) = (folder.path("one.gguf"), folder.path("two.gguf"));
        let rows = convert::convert(&input, &one, to(*first)).expect("converted").rows;
        for second in &ternary {
            let again = convert::convert(&one, &two, to(*second)).expect("converted").rows;
            assert_eq!(digests(&again), digests(&rows), "{} to {}", first.name(), second.name());
        }
    }
}

#[test]
fn a_scale_that_is_no_f16_goes_to_a_scale_tensor_where_there_are_such() {
    let scale = 0.1_f32;
    let data = i2s::encode(&golden_values(), scale);
    let (folder, input) = Folder::with("in.gguf", &file("bitnet", data.clone()));
    for target in [Format::Tq1_0, Format::Tq2_0, Format::Q2_0, Format::BitNet32, Format::F16] {
        let out = folder.path("out.gguf");
        let rows = convert::convert(&input, &out, to(target)).expect("converted").rows;
        let row = rows.iter().find(|row| row.name == "blk.0.attn_q.weight").expect("row");
        assert!(row.scale_moved, "{}", target.name());
        let expected = Ternary { rows: ROWS, cols: COLS, values: golden_values(), scale };
        assert_eq!(row.decoded_sha256, Some(hex::encode(expected.digest())));
        let bytes = fs::read(&out).expect("file");
        let gguf = Gguf::parse(&bytes).expect("GGUF");
        let tensor = gguf.tensor("blk.0.attn_q.scale").expect("a .scale tensor");
        assert_eq!(gguf.data(tensor), scale.to_le_bytes());
        // Converting on keeps the pair.
        let again = convert::convert(&out, &folder.path("again.gguf"), to(Format::Tq2_0));
        if target != Format::F16 {
            assert_eq!(digests(&again.expect("converted").rows), digests(&rows));
        }
    }
    // Elsewhere it is refused, with what to do.
    let (folder, input) = Folder::with("in.gguf", &file("bitnet-b1.58", data));
    let error = refused(&folder, &input, to(Format::Tq2_0));
    assert!(error.contains("'blk.0.attn_q.weight'") && error.contains("qk256 or t5"), "{error}");
}

/// The message of a conversion that must fail and leave what was at the output.
fn refused(folder: &Folder, input: &Path, request: Request) -> String {
    let out = folder.path("kept");
    fs::write(&out, b"what was there").expect("written");
    let error = convert::convert(input, &out, request).expect_err("refused").to_string();
    assert_eq!(fs::read(&out).expect("file"), b"what was there", "{error}");
    assert_eq!(folder.names().iter().filter(|name| name.ends_with(".tmp")).count(), 0);
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let values = golden_values();
    let original = file("bitnet-b1.58", i2s::encode(&values, 1.0));
    let (folder, input) = Folder::with("in.gguf", &original);
    let error = refused(&folder, &input, to(Format::LinearPm2));
    assert!(error.contains("linear-pm2 has no code for 0, at row 0"), "{error}");
    // 640 columns are no multiple of 256.
    let error = refused(&folder, &golden("b158-stable.gguf"), to(Format::Tq1_0));
    assert!(error.contains(".weight'") && error.contains("multiples of 256"), "{error}");
    // Damaged input: code 3, a scale that is no number, a file cut short.
    let at = original.len() - (COLS * 4) - (ROWS * COLS / 4 + 32);
    let mut damaged = original.clone();
    damaged[at] = 0xff;
    fs::write(&input, &damaged).expect("written");
    let error = refused(&folder, &input, to(Format::T5));
    assert!(error.contains("code 3 at row 0, column 0"), "{error}");
    let nan = file("bitnet", i2s::encode(&values, f32::NAN));
    fs::write(&input, &nan).expect("written");
    assert!(refused(&folder, &input, to(Format::T5)).contains("tensor scale is NaN"));
    fs::write(&input, &original[..original.len() - 100]).expect("written");
    refused(&folder, &input, to(Format::T5));
    fs::write(&input, &original).expect("written");
    assert!(convert::convert(&input, &input, to(Format::T5)).is_err(), "the input is no output");
    assert!(fs::read(&input).expect("file") == original);
}

#[test]
fn type_36_is_read_as_the_caller_says() {
    let values = golden_values();
    let arm = file("bitnet-b1.58", i2s::encode_64(&values, 0.5));
    let (folder, input) = Folder::with("arm.gguf", &arm);
    let out = folder.path("out.gguf");
    let request = Request { packing: Packing::Blocks64, ..to(Format::I2S) };
    let rows = convert::convert(&input, &out, request).expect("converted").rows;
    let expected = Ternary { rows: ROWS, cols: COLS, values, scale: 0.5 }.digest();
    assert_eq!(digests(&rows), [("blk.0.attn_q.weight".to_owned(), hex::encode(expected))]);
    assert_eq!(rows.iter().find(|row| row.from == "I2_S-64/16").map(|row| row.to), Some("I2_S"));
    // Read wrongly, it is another matrix: that is why nothing is guessed.
    let rows = convert::convert(&input, &out, to(Format::T5)).expect("converted").rows;
    assert_ne!(digests(&rows)[0].1, hex::encode(expected));
    // As linear-pm2, every byte is a valid one; the format travels as named bytes and comes back.
    let request = Request { packing: Packing::LinearPm2, ..to(Format::LinearPm2) };
    let rows = convert::convert(&input, &out, request).expect("converted").rows;
    let again =
        convert::convert(&out, &folder.path("again.gguf"), to(Format::LinearPm2)).expect("copied").rows;
    assert_eq!(digests(&again), digests(&rows));
}

#[test]
fn the_head_is_quantised_and_norms_stay() {
    let original = file("bitnet-b1.58", i2s::encode(&golden_values(), 0.5));
    let (folder, input) = Folder::with("in.gguf", &original);
    let out = folder.path("out.gguf");
    for head in HEADS {
        let request = Request { head: Some(head), ..to(Format::I2S) };
        let rows = convert::convert(&input, &out, request).expect("converted").rows;
        let to: Vec<&str> = rows.iter().map(|row| row.to).collect();
        assert_eq!(to, [head.name(), "I2_S", "F32"]);
        let bytes = fs::read(&out).expect("file");
        let gguf = Gguf::parse(&bytes).expect("GGUF");
        let matrix = Matrix::of(&gguf, gguf.tensor("token_embd.weight").expect("there")).expect("matrix");
        assert_eq!(matrix.validate(), Ok(()));
        for (i, x) in matrix.dense().expect("dense").iter().enumerate() {
            let exact = i as f32 / 64.0 - 7.0;
            assert!((x - exact).abs() < 0.9, "{}: element {i} is {x}, was {exact}", head.name());
        }
    }
}

#[test]
fn golden_models_keep_their_digests_and_their_metadata() {
    let folder = Folder::new();
    for (model, target) in
        [("bitnet-stable", Format::Q2_0), ("llama-stable", Format::T5), ("b158-chaotic", Format::I2S64)]
    {
        let (input, out) = (golden(&format!("{model}.gguf")), folder.path("out.gguf"));
        let rows = convert::convert(&input, &out, to(target)).expect("converted").rows;
        let (before, after) = (fs::read(&input).expect("file"), fs::read(&out).expect("file"));
        let (before, after) = (Gguf::parse(&before).expect("GGUF"), Gguf::parse(&after).expect("GGUF"));
        for (name, digest) in digests(&rows) {
            let matrix = Matrix::of(&before, before.tensor(&name).expect("there")).expect("matrix");
            assert_eq!(Some(digest), matrix.ternary().map(|t| hex::encode(t.digest())), "{model} {name}");
        }
        for (key, value) in before.metadata().iter().filter(|(key, _)| *key != "general.file_type") {
            assert_eq!(after.get(key), Some(value), "{model}: {key}");
        }
        let expected = (target == Format::Q2_0).then_some(41);
        assert_eq!(after.opt_u32("general.file_type"), Ok(expected), "the old one would be wrong");
    }
}

fn assay(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_assay")).args(args).output().expect("assay starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("exit code"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_converts_inspects_and_runs_with_the_same_bits() {
    let folder = Folder::new();
    let (input, out) = (golden("b158-stable.gguf"), folder.path("out.gguf"));
    let (input, out) = (input.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
    let (code, stdout, stderr) = assay(&["convert", input, out, "--type", "QK256", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let said: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&said["target"], &said["layout"]), (&"QK256".into(), &"128/32".into()));
    let logits = |model: &str| {
        let (code, stdout, stderr) = assay(&["run", model, "--tokens", "1,2,3", "--steps", "4", "--json"]);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str::<Value>(&stdout).expect("JSON")["logits"]["sha256"].clone()
    };
    assert_eq!(logits(input), logits(out));
    let weights = |model: &str| {
        let (code, stdout, stderr) = assay(&["inspect", model, "--json"]);
        assert_eq!(code, 0, "{stdout} {stderr}");
        serde_json::from_str::<Value>(&stdout).expect("JSON")["decoded_weights_sha256"].clone()
    };
    assert_eq!(weights(input), weights(out));
    // The layout is the user's to say; the same bytes are then another matrix.
    let (_, stdout, _) = assay(&["inspect", input, "--layout", "64/16", "--json"]);
    let other: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_ne!(other["decoded_weights_sha256"], weights(input));
    assert!(stdout.contains("I2_S-64/16"));
    for (args, expected) in [
        (["--type", "tl2"], "expected one of i2_s"),
        (["--type", "q8_0"], "expected one of i2_s"),
        (["--layout", "32/8"], "expected one of 128/32"),
        (["--type", "tq1_0"], "multiples of 256"),
    ] {
        let none = folder.path("none.gguf");
        let (code, _, stderr) = assay(&["convert", input, none.to_str().expect("UTF-8"), args[0], args[1]]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert!(!none.exists());
    }
}

#[test]
fn another_architecture_is_another_name_and_another_gate() {
    let folder = Folder::new();
    let out = folder.path("out.gguf");
    let input = golden("b158-stable.gguf");
    let (file, original) = (out.to_str().expect("UTF-8"), input.to_str().expect("UTF-8"));
    let (code, stdout, stderr) = assay(&["convert", original, file, "--type", "i2_s", "--arch", "bitnet"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("bitnet instead of bitnet-b1.58: its gate is silu, not relu2"), "{stdout}");
    let (before, after) = (fs::read(&input).expect("file"), fs::read(&out).expect("file"));
    let (before, after) = (Gguf::parse(&before).expect("GGUF"), Gguf::parse(&after).expect("GGUF"));
    assert_eq!(after.metadata().len(), before.metadata().len());
    for ((old, value), (new, same)) in before.metadata().iter().zip(after.metadata()) {
        assert_eq!(old.replace("bitnet-b1.58.", "bitnet."), *new);
        assert!(value == same || *new == "general.architecture", "{new}");
    }
    // With the old gate it is the old model, to the bit; with its own it is not.
    let logits = |model: &str, more: &[&str]| {
        let (code, stdout, stderr) =
            assay(&[&["run", model, "--tokens", "1,2,3", "--steps", "4", "--json"], more].concat());
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str::<Value>(&stdout).expect("JSON")["logits"]["sha256"].clone()
    };
    assert_eq!(logits(file, &["--activation", "relu2"]), logits(original, &[]));
    assert_ne!(logits(file, &[]), logits(original, &[]));
    // Its scales may leave their blocks: no f16 holds them.
    let converted = convert::convert(&input, &out, Request { arch: Some("bitnet"), ..to(Format::Q2_0) });
    assert!(converted.expect("converted").rows.iter().any(|row| row.scale_moved));
    // Another graph has no such name.
    let request = Request { arch: Some("bitnet"), ..to(Format::Q2_0) };
    let error = refused(&folder, &golden("llama-stable.gguf"), request);
    assert!(error.contains("general.architecture") && error.contains("got llama"), "{error}");
    let none = folder.path("none.gguf");
    let (code, _, stderr) =
        assay(&["convert", original, none.to_str().expect("UTF-8"), "--type", "q2_0", "--arch", "llama"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("expected one of bitnet"), "{stderr}");
}
