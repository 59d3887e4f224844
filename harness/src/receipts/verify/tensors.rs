//! Rules on the model's tensors: which there are, in which formats, and the bytes of them that a run reads.

use super::claim::{does_not_apply, model_parts};
use super::{Broken, Finding, Held, Options, Skipped, require};
use crate::receipts::canonical;
use crate::receipts::types::{ComputePath, ModelFacts, Shape, Statement, TensorFacts, operation};
use assay_engine::kernels::scalar::KERNELS;
use assay_engine::model::arch::{ARCHITECTURES, Activation, Arch};
use assay_engine::model::config::LIMIT;
use assay_engine::quant::{Format, Scale};
use std::collections::{BTreeMap, BTreeSet};

/// What every layer has beside its linear layers.
const NORMS: [&str; 2] = ["attn_norm", "ffn_norm"];
/// What the layers of an architecture with sub-norms have too.
const SUB_NORMS: [&str; 2] = ["attn_sub_norm", "ffn_sub_norm"];
const LINEARS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down"];
const EMBEDDING: &str = "token_embd.weight";
const OUTPUT_NORM: &str = "output_norm.weight";
const OUTPUT: &str = "output.weight";

/// The place of a tensor in the graph.
struct Role {
    rows: u128,
    /// `None` where the shape does not fix it.
    cols: Option<u128>,
    dense: bool,
    required: bool,
}

pub(super) fn tensors(statement: &Statement, _: &Options) -> Finding {
    let Some((model, ..)) = model_parts(statement) else { return does_not_apply() };
    let Some(arch) = ARCHITECTURES.iter().find(|arch| arch.name == model.architecture) else {
        return Broken(format!("the architecture {:?} is none that Assay runs", model.architecture));
    };
    if let Some(misfit) = shape_misfit(&model.shape) {
        return Broken(misfit);
    }
    let activations = [Activation::Relu2, Activation::Silu].map(Activation::name);
    require!(activations.contains(&model.activation.as_str()), "the activation {}", model.activation);
    let (mut names, mut required, mut bytes) = (BTreeSet::new(), 0, 0u128);
    for tensor in &model.tensors {
        require!(names.insert(tensor.name.as_str()), "two tensors are named {:?}", tensor.name);
        match misfit(tensor, arch, &model.shape) {
            Ok((is_required, size)) => {
                required += u64::from(is_required);
                bytes += size;
            }
            Err(misfit) => return Broken(format!("{:?} {misfit}", tensor.name)),
        }
    }
    if names.contains("output.scale") && !names.contains(OUTPUT) {
        return Broken(format!("\"output.scale\" without {OUTPUT:?}"));
    }
    if required != required_count(arch, &model.shape) {
        // At most one more name is made than there are tensors.
        let missing = required_names(arch, &model.shape).find(|name| !names.contains(name.as_str()));
        return Broken(format!("no tensor is named {:?}", missing.unwrap_or_default()));
    }
    require!(
        u128::from(model.bytes.get()) >= bytes,
        "a file of {} bytes with {bytes} bytes of tensors",
        model.bytes
    );
    match (&model.decoded_weights_sha256, canonical::decoded_weights_sha256(&model.tensors)) {
        (Some(said), Ok(Some(is))) if is != *said => {
            let (said, is) = (said.short(), is.short());
            Broken(format!("decoded weights: says {said}…, tensors give {is}…"))
        }
        (Some(_), Ok(None)) => Broken("a digest of decoded weights, but of no tensor".into()),
        (None, Ok(Some(_))) => Broken("digests of decoded tensors, but none of them all".into()),
        (_, Err(error)) => Broken(error.to_string()),
        _ => Held(format!("{} tensors", model.tensors.len())),
    }
}

/// Where a shape is none that the loader takes.
fn shape_misfit(shape: &Shape) -> Option<String> {
    let Shape { layers, embedding, feed_forward, heads, heads_kv, head_dim, vocab } = *shape;
    for (what, value) in [
        ("layers", layers),
        ("embedding", embedding),
        ("feed_forward", feed_forward),
        ("heads", heads),
        ("heads_kv", heads_kv),
        ("head_dim", head_dim),
        ("vocab", vocab),
    ] {
        if !(1..=LIMIT).contains(&value) {
            return Some(format!("a model of {what} {value}, expected 1 to {LIMIT}"));
        }
    }
    if !heads.is_multiple_of(heads_kv) {
        return Some(format!("{heads_kv} key-value heads for {heads} heads"));
    }
    let width = u64::from(heads) * u64::from(head_dim);
    (width > u64::from(LIMIT)).then(|| format!("heads of {width} in all, more than {LIMIT}"))
}

