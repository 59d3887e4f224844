//! The forward pass taken apart: each operation by itself, so that it can be run on the inputs that another program had.
//!
//! [`nodes`] lists the operations of a model in the order of the pass, [`apply`] computes one of them for all tokens of a
//! sequence, with the code of the pass itself. Composed ([`trace`]), they give the bits of [`super::Session::feed`]: a test holds that.

use super::forward::Pass;
use super::linear::{Job, Place, linear};
use super::state::State;
use super::weights::Linear;
use super::{Activation, Config, Model};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::trace::hash_f32;
use crate::work::{Operation, Work};
use sha2::{Digest as _, Sha256};

/// What a node computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it, and the table of docs/reference-protocol.md says more")]
pub enum NodeKind {
    Embedding,
    AttnNorm,
    Q,
    K,
    V,
    QRope,
    KRope,
    Attention,
    AttnSubNorm,
    AttnOutput,
    AttnResidual,
    FfnNorm,
    FfnUp,
    FfnGate,
    FfnGated,
    FfnSubNorm,
    FfnDown,
    LayerOutput,
    OutputNorm,
    Logits,
}

impl NodeKind {
    /// Every kind, in the order of the pass.
    pub const ALL: [NodeKind; 20] = [
        NodeKind::Embedding,
        NodeKind::AttnNorm,
        NodeKind::Q,
        NodeKind::K,
        NodeKind::V,
        NodeKind::QRope,
        NodeKind::KRope,
        NodeKind::Attention,
        NodeKind::AttnSubNorm,
        NodeKind::AttnOutput,
        NodeKind::AttnResidual,
        NodeKind::FfnNorm,
        NodeKind::FfnUp,
        NodeKind::FfnGate,
        NodeKind::FfnGated,
        NodeKind::FfnSubNorm,
        NodeKind::FfnDown,
        NodeKind::LayerOutput,
        NodeKind::OutputNorm,
        NodeKind::Logits,
    ];

    /// Its name, without a layer.
    pub const fn name(self) -> &'static str {
        match self {
            NodeKind::Embedding => "embedding",
            NodeKind::AttnNorm => "attn_norm",
            NodeKind::Q => "q",
            NodeKind::K => "k",
            NodeKind::V => "v",
            NodeKind::QRope => "q_rope",
            NodeKind::KRope => "k_rope",
            NodeKind::Attention => "attention",
            NodeKind::AttnSubNorm => "attn_sub_norm",
            NodeKind::AttnOutput => "attn_output",
            NodeKind::AttnResidual => "attn_residual",
            NodeKind::FfnNorm => "ffn_norm",
            NodeKind::FfnUp => "ffn_up",
            NodeKind::FfnGate => "ffn_gate",
            NodeKind::FfnGated => "ffn_gated",
            NodeKind::FfnSubNorm => "ffn_sub_norm",
            NodeKind::FfnDown => "ffn_down",
            NodeKind::LayerOutput => "layer_output",
            NodeKind::OutputNorm => "output_norm",
            NodeKind::Logits => "logits",
        }
    }

    /// It stands only in architectures with sub-norms.
    pub const fn is_sub_norm(self) -> bool {
        matches!(self, NodeKind::AttnSubNorm | NodeKind::FfnSubNorm)
    }

    /// It stands in every layer, not before or after them.
    pub const fn in_layer(self) -> bool {
        !matches!(self, NodeKind::Embedding | NodeKind::OutputNorm | NodeKind::Logits)
    }
}

/// One operation of the pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it computes.
    pub kind: NodeKind,
    /// The layer, for those that stand in one.
    pub layer: usize,
    /// The nodes whose outputs it takes, by their place in the list.
    pub inputs: Vec<usize>,
}

impl Node {
    /// Its name: `blk.3.attn_norm`, `output_norm`.
    pub fn name(&self) -> String {
        match self.kind.in_layer() {
            true => format!("blk.{}.{}", self.layer, self.kind.name()),
            false => self.kind.name().to_owned(),
        }
    }

    /// Width of its output.
    pub fn width(&self, config: &Config) -> usize {
        match self.kind {
            NodeKind::Q | NodeKind::QRope | NodeKind::Attention | NodeKind::AttnSubNorm => {
                config.query_width()
            }
            NodeKind::K | NodeKind::V | NodeKind::KRope => config.kv_width(),
            NodeKind::FfnUp | NodeKind::FfnGate | NodeKind::FfnGated | NodeKind::FfnSubNorm => {
                config.feed_forward
            }
            NodeKind::Logits => config.vocab,
            _ => config.embedding,
        }
    }
}

/// The operations of a model, in the order of the pass; inputs stand before what takes them.
pub fn nodes(config: &Config) -> Vec<Node> {
    list(config.arch.sub_norms, config.layers)
}

