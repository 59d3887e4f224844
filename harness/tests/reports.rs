//! Reports over the committed example receipts: every verdict, and the committed example report, byte for byte.
#![cfg(feature = "report")]

use assay_harness::receipts::canonical;
use assay_harness::receipts::text::Sha256Hex;
use assay_harness::receipts::types::{Claim, Statement};
use assay_harness::reports::{Report, Verdict, compare, load, markdown, write};
use assay_variables::UPDATE;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn baseline() -> PathBuf {
    root().join("receipts/examples/baseline")
}

fn candidate() -> PathBuf {
    root().join("receipts/examples/positive")
}

fn report(baseline: &Path, candidate: &Path) -> Report {
    compare(&load(baseline).expect("baseline"), &load(candidate).expect("candidate")).expect("report")
}

/// The one example receipt of a kind.
fn example(kind: &str) -> Statement {
    let folder = candidate().join(kind);
    let files = fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry").path());
    let bytes = fs::read(files.min().expect("a receipt")).expect("receipt");
    let mut statement: Statement = serde_json::from_slice(&bytes).expect("statement");
    // They repeat the claim, which the tests change.
    statement.predicate.execution.trace = None;
    statement.predicate.audit = None;
    statement
}

#[test]
fn the_committed_example_report_is_what_its_receipts_give() {
    let report = report(&baseline(), &candidate());
    assert!(report.held(), "{}", markdown(&report));
    let folder = tempfile::tempdir().expect("folder");
    let committed = root().join("reports/example");
    let update = UPDATE.read().expect("a flag");
    let out = if update { committed.clone() } else { folder.path().to_owned() };
    for path in write(&out, &report).expect("written") {
        let name = path.file_name().expect("a name");
        let (fresh, kept) = (fs::read_to_string(&path), fs::read_to_string(committed.join(name)));
        let advice = "run: ASSAY_UPDATE=1 cargo test -p assay-harness --test reports";
        assert_eq!(fresh.expect("fresh"), kept.expect("committed"), "{advice}");
    }
}

/// Verdict of the claim that `change` was done to, against the unchanged receipt.
fn verdict_of(change: impl FnOnce(&mut Statement)) -> Vec<Verdict> {
    let (folder, mut statement) = (tempfile::tempdir().expect("folder"), example("model-run"));
    canonical::write(&folder.path().join("a"), &statement).expect("written");
    change(&mut statement);
    canonical::seal(&mut statement).expect("sealed");
    canonical::write(&folder.path().join("b"), &statement).expect("written");
    let report = report(&folder.path().join("a"), &folder.path().join("b"));
    report.rows.iter().map(|row| row.verdict).collect()
}

#[test]
fn an_equal_digest_is_the_same_and_another_is_changed() {
    assert_eq!(verdict_of(|statement| statement.predicate.execution.threads = 7), [Verdict::Same]);
    let other_logits = |statement: &mut Statement| {
        if let Claim::ModelRun(claim) = &mut statement.predicate.claim {
            claim.logits.sha256 = Sha256Hex::of(b"other");
        }
    };
    assert_eq!(verdict_of(other_logits), [Verdict::Changed]);
}

#[test]
fn another_question_is_missing_on_one_side_and_new_on_the_other() {
    let other_prompt = |statement: &mut Statement| {
        let input = statement.predicate.input.as_mut().expect("a model run has input");
        input.prompt_token_ids[1] ^= 1; // the first may be a special one, the last of the vocabulary
    };
    let mut verdicts = verdict_of(other_prompt);
    verdicts.sort_by_key(|verdict| verdict.passes());
    assert_eq!(verdicts, [Verdict::Missing, Verdict::New]);
}

#[test]
fn a_failed_run_fails_whatever_the_baseline_says() {
    let folder = tempfile::tempdir().expect("folder");
    let mut statement = example("parity");
    canonical::write(&folder.path().join("a"), &statement).expect("written");
    let predicate = &mut statement.predicate;
    predicate.status = assay_harness::receipts::types::Status::Failed;
    let parity = predicate.parity.as_mut().expect("parity");
    parity.expected_logits_sha256 = Some(Sha256Hex::of(b"other"));
    canonical::write(&folder.path().join("b"), &statement).expect("written");
    let report = report(&folder.path().join("a"), &folder.path().join("b"));
    assert_eq!(report.rows[0].verdict, Verdict::Failed);
    assert!(!report.held());
}

#[test]
fn receipts_that_do_not_verify_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let path = canonical::write(folder.path(), &example("model-run")).expect("written");
    let mut bytes = fs::read(&path).expect("receipt");
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&path, bytes).expect("written");
    let report = report(&baseline(), folder.path());
    assert_eq!(report.refused.len(), 1, "{:?}", report.refused);
    assert!(report.refused[0].contains("TAMPERED"), "{:?}", report.refused);
    assert!(!report.held());
    assert!(load(&folder.path().join("no-such")).is_err());
    assert!(load(&folder.path().join("model-run")).is_ok());
}
