//! `assay receipt replay`.

use super::{options, read, under_its_name};
use crate::args::{Device, ReplayReceipt};
use crate::output;
use assay_harness::exit::Exit;
use assay_harness::files;
use assay_harness::receipts::canonical;
use assay_harness::receipts::replay::{Options, Replayed, replay};
use assay_harness::receipts::types::{Statement, Status};
use assay_harness::runs::engine::processors;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Serialize)]
struct Output {
    file: String,
    #[serde(flatten)]
    replayed: Replayed,
    receipt: Option<PathBuf>,
}

pub(super) fn run(args: &ReplayReceipt) -> anyhow::Result<Exit> {
    let Device::Cpu = args.device;
    let bytes = read(&args.receipt)?;
    args.out.as_deref().map(files::output_folder).transpose()?;
    let options = Options {
        verify: under_its_name(&options(&args.holding)?, &args.receipt),
        isa: args.isa,
        threads: args.threads.unwrap_or_else(processors),
    };
    let replayed = replay(&bytes, &options);
    let write = |out: &PathBuf, statement: &Statement| canonical::write(out, statement);
    let receipt =
        args.out.as_ref().zip(replayed.statement.as_ref()).map(|(out, s)| write(out, s)).transpose()?;
    let status = replayed.report.statement.as_ref().map(|statement| statement.predicate.status);
    let exit = match replayed.verdict.exit() {
        Exit::Held if args.held && status == Some(Status::Failed) => Exit::Mismatch,
        exit => exit,
    };
    let output = Output { file: args.receipt.display().to_string(), replayed, receipt };
    if args.json {
        output::json(&output)?;
    } else {
        output::line(&plain(&output))?;
    }
    Ok(exit)
}

fn plain(output: &Output) -> String {
    let replayed = &output.replayed;
    let mut lines =
        vec![format!("{}  {}", replayed.verdict.name(), output.file), format!("  {}", replayed.message)];
    if replayed.report.statement.as_ref().is_some_and(|s| s.predicate.status == Status::Failed) {
        lines.push("  the run it is about: FAILED".to_owned());
    }
    let decided = replayed.report.decided_by();
    lines.extend(decided.map(|rule| {
        format!("  the receipt is {}: {}: {}", replayed.report.verdict.name(), rule.rule.name(), rule.message)
    }));
    lines.extend(output.receipt.as_ref().map(|path| format!("  receipt of the replay: {}", path.display())));
    lines.join("\n")
}
