//! The small trained model that is part of the program, and the play that it was not trained on.
//!
//! `scripts/train_tiny.py` made it; `fixtures/tiny/tiny.training.json` says how.

use super::file::ModelFile;
use super::perplexity::{Perplexity, Windows, perplexity};
use super::{Result, engine};
use assay_engine::model::Model;
use assay_engine::tokenizer::{Special, Tokenizer};
use serde::{Deserialize, Serialize};

/// BitNet b1.58 with bytes as tokens, trained on plays.
const MODEL: &[u8] = include_bytes!("../../../fixtures/tiny/tiny.gguf");

/// The play that was held out.
pub const HELD_OUT: &str = include_str!("../../../fixtures/tiny/tiny.held-out.txt");

/// What must come out.
const EXPECTED: &str = include_str!("../../../fixtures/tiny/expected.json");

/// The model as a file.
pub fn model() -> ModelFile {
    ModelFile::embedded("tiny.gguf", MODEL)
}

/// What the model gives for a prompt and for the beginning of the play: the same on every machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The prompt.
    pub prompt: String,
    /// The text that follows greedily.
    pub text: String,
    /// Its ids, with the prompt's before them.
    pub prompt_token_ids: Vec<u32>,
    /// Greedy ids.
    pub token_ids: Vec<u32>,
    /// Digest of all logits.
    pub logits_sha256: String,
    /// Bytes of the play that are scored.
    pub scored_bytes: usize,
    /// Nats a token over them.
    pub nats_per_token: f64,
    /// Digest of the nats of every token.
    pub nats_sha256: String,
}

impl Expected {
    /// What is committed.
    ///
    /// # Errors
    /// - the committed file is damaged.
    pub fn committed() -> serde_json::Result<Expected> {
        serde_json::from_str(EXPECTED)
    }

    /// What `backend` gives for the same prompt, number of steps and text.
    ///
    /// # Errors
    /// - the engine's.
    pub fn measured(
        &self,
        model: &Model<'_>,
        tokenizer: &Tokenizer,
        backend: engine::Backend,
    ) -> Result<Expected> {
        let prompt = tokenizer.encode(&self.prompt, Special::Plain)?;
        let run = engine::run(model, backend, &prompt, self.token_ids.len(), &mut |_, _| Ok(()))?;
        let found = score(model, tokenizer, backend, &HELD_OUT[..self.scored_bytes])?;
        Ok(Expected {
            prompt: self.prompt.clone(),
            text: tokenizer.decode(&run.outcome.generated)?,
            prompt_token_ids: prompt,
            token_ids: run.outcome.generated,
            logits_sha256: hex::encode(run.outcome.logits_sha256),
            scored_bytes: self.scored_bytes,
            nats_per_token: found.nats_per_token,
            nats_sha256: found.sha256,
        })
    }
}

/// Perplexity of `text` in windows of the model's context that do not overlap.
///
/// # Errors
/// - the engine's.
pub fn score(
    model: &Model<'_>,
    tokenizer: &Tokenizer,
    backend: engine::Backend,
    text: &str,
) -> Result<Perplexity> {
    let (ids, begin) = (tokenizer.encode_bare(text, Special::Plain)?, tokenizer.prefix());
    let context = model.config.context;
    let windows = Windows { context, stride: context - usize::from(begin.is_some()) };
    perplexity(model, backend, &ids, begin, windows, &mut |_, _| ())
}
