//! Receipts from outside: writing, schema, rules, examples, hostile bytes.
//!
//! `ASSAY_UPDATE=1 cargo test -p assay-harness --test receipts` writes the schema and the negative examples anew.

#![expect(clippy::print_stderr, reason = "says what was skipped")]

mod bytes;
mod committed;
mod files;
mod ledgers;
mod made_up;
mod negatives;
mod replaying;
mod signed;
mod writing;

use assay_variables::UPDATE;
use std::path::PathBuf;

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether committed files are to be written anew instead of compared.
fn updating() -> bool {
    UPDATE.read().expect("a flag")
}

/// Says what this machine cannot do, where a person sees it.
fn skipped(why: &str) {
    eprintln!("skipped: {}", why.trim_start_matches("skipped: "));
}
