//! A file as bytes: mapped read-only, so that weights are used where they lie.
#![expect(unsafe_code, reason = "mapping a file is unsafe: another process could change it meanwhile")]

use crate::error::{Error, Result};
use std::fs::File;
use std::path::Path;

/// A read-only mapping of a whole file.
#[derive(Debug)]
pub struct MappedFile {
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps `path`.
    ///
    /// # Errors
    /// - [`Error::File`] if it is missing, unreadable or not a regular file.
    pub fn open(path: &Path) -> Result<MappedFile> {
        // Asked before opening: opening a pipe would wait for a writer.
        let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, &e))?;
        if !metadata.is_file() {
            let problem = if metadata.is_dir() { "is a directory" } else { "is not a regular file" };
            let advice = "name a GGUF file";
            return Err(Error::File {
                path: path.display().to_string(),
                problem: problem.to_owned(),
                advice,
            });
        }
        if metadata.len() == 0 {
            return Ok(MappedFile { map: None });
        }
        let file = File::open(path).map_err(|e| Error::file(path, &e))?;
        if !file.metadata().is_ok_and(|now| now.is_file()) {
            return Err(Error::file(path, &std::io::Error::other("changed while it was opened")));
        }
        // SAFETY: the mapping is read-only and private to this struct. If another process truncates or rewrites the
        // file while it is mapped, reads may fault or see new bytes (and names borrowed from it may stop being UTF-8): as
        // with any program that maps its weights; the digest in a receipt is taken over the same mapping.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::file(path, &e))?;
        Ok(MappedFile { map: Some(map) })
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}
