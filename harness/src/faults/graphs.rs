//! Faulty graphs: a golden model that is run with one thing wrong.

use super::{Fault, Plant, kernels};
use crate::runs::engine::{Backend, processors};
use crate::runs::golden::Golden;
use crate::runs::matrix::{matrix as cells, problem};
use crate::runs::parity::against_golden;
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

const fn graph(
    kind: Kind,
    what: &'static str,
    source: &'static str,
    graph: fn(&mut Model<'_>),
    table: fn(&mut Kernels),
) -> Fault {
    Fault { kind, what, source, plant: Plant::Graph(graph, table) }
}

pub(super) const FAULTS: &[Fault] = &[
    graph(
        Kind::SiluForRelu2,
        "a graph with SiLU for a model of squared ReLU",
        "microsoft/BitNet#588, #602",
        |model| model.activation = Activation::Silu,
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
        |model| {
            model.weights.layers.iter_mut().for_each(|layer| {
                layer.attn_sub_norm = None;
                layer.ffn_sub_norm = None;
            });
        },
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
