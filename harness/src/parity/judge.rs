//! Rows of logits after the same tokens: whether two implementations agree, and what a difference of tokens means.

use super::sensitivity::Sensitivity;
use crate::runs::compare::{Comparison, compare, nmse_allowed, rank};
use crate::runs::thresholds::Thresholds;
use assay_engine::exact::argmax;
use serde::Serialize;

/// What a difference of tokens means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The two candidates are so near that other roundings of the same arithmetic may choose the other.
    Tie,
    /// Roundings do not explain it.
    Mismatch,
}

/// A row, after the same tokens, whose largest logit is another token's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The row: after this many tokens plus one.
    pub row: usize,
    /// Our token.
    pub ours: u32,
    /// The reference's.
    pub theirs: u32,
    /// How far our logit of our token is above our logit of theirs.
    pub gap: f64,
    /// The same gap in the reference's logits, the other way round.
    pub their_gap: f64,
    /// Rank of their token among ours, from 1.
    pub rank: usize,
    /// The largest change of a logit of this row when only roundings change.
    pub perturbation: f64,
    /// What it means.
    pub class: Class,
}

/// What was found for one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The prompt's tokens.
    pub prompt: usize,
    /// Greedy steps.
    pub steps: usize,
    /// Steps before the first different token, each side going on from its own.
    pub equal_steps: usize,
    /// The reference's token there.
    pub other_token: Option<u32>,
    /// All rows, the reference being fed our tokens.
    pub comparison: Comparison,
    /// How far our own logits move.
    pub sensitivity: f64,
    /// Rows with another largest logit.
    pub differences: Vec<Difference>,
    /// The smallest cosine that was asked for: it depends on the sensitivity.
    pub cosine_min: f64,
    /// Roundings alone take the logits so far that they say nothing: the operations decide.
    pub unstable: bool,
    /// The operations one by one, where they decide.
    pub operations: Option<Operations>,
}

/// The operations of a model, each run on the reference's own input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operations {
    /// How many there are.
    pub all: usize,
    /// How many could be compared.
    pub compared: usize,
    /// As many must be.
    pub asked: usize,
    /// Names of those that differ by more than roundings do.
    pub wrong: Vec<String>,
}

impl Operations {
    /// Why they do not show that the two agree; `None` if they do.
    pub fn failure(&self) -> Option<String> {
        let Operations { all, compared, asked, wrong } = self;
        if compared < asked {
            return Some(format!("{compared} of {all} operations could be compared, {asked} are asked for"));
        }
        let first = wrong.first()?;
        Some(format!(
            "{} of {all} operations are wrong on the reference's own input, first {first}",
            wrong.len()
        ))
    }
}

impl Judged {
    /// Compares the rows of one prompt, `(prompt + steps, vocab)`, both sides fed the same tokens. `None` if they cannot be compared: other
    /// lengths, or values that are not finite.
    pub fn of(
        (ours, theirs, vocab): (&[f32], &[f32], usize),
        prompt: usize,
        (our_tokens, their_tokens): (&[u32], &[u32]),
        sensitivity: &Sensitivity,
        thresholds: &Thresholds,
    ) -> Option<Judged> {
        let comparison = compare(ours, theirs, vocab)?;
        let rows = ours.chunks(vocab).zip(theirs.chunks(vocab)).enumerate();
        let differences = rows.filter_map(|(row, (a, b))| {
            let (ours, theirs) = (argmax(a), argmax(b));
            let gap = f64::from(a[ours]) - f64::from(a[theirs]);
            let their_gap = f64::from(b[theirs]) - f64::from(b[ours]);
            let perturbation = sensitivity.max_abs.get(row).copied().unwrap_or(0.0);
            // Each of the two candidates moves by no more than the perturbation, on the way from our logits to theirs.
            let tie = gap + their_gap <= thresholds.tie_factor * perturbation;
            (ours != theirs).then(|| Difference {
                row,
                ours: ours as u32,
                theirs: theirs as u32,
                gap,
                their_gap,
                rank: rank(a, theirs),
                perturbation,
                class: if tie { Class::Tie } else { Class::Mismatch },
            })
        });
        let steps = our_tokens.len();
        let equal_steps = our_tokens.iter().zip(their_tokens).take_while(|(a, b)| a == b).count();
        Some(Judged {
            prompt,
            steps,
            equal_steps,
            other_token: their_tokens.get(equal_steps).copied().filter(|_| equal_steps < steps),
            comparison,
            sensitivity: sensitivity.cosine_min,
            differences: differences.collect(),
            cosine_min: thresholds.cosine_of(sensitivity.cosine_min),
            unstable: thresholds.unstable(sensitivity.cosine_min),
            operations: None,
        })
    }

    /// The difference that ended the equal steps.
    pub fn first_difference(&self) -> Option<&Difference> {
        // Row k chooses the token after k + 1 tokens.
        let row = (self.equal_steps < self.steps).then(|| self.prompt + self.equal_steps - 1)?;
        let chosen = |difference: &&Difference| Some(difference.theirs) == self.other_token;
        self.differences.iter().find(|difference| difference.row == row).filter(chosen)
    }

