//! Text ↔ token ids, from the vocabulary in the GGUF metadata: byte-level BPE (`tokenizer.ggml.model` = `gpt2`) and
//! SentencePiece by score (`llama`). The ids are those of llama.cpp; docs/tokenizers.md says how that is checked.
//!
//! ```text
//! text ─ special (tokens that stand in the text) ─┬─ pre (pieces) ─ bpe ─┬─ ids
//!                                                 └─ spm ────────────────┘
//! ids ─ vocabulary (bytes of a token) ─ stream ─ text
//! ```
//!
//! Other tokenizer models are refused by name: such files run with token ids.

mod bpe;
mod pre;
mod special;
mod spm;
mod stream;
mod vocabulary;

pub use special::Special;
pub use stream::Detokenizer;

use crate::error::{Error, Result, shown};
use crate::gguf::Gguf;
use bpe::Bpe;
use pre::PreTokenizer;
use sha2::{Digest, Sha256};
use special::{Part, Specials};
use spm::Spm;
use std::borrow::Cow;
use std::collections::BTreeSet;
use vocabulary::{Kind, Spelling, Vocabulary, special_id};

/// The tokenizer model of a file that has none and says so: llama.cpp wants to be told.
const NONE: &str = "no_vocab";

/// A tokenizer for one model file.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    specials: Specials,
    model: Model,
    begin: Option<u32>,
    end: Option<u32>,
    adds_begin: bool,
    adds_end: bool,
    digest: [u8; 32],
    warning: Option<&'static str>,
}

/// How text between special tokens becomes ids.
#[derive(Debug)]
enum Model {
    Bpe(Box<Bpe>),
    Spm(Spm),
}

