//! Checks a stranger's receipt: bytes in, a result per rule and a verdict out. No bytes make it panic.
//!
//! A signed receipt is looked at through its envelope: the bytes that the rules speak of are those inside.
//!
//! The order is that of [`Rule`]. Up to the schema a broken rule ends the check, because nothing after it would
//! mean anything; from there on every rule is looked at, so that one report names all that is wrong.

mod chain;
mod claim;
mod execution;
mod files;
mod honest;
mod live;
mod model;
mod plugins;
mod results;
mod rules;
mod signature;
mod tensors;

pub use chain::Chain;
pub(super) use files::inside;
pub use honest::audited;
pub(crate) use live::operations_of;
pub use rules::{Outcome, Report, Rule, RuleResult, Verdict};

use super::envelope::{self, Envelope};
use super::keys::PublicKey;
use super::text::{DateTime, Sha256Hex, is_lower_hex};
use super::types::{PREDICATE_BASE, PREDICATE_TYPE, STATEMENT_TYPE, Statement};
use super::{canonical, parse, schema};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The largest receipt that is read: 8 MiB, room for a prompt of half a million tokens.
pub const MAX_BYTES: usize = 8 << 20;
/// The deepest nesting of arrays and objects: a receipt needs 7, `extensions` may use the rest.
pub const MAX_DEPTH: usize = 32;

/// What the caller knows and asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The receipt's file name, without folders: it may give the id to hold the bytes to.
    pub file_name: Option<String>,
    /// The receipt id to hold the bytes to.
    pub expected_id: Option<Sha256Hex>,
    /// Where to look for the model.
    pub files: Files,
    /// The keys to hold signatures to.
    pub keys: Vec<PublicKey>,
    /// How many of the keys must have signed; `None` for all.
    pub signatures: Option<usize>,
    /// The ledger that it must stand in.
    pub chain: Chain,
    /// Refuse fallbacks, corrections and builds that cannot be made again.
    pub strict: bool,
    /// The present, seconds after 1970.
    pub now: u64,
    /// How old a receipt may be, seconds; `None` for any age.
    pub max_age: Option<u64>,
    /// Rules that are not checked. For the tests of the rules; a verdict with any of them off says little.
    pub off: BTreeSet<Rule>,
}

/// Where to look for the model. No other file is ever opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// Nowhere: files are not checked.
    NotAsked,
    /// In this folder itself, under the subject's name.
    Directory(PathBuf),
    /// This file, whatever its name.
    Model(PathBuf),
}

impl Default for Options {
    /// No id, no files, no keys, no ledger, any age, the system clock.
    fn default() -> Options {
        Options {
            file_name: None,
            expected_id: None,
            files: Files::NotAsked,
            keys: Vec::new(),
            signatures: None,
            chain: Chain::NotAsked,
            strict: false,
            now: DateTime::now().to_unix(),
            max_age: None,
            off: BTreeSet::new(),
        }
    }
}

/// What a check found.
enum Finding {
    Held(String),
    Broken(String),
    /// Not checked, and the verdict does not need it.
    Skipped(String),
    /// Not checked, but the verdict needs it.
    Missing(String),
}

use Finding::{Broken, Held, Missing, Skipped};

/// `Broken` with a formatted message unless the condition holds.
macro_rules! require {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return $crate::receipts::verify::Finding::Broken(format!($($message)+));
        }
    };
}
use require;

/// The rules on a statement that could be read, in order.
type StatementRule = fn(&Statement, &Options) -> Finding;
const STATEMENT_RULES: &[(Rule, StatementRule)] = &[
    (Rule::Files, files::files),
    (Rule::Kind, claim::kind),
    (Rule::Subject, claim::subject),
    (Rule::Tensors, tensors::tensors),
    (Rule::Sampling, claim::sampling),
    (Rule::TokenCounts, claim::token_counts),
    (Rule::LayerChain, claim::layer_chain),
    (Rule::Trace, honest::trace),
    (Rule::FloatEnvironment, execution::float_environment),
    (Rule::Execution, execution::execution),
    (Rule::ComputePath, execution::compute_path),
    (Rule::WorkRows, execution::work_rows),
    (Rule::Work, model::work),
    (Rule::WeightBytes, tensors::weight_bytes),
    (Rule::Kernels, execution::kernels),
    (Rule::Fallbacks, execution::fallbacks),
    (Rule::Device, execution::device),
    (Rule::Measurement, execution::measurement),
    (Rule::Audit, honest::audit),
    (Rule::ParityMetrics, results::parity_metrics),
    (Rule::KernelResults, results::kernel_results),
    (Rule::Status, results::status),
    (Rule::Created, claim::created),
    (Rule::Corrections, claim::corrections),
    (Rule::Age, claim::age),
    (Rule::Policy, honest::policy),
];

