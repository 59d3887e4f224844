//! The references there are: what the command line names, and the program behind it.

use super::run::Program;
use super::{Abi, LlamaOptions};
use crate::files;
use crate::plugins::Source;
use crate::plugins::peers::{self, Found as Peer};
use assay_engine::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// The hidden subcommand that is a program of the protocol.
const CHILD: &str = "reference-child";
/// Largest program whose digest is taken.
const PROGRAM_MAX: usize = 1 << 30;

/// A reference that can be run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What the command line called it.
    pub name: String,
    /// What starts it.
    pub program: Program,
    /// What it needs to be given.
    pub kind: Kind,
}

/// What a reference needs to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The model's own file.
    Program,
    /// A file that llama.cpp reads: the model's own, or an exact copy in formats and under a name that it knows.
    Llama,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is here.
    Here(Reference),
    /// It is not, and this says what to run.
    Absent(String),
}

impl Reference {
    /// Digest of a user's program, in hex. `None` where there is no one file: a library says in its build what was loaded.
    pub fn sha256(&self) -> Option<String> {
        let [program] = &self.program.0[..] else { return None };
        let bytes =
            files::read(Path::new(program), PROGRAM_MAX).ok().filter(|bytes| bytes.len() <= PROGRAM_MAX)?;
        Some(hex::encode(Sha256::digest(bytes)))
    }
}

/// A line of `assay reference list`.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// How it is named.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
}

/// The references that have a name.
pub const LIST: [Listed; 4] = [
    Listed {
        name: "oracle",
        what: "a naive f64 implementation that shares no code with the engine; oracle:f64 does not round to f16 in attention",
    },
    Listed { name: "llama.cpp", what: "llama.cpp v0.5.0; llama.cpp:BACKEND for one of its CPU backends" },
    Listed {
        name: "library:PATH",
        what: "your own build of a relative of llama.cpp, with --abi llama.cpp-v0.5.0 or bitnet.cpp",
    },
    Listed { name: "transformers", what: "Hugging Face transformers in PyTorch" },
];

/// The script that speaks the protocol for transformers.
pub(super) const TRANSFORMERS: &str = "transformers_reference.py";

/// Finds a reference by what the command line says. `assay` is this program; `folder` is where peers lie. With `unmodified`, llama.cpp's
/// graph runs as it is, also where its gate is not the model's.
///
/// # Errors
/// - [`Error::Input`] for a name that is none, or a library without an interface;
/// - a tarball of llama.cpp other than the one that is pinned.
pub fn find(name: &str, abi: Option<&str>, assay: &Path, folder: &Path, unmodified: bool) -> Result<Found> {
    let own = |arguments: &[&str], kind| {
        let program = [assay.to_string_lossy().into_owned(), CHILD.to_owned()];
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let program = Program(program.into_iter().chain(arguments).collect());
        Found::Here(Reference { name: name.to_owned(), program, kind })
    };
    match name.split_once(':').map_or(name, |(name, _)| name) {
        "oracle" => match name.split_once(':') {
            None => Ok(own(&["oracle", "--f16-attention"], Kind::Program)),
            Some((_, "f64")) => Ok(own(&["oracle"], Kind::Program)),
            Some(_) => Err(usage("--reference", "oracle, or oracle:f64".to_owned(), name)),
        },
        "llama.cpp" => Ok(match peers::find(name, folder)? {
            Peer::Here(Source::Llama(folder, backend)) => {
                let options =
                    LlamaOptions { abi: Abi::LlamaCpp050, folder, backend, own_package: true, unmodified };
                own(&["llama.cpp", &said(&options)?], Kind::Llama)
            }
            Peer::Here(_) => Found::Absent(format!("'{name}' runs no whole models here")),
            Peer::Absent(why) => Found::Absent(why),
        }),
        "library" => {
            let options = library(name, abi, unmodified)?;
            // A library of the newer interface reads what llama.cpp reads; one of the older may have formats of its own.
            let kind = if options.abi == Abi::LlamaCpp050 { Kind::Llama } else { Kind::Program };
            Ok(own(&["llama.cpp", &said(&options)?], kind))
        }
        "transformers" => Ok(transformers(name, folder)),
        _ => program(name),
    }
}

/// Options as an argument.
fn said(options: &LlamaOptions) -> Result<String> {
    let folder = options.folder.display().to_string();
    serde_json::to_string(options)
        .map_err(|_| usage("the folder of libraries", "a path in UTF-8".to_owned(), &folder))
}

/// A word on the command line that means nothing.
fn usage(what: &'static str, expected: String, got: &str) -> Error {
    Error::Input { what, expected, got: got.to_owned() }
}

/// A user's own build of a relative of llama.cpp: `library:FOLDER`, or the path of its libllama.
fn library(name: &str, abi: Option<&str>, unmodified: bool) -> Result<LlamaOptions> {
    let path = Path::new(name.split_once(':').map_or("", |(_, path)| path));
    let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    let no_folder = |_| usage("--reference", "library:PATH, a folder of libraries".to_owned(), name);
    let folder = folder.canonicalize().map_err(no_folder)?;
    let found = Abi::ALL.into_iter().find(|known| Some(known.name()) == abi);
    let names = || Abi::ALL.map(Abi::name).join(", ");
    let abi = found.ok_or_else(|| usage("--abi of library:PATH", names(), abi.unwrap_or("none")))?;
    Ok(LlamaOptions { abi, folder, backend: None, own_package: false, unmodified })
}

fn transformers(name: &str, folder: &Path) -> Found {
    let home = folder.join("transformers");
    let (python, script) = (home.join("venv/bin/python"), home.join(TRANSFORMERS));
    if !python.exists() || !script.is_file() {
        return Found::Absent(format!(
            "transformers is not in {}; get it with: assay reference install transformers",
            home.display()
        ));
    }
    let program = Program([python, script].map(|path| path.to_string_lossy().into_owned()).to_vec());
    Found::Here(Reference { name: name.to_owned(), program, kind: Kind::Program })
}

/// A user's own program: an executable file, or a command line.
fn program(name: &str) -> Result<Found> {
    let words: Vec<String> = match Path::new(name).canonicalize() {
        Ok(path) if path.is_file() => vec![path.to_string_lossy().into_owned()],
        _ => name.split_whitespace().map(str::to_owned).collect(),
    };
    if !words.first().is_some_and(|first| which(first)) {
        let names = LIST.map(|listed| listed.name).join(", ");
        let expected = format!(
            "{names}, golden, golden:DIR, or a program that speaks the protocol (docs/reference-protocol.md)"
        );
        return Err(usage("--reference", expected, name));
    }
    Ok(Found::Here(Reference { name: name.to_owned(), program: Program(words), kind: Kind::Program }))
}

/// Whether a program of this name would be found.
fn which(name: &str) -> bool {
    if name.contains('/') {
        return Path::new(name).is_file();
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(name).is_file())
}
