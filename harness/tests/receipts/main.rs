//! Receipts from outside: writing, schema, rules, examples, hostile bytes.
//!
//! `ASSAY_UPDATE=1 cargo test -p assay-harness --test receipts` writes the schema and the negative examples anew.

mod bytes;
mod committed;
mod files;
mod made_up;
mod negatives;
mod writing;

use std::path::PathBuf;

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether committed files are to be written anew instead of compared.
fn updating() -> bool {
    std::env::var_os("ASSAY_UPDATE").is_some_and(|value| value == "1")
}
