//! Folders of receipts → rows. Only receipts that verify count.

use super::{Error, Result};
use crate::receipts::types::{Claim, Measurement, Phase, Statement, Status};
use crate::receipts::verify::{MAX_BYTES, Options, Verdict, verify};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Folders inside folders that are searched.
const MAX_DEPTH: usize = 4;

/// What a report says about one receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What was asked: kind, model or case list, input. Two receipts with one key answer the same question.
    pub key: String,
    /// The subject's name.
    pub subject: String,
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

/// Reads the receipts in `path`: a file, or a folder that is searched for `*.json`.
///
/// # Errors
/// - [`Error::File`] if something cannot be read, [`Error::Empty`] if there is nothing to read.
pub fn load(path: &Path) -> Result<Loaded> {
    let mut files = Vec::new();
    find(path, 0, &mut files)?;
    if files.is_empty() {
        return Err(Error::Empty { path: path.display().to_string() });
    }
    load_files(files)
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

fn find(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let fail = |e: std::io::Error| assay_engine::Error::file(path, &e);
    if fs::metadata(path).map_err(fail)?.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?.path();
        let receipt = entry.extension().is_some_and(|ending| ending == "json");
        if receipt || (depth < MAX_DEPTH && entry.is_dir()) {
            find(&entry, depth + 1, files)?;
        }
    }
    Ok(())
}

impl Loaded {
    fn add(&mut self, file: &Path) -> Result<()> {
        let bytes = read(file)?;
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
                let same = format!("{} on {} and on {}", run.subject, other.isa, run.isa);
                self.refused.push(format!("{name}: another digest for the same question ({same})"));
            }
            Some(other) if (&other.created, &other.receipt_id) >= (&run.created, &run.receipt_id) => {}
            _ => drop(self.runs.insert(run.key.clone(), run)),
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let fail = |e: std::io::Error| assay_engine::Error::file(path, &e);
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

fn row(statement: &Statement, receipt_id: String) -> Run {
    let predicate = &statement.predicate;
    let subject = statement.subject.first();
    let name = subject.map_or(String::new(), |subject| subject.name.to_string());
    let sha256 = subject.map_or("", |subject| subject.digest.sha256.short());
    let kind = predicate.kind.as_str();
    let (question, digest) = match &predicate.claim {
        Claim::ModelRun(claim) => (question(statement), claim.logits.sha256.to_string()),
        Claim::KernelCheck(claim) => {
            let outputs: Vec<&str> = claim.operations.iter().map(|o| o.outputs_sha256.as_str()).collect();
            let digest = crate::receipts::text::Sha256Hex::of(outputs.concat().as_bytes());
            (format!("{} operations", outputs.len()), digest.to_string())
        }
    };
    Run {
        key: format!("{kind} {name} {sha256} {question}"),
        subject: name,
        isa: predicate.execution.isa.to_string(),
        held: predicate.status == Status::Held,
        digest,
        decode_tokens_per_second: predicate.measurement.as_ref().and_then(decode_rate),
        created: predicate.created.to_string(),
        receipt_id,
    }
}

/// Prompt and steps, shortened to a digest.
fn question(statement: &Statement) -> String {
    let Some(input) = &statement.predicate.input else { return String::new() };
    let ids: Vec<u8> = input.prompt_token_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let digest = crate::receipts::text::Sha256Hex::of(&ids);
    format!("prompt {} ({} tokens) + {}", digest.short(), input.prompt_token_ids.len(), input.steps)
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
