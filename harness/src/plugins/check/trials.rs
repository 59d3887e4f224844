//! Groups that make more than one call of a case: together and alone, with other bytes between rows, again.

use super::super::formats::quantise;
use super::super::groups::Group;
use super::super::memory::FILL;
use super::super::problem::Problem;
use super::{Checker, Outcome, Result};
use assay_engine::kernels::check::data::Data;
use sha2::Digest;
use std::collections::BTreeMap;

impl Checker<'_> {
    pub(super) fn tokens(&mut self) -> Result<()> {
        self.each(Group::Tokens, |checker, case, problem| {
            let together = checker.call(case, problem, FILL)?;
            checker.hold(problem, &problem.expected(), &together)?;
            let Outcome::Outputs(together) = together else { return Ok(()) };
            for (t, of_token) in together.chunks(problem.recipe.rows.max(1)).enumerate() {
                if let Outcome::Outputs(alone) = checker.call(case, &problem.token(t), FILL)?
                    && alone != of_token
                {
                    let message =
                        format!("token {t} alone gives other bits than among {}", problem.recipe.tokens);
                    return Err(checker.finding("batch-variant-reduction", message));
                }
            }
            Ok(())
        })
    }

    pub(super) fn padding(&mut self) -> Result<()> {
        self.each(Group::Padding, |checker, case, problem| {
            let expected = problem.expected();
            let mut first = None;
            for gap in [FILL, 0, 0x7f] {
                let outcome = checker.call(case, problem, gap)?;
                if let (Some(before), Outcome::Outputs(now)) = (&first, &outcome)
                    && before != now
                {
                    let message = "the result depends on bytes between rows or tokens";
                    return Err(checker.finding("stale-tail", message));
                }
                let held = checker.hold(problem, &expected, &outcome);
                if gap == FILL {
                    // Wrong, and with other bytes between the rows wrong in another way: it reads them.
                    if let (Err(finding), Outcome::Outputs(was)) = (&held, &outcome) {
                        let again = checker.call(case, problem, 0)?;
                        if finding.kind == "wrong-result"
                            && matches!(&again, Outcome::Outputs(now) if now != was)
                        {
                            let message = "the result depends on bytes between rows or tokens";
                            return Err(checker.finding("stale-tail", message));
                        }
                    }
                }
                held?;
                if let Outcome::Outputs(outputs) = outcome {
                    first.get_or_insert(outputs);
                }
            }
            Ok(())
        })
    }

    /// Weights that stay where they are under other activations, and the other way round.
    pub(super) fn aliasing(&mut self) -> Result<()> {
        self.each(Group::Aliasing, |checker, case, problem| {
            let mut other = problem.token(0);
            other.q.reverse();
            let (expected, expected_other) = (problem.expected(), other.expected());
            checker.put_weights(case, problem, FILL)?;
            for _ in 0..2 {
                let outcome = checker.call_on_weights(case, problem, FILL)?;
                checker.hold(problem, &expected, &outcome)?;
                let outcome = checker.call_on_weights(case, &other, FILL)?;
                checker.hold(&other, &expected_other, &outcome)?;
            }
            Ok(())
        })
    }

    pub(super) fn repeatability(&mut self) -> Result<()> {
        let mut before: Option<Problem> = None;
        self.each(Group::Repeatability, |checker, case, problem| {
            let outcome = checker.call(case, problem, FILL)?;
            checker.hold(problem, &problem.expected(), &outcome)?;
            if let Some(before) = before.replace(problem.token(0)) {
                checker.call(case, &before, FILL)?;
            }
            for _ in 0..3 {
                let again = checker.call(case, problem, FILL)?;
                if let (Outcome::Outputs(first), Outcome::Outputs(again)) = (&outcome, &again)
                    && first != again
                {
                    return Err(
                        checker.finding("not-repeatable", "the same call gives other bits the second time")
                    );
                }
            }
            Ok(())
        })
    }

    pub(super) fn quantiser(&mut self) -> Result<()> {
        let (format, block) = (self.lists.activations.name, self.lists.activations.block);
        // Of all cases, so that a rule for ties is told from another scale.
        let (mut first, mut kinds) = (None, BTreeMap::new());
        for number in 0..QUANTISED {
            let mut data = Data::new(self.lists.seed, Group::Quantiser.name(), number);
            let n = (1 + data.below(4)) * 256;
            let span = data.one_of(&[1e-6_f32, 0.5, 1.0, 30.0]);
            let x: Vec<f32> = (0..n)
                .map(|i| match number % 4 {
                    0 => 0.0,
                    // Ties: the scale is 1, half of the values lie between two integers.
                    1 => {
                        if i % 32 == 0 {
                            127.0
                        } else {
                            data.below(254) as f32 / 2.0 - 63.0
                        }
                    }
                    _ => (data.below(1 << 24) as f32 / 8_388_608.0 - 1.0) * span,
                })
                .collect();
            let kind = ["zeros", "ties", "random", "random"][(number % 4) as usize];
            self.announce(format!("seed {}, case {number}: {n} values, {kind}", self.lists.seed));
            let Some(expected) = quantise(format, &x) else { return Ok(()) };
            let mut got = vec![0; expected.len()];
            if !self.kernel.quantise(&x, &mut got) {
                return Ok(());
            }
            if got == expected {
                self.hash.update(&got);
                self.result.cases += 1;
            } else {
                *kinds.entry(kind).or_insert(0) += 1;
                first.get_or_insert_with(|| {
                    self.finding("activations-differ", difference(format, block, &x, &expected, &got))
                });
            }
        }
        let Some(mut finding) = first else { return Ok(()) };
        let counts: Vec<String> =
            kinds.iter().map(|(kind, count)| format!("{count} of {} with {kind}", of_kind(kind))).collect();
        finding.message += &format!("; cases that differ: {}", counts.join(", "));
        Err(finding)
    }
}

