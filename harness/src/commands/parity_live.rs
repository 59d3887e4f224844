//! `assay parity MODEL --reference NAME`: the engine beside another implementation that runs now.

use super::{about, backend, receipts_can_be_written, reference, tokenizer};
use crate::args;
use crate::output;
use anyhow::{Context as _, ensure};
use assay_engine::gguf::Gguf;
use assay_engine::model::Model;
use assay_engine::tokenizer::{Special, Tokenizer};
use assay_harness::exit::Exit;
use assay_harness::files;
use assay_harness::parity::diagnose::{Diagnosis, diagnose};
use assay_harness::parity::explain::{Explanation, explain};
use assay_harness::parity::heatmap;
use assay_harness::parity::judge::{Class, Difference};
use assay_harness::parity::live::{Live, Plan, Prompt, compare, ours};
use assay_harness::parity::matrix::{Numbers, seeded_prompts};
use assay_harness::parity::{self, Error};
use assay_harness::receipts::{canonical, record};
use assay_harness::references::{Failure, Prepared, Reference, Unprepared, prepare};
use assay_harness::runs::thresholds::Asked;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Serialize)]
struct Output {
    model: String,
    activation: &'static str,
    isa: &'static str,
    reference: String,
    feeding: assay_harness::references::Feeding,
    notes: Vec<String>,
    held: bool,
    failures: Vec<String>,
    #[serde(flatten)]
    numbers: Numbers,
    nmse_max: f64,
    max_ulp: u64,
    kl_max: f64,
    rank_max: usize,
    top10_agree: f64,
    differences: Vec<OfPrompt>,
    /// What the operations say, where they decide.
    operations: Vec<String>,
    diagnosis: Option<Diagnosis>,
    explanation: Option<Explained>,
    receipts: Vec<PathBuf>,
}

#[derive(Serialize)]
struct OfPrompt {
    prompt: usize,
    #[serde(flatten)]
    difference: Difference,
}

#[derive(Serialize)]
struct Explained {
    sentence: String,
    picture: Option<PathBuf>,
    #[serde(flatten)]
    explanation: Explanation,
}

pub(super) fn run(args: &args::Parity, path: &Path, name: &str) -> anyhow::Result<Exit> {
    let Some(reference) = reference::find(name, args.abi.as_deref(), args.unmodified)? else {
        return Ok(Exit::Inconclusive);
    };
    let asked = asked(args)?;
    let plan = plan(args, &asked)?;
    let folder = tempfile::tempdir()?;
    let activation = args.activation.map(Into::into);
    let prepared = match prepare(path, reference.kind, activation, folder.path()) {
        Ok(prepared) => prepared,
        Err(error @ Unprepared::NoForm(_)) => {
            output::error(&anyhow::anyhow!("{}: {error}", path.display()));
            return Ok(Exit::Inconclusive);
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let gguf = about(path, prepared.file.gguf())?;
    let model = about(path, Model::load(&gguf, Some(prepared.activation)))?;
    receipts_can_be_written(args.out.as_deref(), &prepared.file)?;
    let prompts = prompts(args, &gguf, &model)?;
    let progress = output::Progress::new();
    let mut say = |doing: &str| progress.say(doing);
    let found = look(args, &reference, &prepared, &model, &prompts, &plan, &mut say);
    progress.clear();
    let (live, diagnosis, explanation) = match found {
        Ok(found) => found,
        Err(error) => return ended(error),
    };
    let mut output = Output::of(path, &prepared, &plan, &live, diagnosis);
    if let Some(out) = &args.out {
        let explained_by = output.diagnosis.as_ref().map_or_else(Vec::new, Diagnosis::ids);
        let context = record::LiveContext::new(&prepared, &asked, &reference, &explained_by)?;
        for prompt in &live.prompts {
            let statement = record::of_prompt(&context, (&live, prompt))?;
            output.receipts.push(canonical::write(out, &statement)?);
        }
    }
    if let Some(explanation) = explanation {
        let picture = match &args.out {
            Some(out) => {
                let title = format!("{} beside {}", path.display(), output.reference);
                let picture = out.join("explain.svg");
                files::write(&picture, heatmap::svg(&explanation, &title).as_bytes())?;
                Some(picture)
            }
            None => None,
        };
        output.explanation = Some(Explained { sentence: explanation.sentence(), picture, explanation });
    }
    if args.json {
        output::json(&output)?
    } else {
        output::line(&output.plain())?
    }
    Ok(Exit::of(output.held))
}

/// Compares; where parity does not hold, tries known mistakes; explains if asked to.
fn look(
    args: &args::Parity,
    reference: &Reference,
    prepared: &Prepared,
    model: &Model<'_>,
    prompts: &[Vec<u32>],
    plan: &Plan<'_>,
    say: &mut dyn FnMut(&str),
) -> parity::Result<(Live, Option<Diagnosis>, Option<Explanation>)> {
    let ours = ours(model, plan.backend, plan.steps, prompts, say)?;
    let live = compare(reference, (prepared, model), &ours, plan, say)?;
    let Some(worst) = live.worst() else { return Ok((live, None, None)) };
    let tokens = worst.run.tokens();
    let diagnosis = match live.held() {
        true => None,
        false => Some(diagnose(model, plan.backend, &tokens, &worst.theirs, plan.thresholds, say)?),
    };
    let explanation = match args.explain {
        true => {
            say("operation by operation");
            match explain(model, reference, prepared, &tokens, plan) {
                Ok(explanation) => Some(explanation),
                // What was compared stands.
                Err(Error::Reference { failure: failure @ Failure::Refused(_), .. }) => {
                    output::note(&format!("not explained: {failure}"));
                    None
                }
                Err(error) => return Err(error),
            }
        }
        false => None,
    };
    Ok((live, diagnosis, explanation))
}

/// What an error means: a reference that refuses says nothing about parity; one that crashes is a finding.
fn ended(error: Error) -> anyhow::Result<Exit> {
    let exit = match &error {
        Error::Reference { failure: Failure::Refused(_), .. } => Exit::Inconclusive,
        Error::Reference { failure, .. } if failure.is_finding() => Exit::Mismatch,
        _ => return Err(error.into()),
    };
    output::error(&error.into());
    Ok(exit)
}

/// The thresholds that the arguments ask for.
pub(super) fn asked(args: &args::Parity) -> anyhow::Result<Asked> {
    Ok(args.thresholds.as_deref().map(Asked::read).transpose()?.unwrap_or_default())
}

/// How both sides run.
pub(super) fn plan<'p>(args: &args::Parity, asked: &'p Asked) -> anyhow::Result<Plan<'p>> {
    ensure!(args.steps > 0, "--steps must be at least 1");
    let backend = backend(&args.backend)?;
    Ok(Plan {
        backend,
        reference_threads: backend.threads,
        steps: args.steps,
        timeout: Duration::from_secs(args.timeout),
        thresholds: &asked.values,
    })
}

