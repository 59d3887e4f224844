//! Rules on what comparisons found, and whether the status follows from it.

use super::claim::{does_not_apply, kernel_check, model_parts};
use super::{Broken, Finding, Held, Missing, Options, require};
use crate::receipts::types::{KernelCheckClaim, KernelResult, Kind, Parity, Statement, Status};
use std::collections::BTreeSet;

pub(super) fn parity_metrics(statement: &Statement, _: &Options) -> Finding {
    let Some(parity) = &statement.predicate.parity else { return does_not_apply() };
    let number = |decimal: &crate::receipts::text::Decimal| decimal.to_f64();
    let (cosine_min, cosine_mean) = (number(&parity.cosine_min), number(&parity.cosine_mean));
    // A rounded cosine of equal rows may be a few units in the last place past 1.
    require!((-1.001..=1.001).contains(&cosine_min), "a cosine of {cosine_min}");
    require!((cosine_min..=1.001).contains(&cosine_mean), "mean cosine {cosine_mean}, smallest {cosine_min}");
    require!(number(&parity.max_abs) >= 0.0, "max_abs {}", parity.max_abs);
    require!(number(&parity.kl_max) >= number(&parity.kl_mean), "kl_max {} below the mean", parity.kl_max);
    require!(
        parity.top1_agree <= parity.positions,
        "{} of {} positions",
        parity.top1_agree,
        parity.positions
    );
    require!((0.0..=1.0).contains(&number(&parity.top10_agree)), "top10_agree {}", parity.top10_agree);
    match model_parts(statement).and_then(|(_, input, claim)| {
        let tokens = input.prompt_token_ids.len() as u64 + u64::from(input.steps);
        greedy_misfit(parity, tokens, &claim.generated_token_ids)
    }) {
        Some(misfit) => Broken(misfit),
        None => Held(format!("{} positions, {} greedy steps", parity.positions, parity.greedy.steps)),
    }
}

/// Where the greedy steps do not fit each other or the claim.
fn greedy_misfit(parity: &Parity, tokens: u64, generated: &[u32]) -> Option<String> {
    let greedy = &parity.greedy;
    if u64::from(parity.positions) > tokens || greedy.steps as usize > generated.len() {
        return Some(format!("{} positions, {} steps, of {tokens} tokens", parity.positions, greedy.steps));
    }
    match &greedy.first_divergence {
        None if greedy.equal != greedy.steps => {
            Some(format!("{} of {} steps equal", greedy.equal, greedy.steps))
        }
        None => None,
        Some(first)
            if first.step != greedy.equal || first.step >= greedy.steps || first.ours == first.theirs =>
        {
            Some(format!("{} of {} steps equal, first other at {}", greedy.equal, greedy.steps, first.step))
        }
        Some(first) => match generated.get(first.step as usize) {
            Some(ours) if *ours == first.ours => None,
            _ => Some(format!("token {} at step {} is not the claim's", first.ours, first.step)),
        },
    }
}

pub(super) fn kernel_results(statement: &Statement, _: &Options) -> Finding {
    let Some((claim, results)) = check_parts(statement) else { return does_not_apply() };
    let mut claimed = BTreeSet::new();
    for operation in &claim.operations {
        let name = &operation.operation;
        require!(claimed.insert(name), "{name} is claimed twice");
        require!(operation.cases > 0, "{name}: no cases");
        let of_operation = || results.iter().filter(|result| result.operation == *name);
        require!(of_operation().next().is_some(), "{name} is claimed, but no kernel was held to it");
        for result in of_operation() {
            require!(
                result.cases == operation.cases,
                "{name}: {} of {} cases",
                result.cases,
                operation.cases
            );
        }
    }
    let isa = statement.predicate.execution.isa.as_str();
    let mut seen = BTreeSet::new();
    for result in results {
        let (operation, kernel) = (&result.operation, &result.kernel);
        require!(claimed.contains(operation), "{operation} was checked, but is not claimed");
        require!(seen.insert((operation, kernel)), "{operation} on {kernel} has two results");
        require!(kernel.isa() == isa, "{operation} was checked on {kernel}, but {isa} was asked for");
    }
    Held(format!("{} operations, {} kernels", claimed.len(), seen.len()))
}

fn check_parts(statement: &Statement) -> Option<(&KernelCheckClaim, &[KernelResult])> {
    Some((kernel_check(statement)?, statement.predicate.kernel_results.as_deref()?))
}

pub(super) fn status(statement: &Statement, _: &Options) -> Finding {
    let predicate = &statement.predicate;
    let met = match predicate.kind {
        Kind::ModelRun => Some(true), // a run that did not come to its end has no receipt
        Kind::Parity => predicate.parity.as_ref().map(|parity| thresholds_met(parity) && exact(statement)),
        Kind::KernelCheck => check_parts(statement).map(|(claim, results)| all_equal(claim, results)),
    };
    let Some(met) = met else { return Missing("no metrics".into()) };
    let (is, says) = (if met { "held" } else { "failed" }, predicate.status);
    require!(met == (says == Status::Held), "the status says otherwise, but the metrics say that it {is}");
    Held(format!("{is}, as the metrics say"))
}

fn thresholds_met(parity: &Parity) -> bool {
    parity.cosine_min.to_f64() >= parity.thresholds.cosine_min.to_f64()
        && parity.greedy.equal >= parity.thresholds.greedy_equal
}

/// The logits have the digest that was expected, if one was.
fn exact(statement: &Statement) -> bool {
    let expected =
        statement.predicate.parity.as_ref().and_then(|parity| parity.expected_logits_sha256.as_ref());
    let is = model_parts(statement).map(|(.., claim)| &claim.logits.sha256);
    expected.is_none_or(|expected| is == Some(expected))
}

fn all_equal(claim: &KernelCheckClaim, results: &[KernelResult]) -> bool {
    let right = |result: &KernelResult| {
        let same =
            |claimed: &&crate::receipts::types::CheckedOperation| claimed.operation == result.operation;
        claim
            .operations
            .iter()
            .find(same)
            .is_some_and(|claimed| claimed.outputs_sha256 == result.outputs_sha256)
    };
    results.iter().all(right)
}
