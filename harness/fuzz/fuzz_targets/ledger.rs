//! Bytes of strangers against the ledger's reader: nothing panics, and what is taken is what its lines say, byte for byte.
#![no_main]

use assay_harness::receipts::canonical;
use assay_harness::receipts::ledger::Ledger;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(ledger) = Ledger::parse(bytes) else { return };
    let mut written = Vec::new();
    for line in &ledger.lines {
        written.extend(canonical::to_bytes(line).expect("a line that was read"));
        written.push(b'\n');
    }
    assert_eq!(written, bytes);
});
