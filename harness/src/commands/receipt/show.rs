//! `assay receipt show`: what is in a receipt, unchecked.

use super::{read, unwrap};
use crate::args::ShowReceipt;
use crate::output;
use anyhow::Context as _;
use assay_harness::exit::Exit;
use assay_harness::receipts::envelope::Envelope;
use assay_harness::receipts::text::Sha256Hex;
use assay_harness::receipts::types::{Claim, Predicate, Statement, Status};
use std::io::Write as _;

pub(super) fn run(args: &ShowReceipt) -> anyhow::Result<Exit> {
    let about = || args.receipt.display().to_string();
    let (payload, envelope) = unwrap(read(&args.receipt)?).with_context(about)?;
    if args.statement {
        std::io::stdout().lock().write_all(&payload)?;
        return Ok(Exit::Held);
    }
    let statement: Statement = serde_json::from_slice(&payload)
        .context("not a receipt that this version reads; `assay receipt verify` says more")
        .with_context(about)?;
    if args.json {
        output::json(&statement)?;
    } else {
        output::line(&plain(&payload, envelope.as_ref(), &statement))?;
    }
    Ok(Exit::Held)
}

fn plain(payload: &[u8], envelope: Option<&Envelope>, statement: &Statement) -> String {
    let predicate = &statement.predicate;
    let Predicate { execution, environment, tool, .. } = predicate;
    let mut rows: Vec<(&str, String)> = vec![
        ("receipt", Sha256Hex::of(payload).as_str().to_owned()),
        ("claim", predicate.claim_id.as_str().to_owned()),
        ("kind", predicate.kind.as_str().to_owned()),
        ("status", if predicate.status == Status::Held { "held" } else { "FAILED" }.to_owned()),
        ("written", format!("{} by {} {} ({})", predicate.created, tool.name, tool.version, tool.commit)),
    ];
    for subject in &statement.subject {
        rows.push(("subject", format!("{} {}", subject.name, subject.digest.sha256)));
    }
    match &predicate.claim {
        Claim::ModelRun(claim) => {
            let tokens: Vec<String> = claim.generated_token_ids.iter().map(u32::to_string).collect();
            rows.push(("tokens", tokens.join(",")));
            let logits = &claim.logits;
            rows.push(("logits", format!("{} x {}, {}", logits.rows, logits.vocab, logits.sha256)));
        }
        Claim::KernelCheck(claim) => rows.push(("operations", claim.operations.len().to_string())),
        Claim::PluginCheck(claim) => rows.push(("library", format!("{} {}", claim.name, claim.version))),
    }
    rows.push((
        "ran on",
        format!("{}, {} threads, {}", execution.isa, execution.threads, environment.cpu.brand),
    ));
    for fallback in &execution.fallbacks {
        rows.push(("fallback", format!("{} for {}: {}", fallback.used, fallback.wanted, fallback.reason)));
    }
    for (name, value) in &environment.variables {
        rows.push(("variable", format!("{name}={value}")));
    }
    for signature in envelope.iter().flat_map(|envelope| &envelope.signatures) {
        let keyid = signature.keyid.as_deref().unwrap_or("a key without a name");
        rows.push(("signature", format!("{keyid}, not checked")));
    }
    rows.extend(predicate.limits.iter().map(|limit| ("limit", limit.clone())));
    // Names and reasons are a stranger's: no line may be theirs.
    rows.iter()
        .map(|(name, value)| format!("{name:<10} {}", value.replace(char::is_control, "\u{fffd}")))
        .collect::<Vec<_>>()
        .join("\n")
}
