//! Text ↔ token ids, from the vocabulary in the GGUF metadata: byte-level BPE (`tokenizer.ggml.model` = `gpt2`).
//!
//! The BPE itself is the `tokenizers` crate; here are the ways from GGUF keys to its parts. Other tokenizer models are
//! refused by name: such files run with token ids.

use crate::error::{Error, Result, shown};
use crate::gguf::Gguf;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

/// The tokenizer model of a file that has none and says so: llama.cpp wants to be told.
const NONE: &str = "no_vocab";
/// Control token, as `tokenizer.ggml.token_type` has it.
const CONTROL: i32 = 3;
/// User-defined token.
const USER_DEFINED: i32 = 4;

/// What `tokenizer.ggml.pre` decides.
struct PreTokenizer {
    name: &'static str,
    /// Applied one after the other, each to what the ones before left whole.
    expressions: &'static [&'static str],
    /// A piece that is a token as it stands is not built from merges.
    ignore_merges: bool,
    /// The begin token comes first where `tokenizer.ggml.add_bos_token` does not say.
    add_bos: bool,
}

/// Source: `llm_tokenizer_bpe` and `llama_vocab::impl::load` in llama.cpp's `llama-vocab.cpp`.
const PRE_TOKENIZERS: [PreTokenizer; 4] = [
    PreTokenizer {
        name: "default",
        expressions: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { name: "gpt-2", expressions: &[GPT2], ignore_merges: false, add_bos: false },
    PreTokenizer { name: "llama-bpe", expressions: &[LLAMA3], ignore_merges: true, add_bos: true },
    PreTokenizer { name: "llama3", expressions: &[LLAMA3], ignore_merges: true, add_bos: true },
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
        let Some(model) = gguf.opt_str("tokenizer.ggml.model")?.filter(|model| *model != NONE) else {
            return Ok(None);
        };
        if model != "gpt2" {
            return Err(bad(format!("model '{}' is not supported yet (gpt2 is)", shown(model))));
        }
        let tokens: Vec<&str> = gguf.strs("tokenizer.ggml.tokens")?.collect();
        let merges = gguf.strs("tokenizer.ggml.merges")?.map(split_merge).collect::<Result<Vec<_>>>()?;
        let pre = gguf.opt_str("tokenizer.ggml.pre")?;
        let rules = pre_tokenizer(pre.unwrap_or("default"))?;
        let mut inner = tokenizers::Tokenizer::new(bpe(&tokens, merges, rules.ignore_merges)?);
        inner.with_pre_tokenizer(Some(split_by(rules.expressions)?));
        inner.with_decoder(Some(ByteLevel::default()));
        add_special_tokens(gguf, &tokens, &mut inner)?;
        let bos = gguf.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(rules.add_bos);
        let bos = if bos { Some(gguf.u32("tokenizer.ggml.bos_token_id")?) } else { None };
        if bos.is_some_and(|bos| bos as usize >= tokens.len()) {
            return Err(bad("the begin token is not in the vocabulary".to_owned()));
        }
        let warning = pre.is_none().then_some(
            "the file has no tokenizer.ggml.pre: text is split by llama.cpp's 'default' rules, which may not be those the model was trained with",
        );
        Ok(Some(Tokenizer {
            inner,
            bos,
            size: tokens.len(),
            digest: digest(model, pre, &tokens, bos, gguf)?,
            warning,
        }))
    }

    /// Token ids of `text`, with the begin token first if the file asks for it.
    ///
    /// # Errors
    /// - [`Error::Tokenizer`] if the vocabulary cannot spell the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, false).map_err(|e| bad(e.to_string()))?;
        // The library leaves out what the vocabulary cannot spell.
        if self.decode(encoding.get_ids())? != text {
            return Err(bad("the vocabulary cannot spell the text".to_owned()));
        }
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
    let split =
        merge.split_once(' ').ok_or_else(|| bad(format!("merge '{}' is not two parts", shown(merge))))?;
    Ok((split.0.to_owned(), split.1.to_owned()))
}

