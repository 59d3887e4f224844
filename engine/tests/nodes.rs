//! The pass taken apart gives the bits of the pass.

use assay_engine::MappedFile;
use assay_engine::gguf::Gguf;
use assay_engine::kernels;
use assay_engine::model::nodes::{apply, nodes, trace};
use assay_engine::model::{Model, NodeKind, Rows, Session};
use assay_engine::trace::hash_f32;
use sha2::{Digest, Sha256};
use std::path::Path;

fn golden(name: &str) -> MappedFile {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden");
    MappedFile::open(&folder.join(format!("{name}.gguf"))).expect("a golden model")
}

const TOKENS: [u32; 7] = [3, 5, 250, 251, 17, 17, 100];

#[test]
fn the_pass_taken_apart_gives_the_bits_of_the_pass() {
    for name in ["b158-stable", "b158-chaotic", "b25-varied", "bitnet-stable", "llama-stable"] {
        let file = golden(name);
        let gguf = Gguf::parse(file.bytes()).expect("GGUF");
        let model = Model::load(&gguf, None).expect("model");
        for kernels in kernels::available() {
            let mut session = Session::new(&model, kernels, TOKENS.len()).expect("session");
            let logits = session.feed(&TOKENS, Rows::All).expect("logits");
            let (nodes, outputs) = (nodes(&model.config), trace(&model, kernels, &TOKENS).expect("trace"));
            assert_eq!(outputs.last(), Some(&logits), "{name} on {}", kernels.isa);
            let layers = nodes.iter().zip(&outputs).filter(|(node, _)| node.kind == NodeKind::LayerOutput);
            let digests: Vec<[u8; 32]> = layers
                .map(|(_, output)| {
                    let mut hash = Sha256::new();
                    hash_f32(&mut hash, output);
                    hash.finalize().into()
                })
                .collect();
            assert_eq!(digests, session.chain().digests(), "{name} on {}", kernels.isa);
            for (node, output) in nodes.iter().zip(&outputs) {
                assert_eq!(output.len(), TOKENS.len() * node.width(&model.config), "{}", node.name());
            }
        }
    }
}

#[test]
fn nodes_have_names_and_refuse_what_does_not_fit() {
    let file = golden("b158-stable");
    let gguf = Gguf::parse(file.bytes()).expect("GGUF");
    let model = Model::load(&gguf, None).expect("model");
    let nodes = nodes(&model.config);
    let names: Vec<String> = nodes.iter().map(|node| node.name()).collect();
    assert_eq!(names[..3], ["embedding", "blk.0.attn_norm", "blk.0.q"]);
    assert_eq!(names[names.len() - 2..], ["output_norm", "logits"]);
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len());
    let k = kernels::best();
    assert!(apply(&model, k, (&nodes, 0), &[1 << 20], &[]).is_err(), "a token past the vocabulary");
    assert!(apply(&model, k, (&nodes, 1), &[1], &[&[0.0; 3]]).is_err(), "an input of another width");
    assert!(apply(&model, k, (&nodes, 1), &[1], &[]).is_err(), "no input");
    assert!(apply(&model, k, (&nodes, 1), &[], &[&[]]).is_err(), "no tokens");
}
