//! llama.cpp as a reference: the child that speaks the protocol, over [`crate::peers`].
#![expect(unsafe_code, reason = "loads libraries of another program: this process is there to bear it")]

use super::protocol::{
    Answer, CANNOT, Computed, Description, Feeding, Identity, PROTOCOL, RESULT_FILE, Request, Sequence,
};
use super::run::write_array;
use super::tensors;
use crate::files;
use crate::peers::{Llama, Llama2024, Load, Loaded, Taps};
use crate::plugins::peers::LLAMA_VERSION;
use assay_engine::exact::argmax;
use assay_engine::gguf::Gguf;
use assay_engine::model::{Activation, Config, arch};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The interface of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Abi {
    /// llama.cpp v0.5.0.
    LlamaCpp050,
    /// llama.cpp of October 2024, on which bitnet.cpp was built.
    BitnetCpp,
}

impl Abi {
    /// Every interface.
    pub const ALL: [Abi; 2] = [Abi::LlamaCpp050, Abi::BitnetCpp];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Abi::LlamaCpp050 => "llama.cpp-v0.5.0",
            Abi::BitnetCpp => "bitnet.cpp",
        }
    }

    /// Architectures of the engine that its libraries may have.
    pub(super) const fn architectures(self) -> &'static [&'static str] {
        match self {
            Abi::LlamaCpp050 => &["bitnet", "llama"],
            Abi::BitnetCpp => &["bitnet", "bitnet-b1.58", "bitnet-25", "llama"],
        }
    }
}

/// Which llama.cpp, and whether its graph may be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LlamaOptions {
    /// Its interface.
    pub abi: Abi,
    /// The folder of its libraries.
    pub folder: PathBuf,
    /// The CPU backend; `None` for the one that fits this processor best.
    pub backend: Option<String>,
    /// The libraries are those of the pinned package, not a user's own.
    pub own_package: bool,
    /// Its graph runs as it is, also where its gate is not the model's.
    pub unmodified: bool,
}

/// What ends the child: an exit code and a sentence.
type Ended = (i32, String);

/// `describe`, or `run REQUEST OUT`; returns the exit code.
pub fn main(options: &LlamaOptions, arguments: &[String]) -> i32 {
    let ended = match arguments {
        [verb] if verb == "describe" => describe(options),
        [verb, request, out] if verb == "run" => run(options, Path::new(request), Path::new(out)),
        _ => Err((2, "expected: describe, or run REQUEST.json OUT".to_owned())),
    };
    match ended {
        Ok(()) => 0,
        Err((code, problem)) => {
            drop(writeln!(std::io::stderr(), "{}", problem.replace('\n', " ")));
            code
        }
    }
}

fn describe(options: &LlamaOptions) -> Result<(), Ended> {
    let description = Description {
        protocol: PROTOCOL,
        reference: match options.abi {
            Abi::LlamaCpp050 => {
                identity("llama.cpp", LLAMA_VERSION, build(options.backend.as_deref().unwrap_or("best")))
            }
            Abi::BitnetCpp => identity("library", "of October 2024, or bitnet.cpp", build("of the user")),
        },
        architectures: options.abi.architectures().iter().map(|name| (*name).to_owned()).collect(),
        tensors: tensors::NAMES.iter().map(|name| (*name).to_owned()).collect(),
    };
    let text = serde_json::to_string_pretty(&description).map_err(|e| (2, e.to_string()))?;
    writeln!(std::io::stdout(), "{text}").map_err(|e| (2, e.to_string()))
}

fn identity(name: &str, version: &str, build: String) -> Identity {
    Identity { name: name.to_owned(), version: version.to_owned(), build: Some(build) }
}

fn build(backend: &str) -> String {
    format!("CPU backend {backend}; flash attention off, K and V in f16")
}

