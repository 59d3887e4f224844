//! The engine with a known mistake in its graph: what a reference is held to when it disagrees.
//!
//! A mistake in the reading of weights is not run as a kernel: the weights are decoded, misread, and kept as f32, so that one way serves every
//! format. Their activations are rounded as those of the format that the file has.

use super::Result;
use super::compare::compare;
use super::engine::{Backend, run_with_logits};
use assay_engine::kernels::acts::{Quantiser, wanted_by};
use assay_engine::kernels::{self, GemmFloats, GemvFloats, Kernels};
use assay_engine::kind::Kind;
use assay_engine::model::weights::{Layer, Linear};
use assay_engine::model::{Activation, Model};
use assay_engine::quant::Format;
use assay_engine::tensor::Matrix;
use bumpalo::Bump;

/// A known mistake.
#[derive(Debug, Clone, Copy)]
pub struct Hypothesis {
    /// Its kind; several may be of one.
    pub kind: Kind,
    /// What is wrong, in a line.
    pub what: &'static str,
    /// Where it was published.
    pub source: &'static str,
    change: Change,
}

/// What is wrong.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// The gate is this one.
    Gate(Activation),
    /// Norms are left out: before `attn_output`, before `ffn_down`.
    SubNorms(bool, bool),
    /// An operation is another one.
    Table(fn(&mut Kernels)),
    /// Values of ternary weights are read so.
    Values(fn(&[i8]) -> Vec<f32>),
    /// The scale of ternary weights, and of `.scale` tensors, is 1.
    NoScale,
}

const BITNET_RS: &str = "EffortlessMetrics/BitNet-rs";

const fn of(kind: Kind, what: &'static str, source: &'static str, change: Change) -> Hypothesis {
    Hypothesis { kind, what, source, change }
}

/// All of them: those of `docs/field-bugs.md` that a model's logits can show, and their neighbours.
pub const ALL: &[Hypothesis] = &[
    of(Kind::SiluForRelu2, "the gate is SiLU", "microsoft/BitNet#588", Change::Gate(Activation::Silu)),
    of(Kind::Relu2ForSilu, "the gate is squared ReLU", "no report", Change::Gate(Activation::Relu2)),
    of(Kind::SubNormSkipped, "both sub-norms are left out", BITNET_RS, Change::SubNorms(true, true)),
    of(
        Kind::SubNormSkipped,
        "the sub-norm of attention is left out",
        BITNET_RS,
        Change::SubNorms(true, false),
    ),
    of(
        Kind::SubNormSkipped,
        "the sub-norm of the feed-forward block is left out",
        BITNET_RS,
        Change::SubNorms(false, true),
    ),
    of(
        Kind::LayernormForRmsnorm,
        "every norm subtracts the mean",
        BITNET_RS,
        Change::Table(|k| k.rms_norm = layer_norm),
    ),
    of(
        Kind::RopePairing,
        "rotation pairs the other elements",
        "ggml-org/llama.cpp#4490",
        Change::Table(|k| (k.rope_halves, k.rope_pairs) = (k.rope_pairs, k.rope_halves)),
    ),
    of(
        Kind::MissingScale,
        "the scales of ternary weights are ignored",
        "microsoft/BitNet#468",
        Change::NoScale,
    ),
    of(
        Kind::WrongGroup,
        "64 weights are unpacked from 16 bytes, 128 lie in 32",
        "microsoft/BitNet#470, #585, #598",
        Change::Values(|v| permuted(v, |i| source_of(i / 64 * 16 + i % 16, i % 64 / 16))),
    ),
    of(
        Kind::SequentialDecode,
        "four neighbours are read from a byte",
        "microsoft/BitNet#598, #600, #610",
        Change::Values(|v| permuted(v, |i| source_of(i / 4, i % 4))),
    ),
    of(
        Kind::SequentialDecode,
        "four neighbours are read from a byte, lowest bits first",
        "ggml-org/llama.cpp#28769",
        Change::Values(|v| permuted(v, |i| source_of(i / 4, 3 - i % 4))),
    ),
    of(
        Kind::CodeMapWithoutZero,
        "codes are read as -2, -1, +1",
        "EffortlessMetrics/BitNet-rs (QK256)",
        Change::Values(|v| {
            v.iter().map(|&v| [-2.0, -1.0, 1.0, 2.0][usize::from((v + 1) as u8 & 3)]).collect()
        }),
    ),
    of(
        Kind::ActivationSumTwice,
        "the sum of activations is subtracted once more",
        "microsoft/BitNet#600, #610",
        Change::Values(|v| v.iter().map(|&v| f32::from(v) - 1.0).collect()),
    ),
    of(
        Kind::ActivationSumForgotten,
        "codes 0, 1, 2 are multiplied as they are",
        "no report",
        Change::Values(|v| v.iter().map(|&v| f32::from(v) + 1.0).collect()),
    ),
];

