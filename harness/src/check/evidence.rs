//! Receipts of what ran: written, read back and verified, attacked, their claims run again; and the report over them.

use super::stages::{GoldenRun, KernelReports, ModelRun};
use super::{Context, Row};
use crate::receipts::types::{Kind, Statement};
use crate::receipts::verify::{Options, Verdict, verify};
use crate::receipts::{canonical, examples, record, replay};
use crate::runs::engine::Backend;
use anyhow::Context as _;
use assay_engine::kernels::Isa;
use std::path::{Path, PathBuf};

/// Receipts on disk, each with the instruction set it is about.
type Written = Vec<(Isa, PathBuf)>;

/// Writes a receipt for everything that ran, checks them, attacks one, and reports. Returns the folder of the receipts and the
/// report's files.
pub(super) fn gather(
    context: &mut Context<'_>,
    out: &Path,
    (kernels, fixtures, golden): (&KernelReports, &[ModelRun], &[GoldenRun]),
    live: &[Statement],
) -> anyhow::Result<(PathBuf, Vec<PathBuf>)> {
    context.say("receipts");
    let folder = out.join("receipts");
    let statements = statements(context, kernels, fixtures, golden)?;
    let written = write(&folder, &statements)?;
    // Beside the others: the report compares instruction sets, and these ran on one.
    let beside = |statement| canonical::write(&folder.join("references"), statement);
    let live_written = live.iter().map(beside).collect::<Result<Vec<_>, _>>()?;
    context.rows.push(verified(written.iter().map(|(_, path)| path).chain(&live_written))?);
    let golden =
        statements.iter().map(|(_, statement)| statement).rev().find(|s| s.predicate.parity.is_some());
    context.rows.push(attacked(golden.into_iter().chain(live.last())));
    let row = replayed(context, &written)?;
    context.rows.push(row);
    let reports = report(context, out, &written)?;
    Ok((folder, reports))
}

fn statements(
    context: &Context<'_>,
    kernels: &KernelReports,
    fixtures: &[ModelRun],
    golden: &[GoldenRun],
) -> anyhow::Result<Vec<(Isa, Statement)>> {
    let mut statements = Vec::new();
    if let Some((_, scalar)) = kernels.iter().find(|(table, _)| table.isa == Isa::Scalar) {
        for (table, reports) in kernels {
            let backend = Backend { kernels: table, threads: 1, batch: 0 };
            let plan = assay_engine::kernels::check::Plan::default();
            statements.push((table.isa, record::kernel_check(backend, &plan, scalar, reports)?));
        }
    }
    for ModelRun { facts, name, run } in fixtures {
        statements.push((run.backend.kernels.isa, record::model_run(name, facts.clone(), run)?));
    }
    for GoldenRun { facts, name, parity } in golden {
        let statement = record::parity(name, facts.clone(), &context.golden, parity)?;
        statements.push((parity.run.backend.kernels.isa, statement));
    }
    Ok(statements)
}

fn write(folder: &Path, statements: &[(Isa, Statement)]) -> anyhow::Result<Written> {
    let one = |(isa, statement): &(Isa, Statement)| {
        Ok((*isa, canonical::write(&folder.join(isa.name()), statement)?))
    };
    statements.iter().map(one).collect()
}

/// Every receipt is read back from disk and must be valid.
fn verified<'p>(written: impl Iterator<Item = &'p PathBuf>) -> anyhow::Result<Row> {
    let (mut failure, mut count) = (None, 0);
    for path in written {
        count += 1;
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let report = verify(&bytes, &Options { file_name, ..Options::default() });
        if report.verdict != Verdict::Valid {
            let why = report.decided_by().map_or("no rule says why", |rule| rule.message.as_str());
            failure.get_or_insert(format!("{}: {}: {why}", path.display(), report.verdict.name()));
        }
    }
    let detail = "written, read back, every rule held".to_owned();
    Ok(Row::of("receipts", count, failure.map_or(Ok(detail), Err)))
}

