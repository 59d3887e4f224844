//! Re-encoding the weights of a GGUF file: `assay convert`.
//!
//! ```text
//! plan.rs      what becomes of every tensor: copied, re-encoded, or its scale moved to a `.scale` tensor
//! decoded.rs   what a tensor decodes to, whatever its format: the digest that must not change
//! arch.rs      another architecture's name for the same graph
//! metadata.rs  what of the metadata follows from the formats, and from the name
//! ```
//!
//! The new file is written under a temporary name, read again, and held to the old one tensor by tensor: digests of decoded
//! weights, and the bytes of what was copied. Only then does it get its name.

mod arch;
mod decoded;
mod metadata;
mod plan;

use crate::files;
use crate::runs::file::ModelFile;
pub use arch::Renamed;
use assay_engine::gguf::{Gguf, Writer};
use assay_engine::quant::Format;
use assay_engine::quant::i2s::Packing;
use assay_engine::tensor::Matrix;
use decoded::Decoded;
use plan::{Part, Plan};
use serde::Serialize;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// Formats that ternary tensors can be converted to.
pub const TARGETS: [Format; 13] = [
    Format::I2S,
    Format::I2S64,
    Format::LinearPm2,
    Format::Qk256,
    Format::I2R4,
    Format::T5,
    Format::BitNet32,
    Format::Tq1_0,
    Format::Tq2_0,
    Format::Q2_0,
    Format::F16,
    Format::Bf16,
    Format::F32,
];

/// Formats that the embedding and the head can be converted to.
pub const HEADS: [Format; 7] =
    [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q6K, Format::F16, Format::Bf16, Format::F32];

/// Architectures that a file can be renamed to: those that llama.cpp knows, with the graph of BitNet b1.58.
pub const ARCHITECTURES: [&str; 1] = ["bitnet"];

/// What to convert to, and how to read what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Format for the ternary tensors, one of [`TARGETS`].
    pub target: Format,
    /// Format for ternary tensors whose rows are no whole blocks of `target`, one of [`TARGETS`].
    pub fallback: Option<Format>,
    /// Format for the dense embedding and head, one of [`HEADS`]; `None` leaves them.
    pub head: Option<Format>,
    /// How tensors of type 36 are packed in the input.
    pub packing: Packing,
    /// The architecture that the new file names, one of [`ARCHITECTURES`]; `None` leaves the old name.
    pub arch: Option<&'static str>,
}

/// What became of one tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name.
    pub name: String,
    /// Format before.
    pub from: &'static str,
    /// Format after.
    pub to: &'static str,
    /// Logical rows and columns.
    pub shape: [usize; 2],
    /// Bytes before.
    pub bytes_before: usize,
    /// Bytes after.
    pub bytes_after: usize,
    /// Digest of the decoded weights, the same before and after; with the `.scale` tensor where there is one.
    pub decoded_sha256: Option<String>,
    /// The scale went to a `.scale` tensor, because the format cannot hold it.
    pub scale_moved: bool,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Its tensors.
    pub rows: Vec<Row>,
    /// Its architecture, where [`Request::arch`] asks for one.
    pub arch: Option<Renamed>,
}

/// Why a file was not converted. Nothing has been written then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read, converted or written.
    #[error(transparent)]
    Engine(#[from] assay_engine::Error),
    /// The new file does not decode to the same weights: a defect of this program.
    #[error(
        "tensor '{tensor}': {what} after conversion: expected {before}, got {after}; nothing was written"
    )]
    Mismatch {
        /// The tensor.
        tensor: String,
        /// What differs.
        what: &'static str,
        /// Before.
        before: String,
        /// After.
        after: String,
    },
}

