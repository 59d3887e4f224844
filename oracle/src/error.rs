//! What can go wrong, as one enum.

/// Result of everything in this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error of the oracle. Messages are one line: what, where, expected, got.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request or the model is in order, but asks for what this program does not have.
    #[error("the oracle cannot do this: {0}")]
    Refused(String),
    /// The request does not fit the protocol.
    #[error("request: {0}")]
    Request(String),
    /// A file ends before what it must hold.
    #[error("{what} at offset {offset}: expected {expected} bytes, got {got}")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it begins, in bytes from the start of the file.
        offset: usize,
        /// Bytes that it needs.
        expected: u64,
        /// Bytes that are there.
        got: usize,
    },
    /// A file contradicts itself or the format.
    #[error("{what}: {problem}")]
    Malformed {
        /// Key, tensor or part of the file.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A key or tensor that the model needs is not in the file.
    #[error("{0} is missing")]
    Missing(String),
    /// A computed value is NaN or infinite, or too large for what it must be rounded to.
    #[error("{what}: element {element} is not finite")]
    NotFinite {
        /// Tensor that holds it, or linear layer that is given it.
        what: String,
        /// Its place in the row.
        element: usize,
    },
    /// The operating system refused.
    #[error("{what}: {problem}")]
    System {
        /// File or resource.
        what: String,
        /// What the system said.
        problem: String,
    },
    /// The command line is not one of the two commands.
    #[error("usage: [--f16-attention] describe | run REQUEST.json OUT")]
    Usage,
    /// Another error, with the file in which it was found.
    #[error("{file}: {error}")]
    In {
        /// The path as the caller gave it.
        file: String,
        /// What was found in it.
        error: Box<Error>,
    },
}

impl Error {
    /// The exit code of the reference protocol: 3 for what this program cannot do, 2 for everything else.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Refused(_) => 3,
            Error::In { error, .. } => error.exit_code(),
            _ => 2,
        }
    }

    pub(crate) fn malformed(what: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Malformed { what: what.into(), problem: problem.into() }
    }

    pub(crate) fn system(what: impl Into<String>, error: &std::io::Error) -> Error {
        Error::System { what: what.into(), problem: error.to_string() }
    }

    pub(crate) fn in_file(self, file: &std::path::Path) -> Error {
        Error::In { file: file.display().to_string(), error: Box::new(self) }
    }
}

/// A name from a file or a request, quoted as one line of a message shows it: escaped, and cut when long.
pub(crate) fn shown(name: &str) -> String {
    let start: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    let more = if name.chars().nth(80).is_some() { "…" } else { "" };
    format!("'{start}{more}'")
}
