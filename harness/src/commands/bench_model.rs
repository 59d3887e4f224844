//! `assay bench`: a whole model timed, beside what the machine allows and beside llama.cpp.

use super::{about, model_file};
use crate::args;
use crate::output;
use anyhow::{bail, ensure};
use assay_engine::exact::environment;
use assay_engine::kernels;
use assay_engine::model::Model;
use assay_harness::bench::Spread;
use assay_harness::bench::model::{ModelLine, Plan, contest};
use assay_harness::exit::Exit;
use assay_harness::peers::{Facts, Load, Options, Peer};
use assay_harness::plugins::Source;
use assay_harness::plugins::peers::{self, Found};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a peer may take for one thing: a long prompt on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Serialize)]
struct Output {
    model: String,
    architecture: &'static str,
    head: &'static str,
    isa: &'static str,
    rounds: usize,
    load_seconds: f64,
    weight_bytes_per_token: usize,
    peer: Option<Facts>,
    lines: Vec<ModelLine>,
}

pub(super) fn run(args: &args::BenchModel) -> anyhow::Result<Exit> {
    let plan = Plan {
        threads: args.threads.clone(),
        prefill: args.prefill,
        depths: args.depth.clone(),
        steps: args.steps,
        rounds: args.rounds,
    };
    let positive = [args.prefill, args.steps, args.rounds].iter().chain(&args.depth).all(|n| *n > 0);
    ensure!(positive && !args.threads.is_empty(), "every number must be at least 1");
    environment::check()?;
    let kernels = args.isa.map_or_else(|| Ok(kernels::best()), kernels::get)?;
    let start = Instant::now();
    let file = model_file(args.model.as_deref(), false)?;
    let name = args.model.as_deref().unwrap_or(Path::new(file.name()));
    let gguf = about(name, file.gguf())?;
    let model = about(name, Model::load(&gguf, None))?;
    let load_seconds = start.elapsed().as_secs_f64();
    let progress = output::Progress::new();
    let mut workers = Vec::new();
    if let Some(peer) = &args.peer {
        let path = args.peer_model.as_deref().or(args.model.as_deref());
        let Some(path) = path else { bail!("--peer needs a model file; name one, or give --peer-model") };
        let context = args.prefill.max(args.depth.iter().max().copied().unwrap_or(0) + args.steps);
        for threads in &args.threads {
            let (folder, backend) = match peers::find(peer, &peers::folder())? {
                Found::Here(Source::Llama(folder, backend)) => (folder, backend),
                Found::Here(_) => bail!("'{peer}' runs no whole models here; llama.cpp does"),
                Found::Absent(why) => {
                    output::note(&format!("skipped: {why}"));
                    return Ok(Exit::Inconclusive);
                }
            };
            let load = Load {
                folder,
                backend,
                model: path.to_owned(),
                threads: u32::try_from(*threads)?,
                context: u32::try_from(context)?,
            };
            let options = Options {
                program: std::env::current_exe()?,
                arguments: vec!["peer-child".to_owned()],
                load,
                timeout: PATIENCE,
            };
            progress.say(&format!("starting {peer} with {threads} threads"));
            workers.push(Peer::start(&options)?);
        }
    }
    let lines = contest(&model, file.bytes(), kernels, &plan, &mut workers, &mut |doing| progress.say(doing));
    progress.clear();
    let lines = lines?;
    let output = Output {
        model: name.display().to_string(),
        architecture: model.config.arch.name,
        head: model.weights.head.w.format.name(),
        isa: kernels.isa.name(),
        rounds: args.rounds,
        load_seconds,
        weight_bytes_per_token: model.bytes_per_token(),
        peer: workers.first().map(|peer| peer.facts().clone()),
        lines,
    };
    if args.json {
        output::json(&output)?
    } else {
        output::line(&plain(&output))?
    }
    Ok(Exit::Held)
}

fn plain(output: &Output) -> String {
    let spread =
        |s: Spread, digits: usize| format!("{:.digits$} ({:.digits$}-{:.digits$})", s.median, s.min, s.max);
    let share = |s: Option<Spread>| s.map_or(String::new(), |s| spread(s, 2));
    let rows: Vec<Vec<String>> = output
        .lines
        .iter()
        .map(|line| {
            vec![
                line.who.clone(),
                line.what.clone(),
                line.threads.to_string(),
                spread(line.tokens_per_second, 1),
                share(line.of_limit),
                share(line.of_first),
                share(line.of_peer),
            ]
        })
        .collect();
    let head = ["who", "what", "threads", "tokens/s", "of the limit", "x first", "x peer"];
    let per_token = output::bytes(output.weight_bytes_per_token);
    format!(
        "{} ({}, head {}), {}, loaded in {:.3} s; {per_token} of weights a token\nmedian (least-most) of {} rounds; limits: reading for tokens, bare multiply-adds for prompts\n\n{}",
        output.model,
        output.architecture,
        output.head,
        output.isa,
        output.load_seconds,
        output.rounds,
        output::table(&head, &rows, &[2])
    )
}