/// The prompts that the arguments ask for; seeded ones if they name none.
pub(super) fn prompts(
    args: &args::Parity,
    gguf: &Gguf<'_>,
    model: &Model<'_>,
) -> anyhow::Result<Vec<Vec<u32>>> {
    if let Some(tokens) = &args.prompt.tokens {
        return Ok(vec![tokens.clone()]);
    }
    let encode = |tokenizer: &Tokenizer, text: &str| Ok(tokenizer.encode(text, Special::Parse)?);
    if let Some(text) = &args.prompt.text {
        return Ok(vec![encode(&tokenizer(gguf)?, text)?]);
    }
    if let Some(path) = &args.prompt_file {
        let tokenizer = tokenizer(gguf)?;
        let text = files::read_text(path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let prompts: Vec<Vec<u32>> =
            lines.map(|line| encode(&tokenizer, line)).collect::<anyhow::Result<_>>()?;
        ensure!(!prompts.is_empty(), "{}: no line has a prompt", path.display());
        return Ok(prompts);
    }
    let count = args.prompts.unwrap_or(if args.matrix { 100 } else { 1 });
    ensure!(count > 0, "--prompts must be at least 1");
    Ok(seeded_prompts(model.config.vocab, begin(gguf), count, args.seed()?))
}

/// The token that sequences begin with, where the model has a tokenizer that says so.
fn begin(gguf: &Gguf<'_>) -> Option<u32> {
    Tokenizer::read(gguf).ok().flatten().and_then(|tokenizer| tokenizer.prefix())
}

impl Output {
    fn of(
        path: &Path,
        prepared: &Prepared,
        plan: &Plan<'_>,
        live: &Live,
        diagnosis: Option<Diagnosis>,
    ) -> Output {
        let identity = &live.identity;
        let build = identity.build.as_ref().map_or(String::new(), |build| format!(" ({build})"));
        let compared = || live.prompts.iter().map(|prompt| &prompt.judged.comparison);
        let largest = |value: fn(&assay_harness::runs::compare::Comparison) -> f64| {
            compared().map(value).fold(0.0, f64::max)
        };
        let failures = |(i, prompt): (usize, &Prompt)| {
            let failures = prompt.judged.failures();
            failures.into_iter().map(move |failure| format!("prompt {i}: {failure}"))
        };
        let differences = |(i, prompt): (usize, &Prompt)| {
            let differences = prompt.judged.differences.clone();
            differences.into_iter().map(move |difference| OfPrompt { prompt: i, difference })
        };
        let operations = |(i, prompt): (usize, &Prompt)| {
            let operations = prompt.judged.operations.as_ref()?;
            Some(format!(
                "prompt {i}: roundings alone take the logits anywhere; {} of {} operations compared on the reference's own input, {} wrong",
                operations.compared,
                operations.all,
                operations.wrong.len()
            ))
        };
        Output {
            model: path.display().to_string(),
            activation: prepared.activation.name(),
            isa: plan.backend.kernels.isa.name(),
            reference: format!("{} {}{build}", identity.name, identity.version),
            feeding: live.feeding,
            notes: live.notes.clone(),
            held: live.held(),
            failures: live.prompts.iter().enumerate().flat_map(failures).collect(),
            numbers: live.numbers(),
            nmse_max: largest(|c| c.nmse_max),
            max_ulp: compared().map(|c| c.max_ulp).max().unwrap_or(0),
            kl_max: largest(|c| c.kl_max),
            rank_max: compared().map(|c| c.rank_max).max().unwrap_or(1),
            top10_agree: compared().map(|c| c.top10_agree).sum::<f64>() / live.prompts.len().max(1) as f64,
            differences: live.prompts.iter().enumerate().flat_map(differences).collect(),
            operations: live.prompts.iter().enumerate().filter_map(operations).collect(),
            diagnosis,
            explanation: None,
            receipts: Vec::new(),
        }
    }

    fn plain(&self) -> String {
        let n = &self.numbers;
        let mut lines = vec![
            format!("model      {} ({}) on {}", self.model, self.activation, self.isa),
            format!("reference  {}", self.reference),
        ];
        lines.extend(self.notes.iter().map(|note| format!("           {note}")));
        lines.extend([
            format!("greedy     {} of {} tokens equal, over {} prompts", n.equal_steps, n.steps, n.prompts),
            format!(
                "tokens     {} rows have another largest logit: {} ties, {} mismatches; their choice has rank {} at most",
                n.ties + n.mismatches,
                n.ties,
                n.mismatches,
                self.rank_max
            ),
            format!(
                "cosine     {:.7} at least; of our own logits, when only roundings change, {:.7}",
                n.cosine_min, n.sensitivity
            ),
            format!("distance   {:.6} at most, NMSE {:.3e}, {} ulp", n.max_abs, self.nmse_max, self.max_ulp),
            format!("KL         {:.3e} nats at most; top-10 {:.4} the same", self.kl_max, self.top10_agree),
        ]);
        lines.extend(self.operations.iter().take(4).map(|said| format!("unstable   {said}")));
        if let Some(more) = self.operations.len().checked_sub(4).filter(|more| *more > 0) {
            lines.push(format!("           and {more} more prompts"));
        }
        for OfPrompt { prompt, difference } in self.differences.iter().take(8) {
            let Difference { row, ours, theirs, gap, their_gap, perturbation, class, .. } = difference;
            lines.push(format!(
                "{:<10} prompt {prompt}, after {} tokens: {ours} ours, {theirs} theirs; gap {gap:.5} ours, {their_gap:.5} theirs, roundings {perturbation:.5}",
                match class {
                    Class::Tie => "tie",
                    Class::Mismatch => "MISMATCH",
                },
                row + 1
            ));
        }
        lines.extend(self.receipts.iter().take(3).map(|path| format!("receipt    {}", path.display())));
        if let Some(more) = self.receipts.len().checked_sub(3).filter(|more| *more > 0) {
            lines.push(format!("           and {more} more"));
        }
        if let Some(explained) = &self.explanation {
            lines.push(format!("explained  {}", explained.sentence));
            lines.extend(explained.picture.as_ref().map(|path| format!("picture    {}", path.display())));
        }
        lines.push(format!("verdict    {}", if self.held { "held" } else { "MISMATCH" }));
        lines.extend(self.failures.iter().take(5).map(|failure| format!("           {failure}")));
        if let Some(diagnosis) = &self.diagnosis {
            lines.push(format!("diagnosis  {}", diagnosis.sentence()));
            lines.extend(diagnosis.not_tried.as_ref().map(|why| format!("           not tried: {why}")));
        }
        lines.join("\n")
    }
}
