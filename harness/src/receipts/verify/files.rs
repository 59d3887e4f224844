//! The rule on files: the model has the digest and length that the receipt gives. The only code here that opens
//! a file, and only under the folder, or the one file, that the caller names.

use super::claim::model_parts;
use super::{Broken, Files, Finding, Held, Missing, Options, Skipped, require};
use crate::receipts::text::Sha256Hex;
use crate::receipts::types::Statement;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

pub(super) fn files(statement: &Statement, options: &Options) -> Finding {
    if options.files == Files::NotAsked {
        return Skipped("no model given to hold it to".into());
    }
    let Some((model, ..)) = model_parts(statement) else {
        return Missing("the receipt names no model to hold a file to".into());
    };
    let path = match &options.files {
        Files::Model(path) => path.clone(),
        Files::Directory(directory) => match statement.subject.first() {
            Some(subject) => match inside(directory, subject.name.as_str()) {
                Ok(path) => path,
                Err(why) => return Missing(why),
            },
            None => return Missing("no subject".into()),
        },
        Files::NotAsked => return Skipped("no model given to hold it to".into()),
    };
    let (bytes, digest) = match length_and_digest(&path, model.bytes.get()) {
        Ok(facts) => facts,
        Err(error) => return Missing(format!("the model cannot be read: {error}")),
    };
    require!(bytes == model.bytes.get(), "the model has {bytes} bytes, the receipt says {}", model.bytes);
    match digest {
        Some(digest) if digest == model.sha256 => Held(format!("the model has {}…", digest.short())),
        Some(digest) => Broken(format!("the model has {}…, not {}…", digest.short(), model.sha256.short())),
        None => Broken("the model changed its length while it was read".into()),
    }
}

/// `directory/name` if the name is one plain component and names a regular file there, not a link.
pub(in crate::receipts) fn inside(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let mut components = Path::new(name).components();
    if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
        return Err(format!("{name:?} is not a plain file name"));
    }
    let path = directory.join(name);
    match path.symlink_metadata() {
        Ok(facts) if facts.is_file() => Ok(path),
        Ok(_) => Err(format!("{name:?} in the folder is not a regular file")),
        Err(error) => Err(format!("{name:?} in the folder: {error}")),
    }
}

/// The file's length, and its digest if the length is `expected` (a file of another length is not read).
fn length_and_digest(path: &Path, expected: u64) -> std::io::Result<(u64, Option<Sha256Hex>)> {
    // Asked before opening: opening a pipe would wait for a writer.
    let facts = std::fs::metadata(path)?;
    if !facts.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    if facts.len() != expected {
        return Ok((facts.len(), None));
    }
    let mut rest = File::open(path)?.take(expected);
    let (mut hasher, mut buffer, mut read) = (Sha256::new(), vec![0; 1 << 20], 0u64);
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                read += count as u64;
            }
        }
    }
    Ok((expected, (read == expected).then(|| Sha256Hex::from_digest(hasher.finalize().into()))))
}