fn bpe(tokens: &[&str], merges: Vec<(String, String)>, ignore_merges: bool) -> Result<BPE> {
    let mut seen = HashSet::new();
    if let Some(twice) = tokens.iter().find(|token| !seen.insert(**token)) {
        return Err(bad(format!("token '{}' is in the vocabulary twice", shown(twice))));
    }
    // The library relies on it.
    let known = |(a, b): &&(String, String)| {
        seen.contains(a.as_str()) && seen.contains(b.as_str()) && seen.contains((a.clone() + b).as_str())
    };
    if let Some((a, b)) = merges.iter().find(|merge| !known(merge)) {
        return Err(bad(format!("merge '{} {}' uses or makes what is no token", shown(a), shown(b))));
    }
    if tokens.len() > u32::MAX as usize {
        return Err(bad("the vocabulary has more tokens than ids".to_owned()));
    }
    let vocab = tokens.iter().zip(0_u32..).map(|(token, id)| ((*token).to_owned(), id));
    let vocab: ahash::AHashMap<String, u32> = vocab.collect();
    BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|e| bad(e.to_string()))
}

fn pre_tokenizer(name: &str) -> Result<&'static PreTokenizer> {
    let known = PRE_TOKENIZERS.iter().find(|known| known.name == name);
    known.ok_or_else(|| bad(format!("pre-tokenizer '{}' is not supported yet", shown(name))))
}

fn split_by(expressions: &[&str]) -> Result<PreTokenizerWrapper> {
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

fn digest(
    model: &str,
    pre: Option<&str>,
    tokens: &[&str],
    bos: Option<u32>,
    gguf: &Gguf<'_>,
) -> Result<[u8; 32]> {
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
    hash.update(bos.unwrap_or(u32::MAX).to_le_bytes());
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{OwnedArray, Writer};

    fn file(tokens: &[&str], merges: &[&str], pre: Option<&str>) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put("tokenizer.ggml.model", "gpt2");
        writer.put("tokenizer.ggml.tokens", OwnedArray::of(tokens.iter().copied()));
        writer.put("tokenizer.ggml.merges", OwnedArray::of(merges.iter().copied()));
        writer.put("tokenizer.ggml.bos_token_id", 0_u32);
        if let Some(pre) = pre {
            writer.put("tokenizer.ggml.pre", pre);
        }
        writer.to_bytes().expect("a file")
    }

    fn read(bytes: &[u8]) -> Result<Tokenizer> {
        Tokenizer::read(&Gguf::parse(bytes).expect("GGUF")).map(|tokenizer| tokenizer.expect("a tokenizer"))
    }

    const TOKENS: [&str; 7] = ["h", "e", "l", "o", "he", "hello", "ll"];

    #[test]
    fn merges_build_tokens_and_text_comes_back() {
        let tokenizer = read(&file(&TOKENS, &["h e", "l l"], Some("gpt-2"))).expect("tokenizer");
        let ids = tokenizer.encode("hello").expect("ids");
        assert_eq!(ids, [4, 6, 3]);
        assert_eq!(tokenizer.decode(&ids).expect("text"), "hello");
        assert_eq!(tokenizer.warning(), None);
    }

    #[test]
    fn llama_3_takes_whole_tokens_first_and_begins_with_the_begin_token() {
        let tokenizer = read(&file(&TOKENS, &["h e"], Some("llama-bpe"))).expect("tokenizer");
        assert_eq!(tokenizer.encode("hello").expect("ids"), [0, 5]);
    }

    #[test]
    fn text_that_the_vocabulary_cannot_spell_is_an_error() {
        let tokenizer = read(&file(&TOKENS, &["h e"], None)).expect("tokenizer");
        assert!(tokenizer.warning().is_some(), "no pre-tokenizer is named");
        assert!(matches!(tokenizer.encode("hez"), Err(Error::Tokenizer { .. })));
    }

    #[test]
    fn inconsistent_vocabularies_are_refused() {
        let refused = |tokens: &[&str], merges: &[&str], pre, expected: &str| {
            let said = read(&file(tokens, merges, pre)).expect_err("refused").to_string();
            assert!(said.contains(expected), "{said}");
        };
        refused(&["h", "e"], &["h e"], None, "no token");
        refused(&["h", "he"], &["h e"], None, "no token");
        refused(&["h", "h"], &[], None, "twice");
        refused(&["h"], &["he"], None, "two parts");
        refused(&["h"], &[], Some("unheard-of"), "unheard-of");
    }
}
