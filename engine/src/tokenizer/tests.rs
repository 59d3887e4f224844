//! Small vocabularies made here; those of real models are in `engine/tests/tokenizer_goldens.rs`.

use super::*;
use crate::gguf::{OwnedArray, OwnedValue, Writer};
use proptest::prelude::*;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// Metadata of a tokenizer.
struct File(Vec<(String, OwnedValue)>);

impl File {
    fn new(model: &str, tokens: &[(&str, i32)]) -> File {
        File(Vec::new())
            .put("model", model)
            .put("tokens", OwnedArray::of(tokens.iter().map(|(token, _)| *token)))
            .put("token_type", OwnedArray::of(tokens.iter().map(|(_, kind)| *kind)))
    }

    fn put(self, key: &str, value: impl Into<OwnedValue>) -> File {
        self.put_general(&format!("tokenizer.ggml.{key}"), value)
    }

    fn put_general(mut self, key: &str, value: impl Into<OwnedValue>) -> File {
        self.0.retain(|(known, _)| known != key);
        self.0.push((key.to_owned(), value.into()));
        self
    }

    fn read(&self) -> Result<Tokenizer> {
        let mut writer = Writer::new();
        for (key, value) in &self.0 {
            writer.put(key.as_str(), value.clone());
        }
        let bytes = writer.to_bytes().expect("a file");
        let gguf = Gguf::parse(&bytes).expect("GGUF");
        Tokenizer::read(&gguf).map(|tokenizer| tokenizer.expect("a tokenizer"))
    }

