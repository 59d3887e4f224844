//! `assay receipt` and `assay audit` as a new user would: keys, signatures, a ledger, a replay, each end and its code.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn assay(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command.args(args).env_remove("ASSAY_SIGNING_KEY").output().expect("assay starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", stderr(output)))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(output)))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

/// A folder with the receipt of a run of the built-in model, and the receipt.
fn with_receipt(more: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("receipts");
    let args = ["run", "--steps", "4", "--json", "--out", text(&out)];
    let output = assay(&[&args[..], more].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let path = json(&output)["receipt"].as_str().expect("a receipt").into();
    (folder, path)
}

fn only_file(folder: &Path, ending: &str) -> PathBuf {
    let paths = fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path());
    let mut found: Vec<PathBuf> = paths.filter(|path| text(path).ends_with(ending)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_receipt_is_signed_verified_and_its_signatures_are_added_to() {
    let (folder, receipt) = with_receipt(&[]);
    let (alice, bob) = (folder.path().join("alice"), folder.path().join("bob"));
    for key in [&alice, &bob] {
        let made = assay(&["receipt", "keygen", text(key)]);
        assert_eq!(code(&made), 0, "{}", stderr(&made));
        let secret = fs::read_to_string(key).expect("key");
        let secret = secret.lines().nth(1).expect("base64");
        assert!(!stdout(&made).contains(secret) && !stderr(&made).contains(secret), "the key is printed");
    }
    assert_eq!(code(&assay(&["receipt", "keygen", text(&alice)])), 2, "nothing is overwritten");
    let (alice_pub, bob_pub) = (folder.path().join("alice.pub"), folder.path().join("bob.pub"));

    let signed = assay(&["receipt", "sign", text(&receipt), "--key", text(&alice)]);
    assert_eq!(code(&signed), 0, "{}", stderr(&signed));
    let envelope = only_file(receipt.parent().expect("folder"), ".dsse.json");
    let verify = |args: &[&str]| {
        let output = assay(&[&["receipt", "verify", text(&envelope)], args].concat());
        (code(&output), stdout(&output))
    };
    assert_eq!(verify(&["--key", text(&alice_pub)]).0, 0);
    assert_eq!(verify(&[]).0, 7, "signed, but nobody said by whom");
    assert_eq!(verify(&["--key", text(&bob_pub)]).0, 5);
    // The new key signs too; those who have either can verify.
    assert_eq!(code(&assay(&["receipt", "sign", text(&envelope), "--key", text(&bob)])), 0);
    assert_eq!(verify(&["--key", text(&alice_pub), "--key", text(&bob_pub)]).0, 0);
    let (code_of, said) = verify(&["--key", text(&bob_pub)]);
    assert!(code_of == 0 && said.contains("signed by"), "{said}");

    let plain = assay(&["receipt", "show", text(&envelope), "--statement"]);
    assert_eq!(plain.stdout, fs::read(&receipt).expect("receipt"), "the same bytes inside");
    let shown = stdout(&assay(&["receipt", "show", text(&envelope)]));
    assert!(shown.contains("kind       model-run") && shown.contains("not checked"), "{shown}");

    // A key out of a variable; what is no key is refused without a word of it.
    let out = folder.path().join("by-variable");
    let with_key = |value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command.args(["receipt", "sign", text(&receipt), "--out", text(&out)]);
        command.env("ASSAY_SIGNING_KEY", value).output().expect("assay starts")
    };
    let refused = with_key("0123456789secret");
    assert!(code(&refused) == 2 && !stderr(&refused).contains("secret"), "{}", stderr(&refused));
    assert_eq!(code(&with_key(&fs::read_to_string(&alice).expect("key"))), 0);
    assert_eq!(
        code(&assay(&["receipt", "verify", text(&only_file(&out, ".dsse.json")), "--key", text(&alice_pub)])),
        0
    );
    let unsaid = assay(&["receipt", "sign", text(&receipt)]);
    assert!(code(&unsaid) == 2 && stderr(&unsaid).contains("keygen"), "{}", stderr(&unsaid));
}

#[test]
fn what_was_changed_is_neither_signed_nor_entered_nor_run_again() {
    let (folder, receipt) = with_receipt(&[]);
    let key = folder.path().join("key");
    assert_eq!(code(&assay(&["receipt", "keygen", text(&key)])), 0);
    let changed = fs::read_to_string(&receipt).expect("receipt").replace("\"steps\":4", "\"steps\":5");
    fs::write(&receipt, changed).expect("written");
    let ledger = folder.path().join("ledger.jsonl");
    for args in [
        &["receipt", "sign", text(&receipt), "--key", text(&key)][..],
        &["receipt", "ledger", "add", text(&ledger), text(&receipt)],
        &["receipt", "replay", text(&receipt)],
        &["receipt", "verify", text(&receipt)],
    ] {
        assert_eq!(code(&assay(args)), 5, "{args:?}");
    }
    assert!(!ledger.exists());
    assert_eq!(fs::read_dir(receipt.parent().expect("folder")).expect("folder").count(), 1, "no envelope");
}

#[test]
fn a_ledger_tells_what_is_missing() {
    let (folder, receipt) = with_receipt(&[]);
    let receipts = receipt.parent().expect("folder").to_owned();
    let ledger = folder.path().join("ledger.jsonl");
    let ledger = text(&ledger);
    let added = assay(&["receipt", "ledger", "add", ledger, text(&receipt)]);
    assert_eq!(code(&added), 0, "{}", stderr(&added));
    let verify = |args: &[&str]| assay(&[&["receipt", "ledger", "verify", ledger, "--json"], args].concat());
    let first = json(&verify(&["--receipts", text(&receipts)]));
    assert_eq!((first["verdict"].as_str(), first["lines"].as_u64()), (Some("VALID"), Some(1)));
    let head = first["head"].as_str().expect("head").to_owned();
    // Another receipt that nobody entered.
    let out = text(receipts.parent().expect("folder"));
    assert_eq!(code(&assay(&["run", "--steps", "2", "--out", out, "--json"])), 0);
    let second = fs::read_dir(&receipts).expect("folder").map(|entry| entry.expect("entry").path());
    let second = second.filter(|path| *path != receipt).max().expect("another receipt");
    assert_eq!(code(&verify(&["--receipts", text(&receipts)])), 5);
    assert_eq!(code(&assay(&["receipt", "verify", text(&second), "--ledger", ledger])), 7);
    assert_eq!(code(&assay(&["receipt", "ledger", "add", ledger, text(&second)])), 0);
    assert_eq!(code(&assay(&["receipt", "verify", text(&second), text(&receipt), "--ledger", ledger])), 0);
    assert_eq!(code(&verify(&["--receipts", text(&receipts), "--since", &head])), 0, "it went on from there");
    assert_eq!(code(&verify(&["--head", &head])), 5, "it is not there any more");
    assert_eq!(code(&verify(&["--since", &"1".repeat(64)])), 5);
    let shown = stdout(&assay(&["receipt", "ledger", "show", ledger]));
    assert!(shown.contains("model-run") && shown.contains("head "), "{shown}");
    fs::remove_file(&second).expect("removed");
    assert_eq!(code(&verify(&["--receipts", text(&receipts)])), 5, "a receipt is gone");
    assert_eq!(code(&assay(&["receipt", "ledger", "verify", "no-such-ledger"])), 2);
}

#[test]
fn a_claim_is_run_again_here_and_its_receipt_written() {
    let (folder, receipt) = with_receipt(&["--trace"]);
    let out = folder.path().join("again");
    let replayed = assay(&["receipt", "replay", text(&receipt), "--out", text(&out), "--json"]);
    let said = json(&replayed);
    assert_eq!((code(&replayed), said["verdict"].as_str()), (0, Some("REPRODUCED")), "{said:#}");
    let again = said["receipt"].as_str().expect("a receipt");
    let claim = |path: &Path| {
        let value: Value = serde_json::from_slice(&fs::read(path).expect("receipt")).expect("JSON");
        value["predicate"]["claim_id"].as_str().expect("claim").to_owned()
    };
    assert_eq!(claim(Path::new(again)), claim(&receipt));
    assert_eq!(code(&assay(&["receipt", "verify", again])), 0);
    let plain = stdout(&assay(&["receipt", "replay", text(&receipt)]));
    assert!(plain.starts_with("REPRODUCED"), "{plain}");
    let absent = assay(&["receipt", "replay", text(&receipt), "--model", "no-such.gguf"]);
    assert_eq!(code(&absent), 7, "{}", stderr(&absent));
}

#[cfg(unix)]
#[test]
fn an_honest_run_passes_the_audit_and_its_receipt_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let args = ["audit", "--steps", "6", "--repeats", "2", "--out", text(folder.path()), "--json"];
    let audited = assay(&args);
    let said = json(&audited);
    assert_eq!((code(&audited), said["held"].as_bool()), (0, Some(true)), "{said:#}");
    let receipt = said["receipt"].as_str().expect("a receipt");
    let verified = assay(&["receipt", "verify", receipt, "--held", "--json"]);
    assert_eq!(code(&verified), 0, "{}", stdout(&verified));
    let rules = json(&verified)[0]["rules"].clone();
    let audit = rules.as_array().expect("rules").iter().find(|rule| rule["rule"] == "audit").expect("a rule");
    assert_eq!(audit["outcome"], "held");
}

