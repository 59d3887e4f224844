//! `assay check`: the main job.

use crate::args;
use crate::output::{self, Progress};
use assay_harness::check::{Findings, Verdict, check};
use assay_harness::exit::Exit;
use assay_harness::faults::{self, Outcome};
use assay_harness::runs::engine::processors;
use assay_variables::SKIP_SLOW;
use serde::Serialize;
use std::time::Instant;

#[derive(Serialize)]
struct Output<'a> {
    held: bool,
    seconds: f64,
    #[serde(flatten)]
    findings: &'a Findings,
}

pub(super) fn run(args: &args::Check) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let (skip_slow, strict) = (SKIP_SLOW.read()?, args.strict()?);
    let progress = Progress::new();
    if args.self_test {
        return self_test(args.json, progress, start);
    }
    let threads = args.threads.unwrap_or_else(processors);
    let assay = std::env::current_exe()?;
    let findings = check(&args.out, threads, skip_slow, &assay, &mut |doing| progress.say(doing));
    progress.clear();
    let findings = findings?;
    let output =
        Output { held: findings.held(), seconds: start.elapsed().as_secs_f64(), findings: &findings };
    if args.json {
        output::json(&output)?
    } else {
        output::line(&plain(&output))?
    }
    let passed_over = strict && !findings.complete();
    Ok(if output.held && passed_over { Exit::Inconclusive } else { Exit::of(output.held) })
}

#[derive(Serialize)]
struct SelfTest {
    held: bool,
    seconds: f64,
    faults: usize,
    killed: usize,
    kill_rate: f64,
    outcomes: Vec<Outcome>,
}

fn self_test(json: bool, progress: Progress, start: Instant) -> anyhow::Result<Exit> {
    let outcomes = faults::run_all(&mut |fault| progress.say(fault.what))?;
    progress.clear();
    let (faults, killed) = (outcomes.len(), outcomes.iter().filter(|outcome| outcome.killed).count());
    let seconds = start.elapsed().as_secs_f64();
    let kill_rate = killed as f64 / faults as f64;
    let test = SelfTest { held: killed == faults, seconds, faults, killed, kill_rate, outcomes };
    if json {
        output::json(&test)?;
    } else {
        output::line(&plain_self_test(&test))?;
    }
    Ok(Exit::of(test.held))
}

/// Four lines a fault: id, what it is and where it was seen; the check and what it said.
fn plain_self_test(test: &SelfTest) -> String {
    let one = |outcome: &Outcome| {
        let Outcome { id, what, source, check, killed, message } = outcome;
        let became = if *killed { "killed by" } else { "SURVIVES" };
        let said = message.as_deref().unwrap_or("nothing was found");
        format!("{id}\n  fault   {what}\n  seen    {source}\n  {became} {check}: {said}\n")
    };
    let mut lines: Vec<String> = test.outcomes.iter().map(one).collect();
    let SelfTest { faults, killed, seconds, kill_rate, .. } = test;
    lines.push(format!("kill rate  {killed} of {faults} ({:.1}%) in {seconds:.1} s", 100.0 * kill_rate));
    lines.join("\n")
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
