//! Receipts that nobody's run wrote, with counters that add up: what the rules are tested on.

use assay_engine::kernels::check::{CASES_VERSION, operations};
use assay_engine::model::nodes;
use assay_harness::plugins::{Group, PLUGIN_CASES_VERSION};
use assay_harness::receipts::canonical;
use assay_harness::receipts::text::{
    DateTime, Decimal, FileName, KernelName, Label, RegisterBits, Sha256Hex, U64, Word,
};
use assay_harness::receipts::types::*;
use assay_harness::receipts::verify::Options;
use serde_json::Map;

/// The present of these tests: 2026-06-01T12:00:00Z.
pub(crate) const NOW: u64 = 1_780_315_200;

const SHAPE: Shape =
    Shape { layers: 2, embedding: 12, feed_forward: 20, heads: 4, heads_kv: 2, head_dim: 4, vocab: 50 };
const PROMPT: [u32; 3] = [1, 7, 49];
const STEPS: u32 = 2;

pub(crate) fn word(text: &str) -> Word {
    Word::parse(text).unwrap()
}

pub(crate) fn kernel(text: &str) -> KernelName {
    KernelName::parse(text).unwrap()
}

pub(crate) fn decimal(text: &str) -> Decimal {
    Decimal::parse(text).unwrap()
}

/// Verifies under its own name, at a fixed present.
pub(crate) fn options(statement: &Statement) -> Options {
    let id = canonical::receipt_id(statement).unwrap();
    Options { file_name: Some(canonical::file_name(statement, &id)), now: NOW, ..Options::default() }
}

pub(crate) fn all() -> [Statement; 6] {
    [model_run(), audited(), parity(), diverged(), kernel_check(), plugin_check()]
}

/// A model run that was audited, with nothing wrong.
pub(crate) fn audited() -> Statement {
    let mut statement = model_run();
    let predicate = &mut statement.predicate;
    let macs = U64::from(predicate.execution.work.iter().map(|row| row.macs.get()).sum::<u64>());
    let per_token =
        |row: &Work| ["linear", "head"].contains(&row.operation.as_str()).then(|| row.weight_bytes.get() / 5);
    let repeat = |ns: u64| Repeat {
        generated_token_ids: vec![4, 9],
        logits_sha256: Sha256Hex::of(b"logits"),
        macs: macs.clone(),
        prefill_ns: U64::from(9_000 + ns),
        decode_ns: vec![U64::from(5_000 + ns), U64::from(6_000)],
    };
    predicate.audit = Some(Audit {
        repeats: vec![repeat(0), repeat(1), repeat(2)],
        other_prompt: OtherPrompt {
            prompt_token_ids: vec![2, 8, 0],
            logits_sha256: Sha256Hex::of(b"other logits"),
            macs: macs.clone(),
        },
        weight_bytes_per_token: U64::from(predicate.execution.work.iter().filter_map(per_token).sum::<u64>()),
        read_bandwidth_bytes_per_s: Some(U64::from(10_000_000_000)),
    });
    canonical::seal(&mut statement).unwrap();
    statement
}

/// The operations of the made-up model, ending in the made-up claim.
fn trace() -> Vec<OperationDigest> {
    let digest = |node: &nodes::Node| match node.kind {
        nodes::NodeKind::LayerOutput => Sha256Hex::of(format!("layer {}", node.layer).as_bytes()),
        nodes::NodeKind::Logits => Sha256Hex::of(b"logits"),
        _ => Sha256Hex::of(node.name().as_bytes()),
    };
    let operation = |node: &nodes::Node| OperationDigest { name: node.name(), sha256: digest(node) };
    nodes::list(true, 2).iter().map(operation).collect()
}

pub(crate) fn plugin_check() -> Statement {
    let label = |text: &str| Label::parse(text).unwrap();
    let sha256 = Sha256Hex::of(b"library");
    let subject = Subject::model(FileName::parse("libtiny.so").unwrap(), sha256.clone());
    let claim = PluginCheckClaim {
        contract: Contract::ExactV1,
        case_list: CaseList { seed: U64::from(7), version: PLUGIN_CASES_VERSION },
        name: label("tiny"),
        version: "1.0".into(),
        library_sha256: sha256,
        kernels: vec![PluginKernel {
            name: label("llama.cpp/haswell/vec_dot_tq2_0_q8_K"),
            weights: label("TQ2_0"),
            activations: label("q8_K"),
            result: label("f32-close"),
            max_tokens: 1,
        }],
    };
    let result = |group: Group| PluginResult {
        kernel: label("llama.cpp/haswell/vec_dot_tq2_0_q8_K"),
        group: label(group.name()),
        cases: 20,
        declined: 0,
        outputs_sha256: Some(Sha256Hex::of(group.name().as_bytes())),
        largest_error: Some(decimal("0.00000001")),
        finding: None,
    };
    let mut predicate = predicate(Kind::PluginCheck, Claim::PluginCheck(claim), Vec::new());
    predicate.execution.batch = 1;
    // The last is owed: the example without it must be caught.
    let groups = Group::ALL.into_iter().filter(|group| !matches!(group, Group::Tokens | Group::Quantiser));
    predicate.plugin_results = Some(groups.map(result).collect());
    Statement::new(subject, predicate).unwrap()
}