/// A model with a mistake in it, and the memory that its weights are in.
struct Mistaken<'a> {
    model: Model<'a>,
    /// What runs it. It lives for ever: a few hundred bytes for each hypothesis that is tried.
    kernels: &'static Kernels,
}

/// Smallest cosine of a row of `logits`, `(tokens, vocab)`, and the model's own after the same tokens; `None` if they cannot be compared.
///
/// # Errors
/// - the engine's.
pub fn cosine(model: &Model<'_>, backend: Backend, tokens: &[u32], logits: &[f32]) -> Result<Option<f64>> {
    let (_, ours) = run_with_logits(model, backend, tokens, 0)?;
    Ok(compare(&ours, logits, model.config.vocab).map(|found| found.cosine_min))
}

impl Hypothesis {
    /// [`cosine`] of the model with this mistake. `None` where it would change nothing; inside, `None` where the mistaken engine comes to no end.
    pub fn cosine(
        &self,
        model: &Model<'_>,
        backend: Backend,
        tokens: &[u32],
        logits: &[f32],
    ) -> Option<Option<f64>> {
        let memory = Bump::new();
        let mistaken = self.apply(model, backend.kernels, &memory)?;
        let backend = Backend { kernels: mistaken.kernels, ..backend };
        Some(cosine(&mistaken.model, backend, tokens, logits).ok().flatten())
    }

    /// It keeps weights in memory, decoded.
    pub fn misreads_weights(&self) -> bool {
        matches!(self.change, Change::Values(_) | Change::NoScale)
    }

    /// The model with this mistake; `None` where it would change nothing. Misread weights are put into `memory`.
    fn apply<'a>(
        &self,
        model: &Model<'a>,
        kernels: &'static Kernels,
        memory: &'a Bump,
    ) -> Option<Mistaken<'a>> {
        let mut mistaken = Mistaken { model: model.clone(), kernels };
        match self.change {
            Change::Gate(gate) if gate == model.activation => return None,
            Change::Gate(gate) => mistaken.model.activation = gate,
            Change::SubNorms(..) if !model.config.arch.sub_norms => return None,
            Change::SubNorms(attention, feed_forward) => {
                for layer in &mut mistaken.model.weights.layers {
                    layer.attn_sub_norm = layer.attn_sub_norm.take().filter(|_| !attention);
                    layer.ffn_sub_norm = layer.ffn_sub_norm.take().filter(|_| !feed_forward);
                }
            }
            Change::Table(change) => {
                let mut table = *kernels;
                change(&mut table);
                mistaken.kernels = Box::leak(Box::new(table));
            }
            Change::Values(misread) => return mistaken.misread(misread, None, memory),
            Change::NoScale => {
                return mistaken.misread(|v| v.iter().map(|&v| f32::from(v)).collect(), Some(1.0), memory);
            }
        }
        Some(mistaken)
    }
}

