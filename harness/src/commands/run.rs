//! `assay run`: generate, and say what it took.

use super::{about, backend, model_file, prompt_text, receipts_can_be_written, warn};
use crate::args;
use crate::output;
use anyhow::{Context as _, bail};
use assay_engine::decode::{Hooks, Phase, Request};
use assay_engine::gguf::Gguf;
use assay_engine::model::{Model, Rows, Session, saved};
use assay_engine::sample::Sampling;
use assay_engine::tokenizer::{Special, Tokenizer};
use assay_harness::chat::{ChatTemplate, Message};
use assay_harness::exit::Exit;
use assay_harness::files::{self, NewFile};
use assay_harness::receipts::{canonical, machine, record};
use assay_harness::runs::engine::{self, Backend, Run};
use assay_harness::runs::file::ModelFile;
use assay_harness::runs::text::Text;
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Serialize)]
struct Output {
    model: String,
    architecture: &'static str,
    activation: &'static str,
    isa: &'static str,
    threads: usize,
    batch: usize,
    load_seconds: f64,
    prompt_token_ids: Vec<u32>,
    /// Tokens of the prompt that a loaded state held already.
    resumed_tokens: usize,
    token_ids: Vec<u32>,
    text: Option<String>,
    ended_by: Ending,
    logits: Logits,
    prefill_tokens_per_second: Option<f64>,
    decode_tokens_per_second: Option<f64>,
    weight_bytes_per_token: usize,
    decode_gb_per_second: Option<f64>,
    /// Tokens a second if the weights were only read, by as many threads, just after the run.
    decode_limit_tokens_per_second: Option<f64>,
    share_of_limit: Option<f64>,
    memory: Memory,
    state: Option<PathBuf>,
    receipt: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Ending {
    /// As many tokens as were asked for.
    Steps,
    /// A token that ends what the model says.
    EndToken,
    /// A stop string.
    StopString,
}

#[derive(Serialize)]
struct Logits {
    rows: usize,
    vocab: usize,
    sha256: String,
    file: Option<PathBuf>,
}

/// Bytes.
#[derive(Serialize)]
struct Memory {
    file: usize,
    kv_cache: usize,
    /// Nothing is repacked: weights are used as they lie in the file.
    repacked: usize,
    peak: Option<u64>,
}

pub(super) fn run(args: &args::Run) -> anyhow::Result<Exit> {
    let backend = backend(&args.backend)?;
    let start = Instant::now();
    let file = model_file(args.model.as_deref(), args.read)?;
    let name = args.model.as_deref().unwrap_or(Path::new(file.name()));
    let mut gguf = about(name, file.gguf())?;
    gguf.read_i2s_as(args.layout);
    let model = about(name, Model::load(&gguf, args.activation.map(Into::into)))?;
    let load_seconds = start.elapsed().as_secs_f64();
    let tokenizer = Tokenizer::read(&gguf);
    let request = Request {
        prompt: prompt(args, &gguf, &tokenizer)?,
        steps: args.steps,
        batch: backend.batch,
        prompt_logits: if args.skip_prompt_logits { Rows::Last } else { Rows::All },
        sampling: sampling(&args.sampling)?,
    };
    request.sampling.check()?;
    receipts_can_be_written(args.out.as_deref(), &file)?;
    let mut sink = args.logits.as_deref().map(|path| NewFile::create(path, &[name])).transpose()?;
    let state_file = args.save_state.as_deref().map(|path| NewFile::create(path, &[name])).transpose()?;
    let kept = args.save_state.is_some() || args.load_state.is_some();
    let identity = if kept { model.identity(file.sha256()) } else { [0; 32] };
    let mut session = session(args, identity, &model, backend, &request)?;
    let resumed_tokens = session.state().position();
    let (mut run, text, ended_by) =
        generate(args, &mut session, backend, request, &tokenizer, &mut |row| match &mut sink {
            Some(sink) => {
                sink.put(|out| out.write_all(&row.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
            }
            None => Ok(()),
        })?;
    if let Some(sink) = sink {
        sink.finish()?;
    }
    if let Some(mut state) = state_file {
        state.put(|out| saved::write(session.state(), &model, identity, out))?;
        state.finish()?;
    }
    if args.trace {
        run.record_trace(&model)?;
    }
    let receipt = args.out.as_deref().map(|out| receipt(out, &file, &gguf, &model, &run)).transpose()?;
    let memory = Memory {
        file: file.bytes().len(),
        kv_cache: session.state().bytes(),
        repacked: 0,
        peak: machine::peak_memory_bytes().map(|bytes| bytes.get()),
    };
    let (bytes, decode) = (model.bytes_per_token(), run.outcome.tokens_per_second(Phase::Decode));
    let limit = decode.and_then(|_| reading(&run.backend, &file)).map(|rate| rate / bytes as f64);
    let output = Output {
        model: name.display().to_string(),
        architecture: model.config.arch.name,
        activation: model.activation.name(),
        isa: run.backend.kernels.isa.name(),
        threads: run.backend.threads,
        batch: run.backend.batch,
        load_seconds,
        prefill_tokens_per_second: run.outcome.tokens_per_second(Phase::Prefill),
        decode_tokens_per_second: decode,
        weight_bytes_per_token: bytes,
        decode_gb_per_second: decode.map(|rate| rate * bytes as f64 / 1e9),
        decode_limit_tokens_per_second: limit,
        share_of_limit: decode.zip(limit).map(|(rate, limit)| rate / limit),
        prompt_token_ids: run.request.prompt,
        resumed_tokens,
        logits: Logits {
            rows: run.outcome.rows,
            vocab: run.outcome.vocab,
            sha256: hex::encode(run.outcome.logits_sha256),
            file: args.logits.clone(),
        },
        token_ids: run.outcome.generated,
        text,
        ended_by,
        memory,
        state: args.save_state.clone(),
        receipt,
    };
    if args.json {
        output::json(&output)?
    } else {
        output::line(&plain(&output))?
    }
    Ok(Exit::Held)
}

/// Bytes a second that the run's threads read of the file, if they do nothing else.
#[cfg(unix)]
fn reading(backend: &Backend, file: &ModelFile) -> Option<f64> {
    assay_harness::bench::limit::reading(backend.kernels, file.bytes(), backend.threads)
}

#[cfg(not(unix))]
fn reading(_: &Backend, _: &ModelFile) -> Option<f64> {
    None
}

fn sampling(args: &args::Sampling) -> anyhow::Result<Sampling> {
    Ok(Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repeat_penalty,
        repeat_last_n: args.repeat_last_n,
        seed: args.seed()?,
    })
}

/// Token ids from the arguments; text needs a tokenizer.
fn prompt(
    args: &args::Run,
    gguf: &Gguf<'_>,
    tokenizer: &assay_engine::Result<Option<Tokenizer>>,
) -> anyhow::Result<Vec<u32>> {
    if let Some(tokens) = &args.prompt.tokens {
        return Ok(tokens.clone());
    }
    let text = prompt_text(&args.prompt, args.model.is_none())?;
    let tokenizer = match tokenizer {
        Ok(Some(tokenizer)) => tokenizer,
        Ok(None) => {
            bail!("the model has no tokenizer; give token ids with --tokens instead of --prompt")
        }
        Err(error) => return Err(error.clone().into()),
    };
    warn(tokenizer);
    if !args.chat {
        return Ok(tokenizer.encode(text, Special::Parse)?);
    }
    let template = ChatTemplate::read(gguf, tokenizer)?
        .context("the model has no chat template (tokenizer.chat_template); leave --chat out")?;
    let system = args.system.iter().map(|text| Message::new("system", text));
    let messages: Vec<Message> = system.chain([Message::new("user", text)]).collect();
    Ok(template.encode(tokenizer, &messages)?)
}

/// A new session, or one that goes on from a saved state.
fn session<'m, 'a>(
    args: &args::Run,
    identity: [u8; 32],
    model: &'m Model<'a>,
    backend: Backend,
    request: &Request,
) -> anyhow::Result<Session<'m, 'a>> {
    let Some(path) = &args.load_state else {
        return Ok(Session::new(model, backend.kernels, request.capacity())?);
    };
    let bytes = files::read(path, usize::MAX - 1)?;
    let state = saved::read(&bytes, model, identity, request.capacity());
    Ok(Session::resume(model, backend.kernels, about(path, state)?))
}

/// Runs, watches for ends, and shows text as it comes where a person looks on.
fn generate(
    args: &args::Run,
    session: &mut Session<'_, '_>,
    backend: Backend,
    request: Request,
    tokenizer: &assay_engine::Result<Option<Tokenizer>>,
    on_logits: &mut (dyn FnMut(&[f32]) -> assay_engine::Result<()> + Send),
) -> anyhow::Result<(Run, Option<String>, Ending)> {
    let tokenizer = tokenizer.as_ref().ok().and_then(Option::as_ref);
    if tokenizer.is_none() && !args.stop.is_empty() {
        bail!("--stop needs text, and the model has no tokenizer; leave it out");
    }
    let live = !args.json && std::io::stdout().is_terminal();
    let mut text = tokenizer.map(|tokenizer| Text::new(tokenizer, &args.stop));
    let (mut ended, mut failed) = (Ending::Steps, None);
    let mut on_token = |id| {
        let ends = tokenizer.is_some_and(|tokenizer| tokenizer.eos().contains(&id));
        if ends && !args.ignore_eos {
            ended = Ending::EndToken;
            return ControlFlow::Break(());
        }
        let Some(text) = &mut text else { return ControlFlow::Continue(()) };
        match text.push(id) {
            Ok(stop) => {
                if live {
                    output::piece(text.fresh());
                }
                if stop {
                    ended = Ending::StopString;
                    return ControlFlow::Break(());
                }
            }
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    };
    let mut hooks = Hooks { on_logits: &mut |_, row| on_logits(row), on_token: &mut on_token };
    let run = engine::go_on(session, backend, request, &mut hooks)?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if live && text.is_some() {
        output::piece("\n\n");
    }
    Ok((run, text.map(|text| text.finish(ended == Ending::StopString)), ended))
}

fn receipt(
    out: &Path,
    file: &ModelFile,
    gguf: &Gguf<'_>,
    model: &Model<'_>,
    run: &Run,
) -> anyhow::Result<PathBuf> {
    let facts = record::model_facts(file, gguf, model)?;
    Ok(canonical::write(out, &record::model_run(file.name(), facts, run)?)?)
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
    let ended = match output.ended_by {
        Ending::Steps => "",
        Ending::EndToken => ", ended by the model",
        Ending::StopString => ", ended by a stop string",
    };
    lines.extend(output.text.as_ref().map(|text| format!("text     {text:?}{ended}")));
    let Logits { rows, vocab, sha256, file } = &output.logits;
    lines.push(format!("logits   [{rows}][{vocab}] f32, SHA-256 {sha256}"));
    lines.extend(file.as_ref().map(|file| format!("         written to {}", file.display())));
    let prompt = output.prompt_token_ids.len() - output.resumed_tokens;
    let resumed = match output.resumed_tokens {
        0 => String::new(),
        n => format!(" after {n} of a saved state"),
    };
    lines.push(format!("prefill  {prompt} tokens{resumed}, {}", rate(output.prefill_tokens_per_second)));
    let speed = output.decode_gb_per_second.map_or(String::new(), |gb| {
        let per_token = output::bytes(output.weight_bytes_per_token);
        format!(", {gb:.2} GB/s of weights ({per_token} a token)")
    });
    let decoded = output.token_ids.len();
    lines.push(format!("decode   {decoded} tokens, {}{speed}", rate(output.decode_tokens_per_second)));
    lines.extend(output.decode_limit_tokens_per_second.zip(output.share_of_limit).map(|(limit, share)| {
        format!("limit    {limit:.1} tokens/s if the weights were only read; {share:.2} of it reached")
    }));
    let Memory { file, kv_cache, repacked, peak } = output.memory;
    let peak = peak.map_or(String::new(), |peak| format!("; {} at most", output::bytes(peak as usize)));
    lines.push(format!(
        "memory   {} file, {} keys and values, {repacked} repacked{peak}; loaded in {:.3} s",
        output::bytes(file),
        output::bytes(kv_cache),
        output.load_seconds
    ));
    lines.extend(output.state.as_ref().map(|path| format!("state    {}", path.display())));
    lines.extend(output.receipt.as_ref().map(|path| format!("receipt  {}", path.display())));
    lines.join("\n")
}
