//! A real model from outside, SmolLM2-135M-Instruct, where scripts/smollm2.sh has fetched it.
#![expect(clippy::print_stderr, reason = "a person is to see what was skipped and why")]

use assay_engine::kernels;
use assay_engine::model::Model;
use assay_engine::tokenizer::{Special, Tokenizer};
use assay_harness::runs::engine::{Backend, run};
use assay_harness::runs::file::ModelFile;
use assay_variables::{MODELS, REQUIRE_MODELS};
use std::path::PathBuf;

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// What llama.cpp v0.5.0 (backend icelake) gives for "The capital of France is", greedily: " Paris.\n\nThe United States has a population of
/// approximately".
const LLAMA_CPP: [u32; 12] = [7042, 30, 198, 198, 504, 1797, 1918, 553, 253, 2155, 282, 4723];

fn fetched() -> Option<ModelFile> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = MODELS.read().unwrap_or_else(|| root.join("target/models"));
    let found = ModelFile::open(&folder.join(FILE)).ok();
    if found.is_none() {
        let required = REQUIRE_MODELS.read().expect("a flag");
        assert!(!required, "{FILE} is not in {}; scripts/smollm2.sh fetches it", folder.display());
        eprintln!("skipped: {FILE} is not in {}; scripts/smollm2.sh fetches it", folder.display());
    }
    found
}

#[test]
fn smollm2_knows_the_capital_of_france_as_llama_cpp_does() {
    let Some(file) = fetched() else { return };
    let gguf = file.gguf().expect("GGUF");
    let model = Model::load(&gguf, None).expect("model");
    let tokenizer = Tokenizer::read(&gguf).expect("read").expect("a tokenizer");
    let prompt = tokenizer.encode("The capital of France is", Special::Plain).expect("ids");
    assert_eq!(prompt, [504, 3575, 282, 4649, 314]);
    let mut digests = Vec::new();
    // Scalar would take minutes; it is held to the others on smaller models.
    for kernels in kernels::available().into_iter().skip(1) {
        let backend = Backend { kernels, ..Backend::best() };
        let found = run(&model, backend, &prompt, LLAMA_CPP.len(), &mut |_, _| Ok(())).expect("run");
        assert_eq!(found.outcome.generated, LLAMA_CPP, "{}", kernels.isa);
        assert!(tokenizer.decode(&found.outcome.generated).expect("text").starts_with(" Paris"));
        digests.push(found.outcome.logits_sha256);
    }
    digests.dedup();
    assert!(digests.len() <= 1, "one digest on every instruction set");
}
