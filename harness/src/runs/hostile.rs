//! The corpus of broken files, held to a reader.

use assay_engine::gguf::Gguf;
use assay_engine::gguf::hostile::corpus;
use assay_engine::kind::Kind;
use assay_engine::tensor::Matrix;

/// What a reader says about the bytes of a file; `None` if it takes them.
pub type Reader = fn(&[u8]) -> Option<String>;

/// A broken file that was not refused as it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} ({rule}) is {} instead of {expected:?}{}", got.as_ref().map_or("taken".to_owned(), |got| format!("refused with {got:?}")), kind.map_or(String::new(), |kind| format!("; the error is that {kind}")))]
pub struct Accepted {
    /// The file.
    pub name: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
    /// What the reader said.
    pub got: Option<String>,
    /// What it must say.
    pub expected: &'static str,
    /// The kind of error that such a reader makes.
    pub kind: Option<Kind>,
}

/// What the engine's reader, or its check of the weights, says about a file.
pub fn engine(bytes: &[u8]) -> Option<String> {
    let gguf = match Gguf::parse(bytes) {
        Ok(gguf) => gguf,
        Err(error) => return Some(error.to_string()),
    };
    let validate = |tensor| Matrix::of(&gguf, tensor)?.validate();
    gguf.tensors().iter().find_map(|tensor| validate(tensor).err()).map(|error| error.to_string())
}

/// Runs `reader` on every broken file: their number, if each was refused with its exact message.
///
/// # Errors
/// - the first file that was not.
pub fn refused_by(reader: Reader) -> Result<usize, Accepted> {
    let corpus = corpus();
    for hostile in &corpus {
        let got = reader(&hostile.bytes);
        if got.as_deref() != Some(hostile.error) {
            let (name, rule, expected) = (hostile.name, hostile.rule, hostile.error);
            return Err(Accepted { name, rule, got, expected, kind: hostile.kind() });
        }
    }
    Ok(corpus.len())
}
