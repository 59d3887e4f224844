//! From runs to receipts: every field comes from what ran, none from what was asked for.

use super::error::{Error, Result};
use super::machine;
use super::text::{Decimal, FileName, KernelName, Label, RegisterBits, Sha256Hex, U64, Word};
use super::types::{
    Audit, CaseList, CheckedOperation, Claim, ComputePath, Contract, DifferenceClass, Digest, Divergence,
    Execution, Fallback, Feeding, Fixture, FloatEnvironment, FloatRegister, Greedy, Input, KernelCheckClaim,
    KernelResult, Kind, LiveParity, Logits, Measurement, ModelFacts, ModelRunClaim, OperationDigest,
    OperationsAlone, OtherPrompt, Parity, Phase, PluginCheckClaim, PluginFinding, PluginKernel, PluginResult,
    Predicate, Reference, Repeat, RowDifference, Sample, Sampling, Shape, Statement, Status, Subject,
    TensorFacts, Thresholds, Work,
};
#[cfg(unix)]
use crate::bench::audit::Audited;
#[cfg(unix)]
use crate::parity::{
    judge::Class,
    live::{self, Live},
};
use crate::plugins;
#[cfg(unix)]
use crate::references;
use crate::runs::compare::Comparison;
use crate::runs::engine::{Backend, Run};
use crate::runs::file::ModelFile;
use crate::runs::golden::Golden;
use crate::runs::parity::{self, COSINE_MIN};
use crate::runs::thresholds::Asked;
use assay_engine::decode;
use assay_engine::exact::environment;
use assay_engine::gguf::Gguf;
use assay_engine::kernels::check::{CASES_VERSION, OperationReport, Plan};
use assay_engine::kernels::{Isa, Kernels, scalar};
use assay_engine::model::Model;
use assay_engine::tensor::Matrix;
use assay_engine::tokenizer::Tokenizer;
use assay_engine::work::{Counts, Key};

/// What no receipt of this kind proves.
const LIMITS: [&str; 2] = [
    "without a signature around it, it shows what was computed, not by whom",
    "timings are those of one run on a machine that may have had other work",
];

/// And of a plug-in check.
const PLUGIN_LIMIT: &str =
    "a finite list of cases: a kernel that held may still be wrong elsewhere, or know that it is checked";

