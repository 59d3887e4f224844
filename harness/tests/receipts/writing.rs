//! Writing receipts, and the two identities.

use crate::made_up;
use assay_harness::receipts::text::{DateTime, FileName};
use assay_harness::receipts::verify::{Options, Verdict, verify};
use assay_harness::receipts::{Error, canonical, machine};

#[test]
fn a_written_receipt_is_valid_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut statement = made_up::model_run();
    let made_up = std::mem::replace(&mut statement.predicate.environment, machine::environment());
    // What the made-up instruction set asks for; this machine may be another.
    statement.predicate.environment.cpu.features = made_up.cpu.features;
    statement.predicate.environment.build.target = made_up.build.target;
    statement.predicate.tool = machine::tool();
    statement.predicate.created = DateTime::now();
    let path = canonical::write(dir.path(), &statement).unwrap();
    assert!(path.starts_with(dir.path().join("model-run")));
    let file_name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let options = Options { file_name: Some(file_name), ..Options::default() };
    let report = verify(&std::fs::read(&path).unwrap(), &options);
    assert_eq!(report.decided_by(), None);
    assert_eq!(report.verdict, Verdict::Valid);
    assert_eq!(report.statement, Some(statement));
}

#[test]
fn writing_again_changes_nothing_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let statement = made_up::parity();
    let path = canonical::write(dir.path(), &statement).unwrap();
    assert_eq!(canonical::write(dir.path(), &statement).unwrap(), path);
    std::fs::write(&path, "something else").unwrap();
    let refused = canonical::write(dir.path(), &statement);
    assert!(matches!(refused, Err(Error::Collision { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"something else");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file is left");
}

#[test]
fn what_is_not_sealed_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut statement = made_up::model_run();
    statement.predicate.input.as_mut().unwrap().prompt_token_ids[0] = 2;
    assert_eq!(canonical::write(dir.path(), &statement), Err(Error::Unsealed));
}

#[test]
fn two_honest_runs_have_one_claim_id() {
    let here = made_up::model_run();
    let mut there = here.clone();
    there.subject[0].name = FileName::parse("renamed.gguf").unwrap();
    there.predicate.created = DateTime::from_unix(0);
    there.predicate.execution.threads = 7;
    there.predicate.environment = machine::environment();
    assert_eq!(canonical::claim_id(&here), canonical::claim_id(&there));
    assert_ne!(canonical::receipt_id(&here), canonical::receipt_id(&there));
    there.predicate.input.as_mut().unwrap().prompt_token_ids[0] += 1;
    assert_ne!(canonical::claim_id(&here), canonical::claim_id(&there));
}

#[test]
fn decoded_weights_have_one_digest_in_any_order_and_format() {
    let model = made_up::model_run().predicate.model.unwrap();
    let mut other = model.tensors.clone();
    other.reverse();
    for tensor in &mut other {
        tensor.format = "TQ2_0".into();
        tensor.sha256 = assay_harness::receipts::text::Sha256Hex::of(b"other bytes");
    }
    assert_eq!(canonical::decoded_weights_sha256(&other).unwrap(), model.decoded_weights_sha256);
    assert_eq!(canonical::decoded_weights_sha256(&[]).unwrap(), None);
}
