//! Broken files, one or more for each rule of the format, each with the exact message that it must give.
//!
//! They are built from one small [`valid`] file by one change each, so that nothing else in them is wrong.
//! This is product code: a check of an installation can run them in a few milliseconds.

mod draft;
mod header;
mod infos;
mod layout;
mod metadata;
mod payload;

use crate::kind::Kind;
use draft::Draft;

/// Which layer must refuse a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// [`super::Gguf::parse`].
    Parse,
    /// The directory is in order; the check of the weights themselves must find it.
    Payload,
}

/// A file that must be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostile {
    /// Short name, unique in the corpus.
    pub name: &'static str,
    /// The rule that the file breaks.
    pub rule: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
    /// The message that it must give, exactly.
    pub error: &'static str,
    /// Who must give it.
    pub stage: Stage,
}

impl Hostile {
    /// The published kind of error that a reader makes who takes this file.
    pub fn kind(&self) -> Option<Kind> {
        match self.rule {
            layout::OVERLAP | layout::GAP | layout::TRAILING => Some(Kind::ScaleReadAsPadding),
            layout::BLOCKS => Some(Kind::Group128UnderGroup64),
            payload::TERNARY => Some(Kind::CodeMapWithoutZero),
            _ => None,
        }
    }
}

/// Every broken file: header, metadata, tensor list and layout in the order of the format, then payloads.
pub fn corpus() -> Vec<Hostile> {
    let parts = [header::cases(), metadata::cases(), infos::cases(), layout::cases(), payload::cases()];
    parts.into_iter().flatten().collect()
}

/// The small file that all others are made from: seven metadata entries, and the tensors `norm` (F32,
/// `[32]`), `w` (I2_S, `[128, 2]`), `half` (F16, `[8]`) and `tile` (I8, `[68]`: a QK256 row of 200 weights).
pub fn valid() -> Vec<u8> {
    Draft::valid().bytes()
}

/// A file that [`super::Gguf::parse`] must refuse.
fn parse(name: &'static str, rule: &'static str, bytes: Vec<u8>, error: &'static str) -> Hostile {
    Hostile { name, rule, bytes, error, stage: Stage::Parse }
}
