//! Whole models: prompts and single tokens, ours and a peer's, in turns, beside what the machine allows in the same round.

use super::limit;
use super::time::Spread;
use crate::peers::Peer;
use assay_engine::Result;
use assay_engine::exact::argmax;
use assay_engine::kernels::Kernels;
use assay_engine::model::{Model, Rows, Session};
use assay_engine::threads::Pool;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What is timed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Numbers of threads; others are held against the first.
    pub threads: Vec<usize>,
    /// Tokens of the prompt.
    pub prefill: usize,
    /// Tokens before those that are timed one at a time.
    pub depths: Vec<usize>,
    /// Single tokens a turn.
    pub steps: usize,
    /// Rounds in which all take turns.
    pub rounds: usize,
}

/// What one contestant did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelLine {
    /// Who: `assay` or the peer.
    pub who: String,
    /// A prompt or single tokens, and how many before them.
    pub what: String,
    /// Threads.
    pub threads: usize,
    /// Tokens a second.
    pub tokens_per_second: Spread,
    /// Single tokens: the model's bytes over those that as many threads read in the same round. Prompts: multiply-adds of the
    /// linear layers over those of the bare loop. Both are counted on *this* model, for a peer too.
    pub of_limit: Option<Spread>,
    /// Over the first number of threads in the same round.
    pub of_first: Option<Spread>,
    /// Over the peer in the same round.
    pub of_peer: Option<Spread>,
}

/// A turn: tokens a second.
type Turn<'t, E> = Box<dyn FnMut() -> std::result::Result<f64, E> + 't>;

struct Contestant<'t, E> {
    who: String,
    what: String,
    threads: usize,
    is_prompt: bool,
    turn: Turn<'t, E>,
}

/// Why a contest ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] assay_engine::Error),
    /// The peer failed.
    #[error(transparent)]
    Peer(#[from] crate::peers::Error),
}

/// Token ids that look like text: all different at first, spread over the vocabulary.
fn ids(model: &Model<'_>, n: usize) -> Vec<u32> {
    // Bounded by the configuration, far below u32::MAX.
    let vocab = model.config.vocab as u32;
    (0..n as u32).map(|i| (i.wrapping_mul(7919) + 13) % vocab).collect()
}

/// Tokens fed at a time.
const BATCH: usize = assay_engine::decode::MAX_BATCH;

fn feed(session: &mut Session<'_, '_>, tokens: &[u32]) -> Result<Vec<f32>> {
    let mut logits = Vec::new();
    let mut left = tokens.len();
    for part in tokens.chunks(BATCH) {
        left -= part.len();
        logits = session.feed(part, if left == 0 { Rows::Last } else { Rows::None })?;
    }
    Ok(logits)
}

