//! The ledger: an append-only file of JSON lines, each with the hash of the line before, so that a receipt that was taken out,
//! put in or swapped is found.
//!
//! Writers take a lock, write the whole ledger beside itself, and rename: a reader sees the lines from before or the lines from
//! after, whenever a writer dies.

use super::canonical;
use super::error::{Error, Result};
use super::parse;
use super::text::{DateTime, FileName, Sha256Hex};
use super::types::Kind;
use crate::files::folder_of;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The longest line, bytes.
const MAX_LINE: usize = 4096;
/// The longest ledger, bytes: some two million lines.
pub const MAX_BYTES: usize = 1 << 30;
const MAX_DEPTH: usize = 2;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// When it was appended.
    pub appended: DateTime,
    /// What the receipt claims.
    pub claim_id: Sha256Hex,
    /// The receipt's file name when it was appended; files may be renamed since.
    pub file: FileName,
    /// Lines before it.
    pub index: u64,
    /// The receipt's kind.
    pub kind: Kind,
    /// SHA-256 of the line before, without its line feed; zeros for the first.
    pub previous: Sha256Hex,
    /// The receipt.
    pub receipt_id: Sha256Hex,
    /// What the line is.
    #[serde(rename = "type")]
    pub line_type: LineType,
}

/// The one type of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineType {
    /// Version 1.
    #[serde(rename = "https://assay-project.dev/ledger/v1")]
    V1,
}

/// What a line says of a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The receipt.
    pub receipt_id: Sha256Hex,
    /// What it claims.
    pub claim_id: Sha256Hex,
    /// Its kind.
    pub kind: Kind,
    /// Its file name.
    pub file: FileName,
}

/// A ledger whose chain holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Its lines.
    pub lines: Vec<Line>,
    /// SHA-256 of the last line; zeros if there is none.
    pub head: Sha256Hex,
    places: BTreeMap<Sha256Hex, usize>,
}

/// Why a ledger is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}: {problem}", line + 1)]
pub struct Broken {
    /// The line, from 0.
    pub line: usize,
    /// What is wrong there.
    pub problem: String,
}

/// What stands before the first line.
pub fn origin() -> Sha256Hex {
    Sha256Hex::from_digest([0; 32])
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { lines: Vec::new(), head: origin(), places: BTreeMap::new() }
    }
}

impl Ledger {
    /// Reads lines and holds them to their chain.
    ///
    /// # Errors
    /// - the first line that is torn, not canonical, out of order, not linked to the one before, or about a receipt that a line
    ///   before it is about.
    pub fn parse(bytes: &[u8]) -> Result<Ledger, Broken> {
        let mut ledger = Ledger::default();
        let broken = |line: usize, problem: String| Broken { line, problem };
        if bytes.len() > MAX_BYTES {
            return Err(broken(0, format!("{} bytes in all, more than {MAX_BYTES}", bytes.len())));
        }
        for text in bytes.split_inclusive(|byte| *byte == b'\n') {
            let place = ledger.lines.len();
            let fail = |problem: String| broken(place, problem);
            let Some(text) = text.strip_suffix(b"\n") else { return Err(fail("torn: no line feed".into())) };
            let line = read(text).map_err(fail)?;
            if line.index != place as u64 {
                return Err(fail(format!("has the index {}, expected {place}", line.index)));
            }
            if line.previous != ledger.head {
                let (said, is) = (line.previous.short(), ledger.head.short());
                return Err(fail(format!("follows {said}…, but the line before it is {is}…")));
            }
            if let Some(earlier) = ledger.places.get(&line.receipt_id) {
                let (id, earlier) = (line.receipt_id.short(), earlier + 1);
                return Err(fail(format!("receipt {id}… stands in line {earlier} already")));
            }
            ledger.push(line, text);
        }
        Ok(ledger)
    }

    fn push(&mut self, line: Line, text: &[u8]) {
        self.head = Sha256Hex::of(text);
        self.places.insert(line.receipt_id.clone(), self.lines.len());
        self.lines.push(line);
    }

    /// The line about a receipt.
    pub fn find(&self, receipt_id: &Sha256Hex) -> Option<&Line> {
        self.places.get(receipt_id).map(|place| &self.lines[*place])
    }

    /// Reads a file; one that is not there is an empty ledger.
    ///
    /// # Errors
    /// - [`Error::File`] if it cannot be read, [`Error::Ledger`] if its chain does not hold.
    pub fn open(path: &Path) -> Result<Ledger> {
        Ok(read_file(path)?.1)
    }
}

fn read(text: &[u8]) -> Result<Line, String> {
    if text.len() > MAX_LINE {
        return Err(format!("{} bytes, more than {MAX_LINE}", text.len()));
    }
    if parse::depth(text, MAX_DEPTH) > MAX_DEPTH {
        return Err("not a line of a ledger: nested too deep".to_owned());
    }
    let parsed = parse::parse(text)?;
    let line: Line =
        serde_json::from_value(parsed.value).map_err(|error| format!("not a line of a ledger: {error}"))?;
    match canonical::to_bytes(&line) {
        Ok(bytes) if bytes == text => Ok(line),
        _ => Err("differs from its canonical form (RFC 8785)".to_owned()),
    }
}