pub(crate) fn model_run() -> Statement {
    let model = model();
    let subject = Subject::model(FileName::parse("tiny.gguf").unwrap(), model.sha256.clone());
    let claim = ModelRunClaim {
        contract: Contract::ExactV1,
        generated_token_ids: vec![4, 9],
        logits: Logits { rows: 5, vocab: SHAPE.vocab, sha256: Sha256Hex::of(b"logits") },
        layer_chain: vec![Sha256Hex::of(b"layer 0"), Sha256Hex::of(b"layer 1")],
        rope_table_sha256: Sha256Hex::of(b"tables"),
    };
    let mut predicate = predicate(Kind::ModelRun, Claim::ModelRun(claim), model_work());
    predicate.model = Some(model);
    predicate.input =
        Some(Input { prompt_token_ids: PROMPT.to_vec(), steps: STEPS, sampling: Sampling::Greedy {} });
    predicate.measurement = Some(measurement());
    predicate.execution.trace = Some(trace());
    Statement::new(subject, predicate).unwrap()
}

pub(crate) fn parity() -> Statement {
    let mut statement = model_run();
    statement.predicate.kind = Kind::Parity;
    statement.predicate.parity = Some(Parity {
        reference: Reference {
            name: "bitnet.cpp".into(),
            version: "1".into(),
            commit: None,
            build: None,
            sha256: None,
            known_defects: vec![word("silu_for_relu2")],
        },
        feeding: Feeding::OneTokenAtATime,
        positions: 5,
        cosine_min: decimal("0.99991"),
        cosine_mean: decimal("0.99995"),
        max_abs: decimal("0.01"),
        kl_mean: decimal("0.000001"),
        kl_max: decimal("0.00002"),
        top1_agree: 5,
        top10_agree: decimal("0.98"),
        greedy: Greedy { steps: 2, equal: 2, first_divergence: None },
        thresholds: Thresholds { cosine_min: decimal("0.9999"), greedy_equal: 2 },
        expected_logits_sha256: Some(Sha256Hex::of(b"logits")),
        live: None,
    });
    canonical::seal(&mut statement).unwrap();
    statement
}

/// Parity that failed at the second step.
pub(crate) fn diverged() -> Statement {
    let mut statement = parity();
    let parity = statement.predicate.parity.as_mut().unwrap();
    parity.greedy =
        Greedy { steps: 2, equal: 1, first_divergence: Some(Divergence { step: 1, ours: 9, theirs: 3 }) };
    (parity.positions, parity.top1_agree) = (4, 3);
    statement.predicate.status = Status::Failed;
    canonical::seal(&mut statement).unwrap();
    statement
}

pub(crate) fn kernel_check() -> Statement {
    let case_list = CaseList { seed: U64::from(7), version: CASES_VERSION };
    let subject = Subject::case_list(&case_list).unwrap();
    let outputs_sha256 = Sha256Hex::of(b"outputs");
    let checked =
        |name| CheckedOperation { operation: word(name), cases: 40, outputs_sha256: outputs_sha256.clone() };
    let result = |name| KernelResult {
        operation: word(name),
        kernel: kernel(&format!("{name}/avx2")),
        cases: 40,
        outputs_sha256: outputs_sha256.clone(),
    };
    let claim = KernelCheckClaim {
        contract: Contract::ExactV1,
        case_list,
        operations: operations().map(checked).collect(),
    };
    let mut predicate = predicate(Kind::KernelCheck, Claim::KernelCheck(claim), Vec::new());
    predicate.execution.batch = 1;
    predicate.kernel_results = Some(operations().map(result).collect());
    Statement::new(subject, predicate).unwrap()
}

fn predicate(kind: Kind, claim: Claim, work: Vec<Work>) -> Predicate {
    Predicate {
        kind,
        claim_id: Sha256Hex::of(b""),
        created: DateTime::parse("2026-05-31T08:15:00Z").unwrap(),
        tool: Tool { name: "assay".into(), version: "0.1.0".into(), commit: UNKNOWN.into(), dirty: None },
        model: None,
        input: None,
        claim,
        execution: execution(work),
        measurement: None,
        audit: None,
        parity: None,
        kernel_results: None,
        plugin_results: None,
        status: Status::Held,
        environment: environment(),
        limits: vec!["One machine, one run.".into()],
        corrections: Vec::new(),
        extensions: Map::new(),
    }
}

