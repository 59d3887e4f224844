//! Receipts that break one rule each, made from one that breaks none: the tests of the rules, and what is
//! committed in `receipts/examples/negative/`.

mod cases;

use super::canonical;
use super::error::{Error, Result};
use super::text::Sha256Hex;
use super::types::Statement;
use super::verify::{Files, Options, Rule, Verdict};
use cases::{CASES, Make};
use std::collections::BTreeSet;

/// A receipt that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negative {
    /// What was done to it.
    pub name: &'static str,
    /// The rule that catches it first.
    pub rule: Rule,
    /// What becomes of it when that rule is off.
    pub without: Without,
    /// The verdict.
    pub verdict: Verdict,
    /// The file name it is verified under.
    pub file_name: String,
    /// How old it may be, seconds: the policy that it breaks, if it breaks one.
    pub max_age: Option<u64>,
    /// The present to verify it in, seconds after 1970: when the positive one was written.
    pub now: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What becomes of a negative example when the rule that catches it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// It passes: it was sealed again, and nothing else is wrong with it.
    Passes,
    /// Another rule catches it, because a receipt that breaks the one always breaks the other.
    CaughtBy(Rule),
    /// It cannot be read, so nothing can be said: inconclusive, with no rule broken.
    Unreadable,
}

impl Negative {
    /// What to verify it with: its file name, its policy and its present.
    pub fn options(&self) -> Options {
        Options {
            file_name: Some(self.file_name.clone()),
            expected_id: None,
            files: Files::NotAsked,
            now: self.now,
            max_age: self.max_age,
            off: BTreeSet::new(),
        }
    }

    /// Whether it is small enough to commit.
    pub fn is_committed(&self) -> bool {
        self.rule != Rule::Size
    }
}

/// Every way to break a rule that applies to the kind of `positive`, which breaks none.
///
/// # Errors
/// - [`Error::Json`] if it cannot be written as JSON.
pub fn negatives(positive: &Statement) -> Result<Vec<Negative>> {
    let mut negatives = Vec::new();
    for case in CASES {
        let Some((file_name, bytes)) = make(&case.make, positive)? else { continue };
        negatives.push(Negative {
            name: case.name,
            rule: case.rule,
            without: case.without,
            verdict: case.verdict,
            file_name,
            max_age: (case.rule == Rule::Age).then_some(365 * 86_400),
            now: positive.predicate.created.to_unix(),
            bytes,
        });
    }
    Ok(negatives)
}

/// (file name, bytes) of one case; `None` if it does not apply.
fn make(make: &Make, positive: &Statement) -> Result<Option<(String, Vec<u8>)>> {
    let bytes = canonical::to_bytes(positive)?;
    let named = |statement: &Statement, bytes: Vec<u8>| {
        (canonical::file_name(statement, &Sha256Hex::of(&bytes)), bytes)
    };
    Ok(match make {
        Make::Statement(edit) => {
            let mut statement = positive.clone();
            if edit(&mut statement).is_none() {
                return Ok(None);
            }
            canonical::seal(&mut statement)?;
            let bytes = canonical::to_bytes(&statement)?;
            Some(named(&statement, bytes))
        }
        Make::Value(edit) => {
            let mut value = serde_json::to_value(positive).map_err(|error| Error::Json(error.to_string()))?;
            let edited = edit(&mut value);
            let bytes = canonical::to_bytes(&value)?;
            edited.map(|()| named(positive, bytes))
        }
        Make::Bytes(edit) => edit(&bytes).map(|bytes| named(positive, bytes)),
        Make::Unsealed(edit) => {
            let name = canonical::file_name(positive, &Sha256Hex::of(&bytes));
            edit(&bytes).map(|bytes| (name, bytes))
        }
        Make::Renamed(rename) => {
            let name = canonical::file_name(positive, &Sha256Hex::of(&bytes));
            Some((rename(&name), bytes))
        }
    })
}
