//! One file per subcommand, thin: arguments in, library calls, output, exit code.

#[cfg(unix)]
mod audit;
#[cfg(unix)]
mod bench;
#[cfg(unix)]
mod bench_model;
mod check;
mod convert;
mod fixtures;
mod inspect;
mod kernels;
mod parity;
mod parity_golden;
#[cfg(unix)]
mod parity_live;
#[cfg(unix)]
mod parity_matrix;
mod perplexity;
mod plugins;
mod receipt;
#[cfg(unix)]
mod reference;
#[cfg(feature = "report")]
mod report;
mod run;
mod tokenize;

use crate::args::{self, Command};
use crate::output;
use anyhow::{Context as _, bail, ensure};
use assay_engine::gguf::Gguf;
use assay_engine::tokenizer::Tokenizer;
use assay_harness::exit::Exit;
use assay_harness::files;
use assay_harness::receipts::text::FileName;
use assay_harness::runs::engine::Backend;
use assay_harness::runs::file::ModelFile;
use assay_harness::runs::tiny;
use std::path::Path;

pub(crate) fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Check(args) => check::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        #[cfg(unix)]
        Command::Bench(args) => bench_model::run(&args),
        #[cfg(unix)]
        Command::Audit(args) => audit::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Fixtures(args) => fixtures::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Receipt(args) => receipt::run(&args),
        #[cfg(feature = "report")]
        Command::Report(args) => report::run(&args),
        #[cfg(unix)]
        Command::Reference(args) => reference::run(&args),
        #[cfg(unix)]
        Command::ReferenceChild { words } => reference::child(&words),
        #[cfg(unix)]
        Command::PeerChild { load } => peer_child(&load),
    }
}

/// The child process in which another program runs a model.
#[cfg(unix)]
fn peer_child(load: &str) -> anyhow::Result<Exit> {
    let load = serde_json::from_str(load).context("what the parent process asks to load")?;
    assay_harness::peers::run_worker(&load)?;
    Ok(Exit::Held)
}

/// The backend that the arguments ask for.
fn backend(args: &args::Backend) -> anyhow::Result<Backend> {
    let best = Backend::best();
    let backend = Backend { threads: args.threads.unwrap_or(best.threads), batch: args.batch, ..best };
    let backend = match args.isa {
        Some(isa) => backend.with_isa(isa)?,
        None => backend,
    };
    let borrowed = if args.strict()? { backend.kernels.borrowed() } else { Vec::new() };
    ensure!(
        borrowed.is_empty(),
        "{} has no {} of its own, and scalar's may not stand in: --strict",
        backend.kernels.isa,
        borrowed.join(", ")
    );
    Ok(backend)
}

/// Opens a model file for reading in place.
fn open(path: &Path) -> anyhow::Result<ModelFile> {
    Ok(ModelFile::open(path)?)
}

/// The model that is asked for, mapped or read; or the one that is part of the program.
fn model_file(path: Option<&Path>, read: bool) -> anyhow::Result<ModelFile> {
    Ok(match path {
        None => tiny::model(),
        Some(path) if read => ModelFile::read(path)?,
        Some(path) => ModelFile::open(path)?,
    })
}

/// The tokenizer of a model that cannot do without.
fn tokenizer(gguf: &Gguf<'_>) -> anyhow::Result<Tokenizer> {
    Tokenizer::read(gguf)?.context(
        "no tokenizer in the file (key tokenizer.ggml.model); name a file that has one, or run the model with token ids: assay run --tokens",
    )
}

/// What is generated after where nothing is said: the built-in model has read plays.
const PROMPT: &str = "KING. ";

/// The prompt's text; the built-in model has one of its own.
fn prompt_text(prompt: &args::Prompt, builtin: bool) -> anyhow::Result<&str> {
    match &prompt.text {
        Some(text) => Ok(text),
        None if builtin => Ok(PROMPT),
        None => bail!("nothing to go on from; give --prompt TEXT or --tokens IDS"),
    }
}

/// The prompt's tokens; text needs a tokenizer.
#[cfg(unix)]
fn prompt_tokens(prompt: &args::Prompt, builtin: bool, gguf: &Gguf<'_>) -> anyhow::Result<Vec<u32>> {
    if let Some(tokens) = &prompt.tokens {
        return Ok(tokens.clone());
    }
    let text = prompt_text(prompt, builtin)?;
    Ok(tokenizer(gguf)?.encode(text, assay_engine::tokenizer::Special::Parse)?)
}

/// Says what the user should know before trusting ids of text.
fn warn(tokenizer: &Tokenizer) {
    if let Some(warning) = tokenizer.warning() {
        output::note(&format!("warning: {warning}"));
    }
}

/// Asks, before the work, whether receipts about `file` can be put into `out`.
fn receipts_can_be_written(out: Option<&Path>, file: &ModelFile) -> anyhow::Result<()> {
    let Some(out) = out else { return Ok(()) };
    FileName::parse(file.name()).context("a receipt cannot hold the model's file name; rename the file")?;
    Ok(files::output_folder(out)?)
}

/// Adds the file's name to an error about its content.
fn about<T, E>(path: &Path, result: Result<T, E>) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    result.with_context(|| path.display().to_string())
}