/// Checks the bytes of a receipt, or of an envelope around one.
pub fn verify(bytes: &[u8], options: &Options) -> Report {
    let opened = envelope::open(bytes);
    let envelope = opened.as_ref().and_then(|opened| opened.as_ref().ok());
    let payload = envelope.map_or(bytes, |envelope| &envelope.payload);
    let mut sheet = Sheet { options, id: Sha256Hex::of(payload), results: Vec::new(), signed_by: Vec::new() };
    let statement = sheet.envelope(opened.as_ref()).and_then(|()| sheet.examine(payload, envelope));
    let verdict = |result: &RuleResult| result.consequence.unwrap_or(Verdict::Valid);
    sheet.complete();
    Report {
        verdict: sheet.results.iter().map(verdict).max().unwrap_or(Verdict::Inconclusive),
        receipt_id: sheet.id,
        signed_by: sheet.signed_by,
        rules: sheet.results,
        statement,
    }
}

/// Results so far.
struct Sheet<'a> {
    options: &'a Options,
    id: Sha256Hex,
    results: Vec<RuleResult>,
    signed_by: Vec<Sha256Hex>,
}

impl Sheet<'_> {
    /// This rule cannot be switched off: what is in a broken envelope cannot be seen.
    fn envelope(&mut self, opened: Option<&Result<Envelope, String>>) -> Option<()> {
        let finding = match opened {
            None => Skipped("not in an envelope".into()),
            Some(Err(problem)) => Broken(problem.clone()),
            Some(Ok(envelope)) => Held(format!("{} signatures", envelope.signatures.len())),
        };
        self.note(Rule::Envelope, finding)
    }

    /// Checks all rules on the receipt in order; the statement if it could be read.
    fn examine(&mut self, bytes: &[u8], envelope: Option<&Envelope>) -> Option<Statement> {
        let options = self.options;
        let (signature, signed_by) = signature::signature(envelope, options);
        let signed = matches!(signature, Held(_)) && !options.off.contains(&Rule::Signature);
        self.check(Rule::Size, || size(bytes))?;
        self.check(Rule::Depth, || depth(bytes))?;
        let parsed = self.json(bytes)?;
        self.check(Rule::DuplicateKeys, || match &parsed.duplicate {
            Some(key) => Broken(format!("the key {key:?} stands twice in one object")),
            None => Held("no key twice in an object".into()),
        })?;
        if self.check(Rule::Version, || version(&parsed.value)).is_none() {
            // These hold for any version: changed bytes are found.
            self.receipt_id(signed);
            self.check(Rule::Signature, || signature);
            return None;
        }
        let statement = self.schema(&parsed.value)?;
        self.check(Rule::Numbers, || match &parsed.number {
            Some(number) => Broken(number.clone()),
            None => Held("only integers, all within 2^53 - 1".into()),
        });
        self.check(Rule::CanonicalForm, || canonical_form(&parsed.value, bytes));
        self.check(Rule::ClaimId, || claim_id(&statement));
        self.receipt_id(signed);
        self.check(Rule::FileName, || claim::file_name(&statement, envelope.is_some(), options));
        self.check(Rule::Signature, || signature);
        self.signed_by = if signed { signed_by } else { Vec::new() };
        for (rule, check) in STATEMENT_RULES {
            self.check(*rule, || check(&statement, options));
        }
        let id = self.id.clone();
        self.check(Rule::Chain, || chain::chain(&statement, &id, options));
        Some(statement)
    }

    /// Checks a rule unless it is switched off; `None` if it is broken.
    fn check(&mut self, rule: Rule, check: impl FnOnce() -> Finding) -> Option<()> {
        let off = self.options.off.contains(&rule);
        self.note(rule, if off { Skipped("switched off".into()) } else { check() })
    }

    /// Adds what was found; `None` if the rule is broken.
    fn note(&mut self, rule: Rule, finding: Finding) -> Option<()> {
        let (outcome, message, consequence) = match finding {
            Held(message) => (Outcome::Held, message, None),
            Broken(message) => (Outcome::Broken, message, Some(rule.verdict())),
            Skipped(message) => (Outcome::NotChecked, message, None),
            Missing(message) => (Outcome::NotChecked, message, Some(Verdict::Inconclusive)),
        };
        // Some of it is a stranger's: no line of a report may be theirs.
        let message = message.replace(char::is_control, "\u{fffd}");
        self.results.push(RuleResult { rule, outcome, message, consequence });
        (outcome != Outcome::Broken).then_some(())
    }

    /// The value. This rule cannot be switched off: without a value there is nothing to check.
    fn json(&mut self, bytes: &[u8]) -> Option<parse::Parsed> {
        let (parsed, finding) = match parse::parse(bytes) {
            Ok(parsed) => (Some(parsed), Held("one JSON value".into())),
            Err(error) => (None, Broken(error)),
        };
        self.note(Rule::Json, finding)?;
        parsed
    }

    /// The statement, if the value fits the schema and the types. Switched off, it still has to fit the types.
    fn schema(&mut self, value: &Value) -> Option<Statement> {
        let statement = serde_json::from_value::<Statement>(value.clone());
        self.check(Rule::Schema, || match (schema::first_misfit(value), &statement) {
            (Some(misfit), _) => Broken(misfit),
            (None, Err(error)) => Broken(error.to_string()),
            (None, Ok(_)) => Held("as the schema says".into()),
        })?;
        statement.ok()
    }

    fn receipt_id(&mut self, signed: bool) {
        let (id, options) = (self.id.clone(), self.options);
        self.check(Rule::ReceiptId, || receipt_id(&id, signed, options));
    }

    /// Adds the rules that were not reached, in their places.
    fn complete(&mut self) {
        for (place, rule) in Rule::ALL.iter().enumerate() {
            if self.results.get(place).is_none_or(|result| result.rule != *rule) {
                let message = "not reached".to_owned();
                let outcome = Outcome::NotChecked;
                // What ended the check has its own consequence; this one is for a rule that was switched off.
                let consequence = Some(Verdict::Inconclusive);
                self.results.insert(place, RuleResult { rule: *rule, outcome, message, consequence });
            }
        }
    }
}