fn model() -> ModelFacts {
    let tensor = |name: String, format: &str, rows: u64, cols: u64| TensorFacts {
        format: format.into(),
        rows: U64::from(rows),
        cols: U64::from(cols),
        sha256: Sha256Hex::of(name.as_bytes()),
        decoded_sha256: (format == "QK256").then(|| Sha256Hex::of(format!("decoded {name}").as_bytes())),
        name,
    };
    let mut tensors = vec![
        tensor("token_embd.weight".into(), "F16", 50, 12),
        tensor("output_norm.weight".into(), "F32", 1, 12),
    ];
    for layer in 0..2 {
        for (base, format, rows, cols) in [
            ("attn_norm", "F32", 1, 12),
            ("attn_q", "QK256", 16, 12),
            ("attn_k", "QK256", 8, 12),
            ("attn_v", "QK256", 8, 12),
            ("attn_sub_norm", "F32", 1, 16),
            ("attn_output", "QK256", 12, 16),
            ("ffn_norm", "F32", 1, 12),
            ("ffn_up", "QK256", 20, 12),
            ("ffn_gate", "QK256", 20, 12),
            ("ffn_sub_norm", "F32", 1, 20),
            ("ffn_down", "QK256", 12, 20),
        ] {
            tensors.push(tensor(format!("blk.{layer}.{base}.weight"), format, rows, cols));
        }
    }
    ModelFacts {
        sha256: Sha256Hex::of(b"tiny model"),
        bytes: U64::from(20_000),
        architecture: "bitnet-b1.58".into(),
        activation: word("relu2"),
        shape: SHAPE,
        decoded_weights_sha256: canonical::decoded_weights_sha256(&tensors).unwrap(),
        tensors,
        fixture: Some(Fixture { name: "tiny".into(), seed: U64::from(u64::MAX), generator_version: 1 }),
        tokenizer_sha256: None,
    }
}

fn execution(work: Vec<Work>) -> Execution {
    Execution {
        isa: word("avx2"),
        threads: 2,
        batch: 3,
        work,
        fallbacks: Vec::new(),
        float_environment: FloatEnvironment {
            register: FloatRegister::Mxcsr,
            value: RegisterBits::from_u32(0x1f80),
            nearest: true,
            subnormals_kept: true,
        },
        device: None,
        compute_path: ComputePath::Real,
        trace: None,
    }
}

fn row(operation: &str, name: &str, columns: u64, rows: u64, row_bytes: u64) -> Work {
    Work {
        operation: word(operation),
        kernel: kernel(name),
        columns: U64::from(columns),
        calls: U64::from(rows),
        rows: U64::from(rows),
        macs: U64::from(rows * columns),
        weight_bytes: U64::from(rows * row_bytes),
    }
}

/// The loops of a run written out, five tokens through two layers.
fn model_work() -> Vec<Work> {
    let (mut of_12, mut of_16, mut of_20, mut head, mut attention) = (0, 0, 0, 0, 0);
    for position in 0..5 {
        for _layer in 0..2 {
            of_12 += 16 + 8 + 8 + 20 + 20; // q, k, v, up, gate
            of_16 += 12; // output
            of_20 += 12; // down
            attention += 4 * (position + 1);
        }
        head += 50;
    }
    vec![
        row("linear", "gemv_i2s_i8/avx2", 12, of_12, 64),
        row("linear", "gemv_i2s_i8/avx2", 16, of_16, 64),
        row("linear", "gemv_i2s_i8/avx2", 20, of_20, 64),
        row("head", "gemv_f16_f32/avx2", 12, head, 24),
        row("attention_scores", "gemv_f16_f32/avx2", 4, attention, 8),
        row("attention_values", "weigh_f16/avx2", 4, attention, 8),
    ]
}

fn measurement() -> Measurement {
    let sample = |phase, tokens, ns: u64| Sample { phase, tokens, ns: U64::from(ns) };
    Measurement {
        warm_up: 1,
        samples: vec![
            sample(Phase::Load, 0, 900),
            sample(Phase::Prefill, 3, 500),
            sample(Phase::Decode, 1, 200),
            sample(Phase::Decode, 1, 210),
        ],
        discarded: vec![Discarded { index: 1, reason: DiscardReason::OtherLoad }],
        peak_memory_bytes: Some(U64::from(1 << 30)),
        read_bandwidth_bytes_per_s: None,
    }
}

fn environment() -> Environment {
    Environment {
        os: "linux".into(),
        kernel: UNKNOWN.into(),
        cpu: Cpu {
            brand: "Example".into(),
            logical: Some(2),
            compiled_features: None,
            features: ["avx2", "fma", "f16c"].map(str::to_owned).to_vec(),
            caches: Vec::new(),
        },
        memory_bytes: None,
        virtualisation: UNKNOWN.into(),
        accelerator: None,
        governor: UNKNOWN.into(),
        build: Build {
            rustc_verbose: None,
            rustc: UNKNOWN.into(),
            target: "x86_64-unknown-linux-gnu".into(),
            profile: UNKNOWN.into(),
            rustflags: String::new(),
            cargo_lock_sha256: UNKNOWN.into(),
        },
        variables: [("REQUIRE_ISA".to_owned(), "avx2".to_owned())].into(),
    }
}
