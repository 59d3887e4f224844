//! Receipts → a table of verdicts, as Markdown and CSV.
//!
//! ```text
//! load.rs     folders of receipts → rows; a receipt that does not verify is refused, and said so
//! join.rs     baseline and candidate joined on what was claimed (polars) → verdicts
//! write.rs    Markdown and CSV, the same to the byte for the same receipts
//! ```
//!
//! Polars loads, joins, sorts and writes; what decides a verdict is compared here, digest by digest.

mod join;
mod load;
mod write;

pub use join::{Report, Row, Verdict, compare};
pub use load::{Loaded, Run, load, load_files};
pub use write::{markdown, write};

/// What can go wrong with a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error(transparent)]
    File(#[from] assay_engine::Error),
    /// No receipt was found.
    #[error(
        "{path}: no receipts (*.json) here; name a receipt or a folder that `assay run --out` or `assay check` wrote"
    )]
    Empty {
        /// Where they were looked for.
        path: String,
    },
    /// The table could not be made.
    #[error("cannot make the table: {0}")]
    Table(#[from] polars::error::PolarsError),
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;
