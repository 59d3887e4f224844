//! Values that the contract forbids stop a run, with layer and operation named.

use assay_engine::Error;
use assay_engine::decode::{Request, generate};
use assay_engine::gguf::{Gguf, Writer};
use assay_engine::kernels;
use assay_engine::model::Model;
use assay_engine::threads::Pool;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/golden/b25-varied.gguf");

/// The error of a run of the golden model in which every weight of the norm `tensor` is `weight`.
fn run_with_norm(tensor: &str, weight: f32) -> Error {
    let bytes = std::fs::read(GOLDEN).expect("golden model");
    let gguf = Gguf::parse(&bytes).expect("GGUF");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata() {
        writer.put(*key, *value);
    }
    for info in gguf.tensors() {
        let changed = weight.to_le_bytes().repeat(info.bytes / 4);
        let data = if info.name == tensor { changed } else { gguf.data(info).to_vec() };
        writer.tensor(info.name, info.dims.as_slice(), info.kind, data);
    }
    let changed = writer.to_bytes().expect("written");
    let gguf = Gguf::parse(&changed).expect("GGUF");
    let model = Model::load(&gguf, None).expect("model");
    let request = Request { prompt: vec![1, 2, 3], steps: 1, batch: 0 };
    let pool = Pool::new(2).expect("threads");
    generate(&model, kernels::best(), &pool, &request, &mut |_, _| Ok(())).expect_err("must stop")
}

fn place(error: &Error) -> (usize, &'static str) {
    match error {
        Error::Arithmetic { layer, operation, .. } => (*layer, operation),
        other => panic!("not an arithmetic error: {other}"),
    }
}

#[test]
fn f16_overflow_of_queries_or_keys_is_an_error_not_infinity() {
    let (layer, operation) = place(&run_with_norm("blk.1.attn_norm.weight", 1e7));
    assert_eq!(layer, 1);
    assert!(["q", "k", "v"].contains(&operation), "{operation}");
}

#[test]
fn overflow_in_the_feed_forward_block_is_found_before_it_is_hidden() {
    // relu2 squares the gate: 1e30 becomes infinite before ffn_down quantises it.
    let (layer, operation) = place(&run_with_norm("blk.0.ffn_norm.weight", 1e30));
    assert_eq!((layer, operation), (0, "ffn_down"));
}

#[test]
fn the_head_says_which_rounding_overflowed() {
    assert_eq!(place(&run_with_norm("output_norm.weight", 1e30)), (2, "output"));
}
