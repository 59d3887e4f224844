//! `assay run`: generate, and say what it took.

use super::{about, backend, open, receipts_can_be_written};
use crate::args;
use crate::exit::Exit;
use crate::output;
use assay_engine::decode::Phase;
use assay_engine::model::Model;
use assay_engine::tokenizer::{Special, Tokenizer};
use assay_harness::files;
use assay_harness::receipts::{canonical, record};
use assay_harness::runs::engine::{self, Run};
use assay_harness::runs::file::ModelFile;
use serde::Serialize;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Output {
    model: String,
    architecture: &'static str,
    activation: &'static str,
    isa: &'static str,
    threads: usize,
    batch: usize,
    prompt_token_ids: Vec<u32>,
    token_ids: Vec<u32>,
    text: Option<String>,
    logits: Logits,
    prefill_tokens_per_second: Option<f64>,
    decode_tokens_per_second: Option<f64>,
    weight_bytes_per_token: usize,
    decode_gb_per_second: Option<f64>,
    receipt: Option<PathBuf>,
}

#[derive(Serialize)]
struct Logits {
    rows: usize,
    vocab: usize,
    sha256: String,
    file: Option<PathBuf>,
}

pub(super) fn run(args: &args::Run) -> anyhow::Result<Exit> {
    let backend = backend(&args.backend)?;
    let file = open(&args.model)?;
    let mut gguf = about(&args.model, file.gguf())?;
    gguf.read_i2s_as(args.layout);
    let model = about(&args.model, Model::load(&gguf, args.activation.map(Into::into)))?;
    let tokenizer = Tokenizer::read(&gguf);
    let prompt = prompt(&args.prompt, &tokenizer)?;
    receipts_can_be_written(args.out.as_deref(), &file)?;
    let mut sink = args.logits.as_deref().map(|path| LogitsFile::create(path, &args.model)).transpose()?;
    let run = engine::run(&model, backend, &prompt, args.steps, &mut |_, row| match &mut sink {
        Some(sink) => sink.write(row),
        None => Ok(()),
    })?;
    if let Some(sink) = sink {
        sink.finish()?;
    }
    let text = match &tokenizer {
        Ok(Some(tokenizer)) => Some(tokenizer.decode(&run.outcome.generated)?),
        Ok(None) | Err(_) => None,
    };
    let receipt = args.out.as_deref().map(|out| receipt(out, &file, &gguf, &model, &run)).transpose()?;
    let output = describe(args, &model, run, text, receipt);
    if args.json {
        output::json(&output)?
    } else {
        output::line(&plain(&output))?
    }
    Ok(Exit::Held)
}

/// Token ids from the arguments; text needs a tokenizer.
fn prompt(
    prompt: &args::Prompt,
    tokenizer: &assay_engine::Result<Option<Tokenizer>>,
) -> anyhow::Result<Vec<u32>> {
    let Some(text) = &prompt.text else { return Ok(prompt.tokens.clone().unwrap_or_default()) };
    match tokenizer {
        Ok(Some(tokenizer)) => {
            if let Some(warning) = tokenizer.warning() {
                output::note(&format!("warning: {warning}"));
            }
            Ok(tokenizer.encode(text, Special::Parse)?)
        }
        Ok(None) => {
            anyhow::bail!("the model has no tokenizer; give token ids with --tokens instead of --prompt")
        }
        Err(error) => Err(error.clone().into()),
    }
}

fn receipt(
    out: &Path,
    file: &ModelFile,
    gguf: &assay_engine::gguf::Gguf<'_>,
    model: &Model<'_>,
    run: &Run,
) -> anyhow::Result<PathBuf> {
    let facts = record::model_facts(file, gguf, model)?;
    Ok(canonical::write(out, &record::model_run(file.name(), facts, run)?)?)
}

fn describe(
    args: &args::Run,
    model: &Model<'_>,
    run: Run,
    text: Option<String>,
    receipt: Option<PathBuf>,
) -> Output {
    let (bytes, decode) = (model.bytes_per_token(), run.outcome.tokens_per_second(Phase::Decode));
    Output {
        model: args.model.display().to_string(),
        architecture: model.config.arch.name,
        activation: model.activation.name(),
        isa: run.backend.kernels.isa.name(),
        threads: run.backend.threads,
        batch: run.backend.batch,
        prefill_tokens_per_second: run.outcome.tokens_per_second(Phase::Prefill),
        decode_tokens_per_second: decode,
        weight_bytes_per_token: bytes,
        decode_gb_per_second: decode.map(|rate| rate * bytes as f64 / 1e9),
        prompt_token_ids: run.request.prompt,
        logits: Logits {
            rows: run.outcome.rows,
            vocab: run.outcome.vocab,
            sha256: hex::encode(run.outcome.logits_sha256),
            file: args.logits.clone(),
        },
        token_ids: run.outcome.generated,
        text,
        receipt,
    }
}

fn plain(output: &Output) -> String {
    let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1} tokens/s"));
    let cut =
        if output.batch == 0 { "whole".to_owned() } else { format!("{} tokens at a time", output.batch) };
    let ids = output.token_ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut lines = vec![
        format!("model    {} ({}, {})", output.model, output.architecture, output.activation),
        format!("kernels  {}, {} threads, prompt fed {cut}", output.isa, output.threads),
        format!("tokens   {ids}"),
    ];
    lines.extend(output.text.as_ref().map(|text| format!("text     {text:?}")));
    let Logits { rows, vocab, sha256, file } = &output.logits;
    lines.push(format!("logits   [{rows}][{vocab}] f32, SHA-256 {sha256}"));
    lines.extend(file.as_ref().map(|file| format!("         written to {}", file.display())));
    let prompt = output.prompt_token_ids.len();
    lines.push(format!("prefill  {prompt} tokens, {}", rate(output.prefill_tokens_per_second)));
    let speed = output.decode_gb_per_second.map_or(String::new(), |gb| {
        let per_token = output::bytes(output.weight_bytes_per_token);
        format!(", {gb:.2} GB/s of weights ({per_token} a token)")
    });
    let decoded = output.token_ids.len();
    lines.push(format!("decode   {decoded} tokens, {}{speed}", rate(output.decode_tokens_per_second)));
    lines.extend(output.receipt.as_ref().map(|path| format!("receipt  {}", path.display())));
    lines.join("\n")
}

/// Logits on their way to a file that appears whole or not at all.
struct LogitsFile {
    path: PathBuf,
    file: BufWriter<tempfile::NamedTempFile>,
}

impl LogitsFile {
    /// Asks for the place before the run; `model` must not be overwritten.
    fn create(path: &Path, model: &Path) -> anyhow::Result<LogitsFile> {
        let path = files::output_file(path, &[model])?;
        Ok(LogitsFile { file: BufWriter::new(files::temporary_beside(&path)?), path })
    }

    fn write(&mut self, row: &[f32]) -> assay_engine::Result<()> {
        let bytes: Vec<u8> = row.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        self.file.write_all(&bytes).map_err(|e| assay_engine::Error::file(&self.path, &e))
    }

    fn finish(self) -> anyhow::Result<()> {
        let file = self.file.into_inner().map_err(|e| assay_engine::Error::file(&self.path, e.error()))?;
        file.persist(&self.path).map_err(|e| assay_engine::Error::file(&self.path, &e.error))?;
        Ok(())
    }
}
