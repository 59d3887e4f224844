//! Tokens in, tokens out: greedy decoding, the logits digest, and the time each phase took.

use crate::error::{Error, Result};
use crate::exact::argmax;
use crate::kernels::Kernels;
use crate::model::{Model, Session};
use crate::threads::Pool;
use crate::trace::hash_f32;
use crate::work::{Counts, Key};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Token ids of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// Tokens to generate. The last one is fed too, so that its logits exist.
    pub steps: usize,
    /// Tokens of the prompt that are fed at a time; 0 feeds it whole, up to [`MAX_BATCH`]. It never changes a result.
    pub batch: usize,
}

/// Most tokens that are fed at a time: the logits of a batch are in memory together.
pub const MAX_BATCH: usize = 512;

impl Request {
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
    /// Rows of logits: `prompt + steps`; row k belongs to token k.
    pub rows: usize,
    /// Columns of logits.
    pub vocab: usize,
    /// SHA-256 of all logits, row-major, as little-endian f32.
    pub logits_sha256: [u8; 32],
    /// Digest of the residual stream after each layer.
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

/// Runs `request` greedily on `model`. `on_logits` is given each row of logits in order, with the token it belongs to.
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
    pool.run(|| Run::new(model, kernels, request, on_logits)?.finish(request))
}

struct Run<'r, 'm, 'a> {
    session: Session<'m, 'a>,
    hash: Sha256,
    rows: usize,
    vocab: usize,
    samples: Vec<Sample>,
    on_logits: &'r mut (dyn FnMut(u32, &[f32]) -> Result<()> + Send),
}

impl<'r, 'm, 'a> Run<'r, 'm, 'a> {
    fn new(
        model: &'m Model<'a>,
        kernels: &'static Kernels,
        request: &Request,
        on_logits: &'r mut (dyn FnMut(u32, &[f32]) -> Result<()> + Send),
    ) -> Result<Self> {
        if request.prompt.is_empty() {
            let expected = "at least one token id".to_owned();
            return Err(Error::Input { what: "prompt", expected, got: "none".to_owned() });
        }
        let capacity = request.prompt.len().saturating_add(request.steps);
        let session = Session::new(model, kernels, capacity)?;
        let vocab = model.config.vocab;
        Ok(Run { session, hash: Sha256::new(), rows: 0, vocab, samples: Vec::new(), on_logits })
    }

    fn finish(mut self, request: &Request) -> Result<Outcome> {
        let mut next = 0;
        for tokens in request.prompt.chunks(request.batch_size()) {
            next = self.feed(Phase::Prefill, tokens)?;
        }
        let mut generated = Vec::with_capacity(request.steps);
        for _ in 0..request.steps {
            generated.push(next);
            next = self.feed(Phase::Decode, &[next])?;
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

    /// Feeds tokens and returns the greedy choice after the last of them.
    fn feed(&mut self, phase: Phase, tokens: &[u32]) -> Result<u32> {
        let start = Instant::now();
        let logits = self.session.feed(tokens)?;
        self.samples.push(Sample { phase, tokens: tokens.len(), time: start.elapsed() });
        hash_f32(&mut self.hash, &logits);
        let rows = logits.chunks(self.vocab);
        self.rows += rows.len();
        let mut choice = 0;
        for (&token, row) in tokens.iter().zip(rows) {
            (self.on_logits)(token, row)?;
            choice = argmax(row);
        }
        // The vocabulary is bounded by the configuration, far below u32::MAX.
        Ok(choice as u32)
    }
}
