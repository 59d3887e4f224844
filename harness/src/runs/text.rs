//! Generated text as it comes: whole characters only, and nothing of a stop string.

use assay_engine::Result;
use assay_engine::tokenizer::{Detokenizer, Tokenizer};

/// Text of the tokens so far.
#[derive(Debug)]
pub struct Text<'t> {
    detokenizer: Detokenizer<'t>,
    known: usize,
    stops: Vec<String>,
    text: String,
    shown: usize,
}

impl<'t> Text<'t> {
    /// Nothing yet; it ends before the first of `stops`.
    pub fn new(tokenizer: &'t Tokenizer, stops: &[String]) -> Text<'t> {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Text {
            detokenizer: Detokenizer::new(tokenizer),
            known: tokenizer.size(),
            stops,
            text: String::new(),
            shown: 0,
        }
    }

    /// Adds a token; whether a stop string is complete now. Then the text ends before it. An id past the tokenizer's vocabulary (some
    /// embeddings have rows to spare) stands for no text.
    ///
    /// # Errors
    /// - the tokenizer's.
    pub fn push(&mut self, id: u32) -> Result<bool> {
        if id as usize >= self.known {
            return Ok(false);
        }
        let before = self.text.len();
        self.text += &self.detokenizer.push(id)?;
        // A stop string may have begun in the text before.
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = (0..=before.saturating_sub(longest)).rev().find(|at| self.text.is_char_boundary(*at));
        let from = from.unwrap_or(0);
        let found = self.stops.iter().filter_map(|stop| self.text[from..].find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(from + at);
        }
        Ok(found.is_some())
    }

    /// What can be shown since the last call: no beginning of a stop string is.
    pub fn fresh(&mut self) -> &str {
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.text[*at..]));
        let places = self.text.char_indices().map(|(at, _)| at).filter(|at| *at >= self.shown);
        let end = places.filter(begins).min().unwrap_or(self.text.len());
        let start = std::mem::replace(&mut self.shown, end);
        &self.text[start..end]
    }

    /// All of it. What is left of a character that never became whole is U+FFFD.
    pub fn finish(mut self, stopped: bool) -> String {
        if !stopped {
            self.text += &self.detokenizer.finish();
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use assay_engine::gguf::Gguf;
    use assay_engine::tokenizer::Special;

    #[test]
    fn text_ends_before_a_stop_string_and_none_of_it_is_shown() {
        let bytes = fixtures::generate(fixtures::find("b158-stable").expect("fixture")).expect("file");
        let tokenizer =
            Tokenizer::read(&Gguf::parse(&bytes).expect("GGUF")).expect("read").expect("tokenizer");
        let ids = tokenizer.encode_bare("One é two.\n\nUser: no", Special::Plain).expect("ids");
        let mut text = Text::new(&tokenizer, &["\n\nUser:".to_owned(), String::new()]);
        let mut shown = String::new();
        let stopped = ids.iter().any(|id| {
            let stop = text.push(*id).expect("an id");
            shown += text.fresh();
            stop
        });
        assert!(stopped);
        assert_eq!(shown, "One é two.");
        assert_eq!(text.finish(true), "One é two.");
        let mut text = Text::new(&tokenizer, &["\n\nUser:".to_owned()]);
        let ids = tokenizer.encode_bare("a\n\nUse", Special::Plain).expect("ids");
        assert!(!ids.iter().any(|id| text.push(*id).expect("an id")));
        assert_eq!(text.fresh(), "a", "it may go on to be one");
        assert_eq!(text.finish(false), "a\n\nUse", "it did not");
    }
}