fn run(options: &LlamaOptions, request: &Path, out: &Path) -> Result<(), Ended> {
    let failed = |e: &dyn std::fmt::Display| (2, e.to_string());
    let text = files::read(request, 64 << 20).map_err(|e| failed(&e))?;
    let request: Request = serde_json::from_slice(&text).map_err(|e| failed(&e))?;
    if request.protocol != PROTOCOL {
        return Err((CANNOT, format!("version {} of the protocol is not spoken here", request.protocol)));
    }
    let squared_relu = override_gate(options, &request)?;
    let longest = request.sequences.iter().map(|s| s.tokens.len() + s.steps as usize).max().unwrap_or(1);
    let load = Load {
        folder: options.folder.clone(),
        backend: options.backend.clone(),
        model: request.model.clone(),
        threads: request.threads,
        context: u32::try_from(longest).map_err(|e| failed(&e))?,
    };
    let wanted: BTreeSet<String> = request.sequences.iter().flat_map(|s| s.tensors.iter().cloned()).collect();
    let taps = Some(Taps::new(wanted, squared_relu)).filter(|taps| !taps.is_empty());
    // SAFETY: this process exists to bear what the libraries do; nothing in it is of value.
    let mut llama: Box<dyn Loaded> = unsafe {
        match options.abi {
            Abi::LlamaCpp050 => Llama::load(&load, taps).map(|llama| Box::new(llama) as Box<dyn Loaded>),
            Abi::BitnetCpp => Llama2024::load(&load, taps).map(|llama| Box::new(llama) as Box<dyn Loaded>),
        }
    }
    // The library, or the model in it: nothing has been computed that could be wrong.
    .map_err(|e| (CANNOT, e))?;
    let computed = request.sequences.iter().map(|sequence| compute(llama.as_mut(), sequence, out));
    let sequences = match computed.collect::<Result<Vec<_>, _>>() {
        Ok(sequences) => sequences,
        Err(problem) => {
            // Freeing runs code of the library once more, which may crash before the problem is told.
            std::mem::forget(llama);
            return Err((2, problem));
        }
    };
    let facts = llama.facts();
    let (name, backend) = facts.name.split_once('/').unwrap_or((&facts.name, "unknown"));
    let loaded: Vec<String> =
        facts.libraries.iter().map(|(file, sha256)| format!("{file} SHA-256 {sha256}")).collect();
    let name = match (options.abi, options.own_package) {
        (Abi::LlamaCpp050, false) => "library",
        _ => name,
    };
    let mut notes = vec![format!("{name} calls the model {}", facts.model)];
    notes.extend((squared_relu > 0).then(|| {
        "the gated product of every layer was replaced by squared ReLU (llama.cpp's graph has SiLU)"
            .to_owned()
    }));
    let answer = Answer {
        protocol: PROTOCOL,
        reference: identity(name, &facts.version, format!("{}; {}", build(backend), loaded.join(", "))),
        feeding: Feeding::OneTokenAtATime,
        notes,
        sequences,
    };
    let text = serde_json::to_vec_pretty(&answer).map_err(|e| failed(&e))?;
    files::write(&out.join(RESULT_FILE), &text).map_err(|e| failed(&e))?;
    // Freeing runs code of the library once more, and shows nothing.
    std::mem::forget(llama);
    Ok(())
}

/// Layers in which the gate must be replaced: all, if the model wants squared ReLU and the graph of its architecture has SiLU; else none.
fn override_gate(options: &LlamaOptions, request: &Request) -> Result<usize, Ended> {
    let file = assay_engine::MappedFile::open(&request.model).map_err(|e| (2, e.to_string()))?;
    let gguf = Gguf::parse(file.bytes()).map_err(|e| (2, e.to_string()))?;
    let name = gguf.str("general.architecture").map_err(|e| (2, e.to_string()))?;
    let known = options.abi.architectures();
    if !known.contains(&name) {
        let (abi, known) = (options.abi.name(), known.join(", "));
        return Err((CANNOT, format!("{abi} has no architecture '{name}' (of ours it has {known})")));
    }
    let own = arch::find(name).map_err(|e| (2, e.to_string()))?.activation;
    let wanted =
        [Activation::Relu2, Activation::Silu].into_iter().find(|gate| gate.name() == request.activation);
    match wanted {
        Some(wanted) if wanted == own || options.unmodified => Ok(0),
        Some(Activation::Relu2) => {
            let config = Config::read(&gguf).map_err(|e| (2, e.to_string()))?;
            Ok(config.layers)
        }
        _ => Err((CANNOT, format!("llama.cpp's graph has no gate '{}'", request.activation))),
    }
}

/// Feeds a sequence token by token, and writes its arrays.
fn compute(llama: &mut dyn Loaded, sequence: &Sequence, out: &Path) -> Result<Computed, String> {
    let vocab = llama.facts().vocab as usize;
    llama.forget()?;
    let (mut logits, mut generated) = (Vec::new(), Vec::new());
    let mut rows: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for at in 0..sequence.tokens.len() + sequence.steps as usize {
        let token = match sequence.tokens.get(at) {
            Some(token) => *token,
            None => {
                // The vocabulary has fewer than 2^32 tokens.
                let next = argmax(&logits[logits.len() - vocab..]) as u32;
                generated.push(next);
                next
            }
        };
        if token as usize >= vocab {
            return Err(format!("token {token} is not below {vocab}"));
        }
        llama.feed_one(token.cast_signed())?;
        logits.extend_from_slice(llama.row()?);
        for (name, row) in llama.tapped()? {
            rows.entry(name).or_default().extend(row);
        }
    }
    let fed = sequence.tokens.len() + generated.len();
    let id = &sequence.id;
    let file = format!("{id}.logits.npy");
    let write = |file: &str, cols, values: &[f32]| {
        write_array(&out.join(file), cols, values).map_err(|e| format!("{file}: {e}"))
    };
    write(&file, vocab, &logits)?;
    let mut tensors = BTreeMap::new();
    for (name, values) in rows.into_iter().filter(|(name, _)| sequence.tensors.contains(name)) {
        if !values.len().is_multiple_of(fed) {
            return Err(format!("{name} was not there for every token"));
        }
        let file = format!("{id}.{name}.npy");
        write(&file, values.len() / fed.max(1), &values)?;
        tensors.insert(name, file);
    }
    Ok(Computed { id: id.clone(), generated, logits: file, tensors })
}