/// How many there are: [`nodes`] of a model with or without sub-norms.
pub fn count(sub_norms: bool, layers: usize) -> usize {
    let in_layer = |kind: &&NodeKind| kind.in_layer() && (sub_norms || !kind.is_sub_norm());
    let per_layer = NodeKind::ALL.iter().filter(in_layer).count();
    let outside = NodeKind::ALL.iter().filter(|kind| !kind.in_layer()).count();
    outside.saturating_add(per_layer.saturating_mul(layers))
}

/// [`nodes`] by what decides them: whether the architecture has sub-norms, and the layers.
pub fn list(sub_norms: bool, layers: usize) -> Vec<Node> {
    let mut nodes = vec![Node { kind: NodeKind::Embedding, layer: 0, inputs: Vec::new() }];
    let mut x = 0;
    for layer in 0..layers {
        let mut add = |kind, inputs: &[usize]| {
            nodes.push(Node { kind, layer, inputs: inputs.to_vec() });
            nodes.len() - 1
        };
        let h = add(NodeKind::AttnNorm, &[x]);
        let (q, k, v) = (add(NodeKind::Q, &[h]), add(NodeKind::K, &[h]), add(NodeKind::V, &[h]));
        let (q, k) = (add(NodeKind::QRope, &[q]), add(NodeKind::KRope, &[k]));
        let mut o = add(NodeKind::Attention, &[q, k, v]);
        if sub_norms {
            o = add(NodeKind::AttnSubNorm, &[o]);
        }
        let y = add(NodeKind::AttnOutput, &[o]);
        let middle = add(NodeKind::AttnResidual, &[x, y]);
        let h = add(NodeKind::FfnNorm, &[middle]);
        let (up, gate) = (add(NodeKind::FfnUp, &[h]), add(NodeKind::FfnGate, &[h]));
        let mut f = add(NodeKind::FfnGated, &[gate, up]);
        if sub_norms {
            f = add(NodeKind::FfnSubNorm, &[f]);
        }
        let y = add(NodeKind::FfnDown, &[f]);
        x = add(NodeKind::LayerOutput, &[middle, y]);
    }
    nodes.push(Node { kind: NodeKind::OutputNorm, layer: layers, inputs: vec![x] });
    nodes.push(Node { kind: NodeKind::Logits, layer: layers, inputs: vec![nodes.len() - 1] });
    nodes
}

/// The outputs of all [`nodes`] for a sequence, `(tokens, width)` each.
///
/// # Errors
/// - as [`apply`].
pub fn trace(model: &Model<'_>, kernels: &'static Kernels, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
    let mut outputs = Vec::new();
    each(model, kernels, tokens, |output| outputs.push(output.to_vec()))?;
    Ok(outputs)
}

/// The SHA-256 of the output of each of [`nodes`] for a sequence, `(tokens, width)` as little-endian f32. That of a layer's last
/// node is the layer's in [`crate::trace::LayerChain`].
///
/// # Errors
/// - as [`apply`].
pub fn digests(model: &Model<'_>, kernels: &'static Kernels, tokens: &[u32]) -> Result<Vec<[u8; 32]>> {
    let mut digests = Vec::new();
    each(model, kernels, tokens, |output| {
        let mut hash = Sha256::new();
        hash_f32(&mut hash, output);
        digests.push(hash.finalize().into());
    })?;
    Ok(digests)
}

/// Computes all [`nodes`] in order; an output is kept until the last node that takes it.
fn each(
    model: &Model<'_>,
    kernels: &'static Kernels,
    tokens: &[u32],
    mut visit: impl FnMut(&[f32]),
) -> Result<()> {
    let nodes = nodes(&model.config);
    let mut last_use = vec![0; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        node.inputs.iter().for_each(|&input| last_use[input] = i);
    }
    let mut outputs: Vec<Vec<f32>> = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let inputs: Vec<&[f32]> = node.inputs.iter().map(|&input| &outputs[input][..]).collect();
        let output = apply(model, kernels, (&nodes, i), tokens, &inputs)?;
        visit(&output);
        outputs.push(output);
        for &input in node.inputs.iter().filter(|&&input| last_use[input] == i) {
            outputs[input] = Vec::new();
        }
    }
    Ok(())
}

