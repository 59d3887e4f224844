//! Rules on work that may be a show: the trace of operations, the audit, the caller's policy.

use super::claim::model_parts;
use super::model::required_macs;
use super::tensors::bytes_per_token;
use super::{Broken, Finding, Held, Options, Skipped, require};
use crate::receipts::text::{Sha256Hex, is_lower_hex};
use crate::receipts::types::{Audit, ComputePath, Input, Kind, ModelRunClaim, Repeat, Statement};
use assay_engine::model::arch::ARCHITECTURES;
use assay_engine::model::nodes;

/// Timings may be this much better than the bandwidth that was measured, over 4: a shared machine is measured in bad moments too.
const SLACK_FOURTHS: u128 = 5;
const NS_PER_S: u128 = 1_000_000_000;

pub(super) fn trace(statement: &Statement, _: &Options) -> Finding {
    let Some(trace) = &statement.predicate.execution.trace else {
        return Skipped("no operation was recorded".into());
    };
    let Some((model, _, claim)) = model_parts(statement) else {
        return Broken("operations of a pass, but no model was run".into());
    };
    let Some(arch) = ARCHITECTURES.iter().find(|arch| arch.name == model.architecture) else {
        return Skipped("the architecture is not known: see the rule on tensors".into());
    };
    let layers = claim.layer_chain.len();
    if layers as u64 != u64::from(model.shape.layers) {
        return Skipped("the layers are not known: see the rule on them".into());
    }
    let (has, owed) = (trace.len(), nodes::count(arch.sub_norms, layers));
    require!(has == owed, "{has} operations, the pass has {owed}");
    for (node, operation) in nodes::list(arch.sub_norms, layers).iter().zip(trace) {
        let name = node.name();
        require!(operation.name == name, "{:?} in the place of {name}", operation.name);
        let fixed = match node.kind {
            nodes::NodeKind::LayerOutput => Some((&claim.layer_chain[node.layer], "the layer's")),
            nodes::NodeKind::Logits => Some((&claim.logits.sha256, "the logits'")),
            _ => None,
        };
        if let Some((digest, whose)) = fixed {
            require!(operation.sha256 == *digest, "{name}: its digest is not {whose}");
        }
    }
    Held(format!("{owed} operations, which end in the claim"))
}

pub(super) fn audit(statement: &Statement, _: &Options) -> Finding {
    let Some(audit) = &statement.predicate.audit else { return Skipped("not audited".into()) };
    require!(
        statement.predicate.kind == Kind::ModelRun,
        "an audit in a {}",
        statement.predicate.kind.as_str()
    );
    let Some((model, input, _)) = model_parts(statement) else {
        return Broken("an audit, but no model was run".into());
    };
    require!(audit.repeats.len() >= 2, "{} timed runs, an audit has at least 2", audit.repeats.len());
    for (index, repeat) in audit.repeats.iter().enumerate() {
        let (samples, steps) = (repeat.decode_ns.len(), input.steps);
        require!(samples as u64 == u64::from(steps), "run {index}: {samples} samples for {steps} steps");
        let times = repeat.decode_ns.iter().chain([&repeat.prefill_ns]);
        require!(times.into_iter().all(|ns| ns.get() > 0), "run {index}: a sample took no time");
    }
    let said = audit.weight_bytes_per_token.get();
    if let Some(owed) = bytes_per_token(model) {
        require!(u128::from(said) == owed, "{said} bytes of weights a token, the tensors have {owed}");
    }
    let (prompt, other) = (&input.prompt_token_ids, &audit.other_prompt.prompt_token_ids);
    require!(prompt.len() == other.len(), "another prompt of {} tokens, not {}", other.len(), prompt.len());
    require!(prompt != other, "the other prompt is the same");
    let vocab = model.shape.vocab;
    require!(other.iter().all(|id| *id < vocab), "another prompt with ids past a vocabulary of {vocab}");
    let bandwidth = audit.read_bandwidth_bytes_per_s.as_ref().map(|bandwidth| bandwidth.get());
    require!(bandwidth != Some(0), "a bandwidth of 0");
    Held(format!("{} timed runs", audit.repeats.len()))
}

