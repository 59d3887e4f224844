//! The engine beside another implementation: whether they agree, and if not, where they part and which known mistake explains it.
//!
//! ```text
//! sensitivity.rs   how far the engine's own logits move when only roundings change
//! judge.rs         two rows of logits after the same tokens: agreement, a tie, or a mismatch
//! live.rs          prompts through both sides
//! explain.rs       operation by operation: the first that differs, and what it differs on its own
//! heatmap.rs       a picture of that
//! diagnose.rs      the mistakes that explain what the reference computed
//! matrix.rs        models × references × prompts
//! ```

pub mod diagnose;
pub mod explain;
pub mod heatmap;
pub mod judge;
pub mod live;
pub mod matrix;
pub mod sensitivity;

use crate::references::{Failure, Unprepared};

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] assay_engine::Error),
    /// There is no file of the model for the reference.
    #[error(transparent)]
    Prepare(#[from] Unprepared),
    /// A run could not be made.
    #[error(transparent)]
    Run(#[from] crate::runs::Error),
    /// The reference gave nothing that can be compared.
    #[error("{reference}: {failure}")]
    Reference {
        /// The reference.
        reference: String,
        /// What was wrong.
        failure: Failure,
    },
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;