#[test]
fn without_times_two_runs_write_the_same_receipt() {
    let folder = tempfile::tempdir().expect("folder");
    let run = |name: &str| {
        let out = folder.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command.args(["run", "--steps", "3", "--json", "--out", text(&out)]);
        command.env("ASSAY_DETERMINISTIC", "1").env("SOURCE_DATE_EPOCH", "1700000000");
        let output = command.output().expect("assay starts");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        PathBuf::from(json(&output)["receipt"].as_str().expect("a receipt"))
    };
    let (one, two) = (run("one"), run("two"));
    assert_eq!(one.file_name(), two.file_name());
    assert!(text(&one).contains("2023-11-14-"), "{}", one.display());
    assert_eq!(fs::read(&one).expect("receipt"), fs::read(&two).expect("receipt"));
    let said = stdout(&assay(&["receipt", "show", text(&one)]));
    assert!(said.contains("ASSAY_DETERMINISTIC=1"), "{said}");
    assert_eq!(code(&assay(&["receipt", "verify", text(&one)])), 0);
}

#[test]
fn a_failed_run_is_valid_but_does_not_pass_where_it_must_have_held() {
    use assay_harness::receipts::text::Sha256Hex;
    use assay_harness::receipts::types::{Statement, Status};
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../receipts/compat/v1/parity");
    let held = examples.join("2026-11-23-b64e38488106.json");
    let mut statement: Statement = serde_json::from_slice(&fs::read(&held).expect("receipt")).expect("JSON");
    let parity = statement.predicate.parity.as_mut().expect("parity");
    parity.expected_logits_sha256 = Some(Sha256Hex::of(b"what somebody else computed"));
    statement.predicate.status = Status::Failed;
    let folder = tempfile::tempdir().expect("folder");
    let failed = assay_harness::receipts::canonical::write(folder.path(), &statement).expect("written");
    let verify = |args: &[&str]| code(&assay(&[&["receipt", "verify"], args].concat()));
    assert_eq!([verify(&[text(&held)]), verify(&[text(&held), "--held"])], [0, 0]);
    assert_eq!([verify(&[text(&failed)]), verify(&[text(&failed), "--held"])], [0, 1]);
}
