//! `assay audit`: timed runs held to a checked one.

use super::{about, backend, model_file, prompt_tokens, receipts_can_be_written};
use crate::args;
use crate::output;
use anyhow::ensure;
use assay_engine::decode::Phase;
use assay_engine::model::Model;
use assay_harness::bench::audit::{Plan, audit};
use assay_harness::exit::Exit;
use assay_harness::receipts::types::Audit;
use assay_harness::receipts::{canonical, record, verify};
use assay_variables::DETERMINISTIC;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Output {
    model: String,
    isa: &'static str,
    threads: usize,
    held: bool,
    /// What was wrong, if anything was.
    problem: Option<String>,
    decode_tokens_per_second: Vec<Option<f64>>,
    audit: Audit,
    receipt: Option<PathBuf>,
}

pub(super) fn run(args: &args::Audit) -> anyhow::Result<Exit> {
    ensure!(
        !DETERMINISTIC.read()?,
        "an audit is made of times, and ASSAY_DETERMINISTIC leaves them out; unset it"
    );
    let backend = backend(&args.backend)?;
    let file = model_file(args.model.as_deref(), false)?;
    let name = args.model.as_deref().unwrap_or(Path::new(file.name()));
    let gguf = about(name, file.gguf())?;
    let model = about(name, Model::load(&gguf, None))?;
    receipts_can_be_written(args.out.as_deref(), &file)?;
    let plan = Plan {
        prompt: prompt_tokens(&args.prompt, args.model.is_none(), &gguf)?,
        steps: args.steps,
        repeats: args.repeats as usize,
    };
    let progress = output::Progress::new();
    let audited = audit(&model, file.bytes(), backend, &plan, &mut |doing| progress.say(doing));
    progress.clear();
    let audited = audited?;
    let facts = record::model_facts(&file, &gguf, &model)?;
    let statement = record::audited_run(file.name(), facts, model.bytes_per_token(), &audited)?;
    let Some(found) = statement.predicate.audit.clone() else { anyhow::bail!("the receipt holds no audit") };
    let problem = verify::audited(&statement, &found).err();
    let receipt = args.out.as_deref().map(|out| canonical::write(out, &statement)).transpose()?;
    let rate = |run: &assay_harness::runs::engine::Run| run.outcome.tokens_per_second(Phase::Decode);
    let output = Output {
        model: name.display().to_string(),
        isa: backend.kernels.isa.name(),
        threads: backend.threads,
        held: problem.is_none(),
        problem,
        decode_tokens_per_second: audited.timed.iter().map(rate).collect(),
        audit: found,
        receipt,
    };
    if args.json {
        output::json(&output)?;
    } else {
        output::line(&plain(&output))?;
    }
    Ok(Exit::of(output.held))
}

fn plain(output: &Output) -> String {
    let rates: Vec<String> =
        output.decode_tokens_per_second.iter().flatten().map(|rate| format!("{rate:.1}")).collect();
    let bandwidth = match &output.audit.read_bandwidth_bytes_per_s {
        Some(rate) => format!("{:.2} GB/s", rate.get() as f64 / 1e9),
        None => "not measured: no loop for it here, or too small a file".to_owned(),
    };
    let verdict = match &output.problem {
        None => {
            "HELD: timed runs gave what the checked run gave, by the work that the model requires".to_owned()
        }
        Some(problem) => format!("FAILED: {problem}"),
    };
    let mut lines = vec![
        verdict,
        format!("  {} on {}, {} threads", output.model, output.isa, output.threads),
        format!(
            "  {} timed runs, tokens/s after the prompt: {}",
            output.audit.repeats.len(),
            rates.join(", ")
        ),
        format!(
            "  {} bytes of weights a token; memory read: {bandwidth}",
            output.audit.weight_bytes_per_token
        ),
    ];
    lines.extend(output.receipt.as_ref().map(|path| format!("  receipt  {}", path.display())));
    lines.join("\n")
}
