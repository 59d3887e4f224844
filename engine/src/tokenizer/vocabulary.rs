//! The tokens of a file: texts, kinds, the bytes that each stands for, and which of them have a meaning of their own.

use super::{bad, bpe};
use crate::error::{Error, Result, shown};
use crate::gguf::Gguf;
use ahash::AHashMap;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// `tokenizer.ggml.token_type`. Other numbers (unused, undefined) are read as normal: a token that comes out of a text must
/// be able to give it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Byte,
}

impl Kind {
    fn of(number: i32) -> Kind {
        match number {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            6 => Kind::Byte,
            _ => Kind::Normal,
        }
    }
}

/// How normal tokens are written in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A printable character for each byte.
    StandIns,
    /// Text, with `▁` for a space.
    LowLines,
}

/// `▁`, the space of SentencePiece.
pub(super) const LOW_LINE: &str = "\u{2581}";

#[derive(Debug)]
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<String>,
    pub(super) kinds: Vec<Kind>,
    spelling: Spelling,
    /// Tokens after which nothing more is generated.
    pub(super) endings: BTreeSet<u32>,
}

/// Tokens that end generation by their text, whatever type the file gives them.
/// Source of this and of [`ROLES`]: `llama_vocab::impl::load` in llama.cpp's `llama-vocab.cpp`.
const ENDINGS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// A token of code models that is found by its text where no key names it, and is then a control token.
struct Role {
    key: &'static str,
    texts: &'static [&'static str],
    ends: bool,
}

const ROLES: [Role; 6] = [
    Role {
        key: "tokenizer.ggml.fim_pre_token_id",
        texts: &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        ends: false,
    },
    Role {
        key: "tokenizer.ggml.fim_suf_token_id",
        texts: &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        ends: false,
    },
    Role {
        key: "tokenizer.ggml.fim_mid_token_id",
        texts: &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        ends: false,
    },
    Role {
        key: "tokenizer.ggml.fim_pad_token_id",
        texts: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        ends: true,
    },
    Role {
        key: "tokenizer.ggml.fim_rep_token_id",
        texts: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        ends: true,
    },
    Role { key: "tokenizer.ggml.fim_sep_token_id", texts: &["<|file_sep|>"], ends: true },
];

impl Vocabulary {
    pub(super) fn read(gguf: &Gguf<'_>, spelling: Spelling) -> Result<Vocabulary> {
        let tokens: Vec<&str> = gguf.strs("tokenizer.ggml.tokens")?.collect();
        if u32::try_from(tokens.len()).is_err() {
            return Err(bad("the vocabulary has more tokens than ids".to_owned()));
        }
        let mut ids = AHashMap::with_capacity(tokens.len());
        for (token, id) in tokens.iter().zip(0_u32..) {
            // Empty tokens are padding: nothing ever becomes one.
            if !token.is_empty() && ids.insert(*token, id).is_some() {
                return Err(bad(format!("token '{}' is in the vocabulary twice", shown(token))));
            }
        }
        let mut kinds = vec![Kind::Normal; tokens.len()];
        if let Some(types) = gguf.opt_i32s("tokenizer.ggml.token_type")? {
            per_token("token types", types.len(), tokens.len())?;
            kinds = types.map(Kind::of).collect();
        }
        for (token, _) in tokens.iter().zip(&kinds).filter(|(_, kind)| **kind == Kind::Byte) {
            byte_token(token)
                .ok_or_else(|| bad(format!("byte token '{}' is not of the form <0x0A>", shown(token))))?;
        }
        let endings = endings(gguf, &ids, &mut kinds)?;
        Ok(Vocabulary { tokens: tokens.into_iter().map(str::to_owned).collect(), kinds, spelling, endings })
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The bytes of text that a token stands for.
    pub(super) fn bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        let (token, kind) = (self.tokens.get(id as usize)?, self.kinds.get(id as usize)?);
        let as_it_stands = Cow::Borrowed(token.as_bytes());
        Some(match (kind, self.spelling) {
            (Kind::Unknown | Kind::Control | Kind::UserDefined, _) => as_it_stands,
            (Kind::Byte, _) => byte_token(token).map_or(as_it_stands, |byte| Cow::Owned(vec![byte])),
            // A token with other characters was never made of bytes; it is text.
            (Kind::Normal, Spelling::StandIns) => bpe::bytes_of(token).map_or(as_it_stands, Cow::Owned),
            (Kind::Normal, Spelling::LowLines) => Cow::Owned(token.replace(LOW_LINE, " ").into_bytes()),
        })
    }
}

/// Refuses an array that does not have one element a token.
pub(super) fn per_token(what: &str, got: usize, tokens: usize) -> Result<()> {
    if got == tokens { Ok(()) } else { Err(bad(format!("{got} {what} for {tokens} tokens"))) }
}

/// The id under `key`, if the file has one; it must be a token's.
pub(super) fn special_id(gguf: &Gguf<'_>, key: &'static str, tokens: usize) -> Result<Option<u32>> {
    let id = gguf.opt_u32(key)?;
    match id.filter(|id| *id as usize >= tokens) {
        Some(id) => Err(Error::Metadata {
            key: key.to_owned(),
            problem: "not in the vocabulary",
            expected: format!("an id below {tokens}"),
            got: id.to_string(),
        }),
        None => Ok(id),
    }
}

/// Finds the tokens that end generation; tokens that are known by their text become control tokens on the way.
fn endings(gguf: &Gguf<'_>, ids: &AHashMap<&str, u32>, kinds: &mut [Kind]) -> Result<BTreeSet<u32>> {
    let mut endings = BTreeSet::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        endings.extend(special_id(gguf, key, kinds.len())?);
    }
    for text in ENDINGS {
        if let Some(&id) = ids.get(text) {
            kinds[id as usize] = Kind::Control;
            endings.insert(id);
        }
    }
    for role in &ROLES {
        let mut id = special_id(gguf, role.key, kinds.len())?;
        if id.is_none() {
            // With several of them in a file llama.cpp takes the one that its hash table meets first; here it is the first.
            id = role.texts.iter().filter_map(|text| ids.get(text)).min().copied();
            id.into_iter().for_each(|id| kinds[id as usize] = Kind::Control);
        }
        endings.extend(id.filter(|_| role.ends));
    }
    Ok(endings)
}

/// The byte of `<0x0A>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
