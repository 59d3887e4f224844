//! Byte-level BPE: pieces of text as stand-ins of their bytes, merged in the order of the vocabulary's list. The merging is
//! the `tokenizers` crate's.

use super::bad;
use super::pre::{PreTokenizer, Splitter};
use super::vocabulary::Vocabulary;
use crate::error::{Result, shown};
use crate::gguf::Gguf;
use std::collections::HashSet;
use tokenizers::Model;
use tokenizers::models::bpe::BPE;

#[derive(Debug)]
pub(super) struct Bpe {
    model: BPE,
    splitter: Splitter,
}

impl Bpe {
    pub(super) fn read(gguf: &Gguf<'_>, vocabulary: &Vocabulary, rules: &PreTokenizer) -> Result<Bpe> {
        let known: HashSet<&str> = vocabulary.tokens.iter().map(String::as_str).collect();
        let (mut merges, mut seen) = (Vec::new(), HashSet::new());
        for merge in gguf.strs("tokenizer.ggml.merges")? {
            let (left, right) = merge
                .split_once(' ')
                .ok_or_else(|| bad(format!("merge '{}' is not two parts", shown(merge))))?;
            let made = [left, right].concat();
            // The library relies on it.
            if ![left, right, &made].into_iter().all(|token| known.contains(token)) {
                return Err(bad(format!("merge '{}' uses or makes what is no token", shown(merge))));
            }
            // Of a merge that is there twice the first counts; the library would take the last.
            if seen.insert((left, right)) {
                merges.push((left.to_owned(), right.to_owned()));
            }
        }
        let ids = vocabulary.tokens.iter().cloned().zip(0_u32..).collect::<ahash::AHashMap<String, u32>>();
        let model = BPE::builder().vocab_and_merges(ids, merges).ignore_merges(rules.ignore_merges).build();
        Ok(Bpe { model: model.map_err(|e| bad(e.to_string()))?, splitter: rules.splitter()? })
    }

    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        for piece in self.splitter.split(text)? {
            let spelled: String = piece.bytes().map(stand_in).collect();
            let tokens = self.model.tokenize(&spelled).map_err(|e| bad(e.to_string()))?;
            // The library leaves out what the vocabulary cannot spell.
            if tokens.iter().map(|token| token.value.len()).sum::<usize>() != spelled.len() {
                return Err(bad(format!("the vocabulary cannot spell '{}'", shown(piece))));
            }
            ids.extend(tokens.iter().map(|token| token.id));
        }
        Ok(())
    }
}

/// GPT-2's printable characters for bytes: themselves where they print in Latin-1, else the next free one from U+0100.
const STAND_INS: [char; 256] = {
    let mut table = ['\0'; 256];
    let (mut byte, mut free) = (0_u8, 0x100_u32);
    loop {
        table[byte as usize] = if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            byte as char
        } else {
            free += 1;
            match char::from_u32(free - 1) {
                Some(stand_in) => stand_in,
                None => panic!("U+0100 and the 67 after it are characters"),
            }
        };
        if byte == 255 {
            break table;
        }
        byte += 1;
    }
};

/// The way back: the byte at each character's number.
const BYTES: [Option<u8>; 0x144] = {
    let mut table = [None; 0x144];
    let mut byte = 0;
    while byte < 256 {
        table[STAND_INS[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    table
};

pub(super) fn stand_in(byte: u8) -> char {
    STAND_INS[usize::from(byte)]
}

/// The bytes that a token of stand-ins spells; `None` if a character is not one.
pub(super) fn bytes_of(token: &str) -> Option<Vec<u8>> {
    token.chars().map(|c| BYTES.get(c as usize).copied().flatten()).collect()
}