/// Whether every model of the architecture has the tensor, and its bytes; or where it does not fit its place.
fn misfit(tensor: &TensorFacts, arch: &Arch, shape: &Shape) -> Result<(bool, u128), String> {
    let Some((layer, part)) = place(&tensor.name) else { return Err("has no place in the graph".into()) };
    if let Some(layer) = layer.filter(|layer| *layer >= shape.layers) {
        return Err(format!("is of layer {layer} of {}", shape.layers));
    }
    let Some(role) = role(layer.is_some(), part, arch, shape) else {
        return Err(format!("has no place in the graph of {}", arch.name));
    };
    let (rows, cols) = (u128::from(tensor.rows.get()), u128::from(tensor.cols.get()));
    let expected = (role.rows, role.cols.unwrap_or(cols));
    if (rows, cols) != expected {
        return Err(format!("is {:?}, the shape requires {expected:?}", (rows, cols)));
    }
    let Some(format) = format(&tensor.format) else {
        return Err(format!("has the unknown format {:?}", tensor.format));
    };
    if role.dense && format.info().ternary {
        return Err(format!("is {}, which no kernel reads there", tensor.format));
    }
    // Blocks that differ in scale have no such digest.
    let (ternary, may_lack) = (format.info().ternary, format.info().scale == Scale::Block);
    if ternary != tensor.decoded_sha256.is_some() && !(ternary && may_lack) {
        let with = if ternary { "without" } else { "with" };
        return Err(format!("is {} {with} a digest of decoded values", tensor.format));
    }
    let size = usize::try_from(rows).ok().zip(usize::try_from(cols).ok());
    match size.and_then(|(rows, cols)| format.bytes(rows, cols).ok()) {
        Some(bytes) => Ok((role.required, bytes as u128)),
        None => Err(format!("is {rows} x {cols}, which {} cannot hold", tensor.format)),
    }
}

fn format(name: &str) -> Option<Format> {
    Format::ALL.into_iter().find(|format| format.name() == name)
}

/// (layer, rest) of a tensor's name; `None` if the layer's number is not written as numbers are.
fn place(name: &str) -> Option<(Option<u32>, &str)> {
    let Some(in_layer) = name.strip_prefix("blk.") else { return Some((None, name)) };
    let (index, part) = in_layer.split_once('.')?;
    let layer = index.parse::<u32>().ok().filter(|layer| layer.to_string() == index)?;
    Some((Some(layer), part))
}

fn role(in_layer: bool, part: &str, arch: &Arch, shape: &Shape) -> Option<Role> {
    let wide = |value: u32| u128::from(value);
    let (d, ff) = (wide(shape.embedding), wide(shape.feed_forward));
    let vector = |cols| Role { rows: 1, cols: Some(cols), dense: true, required: true };
    let scale = || Role { required: false, ..vector(1) };
    let linear = |(rows, cols): (u128, u128)| Role { rows, cols: Some(cols), dense: false, required: true };
    let (base, kind) = part.rsplit_once('.')?;
    if in_layer {
        return match (base, kind) {
            ("attn_norm" | "ffn_norm", "weight") => Some(vector(d)),
            ("attn_sub_norm", "weight") if arch.sub_norms => {
                Some(vector(wide(shape.heads) * wide(shape.head_dim)))
            }
            ("ffn_sub_norm", "weight") if arch.sub_norms => Some(vector(ff)),
            (_, "weight") => linear_shape(base, shape).map(linear),
            (_, "scale") => linear_shape(base, shape).map(|_| scale()),
            _ => None,
        };
    }
    let of_vocabulary = linear((wide(shape.vocab), d));
    match part {
        EMBEDDING => Some(Role { dense: true, ..of_vocabulary }),
        OUTPUT_NORM => Some(vector(d)),
        OUTPUT if arch.own_head => Some(Role { required: false, ..of_vocabulary }),
        "output.scale" if arch.own_head => Some(scale()),
        "rope_freqs.weight" => Some(Role { cols: None, ..scale() }),
        _ => None,
    }
}

/// (rows, columns) of a linear layer.
fn linear_shape(base: &str, shape: &Shape) -> Option<(u128, u128)> {
    let wide = |value: u32| u128::from(value);
    let (d, ff) = (wide(shape.embedding), wide(shape.feed_forward));
    let heads = wide(shape.heads) * wide(shape.head_dim);
    let heads_kv = wide(shape.heads_kv) * wide(shape.head_dim);
    match base {
        "attn_q" => Some((heads, d)),
        "attn_k" | "attn_v" => Some((heads_kv, d)),
        "attn_output" => Some((d, heads)),
        "ffn_up" | "ffn_gate" => Some((ff, d)),
        "ffn_down" => Some((d, ff)),
        _ => None,
    }
}

