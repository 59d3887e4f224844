//! Perplexity: how well a model predicts a text, the same number on every machine.
//!
//! The text is cut into windows of `context` tokens, each `stride` tokens after the one before; each begins with the begin token
//! where the model asks for one. Every token is scored once, in the first window that holds it:
//!
//! ```text
//! nats(t) = log(Σ_i e^(l_i − m)) − (l_t − m),  m = max l
//! perplexity = e^mean(nats)
//! ```
//!
//! `e` is the contract's f32 exponential; sums run in ascending order in f64; the logarithm is `libm`'s. The error bar is that of a mean of
//! independent samples, `sd / √n`: tokens of a text are not independent, so the true one is wider.

use super::{Error, Result};
use crate::runs::engine::Backend;
use assay_engine::exact::environment;
use assay_engine::kernels::Kernels;
use assay_engine::model::{Model, Rows, Session};
use assay_engine::threads::Pool;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Tokens fed at a time where the backend does not say: the logits of a batch are in memory together.
const BATCH: usize = 128;

/// How a text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Tokens that the model sees at most, the begin token included.
    pub context: usize,
    /// Tokens from one window to the next; each window scores at most so many.
    pub stride: usize,
}

/// What a text costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Perplexity {
    /// Tokens scored.
    pub tokens: usize,
    /// Windows.
    pub windows: usize,
    /// Mean negative log-likelihood of a token, in nats.
    pub nats_per_token: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// `e^nats_per_token`
    pub perplexity: f64,
    /// `perplexity · standard_error`: how far the error bar reaches to either side.
    pub perplexity_error: f64,
    /// SHA-256 over the nats of every token, in order, as little-endian f64; hexadecimal.
    pub sha256: String,
}

/// Scores `ids`, which hold no begin token; `begin` goes before each window. `progress` is told the tokens scored and the perplexity so far.
///
/// # Errors
/// - [`assay_engine::Error::Input`] if a window has no room for two tokens, is wider than the model's context, or there is nothing to score;
/// - the engine's.
pub fn perplexity(
    model: &Model<'_>,
    backend: Backend,
    ids: &[u32],
    begin: Option<u32>,
    windows: Windows,
    progress: &mut dyn FnMut(usize, f64),
) -> Result<Perplexity> {
    environment::check()?;
    let refuse = |what, expected: String, got: usize| {
        Err(Error::Engine(assay_engine::Error::Input { what, expected, got: got.to_string() }))
    };
    let Windows { context, stride } = windows;
    if !(2..=model.config.context).contains(&context) {
        return refuse("context", format!("2 to {} tokens (the model's)", model.config.context), context);
    }
    let room = context - usize::from(begin.is_some());
    if !(1..=room).contains(&stride) {
        return refuse("stride", format!("1 to {room}: no token may be left out"), stride);
    }
    if ids.len() + usize::from(begin.is_some()) < 2 {
        return refuse(
            "tokens of the text",
            "two at least, or one after a begin token".to_owned(),
            ids.len(),
        );
    }
    if let Some(id) = ids.iter().chain(&begin).find(|id| **id as usize >= model.config.vocab) {
        return refuse("token id", format!("0 to {}", model.config.vocab - 1), *id as usize);
    }
    let pool = Pool::new(backend.threads)?;
    let mut session = Session::new(model, backend.kernels, context)?;
    let (mut nats, mut count, mut first) = (Vec::with_capacity(ids.len()), 0, 0);
    // Without a begin token nothing predicts the first one.
    let mut scored = usize::from(begin.is_none());
    while scored < ids.len() {
        let end = ids.len().min(first + room);
        let window: Vec<u32> = begin.iter().chain(&ids[first..end]).copied().collect();
        let new = end - scored;
        nats.extend(pool.run(|| tail(&mut session, backend.batch, &window, new))?);
        (count, scored, first) = (count + 1, end, first + stride);
        progress(nats.len(), libm::exp(mean(&nats)));
    }
    let nats_per_token = mean(&nats);
    let squares: f64 = nats.iter().map(|n| (n - nats_per_token) * (n - nats_per_token)).sum();
    let n = nats.len() as f64;
    let standard_error = if nats.len() > 1 { (squares / (n - 1.0) / n).sqrt() } else { 0.0 };
    let mut hash = Sha256::new();
    nats.iter().for_each(|n| hash.update(n.to_le_bytes()));
    let perplexity = libm::exp(nats_per_token);
    Ok(Perplexity {
        tokens: nats.len(),
        windows: count,
        nats_per_token,
        standard_error,
        perplexity,
        perplexity_error: perplexity * standard_error,
        sha256: hex::encode(hash.finalize()),
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Nats of the last `new` tokens of `window`, which `session` reads from its beginning.
fn tail(session: &mut Session<'_, '_>, batch: usize, window: &[u32], new: usize) -> Result<Vec<f64>> {
    let (vocab, kernels) = (session.model().config.vocab, session.kernels());
    let batch = if batch == 0 { BATCH } else { batch };
    session.truncate(0);
    // The logits of a token score the next one, so the last token is not fed.
    let (seen, scoring) = window[..window.len() - 1].split_at(window.len() - 1 - new);
    for tokens in seen.chunks(batch) {
        session.feed(tokens, Rows::None)?;
    }
    let mut nats = Vec::with_capacity(new);
    for (tokens, targets) in scoring.chunks(batch).zip(window[window.len() - new..].chunks(batch)) {
        let logits = session.feed(tokens, Rows::All)?;
        let rows = logits.chunks(vocab).zip(targets);
        nats.extend(rows.map(|(row, &target)| nats_of(kernels, row, target as usize)));
    }
    Ok(nats)
}

/// `log(Σ e^(l − m)) − (l_target − m)`
fn nats_of(kernels: &Kernels, logits: &[f32], target: usize) -> f64 {
    let largest = (kernels.max_f32)(logits);
    let mut e: Vec<f32> = logits.iter().map(|l| l - largest).collect();
    let of_target = f64::from(e[target]);
    (kernels.exp_f32)(&mut e);
    libm::log(e.iter().map(|e| f64::from(*e)).sum::<f64>()) - of_target
}