/// Facts of a model file: digests of the file, of every tensor and of the weights they decode to.
///
/// # Errors
/// - a tensor cannot be read, or a number does not fit its field.
pub fn model_facts(file: &ModelFile, gguf: &Gguf<'_>, model: &Model<'_>) -> Result<ModelFacts> {
    let config = &model.config;
    let tensors = gguf
        .tensors()
        .iter()
        .map(|tensor| Ok(tensor_facts(&Matrix::of(gguf, tensor)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(ModelFacts {
        sha256: Sha256Hex::from_digest(file.sha256()),
        bytes: (file.bytes().len() as u64).into(),
        architecture: config.arch.name.to_owned(),
        activation: Word::parse(model.activation.name())?,
        shape: Shape {
            layers: small(config.layers),
            embedding: small(config.embedding),
            feed_forward: small(config.feed_forward),
            heads: small(config.heads),
            heads_kv: small(config.heads_kv),
            head_dim: small(config.head_dim),
            vocab: small(config.vocab),
        },
        decoded_weights_sha256: super::canonical::decoded_weights_sha256(&tensors)?,
        tensors,
        fixture: fixture(gguf),
        tokenizer_sha256: Tokenizer::read(gguf).ok().flatten().map(|t| Sha256Hex::from_digest(t.digest())),
    })
}

/// Facts of one tensor.
pub fn tensor_facts(matrix: &Matrix<'_>) -> TensorFacts {
    TensorFacts {
        name: matrix.name.to_owned(),
        format: matrix.format.name().to_owned(),
        rows: (matrix.rows as u64).into(),
        cols: (matrix.cols as u64).into(),
        sha256: Sha256Hex::from_digest(matrix.digest()),
        decoded_sha256: matrix.ternary().map(|ternary| Sha256Hex::from_digest(ternary.digest())),
    }
}

/// Every count that goes through here is bounded by the engine far below 2^32.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn fixture(gguf: &Gguf<'_>) -> Option<Fixture> {
    Some(Fixture {
        name: gguf.opt_str("assay.fixture.name").ok()??.to_owned(),
        seed: gguf.opt_u64("assay.fixture.seed").ok()??.into(),
        generator_version: gguf.opt_u32("assay.fixture.generator_version").ok()??,
    })
}

/// The receipt of a run.
///
/// # Errors
/// - a name or number does not fit its field.
pub fn model_run(file_name: &str, facts: ModelFacts, run: &Run) -> Result<Statement> {
    let subject = Subject::model(FileName::parse(file_name)?, facts.sha256.clone());
    Statement::new(subject, run_predicate(facts, run)?)
}

/// The receipt of a run that was audited: its status says whether all was in order, by the rule on it.
///
/// # Errors
/// - a name or number does not fit its field.
#[cfg(unix)]
pub fn audited_run(
    file_name: &str,
    facts: ModelFacts,
    weight_bytes_per_token: usize,
    audited: &Audited,
) -> Result<Statement> {
    let macs = |run: &Run| run.outcome.work.iter().map(|(_, counts)| counts.macs).sum::<u64>().into();
    let logits_sha256 = |run: &Run| Sha256Hex::from_digest(run.outcome.logits_sha256);
    let ns = |sample: &decode::Sample| u64::try_from(sample.time.as_nanos()).unwrap_or(u64::MAX);
    let of_phase = |run: &Run, phase| {
        run.outcome.samples.iter().filter(move |sample| sample.phase == phase).map(ns).collect::<Vec<_>>()
    };
    let repeat = |run: &Run| Repeat {
        generated_token_ids: run.outcome.generated.clone(),
        logits_sha256: logits_sha256(run),
        macs: macs(run),
        prefill_ns: of_phase(run, decode::Phase::Prefill).iter().sum::<u64>().into(),
        decode_ns: of_phase(run, decode::Phase::Decode).into_iter().map(U64::from).collect(),
    };
    let audit = Audit {
        repeats: audited.timed.iter().map(repeat).collect(),
        other_prompt: OtherPrompt {
            prompt_token_ids: audited.other.request.prompt.clone(),
            logits_sha256: logits_sha256(&audited.other),
            macs: macs(&audited.other),
        },
        weight_bytes_per_token: (weight_bytes_per_token as u64).into(),
        read_bandwidth_bytes_per_s: audited.bandwidth.map(|rate| (rate as u64).into()),
    };
    let mut statement = model_run(file_name, facts, &audited.checked)?;
    statement.predicate.status = status(super::verify::audited(&statement, &audit).is_ok());
    statement.predicate.audit = Some(audit);
    Ok(statement)
}

/// The receipt of a run that was held to golden data.
///
/// # Errors
/// - a name or number does not fit its field.
pub fn parity(
    file_name: &str,
    facts: ModelFacts,
    golden: &Golden,
    found: &parity::Parity,
) -> Result<Statement> {
    let subject = Subject::model(FileName::parse(file_name)?, facts.sha256.clone());
    let predicate = Predicate {
        kind: Kind::Parity,
        parity: Some(comparison(golden, found)?),
        status: status(found.held()),
        ..run_predicate(facts, &found.run)?
    };
    Statement::new(subject, predicate)
}

/// The receipt of a kernel check: what scalar gave for the cases of `plan`, and what the instruction set of `backend` gave.
///
/// # Errors
/// - a name or number does not fit its field.
pub fn kernel_check(
    backend: Backend,
    plan: &Plan,
    scalar: &[OperationReport],
    checked: &[OperationReport],
) -> Result<Statement> {
    let case_list = CaseList { seed: plan.seed.into(), version: CASES_VERSION };
    let subject = Subject::case_list(&case_list)?;
    let operations: Vec<CheckedOperation> = scalar.iter().map(checked_operation).collect::<Result<_>>()?;
    let result = |report: &OperationReport| {
        let CheckedOperation { operation, cases, outputs_sha256 } = checked_operation(report)?;
        let kernel = kernel_name(report.operation, backend.kernels.isa)?;
        Ok(KernelResult { operation, kernel, cases, outputs_sha256 })
    };
    let results = checked.iter().map(result).collect::<Result<Vec<_>>>()?;
    let claim = Claim::KernelCheck(KernelCheckClaim { contract: Contract::ExactV1, case_list, operations });
    let equal = scalar.iter().map(|r| r.outputs_sha256).eq(checked.iter().map(|r| r.outputs_sha256));
    let execution = execution(backend, 1, environment::check()?)?;
    let predicate = Predicate {
        kernel_results: Some(results),
        status: status(equal),
        ..predicate(Kind::KernelCheck, claim, execution)?
    };
    Statement::new(subject, predicate)
}

/// The receipt of a check of kernels from outside.
///
/// # Errors
/// - a name or number does not fit its field.
pub fn plugin_check(report: &plugins::Report) -> Result<Statement> {
    let label = |text: &str| Label::parse(text);
    let sha256 = Sha256Hex::parse(&report.sha256)?;
    let kernel = |kernel: &plugins::KernelReport| {
        let facts = &kernel.kernel;
        Ok(PluginKernel {
            name: label(&facts.name)?,
            weights: label(&facts.weights)?,
            activations: label(&facts.activations)?,
            result: label(&facts.result)?,
            max_tokens: facts.max_tokens,
        })
    };
    let mut results = Vec::new();
    for kernel in &report.kernels {
        let name = label(&kernel.kernel.name)?;
        for result in &kernel.groups {
            let finding = result.finding.as_ref().map(|finding| {
                let (message, case) = (finding.message.clone(), finding.case.clone());
                Ok::<_, Error>(PluginFinding { kind: label(&finding.kind)?, message, case })
            });
            results.push(PluginResult {
                kernel: name.clone(),
                group: label(result.group.name())?,
                cases: u32::try_from(result.cases).unwrap_or(u32::MAX),
                declined: u32::try_from(result.declined).unwrap_or(u32::MAX),
                outputs_sha256: Some(result.outputs_sha256.as_str())
                    .filter(|digest| !digest.is_empty())
                    .map(Sha256Hex::parse)
                    .transpose()?,
                largest_error: result.worst.map(decimal).transpose()?,
                finding: finding.transpose()?,
            });
        }
        for group in &kernel.not_run {
            let message = "not run: groups before it had killed their process".to_owned();
            results.push(PluginResult {
                kernel: name.clone(),
                group: label(group.name())?,
                cases: 0,
                declined: 0,
                outputs_sha256: None,
                largest_error: None,
                finding: Some(PluginFinding { kind: label("not-run")?, message, case: String::new() }),
            });
        }
    }
    let claim = Claim::PluginCheck(PluginCheckClaim {
        contract: Contract::ExactV1,
        case_list: CaseList { seed: report.seed.into(), version: plugins::PLUGIN_CASES_VERSION },
        name: label(&report.name)?,
        version: report.version.clone(),
        library_sha256: sha256.clone(),
        kernels: report.kernels.iter().map(kernel).collect::<Result<_>>()?,
    });
    let subject = Subject { name: FileName::parse(&report.file)?, digest: Digest { sha256 } };
    // What the kernels are held to is computed in scalar code.
    let backend = Backend { kernels: &scalar::KERNELS, threads: 1, batch: 0 };
    let execution = execution(backend, 1, environment::check()?)?;
    let predicate = Predicate {
        plugin_results: Some(results),
        status: status(report.held()),
        limits: [LIMITS[0].to_owned(), PLUGIN_LIMIT.to_owned()].to_vec(),
        ..predicate(Kind::PluginCheck, claim, execution)?
    };
    Statement::new(subject, predicate)
}

fn status(held: bool) -> Status {
    if held { Status::Held } else { Status::Failed }
}

fn run_predicate(facts: ModelFacts, run: &Run) -> Result<Predicate> {
    let outcome = &run.outcome;
    let claim = Claim::ModelRun(ModelRunClaim {
        contract: Contract::ExactV1,
        generated_token_ids: outcome.generated.clone(),
        logits: Logits {
            rows: small(outcome.rows),
            vocab: small(outcome.vocab),
            sha256: Sha256Hex::from_digest(outcome.logits_sha256),
        },
        layer_chain: outcome.layer_chain.iter().copied().map(Sha256Hex::from_digest).collect(),
        rope_table_sha256: Sha256Hex::from_digest(outcome.rope_sha256),
    });
    let work = work(outcome, run.backend.kernels)?;
    let digest = |(name, digest): &(String, [u8; 32])| OperationDigest {
        name: name.clone(),
        sha256: Sha256Hex::from_digest(*digest),
    };
    let execution = Execution {
        fallbacks: fallbacks(&work, run.backend.kernels.isa)?,
        work,
        trace: run.trace.as_ref().map(|trace| trace.iter().map(digest).collect()),
        ..execution(run.backend, run.request.batch_size(), run.environment)?
    };
    Ok(Predicate {
        model: Some(facts),
        input: Some(Input {
            prompt_token_ids: run.request.prompt.clone(),
            steps: small(outcome.generated.len()),
            sampling: Sampling::Greedy {},
        }),
        measurement: machine::moment()?.1.then(|| measurement(outcome)),
        ..predicate(Kind::ModelRun, claim, execution)?
    })
}

/// What every receipt has; the rest is absent.
fn predicate(kind: Kind, claim: Claim, execution: Execution) -> Result<Predicate> {
    let (created, _) = machine::moment()?;
    Ok(Predicate {
        kind,
        claim_id: Sha256Hex::of(b""), // set when the statement is sealed
        created,
        tool: machine::tool(),
        model: None,
        input: None,
        claim,
        execution,
        measurement: None,
        audit: None,
        parity: None,
        kernel_results: None,
        plugin_results: None,
        status: Status::Held,
        environment: machine::environment(),
        limits: LIMITS.map(str::to_owned).to_vec(),
        corrections: Vec::new(),
        extensions: serde_json::Map::new(),
    })
}

fn execution(backend: Backend, batch: usize, found: environment::FloatEnvironment) -> Result<Execution> {
    Ok(Execution {
        isa: Word::parse(backend.kernels.isa.name())?,
        threads: small(backend.threads),
        batch: small(batch),
        work: Vec::new(),
        fallbacks: Vec::new(),
        float_environment: float_environment(found)?,
        device: None,
        compute_path: ComputePath::Real,
        trace: None,
    })
}

/// What did not run on a kernel of the instruction set that was asked for. The tables of this version borrow none (a test holds
/// that): this is for those that will.
fn fallbacks(work: &[Work], asked: Isa) -> Result<Vec<Fallback>> {
    let elsewhere = work.iter().filter(|row| row.kernel.isa() != asked.name());
    let fallback = |row: &Work| {
        Ok(Fallback {
            operation: row.operation.clone(),
            wanted: kernel_name(row.kernel.name(), asked)?,
            used: row.kernel.clone(),
            reason: "the table of the instruction set has no kernel of its own".to_owned(),
        })
    };
    let mut all = elsewhere.map(fallback).collect::<Result<Vec<_>>>()?;
    all.dedup();
    Ok(all)
}

fn float_environment(found: environment::FloatEnvironment) -> Result<FloatEnvironment> {
    let (register, value) = match found.register {
        "fpcr" => (FloatRegister::Fpcr, RegisterBits::from_u64(found.value)),
        // MXCSR has 32 bits.
        "mxcsr" => (FloatRegister::Mxcsr, RegisterBits::from_u32(found.value as u32)),
        other => return Err(Error::text("the register mxcsr or fpcr: receipts need one of them", other)),
    };
    Ok(FloatEnvironment { register, value, nearest: found.nearest, subnormals_kept: found.subnormals_kept })
}

fn kernel_name(operation: &str, isa: Isa) -> Result<KernelName> {
    KernelName::parse(&format!("{operation}/{isa}"))
}

fn work(outcome: &decode::Outcome, table: &Kernels) -> Result<Vec<Work>> {
    let row = |(key, counts): &(Key, Counts)| {
        // The kernel that ran: a table that borrows one names the lender.
        let isa = if key.isa == table.isa { table.isa_of(key.kernel) } else { key.isa };
        Ok(Work {
            operation: Word::parse(key.operation.name())?,
            kernel: kernel_name(key.kernel, isa)?,
            columns: (key.columns as u64).into(),
            calls: counts.calls.into(),
            rows: counts.rows.into(),
            macs: counts.macs.into(),
            weight_bytes: counts.weight_bytes.into(),
        })
    };
    outcome.work.iter().map(row).collect()
}

fn measurement(outcome: &decode::Outcome) -> Measurement {
    let sample = |sample: &decode::Sample| Sample {
        phase: match sample.phase {
            decode::Phase::Prefill => Phase::Prefill,
            decode::Phase::Decode => Phase::Decode,
        },
        tokens: small(sample.tokens),
        ns: u64::try_from(sample.time.as_nanos()).unwrap_or(u64::MAX).into(),
    };
    Measurement {
        warm_up: 0,
        samples: outcome.samples.iter().map(sample).collect(),
        discarded: Vec::new(),
        peak_memory_bytes: machine::peak_memory_bytes(),
        read_bandwidth_bytes_per_s: None,
    }
}

fn checked_operation(report: &OperationReport) -> Result<CheckedOperation> {
    Ok(CheckedOperation {
        operation: Word::parse(report.operation)?,
        cases: u32::try_from(report.cases).unwrap_or(u32::MAX),
        outputs_sha256: Sha256Hex::from_digest(report.outputs_sha256),
    })
}

/// The numbers of a comparison; what it was about is left to the caller.
fn metrics(numbers: &Comparison) -> Result<Parity> {
    Ok(Parity {
        reference: Reference {
            name: String::new(),
            version: String::new(),
            commit: None,
            build: None,
            sha256: None,
            known_defects: Vec::new(),
        },
        feeding: Feeding::OneTokenAtATime,
        positions: small(numbers.positions),
        cosine_min: decimal(numbers.cosine_min)?,
        cosine_mean: decimal(numbers.cosine_mean)?,
        max_abs: decimal(numbers.max_abs)?,
        kl_mean: decimal(numbers.kl_mean)?,
        kl_max: decimal(numbers.kl_max)?,
        top1_agree: small(numbers.top1_agree),
        top10_agree: decimal(numbers.top10_agree)?,
        greedy: Greedy { steps: 0, equal: 0, first_divergence: None },
        thresholds: Thresholds { cosine_min: decimal(COSINE_MIN)?, greedy_equal: 0 },
        expected_logits_sha256: None,
        live: None,
    })
}

fn comparison(golden: &Golden, found: &parity::Parity) -> Result<Parity> {
    let (numbers, reference) = (&found.comparison, &golden.index.reference);
    let steps = small(found.reference_tokens.len());
    Ok(Parity {
        reference: Reference {
            name: reference.name.clone(),
            version: "golden logits".to_owned(),
            commit: Some(reference.commit.clone()),
            build: Some(reference.device.clone()),
            sha256: None,
            known_defects: Vec::new(),
        },
        greedy: Greedy {
            steps,
            equal: small(found.equal_tokens()),
            first_divergence: found.first_difference().map(|first| Divergence {
                step: small(first.step),
                ours: first.ours,
                theirs: first.theirs,
            }),
        },
        thresholds: Thresholds { cosine_min: decimal(COSINE_MIN)?, greedy_equal: steps },
        expected_logits_sha256: Some(Sha256Hex::parse(&found.expected_sha256)?),
        ..metrics(numbers)?
    })
}

/// What receipts of one model beside one reference have in common.
#[cfg(unix)]
#[derive(Debug, Clone)]
pub struct LiveContext<'c> {
    file_name: FileName,
    facts: ModelFacts,
    asked: &'c Asked,
    /// Digest of the reference's program, in hex, where there is one.
    reference_sha256: Option<String>,
    explained_by: &'c [&'static str],
}

