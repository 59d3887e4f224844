//! `assay receipt`: what a receipt is worth.

use crate::args::{self, VerifyReceipts};
use crate::exit::Exit;
use crate::output;
use anyhow::Context as _;
use assay_harness::receipts::text::Sha256Hex;
use assay_harness::receipts::verify::{Files, MAX_BYTES, Options, Outcome, Report, Verdict, verify};
use serde::Serialize;
use std::fs::File;
use std::io::Read as _;
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
    report: Report,
}

fn verify_all(args: &VerifyReceipts) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.id.is_none() || args.receipts.len() == 1,
        "--id holds one receipt; give one file with it"
    );
    let mut worst = Verdict::Valid;
    let mut outputs = Vec::new();
    for path in &args.receipts {
        let bytes = read(path)?;
        let report = verify(&bytes, &options(args, path)?);
        worst = worst.max(report.verdict);
        if !args.json {
            output::line(&plain(path, &report))?;
        }
        outputs.push(Verified { file: path.display().to_string(), report });
    }
    if args.json {
        output::json(&outputs)?;
    }
    Ok(match worst {
        Verdict::Valid => Exit::Held,
        Verdict::Tampered => Exit::Tampered,
        _ => Exit::Inconclusive,
    })
}

fn options(args: &VerifyReceipts, path: &Path) -> anyhow::Result<Options> {
    let expected_id = args.id.as_deref().map(Sha256Hex::parse).transpose().context("--id")?;
    Ok(Options {
        file_name: path.file_name().map(|name| name.to_string_lossy().into_owned()),
        expected_id,
        files: args.model.clone().map_or(Files::NotAsked, Files::Model),
        max_age: args.max_age_days.map(|days| u64::from(days) * 86_400),
        ..Options::default()
    })
}

/// Reads at most one byte more than a receipt may have: the verifier then says that it is too large.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let fail = |e: std::io::Error| assay_engine::Error::file(path, &e);
    let file = File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// The verdict, and every rule that did not simply hold.
fn plain(path: &Path, report: &Report) -> String {
    let mut lines = vec![format!("{}  {}", report.verdict.name(), path.display())];
    let held = report.rules.iter().filter(|result| result.outcome == Outcome::Held).count();
    lines.push(format!("  {held} of {} rules held", report.rules.len()));
    for result in report.rules.iter().filter(|result| result.outcome != Outcome::Held) {
        let outcome = if result.outcome == Outcome::Broken { "BROKEN" } else { "not checked" };
        lines.push(format!("  {outcome}: {}: {}", result.rule.name(), result.message));
    }
    lines.join("\n")
}