impl<'a> Mistaken<'a> {
    /// Ternary weights are misread, times `scale` or their own. `None` if there are none.
    fn misread(
        mut self,
        misread: fn(&[i8]) -> Vec<f32>,
        scale: Option<f32>,
        memory: &'a Bump,
    ) -> Option<Mistaken<'a>> {
        let mut quantiser = None;
        for linear in self.model.weights.layers.iter_mut().flat_map(linears) {
            let format = linear.w.format;
            if reread(linear, misread, scale, memory) {
                quantiser = quantiser.or(wanted_by(format).map(|(quantiser, _)| quantiser));
            }
            if scale.is_some() {
                linear.extra_scale = None;
            }
        }
        let (gemv_f32_f32, gemm_f32_f32): (GemvFloats, GemmFloats) = match quantiser? {
            Quantiser::I8 => (|w, x, out| gemm::<0>(w, x.len(), x, out), gemm::<0>),
            Quantiser::Q8K => (|w, x, out| gemm::<256>(w, x.len(), x, out), gemm::<256>),
            _ => (|w, x, out| gemm::<32>(w, x.len(), x, out), gemm::<32>),
        };
        self.kernels = Box::leak(Box::new(Kernels { gemv_f32_f32, gemm_f32_f32, ..*self.kernels }));
        Some(self)
    }
}

/// A product with f32 weights, its activations rounded first: one factor a row (0), or in blocks of 256 or 32; rows that are no blocks of 256 are in
/// blocks of 32, as in files that have both.
fn gemm<const BLOCK: usize>(w: &[u8], cols: usize, x: &[f32], out: &mut [f32]) {
    let k = kernels::best();
    let mut rounded = vec![0.0; x.len()];
    for (x, rounded) in x.chunks(cols.max(1)).zip(rounded.chunks_mut(cols.max(1))) {
        let mut q = vec![0; cols];
        let scales = match BLOCK {
            256 if cols.is_multiple_of(256) => blocks(256, cols, |d| (k.quantise_q8_k)(x, &mut q, d)),
            32 | 256 if cols.is_multiple_of(32) => blocks(32, cols, |d| (k.quantise_q8_0)(x, &mut q, d)),
            _ => vec![1.0 / (k.quantise_i8)(x, &mut q); cols],
        };
        for ((rounded, q), scale) in rounded.iter_mut().zip(q).zip(scales) {
            *rounded = f32::from(q) * scale;
        }
    }
    (k.gemm_f32_f32)(w, cols, &rounded, out);
}

/// The factor of each column, from one a block.
fn blocks(block: usize, cols: usize, quantise: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut factors = vec![0.0; cols / block];
    quantise(&mut factors);
    factors.into_iter().flat_map(|factor| std::iter::repeat_n(factor, block)).collect()
}

fn linears<'l, 'a>(layer: &'l mut Layer<'a>) -> [&'l mut Linear<'a>; 7] {
    [
        &mut layer.attn_q,
        &mut layer.attn_k,
        &mut layer.attn_v,
        &mut layer.attn_output,
        &mut layer.ffn_up,
        &mut layer.ffn_gate,
        &mut layer.ffn_down,
    ]
}

/// Misreads a ternary matrix, times `scale` or its own, and keeps it as f32. Whether it is one.
fn reread<'a>(
    linear: &mut Linear<'a>,
    misread: fn(&[i8]) -> Vec<f32>,
    scale: Option<f32>,
    memory: &'a Bump,
) -> bool {
    let Some(ternary) = linear.w.ternary() else { return false };
    let scale = scale.unwrap_or(ternary.scale);
    let values = misread(&ternary.values);
    let bytes: Vec<u8> = values.iter().flat_map(|value| (value * scale).to_le_bytes()).collect();
    let bytes = memory.alloc_slice_copy(&bytes);
    linear.w = Matrix { format: Format::F32, bytes, ..linear.w.clone() };
    true
}

/// The element that the file has in byte `byte` of 32, in its field `field` from the highest bits: I2_S's packing.
fn source_of(byte: usize, field: usize) -> usize {
    byte / 32 * 128 + 32 * field + byte % 32
}

/// Each element, read where another lies. What lies past the end is left as it is.
fn permuted(values: &[i8], from: fn(usize) -> usize) -> Vec<f32> {
    (0..values.len()).map(|i| f32::from(values.get(from(i)).copied().unwrap_or(values[i]))).collect()
}

/// `out_i = (x_i − mean) / sqrt(var + eps) · w_i`, in f64.
fn layer_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let var = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    let r = 1.0 / (var + f64::from(eps)).sqrt();
    for ((out, &x), &w) in out.iter_mut().zip(x).zip(w) {
        *out = ((f64::from(x) - mean) * r * f64::from(w)) as f32;
    }
}
