//! Ids to text as they come: a character appears when its last byte has.

use super::Tokenizer;
use crate::error::Result;

/// Turns ids into text one at a time and never cuts a character in two. All that [`Detokenizer::push`] and then
/// [`Detokenizer::finish`] give is what [`Tokenizer::decode`] gives for the same ids.
#[derive(Debug)]
pub struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    /// The beginning of a character: at most three bytes.
    pending: Vec<u8>,
}

impl<'t> Detokenizer<'t> {
    /// A stream of ids of `tokenizer`, at its beginning.
    pub fn new(tokenizer: &'t Tokenizer) -> Detokenizer<'t> {
        Detokenizer { tokenizer, pending: Vec::new() }
    }

    /// The text that is complete with this id; U+FFFD for bytes that can no longer become a character.
    ///
    /// # Errors
    /// - [`Error::Input`](crate::Error::Input) if the id is not in the vocabulary; the stream stays as it was.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.pending.extend_from_slice(&self.tokenizer.token_bytes(id)?);
        let bytes = std::mem::take(&mut self.pending);
        let mut text = String::new();
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            if chunks.peek().is_none() && may_go_on(chunk.invalid()) {
                self.pending = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Ok(text)
    }

    /// What is left at the end: U+FFFD if a character was begun and not completed.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Whether bytes that are no character yet can become one.
fn may_go_on(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
