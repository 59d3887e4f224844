//! `assay perplexity`: how well a model predicts a text.

use super::{about, backend, open, tokenizer, warn};
use crate::args;
use crate::output;
use anyhow::Context as _;
use assay_engine::model::Model;
use assay_engine::tokenizer::Special;
use assay_harness::exit::Exit;
use assay_harness::files;
use assay_harness::runs::perplexity::{Perplexity, Windows, perplexity};
use serde::Serialize;
use std::time::Instant;

/// Context where none is given: as other programs measure.
const CONTEXT: usize = 512;

#[derive(Serialize)]
struct Output {
    model: String,
    text: String,
    bytes: usize,
    context: usize,
    stride: usize,
    isa: &'static str,
    threads: usize,
    #[serde(flatten)]
    found: Perplexity,
    nats_per_byte: f64,
    tokens_per_second: f64,
}

pub(super) fn run(args: &args::Perplexity) -> anyhow::Result<Exit> {
    let backend = backend(&args.backend)?;
    let file = open(&args.model)?;
    let mut gguf = about(&args.model, file.gguf())?;
    gguf.read_i2s_as(args.layout);
    let model = about(&args.model, Model::load(&gguf, args.activation.map(Into::into)))?;
    let tokenizer = tokenizer(&gguf).with_context(|| args.model.display().to_string())?;
    warn(&tokenizer);
    let text = files::read_text(&args.text)?;
    let ids = tokenizer.encode_bare(&text, Special::Plain)?;
    let begin = tokenizer.prefix();
    let context = args.context.unwrap_or(model.config.context.min(CONTEXT));
    let stride = args.stride.unwrap_or((context - usize::from(begin.is_some() && context > 0)).max(1));
    let start = Instant::now();
    let progress = output::Progress::new();
    let found =
        perplexity(&model, backend, &ids, begin, Windows { context, stride }, &mut |tokens, so_far| {
            progress.say(&format!("{tokens} of {} tokens, perplexity {so_far:.4}", ids.len()));
        })?;
    progress.clear();
    let output = Output {
        model: args.model.display().to_string(),
        text: args.text.display().to_string(),
        bytes: text.len(),
        context,
        stride,
        isa: backend.kernels.isa.name(),
        threads: backend.threads,
        nats_per_byte: found.nats_per_token * found.tokens as f64 / text.len().max(1) as f64,
        tokens_per_second: found.tokens as f64 / start.elapsed().as_secs_f64(),
        found,
    };
    if args.json {
        output::json(&output)?
    } else {
        output::line(&plain(&output))?
    }
    Ok(Exit::Held)
}

fn plain(output: &Output) -> String {
    let Output { found, context, stride, .. } = output;
    [
        format!("model       {}", output.model),
        format!("text        {}: {} bytes, {} tokens scored", output.text, output.bytes, found.tokens),
        format!("windows     {} of {context} tokens, stride {stride}", found.windows),
        format!("perplexity  {:.5} ± {:.5} a token", found.perplexity, found.perplexity_error),
        format!(
            "nats        {:.5} ± {:.5} a token, {:.5} a byte",
            found.nats_per_token, found.standard_error, output.nats_per_byte
        ),
        format!("SHA-256     {} (nats of every token)", found.sha256),
        format!(
            "speed       {:.1} tokens/s ({}, {} threads)",
            output.tokens_per_second, output.isa, output.threads
        ),
    ]
    .join("\n")
}
