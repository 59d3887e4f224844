//! A model file as bytes, and its digest.

use assay_engine::gguf::Gguf;
use assay_engine::{MappedFile, Result};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Where the bytes of a model lie.
#[derive(Debug)]
enum Bytes {
    Mapped(MappedFile),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

/// A model file: its name and its bytes.
#[derive(Debug)]
pub struct ModelFile {
    name: String,
    bytes: Bytes,
}

impl ModelFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// - it is missing, unreadable or not a regular file.
    pub fn open(path: &Path) -> Result<ModelFile> {
        let name =
            path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        Ok(ModelFile { name, bytes: Bytes::Mapped(MappedFile::open(path)?) })
    }

    /// Reads the whole file into memory: nothing that happens to the file later can change what runs.
    ///
    /// # Errors
    /// - it is missing, unreadable, not a regular file, or longer than memory.
    pub fn read(path: &Path) -> Result<ModelFile> {
        let mapped = ModelFile::open(path)?;
        let mut bytes = Vec::new();
        let length = mapped.bytes().len();
        bytes.try_reserve_exact(length).map_err(|_| assay_engine::Error::File {
            path: path.display().to_string(),
            problem: format!("no memory for its {length} bytes"),
            advice: "use it where it lies, without --read",
        })?;
        bytes.extend_from_slice(mapped.bytes());
        Ok(ModelFile { name: mapped.name, bytes: Bytes::Owned(bytes) })
    }

    /// A model that is part of the program.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> ModelFile {
        ModelFile { name: name.to_owned(), bytes: Bytes::Static(bytes) }
    }

    /// A model that was just generated.
    pub fn generated(name: &str, bytes: Vec<u8>) -> ModelFile {
        ModelFile { name: name.to_owned(), bytes: Bytes::Owned(bytes) }
    }

    /// Last component of its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(file) => file.bytes(),
            Bytes::Static(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Parses the directory; errors name the file.
    ///
    /// # Errors
    /// - whatever is wrong with it as GGUF.
    pub fn gguf(&self) -> Result<Gguf<'_>> {
        Gguf::parse(self.bytes())
    }

    /// SHA-256 of all bytes.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.bytes()).into()
    }
}
