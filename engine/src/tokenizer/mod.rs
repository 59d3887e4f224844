//! Text ↔ token ids, from the vocabulary in the GGUF metadata: byte-level BPE (`tokenizer.ggml.model` = `gpt2`).
//!
//! The BPE itself is the `tokenizers` crate; here are the ways from GGUF keys to its parts. Other tokenizer models are
//! refused by name: such files run with token ids.

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

/// Control token, as `tokenizer.ggml.token_type` has it.
const CONTROL: i32 = 3;
/// User-defined token.
const USER_DEFINED: i32 = 4;

/// Pre-tokenizers by `tokenizer.ggml.pre`: the expressions are applied one after the other, each to what the ones before
/// left whole. Source: `llm_tokenizer_bpe` in llama.cpp's `llama-vocab.cpp`.
const PRE_TOKENIZERS: [(&str, &[&str]); 4] = [
    ("default", &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    ("gpt-2", &[GPT2]),
    ("llama-bpe", &[LLAMA3]),
    ("llama3", &[LLAMA3]),
];
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer for one model file.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    size: usize,
    digest: [u8; 32],
    warning: Option<&'static str>,
}

impl Tokenizer {
    /// Builds the tokenizer that `gguf` describes; `Ok(None)` if it describes none.
    ///
    /// # Errors
    /// - [`Error::Tokenizer`] for a tokenizer model or pre-tokenizer that is not supported, or an inconsistent vocabulary.
    pub fn read(gguf: &Gguf<'_>) -> Result<Option<Tokenizer>> {
        let Some(model) = gguf.opt_str("tokenizer.ggml.model")? else { return Ok(None) };
        if model != "gpt2" {
            return Err(bad(format!("model '{model}' is not supported yet (gpt2 is)")));
        }
        let tokens: Vec<&str> = gguf.strs("tokenizer.ggml.tokens")?.collect();
        let merges = gguf.strs("tokenizer.ggml.merges")?.map(split_merge).collect::<Result<Vec<_>>>()?;
        let mut inner = tokenizers::Tokenizer::new(bpe(&tokens, merges)?);
        let pre = gguf.opt_str("tokenizer.ggml.pre")?;
        inner.with_pre_tokenizer(Some(pre_tokenizer(pre.unwrap_or("default"))?));
        inner.with_decoder(Some(ByteLevel::default()));
        add_special_tokens(gguf, &tokens, &mut inner)?;
        let bos = gguf.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(false);
        let bos = if bos { Some(gguf.u32("tokenizer.ggml.bos_token_id")?) } else { None };
        let warning = pre.is_none().then_some(
            "the file has no tokenizer.ggml.pre: text is split by llama.cpp's 'default' rules, which may not be those the model was trained with",
        );
        Ok(Some(Tokenizer {
            inner,
            bos,
            size: tokens.len(),
            digest: digest(model, pre, &tokens, gguf)?,
            warning,
        }))
    }

    /// Token ids of `text`, with the begin token first if the file asks for it.
    ///
    /// # Errors
    /// - [`Error::Tokenizer`] if the vocabulary cannot spell the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, false).map_err(|e| bad(e.to_string()))?;
        Ok(self.bos.into_iter().chain(encoding.get_ids().iter().copied()).collect())
    }

    /// Text of token ids. Bytes that are not UTF-8 on their own become U+FFFD.
    ///
    /// # Errors
    /// - [`Error::Tokenizer`] for what the library refuses.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|e| bad(e.to_string()))
    }

    /// Tokens in the vocabulary.
    pub fn size(&self) -> usize {
        self.size
    }

    /// SHA-256 over everything that decides the ids: model, pre-tokenizer, tokens, types, merges, begin token.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// What the user should know before trusting ids of text.
    pub fn warning(&self) -> Option<&'static str> {
        self.warning
    }
}

fn bad(problem: String) -> Error {
    Error::Tokenizer { problem, advice: "give token ids with --tokens instead" }
}

fn split_merge(merge: &str) -> Result<(String, String)> {
    let split = merge.split_once(' ').ok_or_else(|| bad(format!("merge '{merge}' is not two parts")))?;
    Ok((split.0.to_owned(), split.1.to_owned()))
}

fn bpe(tokens: &[&str], merges: Vec<(String, String)>) -> Result<BPE> {
    let mut seen = HashSet::new();
    if let Some(twice) = tokens.iter().find(|token| !seen.insert(**token)) {
        return Err(bad(format!("token '{twice}' is in the vocabulary twice")));
    }
    if tokens.len() > u32::MAX as usize {
        return Err(bad("the vocabulary has more tokens than ids".to_owned()));
    }
    let vocab = tokens.iter().zip(0_u32..).map(|(token, id)| ((*token).to_owned(), id));
    let vocab: ahash::AHashMap<String, u32> = vocab.collect();
    BPE::builder().vocab_and_merges(vocab, merges).build().map_err(|e| bad(e.to_string()))
}

fn pre_tokenizer(name: &str) -> Result<PreTokenizerWrapper> {
    let known = PRE_TOKENIZERS.iter().find(|(known, _)| *known == name);
    let (_, expressions) =
        known.ok_or_else(|| bad(format!("pre-tokenizer '{name}' is not supported yet")))?;
    let split = |expression: &&str| {
        let pattern = SplitPattern::Regex((*expression).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        split.map(PreTokenizerWrapper::Split).map_err(|e| bad(e.to_string()))
    };
    let mut parts = expressions.iter().map(split).collect::<Result<Vec<_>>>()?;
    parts.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(parts)))
}

/// Control and user-defined tokens are found in text before anything is split.
fn add_special_tokens(gguf: &Gguf<'_>, tokens: &[&str], inner: &mut tokenizers::Tokenizer) -> Result<()> {
    let Some(types) = gguf.opt_i32s("tokenizer.ggml.token_type")? else { return Ok(()) };
    let types: Vec<i32> = types.collect();
    if types.len() != tokens.len() {
        return Err(bad(format!("{} token types for {} tokens", types.len(), tokens.len())));
    }
    let added = |kind: i32| {
        let of_kind = tokens.iter().zip(&types).filter(move |(_, t)| **t == kind);
        of_kind.map(|(token, _)| AddedToken::from((*token).to_owned(), true)).collect::<Vec<_>>()
    };
    for kind in [CONTROL, USER_DEFINED] {
        inner.add_special_tokens(added(kind)).map_err(|e| bad(e.to_string()))?;
    }
    Ok(())
}

fn digest(model: &str, pre: Option<&str>, tokens: &[&str], gguf: &Gguf<'_>) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text(model);
    text(pre.unwrap_or(""));
    tokens.iter().for_each(|token| text(token));
    gguf.strs("tokenizer.ggml.merges")?.for_each(&mut text);
    for kind in gguf.opt_i32s("tokenizer.ggml.token_type")?.into_iter().flatten() {
        hash.update(kind.to_le_bytes());
    }
    let bos = gguf.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(false);
    hash.update([u8::from(bos)]);
    hash.update(gguf.opt_u32("tokenizer.ggml.bos_token_id")?.unwrap_or(u32::MAX).to_le_bytes());
    Ok(hash.finalize().into())
}
