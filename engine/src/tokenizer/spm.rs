//! SentencePiece by score: of all adjacent symbols that are a token together, the two whose token has the highest score are
//! merged, until no two are; of equal scores the leftmost go first. What is then no token becomes byte tokens.
//!
//! The order and its ties are those of `llm_tokenizer_spm_session` in llama.cpp's `llama-vocab.cpp`.

use super::bad;
use super::vocabulary::{LOW_LINE, Vocabulary, per_token};
use crate::error::{Result, shown};
use crate::gguf::Gguf;
use ahash::AHashMap;
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
pub(super) struct Spm {
    ids: AHashMap<String, u32>,
    scores: Vec<f32>,
    /// Tokens `<0x00>` to `<0xFF>`.
    bytes: Vec<Option<u32>>,
    /// A space comes before the text, and before what follows a special token.
    space_prefix: bool,
}

/// Characters of the text that belong together so far; one that was merged into its left neighbour is empty.
struct Symbol {
    start: usize,
    end: usize,
    left: Option<usize>,
    right: Option<usize>,
}

/// Two neighbours that could be merged.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both when they were seen; one of them has changed since if it is no longer so.
    size: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> Ordering {
        let scores = self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal);
        scores.then(other.left.cmp(&self.left))
    }
}
impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Pair {}

impl Spm {
    pub(super) fn read(gguf: &Gguf<'_>, vocabulary: &Vocabulary) -> Result<Spm> {
        let scores: Vec<f32> = gguf.f32s("tokenizer.ggml.scores")?.collect();
        per_token("scores", scores.len(), vocabulary.len())?;
        if let Some(id) = scores.iter().position(|score| score.is_nan()) {
            return Err(bad(format!("the score of token {id} is not a number")));
        }
        let ids: AHashMap<String, u32> = vocabulary.tokens.iter().cloned().zip(0..).collect();
        let bytes = (0..=255_u8).map(|byte| ids.get(&format!("<0x{byte:02X}>")).copied()).collect();
        let space_prefix = gguf.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        Ok(Spm { ids, scores, bytes, space_prefix })
    }

    /// `after_special`: nothing or a special token stands before `text`.
    pub(super) fn encode(&self, text: &str, after_special: bool, ids: &mut Vec<u32>) -> Result<()> {
        let prefix = if self.space_prefix && after_special { " " } else { "" };
        let text = [prefix, text].concat().replace(' ', LOW_LINE);
        for piece in self.merge(&text) {
            match self.ids.get(piece) {
                Some(id) => ids.push(*id),
                None => {
                    for byte in piece.bytes() {
                        let token = self.bytes[usize::from(byte)];
                        ids.push(token.ok_or_else(|| cannot_spell(piece, byte))?);
                    }
                }
            }
        }
        Ok(())
    }

    /// What of this decides ids, beside the tokens.
    pub(super) fn digest(&self, hash: &mut Sha256) {
        self.scores.iter().for_each(|score| hash.update(score.to_le_bytes()));
        hash.update([u8::from(self.space_prefix)]);
    }

    fn merge<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let count = text.chars().count();
        let symbol = |(i, (start, c)): (usize, (usize, char))| Symbol {
            start,
            end: start + c.len_utf8(),
            left: i.checked_sub(1),
            right: Some(i + 1).filter(|next| *next < count),
        };
        let mut symbols: Vec<Symbol> = text.char_indices().enumerate().map(symbol).collect();
        let pair = |symbols: &[Symbol], left: Option<usize>, right: Option<usize>| {
            let (left, right) = (left?, right?);
            let both = text.get(symbols[left].start..symbols[right].end)?;
            let id = self.ids.get(both)?;
            Some(Pair { score: self.scores[*id as usize], left, right, size: both.len() })
        };
        let seen = (1..count).filter_map(|right| pair(&symbols, Some(right - 1), Some(right)));
        let mut pairs: BinaryHeap<Pair> = seen.collect();
        while let Some(Pair { left, right, size, .. }) = pairs.pop() {
            let (l, r) = (&symbols[left], &symbols[right]);
            let gone = l.start == l.end || r.start == r.end;
            if gone || (l.end - l.start) + (r.end - r.start) != size {
                continue;
            }
            let (end, next) = (r.end, r.right);
            symbols[left].end = end;
            symbols[left].right = next;
            symbols[right].start = end;
            if let Some(next) = next {
                symbols[next].left = Some(left);
            }
            pairs.extend(pair(&symbols, symbols[left].left, Some(left)));
            pairs.extend(pair(&symbols, Some(left), next));
        }
        symbols.into_iter().map(|symbol| &text[symbol.start..symbol.end]).filter(|piece| !piece.is_empty())
    }
}

fn cannot_spell(piece: &str, byte: u8) -> crate::error::Error {
    bad(format!("the vocabulary cannot spell '{}': it has no token <0x{byte:02X}>", shown(piece)))
}
