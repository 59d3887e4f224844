//! Ids of llama.cpp's own tokenizer tests: `scripts/vocabs.sh` fetches vocabularies, texts and ids.

use assay_engine::MappedFile;
use assay_engine::gguf::Gguf;
use assay_engine::tokenizer::{Special, Tokenizer};
use assay_variables::{REQUIRE_VOCABS, VOCABS};
use std::fs;
use std::path::{Path, PathBuf};

const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

/// Vocabularies whose ids must all be llama.cpp's, with the numbers of texts and ids.
const VOCABULARIES: [(&str, usize, usize); 13] = [
    ("command-r", 46, 414),
    ("deepseek-coder", 46, 517),
    ("deepseek-llm", 46, 450),
    ("falcon", 46, 432),
    ("gpt-2", 46, 473),
    ("llama-bpe", 46, 355),
    ("llama-spm", 46, 519),
    ("mpt", 46, 384),
    ("phi-3", 46, 519),
    ("qwen2", 46, 389),
    ("qwen35", 50, 799),
    ("refact", 46, 431),
    ("starcoder", 46, 431),
];

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Where the vocabularies are; `None`, said aloud, where they have not been fetched.
fn folder() -> Option<PathBuf> {
    let named = VOCABS.read().unwrap_or_else(|| "target/vocabs".into());
    // A relative name is one from the root, as for the script.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(named);
    if folder.join("ggml-vocab-gpt-2.gguf").is_file() {
        return Some(folder);
    }
    let how = format!("no vocabularies in {}: scripts/vocabs.sh fetches them", folder.display());
    assert!(!REQUIRE_VOCABS.read().expect("a flag"), "{how}");
    say(&format!("SKIPPED ids of llama.cpp: {how}"));
    None
}

fn texts_and_ids(vocabulary: &Path) -> Vec<(String, Vec<u32>)> {
    let read = |ending: &str| {
        let path = format!("{}.{ending}", vocabulary.display());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let (texts, ids) = (read("inp"), read("out"));
    let texts: Vec<&str> = texts.split(SEPARATOR).collect();
    // A separator stands after the last text too.
    let (last, texts) = texts.split_last().expect("texts");
    assert_eq!(last.trim(), "", "{}", vocabulary.display());
    let ids = ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().expect("an id")).collect());
    let ids: Vec<Vec<u32>> = ids.collect();
    assert_eq!(texts.len(), ids.len(), "{}", vocabulary.display());
    texts.iter().map(|text| (*text).to_owned()).zip(ids).collect()
}

#[test]
fn ids_are_those_of_llama_cpp_and_give_the_text_back() {
    let Some(folder) = folder() else { return };
    for (name, texts, ids) in VOCABULARIES {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let golden = texts_and_ids(&path);
        assert_eq!((golden.len(), golden.iter().map(|(_, ids)| ids.len()).sum()), (texts, ids), "{name}");
        let file = MappedFile::open(&path).expect("a file");
        let gguf = Gguf::parse(file.bytes()).expect("GGUF");
        let tokenizer = Tokenizer::read(&gguf).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tokenizer = tokenizer.expect("a tokenizer");
        let spm = gguf.str("tokenizer.ggml.model") == Ok("llama");
        for (text, expected) in &golden {
            let ids = tokenizer.encode_bare(text, Special::Plain).expect("ids");
            assert_eq!(&ids, expected, "{name}: {text:?}");
            let prefix = if spm && !text.is_empty() { " " } else { "" };
            assert_eq!(tokenizer.decode(&ids).expect("text"), [prefix, text].concat(), "{name}");
        }
        say(&format!("{name}: {texts} texts, {ids} ids equal"));
    }
}
