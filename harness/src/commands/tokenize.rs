//! `assay tokenize`: text to token ids, and back.

use super::{about, open, tokenizer, warn};
use crate::args;
use crate::output;
use anyhow::Context as _;
use assay_engine::tokenizer::Tokenizer;
use assay_harness::exit::Exit;
use assay_harness::files;
use serde::Serialize;

#[derive(Serialize)]
struct Output {
    model: String,
    text: String,
    token_ids: Vec<u32>,
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    /// What it stands for, where that is text on its own.
    text: Option<String>,
    /// The same as bytes, in hexadecimal.
    bytes: String,
    control: bool,
}

pub(super) fn run(args: &args::Tokenize) -> anyhow::Result<Exit> {
    let file = open(&args.model)?;
    let gguf = about(&args.model, file.gguf())?;
    let tokenizer = tokenizer(&gguf).with_context(|| args.model.display().to_string())?;
    let (text, token_ids) = match &args.decode {
        Some(ids) => (tokenizer.decode(ids)?, ids.clone()),
        None => {
            let text = args.prompt.clone().map_or_else(|| files::read_text(&args.text), Ok)?;
            let ids = tokenizer.encode(&text, args.special.into())?;
            warn(&tokenizer);
            (text, ids)
        }
    };
    let tokens = token_ids.iter().map(|id| token(&tokenizer, *id)).collect::<anyhow::Result<_>>()?;
    let output = Output { model: args.model.display().to_string(), text, token_ids, tokens };
    if args.json {
        output::json(&output)?
    } else if args.decode.is_some() {
        // Quoted, so that every character is seen and none steers the terminal.
        output::line(&format!("{:?}", output.text))?
    } else if args.ids {
        output::line(&output.token_ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","))?
    } else {
        output::line(&plain(&output))?
    }
    Ok(Exit::Held)
}

fn token(tokenizer: &Tokenizer, id: u32) -> anyhow::Result<Token> {
    let bytes = tokenizer.token_bytes(id)?;
    Ok(Token {
        id,
        text: std::str::from_utf8(&bytes).ok().map(str::to_owned),
        bytes: hex::encode(&bytes),
        control: tokenizer.is_control(id),
    })
}

fn plain(output: &Output) -> String {
    let row = |token: &Token| {
        let text = token.text.as_ref().map(|text| format!("{text:?}"));
        vec![token.id.to_string(), text.unwrap_or_else(|| format!("bytes {}", token.bytes))]
    };
    let rows: Vec<Vec<String>> = output.tokens.iter().map(row).collect();
    output::table(&["id", "token"], &rows, &[0])
}
