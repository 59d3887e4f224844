//! Envelopes: every changed bit is found, several keys, and programs of others.

use crate::{made_up, root, skipped, updating};
use assay_harness::receipts::canonical;
use assay_harness::receipts::envelope::{self, Envelope};
use assay_harness::receipts::examples::{alice, bob};
use assay_harness::receipts::keys::{PrivateKey, PublicKey};
use assay_harness::receipts::types::Statement;
use assay_harness::receipts::verify::{Options, Outcome, Rule, Verdict, verify};
use proptest::prelude::*;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// A receipt that both signed.
fn signed(statement: &Statement) -> Vec<u8> {
    let mut envelope = Envelope::around(canonical::to_bytes(statement).unwrap());
    envelope.sign(&alice()).unwrap();
    envelope.sign(&bob()).unwrap();
    envelope.to_bytes().unwrap()
}

fn held_to(keys: &[PublicKey]) -> Options {
    Options { keys: keys.to_vec(), now: made_up::NOW, ..Options::default() }
}

static SIGNED: LazyLock<(Vec<u8>, Options)> =
    LazyLock::new(|| (signed(&made_up::model_run()), held_to(&[alice().public(), bob().public()])));

#[test]
fn a_signature_stands_in_for_the_name_that_a_receipt_lacks() {
    let (bytes, options) = &*SIGNED;
    let report = verify(bytes, options);
    assert_eq!((report.verdict, report.decided_by()), (Verdict::Valid, None));
    assert_eq!(report.signed_by, [alice().public().id(), bob().public().id()]);
    assert_eq!(report.result(Rule::ReceiptId).map(|result| result.outcome), Some(Outcome::NotChecked));
    let statement = made_up::model_run();
    assert_eq!(report.receipt_id, canonical::receipt_id(&statement).unwrap());
    let named = canonical::envelope_name(&statement, &report.receipt_id);
    let report = verify(bytes, &Options { file_name: Some(named), ..options.clone() });
    assert_eq!(report.result(Rule::ReceiptId).map(|result| result.outcome), Some(Outcome::Held));
}

#[test]
fn as_many_keys_must_have_signed_as_the_caller_asks_for() {
    let mut one = Envelope::around(canonical::to_bytes(&made_up::model_run()).unwrap());
    one.sign(&bob()).unwrap();
    let one = one.to_bytes().unwrap();
    let keys = [alice().public(), bob().public()];
    let verdict = |bytes: &[u8], keys: &[PublicKey], signatures: Option<usize>| {
        verify(bytes, &Options { signatures, ..held_to(keys) }).verdict
    };
    assert_eq!(verdict(&one, &keys, None), Verdict::Tampered);
    assert_eq!(verdict(&one, &keys, Some(1)), Verdict::Valid, "while keys are changed");
    assert_eq!(verdict(&one, &keys[..1], None), Verdict::Tampered);
    assert_eq!(verdict(&one, &keys[1..], None), Verdict::Valid);
    assert_eq!(verdict(&SIGNED.0, &keys[1..], None), Verdict::Valid, "another signature does no harm");
    assert_eq!(verdict(&SIGNED.0, &[], None), Verdict::Inconclusive, "nobody said whose key");
    // The same key given twice is one key.
    assert_eq!(verdict(&one, &[bob().public(), bob().public()], None), Verdict::Valid);
    assert_eq!(verdict(&one, &[bob().public(), bob().public()], Some(2)), Verdict::Tampered);
}

#[test]
fn every_flipped_bit_of_a_byte_in_eleven_and_of_every_signature_is_found() {
    if assay_variables::skip_slow("flipped bits of envelopes") {
        return;
    }
    let (bytes, options) = &*SIGNED;
    let signatures = bytes.windows(12).position(|window| window == b"\"signatures\"").unwrap();
    for place in (0..signatures).step_by(11).chain(signatures..bytes.len()) {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << bit;
            assert_eq!(verify(&flipped, options).verdict, Verdict::Tampered, "bit {bit} of byte {place}");
        }
    }
}

proptest! {
    #[test]
    fn a_flipped_bit_in_an_envelope_is_found(place in any::<prop::sample::Index>(), bit in 0..8u32) {
        let (bytes, options) = &*SIGNED;
        let mut flipped = bytes.clone();
        let place = place.index(bytes.len());
        flipped[place] ^= 1 << bit;
        prop_assert_eq!(verify(&flipped, options).verdict, Verdict::Tampered);
    }

    #[test]
    fn spliced_envelopes_never_panic_and_never_pass(
        from in any::<prop::sample::Index>(),
        length in 0..40usize,
        patch in "[0-9\"{}\\[\\],:a-zA-Z=/+]{0,12}",
    ) {
        let (bytes, options) = &*SIGNED;
        let from = from.index(bytes.len());
        let to = (from + length).min(bytes.len());
        let spliced = [&bytes[..from], patch.as_bytes(), &bytes[to..]].concat();
        prop_assert!(spliced == *bytes || verify(&spliced, options).verdict == Verdict::Tampered);
    }
}

/// Where the vector lies: an envelope that another program made, and the key that it is held to.
fn vector() -> PathBuf {
    root().join("fixtures/dsse")
}

/// A script that makes the vector with the package `cryptography` and reads it, and ours, with `securesystemslib`.
const SCRIPT: &str = include_str!("dsse.py");

/// Whether Python is here with `module`.
fn python_has(module: &str) -> bool {
    let found = Command::new("python3").args(["-c", &format!("import {module}")]).output();
    found.is_ok_and(|output| output.status.success())
}

#[test]
fn the_vector_that_another_program_made_verifies_and_is_what_we_make() {
    let folder = vector();
    let ours = {
        let mut envelope = Envelope::around(std::fs::read(folder.join("statement.json")).unwrap());
        envelope.sign(&PrivateKey::parse(&std::fs::read(folder.join("seed.hex")).unwrap()).unwrap()).unwrap();
        envelope
    };
    let key = PublicKey::open(&folder.join("key.pub")).unwrap();
    let theirs = std::fs::read(folder.join("envelope.json")).unwrap();
    // Ed25519 is deterministic: who signs the same with the same key gives the same.
    assert_eq!(envelope::open(&theirs), Some(Ok(ours.clone())), "{}", folder.display());
    assert!(key.verifies(&envelope::pre_authentication_encoding(&ours.payload), &ours.signatures[0].sig));
}

#[test]
fn python_makes_the_same_vector_and_reads_ours() {
    if !python_has("cryptography") {
        return skipped("no Python with the package cryptography: the committed vector alone was checked");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ours.dsse.json"), &SIGNED.0).unwrap();
    std::fs::write(folder.path().join("alice.pub"), alice().public().to_pem().unwrap()).unwrap();
    let key = folder.path().join("fresh");
    alice().write_new(&key).unwrap();
    let update = if updating() { "update" } else { "check" };
    let output = Command::new("python3")
        .args(["-c", SCRIPT, update])
        .args([vector(), folder.path().to_owned()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // It says what it could not do.
    said.lines().filter(|line| line.starts_with("skipped")).for_each(skipped);
}
