//! Bytes of strangers against the verifier: nothing panics, and nothing is held to a key that did not sign it.
#![no_main]

use assay_harness::receipts::envelope;
use assay_harness::receipts::examples::{alice, bob};
use assay_harness::receipts::text::Sha256Hex;
use assay_harness::receipts::verify::{Options, Rule, Verdict, verify};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// The present of the fuzzer: later than every example.
const NOW: u64 = 2_000_000_000;

/// The receipts that the keys of the examples signed, by their ids. (What else they signed is in the negative examples, which no rule
/// takes, and which are signed receipts too.)
static SIGNED: LazyLock<BTreeSet<Sha256Hex>> = LazyLock::new(|| {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../receipts/examples");
    let mut ids = BTreeSet::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).expect("examples").map(|entry| entry.expect("entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if let Some(Ok(envelope)) = envelope::open(&std::fs::read(&path).expect("an example")) {
                ids.insert(Sha256Hex::of(&envelope.payload));
            }
        }
    }
    ids
});

fuzz_target!(|bytes: &[u8]| {
    // As a user verifies: with a key, so that only what was signed is valid.
    let keys = vec![alice().public(), bob().public()];
    let report = verify(bytes, &Options { keys, signatures: Some(1), now: NOW, ..Options::default() });
    assert!(report.verdict != Verdict::Valid || SIGNED.contains(&report.receipt_id), "a forged signature");
    // Without what keeps hostile values from the rules behind.
    let off = BTreeSet::from([Rule::Numbers, Rule::CanonicalForm, Rule::ClaimId, Rule::ReceiptId, Rule::Signature]);
    let report = verify(bytes, &Options { off, strict: true, now: NOW, ..Options::default() });
    assert_eq!(report.rules.len(), Rule::ALL.len());
});
