//! The rule on the model file.

use crate::made_up;
use assay_harness::receipts::canonical;
use assay_harness::receipts::text::Sha256Hex;
use assay_harness::receipts::types::Statement;
use assay_harness::receipts::verify::{Files, Options, Outcome, Report, Rule, Verdict, verify};
use std::path::Path;

/// A file that has room for the tensors of a made-up model.
fn file(content: &[u8]) -> Vec<u8> {
    [content, &[0; 20_000]].concat()
}

/// A receipt about [`file`] of `content`, which is called `tiny.gguf`.
fn about(content: &[u8]) -> Statement {
    let content = &file(content);
    let mut statement = made_up::model_run();
    let model = statement.predicate.model.as_mut().unwrap();
    model.sha256 = Sha256Hex::of(content);
    model.bytes = (content.len() as u64).into();
    statement.subject[0].digest.sha256 = model.sha256.clone();
    canonical::seal(&mut statement).unwrap();
    statement
}

fn verdict(statement: &Statement, files: Files) -> (Verdict, Outcome) {
    let options = Options { files, ..made_up::options(statement) };
    let report = verify(&canonical::to_bytes(statement).unwrap(), &options);
    (report.verdict, report.result(Rule::Files).unwrap().outcome)
}

#[test]
fn the_model_is_held_to_the_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let statement = about(b"the model");
    for files in [Files::Directory(dir.path().into()), Files::Model(path.clone())] {
        for (content, expected) in [
            (&b"the model"[..], (Verdict::Valid, Outcome::Held)),
            (b"THE MODEL", (Verdict::Tampered, Outcome::Broken)),
            (b"another one", (Verdict::Tampered, Outcome::Broken)),
        ] {
            std::fs::write(&path, file(content)).unwrap();
            assert_eq!(verdict(&statement, files.clone()), expected);
        }
    }
    assert_eq!(verdict(&statement, Files::NotAsked), (Verdict::Valid, Outcome::NotChecked));
}

#[test]
fn a_model_that_is_not_there_is_inconclusive() {
    let dir = tempfile::tempdir().unwrap();
    let expected = (Verdict::Inconclusive, Outcome::NotChecked);
    for files in [
        Files::Directory(dir.path().into()),
        Files::Directory(dir.path().join("no such folder")),
        Files::Model(dir.path().join("tiny.gguf")),
        Files::Model(dir.path().into()),
    ] {
        assert_eq!(verdict(&about(b"the model"), files), expected);
    }
    let check = made_up::kernel_check();
    for files in [Files::Directory(dir.path().into()), Files::Model(dir.path().join("tiny.gguf"))] {
        assert_eq!(verdict(&check, files), expected, "a kernel check names no model");
    }
    assert_eq!(verdict(&check, Files::NotAsked), (Verdict::Valid, Outcome::NotChecked));
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret"), file(b"the model")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("tiny.gguf")).unwrap();
    let found = verdict(&about(b"the model"), Files::Directory(dir.path().into()));
    assert_eq!(found, (Verdict::Inconclusive, Outcome::NotChecked));
}

#[test]
fn a_subject_name_with_a_path_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("inner")).unwrap();
    std::fs::write(dir.path().join("secret"), file(b"the model")).unwrap();
    for name in ["../secret", "..", "/etc/hostname", "inner/../../secret", "C:\\secret"] {
        let report = with_name(name, &dir.path().join("inner"));
        assert_eq!(report.decided_by().unwrap().rule, Rule::Schema, "{name}");
    }
}

/// A receipt whose subject has a name that the types cannot hold.
fn with_name(name: &str, directory: &Path) -> Report {
    let mut value = serde_json::to_value(about(b"the model")).unwrap();
    value["subject"][0]["name"] = name.into();
    let bytes = canonical::to_bytes(&value).unwrap();
    let options = Options {
        expected_id: Some(Sha256Hex::of(&bytes)),
        files: Files::Directory(directory.into()),
        now: made_up::NOW,
        ..Options::default()
    };
    verify(&bytes, &options)
}
