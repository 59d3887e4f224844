//! `assay check`: the main job.

use crate::args;
use crate::exit::Exit;
use crate::output;
use assay_harness::check::{Findings, Verdict, check};
use assay_harness::runs::engine::processors;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Output<'a> {
    held: bool,
    seconds: f64,
    #[serde(flatten)]
    findings: &'a Findings,
}

pub(super) fn run(args: &args::Check) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let bar =
        ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let threads = args.threads.unwrap_or_else(processors);
    let findings = check(&args.out, threads, &mut |doing| bar.set_message(doing.to_owned()));
    bar.finish_and_clear();
    let findings = findings?;
    let output =
        Output { held: findings.held(), seconds: start.elapsed().as_secs_f64(), findings: &findings };
    if args.json {
        output::json(&output)?
    } else {
        output::line(&plain(&output))?
    }
    Ok(Exit::of(output.held))
}

fn plain(output: &Output<'_>) -> String {
    let said = |verdict| match verdict {
        Verdict::Held => "held",
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "skipped",
    };
    let findings = output.findings;
    let rows: Vec<Vec<String>> = findings
        .rows
        .iter()
        .map(|row| {
            vec![row.what.clone(), row.count.to_string(), said(row.verdict).to_owned(), row.detail.clone()]
        })
        .collect();
    let mut lines = vec![output::table(&["what", "how many", "verdict", "seen"], &rows, &[1]), String::new()];
    lines.push(format!("receipts  {}", findings.receipts.display()));
    lines.extend(findings.reports.iter().map(|path| format!("report    {}", path.display())));
    let verdict = if output.held { "held" } else { "FAILED" };
    lines.push(format!("verdict   {verdict} in {:.1} s", output.seconds));
    lines.join("\n")
}
