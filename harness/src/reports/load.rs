//! Folders of receipts → rows. Only receipts that verify count.

use super::{Error, Result};
use crate::files;
use crate::receipts::canonical;
use crate::receipts::envelope::{self, MAX_BYTES};
use crate::receipts::text::Sha256Hex;
use crate::receipts::types::{Claim, Measurement, Phase, Statement, Status};
use crate::receipts::verify::{Options, Verdict, verify};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders inside folders that are searched.
const MAX_DEPTH: usize = 4;

/// What a report says about one receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The question: kind, digest of the subject, activation, input. Two receipts with one key answer the same one.
    pub key: String,
    /// The question as a reader sees it, with the subject's name.
    pub label: String,
    /// The instruction set.
    pub isa: String,
    /// The run held to what it was compared with.
    pub held: bool,
    /// The answer: digest of all logits, or of all outputs of the kernels.
    pub digest: String,
    /// Median of decoded tokens per second, where it was measured.
    pub decode_tokens_per_second: Option<f64>,
    created: String,
    receipt_id: String,
}

/// The receipts of one side.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// By key; the newest receipt where several answer one question.
    pub runs: BTreeMap<String, Run>,
    /// Receipts that were refused, and questions that were answered in two ways: one line each.
    pub refused: Vec<String>,
}

/// Reads the receipts in `path`: a file, or a folder that is searched for `*.json`. Links are not followed.
///
/// # Errors
/// - [`Error::File`] if something cannot be read, [`Error::Empty`] if there is nothing to read.
pub fn load(path: &Path) -> Result<Loaded> {
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    let real = fs::canonicalize(path).map_err(|e| assay_engine::Error::file(path, &e))?;
    find(&real, 0, &mut files, &mut skipped)?;
    if files.is_empty() {
        return Err(Error::Empty { path: path.display().to_string() });
    }
    let mut loaded = load_files(files)?;
    skipped.sort();
    loaded.refused.extend(skipped);
    Ok(loaded)
}

fn find(path: &Path, depth: usize, files: &mut Vec<PathBuf>, skipped: &mut Vec<String>) -> Result<()> {
    let fail = |e: std::io::Error| assay_engine::Error::file(path, &e);
    let kind = fs::symlink_metadata(path).map_err(fail)?.file_type();
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    let mut skip = |why: &str| skipped.push(format!("{}: {why}", path.display()));
    if kind.is_dir() && depth > MAX_DEPTH {
        skip("the folder is too deep and was not searched");
    } else if kind.is_dir() {
        for entry in fs::read_dir(path).map_err(fail)? {
            find(&entry.map_err(fail)?.path(), depth + 1, files, skipped)?;
        }
    } else if kind.is_file() && (is_json || depth == 0) {
        files.push(path.to_owned());
    } else if is_json {
        skip("not a regular file");
    }
    Ok(())
}

/// Reads these receipts.
///
/// # Errors
/// - [`Error::File`] if one cannot be read.
pub fn load_files(mut files: Vec<PathBuf>) -> Result<Loaded> {
    files.sort();
    let mut loaded = Loaded::default();
    for file in files {
        loaded.add(&file)?;
    }
    Ok(loaded)
}

impl Loaded {
    fn add(&mut self, file: &Path) -> Result<()> {
        let bytes = files::read(file, MAX_BYTES)?;
        // A report reads what is inside: whose signature must be there is for `assay receipt verify` to say.
        let bytes = match envelope::open(&bytes) {
            Some(Ok(envelope)) => envelope.payload,
            _ => bytes,
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let report = verify(&bytes, &Options { file_name: Some(name.clone()), ..Options::default() });
        let (Verdict::Valid, Some(statement)) = (report.verdict, &report.statement) else {
            let why = report.decided_by().map_or("", |rule| rule.message.as_str());
            self.refused.push(format!("{name}: {}: {why}", report.verdict.name()));
            return Ok(());
        };
        let run = row(statement, report.receipt_id.to_string());
        match self.runs.get(&run.key) {
            Some(other) if other.digest != run.digest => {
                let same = format!("{} on {} and on {}", run.label, other.isa, run.isa);
                self.refused.push(format!("{name}: another digest for the same question ({same})"));
            }
            Some(other) if (&other.created, &other.receipt_id) >= (&run.created, &run.receipt_id) => {}
            _ => drop(self.runs.insert(run.key.clone(), run)),
        }
        Ok(())
    }
}

fn row(statement: &Statement, receipt_id: String) -> Run {
    let predicate = &statement.predicate;
    let subject = statement.subject.first();
    let (name, sha256) = subject.map_or((String::new(), String::new()), |subject| {
        (subject.name.to_string(), subject.digest.sha256.to_string())
    });
    let kind = predicate.kind.as_str();
    let (question, digest) = match &predicate.claim {
        Claim::ModelRun(claim) => (question(statement), claim.logits.sha256.to_string()),
        Claim::PluginCheck(_) => {
            // The question is the library and its cases (the claim id); the answer, what was found.
            let results = predicate.plugin_results.as_deref().unwrap_or_default();
            let digest = canonical::to_bytes(&results).map(|bytes| Sha256Hex::of(&bytes).to_string());
            (predicate.claim_id.to_string(), digest.unwrap_or_default())
        }
        Claim::KernelCheck(claim) => {
            let outputs: Vec<&str> = claim.operations.iter().map(|o| o.outputs_sha256.as_str()).collect();
            let digest = Sha256Hex::of(outputs.concat().as_bytes());
            (format!("{} operations", outputs.len()), digest.to_string())
        }
    };
    let short = sha256.get(..12).unwrap_or_default();
    Run {
        label: format!("{kind} {name} {short} {question}"),
        key: format!("{kind} {sha256} {question}"),
        isa: predicate.execution.isa.to_string(),
        held: predicate.status == Status::Held,
        digest,
        decode_tokens_per_second: predicate.measurement.as_ref().and_then(decode_rate),
        created: predicate.created.to_string(),
        receipt_id,
    }
}

/// Activation, prompt (shortened to a digest) and steps.
fn question(statement: &Statement) -> String {
    let (Some(input), Some(model)) = (&statement.predicate.input, &statement.predicate.model) else {
        return String::new();
    };
    let ids: Vec<u8> = input.prompt_token_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let (prompt, tokens) = (Sha256Hex::of(&ids), input.prompt_token_ids.len());
    format!("{} prompt {} ({tokens} tokens) + {}", model.activation, prompt.short(), input.steps)
}

/// Median over the decode samples that were not discarded, in tokens per second.
fn decode_rate(measurement: &Measurement) -> Option<f64> {
    let discarded = |index: usize| measurement.discarded.iter().any(|d| d.index as usize == index);
    let samples = measurement.samples.iter().enumerate();
    let kept = samples.filter(|(index, sample)| sample.phase == Phase::Decode && !discarded(*index));
    let mut times: Vec<f64> =
        kept.map(|(_, sample)| sample.ns.get() as f64 / f64::from(sample.tokens.max(1))).collect();
    times.sort_by(f64::total_cmp);
    let middle = times.get(times.len() / 2)?;
    Some(1e9 / middle)
}