/// The bytes and what they say; nothing of both for a file that is not there.
fn read_file(path: &Path) -> Result<(Vec<u8>, Ledger)> {
    let absent = path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let bytes = if absent { Vec::new() } else { crate::files::read(path, MAX_BYTES)? };
    let broken = |broken: Broken| Error::Ledger {
        path: path.display().to_string(),
        problem: broken.to_string(),
        advice: "restore it from a copy whose head you know; it was left as it is",
    };
    let ledger = Ledger::parse(&bytes).map_err(broken)?;
    Ok((bytes, ledger))
}

/// `path` with more behind its name.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    PathBuf::from(name)
}

/// Appends a line for each entry that the ledger does not hold yet, and returns the lines of all. On return they are on disk.
///
/// The ledger is `path`; its lock is `path.lock`, which stays. What a writer that was killed has left beside it, the next one takes
/// away.
///
/// # Errors
/// - [`Error::File`] if the ledger cannot be locked, read or written; it is as it was, unless only its folder could not be
///   brought to disk.
/// - [`Error::Ledger`] if the chain of what is there does not hold, an entry contradicts a line about its receipt, or the ledger has
///   another name too, or may not be written.
pub fn append(path: &Path, entries: &[Entry]) -> Result<Vec<Line>> {
    // Links are followed once, so that the rename replaces the ledger and not the link.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let fail = |error: std::io::Error| Error::file(path, &error);
    let _lock = lock(path).map_err(fail)?;
    may_be_replaced(path)?;
    let (mut bytes, mut ledger) = read_file(path)?;
    let before = ledger.lines.len();
    for entry in entries {
        add(path, &mut ledger, &mut bytes, entry)?;
    }
    if ledger.lines.len() > before {
        replace(path, &bytes)?;
    } else if path.exists() {
        // Whoever wrote these lines may have died before they were on disk.
        File::open(path).and_then(|file| file.sync_all()).map_err(fail)?;
    }
    sync_folder(path).map_err(fail)?;
    let line = |entry: &Entry| ledger.find(&entry.receipt_id).cloned();
    Ok(entries.iter().filter_map(line).collect())
}

/// The lock of a ledger, held until it is dropped.
fn lock(path: &Path) -> std::io::Result<File> {
    let name = beside(path, ".lock");
    loop {
        let lock = File::options().create(true).truncate(false).write(true).open(&name)?;
        lock.lock()?;
        // Somebody may have removed the file in the meantime: then others lock another one.
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let (ours, there) = (lock.metadata()?, name.metadata());
            if there.is_err()
                || there.is_ok_and(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino()))
            {
                continue;
            }
            // Who may write the ledger may lock it; where this is not ours to change, it stays.
            if let Ok(ledger) = path.metadata() {
                drop(lock.set_permissions(ledger.permissions()));
            }
        }
        return Ok(lock);
    }
}

/// A rename would leave another name of the file behind, and would get around a file that may not be written.
fn may_be_replaced(path: &Path) -> Result<()> {
    let Ok(facts) = path.metadata() else { return Ok(()) };
    let refused = |problem: &str, advice| {
        Err(Error::Ledger { path: path.display().to_string(), problem: problem.to_owned(), advice })
    };
    if facts.permissions().readonly() {
        return refused("may not be written", "append to another ledger, or allow it");
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&facts) > 1 {
        return refused(
            "has another name too (a hard link)",
            "append to a file of one name, or the two would part",
        );
    }
    Ok(())
}

fn add(path: &Path, ledger: &mut Ledger, bytes: &mut Vec<u8>, entry: &Entry) -> Result<()> {
    let refused = |problem: String| Error::Ledger {
        path: path.display().to_string(),
        problem,
        advice: "append the receipt to another ledger",
    };
    if let Some(line) = ledger.find(&entry.receipt_id) {
        return match (&line.claim_id, line.kind) == (&entry.claim_id, entry.kind) {
            true => Ok(()),
            false => Err(refused(format!("line {} says otherwise of the receipt", line.index + 1))),
        };
    }
    let line = Line {
        appended: DateTime::now(),
        claim_id: entry.claim_id.clone(),
        file: entry.file.clone(),
        index: ledger.lines.len() as u64,
        kind: entry.kind,
        previous: ledger.head.clone(),
        receipt_id: entry.receipt_id.clone(),
        line_type: LineType::V1,
    };
    let text = canonical::to_bytes(&line)?;
    if bytes.len() + text.len() >= MAX_BYTES {
        return Err(refused("it is full (1 GiB)".to_owned()));
    }
    bytes.extend_from_slice(&text);
    bytes.push(b'\n');
    ledger.push(line, &text);
    Ok(())
}

