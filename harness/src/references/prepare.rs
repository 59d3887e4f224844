//! The file that a reference can read. Both sides run the same bytes: where it must be a copy, the engine runs the copy too.

use super::Abi;
use super::find::Kind;
use crate::convert::{self, Request};
use crate::runs::file::ModelFile;
use assay_engine::Error;
use assay_engine::gguf::Gguf;
use assay_engine::model::{Activation, Config};
use assay_engine::quant::Format;
use assay_engine::quant::i2s::Packing;
use std::path::{Path, PathBuf};

/// A model file, and what is to be said of it.
#[derive(Debug)]
pub struct Prepared {
    /// Where it lies.
    pub path: PathBuf,
    /// The file.
    pub file: ModelFile,
    /// The gate of the model that it was made from.
    pub activation: Activation,
    /// How it came about, where it is a copy.
    pub note: Option<String>,
}

/// Why there is no file for a reference.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unprepared {
    /// The model cannot be read, or a copy not be written.
    #[error(transparent)]
    Model(#[from] Error),
    /// Nothing that the reference reads holds exactly this model.
    #[error("llama.cpp has no form of this model: {0}")]
    NoForm(convert::Error),
}

/// Formats that llama.cpp v0.5.0 has and reads as the contract does.
const LLAMA_FORMATS: [Format; 10] = [
    Format::F32,
    Format::F16,
    Format::Bf16,
    Format::Tq1_0,
    Format::Tq2_0,
    Format::Q2_0,
    Format::Q8_0,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q6K,
];

/// The file at `path` for a reference of `kind`; a copy goes into `folder`. `activation` overrides the architecture's gate.
///
/// # Errors
/// - [`Unprepared`], as its variants say.
pub fn prepare(
    path: &Path,
    kind: Kind,
    activation: Option<Activation>,
    folder: &Path,
) -> Result<Prepared, Unprepared> {
    let path = path.canonicalize().map_err(|e| Error::file(path, &e))?;
    let file = ModelFile::open(&path)?;
    let (gate, architecture, foreign) = {
        let gguf = file.gguf()?;
        let config = Config::read(&gguf)?;
        let arch = config.arch;
        (activation.unwrap_or(arch.activation), arch.name, foreign_format(&gguf)?)
    };
    let renamed = !Abi::LlamaCpp050.architectures().contains(&architecture);
    if kind == Kind::Program || (!renamed && foreign.is_none()) {
        return Ok(Prepared { path, file, activation: gate, note: None });
    }
    let copy = folder.join(file.name());
    let request = Request {
        target: Format::Tq2_0,
        fallback: Some(Format::Q2_0),
        head: None,
        packing: Packing::default(),
        arch: renamed.then_some("bitnet"),
    };
    let converted = convert::convert(&path, &copy, request).map_err(|error| match error {
        convert::Error::Engine(error @ Error::File { .. }) => Unprepared::Model(error),
        other => Unprepared::NoForm(other),
    })?;
    let mut formats: Vec<&str> =
        converted.rows.iter().filter(|row| row.from != row.to).map(|row| row.to).collect();
    formats.sort_unstable();
    formats.dedup();
    let note = format!(
        "both sides ran an exact copy of the model {} with ternary weights in {}{}: every tensor decodes to the same weights",
        hex::encode(file.sha256()),
        formats.join(" and "),
        if renamed {
            format!(" and the architecture '{architecture}' named 'bitnet'")
        } else {
            String::new()
        },
    );
    let file = ModelFile::open(&copy)?;
    Ok(Prepared { path: copy, file, activation: gate, note: Some(note) })
}

/// A format of the file that llama.cpp has not.
fn foreign_format(gguf: &Gguf<'_>) -> assay_engine::Result<Option<Format>> {
    for tensor in gguf.tensors() {
        let format = assay_engine::tensor::Matrix::of(gguf, tensor)?.format;
        if !LLAMA_FORMATS.contains(&format) {
            return Ok(Some(format));
        }
    }
    Ok(None)
}
