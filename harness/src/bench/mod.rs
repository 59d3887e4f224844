//! Kernels timed beside each other, beside other programs' and beside what the core can do at most.
//!
//! ```text
//! setting.rs   cache, stream, gemm: the matrices, and who runs on them
//! model.rs     whole models, ours and a peer's, in turns
//! audit.rs     timed runs held to a checked one
//! limit.rs     what memory and cores allow at most, for whole models
//! time.rs      rounds in turn, median and spread, ratios within a round
//! ```
//!
//! On a shared machine a time means nothing by itself: all contestants of a setting take turns within one run, and what
//! counts are ratios of one round to the same round. An answer is held to scalar before it is timed.

pub mod audit;
pub mod limit;
pub mod model;
mod setting;
mod time;

pub use setting::{BenchError, Setting, contest};
pub use time::{Line, Spread};