#[cfg(unix)]
impl<'c> LiveContext<'c> {
    /// The file that both sides ran, what was asked for, who was asked, and the ids of known mistakes that explain it.
    ///
    /// # Errors
    /// - the file cannot be read again, or its name not be written.
    pub fn new(
        prepared: &references::Prepared,
        asked: &'c Asked,
        reference: &references::Reference,
        explained_by: &'c [&'static str],
    ) -> anyhow::Result<LiveContext<'c>> {
        let file = &prepared.file;
        let gguf = file.gguf()?;
        let facts = model_facts(file, &gguf, &Model::load(&gguf, Some(prepared.activation))?)?;
        let file_name = FileName::parse(file.name())?;
        Ok(LiveContext { file_name, facts, asked, reference_sha256: reference.sha256(), explained_by })
    }
}

/// The receipt of one prompt that went through the engine and a reference.
///
/// # Errors
/// - a name or number does not fit its field.
#[cfg(unix)]
pub fn of_prompt(context: &LiveContext<'_>, (live, prompt): (&Live, &live::Prompt)) -> Result<Statement> {
    let facts = context.facts.clone();
    let subject = Subject::model(context.file_name.clone(), facts.sha256.clone());
    let predicate = Predicate {
        kind: Kind::Parity,
        parity: Some(live_comparison(live, prompt, context)?),
        status: status(prompt.judged.held()),
        ..run_predicate(facts, &prompt.run)?
    };
    Statement::new(subject, predicate)
}

