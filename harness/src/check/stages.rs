//! The stages up to parity. Each runs to its end and adds a row; the first thing that fails is its detail.

use super::{Context, Row, absent};
use crate::faults;
use crate::fixtures;
use crate::receipts::record;
use crate::receipts::types::ModelFacts;
use crate::runs::engine::{self, Backend, Run};
use crate::runs::file::ModelFile;
use crate::runs::golden::{Golden, Reference};
use crate::runs::matrix::{self, matrix};
use crate::runs::parity::{Parity, against_golden};
use crate::runs::tiny::{self, Expected};
use crate::runs::{formats, hostile};
use anyhow::Context as _;
use assay_engine::exact::environment;
use assay_engine::kernels::Kernels;
use assay_engine::kernels::check::{OperationReport, Plan, check_tables};
use assay_engine::model::Model;
use assay_engine::tokenizer::Tokenizer;

/// Numbers of threads of the invariance matrix.
const THREADS: [usize; 4] = [1, 2, 3, 7];
/// Cuts of the prompt: whole, one by one, in threes.
const BATCHES: [usize; 3] = [0, 1, 3];

/// What every instruction set gave on the cases of the kernel check.
pub(super) type KernelReports = Vec<(&'static Kernels, Vec<OperationReport>)>;

pub(super) fn float_environment(context: &mut Context<'_>) -> anyhow::Result<()> {
    let result = environment::check()
        .map(|found| format!("{} = {:#x}: to nearest, subnormals kept", found.register, found.value))
        .map_err(|e| e.to_string());
    context.rows.push(Row::of("float environment", 1, result));
    Ok(())
}

pub(super) fn hostile_files(context: &mut Context<'_>) -> anyhow::Result<()> {
    context.say("hostile GGUF files");
    let held = hostile::refused_by(hostile::engine);
    let said = held.as_ref().map(|_| "each refused with its exact error".to_owned());
    let count = held.as_ref().map_or(0, |count| *count as u64);
    context.rows.push(Row::of("hostile GGUF files", count, said.map_err(ToString::to_string)));
    Ok(())
}

pub(super) fn golden_formats(context: &mut Context<'_>) -> anyhow::Result<()> {
    context.say("golden formats");
    let held = formats::read_by(&formats::ENGINE);
    let said = held.as_ref().map(|_| "sizes, values and scales of the C++ quantisers".to_owned());
    let count = held.as_ref().map_or(0, |count| *count as u64);
    context.rows.push(Row::of("golden formats", count, said.map_err(ToString::to_string)));
    Ok(())
}

/// The injected faults: the checks of this very table, on kernels, readers, graphs and reports that are wrong.
pub(super) fn self_test(context: &mut Context<'_>) -> anyhow::Result<()> {
    let outcomes = faults::run_all(&mut |fault| (context.progress)(&format!("self-test: {}", fault.what)))?;
    let killed = outcomes.iter().filter(|outcome| outcome.killed).count();
    let said = format!("{killed} of {} faults killed", outcomes.len());
    let survivor = outcomes.iter().find(|outcome| !outcome.killed);
    let result = survivor.map_or(Ok(said.clone()), |outcome| Err(format!("{said}: {}", outcome.line())));
    context.rows.push(Row::of("self-test", outcomes.len() as u64, result));
    Ok(())
}

pub(super) fn kernels(context: &mut Context<'_>) -> anyhow::Result<KernelReports> {
    let mut reports = KernelReports::new();
    let tables = context.tables.clone();
    let checked = check_tables(&tables, &Plan::default(), &mut |operation| {
        (context.progress)(&format!("kernels: {operation}"));
    });
    for (table, found) in tables.into_iter().zip(checked) {
        let what = format!("kernels {}", table.isa);
        let (count, result) = match found {
            Ok(found) => {
                let cases = found.iter().map(|report| report.cases).sum();
                let detail = format!("{} operations equal to scalar, bit for bit", found.len());
                reports.push((table, found));
                (cases, Ok(detail))
            }
            Err(mismatch) => (0, Err(mismatch.to_string())),
        };
        context.rows.push(Row::of(&what, count, result));
    }
    for isa in absent(&context.tables) {
        context.rows.push(Row::skipped(&format!("kernels {isa}"), super::NOT_ON_THIS_PROCESSOR));
    }
    Ok(reports)
}

/// A finished run of a model, with the facts of its file.
pub(super) struct ModelRun {
    pub(super) facts: ModelFacts,
    pub(super) name: String,
    pub(super) run: Run,
}

/// Generated again, byte for byte, and run on every instruction set: bytes and logits are those of the manifest.
pub(super) fn fixtures(context: &mut Context<'_>) -> anyhow::Result<Vec<ModelRun>> {
    let manifest = fixtures::manifest()?;
    let (mut runs, mut failure) = (Vec::new(), None);
    for (name, entry) in &manifest.fixtures {
        context.say(&format!("fixture {name}"));
        let bytes = fixtures::generate(fixtures::find(name)?)?;
        let file = ModelFile::generated(&format!("{name}.gguf"), bytes);
        let got = hex::encode(file.sha256());
        if got != entry.sha256 {
            failure.get_or_insert(format!("{name}: generated with SHA-256 {got}, manifest {}", entry.sha256));
        }
        let Some(expected) = &entry.run else { continue };
        let gguf = file.gguf()?;
        let model = Model::load(&gguf, None)?;
        let facts = record::model_facts(&file, &gguf, &model)?;
        for kernels in context.tables.clone() {
            let backend = Backend { kernels, threads: context.threads, batch: 0 };
            let run = run(&model, &expected.prompt_token_ids, expected.steps as usize, backend)?;
            if let Some(wrong) = wrong_digest(name, &expected.logits_sha256, &run) {
                failure.get_or_insert(wrong);
            }
            runs.push(ModelRun { facts: facts.clone(), name: file.name().to_owned(), run });
        }
    }
    let count = manifest.fixtures.len();
    let detail = format!("{count} files, {} model runs: bytes and logits of the manifest", runs.len());
    context.rows.push(Row::of(
        "seeded fixtures",
        (count + runs.len()) as u64,
        failure.map_or(Ok(detail), Err),
    ));
    Ok(runs)
}

fn run(model: &Model<'_>, prompt: &[u32], steps: usize, backend: Backend) -> anyhow::Result<Run> {
    Ok(engine::run(model, backend, prompt, steps, &mut |_, _| Ok(()))?)
}

fn wrong_digest(name: &str, expected: &str, run: &Run) -> Option<String> {
    let got = hex::encode(run.outcome.logits_sha256);
    let Backend { kernels, threads, batch } = run.backend;
    let place = format!("{name} on {}, {threads} threads, batch {batch}", kernels.isa);
    (got != expected).then(|| format!("{place}: logits digest {got}, expected {expected}"))
}

/// A golden model held to the contract's digest and to bitnet.cpp's logits.
pub(super) struct GoldenRun {
    pub(super) facts: ModelFacts,
    pub(super) name: String,
    pub(super) parity: Parity,
}

/// Every golden model on every instruction set: the digest of the contract, and the C++ program's logits.
pub(super) fn golden_models(context: &mut Context<'_>) -> anyhow::Result<Vec<GoldenRun>> {
    let golden = context.golden.clone();
    let mut runs = Vec::new();
    for (name, entry) in &golden.index.models {
        let file = golden.model(entry)?;
        let gguf = file.gguf()?;
        let model = Model::load(&gguf, None)?;
        let facts = record::model_facts(&file, &gguf, &model)?;
        for kernels in context.tables.clone() {
            context.say(&format!("golden model {name} on {}", kernels.isa));
            let backend = Backend { kernels, threads: context.threads, batch: 0 };
            let mut parity = against_golden(&golden, entry, &model, backend)?;
            parity.run.record_trace(&model)?;
            runs.push(GoldenRun { facts: facts.clone(), name: file.name().to_owned(), parity });
        }
    }
    let (models, tables) = (golden.index.models.len(), context.tables.len());
    let exact = format!("{models} models x {tables} instruction sets: the digests of exact-v1");
    let first = |wrong: &dyn Fn(&GoldenRun) -> Option<String>| runs.iter().find_map(wrong);
    let inexact = first(&|run| wrong_digest(&run.name, &run.parity.expected_sha256, &run.parity.run));
    let apart = first(&|run| run.parity.failures().first().map(|why| format!("{}: {why}", run.name)));
    let count = runs.len() as u64;
    context.rows.push(Row::of("exact logits", count, inexact.map_or(Ok(exact), Err)));
    context.rows.push(Row::of(
        "parity with C++ logits",
        count,
        apart.map_or_else(|| Ok(distance(&golden, &runs)), Err),
    ));
    Ok(runs)
}

/// The numbers of the comparison with the C++ program, over all runs.
fn distance(golden: &Golden, runs: &[GoldenRun]) -> String {
    let comparisons = || runs.iter().map(|run| &run.parity.comparison);
    let cosine = comparisons().map(|c| c.cosine_min).fold(1.0, f64::min);
    let max_abs = comparisons().map(|c| c.max_abs).fold(0.0, f64::max);
    let tokens: usize = runs.iter().map(|run| run.parity.equal_tokens()).sum();
    let Reference { name, commit, .. } = &golden.index.reference;
    format!(
        "{name} {commit}: cosine ≥ {cosine:.7}, |difference| ≤ {max_abs:.4}, all {tokens} greedy tokens equal"
    )
}

/// One digest for every instruction set × threads × cut of the prompt.
pub(super) fn invariance(context: &mut Context<'_>) -> anyhow::Result<()> {
    let golden = context.golden.clone();
    let (mut count, mut failure) = (0, None);
    for (name, entry) in &golden.index.models {
        let file = golden.model(entry)?;
        let gguf = file.gguf()?;
        let model = Model::load(&gguf, None)?;
        for kernels in context.tables.clone() {
            context.say(&format!("digest matrix: {name} on {}", kernels.isa));
            let cells = matrix(&model, entry.task(), kernels, &THREADS, &BATCHES)?;
            count += cells.len() as u64;
            let problem = matrix::problem(&cells, &entry.exact_v1_logits_sha256);
            failure = failure.or(problem.map(|problem| format!("{name} on {}: {problem}", kernels.isa)));
        }
    }
    let detail = format!(
        "threads {THREADS:?} x prompt whole, 1, 3 at a time, resumed, after a shared prefix: one digest a model"
    );
    context.rows.push(Row::of("digest matrix", count, failure.map_or(Ok(detail), Err)));
    Ok(())
}

/// The trained model on every instruction set: text, logits and perplexity of the committed file; and one digest, mapped or read, cold or
/// resumed.
pub(super) fn trained_model(context: &mut Context<'_>) -> anyhow::Result<()> {
    let (expected, embedded) = (Expected::committed()?, tiny::model());
    let mut failure = None;
    let mut note = |problem: String| _ = failure.get_or_insert(problem);
    let mut count = 0;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(embedded.name());
    crate::files::write(&path, embedded.bytes())?;
    let files = [("mapped", ModelFile::open(&path)?), ("read", ModelFile::read(&path)?)];
    for kernels in context.tables.clone() {
        context.say(&format!("trained model on {}", kernels.isa));
        let backend = Backend { kernels, threads: context.threads, batch: 0 };
        for (how, file) in &files {
            let gguf = file.gguf()?;
            let model = Model::load(&gguf, None)?;
            let task = (&expected.prompt_token_ids[..], expected.token_ids.len());
            let cells = matrix(&model, task, kernels, &[1, 3], &[0])?;
            count += cells.len() as u64;
            let problem = matrix::problem(&cells, &expected.logits_sha256);
            problem.into_iter().for_each(|problem| note(format!("{how}, {}: {problem}", kernels.isa)));
        }
        let gguf = embedded.gguf()?;
        let tokenizer = Tokenizer::read(&gguf)?.context("the trained model has a tokenizer")?;
        let measured = expected.measured(&Model::load(&gguf, None)?, &tokenizer, backend)?;
        count += 1;
        if measured != expected {
            note(format!("{}: gives {measured:?}, expected {expected:?}", kernels.isa));
        }
    }
    let shown = expected.text.trim().lines().next().unwrap_or_default();
    let detail = format!(
        "{:.4} nats a byte; after {:?}: {shown:?}; mapped, read, resumed: one digest",
        expected.nats_per_token, expected.prompt
    );
    context.rows.push(Row::of("trained model", count, failure.map_or(Ok(detail), Err)));
    Ok(())
}
