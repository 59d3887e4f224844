//! Values that the contract forbids stop a run, with layer and operation named.

use assay_engine::Error;
use assay_engine::decode::{Request, generate};
use assay_engine::gguf::{Gguf, Writer};
use assay_engine::kernels;
use assay_engine::model::Model;
use assay_engine::threads::Pool;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/golden/b25-varied.gguf");

/// The golden model with one tensor's bytes changed.
fn with_tensor(tensor: &str, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let bytes = std::fs::read(GOLDEN).expect("golden model");
    let gguf = Gguf::parse(&bytes).expect("GGUF");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata() {
        writer.put(*key, *value);
    }
    for info in gguf.tensors() {
        let mut data = gguf.data(info).to_vec();
        if info.name == tensor {
            change(&mut data);
        }
        writer.tensor(info.name, info.dims.as_slice(), info.kind, data);
    }
    writer.to_bytes().expect("written")
}

/// The error of a run of that model.
fn error_of(model: &[u8], prompt: &[u32], threads: usize) -> Error {
    let gguf = Gguf::parse(model).expect("GGUF");
    let model = Model::load(&gguf, None).expect("model");
    let request = Request { prompt: prompt.to_vec(), steps: 1, ..Request::default() };
    let pool = Pool::new(threads).expect("threads");
    generate(&model, kernels::best(), &pool, &request, &mut |_, _| Ok(())).expect_err("must stop")
}

/// The error of a run in which every weight of a norm is `weight`.
fn run_with_norm(tensor: &str, weight: f32) -> Error {
    let model = with_tensor(tensor, |data| *data = weight.to_le_bytes().repeat(data.len() / 4));
    error_of(&model, &[1, 2, 3], 2)
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
    // relu2 squares the gate: 1e30 becomes infinite before the sub-norm would make it zero.
    assert_eq!(place(&run_with_norm("blk.0.ffn_norm.weight", 1e30)), (0, "ffn_sub_norm"));
}

#[test]
fn finite_values_whose_squares_overflow_do_not_become_zero_silently() {
    // Scale of an I2_S tensor: 32 bytes before its end. Rows near 1e19 are finite, the sum of their squares is not.
    let model = with_tensor("blk.0.ffn_down.weight", |data| {
        let at = data.len() - 32;
        data[at..at + 4].copy_from_slice(&1e18_f32.to_le_bytes());
    });
    assert_eq!(place(&error_of(&model, &[1, 2, 3], 2)), (1, "attn_norm"));
}

#[test]
fn the_head_says_which_rounding_overflowed() {
    assert_eq!(place(&run_with_norm("output_norm.weight", 1e30)), (2, "output"));
}

#[test]
fn the_error_that_is_reported_does_not_depend_on_the_threads() {
    // Every token overflows; the first one is reported, whichever thread is faster.
    let norm = 1e7_f32.to_le_bytes().repeat(256);
    let model = with_tensor("blk.0.attn_norm.weight", |data| data.copy_from_slice(&norm));
    let prompt: Vec<u32> = (0..200).collect();
    for threads in [1, 2, 3, 7] {
        let error = error_of(&model, &prompt, threads);
        assert!(matches!(error, Error::Arithmetic { position: 0, .. }), "{threads} threads: {error}");
    }
}
