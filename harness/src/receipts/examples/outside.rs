//! What is done around a good receipt: its envelope, its signatures, its ledger, the caller's policy.

use super::Without::{Passes, Unreadable};
use super::cases::{Case, Make, With, case};
use super::{alice, bob};
use crate::receipts::canonical;
use crate::receipts::envelope::Envelope;
use crate::receipts::ledger::{Line, LineType, origin};
use crate::receipts::text::{FileName, Sha256Hex};
use crate::receipts::types::{Fallback, Statement};
use crate::receipts::verify::{Rule, Verdict};
use serde_json::Value;

const fn envelope(
    name: &'static str,
    rule: Rule,
    without: super::Without,
    edit: fn(Envelope) -> Option<Vec<u8>>,
) -> Case {
    Case { with: With::Keys(&[alice]), ..case(name, rule, without, Make::Envelope(edit)) }
}

const fn ledger(name: &'static str, make: fn(&[Vec<u8>]) -> Vec<Vec<u8>>) -> Case {
    Case { with: With::Ledger(make), ..case(name, Rule::Chain, Passes, Make::Statement(|_| Some(()))) }
}

pub(super) const CASES: &[Case] = &[
    envelope("envelope-of-another-type", Rule::Envelope, Unreadable, |envelope| {
        in_json(&envelope, |value| value["payloadType"] = "application/json".into())
    }),
    envelope("envelope-without-signatures", Rule::Envelope, Unreadable, |envelope| {
        in_json(&envelope, |value| value["signatures"] = Value::Array(Vec::new()))
    }),
    envelope("envelope-with-another-key", Rule::Envelope, Unreadable, |envelope| {
        in_json(&envelope, |value| value["note"] = "signed and sealed".into())
    }),
    envelope("key-twice-in-the-envelope", Rule::Envelope, Unreadable, |envelope| {
        let text = String::from_utf8(envelope.to_bytes().ok()?).ok()?;
        Some(text.replacen('{', "{\"payload\":\"e30=\",", 1).into_bytes())
    }),
    envelope("envelope-in-an-envelope", Rule::Envelope, Unreadable, |envelope| {
        let mut outer = Envelope::around(envelope.to_bytes().ok()?);
        outer.sign(&alice()).ok()?;
        outer.to_bytes().ok()
    }),
    envelope("signature-cut-short", Rule::Envelope, Unreadable, |envelope| {
        in_json(&envelope, |value| value["signatures"][0]["sig"] = "AAAA".into())
    }),
    envelope("another-payload-in-the-envelope", Rule::Signature, Passes, |mut envelope| {
        envelope.payload = replaced(&envelope.payload, "\"name\":\"assay\"", "\"name\":\"assax\"")?;
        envelope.to_bytes().ok()
    }),
    envelope("flipped-bit-in-the-signature", Rule::Signature, Passes, |mut envelope| {
        envelope.signatures[0].sig[10] ^= 4;
        envelope.to_bytes().ok()
    }),
    envelope("wrong-key", Rule::Signature, Passes, |envelope| signed_by(envelope, bob)),
    envelope("wrong-key-under-the-right-name", Rule::Signature, Passes, |envelope| {
        let mut other = Envelope::around(envelope.payload);
        other.sign(&bob()).ok()?;
        other.signatures[0].keyid = Some(alice().public().id().as_str().to_owned());
        other.to_bytes().ok()
    }),
    envelope("right-key-under-a-wrong-name", Rule::Signature, Passes, |mut envelope| {
        envelope.signatures[0].keyid = Some(bob().public().id().as_str().to_owned());
        envelope.to_bytes().ok()
    }),
    Case {
        with: With::Keys(&[alice, bob]),
        ..case(
            "one-signature-of-two",
            Rule::Signature,
            Passes,
            Make::Envelope(|envelope| envelope.to_bytes().ok()),
        )
    },
    case(
        "bare-under-the-name-of-an-envelope",
        Rule::FileName,
        Passes,
        Make::Renamed(|name| name.replace(".json", ".dsse.json")),
    ),
    Case {
        with: With::Keys(&[alice]),
        ..case("stripped-signature", Rule::Signature, Passes, Make::Statement(|_| Some(())))
    },
    Case {
        verdict: Verdict::Inconclusive, // nothing is wrong with it, but nobody said whose key to hold it to
        ..case(
            "signed-but-no-key-given",
            Rule::Signature,
            Passes,
            Make::Envelope(|envelope| envelope.to_bytes().ok()),
        )
    },
    Case {
        with: With::Strict,
        ..case(
            "fallback-where-none-is-allowed",
            Rule::Policy,
            Passes,
            Make::Statement(|statement| {
                beyond_reproach(statement);
                fallback(statement)
            }),
        )
    },
    Case {
        with: With::Strict,
        ..case(
            "built-from-changed-files",
            Rule::Policy,
            Passes,
            Make::Statement(|statement| {
                beyond_reproach(statement);
                statement.predicate.tool.dirty = Some(true);
                Some(())
            }),
        )
    },
    Case {
        verdict: Verdict::Inconclusive, // nothing is wrong with it, or with the ledger
        ..ledger("ledger-without-it", |lines| lines[..1].to_vec())
    },
    ledger("truncated-ledger", |lines| {
        let mut lines = lines.to_vec();
        if let Some(last) = lines.last_mut() {
            last.truncate(last.len() / 2);
        }
        lines
    }),
    ledger("line-taken-out-of-the-ledger", |lines| lines[1..].to_vec()),
    ledger("forked-ledger", |lines| {
        let other = line(0, &origin(), &Sha256Hex::of(b"a receipt of the other branch"), None);
        [&[other.unwrap_or_default()], &lines[1..]].concat()
    }),
    ledger("ledger-of-another-claim", |lines| {
        let text = String::from_utf8_lossy(&lines[1]).into_owned();
        let claim = text.split("\"claim_id\":\"").nth(1).map_or("", |rest| &rest[..64]);
        vec![lines[0].clone(), text.replace(claim, Sha256Hex::of(b"another claim").as_str()).into_bytes()]
    }),
];

