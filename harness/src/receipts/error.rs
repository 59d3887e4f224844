//! What can go wrong when a receipt is made or written. What is wrong with somebody else's receipt is not an
//! error but a broken rule: see [`verify`](super::verify).

/// Result of everything in `receipts`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error of `receipts`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A string has not the shape that its type demands.
    #[error("expected {expected}, got {got:?}")]
    Text {
        /// The shape in words.
        expected: &'static str,
        /// The string, cut to 80 characters.
        got: String,
    },
    /// What was to be recorded could not be read from the model.
    #[error(transparent)]
    Engine(#[from] assay_engine::Error),
    /// A variable of the environment has a value that it cannot have.
    #[error(transparent)]
    Variable(#[from] assay_variables::Error),
    /// A value could not be written as canonical JSON.
    #[error("cannot write canonical JSON: {0}")]
    Json(String),
    /// The claim id is not that of the claim: something was changed after `seal`.
    #[error("the claim id is not that of the claim: seal the statement after the last change")]
    Unsealed,
    /// A file could not be created, written, renamed or read.
    #[error("{path}: {problem}")]
    File {
        /// The path as the caller gave it.
        path: String,
        /// What the operating system said.
        problem: String,
    },
    /// A key cannot be used. The message holds no part of it.
    #[error("{path}: {problem} ({advice})")]
    Key {
        /// The file, or what was to be made.
        path: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// An envelope cannot be made or changed.
    #[error("the envelope: {0}")]
    Envelope(String),
    /// A ledger is broken, or would be.
    #[error("{path}: {problem} ({advice})")]
    Ledger {
        /// The file.
        path: String,
        /// The line, and what is wrong there.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// Another receipt already has the file name: it is never overwritten.
    #[error("{path} holds another receipt; it was left as it is (move it away, or give another --out)")]
    Collision {
        /// The file that is already there.
        path: String,
    },
}

impl Error {
    /// A string of the wrong shape; keeps the first 80 characters of it.
    pub(super) fn text(expected: &'static str, got: &str) -> Error {
        Error::Text { expected, got: got.chars().take(80).collect() }
    }

    /// A key that cannot be used.
    pub(super) fn key(path: &std::path::Path, problem: &str, advice: &'static str) -> Error {
        Error::Key { path: path.display().to_string(), problem: problem.to_owned(), advice }
    }

    /// An I/O error on `path`.
    pub(super) fn file(path: &std::path::Path, error: &std::io::Error) -> Error {
        Error::File { path: path.display().to_string(), problem: error.to_string() }
    }
}