/// Puts `bytes` in the place of `path`, whole or not at all. Only the holder of the lock may call it.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |error: std::io::Error| Error::file(path, &error);
    let folder = folder_of(path);
    let prefix = format!(".{}-", path.file_name().unwrap_or_default().to_string_lossy());
    sweep(folder, &prefix);
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(&prefix).suffix(".new").tempfile_in(folder).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    if let Ok(there) = path.metadata() {
        file.as_file().set_permissions(there.permissions()).map_err(fail)?;
    }
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|failed| fail(failed.error)).map(drop)
}

/// Takes away what writers of this ledger have left that were killed. The lock is held: none of them is at work.
fn sweep(folder: &Path, prefix: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(".new")) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Brings the names in the ledger's folder to disk.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder_of(path))?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u32) -> Entry {
        Entry {
            receipt_id: Sha256Hex::of(&n.to_le_bytes()),
            claim_id: Sha256Hex::of(b"claim"),
            kind: Kind::ModelRun,
            file: FileName::parse(&format!("{n}.json")).unwrap(),
        }
    }

    fn written(count: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        (0..count).for_each(|n| drop(append(&path, &[entry(n)]).unwrap()));
        (folder, path)
    }

    #[test]
    fn lines_hold_each_other() {
        let (_folder, path) = written(3);
        let bytes = std::fs::read(&path).unwrap();
        let ledger = Ledger::parse(&bytes).unwrap();
        assert_eq!(ledger.lines.len(), 3);
        assert_eq!(ledger.find(&entry(1).receipt_id).map(|line| line.index), Some(1));
        assert_eq!(ledger.find(&entry(7).receipt_id), None);
        let again = append(&path, &[entry(2), entry(3)]).unwrap();
        assert_eq!(again.iter().map(|line| line.index).collect::<Vec<_>>(), [2, 3], "once and no more");
        assert_eq!(Ledger::open(&path).unwrap().lines.len(), 4);
        let other = Entry { claim_id: Sha256Hex::of(b"another"), ..entry(3) };
        assert!(matches!(append(&path, &[other]), Err(Error::Ledger { .. })));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let (_folder, path) = written(3);
        let bytes = std::fs::read(&path).unwrap();
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                // Nothing follows the last line: its head is what holds it.
                let found = Ledger::parse(&flipped).map_or(true, |ledger| {
                    place >= last && ledger.head != Ledger::parse(&bytes).unwrap().head
                });
                assert!(found, "bit {bit} of byte {place}");
            }
            let cut = Ledger::parse(&bytes[..place]);
            let at_line_end = place == 0 || bytes[place - 1] == b'\n';
            assert_eq!(cut.is_ok(), at_line_end, "{place} bytes");
        }
    }

    #[test]
    fn lines_taken_out_put_in_or_swapped_are_found() {
        let (_folder, path) = written(4);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let broken = |lines: &[&str]| Ledger::parse(lines.concat().as_bytes()).unwrap_err();
        assert_eq!(broken(&[lines[0], lines[2], lines[3]]).line, 1);
        assert_eq!(broken(&[lines[1], lines[2]]).line, 0);
        assert_eq!(broken(&[lines[0], lines[2], lines[1], lines[3]]).line, 1);
        assert_eq!(broken(&[lines[0], lines[0]]).line, 1);
        // A fork: another second line, and the third of the first branch.
        let (_other, fork) = written(1);
        append(&fork, &[entry(9)]).unwrap();
        let other = std::fs::read_to_string(&fork).unwrap();
        let other: Vec<&str> = other.split_inclusive('\n').collect();
        assert_eq!(broken(&[other[0], other[1], lines[2]]).line, 2);
    }

    #[cfg(unix)]
    #[test]
    fn a_ledger_of_two_names_and_one_that_may_not_be_written_stay_as_they_are() {
        let (folder, path) = written(1);
        let other = folder.path().join("other.jsonl");
        std::fs::hard_link(&path, &other).unwrap();
        assert!(matches!(append(&path, &[entry(5)]), Err(Error::Ledger { .. })));
        std::fs::remove_file(&other).unwrap();
        let mut facts = path.metadata().unwrap().permissions();
        facts.set_readonly(true);
        std::fs::set_permissions(&path, facts).unwrap();
        assert!(matches!(append(&path, &[entry(5)]), Err(Error::Ledger { .. })));
        assert_eq!(Ledger::open(&path).unwrap().lines.len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_folder_is_not_written_through() {
        let (folder, path) = written(1);
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, beside(&path, ".new")).unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join(".ledger.jsonl-x.new")).unwrap();
        append(&path, &[entry(5)]).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"kept");
        assert!(path.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn what_is_broken_is_not_written_to() {
        let (_folder, path) = written(2);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.pop();
        std::fs::write(&path, &bytes).unwrap();
        let refused = append(&path, &[entry(5)]).unwrap_err().to_string();
        assert!(refused.contains("line 2: torn"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
