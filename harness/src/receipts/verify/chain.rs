//! The rule on the ledger: the receipt stands in it, and its chain holds.

use super::{Broken, Finding, Held, Missing, Options, Skipped, require};
use crate::receipts::ledger::Ledger;
use crate::receipts::text::Sha256Hex;
use crate::receipts::types::Statement;

/// The ledger that the caller names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Chain {
    /// None was named.
    #[default]
    NotAsked,
    /// It holds.
    Holds(Ledger),
    /// It does not: where, and what is wrong there.
    Broken(String),
    /// It cannot be read.
    Unreadable(String),
}

impl Chain {
    /// A ledger's bytes, and the head that it must have, if the caller knows one.
    pub fn read(bytes: &[u8], head: Option<&Sha256Hex>) -> Chain {
        match Ledger::parse(bytes) {
            Err(broken) => Chain::Broken(broken.to_string()),
            Ok(ledger) => match head.filter(|head| **head != ledger.head) {
                None => Chain::Holds(ledger),
                Some(head) => Chain::Broken(format!(
                    "its {} lines end in {}…, not in {}…: lines are missing or were added",
                    ledger.lines.len(),
                    ledger.head.short(),
                    head.short()
                )),
            },
        }
    }
}

pub(super) fn chain(statement: &Statement, id: &Sha256Hex, options: &Options) -> Finding {
    let ledger = match &options.chain {
        Chain::NotAsked => return Skipped("no ledger given".into()),
        Chain::Unreadable(problem) => return Missing(format!("the ledger cannot be read: {problem}")),
        Chain::Broken(problem) => return Broken(format!("the ledger: {problem}")),
        Chain::Holds(ledger) => ledger,
    };
    let Some(line) = ledger.find(id) else { return Missing("the ledger does not hold it".into()) };
    let (predicate, place) = (&statement.predicate, line.index + 1);
    require!(line.claim_id == predicate.claim_id, "line {place} of the ledger has another claim");
    require!(line.kind == predicate.kind, "line {place} of the ledger says {}", line.kind.as_str());
    Held(format!("line {place} of {}", ledger.lines.len()))
}
