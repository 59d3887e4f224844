//! `assay`: parse, call, exit code.

mod args;
mod commands;
mod output;

use assay_harness::exit::Exit;
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match commands::run(args.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::error(&error);
            Exit::CouldNotRun.into()
        }
    }
}
