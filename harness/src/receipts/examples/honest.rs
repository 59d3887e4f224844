//! What a show would look like: counters, traces and audits of work that was not done.

use super::Without::Passes;
use super::cases::{Case, Make, case, counter};
use crate::receipts::text::{Sha256Hex, U64};
use crate::receipts::types::{Audit, OperationDigest, Statement, operation};
use crate::receipts::verify::Rule;

const fn edit(name: &'static str, rule: Rule, edit: fn(&mut Statement) -> Option<()>) -> Case {
    case(name, rule, Passes, Make::Statement(edit))
}

pub(super) const CASES: &[Case] = &[
    edit("fewer-calls-than-matrices", Rule::Work, |statement| {
        statement.predicate.model.as_ref()?;
        let linear = |row: &&mut crate::receipts::types::Work| row.operation.as_str() == operation::LINEAR;
        let work = &mut statement.predicate.execution.work;
        work.iter_mut().filter(linear).for_each(|row| row.calls = U64::from(1));
        Some(())
    }),
    edit("attention-over-other-heads", Rule::Work, |statement| {
        statement.predicate.model.as_ref()?;
        let row = counter(statement, operation::ATTENTION_SCORES)?;
        let columns = row.columns.get();
        (columns % 2 == 0 && row.operation.as_str() == operation::ATTENTION_SCORES).then_some(())?;
        (row.columns, row.rows) = (U64::from(columns / 2), U64::from(row.rows.get() * 2));
        Some(())
    }),
    edit("operation-missing-in-the-trace", Rule::Trace, |statement| trace(statement)?.pop().map(drop)),
    edit("operations-of-the-trace-swapped", Rule::Trace, |statement| {
        let trace = trace(statement)?;
        (trace.len() > 2).then(|| trace.swap(1, 2))
    }),
    edit("trace-of-another-layer", Rule::Trace, |statement| {
        let ends = |operation: &&mut OperationDigest| operation.name.ends_with(".layer_output");
        trace(statement)?.iter_mut().find(ends)?.sha256 = Sha256Hex::of(b"another residual stream");
        Some(())
    }),
    edit("trace-of-other-logits", Rule::Trace, |statement| {
        trace(statement)?.last_mut()?.sha256 = Sha256Hex::of(b"other logits");
        Some(())
    }),
    edit("audit-of-one-run", Rule::Audit, |statement| {
        audit(statement)?.repeats.truncate(1);
        Some(())
    }),
    edit("audit-of-fewer-steps", Rule::Audit, |statement| {
        audit(statement)?.repeats[0].decode_ns.pop().map(drop)
    }),
    edit("audit-in-no-time", Rule::Audit, |statement| {
        let audit = audit(statement)?;
        audit.repeats[1].prefill_ns = U64::from(0);
        audit.read_bandwidth_bytes_per_s = None; // or it would be too fast as well
        Some(())
    }),
    edit("audit-of-lighter-weights", Rule::Audit, |statement| {
        let bytes = &mut audit(statement)?.weight_bytes_per_token;
        *bytes = U64::from(bytes.get() / 8);
        Some(())
    }),
    edit("audit-of-the-same-prompt", Rule::Audit, |statement| {
        let prompt = statement.predicate.input.as_ref()?.prompt_token_ids.clone();
        audit(statement)?.other_prompt.prompt_token_ids = prompt;
        Some(())
    }),
    edit("timed-run-gave-other-logits", Rule::Status, |statement| {
        audit(statement)?.repeats[1].logits_sha256 = Sha256Hex::of(b"the fast path's logits");
        Some(())
    }),
    edit("timed-run-gave-other-tokens", Rule::Status, |statement| {
        *audit(statement)?.repeats[0].generated_token_ids.last_mut()? ^= 1;
        Some(())
    }),
    edit("answer-from-a-cache", Rule::Status, |statement| {
        audit(statement)?.repeats[1].macs = U64::from(0);
        Some(())
    }),
    edit("faster-than-memory", Rule::Status, |statement| {
        let audit = audit(statement)?;
        audit.read_bandwidth_bytes_per_s = Some(U64::from(1_000_000_000));
        // Ten times what that bandwidth allows.
        let ns = audit.weight_bytes_per_token.get() / 10;
        *audit.repeats[1].decode_ns.last_mut()? = U64::from(ns.max(1));
        Some(())
    }),
    edit("same-answer-to-another-question", Rule::Status, |statement| {
        let repeated = audit(statement)?.repeats[0].logits_sha256.clone();
        audit(statement)?.other_prompt.logits_sha256 = repeated;
        Some(())
    }),
];

fn trace(statement: &mut Statement) -> Option<&mut Vec<OperationDigest>> {
    statement.predicate.execution.trace.as_mut()
}

fn audit(statement: &mut Statement) -> Option<&mut Audit> {
    statement.predicate.audit.as_mut()
}
