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
//! keys       Ed25519 keys
//! envelope   DSSE: signatures around a receipt
//! ledger     receipts in a chain of lines
//! verify     the rules, in order, and the verdict
//! replay     the claim run again elsewhere
//! examples   one receipt per rule that breaks it
//! ```
//!
//! A module uses only those above it. See `docs/receipts.md`.

pub mod canonical;
pub mod envelope;
mod error;
pub mod examples;
pub mod keys;
pub mod ledger;
pub mod machine;
mod parse;
pub mod record;
pub mod replay;
pub mod schema;
pub mod text;
pub mod types;
pub mod verify;

pub use error::{Error, Result};