    fn tokenizer(&self) -> Tokenizer {
        self.read().unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(&self, expected: &str) {
        let said = self.read().expect_err("refused").to_string();
        assert!(said.contains(expected) && said.lines().count() == 1, "{expected:?} is not in: {said}");
    }
}

fn bpe(tokens: &[&str], merges: &[&str]) -> File {
    let tokens: Vec<(&str, i32)> = tokens.iter().map(|token| (*token, NORMAL)).collect();
    File::new("gpt2", &tokens)
        .put("merges", OwnedArray::of(merges.iter().copied()))
        .put("bos_token_id", 0_u32)
}

/// Every byte, a few merges, and special tokens from id 300 on.
fn bytes_and(pre: &str) -> File {
    let mut tokens: Vec<(String, i32)> =
        (0..=255).map(|byte| (bpe::stand_in(byte).to_string(), NORMAL)).collect();
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ hello", "Ã ©", "ð Ł"];
    tokens.extend(merges.map(|merge| (merge.replace(' ', ""), NORMAL)));
    tokens.extend((tokens.len()..300).map(|i| (format!("padding {i}"), NORMAL)));
    tokens.extend([
        ("<|begin|>".to_owned(), CONTROL),
        ("<|im_end|>".to_owned(), CONTROL),
        ("<tool>".to_owned(), USER_DEFINED),
        ("<tool><tool>".to_owned(), USER_DEFINED),
    ]);
    let tokens: Vec<(&str, i32)> = tokens.iter().map(|(token, kind)| (token.as_str(), *kind)).collect();
    File::new("gpt2", &tokens)
        .put("merges", OwnedArray::of(merges))
        .put("pre", pre)
        .put("bos_token_id", 300_u32)
        .put("eos_token_id", 301_u32)
}

/// `<unk>`, `<s>`, `</s>`, 256 bytes from id 3, words from id 259.
fn spm(words: &[(&str, f32)]) -> File {
    let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut tokens = vec![("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
    tokens.extend(bytes.iter().map(|byte| (byte.as_str(), BYTE)));
    tokens.extend(words.iter().map(|(word, _)| (*word, NORMAL)));
    let scores = (0..259).map(|_| 0.0).chain(words.iter().map(|(_, score)| *score));
    File::new("llama", &tokens).put("scores", OwnedArray::of(scores))
}

const TOKENS: [&str; 7] = ["h", "e", "l", "o", "he", "hello", "ll"];

#[test]
fn merges_build_tokens_and_text_comes_back() {
    let tokenizer = bpe(&TOKENS, &["h e", "l l"]).put("pre", "gpt-2").tokenizer();
    let ids = tokenizer.encode("hello", Special::Plain).expect("ids");
    assert_eq!(ids, [4, 6, 3]);
    assert_eq!(tokenizer.decode(&ids).expect("text"), "hello");
    assert_eq!(tokenizer.warning(), None);
}

#[test]
fn of_a_merge_that_stands_twice_the_first_counts() {
    let tokens = ["a", "b", "c", "ab", "bc"];
    let tokenizer = bpe(&tokens, &["a b", "b c", "a b"]).put("pre", "gpt-2").tokenizer();
    assert_eq!(tokenizer.encode("abc", Special::Plain).expect("ids"), [3, 2]);
}

#[test]
fn llama_3_takes_whole_tokens_first_and_begins_with_the_begin_token() {
    let file = bpe(&TOKENS, &["h e"]);
    assert_eq!(
        file.put("pre", "llama-bpe").tokenizer().encode("hello", Special::Plain).expect("ids"),
        [0, 5]
    );
    let file = bpe(&TOKENS, &["h e"]).put("pre", "falcon3").put("add_bos_token", false);
    assert_eq!(file.tokenizer().encode("hello", Special::Plain).expect("ids"), [5]);
}

#[test]
fn text_that_the_vocabulary_cannot_spell_is_an_error() {
    let tokenizer = bpe(&TOKENS, &["h e"]).tokenizer();
    assert!(tokenizer.warning().is_some(), "no pre-tokenizer is named");
    let said = tokenizer.encode("hez", Special::Plain).expect_err("refused").to_string();
    assert!(said.contains("cannot spell 'hez'"), "{said}");
}

#[test]
fn inconsistent_vocabularies_are_refused() {
    bpe(&["h", "e"], &["h e"]).refused("no token");
    bpe(&["h", "he"], &["h e"]).refused("no token");
    bpe(&["h", "h"], &[]).refused("twice");
    bpe(&["h"], &["he"]).refused("two parts");
    bpe(&["h"], &[]).put("pre", "unheard-of").refused("'unheard-of' is not supported (default, gpt-2");
    bpe(&["h"], &[]).put("eos_token_id", 1_u32).refused("eos_token_id");
    bpe(&["h"], &[]).put("fim_sep_token_id", u32::MAX).refused("fim_sep_token_id");
    bpe(&["h"], &[]).put("add_eos_token", true).refused("end (eos)");
    bpe(&["h"], &[]).put("token_type", OwnedArray::of([1, 1])).refused("2 token types for 1 tokens");
    File::new("gpt2", &[("h", NORMAL)]).refused("tokenizer.ggml.merges");
    File::new("wordpiece", &[("h", NORMAL)]).refused("'wordpiece' is not supported");
    File::new("llama", &[("h", NORMAL)]).refused("tokenizer.ggml.scores");
    spm(&[("a", f32::NAN)]).refused("score of token 259 is not a number");
    spm(&[("a", 0.0)]).put("scores", OwnedArray::of([0.0_f32])).refused("1 scores for 260 tokens");
    spm(&[("a", 0.0)]).put("bos_token_id", 260_u32).refused("bos_token_id");
    for byte in ["<0x0>", "<0x+1>", "<0x0A", "0A", "", "<0xé>"] {
        File::new("llama", &[(byte, BYTE)]).put("scores", OwnedArray::of([0.0_f32])).refused("byte token");
    }
}

#[test]
fn padding_tokens_without_text_are_no_contradiction() {
    let tokenizer = bpe(&["h", "", ""], &[]).put("pre", "gpt-2").tokenizer();
    assert_eq!(tokenizer.encode("hh", Special::Parse).expect("ids"), [0, 0]);
}

#[test]
fn special_tokens_are_tokens_only_where_they_are_parsed() {
    let tokenizer = bytes_and("gpt-2").tokenizer();
    let text = "hello<|im_end|> hello";
    let plain = tokenizer.encode(text, Special::Plain).expect("ids");
    assert!(!plain.contains(&301), "{plain:?}");
    assert_eq!(tokenizer.decode(&plain).expect("text"), text);
    let parsed = tokenizer.encode(text, Special::Parse).expect("ids");
    assert_eq!(parsed, [259, 301, 260]);
    assert_eq!(tokenizer.decode(&parsed).expect("text"), text);
    assert!(tokenizer.is_control(301) && !tokenizer.is_control(260) && !tokenizer.is_control(9999));
}

#[test]
fn user_defined_tokens_are_found_in_any_text_the_longest_first() {
    let tokenizer = bytes_and("gpt-2").tokenizer();
    let ids = tokenizer.encode("<tool><tool><tool>hello", Special::Plain).expect("ids");
    assert_eq!(ids, [303, 302, 259]);
}

#[test]
fn begin_and_end_tokens_go_around_where_the_file_asks() {
    let both = bytes_and("gpt-2").put("add_bos_token", true).put("add_eos_token", true).tokenizer();
    assert_eq!(both.encode("hello", Special::Plain).expect("ids"), [300, 259, 301]);
    assert_eq!(both.encode("", Special::Plain).expect("ids"), [300, 301]);
    assert_eq!((both.begin(), both.end()), (Some(300), Some(301)));
}

#[test]
fn a_conversation_begins_once_and_does_not_end() {
    let both = bytes_and("gpt-2").put("add_bos_token", true).put("add_eos_token", true).tokenizer();
    for text in ["<|begin|>hello", "hello"] {
        assert_eq!(both.encode_chat(text).expect("ids"), [300, 259]);
    }
    let neither = bytes_and("gpt-2").tokenizer();
    assert_eq!(neither.encode_chat("hello").expect("ids"), [259]);
    assert_eq!(neither.encode_chat("").expect("ids"), [] as [u32; 0]);
}

#[test]
fn generation_ends_with_tokens_known_by_key_or_by_text() {
    let file = bytes_and("gpt-2").put("eos_token_id", 7_u32).put("eot_token_id", 8_u32);
    assert_eq!(file.tokenizer().eos().iter().copied().collect::<Vec<_>>(), [7, 8, 301]);
    let tokens = ["a", "<|file_sep|>", "<reponame>", "<|repo_name|>", "<fim_prefix>", "</s>"];
    let tokenizer = bpe(&tokens, &[]).tokenizer();
    assert_eq!(tokenizer.eos().iter().copied().collect::<Vec<_>>(), [1, 2, 5], "one token to a role");
    let control: Vec<u32> = (0..6).filter(|id| tokenizer.is_control(*id)).collect();
    assert_eq!(control, [1, 2, 4, 5], "what is known by its text is a control token");
    assert_eq!(spm(&[]).tokenizer().eos().iter().copied().collect::<Vec<_>>(), [2]);
}

#[test]
fn sentencepiece_merges_the_highest_score_first_and_of_equals_the_leftmost() {
    let words = [("a", -9.0), ("b", -9.0), ("c", -9.0), ("ab", -2.0), ("bc", -1.0), ("aa", -3.0)];
    let tokenizer = spm(&words).put("add_space_prefix", false).put("add_bos_token", false).tokenizer();
    let ids = |text| tokenizer.encode(text, Special::Plain).expect("ids");
    assert_eq!(ids("abc"), [259, 263], "bc has the higher score");
    assert_eq!(ids("ab"), [262]);
    assert_eq!(ids("aaa"), [264, 259], "the first two");
}

#[test]
fn sentencepiece_builds_long_tokens_from_short_ones_only() {
    let words = [("a", -1.0), ("b", -1.0), ("c", -1.0), ("ab", -2.0), ("abca", 0.0), ("aba", -1.0)];
    let tokenizer = spm(&words).put("add_space_prefix", false).put("add_bos_token", false).tokenizer();
    let ids = |text| tokenizer.encode(text, Special::Plain).expect("ids");
    assert_eq!(ids("abca"), [262, 261, 259], "neither abc nor ca is a token");
    assert_eq!(ids("abab"), [264, 260], "aba is better than a second ab");
}

#[test]
fn sentencepiece_spells_what_is_no_token_by_bytes() {
    let tokenizer = spm(&[("▁", -1.0), ("a", -1.0)]).tokenizer();
    let ids = tokenizer.encode("aé\u{1f980}", Special::Plain).expect("ids");
    let bytes = "é\u{1f980}".bytes().map(|byte| u32::from(byte) + 3);
    assert_eq!(ids, [1, 259, 260].into_iter().chain(bytes).collect::<Vec<_>>());
    assert_eq!(tokenizer.decode(&ids[1..]).expect("text"), " aé\u{1f980}");
    let without =
        File::new("llama", &[("a", NORMAL), ("<0xC3>", BYTE)]).put("scores", OwnedArray::of([0.0_f32; 2]));
    let without = without.put("add_space_prefix", false).put("bos_token_id", 0_u32).tokenizer();
    let said = without.encode("aé", Special::Plain).expect_err("refused").to_string();
    assert!(said.contains("cannot spell 'é'") && said.contains("<0xA9>"), "{said}");
}

#[test]
fn sentencepiece_puts_a_space_before_text_at_the_beginning_and_after_special_tokens() {
    let words = [("▁", -1.0), ("a", -1.0), ("▁a", -0.5)];
    let tokenizer = spm(&words).tokenizer();
    assert_eq!(tokenizer.encode("a</s>a a", Special::Parse).expect("ids"), [1, 261, 2, 261, 261]);
    assert_eq!(tokenizer.encode("", Special::Parse).expect("ids"), [1]);
    let without = spm(&words).put("add_space_prefix", false).tokenizer();
    assert_eq!(without.encode("a</s>a a", Special::Parse).expect("ids"), [1, 260, 2, 260, 261]);
}

#[test]
fn special_tokens_of_phi_3_take_the_white_space_after_them() {
    let file = spm(&[("▁", -1.0), ("a", -1.0), ("▁a", -0.5)]).put("add_bos_token", false);
    let tokenizer = file.put_general("general.name", "Phi3 mini").tokenizer();
    assert_eq!(tokenizer.encode("</s> \n\ta", Special::Parse).expect("ids"), [2, 261]);
    assert_eq!(tokenizer.encode("<s> a", Special::Parse).expect("ids"), [1, 259, 261], "not this one");
}

#[test]
fn characters_appear_when_their_last_byte_has() {
    let tokenizer = bytes_and("gpt-2").tokenizer();
    let mut stream = Detokenizer::new(&tokenizer);
    let ids: Vec<u32> = "a\u{1f980}".bytes().map(u32::from).collect();
    let parts: Vec<String> = ids.iter().map(|id| stream.push(*id).expect("text")).collect();
    assert_eq!(parts, ["a", "", "", "", "\u{1f980}"]);
    assert_eq!(stream.finish(), "");
}

#[test]
fn bytes_that_are_no_text_become_replacement_characters_at_once_or_at_the_end() {
    let tokenizer = bytes_and("gpt-2").tokenizer();
    let mut stream = Detokenizer::new(&tokenizer);
    let mut push = |byte: u8| stream.push(u32::from(byte)).expect("text");
    assert_eq!([push(0xff), push(0xe4), push(b'a'), push(0xf0), push(0x9f)].concat(), "\u{fffd}\u{fffd}a");
    assert_eq!(stream.finish(), "\u{fffd}");
}

#[test]
fn ids_outside_the_vocabulary_are_errors_and_leave_the_stream_as_it_was() {
    let tokenizer = bytes_and("gpt-2").tokenizer();
    let said = tokenizer.decode(&[1, 304]).expect_err("refused").to_string();
    assert!(said.contains("304 tokens, got 304"), "{said}");
    let mut stream = Detokenizer::new(&tokenizer);
    stream.push(0xc3).expect("text");
    stream.push(u32::MAX).expect_err("refused");
    assert_eq!(stream.push(0xa9).expect("text"), "é");
}

#[test]
fn a_stretch_of_white_space_too_long_to_split_is_an_error_and_not_other_ids() {
    let tokenizer = bytes_and("gpt-2").tokenizer();
    assert_eq!(tokenizer.encode(&" ".repeat(100_000), Special::Plain).expect("ids").len(), 100_000);
    let said = tokenizer.encode(&" ".repeat(2_000_000), Special::Plain).expect_err("refused").to_string();
    assert!(said.contains("cannot be split"), "{said}");
}

#[test]
fn what_decides_ids_decides_the_digest() {
    let digest = |file: File| file.tokenizer().digest();
    let words = [("a", -1.0), ("b", -2.0)];
    let digests = [
        digest(bytes_and("gpt-2")),
        digest(bytes_and("smollm")),
        digest(bytes_and("gpt-2").put("add_bos_token", true)),
        digest(bytes_and("gpt-2").put("add_eos_token", true)),
        digest(spm(&words)),
        digest(spm(&[("a", -1.0), ("b", -1.0)])),
        digest(spm(&words).put("add_space_prefix", false)),
    ];
    for (i, one) in digests.iter().enumerate() {
        assert!(digests[..i].iter().all(|other| other != one), "{i}");
    }
}

proptest! {
    #[test]
    fn any_text_comes_back_from_byte_level_ids(text in any::<String>(), pre in prop::sample::select(PRE.to_vec())) {
        let tokenizer = bytes_and(pre).put("add_bos_token", false).tokenizer();
        let ids = tokenizer.encode(&text, Special::Plain).expect("ids");
        prop_assert_eq!(tokenizer.decode(&ids).expect("text"), text);
    }

    #[test]
    fn any_text_comes_back_with_special_tokens_in_it(text in "(<tool>|<\\|im_end\\|>|hello|[ <|>\n]|\\PC){0,20}") {
        let tokenizer = bytes_and("llama-bpe").put("add_bos_token", false).tokenizer();
        for special in [Special::Plain, Special::Parse] {
            let ids = tokenizer.encode(&text, special).expect("ids");
            prop_assert_eq!(&tokenizer.decode(&ids).expect("text"), &text);
        }
    }

    #[test]
    fn any_text_comes_back_from_sentencepiece_ids(text in "[ ▁abc é\u{1f980}\n]{0,12}|\\PC{0,40}") {
        let tokenizer = spm(&[("a", -1.0), ("▁a", -0.5), ("ab", -1.0), ("▁", -3.0), ("▁▁", -2.0)]).tokenizer();
        let ids = tokenizer.encode_bare(&text, Special::Plain).expect("ids");
        let prefix = if text.is_empty() { "" } else { " " };
        prop_assert_eq!(tokenizer.decode(&ids).expect("text"), format!("{prefix}{}", text.replace('▁', " ")));
    }

    #[test]
    fn a_stream_gives_what_decoding_gives(ids in prop::collection::vec(0_u32..304, 0..60)) {
        let tokenizer = bytes_and("gpt-2").tokenizer();
        let mut stream = Detokenizer::new(&tokenizer);
        let mut text: String = ids.iter().map(|id| stream.push(*id).expect("text")).collect();
        text.push_str(&stream.finish());
        prop_assert_eq!(text, tokenizer.decode(&ids).expect("text"));
    }
}

/// One name of each row of the table.
const PRE: [&str; 9] = [
    "default",
    "gpt-2",
    "smollm",
    "falcon",
    "qwen2",
    "qwen35",
    "deepseek-llm",
    "deepseek-coder",
    "llama-bpe",
];