/// Converts `input` into the file at `output`, which appears whole or not at all.
///
/// # Errors
/// - [`Error::Engine`] if the input is damaged, a tensor does not fit its new format, the graph is not that of the new
///   architecture, or the output cannot be written.
/// - [`Error::Mismatch`] if the new file does not decode to the same weights.
pub fn convert(input: &Path, output: &Path, request: Request) -> Result<Converted, Error> {
    let real = files::output_file(output, &[input])?;
    let file = ModelFile::open(input)?;
    let mut gguf = file.gguf()?;
    gguf.read_i2s_as(request.packing);
    let arch = request.arch.map(|name| Renamed::new(&gguf, name)).transpose()?;
    let plan = Plan::new(&gguf, request)?;
    let temporary = files::temporary_beside(&real)?;
    let mut out = BufWriter::new(temporary.as_file());
    writer(&gguf, &plan, request, arch.as_ref()).write(&mut out)?;
    let failed = |e: &std::io::Error| assay_engine::Error::file(&real, e);
    out.flush().map_err(|e| failed(&e))?;
    drop(out);
    temporary.as_file().sync_all().map_err(|e| failed(&e))?;
    let rows = {
        let written = ModelFile::open(temporary.path())?;
        held(&gguf, &written.gguf()?, &plan)?
    };
    temporary.persist(&real).map_err(|e| failed(&e.error))?;
    Ok(Converted { rows, arch })
}

fn writer<'a>(gguf: &Gguf<'_>, plan: &'a Plan<'_>, request: Request, arch: Option<&Renamed>) -> Writer<'a> {
    let mut writer = Writer::new();
    writer.version(gguf.version());
    for (key, value) in metadata::converted(gguf, plan, request, arch) {
        writer.put(key, value);
    }
    for part in &plan.parts {
        writer.tensor(part.name.as_ref(), &part.dims, part.kind, part.data.as_ref());
    }
    writer
}

/// Holds the written file to the one it was made from.
fn held(before: &Gguf<'_>, after: &Gguf<'_>, plan: &Plan<'_>) -> Result<Vec<Row>, Error> {
    let parts = plan.parts.iter().filter(|part| !part.added);
    parts.map(|part| row(before, after, part)).collect()
}

fn row(before: &Gguf<'_>, after: &Gguf<'_>, part: &Part<'_>) -> Result<Row, Error> {
    let (old, new) = (matrix(before, &part.name)?, matrix(after, &part.name)?);
    new.validate()?;
    let mismatch = |what, before: String, after: String| {
        Err(Error::Mismatch { tensor: part.name.to_string(), what, before, after })
    };
    if (old.rows, old.cols) != (new.rows, new.cols) {
        let shape = |m: &Matrix<'_>| format!("{} x {}", m.rows, m.cols);
        return mismatch("another shape", shape(&old), shape(&new));
    }
    if part.copied && old.bytes != new.bytes {
        return mismatch("other bytes", hex::encode(old.digest()), hex::encode(new.digest()));
    }
    let digest = Decoded::of(before, &old, None)?.map(|decoded| decoded.digest());
    if let Some(expected) = digest {
        let got = Decoded::of(after, &new, part.dense_scale)?.map(|decoded| decoded.digest());
        if got != Some(expected) {
            let got = got.map_or("none".to_owned(), hex::encode);
            return mismatch("another digest of decoded weights", hex::encode(expected), got);
        }
    }
    Ok(Row {
        name: part.name.to_string(),
        from: old.format.name(),
        to: new.format.name(),
        shape: [old.rows, old.cols],
        bytes_before: old.bytes.len(),
        bytes_after: new.bytes.len(),
        decoded_sha256: digest.map(hex::encode),
        scale_moved: part.scale_moved,
    })
}

fn matrix<'a>(gguf: &Gguf<'a>, name: &str) -> Result<Matrix<'a>, assay_engine::Error> {
    let tensor = gguf.tensor(name).ok_or_else(|| assay_engine::Error::Weights {
        tensor: name.to_owned(),
        problem: "is not in the file".to_owned(),
    })?;
    Matrix::of(gguf, tensor)
}
