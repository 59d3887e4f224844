//! The small trained model that is part of the program, and the text that it was not trained on.
//!
//! Made by `scripts/train_tiny.py`; how is in `fixtures/tiny/tiny.training.json`.

use super::file::ModelFile;

/// BitNet b1.58 with bytes as tokens, trained on plays.
const MODEL: &[u8] = include_bytes!("../../../fixtures/tiny/tiny.gguf");

/// The beginning of the play that was held out.
pub const HELD_OUT: &str = include_str!("../../../fixtures/tiny/held-out.txt");

/// The model as a file.
pub fn model() -> ModelFile {
    ModelFile::embedded("tiny.gguf", MODEL)
}
