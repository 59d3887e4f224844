//! RFC 8785 bytes, the two identities of a receipt, its file name, and writing it.

use super::error::{Error, Result};
use super::text::{FileName, Sha256Hex};
use super::types::{
    CaseList, Claim, Digest, Input, ModelFacts, Predicate, PredicateType, Statement, StatementType, Subject,
    TensorFacts,
};
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};

impl Statement {
    /// A statement of this version about one subject, with its claim id set.
    ///
    /// # Errors
    /// - [`Error::Json`] if it cannot be written as canonical JSON.
    pub fn new(subject: Subject, predicate: Predicate) -> Result<Statement> {
        let mut statement = Statement {
            statement_type: StatementType::V1,
            subject: vec![subject],
            predicate_type: PredicateType::V1,
            predicate,
        };
        seal(&mut statement)?;
        Ok(statement)
    }
}

impl Subject {
    /// A model file: its last path component and its digest.
    pub fn model(name: FileName, sha256: Sha256Hex) -> Subject {
        Subject { name, digest: Digest { sha256 } }
    }

    /// A list of cases: its digest is that of its canonical JSON.
    ///
    /// # Errors
    /// - [`Error::Json`] if it cannot be written as canonical JSON.
    pub fn case_list(cases: &CaseList) -> Result<Subject> {
        let name = FileName::parse(&format!("cases-v{}-seed-{}", cases.version, cases.seed))?;
        Ok(Subject { name, digest: Digest { sha256: Sha256Hex::of(&to_bytes(cases)?) } })
    }
}

/// The canonical JSON (RFC 8785) of `value`.
///
/// # Errors
/// - [`Error::Json`] if it cannot be written as JSON.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json_canonicalizer::to_vec(value).map_err(|error| Error::Json(error.to_string()))
}

/// SHA-256 of the canonical `{claim, input, model, subject}`, where `subject` is the list of the subjects'
/// digests: two honest runs of one claim have one claim id, whatever they call the file.
///
/// # Errors
/// - [`Error::Json`] if it cannot be written as JSON.
pub fn claim_id(statement: &Statement) -> Result<Sha256Hex> {
    #[derive(Serialize)]
    struct Identity<'a> {
        claim: &'a Claim,
        input: &'a Option<Input>,
        model: &'a Option<ModelFacts>,
        subject: Vec<&'a Digest>,
    }
    let Predicate { claim, input, model, .. } = &statement.predicate;
    let subject = statement.subject.iter().map(|subject| &subject.digest).collect();
    Ok(Sha256Hex::of(&to_bytes(&Identity { claim, input, model, subject })?))
}

/// SHA-256 of all canonical bytes.
///
/// # Errors
/// - [`Error::Json`] if it cannot be written as JSON.
pub fn receipt_id(statement: &Statement) -> Result<Sha256Hex> {
    Ok(Sha256Hex::of(&to_bytes(statement)?))
}

/// Sets the claim id to that of the claim.
///
/// # Errors
/// - [`Error::Json`] if it cannot be written as JSON.
pub fn seal(statement: &mut Statement) -> Result<()> {
    statement.predicate.claim_id = claim_id(statement)?;
    Ok(())
}

/// The name of the file that holds a receipt: `<date>-<first 12 hex>.json`.
pub fn file_name(statement: &Statement, receipt_id: &Sha256Hex) -> String {
    format!("{}-{}.json", statement.predicate.created.date(), receipt_id.short())
}

/// The name of the file that holds a receipt in an envelope: `<date>-<first 12 hex>.dsse.json`.
pub fn envelope_name(statement: &Statement, receipt_id: &Sha256Hex) -> String {
    format!("{}-{}.dsse.json", statement.predicate.created.date(), receipt_id.short())
}

/// One digest for the same weights in whatever format: SHA-256 of the canonical list of
/// `[name, decoded_sha256]`, sorted by name, over the tensors that have one. `None` if no tensor has one.
///
/// # Errors
/// - [`Error::Json`] if it cannot be written as JSON.
pub fn decoded_weights_sha256(tensors: &[TensorFacts]) -> Result<Option<Sha256Hex>> {
    let decoded = |t: &TensorFacts| Some((t.name.clone(), t.decoded_sha256.clone()?));
    let mut list: Vec<_> = tensors.iter().filter_map(decoded).collect();
    list.sort();
    if list.is_empty() { Ok(None) } else { Ok(Some(Sha256Hex::of(&to_bytes(&list)?))) }
}

/// Writes `<dir>/<kind>/<date>-<first 12 hex>.json` and returns its path. The folders are made; the file
/// appears whole or not at all; what is already there is never overwritten.
///
/// # Errors
/// - [`Error::Unsealed`] if the claim id is not that of the claim.
/// - [`Error::Collision`] if another receipt has the name.
/// - [`Error::File`] if a folder or file cannot be written.
/// - [`Error::Json`] if it cannot be written as JSON.
pub fn write(dir: &Path, statement: &Statement) -> Result<PathBuf> {
    if claim_id(statement)? != statement.predicate.claim_id {
        return Err(Error::Unsealed);
    }
    let bytes = to_bytes(statement)?;
    let folder = dir.join(statement.predicate.kind.as_str());
    let path = folder.join(file_name(statement, &Sha256Hex::of(&bytes)));
    std::fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, &error))?;
    let mut temporary = crate::files::temporary_in(&folder)?;
    temporary.write_all(&bytes).map_err(|error| Error::file(&path, &error))?;
    temporary.as_file().sync_all().map_err(|error| Error::file(&path, &error))?;
    match temporary.persist_noclobber(&path) {
        Ok(_) => Ok(path),
        Err(failed) if failed.error.kind() == std::io::ErrorKind::AlreadyExists => same_content(path, &bytes),
        Err(failed) => Err(Error::file(&path, &failed.error)),
    }
}

fn same_content(path: PathBuf, bytes: &[u8]) -> Result<PathBuf> {
    match std::fs::read(&path) {
        Ok(there) if there == bytes => Ok(path),
        Ok(_) => Err(Error::Collision { path: path.display().to_string() }),
        Err(error) => Err(Error::file(&path, &error)),
    }
}
