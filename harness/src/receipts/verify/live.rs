//! Rules on what a live reference adds to a parity receipt.

use super::claim::model_parts;
use crate::receipts::types::{
    DifferenceClass, Input, LiveParity, ModelFacts, ModelRunClaim, OperationsAlone, Parity, RowDifference,
    Statement,
};
use crate::runs::compare::nmse_allowed;
use crate::runs::thresholds::Thresholds;

/// Operations of a layer, and those outside layers.
const IN_LAYER: u32 = 15;
const SUB_NORMS: u32 = 2;
const OUTSIDE: u32 = 3;

/// Operations of a model: what its shape and architecture give.
pub(crate) fn operations_of(model: &ModelFacts) -> u32 {
    let in_layer = if model.architecture == "llama" { IN_LAYER } else { IN_LAYER + SUB_NORMS };
    model.shape.layers.saturating_mul(in_layer).saturating_add(OUTSIDE)
}

/// The smallest cosine that must have been asked for; `None` where a file of thresholds says it.
pub(super) fn asked(live: &LiveParity) -> Option<f64> {
    let table = Thresholds::default();
    live.thresholds_sha256.is_none().then(|| table.cosine_of(live.own_cosine.to_f64()))
}

/// What does not fit itself or the rest.
pub(super) fn misfit(statement: &Statement, parity: &Parity, live: &LiveParity) -> Option<String> {
    let (model, input, claim) = model_parts(statement)?;
    rows(parity, live)
        .or_else(|| live.differences.iter().find_map(|row| difference(row, live, model, input, claim)))
        .or_else(|| numbers(parity, live, model.shape.vocab))
        .or_else(|| live.operations.as_ref().and_then(|alone| operations(alone, live, operations_of(model))))
}

/// Rows that differ are counted, in order, and among those compared.
fn rows(parity: &Parity, live: &LiveParity) -> Option<String> {
    let (agree, differ) = (u64::from(parity.top1_agree), live.differences.len() as u64);
    if u64::from(parity.positions) != agree + differ {
        return Some(format!("{agree} of {} rows agree, and {differ} differ", parity.positions));
    }
    let in_order = live.differences.is_sorted_by(|a, b| a.row < b.row);
    let inside = live.differences.iter().all(|difference| difference.row < parity.positions);
    (!in_order || !inside).then(|| "rows that differ are out of order, or were not compared".to_owned())
}

/// Tokens are the claim's and the vocabulary's, and the class is what gaps and perturbation make.
fn difference(
    difference: &RowDifference,
    live: &LiveParity,
    model: &ModelFacts,
    input: &Input,
    claim: &ModelRunClaim,
) -> Option<String> {
    let RowDifference { row, ours, theirs, gap, their_gap, perturbation, class } = difference;
    let step = (*row as usize + 1).checked_sub(input.prompt_token_ids.len());
    let chosen = step.and_then(|step| claim.generated_token_ids.get(step));
    let vocab = model.shape.vocab;
    if chosen.is_some_and(|chosen| chosen != ours) || ours.max(theirs) >= &vocab || ours == theirs {
        return Some(format!(
            "row {row}: {ours} and {theirs} are not the claim's token and another of {vocab}"
        ));
    }
    let [a, b, moved] = [gap, their_gap, perturbation].map(|number| number.to_f64());
    let tie = a + b <= live.tie_factor.to_f64() * moved;
    let fits = a >= 0.0 && b >= 0.0 && moved >= 0.0 && tie == (*class == DifferenceClass::Tie);
    (!fits).then(|| {
        format!("row {row}: gaps of {gap} and {their_gap}, where roundings move logits by {perturbation}, are no {class:?}")
    })
}

fn numbers(parity: &Parity, live: &LiveParity, vocab: u32) -> Option<String> {
    let (own, nmse, rank) = (live.own_cosine.to_f64(), live.nmse_max.to_f64(), live.rank_max);
    let same = live.differences.is_empty();
    if !(-1.001..=1.001).contains(&own) || nmse < 0.0 {
        return Some(format!("an own cosine of {own}, an NMSE of {nmse}"));
    }
    if rank == 0 || rank > vocab || (rank == 1) != same {
        return Some(format!("a rank of {rank}, with {} rows that differ", live.differences.len()));
    }
    let factor = live.tie_factor.to_f64();
    if live.thresholds_sha256.is_none() && factor != Thresholds::default().tie_factor {
        return Some(format!("ties up to {factor} times what roundings do"));
    }
    let apart = parity.max_abs.to_f64() != 0.0;
    if apart != (live.max_ulp.get() != 0) || !apart && (nmse != 0.0 || !same) {
        return Some("what follows from equal logits does not, or from others".to_owned());
    }
    None
}

/// Operations decide only where roundings leave nothing of the logits, and as many as the model has.
fn operations(alone: &OperationsAlone, live: &LiveParity, of_model: u32) -> Option<String> {
    let OperationsAlone { all, compared, asked, wrong } = alone;
    if *all != of_model {
        return Some(format!("{all} operations, of a model that has {of_model}"));
    }
    let table = Thresholds::default();
    let of_table = live.thresholds_sha256.is_none();
    if of_table && !table.unstable(live.own_cosine.to_f64()) {
        return Some(format!("operations decide, though roundings leave a cosine of {}", live.own_cosine));
    }
    let least = (table.operations_min * f64::from(*all)).ceil() as u32;
    let fits =
        compared <= all && wrong.len() as u64 <= u64::from(*compared) && (!of_table || *asked == least);
    (!fits)
        .then(|| format!("{compared} of {all} operations compared, {asked} asked for, {} wrong", wrong.len()))
}

/// What was asked for is met: by the operations where they decide, else by cosine, size, and no mismatch.
pub(super) fn met(parity: &Parity, live: &LiveParity) -> bool {
    if let Some(operations) = &live.operations {
        return operations.compared >= operations.asked && operations.wrong.is_empty();
    }
    let asked = parity.thresholds.cosine_min.to_f64();
    parity.cosine_min.to_f64() >= asked
        && live.nmse_max.to_f64() <= nmse_allowed(asked)
        && (parity.greedy.equal == parity.greedy.steps || chose_another(parity, live))
        && live.differences.iter().all(|difference| difference.class == DifferenceClass::Tie)
}

/// The row that chose the first different token is among those that differ, with that token.
fn chose_another(parity: &Parity, live: &LiveParity) -> bool {
    let [positions, steps, equal] =
        [parity.positions, parity.greedy.steps, parity.greedy.equal].map(u64::from);
    let (Some(prompt), Some(first)) = (positions.checked_sub(steps), &parity.greedy.first_divergence) else {
        return false;
    };
    // Row k chooses the token after k + 1 tokens.
    live.differences.iter().any(|difference| {
        u64::from(difference.row) + 1 == prompt + equal && difference.theirs == first.theirs
    })
}
