//! Another program's whole models: llama.cpp in a child process, which stays loaded and answers one request at a time.
//!
//! ```text
//! abi.rs        C interfaces: layouts held to what the library does before they are relied on
//! llama_2024.rs the same of libraries with the interface of October 2024, which bitnet.cpp has
//! llama_abi.rs  what is used of its C interface
//! llama.rs      a loaded model, behind safe functions
//! taps.rs       what of its graph is read, and replaced, while it computes
//! worker.rs     the child: reads a line of JSON, does it, writes a line of JSON
//! client.rs     the parent: [`Peer`]
//! ```
//!
//! Between requests the child does nothing: its threads sleep, so that what runs in the parent meanwhile has the cores.

#[macro_use]
mod abi;
mod client;
mod llama;
mod llama_2024;
mod llama_abi;
mod taps;
mod worker;

pub use client::{Options, Peer};
pub(crate) use client::{beginning, ending, last_words_of};
pub(crate) use llama::Llama;
pub(crate) use llama_2024::Llama2024;
pub(crate) use taps::Taps;
pub use worker::run_worker;

use crate::files;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tokens that llama.cpp computes at once of a prompt.
pub const UBATCH: u32 = 512;

/// What the worker loads: JSON on its command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The folder of llama.cpp's libraries.
    pub folder: PathBuf,
    /// The CPU backend; `None` for the one that fits this processor best.
    pub backend: Option<String>,
    /// The GGUF file.
    pub model: PathBuf,
    /// Threads, for prompts and for single tokens.
    pub threads: u32,
    /// Positions that prompt and generated tokens may take together.
    pub context: u32,
}

/// What was loaded, in the words of the library.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The program and its CPU backend: `llama.cpp/icelake`.
    pub name: String,
    /// The library's version.
    pub version: String,
    /// The files that were loaded, each with its SHA-256.
    #[serde(default)]
    pub libraries: Vec<(String, String)>,
    /// The model: architecture, size, weight format.
    pub model: String,
    /// Rows of logits.
    pub vocab: u32,
    /// Positions there are.
    pub context: u32,
    /// Threads.
    pub threads: u32,
}

/// Largest library whose digest is taken.
const LIBRARY_MAX: usize = 1 << 30;

/// Names of files with their SHA-256.
fn digests(paths: &[impl AsRef<Path>]) -> Result<Vec<(String, String)>, String> {
    let one = |path: &Path| {
        let bytes = files::read(path, LIBRARY_MAX).map_err(|e| e.to_string())?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, hex::encode(Sha256::digest(bytes))))
    };
    paths.iter().map(|path| one(path.as_ref())).collect()
}

/// A model in another program, with a context: what every interface gives.
pub(crate) trait Loaded {
    /// What was loaded.
    fn facts(&self) -> &Facts;

    /// Forgets all tokens.
    fn forget(&mut self) -> Result<(), String>;

    /// Feeds one token; its logits are there when it returns.
    fn feed_one(&mut self, token: i32) -> Result<(), String>;

    /// The logits after the last token.
    fn row(&self) -> Result<&[f32], String>;

    /// What was read of the graph since the last token: see [`Taps`].
    fn tapped(&mut self) -> Result<BTreeMap<String, Vec<f32>>, String>;
}

/// A line of the parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    Prefill { tokens: Vec<u32> },
    Decode { prompt: Vec<u32>, steps: u32 },
    Logits { tokens: Vec<u32> },
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Request::Prefill { tokens } => write!(f, "a prompt of {} tokens", tokens.len()),
            Request::Decode { prompt, steps } => write!(f, "{steps} tokens after {}", prompt.len()),
            Request::Logits { tokens } => write!(f, "the logits after {} tokens", tokens.len()),
        }
    }
}

/// A line of the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    /// The model is loaded.
    Ready(Facts),
    /// It is not, or the request cannot be done: what is wrong, where, what to do.
    Refused { message: String },
    /// Nanoseconds of the prompt.
    Prefilled { ns: u64 },
    /// Nanoseconds of each token.
    Decoded { ns: Vec<u64> },
    /// Bits of the f32: JSON keeps them whole.
    Logits { bits: Vec<u32> },
}

/// Why there is no answer. Nothing was measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The worker cannot be started.
    #[error("the process for llama.cpp cannot be started: {0}")]
    Start(String),
    /// In the words of the worker.
    #[error("{0}")]
    Refused(String),
    /// It ended.
    #[error("llama.cpp {how} while it was at {doing}{said}; start it again, or choose another backend")]
    Died {
        /// The request.
        doing: String,
        /// The signal or exit code.
        how: String,
        /// Its last words, if any, after a colon.
        said: String,
    },
    /// It did not answer in time, and was ended.
    #[error(
        "llama.cpp did not answer within {seconds} s while it was at {doing}; allow more time or ask for less"
    )]
    Hung {
        /// The request.
        doing: String,
        /// Seconds that it was given.
        seconds: u64,
    },
    /// It wrote what is no answer to the request, and was ended.
    #[error(
        "llama.cpp's process wrote no answer to {doing} but '{line}'; it must be the one of this program"
    )]
    Garbage {
        /// The request.
        doing: String,
        /// The beginning of the line.
        line: String,
    },
}