/// Whether an audit found nothing wrong; the first thing that it did otherwise.
///
/// # Errors
/// - what is wrong with the run.
pub fn audited(statement: &Statement, audit: &Audit) -> Result<(), String> {
    let Some((model, input, claim)) = model_parts(statement) else { return Ok(()) };
    let macs = required_macs(&model.shape, tokens(input));
    let bytes = u128::from(audit.weight_bytes_per_token.get());
    let bandwidth = audit.read_bandwidth_bytes_per_s.as_ref().map(|bandwidth| u128::from(bandwidth.get()));
    let pieces = u128::from(pieces(input, statement.predicate.execution.batch));
    for (index, repeat) in audit.repeats.iter().enumerate() {
        same_run(repeat, claim, macs).map_err(|problem| format!("timed run {index} {problem}"))?;
        let Some(bandwidth) = bandwidth else { continue };
        let possible = |bytes: u128, ns: u64| {
            let read = bytes.saturating_mul(4 * NS_PER_S);
            read <= (SLACK_FOURTHS * u128::from(ns)).saturating_mul(bandwidth)
        };
        let too_fast =
            |what: &str| format!("timed run {index}: {what} in less time than its weights take to read");
        if !possible(bytes.saturating_mul(pieces), repeat.prefill_ns.get()) {
            return Err(too_fast("the prompt"));
        }
        if let Some(step) = repeat.decode_ns.iter().position(|ns| !possible(bytes, ns.get())) {
            return Err(too_fast(&format!("step {step}")));
        }
    }
    let other = &audit.other_prompt;
    if u128::from(other.macs.get()) != macs {
        return Err(format!("the other prompt took {} multiply-adds, not {macs}", other.macs));
    }
    if other.logits_sha256 == claim.logits.sha256 {
        return Err("the other prompt gave the same logits".to_owned());
    }
    Ok(())
}

fn same_run(repeat: &Repeat, claim: &ModelRunClaim, macs: u128) -> Result<(), String> {
    if repeat.logits_sha256 != claim.logits.sha256 {
        return Err("gave other logits than the checked run".to_owned());
    }
    if repeat.generated_token_ids != claim.generated_token_ids {
        return Err("gave other tokens than the checked run".to_owned());
    }
    if u128::from(repeat.macs.get()) != macs {
        return Err(format!("counted {} multiply-adds, not {macs}", repeat.macs));
    }
    Ok(())
}

/// Tokens that go through the model.
pub(super) fn tokens(input: &Input) -> u64 {
    input.prompt_token_ids.len() as u64 + u64::from(input.steps)
}

/// Pieces that the prompt is fed in.
fn pieces(input: &Input, batch: u32) -> u64 {
    (input.prompt_token_ids.len() as u64).div_ceil(u64::from(batch.max(1)))
}

/// Times that the model is given tokens: pieces of the prompt, and steps.
pub(super) fn feeds(input: &Input, batch: u32) -> u64 {
    pieces(input, batch) + u64::from(input.steps)
}

pub(super) fn policy(statement: &Statement, options: &Options) -> Finding {
    if !options.strict {
        return Skipped("not asked to be strict".into());
    }
    let predicate = &statement.predicate;
    let (execution, tool, build) = (&predicate.execution, &predicate.tool, &predicate.environment.build);
    if let Some(fallback) = execution.fallbacks.first() {
        return Broken(format!("{}: {} stood in for {}", fallback.operation, fallback.used, fallback.wanted));
    }
    require!(predicate.corrections.is_empty(), "corrected after the fact");
    require!(execution.compute_path == ComputePath::Real, "nothing was computed");
    let is_commit = matches!(tool.commit.len(), 40 | 64) && is_lower_hex(&tool.commit);
    require!(is_commit, "the commit of the program is not known");
    require!(tool.dirty == Some(false), "the program was built from files that differ from its commit");
    require!(build.profile == "release", "a {:?} build", build.profile);
    require!(Sha256Hex::parse(&build.cargo_lock_sha256).is_ok(), "the program's dependencies are not known");
    Held("no fallback, no correction, a clean release build".into())
}
