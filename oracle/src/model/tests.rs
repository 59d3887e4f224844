//! Files that are broken in every way that a byte can be.

use super::*;
use crate::forward::{Activation, Attention, Sequence};
use crate::testing::small_model;

#[test]
fn a_small_model_is_read() {
    for architecture in ["bitnet-b1.58", "bitnet-25", "bitnet", "llama"] {
        let model = Model::read(&small_model(architecture).bytes()).unwrap();
        assert_eq!((model.layers.len(), model.embedding.rows, model.rope_divisors.len()), (1, 5, 1));
        assert_eq!(model.layers[0].attn_sub_norm.is_some(), architecture != "llama");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = small_model("bitnet").bytes();
    for length in 0..bytes.len() {
        let error = Model::read(&bytes[..length]).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{length} of {} bytes: {error}", bytes.len());
    }
}

/// Whatever a byte becomes: an error, or a model that can be run.
#[test]
fn no_changed_byte_is_a_panic() {
    let bytes = small_model("llama").floats("rope_freqs.weight", &[1]).bytes();
    let mut read = 0;
    for at in 0..bytes.len() {
        for value in [0, 1, 8, 127, 128, 255, bytes[at] ^ 1, bytes[at] ^ 64] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            let Ok(model) = Model::read(&bytes) else { continue };
            read += 1;
            let mut sequence = Sequence::new(&model, Activation::Silu, Attention::F64, 1);
            for token in [0, model.embedding.rows - 1] {
                // Infinite values are errors too.
                let _ = sequence.feed(token, &mut |_, _| ());
            }
        }
    }
    assert!(read > bytes.len(), "most bytes are weights or padding");
}

#[test]
fn tensors_outside_of_the_graph_are_refused() {
    let model = small_model("bitnet");
    for name in [
        "output.weight",
        "blk.1.attn_norm.weight",
        "blk.00.attn_q.scale",
        "blk.0.attn_q.bias",
        "blk.0.attn_norm.scale",
        "token_embd.scale",
        "position_embd.weight",
    ] {
        let error = Model::read(&model.clone().floats(name, &[1]).bytes()).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
    }
    let llama = small_model("llama").floats("blk.0.attn_sub_norm.weight", &[4]);
    assert_eq!(Model::read(&llama.bytes()).unwrap_err().exit_code(), 3);
}

#[test]
fn shapes_are_held() {
    let bytes = small_model("bitnet").floats("rope_freqs.weight", &[2]).bytes();
    let error = Model::read(&bytes).unwrap_err().to_string();
    assert_eq!(error, "tensor 'rope_freqs.weight': expected 1 x 1, got 1 x 2");
    let bytes = small_model("llama").floats("output.weight", &[4, 6]).bytes();
    assert!(Model::read(&bytes).unwrap_err().to_string().contains("expected 5 x 4, got 6 x 4"));
}

#[test]
fn a_hostile_number_of_layers_is_an_error_at_once() {
    let bytes = small_model("bitnet").bytes();
    let at = bytes.windows(11).position(|window| window == b"block_count").unwrap() + 11 + 4;
    let mut bytes = bytes.clone();
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Model::read(&bytes), Err(Error::Missing(_))));
}
