//! `assay receipt verify`: receipts held to the rules.

use super::{options, read, under_its_name};
use crate::args::VerifyReceipts;
use crate::output;
use assay_harness::exit::Exit;
use assay_harness::receipts::types::Status;
use assay_harness::receipts::verify::{Outcome, Report, RuleResult, verify};
use serde::Serialize;
use std::path::Path;

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
    /// How the program ends; `held` asks for runs that held.
    fn exit(&self, held: bool) -> Exit {
        let Found::Report(report) = self else { return Exit::CouldNotRun };
        let failed = report.statement.as_ref().is_some_and(|s| s.predicate.status == Status::Failed);
        match report.verdict.exit() {
            Exit::Held if held && failed => Exit::Mismatch,
            exit => exit,
        }
    }
}

/// Verifies every receipt; the gravest exit code counts.
pub(super) fn run(args: &VerifyReceipts) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.holding.id.is_none() || args.receipts.len() == 1,
        "--id holds one receipt; give one file with it"
    );
    let options = options(&args.holding)?;
    let mut outputs = Vec::new();
    for path in &args.receipts {
        let found = match read(path) {
            Ok(bytes) => Found::Report(Box::new(verify(&bytes, &under_its_name(&options, path)))),
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
    Ok(Exit::gravest(outputs.iter().map(|output| output.found.exit(args.held))))
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
    for id in &report.signed_by {
        lines.push(format!("  signed by {id}"));
    }
    let reached = |result: &&RuleResult| report.statement.is_some() || result.outcome == Outcome::Broken;
    for result in report.rules.iter().filter(|result| result.outcome != Outcome::Held).filter(reached) {
        let outcome = if result.outcome == Outcome::Broken { "BROKEN" } else { "not checked" };
        lines.push(format!("  {outcome}: {}: {}", result.rule.name(), result.message));
    }
    lines.join("\n")
}
