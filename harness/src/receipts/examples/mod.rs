//! Receipts that break one rule each, made from one that breaks none: the tests of the rules, and what is
//! committed in `receipts/examples/negative/`.

mod cases;
mod honest;
mod outside;

use super::canonical;
use super::envelope::{self, Envelope};
use super::error::{Error, Result};
use super::keys::PrivateKey;
use super::text::Sha256Hex;
use super::types::Statement;
use super::verify::{Chain, Options, Rule, Verdict};
use cases::{Case, Make, With};
use std::collections::BTreeSet;

/// A key of the examples.
pub type TestKey = fn() -> PrivateKey;

/// A key of the examples, known to all the world: for tests and nothing else.
pub fn alice() -> PrivateKey {
    PrivateKey::from_seed(b"alice's key of Assay's examples!")
}

/// Another.
pub fn bob() -> PrivateKey {
    PrivateKey::from_seed(b"bob's key of Assay's examples!!!")
}

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
    /// The keys to hold its signatures to.
    pub keys: Vec<TestKey>,
    /// Whether the caller is strict.
    pub strict: bool,
    /// The ledger that it must stand in.
    pub ledger: Option<Vec<u8>>,
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
    /// What to verify it with: its file name, its keys and ledger, its policy and its present.
    pub fn options(&self) -> Options {
        Options {
            file_name: Some(self.file_name.clone()),
            keys: self.keys.iter().map(|key| key().public()).collect(),
            strict: self.strict,
            chain: self.ledger.as_ref().map_or(Chain::NotAsked, |ledger| Chain::read(ledger, None)),
            now: self.now,
            max_age: self.max_age,
            off: BTreeSet::new(),
            ..Options::default()
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
    // An audit repeats the claim: what changes the one would break the rule on the other too.
    let of_claims = if positive.predicate.audit.is_none() { cases::CASES } else { &[] };
    for case in [of_claims, honest::CASES, outside::CASES].into_iter().flatten() {
        let Some((file_name, bytes)) = make(&case.make, positive)? else { continue };
        let Some((keys, strict, ledger)) = with(case, positive) else { continue };
        negatives.push(Negative {
            keys,
            strict,
            ledger,
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

/// (keys, strict, ledger) that the caller has; `None` if there can be no such ledger.
fn with(case: &Case, positive: &Statement) -> Option<(Vec<TestKey>, bool, Option<Vec<u8>>)> {
    Some(match case.with {
        With::Nothing => (Vec::new(), false, None),
        With::Keys(keys) => (keys.to_vec(), false, None),
        With::Strict => (Vec::new(), true, None),
        With::Ledger(edit) => {
            let lines = edit(&outside::lines(positive)?);
            // The last line of a torn ledger has no line feed.
            let torn = lines.last().is_some_and(|line| !line.ends_with(b"}"));
            let mut bytes = lines.join(&b'\n');
            bytes.extend_from_slice(if torn { b"" } else { b"\n" });
            (Vec::new(), false, Some(bytes))
        }
    })
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
        Make::Envelope(edit) => {
            let mut signed = Envelope::around(bytes);
            signed.sign(&alice())?;
            let Some(bytes) = edit(signed) else { return Ok(None) };
            let payload = envelope::open(&bytes).and_then(|opened| opened.ok()).map(|opened| opened.payload);
            let id = payload
                .map_or_else(|| canonical::receipt_id(positive), |payload| Ok(Sha256Hex::of(&payload)))?;
            Some((canonical::envelope_name(positive, &id), bytes))
        }
        Make::Renamed(rename) => {
            let name = canonical::file_name(positive, &Sha256Hex::of(&bytes));
            Some((rename(&name), bytes))
        }
    })
}