    /// Differences of a class.
    pub fn count(&self, class: Class) -> usize {
        self.differences.iter().filter(|difference| difference.class == class).count()
    }

    /// Why parity does not hold; empty if it does.
    pub fn failures(&self) -> Vec<String> {
        match &self.operations {
            Some(operations) => operations.failure().into_iter().collect(),
            None => self.failures_of_logits(),
        }
    }

    fn failures_of_logits(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.comparison.cosine_min < self.cosine_min {
            let (is, asked) = (self.comparison.cosine_min, self.cosine_min);
            failures.push(format!("cosine {is:.7} is below {asked}"));
        }
        if self.comparison.nmse_max > nmse_allowed(self.cosine_min) {
            let (is, asked) = (self.comparison.nmse_max, nmse_allowed(self.cosine_min));
            failures.push(format!(
                "the logits have another size: NMSE {is:.3e}, {asked:.1e} is allowed with this cosine"
            ));
        }
        if let Some(first) = self.differences.iter().find(|difference| difference.class == Class::Mismatch) {
            let Difference { row, ours, theirs, gap, their_gap, perturbation, .. } = first;
            failures.push(format!(
                "after {} tokens ours is token {ours}, the reference's is {theirs}: {gap:.4} apart in our logits, {their_gap:.4} in theirs, and \
                 other roundings move a logit by {perturbation:.4}",
                row + 1
            ));
        }
        // The reference's own tokens must be those of its own logits.
        if self.equal_steps < self.steps && self.first_difference().is_none() {
            failures.push(format!(
                "at step {} the reference went on with token {}, which has not its largest logit",
                self.equal_steps,
                self.other_token.unwrap_or_default()
            ));
        }
        failures
    }

    /// Every requirement is met.
    pub fn held(&self) -> bool {
        self.failures().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(theirs: &[f32], their_tokens: &[u32], moved: f64) -> Judged {
        // Two tokens of prompt, one step: rows 0, 1 and 2.
        let ours = [1.0, 0.0, 0.0, 1.0, 1.0, 0.99];
        let sensitivity = Sensitivity { cosine_min: 1.0, max_abs: vec![moved; 3] };
        let thresholds = Thresholds { cosine_min: 0.9, ..Thresholds::default() };
        Judged::of((&ours, theirs, 2), 2, (&[1], their_tokens), &sensitivity, &thresholds)
            .expect("comparable")
    }

    #[test]
    fn what_agrees_holds_and_a_near_tie_is_told_from_a_mismatch() {
        let same = judged(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.99], &[1], 0.0);
        assert!(same.held() && same.differences.is_empty() && same.first_difference().is_none());
        let other = [1.0, 0.0, 0.0, 1.0, 0.99, 1.0];
        let tie = judged(&other, &[1], 0.011);
        assert_eq!((tie.count(Class::Tie), tie.count(Class::Mismatch)), (1, 0));
        assert!(tie.held() && tie.differences[0].rank == 2, "{:?}", tie.differences);
        let mismatch = judged(&other, &[1], 0.009);
        assert_eq!(mismatch.count(Class::Mismatch), 1);
        assert!(mismatch.failures()[0].contains("after 3 tokens ours is token 0, the reference's is 1"));
    }

    #[test]
    fn tokens_that_do_not_follow_from_the_logits_are_a_failure() {
        let told = judged(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.99], &[0], 1.0);
        assert!(told.failures()[0].contains("has not its largest logit"), "{:?}", told.failures());
    }

    #[test]
    fn operations_decide_where_they_were_asked() {
        let operations = |compared, wrong: &[&str]| Operations {
            all: 4,
            compared,
            asked: 3,
            wrong: wrong.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut judged = judged(&[1.0, 1.0, 0.0, 1.0, 1.0, 0.99], &[1], 1.0);
        judged.operations = Some(operations(3, &[]));
        assert!(judged.held());
        judged.operations = Some(operations(2, &[]));
        assert!(judged.failures()[0].contains("2 of 4 operations"), "{:?}", judged.failures());
        judged.operations = Some(operations(4, &["blk.0.q"]));
        assert!(judged.failures()[0].contains("first blk.0.q"), "{:?}", judged.failures());
    }

    #[test]
    fn a_low_cosine_is_a_failure() {
        let larger = judged(&[4.0, 0.0, 0.0, 4.0, 4.0, 3.96], &[1], 1.0);
        assert!(larger.failures()[0].starts_with("the logits have another size"), "{:?}", larger.failures());
        let apart = judged(&[1.0, 1.0, 0.0, 1.0, 1.0, 0.99], &[1], 1.0);
        assert!(apart.failures()[0].starts_with("cosine 0.707"), "{:?}", apart.failures());
    }
}
