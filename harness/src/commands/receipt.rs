//! `assay receipt`: what a receipt is worth.

use crate::args::{self, VerifyReceipts};
use crate::exit::Exit;
use crate::output;
use anyhow::Context as _;
use assay_harness::files;
use assay_harness::receipts::text::Sha256Hex;
use assay_harness::receipts::types::Status;
use assay_harness::receipts::verify::{
    Files, MAX_BYTES, Options, Outcome, Report, RuleResult, Verdict, verify,
};
use serde::Serialize;
use std::path::Path;

pub(super) fn run(args: &args::Receipt) -> anyhow::Result<Exit> {
    match args {
        args::Receipt::Verify(args) => verify_all(args),
    }
}

#[derive(Serialize)]
struct Verified {
    file: String,
    #[serde(flatten)]
    found: Found,
}

/// One that cannot be read does not keep the others from being verified.
#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Report(Box<Report>),
    Unreadable { error: String },
}

impl Found {
    fn exit(&self) -> Exit {
        match self {
            Found::Unreadable { .. } => Exit::CouldNotRun,
            Found::Report(report) => match report.verdict {
                Verdict::Valid => Exit::Held,
                Verdict::Tampered => Exit::Tampered,
                _ => Exit::Inconclusive,
            },
        }
    }
}

/// Verifies every receipt. Of several exit codes the gravest counts: tampered, unreadable, inconclusive.
fn verify_all(args: &VerifyReceipts) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.id.is_none() || args.receipts.len() == 1,
        "--id holds one receipt; give one file with it"
    );
    let expected_id = args.id.as_deref().map(Sha256Hex::parse).transpose().context("--id")?;
    let mut outputs = Vec::new();
    for path in &args.receipts {
        let found = match files::read(path, MAX_BYTES) {
            Ok(bytes) => Found::Report(Box::new(verify(&bytes, &options(args, path, expected_id.clone())))),
            Err(error) => Found::Unreadable { error: error.to_string() },
        };
        match &found {
            Found::Report(report) if !args.json => output::line(&plain(path, report))?,
            Found::Report(_) => {}
            Found::Unreadable { error } => output::note(&format!("error: {error}")),
        }
        outputs.push(Verified { file: path.display().to_string(), found });
    }
    if args.json {
        output::json(&outputs)?;
    }
    let order = [Exit::Tampered, Exit::CouldNotRun, Exit::Inconclusive];
    let exits: Vec<Exit> = outputs.iter().map(|output| output.found.exit()).collect();
    Ok(order.into_iter().find(|exit| exits.contains(exit)).unwrap_or(Exit::Held))
}

fn options(args: &VerifyReceipts, path: &Path, expected_id: Option<Sha256Hex>) -> Options {
    Options {
        file_name: path.file_name().map(|name| name.to_string_lossy().into_owned()),
        expected_id,
        files: args.model.clone().map_or(Files::NotAsked, Files::Model),
        max_age: args.max_age_days.map(|days| u64::from(days) * 86_400),
        ..Options::default()
    }
}

/// The verdict, and every rule that did not simply hold.
fn plain(path: &Path, report: &Report) -> String {
    let mut lines = vec![format!("{}  {}", report.verdict.name(), path.display())];
    let held = report.rules.iter().filter(|result| result.outcome == Outcome::Held).count();
    let status = report.statement.as_ref().map_or("unknown", |statement| match statement.predicate.status {
        Status::Held => "held",
        Status::Failed => "FAILED",
    });
    lines.push(format!("  {held} of {} rules held; the run it is about: {status}", report.rules.len()));
    let reached = |result: &&RuleResult| report.statement.is_some() || result.outcome == Outcome::Broken;
    for result in report.rules.iter().filter(|result| result.outcome != Outcome::Held).filter(reached) {
        let outcome = if result.outcome == Outcome::Broken { "BROKEN" } else { "not checked" };
        lines.push(format!("  {outcome}: {}: {}", result.rule.name(), result.message));
    }
    lines.join("\n")
}
