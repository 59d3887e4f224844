//! Tokens in, tokens out: decoding, the logits digest, and the time each phase took.

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::model::{Model, Rows, Session};
use crate::sample::{Sampler, Sampling};
use crate::threads::Pool;
use crate::trace::hash_f32;
use crate::work::{Counts, Key};
use sha2::{Digest, Sha256};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What to run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request {
    /// Token ids of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// Tokens to generate. The last one is fed too, so that its logits exist.
    pub steps: usize,
    /// Tokens of the prompt that are fed at a time; 0 feeds it whole, up to [`MAX_BATCH`]. It never changes a result.
    pub batch: usize,
    /// Tokens of the prompt whose logits are computed: of all, or of the last one alone (for `None` too: a token is chosen from them).
    pub prompt_logits: Rows,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// Most tokens that are fed at a time: their activations, and the logits of a batch, are in memory together.
pub const MAX_BATCH: usize = 512;

impl Request {
    /// Positions that the run needs.
    pub fn capacity(&self) -> usize {
        self.prompt.len().saturating_add(self.steps)
    }

    /// Tokens of the prompt that are really fed at a time.
    pub fn batch_size(&self) -> usize {
        let wanted = if self.batch == 0 { MAX_BATCH } else { self.batch };
        wanted.min(MAX_BATCH).min(self.prompt.len()).max(1)
    }
}

/// A phase of a run, for its timings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A piece of the prompt.
    Prefill,
    /// One generated token.
    Decode,
}

/// Time that feeding some tokens took, the head included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Which phase.
    pub phase: Phase,
    /// Tokens fed.
    pub tokens: usize,
    /// Wall time.
    pub time: Duration,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The generated token ids.
    pub generated: Vec<u32>,
    /// Rows of logits: one for each token that was fed, or without those of the prompt but the last.
    pub rows: usize,
    /// Columns of logits.
    pub vocab: usize,
    /// SHA-256 of all logits, row-major, as little-endian f32.
    pub logits_sha256: [u8; 32],
    /// Digest of the residual stream after each layer, over the tokens that were fed.
    pub layer_chain: Vec<[u8; 32]>,
    /// Digest of the RoPE tables.
    pub rope_sha256: [u8; 32],
    /// What the kernels did.
    pub work: Vec<(Key, Counts)>,
    /// Timings, in order.
    pub samples: Vec<Sample>,
}

impl Outcome {
    /// Tokens per second over the samples of a phase; `None` if there are none.
    pub fn tokens_per_second(&self, phase: Phase) -> Option<f64> {
        let samples = self.samples.iter().filter(|sample| sample.phase == phase);
        let (tokens, time) =
            samples.fold((0, Duration::ZERO), |(n, t), sample| (n + sample.tokens, t + sample.time));
        (tokens > 0).then(|| tokens as f64 / time.as_secs_f64())
    }
}

/// Runs `request` on `model`. `on_logits` is given each row of logits in order, with the token it belongs to.
///
/// # Errors
/// - [`Error::Input`] for an empty prompt, an id outside the vocabulary or too long a sequence;
/// - [`Error::Arithmetic`] where a value appears that the contract forbids;
/// - whatever `on_logits` returns.
pub fn generate(
    model: &Model<'_>,
    kernels: &'static Kernels,
    pool: &Pool,
    request: &Request,
    on_logits: &mut (dyn FnMut(u32, &[f32]) -> Result<()> + Send),
) -> Result<Outcome> {
    let mut session = Session::new(model, kernels, request.capacity())?;
    go_on(&mut session, pool, request, &mut Hooks { on_logits, on_token: &mut |_| ControlFlow::Continue(()) })
}

/// What a caller sees of a run while it goes on.
pub struct Hooks<'h> {
    /// Each row of logits in order, with the token it belongs to.
    pub on_logits: &'h mut (dyn FnMut(u32, &[f32]) -> Result<()> + Send),
    /// Each token that was chosen, before it is fed; a break ends the run without it.
    pub on_token: &'h mut (dyn FnMut(u32) -> ControlFlow<()> + Send),
}

