//! Rules on what comparisons found, and whether the status follows from it.

use super::claim::{does_not_apply, kernel_check, model_parts};
use super::{Broken, Finding, Held, Missing, Options, require};
use super::{audited, live, plugins};
use crate::receipts::types::{Input, KernelCheckClaim, KernelResult, Kind, Parity, Statement, Status};
use crate::runs::parity::COSINE_MIN;
use assay_engine::kernels::check::{CASES_VERSION, operations};
use std::collections::BTreeSet;

pub(super) fn parity_metrics(statement: &Statement, _: &Options) -> Finding {
    let Some(parity) = &statement.predicate.parity else { return does_not_apply() };
    let number = |decimal: &crate::receipts::text::Decimal| decimal.to_f64();
    let (cosine_min, cosine_mean) = (number(&parity.cosine_min), number(&parity.cosine_mean));
    // A rounded cosine of equal rows may be a few units in the last place past 1.
    require!((-1.001..=1.001).contains(&cosine_min), "a cosine of {cosine_min}");
    require!((cosine_min..=1.001).contains(&cosine_mean), "mean cosine {cosine_mean}, smallest {cosine_min}");
    require!(number(&parity.max_abs) >= 0.0, "max_abs {}", parity.max_abs);
    let (kl_mean, kl_max) = (number(&parity.kl_mean), number(&parity.kl_max));
    require!(kl_mean >= 0.0, "kl_mean {kl_mean}");
    require!(kl_max >= kl_mean, "kl_max {kl_max} below the mean");
    require!(
        parity.top1_agree <= parity.positions,
        "{} of {} positions",
        parity.top1_agree,
        parity.positions
    );
    require!((0.0..=1.0).contains(&number(&parity.top10_agree)), "top10_agree {}", parity.top10_agree);
    // Equal rows have a cosine of 1, but for roundings.
    let apart = kl_max != 0.0
        || parity.top1_agree != parity.positions
        || cosine_min < 0.999_999
        || number(&parity.top10_agree) != 1.0;
    require!(number(&parity.max_abs) > 0.0 || !apart, "no logits differ, but what follows from them does");
    let thresholds = &parity.thresholds;
    let asked = match &parity.live {
        Some(live) => live::asked(live).unwrap_or_else(|| number(&thresholds.cosine_min)),
        None => COSINE_MIN,
    };
    require!(
        number(&thresholds.cosine_min) == asked && thresholds.greedy_equal == parity.greedy.steps,
        "held to a cosine of {} and {} equal steps, not to {asked} and all {}",
        thresholds.cosine_min,
        thresholds.greedy_equal,
        parity.greedy.steps
    );
    if let Some(misfit) = parity.live.as_ref().and_then(|live| live::misfit(statement, parity, live)) {
        return Broken(misfit);
    }
    match model_parts(statement).and_then(|(model, input, claim)| {
        greedy_misfit(parity, input, model.shape.vocab, &claim.generated_token_ids)
    }) {
        Some(misfit) => Broken(misfit),
        None if parity.live.as_ref().is_some_and(|live| live.thresholds_sha256.is_some()) => {
            Missing("held to thresholds of a file, which are not those of this version".to_owned())
        }
        None => Held(format!("{} positions, {} greedy steps", parity.positions, parity.greedy.steps)),
    }
}

/// Where the greedy steps do not fit each other or the claim.
fn greedy_misfit(parity: &Parity, input: &Input, vocab: u32, generated: &[u32]) -> Option<String> {
    let greedy = &parity.greedy;
    if greedy.steps == 0 || greedy.steps != input.steps {
        return Some(format!("{} greedy steps of {}", greedy.steps, input.steps));
    }
    // Stored logits are compared up to the row that chose the first different token; a live reference is fed our tokens.
    let prompt = input.prompt_token_ids.len() as u64;
    let compared = if parity.live.is_some() { greedy.steps } else { greedy.equal };
    if u64::from(parity.positions) != prompt + u64::from(compared) {
        let (positions, equal) = (parity.positions, greedy.equal);
        return Some(format!("{positions} positions, of a prompt of {prompt} and {equal} equal steps"));
    }
    if parity.top1_agree < greedy.equal {
        return Some(format!("{} steps equal, but {} positions agree", greedy.equal, parity.top1_agree));
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
        Some(first) if first.ours.max(first.theirs) >= vocab => {
            let (ours, theirs) = (first.ours, first.theirs);
            Some(format!("tokens {ours} and {theirs} at step {}, in a vocabulary of {vocab}", first.step))
        }
        Some(first) => match generated.get(first.step as usize) {
            Some(ours) if *ours == first.ours => None,
            _ => Some(format!("token {} at step {} is not the claim's", first.ours, first.step)),
        },
    }
}

pub(super) fn kernel_results(statement: &Statement, _: &Options) -> Finding {
    if let Some((claim, results)) = plugins::parts(statement) {
        return plugins::results(statement, claim, results);
    }
    let Some((claim, results)) = check_parts(statement) else { return does_not_apply() };
    let version = claim.case_list.version;
    if version != CASES_VERSION {
        return Missing(format!("version {version} of the list of cases is not known to this version"));
    }
    require!(statement.predicate.execution.work.is_empty(), "a kernel check counts no work of a model");
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
    let listed = operations().collect::<BTreeSet<_>>();
    let claimed_names = claimed.iter().map(|name| name.as_str()).collect::<BTreeSet<_>>();
    if let Some(name) = listed.symmetric_difference(&claimed_names).next() {
        let is =
            if listed.contains(name) { "missing from the claim" } else { "none of the list's operations" };
        return Broken(format!("{name} is {is}"));
    }
    let isa = statement.predicate.execution.isa.as_str();
    let mut seen = BTreeSet::new();
    for result in results {
        let (operation, kernel) = (&result.operation, &result.kernel);
        require!(claimed.contains(operation), "{operation} was checked, but is not claimed");
        require!(seen.insert((operation, kernel)), "{operation} on {kernel} has two results");
        require!(kernel.name() == operation.as_str(), "{operation} was checked on {kernel}");
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
        // A run that did not come to its end has no receipt.
        Kind::ModelRun => {
            Some(predicate.audit.as_ref().is_none_or(|audit| audited(statement, audit).is_ok()))
        }
        Kind::Parity => predicate.parity.as_ref().map(|parity| thresholds_met(parity) && exact(statement)),
        Kind::KernelCheck => check_parts(statement).map(|(claim, results)| all_equal(claim, results)),
        Kind::PluginCheck => plugins::parts(statement).map(|(_, results)| plugins::held(results)),
    };
    let Some(met) = met else { return Missing("no metrics".into()) };
    let (is, says) = (if met { "held" } else { "failed" }, predicate.status);
    require!(met == (says == Status::Held), "the status says otherwise, but the metrics say that it {is}");
    Held(format!("{is}, as the metrics say"))
}

fn thresholds_met(parity: &Parity) -> bool {
    if let Some(live) = &parity.live {
        return live::met(parity, live);
    }
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