/// The claims of the fastest instruction set, run again on scalar: each receipt as it lies on disk. (Kernels were held to scalar by the
/// check of kernels.)
fn replayed(context: &mut Context<'_>, written: &Written) -> anyhow::Result<Row> {
    let best = context.tables.last().map_or(Isa::Scalar, |table| table.isa);
    let of_models = |path: &Path| {
        path.parent().and_then(Path::file_name).is_some_and(|kind| kind != Kind::KernelCheck.as_str())
    };
    let paths: Vec<PathBuf> = written
        .iter()
        .filter(|(isa, path)| *isa == best && of_models(path))
        .map(|(_, path)| path.clone())
        .collect();
    let (mut failure, mut count) = (None, 0);
    for path in paths {
        context.say(&format!("replaying {}", path.display()));
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let verify = Options { file_name, ..Options::default() };
        let options = replay::Options { verify, isa: None, threads: context.threads };
        let replayed = replay::replay(&bytes, &options);
        count += 1;
        if replayed.verdict != Verdict::Reproduced {
            let said = format!("{}: {}: {}", path.display(), replayed.verdict.name(), replayed.message);
            failure.get_or_insert(said);
        }
    }
    if count == 0 {
        return Ok(Row::of("replays", 0, Err("there is no receipt to replay".to_owned())));
    }
    let other = if best == Isa::Scalar { "again" } else { "scalar" };
    let detail = format!("claims of {best}, run on {other}: REPRODUCED");
    Ok(Row::of("replays", count, failure.map_or(Ok(detail), Err)))
}

/// One forged receipt for each rule, made from receipts of this very run: each must be caught by its rule.
fn attacked<'s>(statements: impl Iterator<Item = &'s Statement>) -> Row {
    const WHAT: &str = "forged receipts";
    let mut count = 0;
    for statement in statements {
        let forged = match examples::negatives(statement) {
            Ok(forged) => forged,
            Err(error) => return Row::of(WHAT, count, Err(error.to_string())),
        };
        let missed = forged.iter().find_map(|negative| {
            let report = verify(&negative.bytes, &negative.options());
            let rule = report.decided_by().map(|result| result.rule);
            (report.verdict != negative.verdict || rule != Some(negative.rule))
                .then(|| format!("{}: {} by {rule:?}", negative.name, report.verdict.name()))
        });
        count += forged.len() as u64;
        if let Some(missed) = missed {
            return Row::of(WHAT, count, Err(missed));
        }
    }
    match count {
        0 => Row::of(WHAT, 0, Err("there is no receipt to forge: the golden models did not run".to_owned())),
        _ => Row::of(WHAT, count, Ok("each caught by the rule it breaks".to_owned())),
    }
}

/// Scalar is the baseline, the fastest instruction set the candidate.
#[cfg(feature = "report")]
fn report(context: &mut Context<'_>, out: &Path, written: &Written) -> anyhow::Result<Vec<PathBuf>> {
    use crate::reports;
    context.say("report");
    // The fastest table: what receipts of the candidate side come from.
    let best = context.tables.last().map_or(Isa::Scalar, |table| table.isa);
    let side = |wanted: Isa| {
        let files = written.iter().filter(|(isa, _)| *isa == wanted).map(|(_, path)| path.clone());
        reports::load_files(files.collect())
    };
    let report = reports::compare(&side(Isa::Scalar)?, &side(best)?)?;
    let paths = reports::write(&out.join("reports"), &report)?;
    let detail = format!("baseline scalar, candidate {best}: every claim has one digest");
    let differs = "claims differ between instruction sets: see the report".to_owned();
    let result = if report.held() { Ok(detail) } else { Err(differs) };
    context.rows.push(Row::of("report", report.rows.len() as u64, result));
    Ok(paths.to_vec())
}

#[cfg(not(feature = "report"))]
fn report(context: &mut Context<'_>, _: &Path, _: &Written) -> anyhow::Result<Vec<PathBuf>> {
    context.rows.push(Row::skipped("report", "this build has no reports (feature 'report')"));
    Ok(Vec::new())
}
