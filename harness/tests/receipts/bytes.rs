//! No bytes make the verifier panic, and no changed bit escapes it.

use crate::made_up;
use assay_harness::receipts::canonical;
use assay_harness::receipts::verify::{MAX_DEPTH, Options, Rule, Verdict, verify};
use assay_variables::skip_slow;
use proptest::prelude::*;
use std::sync::LazyLock;

static RECEIPT: LazyLock<(Vec<u8>, Options)> = LazyLock::new(|| {
    let statement = made_up::diverged();
    (canonical::to_bytes(&statement).unwrap(), made_up::options(&statement))
});

/// Everything off that stands before the statement's own rules, so that hostile values reach those.
fn only_statement_rules() -> Options {
    let bytes = [Rule::Numbers, Rule::CanonicalForm, Rule::ClaimId, Rule::ReceiptId];
    Options { off: bytes.into(), ..RECEIPT.1.clone() }
}

#[test]
fn every_flipped_bit_of_a_byte_in_seven_is_found() {
    if skip_slow("flipped bits of receipts") {
        return;
    }
    let (bytes, options) = &*RECEIPT;
    for place in (0..bytes.len()).step_by(7) {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << bit;
            assert_eq!(verify(&flipped, options).verdict, Verdict::Tampered, "bit {bit} of byte {place}");
        }
    }
}

#[test]
fn every_prefix_is_refused() {
    let (bytes, options) = &*RECEIPT;
    for length in (0..bytes.len()).step_by(3) {
        assert_eq!(verify(&bytes[..length], options).verdict, Verdict::Tampered, "{length} bytes");
    }
}

#[test]
fn deep_nesting_ends_at_the_limit_and_not_on_the_stack() {
    for open in ["[", "{\"a\":"] {
        let report = verify(open.repeat(1_000_000).as_bytes(), &Options::default());
        assert_eq!(report.decided_by().unwrap().rule, Rule::Depth);
        let off = Options { off: [Rule::Depth].into(), ..Options::default() };
        let report = verify(open.repeat(1_000_000).as_bytes(), &off);
        assert_eq!(report.decided_by().unwrap().rule, Rule::Json);
    }
    let report = verify("[".repeat(MAX_DEPTH).as_bytes(), &Options::default());
    assert_eq!(report.decided_by().unwrap().rule, Rule::Json);
}

#[test]
fn numbers_at_their_limits_overflow_nothing() {
    let (bytes, _) = &*RECEIPT;
    let text = std::str::from_utf8(bytes).unwrap();
    let options = only_statement_rules();
    for (from, to) in [
        ("\"layers\":2", "\"layers\":4294967295"),
        ("\"embedding\":12", "\"embedding\":4294967295"),
        ("\"steps\":2}", "\"steps\":4294967295}"),
        ("\"rows\":5,", "\"rows\":4294967295,"),
        ("\"rows\":\"720\"", "\"rows\":\"18446744073709551615\""),
        ("\"macs\":\"8640\"", "\"macs\":\"18446744073709551615\""),
        ("\"index\":1", "\"index\":4294967295"),
        ("\"equal\":1", "\"equal\":4294967295"),
        ("\"step\":1", "\"step\":4294967295"),
        ("\"vocab\":50", "\"vocab\":0"),
        ("\"max_abs\":\"0.01\"", "\"max_abs\":\"-0\""),
    ] {
        assert!(text.contains(from), "{from}");
        let report = verify(text.replace(from, to).as_bytes(), &options);
        assert!(report.statement.is_some(), "{to}: {:?}", report.decided_by());
    }
}

proptest! {
    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_ne!(verify(&bytes, &RECEIPT.1).verdict, Verdict::Valid);
    }

    #[test]
    fn random_json_is_refused(text in "[\\[\\]{}\",:0-9a-z.eE+\\- \\\\]{0,80}") {
        prop_assert_ne!(verify(text.as_bytes(), &RECEIPT.1).verdict, Verdict::Valid);
    }

    #[test]
    fn a_flipped_bit_is_found(place in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut bytes = RECEIPT.0.clone();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        prop_assert_eq!(verify(&bytes, &RECEIPT.1).verdict, Verdict::Tampered);
    }

    #[test]
    fn spliced_receipts_never_panic(
        from in any::<prop::sample::Index>(),
        length in 0..40usize,
        patch in "[0-9\"{}\\[\\],:a-z]{0,12}",
    ) {
        let (bytes, options) = &*RECEIPT;
        let from = from.index(bytes.len());
        let to = (from + length).min(bytes.len());
        let spliced = [&bytes[..from], patch.as_bytes(), &bytes[to..]].concat();
        let report = verify(&spliced, options);
        prop_assert!(spliced == *bytes || report.verdict == Verdict::Tampered);
        verify(&spliced, &only_statement_rules());
    }
}
