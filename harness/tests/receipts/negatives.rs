//! One negative example per rule, on receipts of each kind.

use crate::made_up;
use assay_harness::receipts::canonical;
use assay_harness::receipts::examples::{Negative, Without, negatives};
use assay_harness::receipts::types::Statement;
use assay_harness::receipts::verify::{Outcome, Rule, Verdict, verify};
use std::collections::BTreeSet;

/// A rule that no example in bytes can break: it needs a file beside it.
const WITHOUT_EXAMPLE: [Rule; 1] = [Rule::Files];

/// Checks what an example says of itself.
pub(crate) fn check(negative: &Negative) {
    let name = negative.name;
    let report = verify(&negative.bytes, &negative.options());
    let decided = report.decided_by().unwrap_or_else(|| panic!("{name}: nothing caught it"));
    assert_eq!(decided.rule, negative.rule, "{name}: {}", decided.message);
    assert_eq!(report.verdict, negative.verdict, "{name}");
    assert_ne!(report.verdict, Verdict::Valid, "{name}");

    let mut options = negative.options();
    options.off.insert(negative.rule);
    let report = verify(&negative.bytes, &options);
    let decided = report.decided_by().map(|result| (result.rule, result.message.clone()));
    let broken = report.rules.iter().filter(|result| result.outcome == Outcome::Broken).count();
    match negative.without {
        Without::Passes => assert_eq!((report.verdict, decided), (Verdict::Valid, None), "{name}"),
        Without::CaughtBy(rule) => assert_eq!(decided.map(|(rule, _)| rule), Some(rule), "{name}"),
        Without::Unreadable => {
            assert!(report.verdict != Verdict::Valid && report.statement.is_none(), "{name}")
        }
    }
    // Two rules cannot be switched off.
    let unopened = [Rule::Envelope, Rule::Json].contains(&negative.rule);
    let expected = matches!(negative.without, Without::CaughtBy(_)) || unopened;
    assert_eq!(broken > 0, expected, "{name}");
}

#[test]
fn each_is_caught_first_by_its_rule_and_passes_without_it() {
    for positive in made_up::all() {
        for negative in negatives(&positive).unwrap() {
            check(&negative);
        }
    }
}

#[test]
fn every_rule_has_an_example() {
    let mut covered: BTreeSet<Rule> = WITHOUT_EXAMPLE.into();
    for positive in made_up::all() {
        covered.extend(negatives(&positive).unwrap().iter().map(|negative| negative.rule));
    }
    assert_eq!(covered, Rule::ALL.iter().copied().collect());
}

#[test]
fn what_nothing_was_done_to_is_valid() {
    for positive in made_up::all() {
        let bytes = canonical::to_bytes(&positive).unwrap();
        let report = verify(&bytes, &made_up::options(&positive));
        assert_eq!(report.decided_by(), None);
        assert_eq!(report.verdict, Verdict::Valid);
        assert_eq!(report.statement.as_ref(), Some(&positive));
        let order: Vec<_> = report.rules.iter().map(|result| result.rule).collect();
        assert_eq!(order, Rule::ALL);
    }
}

/// The verdict on a receipt after an edit that is sealed again.
fn edited(mut statement: Statement, edit: impl FnOnce(&mut Statement)) -> (Verdict, Option<Rule>) {
    edit(&mut statement);
    canonical::seal(&mut statement).unwrap();
    let report = verify(&canonical::to_bytes(&statement).unwrap(), &made_up::options(&statement));
    (report.verdict, report.decided_by().map(|result| result.rule))
}

#[test]
fn an_honest_fallback_is_valid_and_a_failed_check_too() {
    use assay_harness::receipts::types::{Fallback, Status};
    let fallback = |statement: &mut Statement| {
        let execution = &mut statement.predicate.execution;
        let used = made_up::kernel("weigh_f16/scalar");
        execution.work[5].kernel = used.clone();
        execution.fallbacks.push(Fallback {
            operation: made_up::word("attention_values"),
            wanted: made_up::kernel("weigh_f16/avx2"),
            used,
            reason: "head dimension below a register".into(),
        });
    };
    assert_eq!(edited(made_up::model_run(), fallback), (Verdict::Valid, None));
    let failed = |statement: &mut Statement| {
        let results = statement.predicate.kernel_results.as_mut().unwrap();
        results[0].outputs_sha256 = assay_harness::receipts::text::Sha256Hex::of(b"wrong");
        statement.predicate.status = Status::Failed;
    };
    assert_eq!(edited(made_up::kernel_check(), failed), (Verdict::Valid, None));
    assert_eq!(edited(made_up::diverged(), |_| ()), (Verdict::Valid, None));
}

#[test]
fn real_without_counters_is_never_valid() {
    let idle = |statement: &mut Statement| statement.predicate.execution.work.clear();
    assert_eq!(edited(made_up::model_run(), idle), (Verdict::Tampered, Some(Rule::ComputePath)));
    let idle = |statement: &mut Statement| statement.predicate.kernel_results = Some(Vec::new());
    assert_eq!(edited(made_up::kernel_check(), idle), (Verdict::Tampered, Some(Rule::ComputePath)));
}

#[test]
fn a_report_names_all_that_is_wrong() {
    let mut statement = made_up::model_run();
    statement.predicate.execution.work[0].macs = 1.into();
    statement.predicate.model.as_mut().unwrap().shape.layers += 1;
    let report = verify(&canonical::to_bytes(&statement).unwrap(), &made_up::options(&statement));
    let broken = report.rules.iter().filter(|result| result.outcome == Outcome::Broken);
    let broken: Vec<_> = broken.map(|result| result.rule).collect();
    assert_eq!(broken, [Rule::ClaimId, Rule::Tensors, Rule::LayerChain, Rule::WorkRows, Rule::Work]);
}
