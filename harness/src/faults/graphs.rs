//! Faulty graphs: a golden model that is run with one thing wrong.

use super::{Fault, Plant, kernels};
#[cfg(unix)]
use crate::parity::{diagnose::diagnose, judge::Judged, sensitivity::sensitivity};
use crate::runs::engine::{Backend, processors};
use crate::runs::golden::Golden;
use crate::runs::matrix::{matrix as cells, problem};
use crate::runs::parity::against_golden;
#[cfg(unix)]
use crate::runs::{engine::run_with_logits, thresholds::Thresholds};
use assay_engine::kernels::{Kernels, best};
use assay_engine::kind::Kind;
use assay_engine::model::{Activation, Model};

/// The golden model that is run: small, with squared ReLU and sub-norms, and stable, so that what is wrong with it shows
/// in its logits and not only in its tokens.
const MODEL: &str = "b158-stable";

/// The fastest table here, with something wrong in it. Engines take tables that live for ever: a few hundred bytes for
/// each fault of a self-test.
fn planted(plant: fn(&mut Kernels)) -> &'static Kernels {
    let mut table = *best();
    plant(&mut table);
    Box::leak(Box::new(table))
}

/// What parity with golden logits says.
pub(super) fn parity(graph: fn(&mut Model<'_>), table: fn(&mut Kernels)) -> anyhow::Result<Option<String>> {
    let golden = Golden::embedded()?;
    let entry = &golden.index.models[MODEL];
    let file = golden.model(entry)?;
    let gguf = file.gguf()?;
    let mut model = Model::load(&gguf, None)?;
    graph(&mut model);
    let backend = Backend { kernels: planted(table), threads: processors(), batch: 0 };
    let failures = against_golden(&golden, entry, &model, backend)?.failures();
    Ok((!failures.is_empty()).then(|| format!("{MODEL}: {}", failures.join("; "))))
}

/// Tokens that are generated after the prompt where a faulty graph plays the reference.
const STEPS: usize = 8;

/// What parity says of a reference that is the engine with something wrong in it: its logits are judged as any reference's are, and known mistakes are
/// tried. It is fed one token at a time, as references are.
#[cfg(unix)]
pub(super) fn reference(
    graph: fn(&mut Model<'_>),
    table: fn(&mut Kernels),
) -> anyhow::Result<Option<String>> {
    let golden = Golden::embedded()?;
    let entry = &golden.index.models[MODEL];
    let file = golden.model(entry)?;
    let gguf = file.gguf()?;
    let model = Model::load(&gguf, None)?;
    let backend = Backend { kernels: best(), threads: processors(), batch: 0 };
    let (run, ours) = run_with_logits(&model, backend, &entry.prompt_token_ids, STEPS)?;
    let tokens = run.tokens();
    let sensitivity = sensitivity(&model, backend, &tokens, &ours)?;
    let mut faulty = model.clone();
    graph(&mut faulty);
    let faulty_backend = Backend { kernels: planted(table), batch: 1, ..backend };
    let (own, _) = run_with_logits(&faulty, faulty_backend, &entry.prompt_token_ids, STEPS)?;
    let (_, theirs) = run_with_logits(&faulty, faulty_backend, &tokens, 0)?;
    let thresholds = Thresholds::default();
    let generated = (&run.outcome.generated[..], &own.outcome.generated[..]);
    let rows = (&ours[..], &theirs[..], model.config.vocab);
    let judged = Judged::of(rows, entry.prompt_token_ids.len(), generated, &sensitivity, &thresholds);
    let Some(judged) = judged else { return Ok(Some(format!("{MODEL}: the logits cannot be compared"))) };
    if judged.held() {
        return Ok(None);
    }
    let found = diagnose(&model, backend, &tokens, &theirs, &thresholds, &mut |_| ())?;
    let named = found
        .suspects
        .first()
        .map_or(String::new(), |suspect| format!("; the error is that {}", suspect.kind()));
    Ok(Some(format!("{MODEL}: {}; {}{named}", judged.failures().join("; "), found.sentence())))
}

/// References are programs of Unix.
#[cfg(not(unix))]
pub(super) fn reference(_: fn(&mut Model<'_>), _: fn(&mut Kernels)) -> anyhow::Result<Option<String>> {
    anyhow::bail!("references run on Unix only")
}

/// What the digest matrix says.
pub(super) fn matrix(table: fn(&mut Kernels)) -> anyhow::Result<Option<String>> {
    let golden = Golden::embedded()?;
    let entry = &golden.index.models[MODEL];
    let file = golden.model(entry)?;
    let gguf = file.gguf()?;
    let model = Model::load(&gguf, None)?;
    let cells = cells(&model, entry.task(), planted(table), &[1, 2], &[0, 1])?;
    Ok(problem(&cells, &entry.exact_v1_logits_sha256).map(|said| format!("{MODEL}: {said}")))
}

fn silu(model: &mut Model<'_>) {
    model.activation = Activation::Silu;
}

fn without_sub_norms(model: &mut Model<'_>) {
    for layer in &mut model.weights.layers {
        (layer.attn_sub_norm, layer.ffn_sub_norm) = (None, None);
    }
}

const fn graph(
    kind: Kind,
    what: &'static str,
    source: &'static str,
    graph: fn(&mut Model<'_>),
    table: fn(&mut Kernels),
) -> Fault {
    Fault { kind, what, source, plant: Plant::Graph(graph, table) }
}

const fn played(
    kind: Kind,
    what: &'static str,
    source: &'static str,
    graph: fn(&mut Model<'_>),
    table: fn(&mut Kernels),
) -> Fault {
    Fault { kind, what, source, plant: Plant::Reference(graph, table) }
}

#[cfg(unix)]
pub(super) const PLAYED: &[Fault] = &[
    played(
        Kind::SiluForRelu2,
        "a reference with SiLU for a model of squared ReLU",
        "microsoft/BitNet#588, #602",
        silu,
        |_| (),
    ),
    played(
        Kind::LayernormForRmsnorm,
        "a reference with layer norm",
        "EffortlessMetrics/BitNet-rs",
        |_| (),
        |k| k.rms_norm = kernels::layer_norm,
    ),
    played(
        Kind::SubNormSkipped,
        "a reference without both sub-norms",
        "EffortlessMetrics/BitNet-rs",
        without_sub_norms,
        |_| (),
    ),
    played(
        Kind::SubNormSkipped,
        "a reference without the sub-norm of attention",
        "EffortlessMetrics/BitNet-rs",
        |model| model.weights.layers.iter_mut().for_each(|layer| layer.attn_sub_norm = None),
        |_| (),
    ),
    played(
        Kind::MissingScale,
        "a reference that ignores the scales of tensors",
        "microsoft/BitNet#468",
        |_| (),
        |k| k.dequantise_i32 = kernels::without_scale,
    ),
    played(
        Kind::WrongGroup,
        "a reference that unpacks 64 weights from 16 bytes",
        "microsoft/BitNet#470, #585, #598",
        |_| (),
        |k| k.gemv_i2s_i8 = kernels::groups_of_64,
    ),
    played(
        Kind::SequentialDecode,
        "a reference that reads four neighbours from a byte",
        "microsoft/BitNet#598, #600, #610",
        |_| (),
        |k| k.gemv_i2s_i8 = kernels::sequential,
    ),
    played(
        Kind::CodeMapWithoutZero,
        "a reference that reads codes as -2, -1, +1",
        "EffortlessMetrics/BitNet-rs, QK256",
        |_| (),
        |k| k.gemv_i2s_i8 = kernels::without_zero,
    ),
    played(
        Kind::ActivationSumTwice,
        "a reference that subtracts the sum of activations twice",
        "microsoft/BitNet#600, #610",
        |_| (),
        |k| k.gemv_i2s_i8 = kernels::sum_twice,
    ),
];

/// See above.
#[cfg(not(unix))]
pub(super) const PLAYED: &[Fault] = &[];

pub(super) const FAULTS: &[Fault] = &[
    graph(
        Kind::SiluForRelu2,
        "a graph with SiLU for a model of squared ReLU",
        "microsoft/BitNet#588, #602",
        silu,
        |_| (),
    ),
    graph(
        Kind::SiluForRelu2,
        "a table whose squared ReLU is SiLU, run through the model",
        "microsoft/BitNet#588, #602",
        |_| (),
        |k| k.relu2_mul = k.silu_mul,
    ),
    graph(
        Kind::LayernormForRmsnorm,
        "a graph with layer norm",
        "EffortlessMetrics/BitNet-rs",
        |_| (),
        |k| k.rms_norm = kernels::layer_norm,
    ),
    graph(
        Kind::SubNormSkipped,
        "a graph without both sub-norms",
        "EffortlessMetrics/BitNet-rs",
        without_sub_norms,
        |_| (),
    ),
    graph(
        Kind::SubNormSkipped,
        "a graph without the sub-norm of the feed-forward block",
        "EffortlessMetrics/BitNet-rs",
        |model| model.weights.layers.iter_mut().for_each(|layer| layer.ffn_sub_norm = None),
        |_| (),
    ),
    Fault {
        kind: Kind::BatchVariantReduction,
        what: "a head whose sums depend on the cut of the prompt",
        source: "ggml-org/llama.cpp#3014, #7052",
        plant: Plant::Matrix(|k| k.gemm_f16_f32 = kernels::sixteen_lanes),
    },
];
