//! Pre-tokenizers: how text is cut into pieces before the pieces are merged. `tokenizer.ggml.pre` names one.

use super::bad;
use crate::error::{Result, shown};
use fancy_regex::Regex;

/// What `tokenizer.ggml.pre` decides.
pub(super) struct PreTokenizer {
    pub(super) names: &'static [&'static str],
    /// Applied one after the other, each to every piece that the ones before left; what none matches is a piece too.
    expressions: &'static [&'static str],
    /// A piece that is a token as it stands is not built from merges.
    pub(super) ignore_merges: bool,
    /// The begin token comes first where `tokenizer.ggml.add_bos_token` does not say.
    pub(super) add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Letters with upper and lower case, as DeepSeek lists them. By number: some would not survive a normalisation of this file.
const CASED: &str = "\\s?[\
    A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\
    \u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\
    \u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\
    \u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\
    \u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\
    \u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\
    \u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\
    \u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\
    \u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\
    \u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\
    \u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\
    \u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\
    \u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\
    \u{1e900}-\u{1e943}]+";
const CJK: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
/// Punctuation, ASCII and full-width.
const MARKS: &str = "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+";

/// Source: `llm_tokenizer_bpe` and `llama_vocab::impl::load` in llama.cpp's `llama-vocab.cpp`.
const PRE_TOKENIZERS: [PreTokenizer; 9] = [
    row(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    row(&["gpt-2", "mpt"], &[GPT2]),
    row(&["smollm", "starcoder", "refact", "command-r"], &[r"\p{N}", GPT2]),
    row(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    row(&["qwen2"], &[QWEN2]),
    row(&["qwen35"], &[QWEN35]),
    row(&["deepseek-llm"], &["[\r\n]", CASED, MARKS, r"\s+$", CJK, r"\p{N}+"]),
    row(&["deepseek-coder"], &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"]),
    PreTokenizer {
        ignore_merges: true,
        add_bos: true,
        ..row(&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1"], &[LLAMA3])
    },
];

const fn row(names: &'static [&'static str], expressions: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { names, expressions, ignore_merges: false, add_bos: false }
}

impl PreTokenizer {
    pub(super) fn named(name: &str) -> Result<&'static PreTokenizer> {
        PRE_TOKENIZERS.iter().find(|known| known.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|known| known.names).copied().collect();
            bad(format!("pre-tokenizer '{}' is not supported ({} are)", shown(name), known.join(", ")))
        })
    }

    pub(super) fn splitter(&self) -> Result<Splitter> {
        let compiled = self.expressions.iter().map(|expression| Regex::new(expression));
        compiled.collect::<Result<_, _>>().map(Splitter).map_err(|e| bad(e.to_string()))
    }
}

/// Compiled expressions.
#[derive(Debug)]
pub(super) struct Splitter(Vec<Regex>);

impl Splitter {
    /// The pieces of `text`, in order; put together they are the text.
    pub(super) fn split<'t>(&self, text: &'t str) -> Result<Vec<&'t str>> {
        let mut pieces = vec![text];
        for expression in &self.0 {
            let mut finer = Vec::with_capacity(pieces.len());
            for piece in pieces {
                let mut rest = 0;
                for found in expression.find_iter(piece) {
                    // The engine gives up where it would have to go back too often: a million of spaces, say.
                    let found = found.map_err(|e| bad(format!("the text cannot be split: {e}")))?;
                    finer.extend([&piece[rest..found.start()], found.as_str()]);
                    rest = found.end();
                }
                finer.push(&piece[rest..]);
            }
            finer.retain(|piece| !piece.is_empty());
            pieces = finer;
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces with `|` between them.
    fn split(pre: &str, text: &str) -> String {
        let splitter = PreTokenizer::named(pre).expect("known").splitter().expect("expressions");
        splitter.split(text).expect("pieces").join("|")
    }

    #[test]
    fn every_expression_can_be_compiled() {
        PRE_TOKENIZERS.iter().for_each(|known| assert!(known.splitter().is_ok(), "{:?}", known.names));
    }

    #[test]
    fn numbers_are_cut_as_each_pre_tokenizer_cuts_them() {
        let pieces = |pre| split(pre, "at 12345 or x678");
        assert_eq!(pieces("gpt-2"), "at| 12345| or| x|678");
        assert_eq!(pieces("default"), "at| |123|45| or| x|678");
        assert_eq!(pieces("falcon"), "at| |123|45| or| x|678");
        assert_eq!(pieces("smollm"), "at| |1|2|3|4|5| or| x|6|7|8");
        assert_eq!(pieces("llama-bpe"), "at| |123|45| or| x|678");
        assert_eq!(pieces("qwen2"), "at| |1|2|3|4|5| or| x|6|7|8");
        assert_eq!(pieces("deepseek-llm"), "at| |12345| or| x|678");
        assert_eq!(pieces("deepseek-coder"), "at| |1|2|3|4|5| or| x|6|7|8");
    }

    #[test]
    fn contractions_are_pieces_in_lower_case_and_for_some_in_upper_case() {
        let pieces = |pre| split(pre, "we're WE'RE it's");
        assert_eq!(pieces("gpt-2"), "we|'re| WE|'|RE| it|'s");
        assert_eq!(pieces("llama-bpe"), "we|'re| WE|'RE| it|'s");
        assert_eq!(pieces("qwen35"), "we|'re| WE|'RE| it|'s");
        assert_eq!(pieces("default"), "we|'|re| WE|'|RE| it|'|s", "punctuation goes first");
    }

    #[test]
    fn default_is_not_llama_3() {
        for (text, default, llama3) in [
            ("!!\n\n", "!!|\n\n", "!!\n\n"),
            (".method", ".|method", ".method"),
            ("12345", "123|45", "123|45"),
        ] {
            assert_eq!(
                (split("default", text).as_str(), split("llama-bpe", text).as_str()),
                (default, llama3)
            );
        }
    }

    #[test]
    fn white_space_before_a_word_leaves_its_last_space_to_the_word() {
        for pre in ["gpt-2", "default", "smollm", "falcon", "llama-bpe", "qwen2", "qwen35"] {
            assert_eq!(split(pre, "a   b  "), "a|  | b|  ", "{pre}");
        }
        assert_eq!(split("deepseek-llm", "a   b  "), "a|  | b|  ");
        assert_eq!(split("gpt-2", "a \n\n b"), "a| \n\n| b");
        assert_eq!(split("llama-bpe", "a \n\n b!\n\nc"), "a| \n\n| b|!\n\n|c");
        assert_eq!(split("deepseek-coder", "a \n\nb"), "a| |\n|\n|b");
    }

    #[test]
    fn letters_of_all_scripts_are_letters_and_marks_are_for_some() {
        assert_eq!(split("gpt-2", " größe 中文 ٣٤٥ e\u{301}a"), " größe| 中文| ٣٤٥| e|\u{301}|a");
        assert_eq!(split("qwen35", "e\u{301}a"), "e\u{301}a");
        // Its class of punctuation has the ASCII letters in it, by a range that goes from ':' to '~'.
        assert_eq!(split("deepseek-llm", "größe中文한국!?"), "gr|öß|e|中文한국|!?");
        assert_eq!(split("default", "a+b=c"), "a|+|b|=|c");
    }
}
