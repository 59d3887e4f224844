//! The operations by hand, and the names and widths of what is shown.

use super::*;
use crate::testing::small_model;

fn config(architecture: &str) -> Config {
    Model::read(&small_model(architecture).bytes()).unwrap().config
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
}

#[test]
fn norm_activations_and_softmax() {
    assert!(close(&rms_norm(&[3.0, -4.0], &[1.0, 2.0], 12.5), &[0.6, -1.6]));
    assert_eq!(Activation::Relu2.of(-3.0), 0.0);
    assert_eq!(Activation::Relu2.of(3.0), 9.0);
    assert!(close(&[Activation::Silu.of(2.0)], &[1.761_594_155_955_765]));
    assert!(close(&softmax(&[1000.0, 1000.0 + 3.0_f64.ln()]), &[0.25, 0.75]));
}

#[test]
fn pairs_are_turned_by_position() {
    let x: Vec<f64> = (1..=6).map(f64::from).collect();
    let mut halves = Config { head_size: 6, rope_size: 4, rope_base: 100.0, ..config("bitnet") };
    let angles = [3.0, 3.0 * 0.1 / 2.0];
    let turned = |a: f64, b: f64, i: usize| {
        let angle: f64 = angles[i];
        (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
    };
    let mut y = x.clone();
    rotate(&mut y, 3, &halves, &[1.0, 2.0]);
    let ((y0, y2), (y1, y3)) = (turned(1.0, 3.0, 0), turned(2.0, 4.0, 1));
    assert!(close(&y, &[y0, y1, y2, y3, 5.0, 6.0]));

    halves.rope_neighbours = true;
    let mut y = x;
    rotate(&mut y, 3, &halves, &[1.0, 2.0]);
    let ((y0, y1), (y2, y3)) = (turned(1.0, 2.0, 0), turned(3.0, 4.0, 1));
    assert!(close(&y, &[y0, y1, y2, y3, 5.0, 6.0]));
}

#[test]
fn query_heads_share_key_heads() {
    let config =
        Config { heads: 4, key_heads: 2, head_size: 1, query_width: 4, key_width: 2, ..config("bitnet") };
    let keys = [vec![0.0, 0.0], vec![0.0, 3.0_f64.ln()]];
    let values = [vec![1.0, 10.0], vec![3.0, 30.0]];
    // The first two heads see equal scores, the last two 1 : 3 and 3 : 1.
    assert!(close(
        &attention(&[1.0, 5.0, 1.0, -1.0], &keys, &values, &config, Attention::F64).unwrap(),
        &[2.0, 2.0, 25.0, 15.0]
    ));
}

#[test]
fn every_tensor_is_shown_under_its_name() {
    let model = Model::read(&small_model("bitnet").bytes()).unwrap();
    let mut shown = Vec::new();
    let mut sequence = Sequence::new(&model, Activation::Silu, Attention::F64, 1);
    let logits = sequence.feed(3, &mut |name, row| shown.push((name.to_owned(), row.len()))).unwrap();
    assert_eq!(logits.len(), 5);
    let widths = [4, 4, 4, 2, 2, 4, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 4, 4, 4];
    let expected: Vec<(String, usize)> = TENSORS
        .iter()
        .zip(widths)
        .map(|(name, width)| match *name {
            "embedding" | "output_norm" => ((*name).to_owned(), width),
            name => (format!("blk.0.{name}"), width),
        })
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn own_head_and_scales_are_used() {
    let logits = |file: crate::testing::Gguf| {
        let model = Model::read(&file.bytes()).unwrap();
        Sequence::new(&model, Activation::Silu, Attention::F64, 1).feed(1, &mut |_, _| ()).unwrap()
    };
    let tied = logits(small_model("llama"));
    assert_ne!(logits(small_model("llama").floats("output.weight", &[4, 5])), tied);
    let one = 1.0_f32.to_le_bytes();
    assert_eq!(logits(small_model("llama").tensor("blk.0.ffn_down.scale", &[1], 0, &one)), tied);
    let two = 2.0_f32.to_le_bytes();
    assert_ne!(logits(small_model("llama").tensor("blk.0.ffn_down.scale", &[1], 0, &two)), tied);
}

#[test]
fn attention_rounds_to_f16_when_asked() {
    assert_eq!(
        Attention::F16.round(vec![0.1, 1.0 + 2.0_f64.powi(-11)], "q").unwrap(),
        [0.099_975_585_937_5, 1.0]
    );
    assert_eq!(Attention::F64.round(vec![0.1], "q").unwrap(), [0.1]);
    assert!(Attention::F16.round(vec![1.0, 7e4], "q").is_err(), "beyond f16");
    assert_eq!(Attention::F64.round(vec![7e4], "q").unwrap(), [7e4]);
    let config =
        Config { heads: 1, key_heads: 1, head_size: 1, query_width: 1, key_width: 1, ..config("bitnet") };
    let keys = [vec![0.0], vec![0.0], vec![0.0]];
    let values = [vec![1.0], vec![1.0], vec![1.0]];
    assert!(close(&attention(&[1.0], &keys, &values, &config, Attention::F64).unwrap(), &[1.0]));
    // Three times the f16 nearest to a third.
    assert_eq!(attention(&[1.0], &keys, &values, &config, Attention::F16).unwrap(), [3.0 * 1365.0 / 4096.0]);
}
