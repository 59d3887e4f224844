//! `assay report`: two sets of receipts compared.

use crate::args;
use crate::output;
use assay_harness::exit::Exit;
use assay_harness::reports;

pub(super) fn run(args: &args::Report) -> anyhow::Result<Exit> {
    let report = reports::compare(&reports::load(&args.baseline)?, &reports::load(&args.candidate)?)?;
    let paths = reports::write(&args.out, &report)?;
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&reports::markdown(&report))?;
        paths.iter().try_for_each(|path| output::line(&format!("written  {}", path.display())))?;
    }
    Ok(Exit::of(report.held()))
}