fn size(bytes: &[u8]) -> Finding {
    require!(bytes.len() <= MAX_BYTES, "{} bytes, more than {MAX_BYTES}", bytes.len());
    Held(format!("{} bytes", bytes.len()))
}

fn depth(bytes: &[u8]) -> Finding {
    let depth = parse::depth(bytes, MAX_DEPTH);
    require!(depth <= MAX_DEPTH, "nested more than {MAX_DEPTH} deep");
    Held(format!("nested {depth} deep"))
}

/// Another major version of a receipt or of in-toto; what is no receipt at all is left to the schema.
fn version(value: &Value) -> Finding {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
    let other = |text: &str, base: &str, known: &str| text.starts_with(base) && text != known;
    let (statement, predicate) = (text("_type"), text("predicateType"));
    let unknown = |what: &str| {
        Broken(format!("{what} is of another major version; read it with the Assay that wrote it"))
    };
    if other(statement, "https://in-toto.io/Statement/v", STATEMENT_TYPE) {
        return unknown("the in-toto statement");
    }
    if other(predicate, PREDICATE_BASE, PREDICATE_TYPE) {
        return unknown("the receipt");
    }
    Held("version 1".into())
}

fn canonical_form(value: &Value, bytes: &[u8]) -> Finding {
    let Ok(canonical) = canonical::to_bytes(value) else { return Broken("has no canonical form".into()) };
    let same = canonical.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    require!(canonical == bytes, "differs from its canonical form (RFC 8785) at byte {same}");
    Held("canonical".into())
}

fn claim_id(statement: &Statement) -> Finding {
    let said = &statement.predicate.claim_id;
    match canonical::claim_id(statement) {
        Ok(is) if is == *said => Held(format!("{}…", is.short())),
        Ok(is) => Broken(format!("says {}…, but its claim has {}…", said.short(), is.short())),
        Err(error) => Broken(error.to_string()),
    }
}

fn receipt_id(id: &Sha256Hex, signed: bool, options: &Options) -> Finding {
    let from_name = options.file_name.as_deref().and_then(name_parts);
    if let Some(expected) = &options.expected_id {
        require!(expected == id, "the bytes have the id {id}, not {expected}");
    }
    if let Some((_, hex)) = from_name {
        require!(hex == id.short(), "the bytes have the id {}…, the file name says {hex}", id.short());
    }
    match (&options.expected_id, from_name) {
        (Some(_), _) => Held(format!("{id}, as asked for")),
        (None, Some(_)) => {
            Held(format!("{}…, as the file name says (no more than these 12 digits)", id.short()))
        }
        (None, None) if signed => Skipped("nothing names its id; the signature holds its bytes".into()),
        (None, None) => {
            Missing("no id to hold it to: give --id, or the file the name it was written under".into())
        }
    }
}

/// (date, 12 hex) of `<date>-<12 hex>.json`, or of `….dsse.json` for an envelope, if the name has that form.
fn name_parts(name: &str) -> Option<(&str, &str)> {
    let stem = name.strip_suffix(".json")?;
    let (date, hex) = stem.strip_suffix(".dsse").unwrap_or(stem).rsplit_once('-')?;
    let is_hex = hex.len() == 12 && is_lower_hex(hex);
    (is_hex && DateTime::parse(&format!("{date}T00:00:00Z")).is_ok()).then_some((date, hex))
}
