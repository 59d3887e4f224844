//! Running the engine, and holding what comes out to what others computed.
//!
//! ```text
//! file.rs      a model file, mapped or embedded, and its digest
//! engine.rs    one run of the engine, with everything a receipt needs
//! golden.rs    golden data: a `models.json` and what bitnet.cpp computed for each model
//! formats.rs   weight formats held to bytes of the C++ quantisers
//! hostile.rs   the corpus of broken files held to a reader
//! matrix.rs    one digest for every number of threads and every cut of the prompt
//! builtin.rs   models of the program, found by their digest
//! compare.rs   the metrics, in fixed order in f64
//! hypotheses.rs  the engine with a known mistake in its graph
//! perplexity.rs  how well a model predicts a text
//! thresholds.rs  what parity asks for; a file may ask for something else
//! text.rs      generated text as it comes, and stop strings
//! tiny.rs      the small trained model that is part of the program
//! parity.rs    a run held to golden data: verdict and numbers
//! ```

pub mod builtin;
pub mod compare;
pub mod engine;
pub mod file;
pub mod formats;
pub mod golden;
pub mod hostile;
pub mod hypotheses;
pub mod matrix;
pub mod parity;
pub mod perplexity;
pub mod text;
pub mod thresholds;
pub mod tiny;

/// What can go wrong around a run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] assay_engine::Error),
    /// A seeded model cannot be made.
    #[error(transparent)]
    Fixture(#[from] crate::fixtures::Error),
    /// Golden data are missing or inconsistent.
    #[error("{path}: {problem}; {advice}")]
    Golden {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
        /// What the user can do about it.
        advice: &'static str,
    },
    /// The model is not the one that the golden data describe.
    #[error(
        "{model}: its SHA-256 is {got}, but the golden data describe '{name}' with {expected}: the file was changed"
    )]
    ModelChanged {
        /// The model file.
        model: String,
        /// The golden model of the same file name.
        name: String,
        /// Digest in the golden data.
        expected: String,
        /// Digest of the file.
        got: String,
    },
    /// A file of thresholds is none.
    #[error("{path}: {problem}; --thresholds takes a JSON file with fields of the table in docs/parity.md")]
    Thresholds {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;