impl std::fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

/// As [`generate`], in a session that may hold the beginning of the prompt already: those tokens are not fed again.
///
/// # Errors
/// - as [`generate`];
/// - [`Error::State`] if the session's tokens are not the beginning of the prompt, with one at least to go.
pub fn go_on(
    session: &mut Session<'_, '_>,
    pool: &Pool,
    request: &Request,
    hooks: &mut Hooks<'_>,
) -> Result<Outcome> {
    if request.prompt.is_empty() {
        let expected = "at least one token id".to_owned();
        return Err(Error::Input { what: "prompt", expected, got: "none".to_owned() });
    }
    let held = session.state().tokens();
    let rest = request.prompt.strip_prefix(held).filter(|rest| !rest.is_empty()).ok_or_else(|| {
        let same = held.iter().zip(&request.prompt).take_while(|(a, b)| a == b).count();
        Error::State {
            problem: format!(
                "it holds {} tokens, of which the prompt of {} begins with {same}",
                held.len(),
                request.prompt.len()
            ),
            advice: "give a prompt that begins with all of them and goes on",
        }
    })?;
    let sampler = Sampler::new(request.sampling, session.kernels())?;
    let vocab = session.model().config.vocab;
    let run = Run { session, sampler, hash: Sha256::new(), rows: 0, vocab, samples: Vec::new(), hooks };
    pool.run(|| run.finish(rest, request))
}

struct Run<'r, 'h, 'm, 'a> {
    session: &'r mut Session<'m, 'a>,
    sampler: Sampler,
    hash: Sha256,
    rows: usize,
    vocab: usize,
    samples: Vec<Sample>,
    hooks: &'r mut Hooks<'h>,
}

impl Run<'_, '_, '_, '_> {
    fn finish(mut self, prompt: &[u32], request: &Request) -> Result<Outcome> {
        let mut next = 0;
        let mut left = prompt.len();
        for tokens in prompt.chunks(request.batch_size()) {
            left -= tokens.len();
            let rows = match request.prompt_logits {
                Rows::All => Rows::All,
                _ if left == 0 => Rows::Last,
                _ => Rows::None,
            };
            next = self.feed(Phase::Prefill, tokens, rows)?;
        }
        let mut generated = Vec::with_capacity(request.steps);
        for _ in 0..request.steps {
            if (self.hooks.on_token)(next).is_break() {
                break;
            }
            generated.push(next);
            next = self.feed(Phase::Decode, &[next], Rows::All)?;
        }
        Ok(Outcome {
            generated,
            rows: self.rows,
            vocab: self.vocab,
            logits_sha256: self.hash.finalize().into(),
            layer_chain: self.session.chain().digests(),
            rope_sha256: self.session.state().rope().digest(),
            work: self.session.work().totals(),
            samples: self.samples,
        })
    }

    /// Feeds tokens and returns the token chosen after the last of them; 0 where no logits are computed.
    fn feed(&mut self, phase: Phase, tokens: &[u32], rows: Rows) -> Result<u32> {
        let start = Instant::now();
        let logits = self.session.feed(tokens, rows)?;
        self.samples.push(Sample { phase, tokens: tokens.len(), time: start.elapsed() });
        hash_f32(&mut self.hash, &logits);
        let count = logits.len() / self.vocab;
        self.rows += count;
        for (&token, row) in tokens[tokens.len() - count..].iter().zip(logits.chunks(self.vocab)) {
            (self.hooks.on_logits)(token, row)?;
        }
        let last = logits.chunks(self.vocab).next_back();
        let choice = last.map_or(0, |row| self.sampler.choose(row, self.session.state().tokens()));
        // The vocabulary is bounded by the configuration, far below u32::MAX.
        Ok(choice as u32)
    }
}