/// What every layer of the architecture has.
fn of_each_layer(arch: &Arch) -> impl Iterator<Item = &'static str> {
    let sub_norms: &[&str] = if arch.sub_norms { &SUB_NORMS } else { &[] };
    NORMS.iter().chain(sub_norms).chain(&LINEARS).copied()
}

fn required_count(arch: &Arch, shape: &Shape) -> u64 {
    u64::from(shape.layers) * of_each_layer(arch).count() as u64 + 2
}

fn required_names(arch: &'static Arch, shape: &Shape) -> impl Iterator<Item = String> {
    let in_layer = move |layer| of_each_layer(arch).map(move |base| format!("blk.{layer}.{base}.weight"));
    [EMBEDDING, OUTPUT_NORM].map(str::to_owned).into_iter().chain((0..shape.layers).flat_map(in_layer))
}

/// The bytes of weights that are read, by the model's formats: each row once per token, each key and value (f16) once per
/// row of attention.
pub(super) fn weight_bytes(statement: &Statement, _: &Options) -> Finding {
    let Some((model, input, _)) = model_parts(statement) else { return does_not_apply() };
    let execution = &statement.predicate.execution;
    if execution.compute_path == ComputePath::Mock {
        return does_not_apply();
    }
    let tokens = super::honest::tokens(input);
    let Some(required) = required_bytes(model, tokens) else {
        return Skipped("the tensors do not say: see the rule on them".into());
    };
    let mut counted = BTreeMap::<(&str, &str), u128>::new();
    for row in &execution.work {
        let (name, bytes) = (row.operation.as_str(), u128::from(row.weight_bytes.get()));
        match name {
            operation::LINEAR | operation::HEAD => {
                *counted.entry((name, operands(row.kernel.name()))).or_default() += bytes
            }
            operation::ATTENTION_SCORES | operation::ATTENTION_VALUES => {
                let cached = u128::from(row.rows.get()) * u128::from(row.columns.get()) * 2;
                require!(bytes == cached, "{name}: {bytes} bytes read, its rows have {cached}");
            }
            _ => {}
        }
    }
    let keys: BTreeSet<_> = counted.keys().chain(required.keys()).collect();
    for key in keys {
        let of = |map: &BTreeMap<(&str, &str), u128>| map.get(key).copied().unwrap_or(0);
        let (counted, required, (name, kernel)) = (of(&counted), of(&required), key);
        require!(
            counted == required,
            "{name}: kernels on {kernel} read {counted} bytes, the tensors require {required} for {tokens} tokens"
        );
    }
    let bytes: u128 = required.values().fold(0, |sum, bytes| sum.saturating_add(*bytes));
    Held(format!("{bytes} bytes of weights, as the tensors require for {tokens} tokens"))
}

/// What a kernel multiplies: `i2s_i8` of `gemv_i2s_i8` and of `gemm_i2s_i8`, which share the tokens of a run.
fn operands(kernel: &str) -> &str {
    kernel.strip_prefix("gemv_").or(kernel.strip_prefix("gemm_")).unwrap_or(kernel)
}

/// Bytes of weights that one token reads; `None` if a tensor has an unknown format.
pub(super) fn bytes_per_token(model: &ModelFacts) -> Option<u128> {
    Some(required_bytes(model, 1)?.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)))
}

/// Bytes by operation and kernel; `None` if a tensor has an unknown format.
fn required_bytes(model: &ModelFacts, tokens: u64) -> Option<BTreeMap<(&'static str, &'static str), u128>> {
    let head = model.tensors.iter().find(|tensor| tensor.name == OUTPUT);
    let head = head.map_or(EMBEDDING, |_| OUTPUT);
    let mut required = BTreeMap::<_, u128>::new();
    for tensor in &model.tensors {
        let (operation, (rows, cols)) = if tensor.name == head {
            (operation::HEAD, (u128::from(model.shape.vocab), u128::from(model.shape.embedding)))
        } else {
            let base = place(&tensor.name).filter(|(layer, _)| layer.is_some());
            let base = base.and_then(|(_, part)| part.strip_suffix(".weight"));
            let Some(size) = base.and_then(|base| linear_shape(base, &model.shape)) else { continue };
            (operation::LINEAR, size)
        };
        let format = format(&tensor.format)?;
        let kernel = operands(KERNELS.multiply(format).gemv);
        // A stranger's shape may multiply to more than any tensor has.
        let cols = usize::try_from(cols).ok().filter(|cols| *cols <= usize::MAX / 4)?;
        let row_bytes = format.row_bytes(cols) as u128;
        let bytes = rows.saturating_mul(row_bytes).saturating_mul(u128::from(tokens));
        let sum = required.entry((operation, kernel)).or_default();
        *sum = sum.saturating_add(bytes);
    }
    Some(required)
}
