//! The small trained model: what it gives is committed, and agrees with the program that trained it.

use assay_engine::kernels::{self, Isa};
use assay_engine::model::Model;
use assay_engine::tokenizer::{Special, Tokenizer};
use assay_harness::runs::engine::Backend;
use assay_harness::runs::file::ModelFile;
use assay_harness::runs::matrix::{matrix, problem};
use assay_harness::runs::perplexity::{Windows, perplexity};
use assay_harness::runs::tiny::{self, Expected};
use assay_variables::{UPDATE, skip_slow};
use std::path::Path;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tiny")
}

fn with_model(body: impl FnOnce(&Model<'_>, &Tokenizer)) {
    let file = tiny::model();
    let gguf = file.gguf().expect("GGUF");
    let tokenizer = Tokenizer::read(&gguf).expect("read").expect("a tokenizer");
    body(&Model::load(&gguf, None).expect("model"), &tokenizer);
}

/// `ASSAY_UPDATE=1` writes what scalar gives.
#[test]
fn text_logits_and_perplexity_are_those_committed() {
    if skip_slow("text, logits and perplexity of the trained model") {
        return;
    }
    with_model(|model, tokenizer| {
        let backend = Backend { kernels: kernels::get(Isa::Scalar).expect("scalar"), threads: 2, batch: 0 };
        let committed = Expected::committed().expect("JSON");
        let measured = committed.measured(model, tokenizer, backend).expect("run");
        if UPDATE.read().expect("a flag") {
            let text = serde_json::to_string_pretty(&measured).expect("JSON") + "\n";
            std::fs::write(folder().join("expected.json"), text).expect("written");
            return;
        }
        assert_eq!(measured, committed);
    });
}

/// The trainer computed in PyTorch, in f32, with windows that begin every 256 tokens where ours begin every 255, and one begin token before all.
/// The two agree as far as that allows; a wrong gate, norm or scale is off by far more.
#[test]
fn the_play_that_was_held_out_costs_what_the_trainer_says() {
    if skip_slow("perplexity of the play that was held out") {
        return;
    }
    let receipt = std::fs::read(folder().join("tiny.training.json")).expect("the training receipt");
    let receipt: serde_json::Value = serde_json::from_slice(&receipt).expect("JSON");
    let file = tiny::model();
    assert_eq!(receipt["sha256"], hex::encode(file.sha256()), "the receipt is of this file");
    let said = receipt["held_out_nats_per_byte"].as_f64().expect("a number");
    with_model(|model, tokenizer| {
        let ids = tokenizer.encode(tiny::HELD_OUT, Special::Plain).expect("ids");
        let windows = Windows { context: 256, stride: 255 };
        let found = perplexity(model, Backend::best(), &ids, None, windows, &mut |_, _| ()).expect("scores");
        assert!(
            (found.nats_per_token - said).abs() < 0.003,
            "{} nats a byte, and the trainer says {said}",
            found.nats_per_token
        );
    });
}

/// The matrix: instruction sets × threads × cuts × {cold, resumed, shared prefix} × {mapped, read into memory}.
#[test]
fn one_digest_however_the_model_is_run() {
    if skip_slow("the digest matrix of the trained model") {
        return;
    }
    let expected = Expected::committed().expect("JSON");
    let task = (&expected.prompt_token_ids[..], expected.token_ids.len());
    let path = folder().join("tiny.gguf");
    for file in [ModelFile::open(&path).expect("mapped"), ModelFile::read(&path).expect("read")] {
        let gguf = file.gguf().expect("GGUF");
        let model = Model::load(&gguf, None).expect("model");
        for kernels in kernels::available() {
            let cells = matrix(&model, task, kernels, &[1, 2, 3], &[0, 1, 4]).expect("runs");
            assert_eq!(cells.len(), 15);
            assert_eq!(problem(&cells, &expected.logits_sha256), None, "{}", kernels.isa);
        }
    }
}
