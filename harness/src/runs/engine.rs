//! One run of the engine, with everything a receipt needs to say about it.

use super::Result;
use assay_engine::decode::{self, Hooks, Outcome, Request};
use assay_engine::exact::environment::{self, FloatEnvironment};
use assay_engine::kernels::{self, Isa, Kernels};
use assay_engine::model::{Model, Session, nodes};
use assay_engine::threads::Pool;
use std::num::NonZero;
use std::ops::ControlFlow;

/// How to run: the instruction set, the threads, the cut of the prompt.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    /// The table of kernels.
    pub kernels: &'static Kernels,
    /// Threads.
    pub threads: usize,
    /// Tokens of the prompt fed at a time; 0 feeds it whole.
    pub batch: usize,
}

impl Backend {
    /// The best this machine has.
    pub fn best() -> Backend {
        Backend { kernels: kernels::best(), threads: processors(), batch: 0 }
    }

    /// The same with another instruction set.
    ///
    /// # Errors
    /// - this processor lacks it.
    pub fn with_isa(self, isa: Isa) -> Result<Backend> {
        Ok(Backend { kernels: kernels::get(isa)?, ..self })
    }
}

/// Processors that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct Run {
    /// How it ran.
    pub backend: Backend,
    /// What was asked.
    pub request: Request,
    /// What came out.
    pub outcome: Outcome,
    /// The float environment it ran in.
    pub environment: FloatEnvironment,
    /// Name and digest of what each operation of the pass gave, where it was asked for: see [`Run::record_trace`].
    pub trace: Option<Vec<(String, [u8; 32])>>,
}

impl Run {
    /// All tokens that were fed: the prompt and those that were generated.
    pub fn tokens(&self) -> Vec<u32> {
        [&self.request.prompt[..], &self.outcome.generated].concat()
    }

    /// Runs the pass again, operation by operation, and keeps their digests. It takes about as long as the prompt and the generated tokens
    /// fed at once.
    ///
    /// # Errors
    /// - the engine's.
    pub fn record_trace(&mut self, model: &Model<'_>) -> Result<()> {
        self.trace = Some(trace(model, self.backend, &self.tokens())?);
        Ok(())
    }
}

/// Runs `prompt` and `steps` greedy tokens. `on_logits` is given each row of logits with its token.
///
/// # Errors
/// - the engine's: bad input, an arithmetic value that the contract forbids, a wrong float environment.
pub fn run(
    model: &Model<'_>,
    backend: Backend,
    prompt: &[u32],
    steps: usize,
    on_logits: &mut (dyn FnMut(u32, &[f32]) -> assay_engine::Result<()> + Send),
) -> Result<Run> {
    let request = Request { prompt: prompt.to_vec(), steps, batch: backend.batch, ..Request::default() };
    let mut session = Session::new(model, backend.kernels, request.capacity())?;
    go_on(
        &mut session,
        backend,
        request,
        &mut Hooks { on_logits, on_token: &mut |_| ControlFlow::Continue(()) },
    )
}

/// Runs `request` in a session that may hold the beginning of its prompt already.
///
/// # Errors
/// - as [`run`], or if the prompt does not go on from the session.
pub fn go_on(
    session: &mut Session<'_, '_>,
    backend: Backend,
    request: Request,
    hooks: &mut Hooks<'_>,
) -> Result<Run> {
    let environment = environment::check()?;
    let pool = Pool::new(backend.threads)?;
    let outcome = decode::go_on(session, &pool, &request, hooks)?;
    Ok(Run { backend, request, outcome, environment, trace: None })
}

/// The most logits that a trace holds at once: 2 GiB.
const TRACE_LOGITS: usize = 1 << 29;

/// Name and digest of what each operation of the pass gives for `tokens`, in the order of the pass.
///
/// # Errors
/// - as [`run`].
pub fn trace(model: &Model<'_>, backend: Backend, tokens: &[u32]) -> Result<Vec<(String, [u8; 32])>> {
    environment::check()?;
    let most = TRACE_LOGITS / model.config.vocab;
    if tokens.len() > most {
        return Err(super::Error::Engine(assay_engine::Error::Input {
            what: "tokens of a trace",
            expected: format!("at most {most}: the logits of all are in memory together"),
            got: tokens.len().to_string(),
        }));
    }
    let digests = Pool::new(backend.threads)?.run(|| nodes::digests(model, backend.kernels, tokens))?;
    Ok(nodes::nodes(&model.config).iter().map(nodes::Node::name).zip(digests).collect())
}

/// Runs and collects all logits, `(prompt + steps, vocab)`.
///
/// # Errors
/// - as [`run`].
pub fn run_with_logits(
    model: &Model<'_>,
    backend: Backend,
    prompt: &[u32],
    steps: usize,
) -> Result<(Run, Vec<f32>)> {
    let mut logits = Vec::new();
    let run = run(model, backend, prompt, steps, &mut |_, row| {
        logits.extend_from_slice(row);
        Ok(())
    })?;
    Ok((run, logits))
}
