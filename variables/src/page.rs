//! The page of the documentation.

use crate::read::{Reader, Row};
use crate::table::ALL;

const HEAD: &str = "\
# Environment variables

Every variable that the program, its tests and its scripts read. One that is empty counts as not set; a value that is not
allowed is an error that says what is. *Recorded*: a receipt says what the variable was set to.

An option of the command line wins over a variable.

| variable | value | read by | recorded | what it does |
| --- | --- | --- | --- | --- |
";

const FOOT: &str = "
This page is written by `ASSAY_UPDATE=1 cargo test -p assay-variables`, from the table in `variables/src/table.rs`. Nothing else in the
Rust sources reads a variable, save those of cargo and `PATH`. `harness/build.rs` gives the compiler variables of its own (`ASSAY_RUSTC` and
others): facts of the build, which nothing reads when the program runs.
";

/// `docs/environment.md`.
pub fn page() -> String {
    let rows: String = ALL.iter().map(line).collect();
    format!("{HEAD}{rows}{FOOT}")
}

fn line(row: &Row) -> String {
    let Row { name, kind, what, readers, recorded } = row;
    let readers = readers.iter().copied().map(Reader::name).collect::<Vec<_>>().join(", ");
    let recorded = if *recorded { "yes" } else { "no" };
    format!("| `{name}` | {} | {readers} | {recorded} | {what} |\n", kind.allowed())
}