/// Cases of the quantiser: a quarter zeros, a quarter ties, half random.
const QUANTISED: u64 = 200;

fn of_kind(kind: &str) -> u64 {
    if kind == "random" { QUANTISED / 2 } else { QUANTISED / 4 }
}

/// The first block of activations that differs, in words.
fn difference(format: &str, block: usize, x: &[f32], expected: &[u8], got: &[u8]) -> String {
    let bytes = expected.len() / (x.len() / block);
    let head = if format == "q8_0" { 2 } else { 4 };
    let mut blocks = expected.chunks(bytes).zip(got.chunks(bytes)).enumerate();
    let Some((b, (expected, got))) = blocks.find(|(_, (expected, got))| expected != got) else {
        return format!("the activations of {format} differ");
    };
    let mut values = expected[head..].iter().zip(&got[head..]).take(block).enumerate();
    let Some((i, (right, wrong))) = values.find(|(_, (right, wrong))| right != wrong) else {
        let at = (0..bytes).find(|at| expected[*at] != got[*at]).expect("a byte differs");
        let what = if at < 2 || format == "q8_K" && at < 4 { "scale" } else { "sum" };
        return format!("the {what} of block {b} of {format} is another than the contract's (byte {at})");
    };
    let (value, right, wrong) = (x[b * block + i], right.cast_signed(), wrong.cast_signed());
    let largest = x[b * block..][..block].iter().fold(0.0_f32, |a, x| a.max(x.abs()));
    let tie = (f64::from(value) * 127.0 / f64::from(largest)).fract().abs() == 0.5;
    let rule = match (tie, wrong.unsigned_abs() > right.unsigned_abs()) {
        (true, true) => ": it rounds ties away from zero, the contract rounds them to even",
        (true, false) => ": it rounds ties in another way, the contract rounds them to even",
        (false, _) => "",
    };
    format!("element {i} of block {b} of {format}, {value:e}, becomes {wrong}, by the contract {right}{rule}")
}
