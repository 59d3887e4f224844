//! Other implementations behind one protocol: `docs/reference-protocol.md`.
//!
//! ```text
//! protocol.rs   what is said, as types; the schemas come from them
//! tensors.rs    names of intermediate tensors
//! run.rs        starts a program, waits, reads and holds what it wrote to what was asked
//! find.rs       the references there are: names on the command line → a program
//! install.rs    fetches those that are not part of the program
//! prepare.rs    the file that a reference can read: the model's own, or an exact copy
//! llama.rs      llama.cpp, in a child of this program
//! ```
//!
//! A reference is a program, never linked code: when it crashes, hangs or writes nonsense, that is a finding.

use crate::plugins::fault;

mod find;
mod install;
mod llama;
mod prepare;
pub mod protocol;
mod run;
pub mod tensors;

pub use find::{Found, Kind, LIST, Listed, Reference, find};
pub use install::install;
pub use llama::{Abi, LlamaOptions, main as llama_main};
pub use prepare::{Prepared, Unprepared, prepare};
pub use protocol::{Feeding, Identity, Request, Sequence};
pub use run::{Failure, Outputs, Program, Rows};

/// Prepares this process for the code of strangers: no core files, no life after the parent.
pub fn bear() {
    fault::limit();
}