/// Times all in turn. `peers` has one worker for each number of threads, or none. `progress` is told what is being done.
///
/// # Errors
/// - the engine's: a prompt longer than the model's context, say; a peer that fails.
pub fn contest(
    model: &Model<'_>,
    file: &[u8],
    kernels: &'static Kernels,
    plan: &Plan,
    peers: &mut [Peer],
    progress: &mut dyn FnMut(&str),
) -> std::result::Result<Vec<ModelLine>, Error> {
    let prompt = ids(model, plan.prefill);
    let pools: Vec<Pool> = plan.threads.iter().map(|n| Pool::new(*n)).collect::<Result<_>>()?;
    let mut contestants: Vec<Contestant<'_, Error>> = Vec::new();
    for (pool, &threads) in pools.iter().zip(&plan.threads) {
        progress(&format!("{threads} threads: filling contexts"));
        let mut session = Session::new(model, kernels, plan.prefill)?;
        let prompt = &prompt;
        contestants.push(Contestant {
            who: "assay".to_owned(),
            what: format!("prompt of {}", plan.prefill),
            threads,
            is_prompt: true,
            turn: Box::new(move || {
                session.truncate(0);
                let start = Instant::now();
                pool.run(|| feed(&mut session, prompt))?;
                Ok(prompt.len() as f64 / start.elapsed().as_secs_f64())
            }),
        });
        for &depth in &plan.depths {
            let mut session = Session::new(model, kernels, depth + plan.steps)?;
            let logits = pool.run(|| feed(&mut session, &ids(model, depth)))?;
            let steps = plan.steps;
            contestants.push(Contestant {
                who: "assay".to_owned(),
                what: format!("tokens after {depth}"),
                threads,
                is_prompt: false,
                turn: Box::new(move || {
                    session.truncate(depth);
                    let mut next = argmax(&logits) as u32;
                    let start = Instant::now();
                    for _ in 0..steps {
                        next = argmax(&pool.run(|| session.feed(&[next], Rows::Last))?) as u32;
                    }
                    Ok(steps as f64 / start.elapsed().as_secs_f64())
                }),
            });
        }
    }
    for (peer, &threads) in peers.iter_mut().zip(&plan.threads) {
        let who = peer.facts().name.clone();
        let peer = std::rc::Rc::new(std::cell::RefCell::new(peer));
        let (prompter, prompt) = (std::rc::Rc::clone(&peer), &prompt);
        contestants.push(Contestant {
            who: who.clone(),
            what: format!("prompt of {}", plan.prefill),
            threads,
            is_prompt: true,
            turn: Box::new(move || {
                Ok(prompt.len() as f64 / prompter.borrow_mut().prefill(prompt)?.as_secs_f64())
            }),
        });
        for &depth in &plan.depths {
            let (peer, before, steps) = (std::rc::Rc::clone(&peer), ids(model, depth), plan.steps as u32);
            contestants.push(Contestant {
                who: who.clone(),
                what: format!("tokens after {depth}"),
                threads,
                is_prompt: false,
                turn: Box::new(move || {
                    let times = peer.borrow_mut().decode(&before, steps)?;
                    Ok(f64::from(steps) / times.iter().sum::<Duration>().as_secs_f64())
                }),
            });
        }
    }
    let mut rates = vec![Vec::with_capacity(plan.rounds); contestants.len()];
    let mut limits = vec![Vec::with_capacity(plan.rounds); contestants.len()];
    for contestant in &mut contestants {
        progress(&format!("warming up: {}, {}", contestant.who, contestant.what));
        (contestant.turn)()?;
    }
    let (macs, bytes) = (macs_per_token(model), model.bytes_per_token() as f64);
    for round in 0..plan.rounds {
        let n = contestants.len();
        for at in (0..n).map(|i| (round + i) % n) {
            let contestant = &mut contestants[at];
            progress(&format!("round {}: {}, {}", round + 1, contestant.who, contestant.what));
            // Measured beside each turn: what a shared machine allows changes within a round.
            limits[at].push(if contestant.is_prompt {
                limit::multiply_adds(kernels, contestant.threads).map(|rate| rate / macs)
            } else {
                limit::reading(kernels, file, contestant.threads).map(|rate| rate / bytes)
            });
            rates[at].push((contestant.turn)()?);
        }
    }
    let spread = |value: &dyn Fn(usize) -> f64| Spread::of((0..plan.rounds).map(value).collect());
    let line = |at: usize| {
        let this = &contestants[at];
        let same = |other: &Contestant<'_, Error>| other.what == this.what;
        let over = |other: Option<usize>| {
            other
                .filter(|other| *other != at)
                .map(|other| spread(&|round| rates[at][round] / rates[other][round]))
        };
        let first = contestants.iter().position(|other| same(other) && other.who == this.who);
        let peer = contestants
            .iter()
            .position(|other| same(other) && other.threads == this.threads && other.who != this.who);
        let limited = limits[at].iter().all(Option::is_some);
        ModelLine {
            who: this.who.clone(),
            what: this.what.clone(),
            threads: this.threads,
            tokens_per_second: spread(&|round| rates[at][round]),
            of_limit: limited
                .then(|| spread(&|round| rates[at][round] / limits[at][round].unwrap_or(f64::NAN))),
            of_first: over(first),
            of_peer: over(peer.filter(|_| this.who == "assay")),
        }
    };
    Ok((0..contestants.len()).map(line).collect())
}

/// Multiply-adds of the linear layers for one token, without the head, which a prompt needs once.
fn macs_per_token(model: &Model<'_>) -> f64 {
    let linears = model.weights.layers.iter().flat_map(assay_engine::model::weights::Layer::linears);
    linears.map(|linear| linear.w.rows * linear.w.cols).sum::<usize>() as f64
}
