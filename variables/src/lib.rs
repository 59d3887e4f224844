//! The environment variables of Assay: one table, and the only place that reads them.
//!
//! ```text
//! read → table → page
//!              → testing: set for a while, slow tests left out
//! ```
//!
//! Each variable is a constant whose type is the type of its value, so that none is read as something else:
//!
//! ```
//! let seed: Option<u64> = assay_variables::SEED.read()?;
//! let strict: bool = assay_variables::STRICT.read()?;
//! # Ok::<(), assay_variables::Error>(())
//! ```
//!
//! A variable that is empty counts as not set. `docs/environment.md` is [`page`], held fresh by a test.

mod read;

mod table;

mod page;

mod testing;

pub use page::page;
pub use read::{Error, Flag, Foreign, Hidden, Kind, Number, Path, Reader, Row, Secret, Variable, Words};
pub use table::*;
pub use testing::{Guard, skip_slow};
