//! The evidence that a run happened as claimed: an in-toto statement in canonical JSON, and what checks it.
//!
//! ```text
//! text       strings with a shape: digests, u64, decimals, dates, names
//! types      what a receipt holds
//! machine    facts of this machine and this build
//! canonical  RFC 8785 bytes, the two identities, file names, writing
//! record     what ran → a receipt; the only one here that knows the engine
//! schema     JSON Schema generated from the types
//! parse      bytes of strangers → JSON, with nothing lost on the way
//! verify     the rules, in order, and the verdict
//! examples   one receipt per rule that breaks it
//! ```
//!
//! A module uses only those above it. See `docs/receipts.md`.

pub mod canonical;
mod error;
pub mod examples;
pub mod machine;
mod parse;
pub mod record;
pub mod schema;
pub mod text;
pub mod types;
pub mod verify;

pub use error::{Error, Result};
