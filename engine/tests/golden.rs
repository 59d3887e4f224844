//! Golden data made by the C++ programs, and the digests of an independent implementation of the contract.

use assay_engine::decode::{Outcome, Request, generate};
use assay_engine::gguf::Gguf;
use assay_engine::kernels::acts::Order;
use assay_engine::kernels::{self, Acts, Kernels};
use assay_engine::model::Model;
use assay_engine::quant::{Format, i2s, qk256};
use assay_engine::threads::Pool;
use assay_variables::skip_slow;
use serde_json::Value;
use std::path::PathBuf;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn golden_json(name: &str) -> Value {
    serde_json::from_slice(&golden(name)).expect("golden JSON")
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    assay_engine::quant::dense::f32_from_bytes(bytes)
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().expect("ids").iter();
    ids.map(|id| u32::try_from(id.as_u64().expect("id")).expect("u32")).collect()
}

fn hex(value: &Value) -> u32 {
    u32::from_str_radix(value.as_str().expect("hex bits"), 16).expect("hex bits")
}

#[test]
fn i2_s_bytes_are_those_of_the_cpp_quantiser() {
    let values: Vec<i8> = golden("golden-ternary.i8").iter().map(|b| b.cast_signed()).collect();
    let scale = f32::from_bits(hex(&golden_json("golden.json")["scale_bits"]));
    let bytes = golden("golden-i2_s.bin");
    assert_eq!(Format::I2S.validate("golden", &bytes, 8, 768), Ok(()));
    let decoded = i2s::decode(&bytes, 8, 768);
    assert_eq!((&decoded.values, decoded.scale), (&values, scale));
    // The C++ quantiser leaves the padding after the scale undefined.
    let codes_and_scale = 8 * 768 / 4 + 4;
    assert_eq!(i2s::encode(&values, scale)[..codes_and_scale], bytes[..codes_and_scale]);
    let same = Format::Qk256.decode_ternary(&qk256::encode(&values, 768, scale), 8, 768).expect("QK256");
    assert_eq!(same.digest(), decoded.digest(), "one decoded-weights digest for both formats");
}

#[test]
fn activations_and_products_are_those_of_bitnet_cpp_on_every_isa() {
    let info = golden_json("golden.json");
    let (acts, want_q) = (f32s(&golden("golden-act.f32")), golden("golden-act.i8"));
    let (weights, want_y) = (golden("golden-i2_s.bin"), f32s(&golden("golden-i2s-matmul.f32")));
    let w_scale = f32::from_bits(hex(&info["scale_bits"]));
    for kernels in kernels::available() {
        for (row, x) in acts.chunks(768).enumerate() {
            let mut q = vec![0; 768];
            let s = (kernels.quantise_i8)(x, &mut q);
            let want: Vec<i8> = want_q[768 * row..][..768].iter().map(|b| b.cast_signed()).collect();
            assert_eq!(q, want, "{} row {row}", kernels.isa);
            assert_eq!(
                s.to_bits(),
                hex(&info["activations"]["scale_bits"][row]),
                "{} row {row}",
                kernels.isa
            );
            let acts = Acts::row(Order::I2S, q.clone(), 1.0);
            assert_eq!(i64::from(acts.sum()), info["activations"]["sum"][row].as_i64().expect("sum"));
            let (mut sums, mut y) = ([0; 8], [0.0; 8]);
            (kernels.gemv_i2s_i8)(&weights[..8 * 192], 192, &acts, &mut sums);
            (kernels.dequantise_i32)(&sums, s, w_scale, &mut y);
            assert_eq!(y, want_y[8 * row..][..8], "{} row {row}", kernels.isa);
        }
    }
}

struct Golden {
    name: String,
    file: Vec<u8>,
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    sha256: String,
}

fn models() -> Vec<Golden> {
    let models = golden_json("models.json");
    let models = models["models"].as_object().expect("models").iter();
    models
        .map(|(name, m)| Golden {
            name: name.clone(),
            file: golden(m["file"].as_str().expect("file")),
            prompt: ids(&m["prompt_token_ids"]),
            greedy: ids(&m["greedy_token_ids"]),
            sha256: m["exact_v1_logits_sha256"].as_str().expect("digest").to_owned(),
        })
        .collect()
}

fn run(golden: &Golden, kernels: &'static Kernels, threads: usize, batch: usize) -> Outcome {
    let gguf = Gguf::parse(&golden.file).expect("GGUF");
    let model = Model::load(&gguf, None).expect("model");
    let request =
        Request { prompt: golden.prompt.clone(), steps: golden.greedy.len(), batch, ..Request::default() };
    let pool = Pool::new(threads).expect("threads");
    generate(&model, kernels, &pool, &request, &mut |_, _| Ok(())).expect("run")
}

#[test]
fn logits_have_the_digest_of_the_contract_on_every_isa() {
    for golden in models() {
        for kernels in kernels::available() {
            let outcome = run(&golden, kernels, 1, 0);
            assert_eq!(
                hex::encode(outcome.logits_sha256),
                golden.sha256,
                "{} on {}",
                golden.name,
                kernels.isa
            );
            assert_eq!(outcome.generated, golden.greedy, "{} on {}", golden.name, kernels.isa);
        }
    }
}

#[test]
fn one_digest_for_every_number_of_threads_and_every_cut_of_the_prompt() {
    if skip_slow("the digest matrix of the golden models") {
        return;
    }
    for golden in models().iter().filter(|g| ["b158-chaotic", "llama-stable"].contains(&g.name.as_str())) {
        for kernels in kernels::available() {
            let mut chains = Vec::new();
            for threads in [1, 2, 3, 7] {
                for batch in [0, 1, 3] {
                    let outcome = run(golden, kernels, threads, batch);
                    let place = format!("{} {} {threads} threads, batch {batch}", golden.name, kernels.isa);
                    assert_eq!(hex::encode(outcome.logits_sha256), golden.sha256, "{place}");
                    chains.push(outcome.layer_chain);
                }
            }
            chains.dedup();
            assert_eq!(chains.len(), 1, "{} {}: one chain over layers", golden.name, kernels.isa);
        }
    }
}