/// The output of one of the model's [`nodes`], given by its place, for a sequence that begins at position 0, from the outputs of its inputs,
/// `(tokens, width)` each.
///
/// # Errors
/// - [`Error::Input`] for tokens outside the vocabulary, or inputs of another shape;
/// - [`Error::Arithmetic`] where NaN, infinity or an f16 overflow appears.
pub fn apply(
    model: &Model<'_>,
    kernels: &'static Kernels,
    (nodes, i): (&[Node], usize),
    tokens: &[u32],
    inputs: &[&[f32]],
) -> Result<Vec<f32>> {
    let (config, weights, node) = (&model.config, &model.weights, &nodes[i]);
    check(config, nodes, node, tokens, inputs)?;
    let work = Work::default();
    // Only these look at positions; a cache for every layer is large.
    let positions = match node.kind {
        NodeKind::QRope | NodeKind::KRope | NodeKind::Attention => tokens.len(),
        _ => tokens.len().min(1),
    };
    let mut state = State::new(model, positions)?;
    let mut pass = Pass { model, kernels, work: &work, state: &mut state };
    let (count, i) = (tokens.len(), node.layer);
    let place = |operation| Place { operation, name: node.kind.name(), layer: i, position: 0 };
    let norm = |pass: &Pass<'_, '_>, w: &[f32]| {
        let mut out = vec![0.0; inputs[0].len()];
        let rows = inputs[0].chunks(w.len()).zip(out.chunks_mut(w.len())).enumerate();
        for (token, (x, out)) in rows {
            pass.norm(place(Operation::Linear), token, x, w, out)?;
        }
        Ok(out)
    };
    let product = |layer: &Linear<'_>, operation| {
        let mut out = Vec::new();
        let mut jobs = [Job { place: place(operation), layer, out: &mut out }];
        linear(kernels, &work, count, &mut jobs, |token, row| {
            row.copy_from_slice(&inputs[0][token * layer.w.cols..][..layer.w.cols]);
            Ok(())
        })?;
        Ok(out)
    };
    let sum = |x: &[f32], y: &[f32]| {
        let mut out = x.to_vec();
        (kernels.add_f32)(&mut out, y);
        Ok(out)
    };
    let optional = |norms: &Option<Vec<f32>>| norms.clone().unwrap_or_default();
    // Those behind the layers do not look at it; a model has one layer at least.
    let layer = &weights.layers[i.min(weights.layers.len() - 1)];
    match node.kind {
        NodeKind::Embedding => Ok(model.embed(tokens)),
        NodeKind::AttnNorm => norm(&pass, &layer.attn_norm),
        NodeKind::Q => product(&layer.attn_q, Operation::Linear),
        NodeKind::K => product(&layer.attn_k, Operation::Linear),
        NodeKind::V => product(&layer.attn_v, Operation::Linear),
        NodeKind::QRope | NodeKind::KRope => {
            let mut out = inputs[0].to_vec();
            let width = node.width(config);
            out.chunks_mut(width).enumerate().for_each(|(token, row)| pass.rope(token, row));
            Ok(out)
        }
        NodeKind::Attention => {
            let mut q = inputs[0].to_vec();
            pass.round_queries(i, &mut q)?;
            pass.store(i, inputs[1], inputs[2])?;
            let mut out = Vec::new();
            pass.attend(i, &q, &mut out)?;
            Ok(out)
        }
        NodeKind::AttnSubNorm => norm(&pass, &optional(&layer.attn_sub_norm)),
        NodeKind::AttnOutput => product(&layer.attn_output, Operation::Linear),
        NodeKind::FfnNorm => norm(&pass, &layer.ffn_norm),
        NodeKind::FfnUp => product(&layer.ffn_up, Operation::Linear),
        NodeKind::FfnGate => product(&layer.ffn_gate, Operation::Linear),
        NodeKind::FfnGated => {
            let mut out = vec![0.0; inputs[0].len()];
            match model.activation {
                Activation::Relu2 => (kernels.relu2_mul)(inputs[0], inputs[1], &mut out),
                Activation::Silu => (kernels.silu_mul)(inputs[0], inputs[1], &mut out),
            }
            Ok(out)
        }
        NodeKind::FfnSubNorm => norm(&pass, &optional(&layer.ffn_sub_norm)),
        NodeKind::FfnDown => product(&layer.ffn_down, Operation::Linear),
        NodeKind::AttnResidual | NodeKind::LayerOutput => sum(inputs[0], inputs[1]),
        NodeKind::OutputNorm => norm(&pass, &weights.output_norm),
        NodeKind::Logits => product(&weights.head, Operation::Head),
    }
}

fn check(config: &Config, nodes: &[Node], node: &Node, tokens: &[u32], inputs: &[&[f32]]) -> Result<()> {
    if let Some(id) = tokens.iter().find(|&&id| id as usize >= config.vocab) {
        let expected = format!("0 to {}", config.vocab - 1);
        return Err(Error::Input { what: "token id", expected, got: id.to_string() });
    }
    let widths: Vec<usize> = node.inputs.iter().map(|&i| nodes[i].width(config) * tokens.len()).collect();
    let got: Vec<usize> = inputs.iter().map(|input| input.len()).collect();
    if widths != got {
        let expected = format!("{widths:?} values");
        return Err(Error::Input { what: "inputs of an operation", expected, got: format!("{got:?}") });
    }
    Ok(())
}