fn in_json(envelope: &Envelope, edit: fn(&mut Value)) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(&envelope.to_bytes().ok()?).ok()?;
    edit(&mut value);
    canonical::to_bytes(&value).ok()
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.contains(from).then(|| text.replacen(from, to, 1).into_bytes())
}

fn signed_by(envelope: Envelope, key: super::TestKey) -> Option<Vec<u8>> {
    let mut other = Envelope::around(envelope.payload);
    other.sign(&key()).ok()?;
    other.to_bytes().ok()
}

/// Makes the receipt one that the strict policy takes.
fn beyond_reproach(statement: &mut Statement) {
    let predicate = &mut statement.predicate;
    predicate.tool.commit = "0123456789abcdef0123456789abcdef01234567".into();
    predicate.tool.dirty = Some(false);
    predicate.environment.build.profile = "release".into();
    predicate.environment.build.cargo_lock_sha256 = Sha256Hex::of(b"Cargo.lock").into();
    predicate.corrections.clear();
}

/// An honest fallback, which every other rule takes.
fn fallback(statement: &mut Statement) -> Option<()> {
    let execution = &mut statement.predicate.execution;
    let asked = execution.isa.clone();
    let row = execution.work.iter_mut().find(|row| row.operation.as_str() == "attention_values")?;
    let wanted = row.kernel.clone();
    if asked.as_str() == "scalar" {
        return None;
    }
    row.kernel = format!("{}/scalar", wanted.name()).parse().ok()?;
    let (operation, used) = (row.operation.clone(), row.kernel.clone());
    execution.fallbacks.push(Fallback {
        operation,
        wanted,
        used,
        reason: "head dimension below a register".into(),
    });
    Some(())
}

/// The lines of a ledger of two: another receipt, and this one.
pub(super) fn lines(statement: &Statement) -> Option<Vec<Vec<u8>>> {
    let first = line(0, &origin(), &Sha256Hex::of(b"another receipt"), None)?;
    let id = canonical::receipt_id(statement).ok()?;
    let second = line(1, &Sha256Hex::of(&first), &id, Some(statement))?;
    Some(vec![first, second])
}

fn line(index: u64, previous: &Sha256Hex, id: &Sha256Hex, statement: Option<&Statement>) -> Option<Vec<u8>> {
    use crate::receipts::types::Kind;
    let line = Line {
        appended: "2026-11-24T00:00:00Z".parse().ok()?,
        claim_id: statement
            .map_or_else(|| Sha256Hex::of(b"its claim"), |statement| statement.predicate.claim_id.clone()),
        file: FileName::parse(&format!("2026-11-24-{}.json", id.short())).ok()?,
        index,
        kind: statement.map_or(Kind::ModelRun, |statement| statement.predicate.kind),
        previous: previous.clone(),
        receipt_id: id.clone(),
        line_type: LineType::V1,
    };
    canonical::to_bytes(&line).ok()
}
