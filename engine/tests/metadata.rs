//! Models that cannot be run exactly are refused, with the key or tensor named.

use assay_engine::gguf::{GgmlType, Gguf, OwnedValue, Writer};
use assay_engine::model::Model;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/golden/llama-stable.gguf");

/// The golden llama model with metadata replaced or added (`None` removes a key) and one tensor added or left out.
struct Edit<'a> {
    metadata: &'a [(&'a str, Option<OwnedValue>)],
    left_out: &'a str,
    added: Option<(&'a str, &'a [f32])>,
}

const NONE: Edit<'static> = Edit { metadata: &[], left_out: "", added: None };

fn load(edit: &Edit<'_>) -> Result<(), String> {
    let bytes = std::fs::read(GOLDEN).expect("golden model");
    let gguf = Gguf::parse(&bytes).expect("GGUF");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata() {
        if edit.metadata.iter().all(|(edited, _)| edited != key) {
            writer.put(*key, *value);
        }
    }
    for (key, value) in edit.metadata {
        if let Some(value) = value {
            writer.put(*key, value.clone());
        }
    }
    for info in gguf.tensors().iter().filter(|info| info.name != edit.left_out) {
        writer.tensor(info.name, info.dims.as_slice(), info.kind, gguf.data(info));
    }
    if let Some((name, values)) = edit.added {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.tensor(name, &[values.len() as u64], GgmlType::F32, bytes);
    }
    let changed = writer.to_bytes().expect("written");
    Model::load(&Gguf::parse(&changed).expect("GGUF"), None).map(drop).map_err(|error| error.to_string())
}

fn with(key: &str, value: impl Into<OwnedValue>) -> Result<(), String> {
    load(&Edit { metadata: &[(key, Some(value.into()))], ..NONE })
}

fn refused(result: Result<(), String>, expected: &str) {
    let said = result.expect_err(expected);
    assert!(said.contains(expected), "{expected:?} is not in: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn what_changes_nothing_is_accepted() {
    assert_eq!(load(&NONE), Ok(()));
    assert_eq!(with("llama.rope.scaling.type", "none"), Ok(()));
    let neutral = [
        ("llama.rope.scaling.type", Some("linear".into())),
        ("llama.rope.scaling.factor", Some(1.0_f32.into())),
    ];
    assert_eq!(load(&Edit { metadata: &neutral, ..NONE }), Ok(()));
    assert_eq!(load(&Edit { added: Some(("rope_freqs.weight", &[2.0; 32])), ..NONE }), Ok(()));
}

#[test]
fn keys_that_the_contract_does_not_describe_are_refused() {
    refused(with("llama.rope.scaling.type", "yarn"), "rope.scaling.type");
    refused(with("llama.rope.scaling.factor", 8.0_f32), "rope.scaling.factor");
    refused(with("llama.rope.scale_linear", 8.0_f32), "rope.scale_linear");
    refused(with("llama.attention.scale", 0.5_f32), "attention.scale");
    refused(with("llama.attention.causal", false), "attention.causal");
    refused(with("llama.attention.sliding_window", 128_u32), "sliding_window");
    refused(with("llama.final_logit_softcapping", 30.0_f32), "softcapping");
    refused(with("llama.expert_count", 8_u32), "expert_count");
}

#[test]
fn numbers_that_make_no_model_are_refused() {
    refused(with("llama.vocab_size", 1000_u32), "expected 1024, got 1000");
    refused(with("llama.attention.head_count", 0_u32), "out of range");
    refused(with("llama.attention.head_count_kv", 3_u32), "a divisor of 4");
    refused(with("llama.block_count", 5_u32), "'blk.4.attn_norm.weight' is missing");
    refused(with("llama.block_count", 3_u32), "the graph does not use it");
    refused(with("llama.feed_forward_length", 512_u32), "expected 512 x 256, got 640 x 256");
    refused(with("llama.rope.dimension_count", 63_u32), "an even number");
    refused(with("llama.rope.freq_base", f32::NAN), "a positive number");
    refused(with("llama.attention.layer_norm_rms_epsilon", f32::NAN), "epsilon");
    refused(with("llama.attention.key_length", 1_u32 << 22), "too wide");
    refused(load(&Edit { metadata: &[("llama.attention.layer_norm_rms_epsilon", None)], ..NONE }), "epsilon");
    let name = "\u{1b}[2J\nevil".to_owned() + &"y".repeat(100_000);
    refused(with("general.architecture", name.as_str()), "\\u{1b}[2J\\nevil");
}

#[test]
fn tensors_that_are_missing_unknown_or_senseless_are_refused() {
    refused(load(&Edit { left_out: "blk.2.ffn_up.weight", ..NONE }), "'blk.2.ffn_up.weight' is missing");
    refused(load(&Edit { added: Some(("blk.0.attn_q.bias", &[0.0; 256])), ..NONE }), "blk.0.attn_q.bias");
    refused(
        load(&Edit { added: Some(("rope_freqs.weight", &[0.0; 32])), ..NONE }),
        "factor 0 is not positive",
    );
    refused(load(&Edit { added: Some(("rope_freqs.weight", &[1.0; 31])), ..NONE }), "expected 1 x 32");
}
