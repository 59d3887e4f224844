//! `assay kernels`: what this machine can run, and whether it is exact.

use super::plugins;
use crate::args;
use crate::output;
use assay_engine::kernels::check::{Checked as Checks, OperationReport, Plan, check_tables};
use assay_engine::kernels::{self, Isa, Kernels};
use assay_harness::exit::Exit;
use assay_harness::files;
use assay_harness::receipts::{canonical, record};
use assay_harness::runs::engine::Backend;
use serde::Serialize;
use std::path::{Path, PathBuf};

pub(super) fn run(args: &args::KernelsCommand) -> anyhow::Result<Exit> {
    match args {
        args::KernelsCommand::List { json } => list(*json),
        args::KernelsCommand::Check(args) if args.plugin.is_some() || args.peer.is_some() => {
            plugins::run(args)
        }
        args::KernelsCommand::Check(args) => {
            anyhow::ensure!(
                args.kernel.is_none(),
                "--kernel names a kernel of a --plugin or --peer; give one"
            );
            let plan = Plan { seed: args.seed()?, ..Plan::default() };
            check_all(args.isa, &plan, args.out.as_deref(), args.json)
        }
        #[cfg(unix)]
        args::KernelsCommand::Bench(args) => super::bench::run(args),
        args::KernelsCommand::Child { request } => plugins::child(request),
    }
}

#[derive(Serialize)]
struct Listed {
    isa: &'static str,
    available: bool,
    best: bool,
}

fn list(json: bool) -> anyhow::Result<Exit> {
    let best = kernels::best().isa;
    let row = |isa: Isa| Listed { isa: isa.name(), available: kernels::get(isa).is_ok(), best: isa == best };
    let rows = Isa::ALL.map(row);
    if json {
        output::json(&rows)?;
    } else {
        let said = |row: &Listed| match (row.available, row.best) {
            (true, true) => "available, used by default",
            (true, false) => "available",
            (false, _) => "not on this processor",
        };
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| vec![row.isa.to_owned(), said(row).to_owned()]).collect();
        output::line(&output::table(&["instruction set", "here"], &rows, &[]))?;
    }
    Ok(Exit::Held)
}

#[derive(Serialize)]
struct Checked {
    isa: &'static str,
    held: bool,
    operations: Vec<Operation>,
    mismatch: Option<String>,
    receipt: Option<PathBuf>,
}

#[derive(Serialize)]
struct Operation {
    operation: &'static str,
    cases: u64,
    outputs_sha256: String,
}

fn check_all(only: Option<Isa>, plan: &Plan, out: Option<&Path>, json: bool) -> anyhow::Result<Exit> {
    let tables = match only {
        Some(isa) => vec![kernels::get(isa)?],
        None => kernels::available(),
    };
    out.map(files::output_folder).transpose()?;
    let all = [&[&kernels::scalar::KERNELS], &tables[..]].concat();
    let mut found = check_tables(&all, plan, &mut |_| ());
    let scalar = found.remove(0);
    let checked = tables
        .into_iter()
        .zip(found)
        .map(|(table, found)| one(table, plan, &scalar, found, out))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if json {
        output::json(&checked)?
    } else {
        output::line(&plain(&checked))?
    }
    Ok(Exit::of(checked.iter().all(|checked| checked.held)))
}

fn one(
    table: &'static Kernels,
    plan: &Plan,
    scalar: &Checks,
    found: Checks,
    out: Option<&Path>,
) -> anyhow::Result<Checked> {
    let mismatch = found.as_ref().err().map(ToString::to_string);
    let reports = found.unwrap_or_default();
    let receipt = match (out, scalar, &mismatch) {
        (Some(out), Ok(scalar), None) => {
            let backend = Backend { kernels: table, threads: 1, batch: 0 };
            Some(canonical::write(out, &record::kernel_check(backend, plan, scalar, &reports)?)?)
        }
        _ => None,
    };
    let operation = |report: &OperationReport| Operation {
        operation: report.operation,
        cases: report.cases,
        outputs_sha256: hex::encode(report.outputs_sha256),
    };
    let operations = reports.iter().map(operation).collect();
    Ok(Checked { isa: table.isa.name(), held: mismatch.is_none(), operations, mismatch, receipt })
}

fn plain(checked: &[Checked]) -> String {
    let row = |checked: &Checked| {
        let cases: u64 = checked.operations.iter().map(|operation| operation.cases).sum();
        let verdict = checked.mismatch.clone().unwrap_or_else(|| "equal to scalar, bit for bit".to_owned());
        vec![checked.isa.to_owned(), checked.operations.len().to_string(), cases.to_string(), verdict]
    };
    let rows: Vec<Vec<String>> = checked.iter().map(row).collect();
    let mut text = output::table(&["instruction set", "operations", "cases", "verdict"], &rows, &[1, 2]);
    for path in checked.iter().filter_map(|checked| checked.receipt.as_ref()) {
        text += &format!("\nreceipt  {}", path.display());
    }
    text
}
