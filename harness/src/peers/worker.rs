//! The child: loads a model, then answers a line with a line.
#![expect(unsafe_code, reason = "loads libraries of another program: this process is there to bear it")]

use super::llama::Llama;
use super::{Load, Loaded as _, Reply, Request};
use crate::plugins::fault;
use std::io::{BufRead as _, Write as _};
use std::time::Instant;

/// Loads what the parent asks for and answers its requests until it closes stdin. Lines go to what was stdout.
///
/// # Errors
/// - the parent is gone, or writes what is no request.
pub fn run_worker(load: &Load) -> std::io::Result<()> {
    let mut lines = fault::take_stdout()?;
    fault::limit();
    let mut say = |reply: &Reply| {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        lines.write_all(&line)
    };
    // SAFETY: this process exists to bear what the libraries do; nothing in it is of value.
    let mut llama = match unsafe { Llama::load(load, None) } {
        Ok(llama) => llama,
        Err(message) => return say(&Reply::Refused { message }),
    };
    say(&Reply::Ready(llama.facts().clone()))?;
    for line in std::io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?)?;
        let reply = answer(&mut llama, &request);
        llama.sleep();
        say(&reply.unwrap_or_else(|message| Reply::Refused { message }))?;
    }
    // Freeing runs code of the library once more, and shows nothing.
    std::mem::forget(llama);
    Ok(())
}

fn answer(llama: &mut Llama, request: &Request) -> Result<Reply, String> {
    match request {
        Request::Prefill { tokens } => {
            let tokens = ids(llama, tokens, 0)?;
            llama.keep(0)?;
            Ok(Reply::Prefilled { ns: timed(|| llama.feed(&tokens))? })
        }
        Request::Decode { prompt, steps } => {
            let prompt = ids(llama, prompt, *steps)?;
            llama.become_prompt(&prompt)?;
            let step = |_| {
                let next = largest(llama.row()?);
                timed(|| llama.feed(&[next]))
            };
            Ok(Reply::Decoded { ns: (0..*steps).map(step).collect::<Result<_, _>>()? })
        }
        Request::Logits { tokens } => {
            let tokens = ids(llama, tokens, 0)?;
            llama.keep(0)?;
            llama.feed(&tokens)?;
            Ok(Reply::Logits { bits: llama.row()?.iter().map(|logit| logit.to_bits()).collect() })
        }
    }
}

/// Nanoseconds of `work`.
fn timed(work: impl FnOnce() -> Result<(), String>) -> Result<u64, String> {
    let start = Instant::now();
    work()?;
    Ok(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The tokens as llama.cpp has them, if the model knows each and there are positions for them and for `more`.
fn ids(llama: &Llama, tokens: &[u32], more: u32) -> Result<Vec<i32>, String> {
    let facts = llama.facts();
    if tokens.is_empty() {
        return Err("no tokens to feed; give one at least".to_owned());
    }
    let positions = tokens.len() as u64 + u64::from(more);
    if positions > u64::from(facts.context) {
        let context = facts.context;
        return Err(format!("{positions} tokens do not fit {context} positions; start it with more"));
    }
    let known = |&token: &u32| i32::try_from(token).ok().filter(|_| token < facts.vocab);
    let id = |token| known(token).ok_or_else(|| format!("token {token} is not below {}", facts.vocab));
    tokens.iter().map(id).collect()
}

/// The token with the largest logit, the first of several.
fn largest(logits: &[f32]) -> i32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
}
