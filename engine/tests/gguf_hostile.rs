//! Every broken file gives exactly its message, and every message has a broken file.

use std::collections::BTreeSet;

use assay_engine::gguf::hostile::{Stage, corpus, valid};
use assay_engine::gguf::{Gguf, Writer};
use assay_engine::tensor::Matrix;

/// Errors that no file can give: they come from asking for metadata and from writing.
const NOT_FROM_FILES: [&str; 4] = ["GgufMissing", "GgufWrongType", "GgufTensorBytes", "GgufOutput"];

/// The name of an error's variant.
fn variant(error: &assay_engine::Error) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

/// What the weights themselves are refused for.
fn payload(file: &Gguf<'_>) -> Result<(), String> {
    let check = |tensor| Matrix::of(file, tensor)?.validate();
    file.tensors().iter().try_for_each(check).map_err(|error| error.to_string())
}

#[test]
fn the_valid_file_is_valid() {
    let bytes = valid();
    let file = Gguf::parse(&bytes).unwrap();
    assert_eq!(file.tensors().len(), 4);
    assert_eq!(payload(&file), Ok(()));
    assert_eq!(Writer::from(&file).to_bytes().unwrap(), bytes);
}

#[test]
fn every_broken_file_gives_exactly_its_message() {
    for case in corpus() {
        match (case.stage, Gguf::parse(&case.bytes)) {
            (Stage::Parse, Err(error)) => assert_eq!(error.to_string(), case.error, "{}", case.name),
            (Stage::Parse, Ok(_)) => panic!("'{}' was accepted", case.name),
            (Stage::Payload, Err(error)) => panic!("the directory of '{}' is in order: {error}", case.name),
            (Stage::Payload, Ok(file)) => {
                assert_eq!(payload(&file), Err(case.error.to_owned()), "{}", case.name)
            }
        }
    }
}

#[test]
fn every_error_of_the_reader_has_a_broken_file() {
    let source = include_str!("../src/error.rs");
    let declared = source.lines().filter_map(|line| line.strip_prefix("    Gguf")?.split([' ', ',']).next());
    let declared: BTreeSet<String> = declared.map(|name| format!("Gguf{name}")).collect();
    let corpus = corpus();
    let given = corpus.iter().filter_map(|case| Gguf::parse(&case.bytes).err());
    let given: BTreeSet<String> = given.map(|error| variant(&error)).collect();
    let missing: Vec<_> = declared.difference(&given).collect();
    assert_eq!(missing, NOT_FROM_FILES.iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
}

#[test]
fn every_section_of_the_file_is_cut_somewhere() {
    let texts: Vec<_> =
        corpus().iter().map(|case| case.error).filter(|error| error.contains("cut short")).collect();
    for section in [
        "header",
        "metadata key",
        "metadata value",
        "array",
        "tensor info",
        "alignment padding",
        "tensor data",
    ] {
        assert!(texts.iter().any(|text| text.starts_with(&format!("GGUF {section} "))), "{section}");
    }
}

#[test]
fn names_are_unique_and_messages_one_line() {
    let corpus = corpus();
    let names: BTreeSet<_> = corpus.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), corpus.len());
    assert!(corpus.iter().all(|case| !case.error.contains('\n') && !case.rule.is_empty()));
    assert!(corpus.len() >= 50, "{} cases", corpus.len());
}