#[cfg(unix)]
fn live_comparison(live: &Live, prompt: &live::Prompt, context: &LiveContext<'_>) -> Result<Parity> {
    let (judged, numbers) = (&prompt.judged, &prompt.judged.comparison);
    let differences = judged.differences.iter().map(|difference| {
        Ok(RowDifference {
            row: small(difference.row),
            ours: difference.ours,
            theirs: difference.theirs,
            gap: decimal(difference.gap)?,
            their_gap: decimal(difference.their_gap)?,
            perturbation: decimal(difference.perturbation)?,
            class: match difference.class {
                Class::Tie => DifferenceClass::Tie,
                Class::Mismatch => DifferenceClass::Mismatch,
            },
        })
    });
    let asked = &context.asked;
    let added = LiveParity {
        nmse_max: decimal(numbers.nmse_max.min(f64::MAX))?,
        max_ulp: numbers.max_ulp.into(),
        rank_max: small(numbers.rank_max),
        own_cosine: decimal(judged.sensitivity)?,
        differences: differences.collect::<Result<_>>()?,
        operations: judged.operations.as_ref().map(|operations| OperationsAlone {
            all: small(operations.all),
            compared: small(operations.compared),
            asked: small(operations.asked),
            wrong: operations.wrong.clone(),
        }),
        tie_factor: decimal(asked.values.tie_factor)?,
        thresholds_sha256: asked.file_sha256.as_deref().map(Sha256Hex::parse).transpose()?,
        explained_by: context.explained_by.iter().map(|id| Word::parse(id)).collect::<Result<_>>()?,
        notes: live.notes.clone(),
    };
    let (steps, equal) = (small(judged.steps), small(judged.equal_steps));
    let ours = prompt.run.outcome.generated.get(judged.equal_steps).copied();
    Ok(Parity {
        reference: Reference {
            name: live.identity.name.clone(),
            version: live.identity.version.clone(),
            commit: None,
            build: live.identity.build.clone(),
            sha256: context.reference_sha256.as_deref().map(Sha256Hex::parse).transpose()?,
            known_defects: Vec::new(),
        },
        feeding: match live.feeding {
            references::Feeding::OneTokenAtATime => Feeding::OneTokenAtATime,
            references::Feeding::Batch => Feeding::Batch,
        },
        greedy: Greedy {
            steps,
            equal,
            first_divergence: ours.zip(judged.other_token).map(|(ours, theirs)| Divergence {
                step: equal,
                ours,
                theirs,
            }),
        },
        thresholds: Thresholds { cosine_min: decimal(judged.cosine_min)?, greedy_equal: steps },
        expected_logits_sha256: None,
        live: Some(added),
        ..metrics(numbers)?
    })
}

fn decimal(value: f64) -> Result<Decimal> {
    Decimal::from_f64(value).ok_or_else(|| Error::text("a finite number", &value.to_string()))
}