impl Tokenizer {
    /// Builds the tokenizer that `gguf` describes; `Ok(None)` if it describes none.
    ///
    /// # Errors
    /// - [`Error::Tokenizer`] for a tokenizer model or pre-tokenizer that is not supported, or an inconsistent vocabulary.
    /// - [`Error::Metadata`] for the id of a special token that is not in the vocabulary.
    /// - Those of [`Gguf::require`] for keys that are missing or have another type.
    pub fn read(gguf: &Gguf<'_>) -> Result<Option<Tokenizer>> {
        let Some(name) = gguf.opt_str("tokenizer.ggml.model")?.filter(|name| *name != NONE) else {
            return Ok(None);
        };
        let pre = gguf.opt_str("tokenizer.ggml.pre")?;
        let (vocabulary, model, adds_begin, warning) = match name {
            "gpt2" => {
                let rules = PreTokenizer::named(pre.unwrap_or("default"))?;
                let vocabulary = Vocabulary::read(gguf, Spelling::StandIns)?;
                let model = Model::Bpe(Box::new(Bpe::read(gguf, &vocabulary, rules)?));
                (vocabulary, model, rules.add_bos, pre.is_none().then_some(NO_PRE))
            }
            "llama" => {
                let vocabulary = Vocabulary::read(gguf, Spelling::LowLines)?;
                let model = Model::Spm(Spm::read(gguf, &vocabulary)?);
                (vocabulary, model, true, None)
            }
            _ => return Err(bad(format!("model '{}' is not supported (gpt2 and llama are)", shown(name)))),
        };
        let adds_begin = gguf.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_begin);
        let adds_end = gguf.opt_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        let id = |key, usual: u32| {
            let usual = matches!(model, Model::Spm(_)).then_some(usual);
            let usual = usual.filter(|id| (*id as usize) < vocabulary.len());
            special_id(gguf, key, vocabulary.len()).map(|id| id.or(usual))
        };
        // `<s>` and `</s>` of every SentencePiece vocabulary of a Llama.
        let begin = id("tokenizer.ggml.bos_token_id", 1)?;
        let end = id("tokenizer.ggml.eos_token_id", 2)?;
        for (adds, id, what) in [(adds_begin, begin, "begin (bos)"), (adds_end, end, "end (eos)")] {
            if adds && id.is_none() {
                return Err(bad(format!(
                    "the file asks for {what} tokens and does not say which token that is"
                )));
            }
        }
        let of_phi3 =
            |name: &str| ["phi-3", "phi3"].iter().any(|part| name.to_ascii_lowercase().contains(part));
        let phi3 = gguf.opt_str("general.name")?.is_some_and(of_phi3);
        let mut tokenizer = Tokenizer {
            specials: Specials::new(&vocabulary, phi3),
            vocabulary,
            model,
            begin,
            end,
            adds_begin,
            adds_end,
            digest: [0; 32],
            warning,
        };
        tokenizer.vocabulary.endings.extend(end);
        tokenizer.digest = tokenizer.digest_of(name, pre, phi3, gguf)?;
        Ok(Some(tokenizer))
    }

    /// Token ids of `text`, with the begin and end token around them where the file asks for it.
    ///
    /// Every byte of the text is spelled by the ids. Byte-level BPE gives them back ([`Tokenizer::decode`] without the begin
    /// and end token is the text); SentencePiece may put a space before them.
    ///
    /// # Errors
    /// - [`Error::Tokenizer`] if the vocabulary cannot spell the text.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = self.prefix().into_iter().collect();
        ids.extend(self.encode_bare(text, special)?);
        ids.extend(self.end.filter(|_| self.adds_end));
        Ok(ids)
    }

    /// Token ids of a whole conversation that a chat template has written: special tokens are tokens, the begin token comes
    /// first if the file asks for it, once, whether or not the template has written it, and no end token follows.
    ///
    /// # Errors
    /// - [`Error::Tokenizer`] if the vocabulary cannot spell the text.
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode_bare(text, Special::Parse)?;
        if let Some(begin) = self.prefix().filter(|begin| ids.first() != Some(begin)) {
            ids.insert(0, begin);
        }
        Ok(ids)
    }

    /// Token ids of `text` and nothing around them.
    ///
    /// # Errors
    /// - [`Error::Tokenizer`] if the vocabulary cannot spell the text.
    pub fn encode_bare(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut after_special = true;
        for part in self.specials.split(text, special) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => match &self.model {
                    Model::Bpe(bpe) => bpe.encode(text, &mut ids)?,
                    Model::Spm(spm) => spm.encode(text, after_special, &mut ids)?,
                },
            }
            after_special = matches!(part, Part::Token(_));
        }
        Ok(ids)
    }

    /// Text of token ids: the bytes of each, one after the other, with U+FFFD for what is not UTF-8 then. Special tokens
    /// appear as they stand in the vocabulary.
    ///
    /// # Errors
    /// - [`Error::Input`] for an id that is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut bytes = Vec::new();
        for id in ids {
            bytes.extend_from_slice(&self.token_bytes(*id)?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes of text that a token stands for; often not UTF-8 on their own.
    ///
    /// # Errors
    /// - [`Error::Input`] for an id that is not in the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Result<Cow<'_, [u8]>> {
        self.vocabulary.bytes(id).ok_or_else(|| Error::Input {
            what: "token id",
            expected: format!("an id of the vocabulary of {} tokens", self.size()),
            got: id.to_string(),
        })
    }

    /// Whether a token steers the model and is not meant to be read: control tokens, and the unknown token.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.vocabulary.kinds.get(id as usize), Some(Kind::Control | Kind::Unknown))
    }

    /// Tokens after which nothing more is to be generated: those that the file names (`eos`, `eot`, `eom`) and those that
    /// are known by their text, as llama.cpp knows them.
    pub fn eos(&self) -> &BTreeSet<u32> {
        &self.vocabulary.endings
    }

    /// The token that comes before every text, where the file asks for one.
    pub fn prefix(&self) -> Option<u32> {
        self.begin.filter(|_| self.adds_begin)
    }

    /// The begin token, if the file names one.
    pub fn begin(&self) -> Option<u32> {
        self.begin
    }

    /// The end token, if the file names one. Generation may end with others too: see [`Tokenizer::eos`].
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// Tokens in the vocabulary.
    pub fn size(&self) -> usize {
        self.vocabulary.len()
    }

    /// SHA-256 over everything that decides the ids (docs/formats.md, "Tokenizers").
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// What the user should know before trusting ids of text.
    pub fn warning(&self) -> Option<&'static str> {
        self.warning
    }

    fn digest_of(&self, model: &str, pre: Option<&str>, phi3: bool, gguf: &Gguf<'_>) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        let text = |hash: &mut Sha256, text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        text(&mut hash, model);
        text(&mut hash, pre.unwrap_or(""));
        self.vocabulary.tokens.iter().for_each(|token| text(&mut hash, token));
        match &self.model {
            Model::Bpe(_) => gguf.strs("tokenizer.ggml.merges")?.for_each(|merge| text(&mut hash, merge)),
            Model::Spm(spm) => spm.digest(&mut hash),
        }
        for kind in gguf.opt_i32s("tokenizer.ggml.token_type")?.into_iter().flatten() {
            hash.update(kind.to_le_bytes());
        }
        hash.update(self.prefix().unwrap_or(u32::MAX).to_le_bytes());
        self.end.filter(|_| self.adds_end).into_iter().for_each(|end| hash.update(end.to_le_bytes()));
        if phi3 {
            text(&mut hash, "phi3");
        }
        Ok(hash.finalize().into())
    }
}

const NO_PRE: &str = "the file has no tokenizer.ggml.pre: text is split by llama.cpp's 'default' rules, which may not be those the model was trained with";

fn bad(problem: String) -> Error {
    Error::Tokenizer { problem, advice: "the model runs with token ids all the same: assay run --tokens" }
}

#[cfg(test)]
mod tests;
