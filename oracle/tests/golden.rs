//! The oracle held to the logits that bitnet.cpp computed for the committed models, through the protocol.
//!
//! bitnet.cpp rounds attention to f16. With the same rounding, nothing but the order of `f32` sums is left between the two: cosines
//! of 1 to fourteen digits, until the first activation whose int8 rounding flips. In `f64` the f16 rounding is what is seen.

#![expect(clippy::print_stdout, reason = "what was measured, for `cargo test -- --nocapture`")]

use std::fs;
use std::path::{Path, PathBuf};

use assay_oracle::Attention;
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden")
}

fn parsed(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn ids(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

/// A model of `models.json`, and what bitnet.cpp made of it.
struct Golden {
    file: PathBuf,
    prompt: Vec<u64>,
    greedy: Vec<u64>,
    vocab: usize,
    /// `(prompt + greedy, vocab)`
    logits: Vec<f32>,
}

impl Golden {
    fn read(name: &str) -> Golden {
        let index = parsed(&golden().join("models.json"));
        let model = &index["models"][name];
        let logits = model["logits_one_token_at_a_time"]["file"].as_str().unwrap();
        Golden {
            file: golden().join(model["file"].as_str().unwrap()),
            prompt: ids(&model["prompt_token_ids"]),
            greedy: ids(&model["greedy_token_ids"]),
            vocab: model["vocab_size"].as_u64().unwrap() as usize,
            logits: floats(&fs::read(golden().join(logits)).unwrap()),
        }
    }

    /// The cosine at every position between these logits and bitnet.cpp's.
    fn cosines(&self, logits: &[f32]) -> Vec<f64> {
        assert_eq!(logits.len(), self.logits.len());
        let rows = logits.chunks(self.vocab).zip(self.logits.chunks(self.vocab));
        rows.map(|(a, b)| cosine(a, b)).collect()
    }
}

fn worst(cosines: &[f64]) -> f64 {
    cosines.iter().copied().fold(1.0, f64::min)
}

/// What the oracle generates after `tokens`, and all its logits.
fn run(
    model: &Path,
    activation: &str,
    attention: Attention,
    tokens: &[u64],
    steps: usize,
) -> (Vec<u64>, Vec<f32>) {
    let folder = tempfile::tempdir().unwrap();
    let request = folder.path().join("request.json");
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let text = json!({
        "protocol": 1,
        "model": model,
        "activation": activation,
        "threads": 1,
        "sequences": [{"id": "0", "tokens": tokens, "steps": steps, "tensors": []}],
    });
    fs::write(&request, text.to_string()).unwrap();
    assay_oracle::run_with(&request, &out, attention).unwrap();
    let result = parsed(&out.join("result.json"));
    let sequence = &result["sequences"][0];
    let array = fs::read(out.join(sequence["logits"].as_str().unwrap())).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([array[8], array[9]]));
    (ids(&sequence["generated"]), floats(&array[header..]))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// All 32 greedy tokens, and a cosine at every position of at least `in_f64` without ggml's f16, 0.9999 with it: that is the
/// bound of `assay parity`. Before anything can have flipped, the first four rows are held to far more.
fn holds(name: &str, activation: &str, in_f64: f64) {
    let golden = Golden::read(name);
    for (attention, bound) in [(Attention::F64, in_f64), (Attention::F16, 0.9999)] {
        let steps = golden.greedy.len();
        let (generated, logits) = run(&golden.file, activation, attention, &golden.prompt, steps);
        assert_eq!(generated, golden.greedy, "{name}, {attention:?}");
        let cosines = golden.cosines(&logits);
        println!(
            "{name}, attention in {attention:?}: {steps} tokens equal, worst cosine {:.6}",
            worst(&cosines)
        );
        assert!(worst(&cosines) >= bound, "{name}, {attention:?}: {}", worst(&cosines));
        assert!(attention == Attention::F64 || worst(&cosines[..4]) >= 1.0 - 1e-9, "{name}");
    }
}

#[test]
fn squared_relu_with_sub_norms() {
    holds("b158-stable", "relu2", 0.9999);
}

/// This model is more sensitive than the others named stable: f16 in attention moves all its logits by about 2 %.
#[test]
fn the_early_name_and_varied_tokens() {
    holds("b25-varied", "relu2", 0.9995);
}

#[test]
fn silu_with_sub_norms() {
    holds("bitnet-stable", "silu", 0.9999);
}

#[test]
fn llama_with_interleaved_rotation() {
    holds("llama-stable", "silu", 0.9999);
}

#[test]
fn a_long_prompt_and_heads_of_48() {
    holds("b158-long", "relu2", 0.9999);
}

/// This model turns one rounding that flips into another token, so all tokens are given.
#[test]
fn a_model_that_amplifies_differences() {
    let golden = Golden::read("b158-chaotic");
    let tokens = [golden.prompt.clone(), golden.greedy.clone()].concat();
    for attention in [Attention::F64, Attention::F16] {
        let (_, logits) = run(&golden.file, "relu2", attention, &tokens, 0);
        let cosines = golden.cosines(&logits);
        println!("b158-chaotic, attention in {attention:?}: worst cosine {:.6}", worst(&cosines));
        assert!(worst(&cosines) >= 0.999, "{}", worst(&cosines));
        assert!(attention == Attention::F64 || worst(&cosines[..4]) >= 1.0 - 1e-9);
    }
}

/// A trained model, and what the project's engine generated with it.
#[test]
fn a_trained_model_continues_its_play() {
    let folder = golden().join("../tiny");
    let expected = parsed(&folder.join("expected.json"));
    let (prompt, tokens) = (ids(&expected["prompt_token_ids"]), ids(&expected["token_ids"]));
    let (generated, _) = run(&folder.join("tiny.gguf"), "relu2", Attention::F16, &prompt, tokens.len());
    assert_eq!(generated, tokens);
}

/// The other gate is another model: what the tests above see is not seen by chance.
#[test]
fn the_wrong_gate_is_noticed() {
    let golden = Golden::read("b158-stable");
    let (_, logits) = run(&golden.file, "silu", Attention::F64, &golden.prompt, golden.greedy.len());
    assert!(worst(&golden.cosines(&logits)) < 0.999);
}
