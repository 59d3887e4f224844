//! Golden data: models, prompts, and what bitnet.cpp computed for them, one token at a time.

use super::file::ModelFile;
use super::{Error, Result};
use assay_engine::MappedFile;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The index, `models.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// The program that computed the logits.
    pub reference: Reference,
    /// By name.
    pub models: BTreeMap<String, Entry>,
}

/// The program that computed the logits.
#[derive(Debug, Clone, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its commit.
    pub commit: String,
    /// How it ran.
    pub device: String,
}

/// One model of the index. Fields that Assay does not use are left unread.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
    /// File name beside the index.
    pub file: String,
    /// SHA-256 of that file.
    pub sha256: String,
    /// The prompt.
    pub prompt_token_ids: Vec<u32>,
    /// Columns of logits.
    pub vocab_size: usize,
    /// What the reference chose.
    pub greedy_token_ids: Vec<u32>,
    /// Its logits.
    pub logits_one_token_at_a_time: LogitsFile,
    /// SHA-256 of the logits that the contract requires, from an independent implementation of it.
    pub exact_v1_logits_sha256: String,
}

impl Entry {
    /// The prompt, and how many tokens are generated after it.
    pub fn task(&self) -> (&[u32], usize) {
        (&self.prompt_token_ids, self.greedy_token_ids.len())
    }
}

/// A file of raw little-endian f32.
#[derive(Debug, Clone, Deserialize)]
pub struct LogitsFile {
    /// File name beside the index.
    pub file: String,
    /// Rows, columns.
    pub shape: [usize; 2],
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Where golden data lie.
#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    Embedded,
}

/// Golden data and their index.
#[derive(Debug, Clone)]
pub struct Golden {
    /// The index.
    pub index: Index,
    place: Place,
}

macro_rules! embedded {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../../../fixtures/golden/", $name)))),*]
    };
}

/// Golden data that are part of the program, so that `assay check` needs no files.
static EMBEDDED: &[(&str, &[u8])] = embedded! {
    "models.json"
    "b158-chaotic.gguf" "b158-chaotic.seq.f32"
    "b158-long.gguf" "b158-long.seq.f32"
    "b158-stable.gguf" "b158-stable.seq.f32"
    "b25-varied.gguf" "b25-varied.seq.f32"
    "bitnet-stable.gguf" "bitnet-stable.seq.f32"
    "llama-stable.gguf" "llama-stable.seq.f32"
};

fn embedded_file(name: &str) -> Result<&'static [u8]> {
    let found = EMBEDDED.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, bytes)| *bytes)
        .ok_or_else(|| bad(Path::new(name), "is not part of the program".to_owned()))
}

fn bad(path: &Path, problem: String) -> Error {
    let advice = "name a folder that holds a models.json and the files it lists";
    Error::Golden { path: path.display().to_string(), problem, advice }
}

impl Golden {
    /// The data that are part of the program.
    ///
    /// # Errors
    /// - never in a program whose tests passed: the index is parsed here.
    pub fn embedded() -> Result<Golden> {
        let index = parse(Path::new("models.json (embedded)"), embedded_file("models.json")?)?;
        Ok(Golden { index, place: Place::Embedded })
    }

    /// Reads `folder/models.json`.
    ///
    /// # Errors
    /// - it is missing or not such an index.
    pub fn open(folder: &Path) -> Result<Golden> {
        let path = folder.join("models.json");
        let index = parse(&path, MappedFile::open(&path)?.bytes())?;
        Ok(Golden { index, place: Place::Folder(folder.to_owned()) })
    }

    /// The entry for a model file, found by its SHA-256.
    ///
    /// # Errors
    /// - [`Error::ModelChanged`] if an entry has the file's name but another digest;
    /// - [`Error::Golden`] if no entry has either.
    pub fn find(&self, model: &ModelFile) -> Result<(&str, &Entry)> {
        let got = hex::encode(model.sha256());
        if let Some((name, entry)) = self.index.models.iter().find(|(_, entry)| entry.sha256 == got) {
            return Ok((name, entry));
        }
        match self.index.models.iter().find(|(_, entry)| entry.file == model.name()) {
            Some((name, entry)) => Err(Error::ModelChanged {
                model: model.name().to_owned(),
                name: name.clone(),
                expected: entry.sha256.clone(),
                got,
            }),
            None => {
                let names = self.index.models.keys().cloned().collect::<Vec<_>>().join(", ");
                Err(Error::Golden {
                    path: model.name().to_owned(),
                    problem: format!("SHA-256 {got} is none of the golden models ({names})"),
                    advice: "give one of those files",
                })
            }
        }
    }

    /// The model file of an entry.
    ///
    /// # Errors
    /// - it is missing or unreadable.
    pub fn model(&self, entry: &Entry) -> Result<ModelFile> {
        match &self.place {
            Place::Embedded => Ok(ModelFile::embedded(&entry.file, embedded_file(&entry.file)?)),
            Place::Folder(folder) => Ok(ModelFile::open(&inside(folder, &entry.file)?)?),
        }
    }

    /// The reference's logits for an entry, `(prompt + steps, vocab)`, held to their digest and shape.
    ///
    /// # Errors
    /// - the file is missing, damaged, or has another shape than the index says.
    pub fn logits(&self, entry: &Entry) -> Result<Vec<f32>> {
        let file = &entry.logits_one_token_at_a_time;
        match &self.place {
            Place::Embedded => logits(entry, Path::new(&file.file), embedded_file(&file.file)?),
            Place::Folder(folder) => {
                let path = inside(folder, &file.file)?;
                logits(entry, &path, MappedFile::open(&path)?.bytes())
            }
        }
    }
}

/// A name from an index is a file beside it, never a path elsewhere.
fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    if plain { Ok(folder.join(name)) } else { Err(bad(folder, format!("'{name}' is not a plain file name"))) }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Index> {
    let index: Index =
        serde_json::from_slice(bytes).map_err(|e| bad(path, format!("not a golden index: {e}")))?;
    for (name, entry) in &index.models {
        let digests =
            [&entry.sha256, &entry.logits_one_token_at_a_time.sha256, &entry.exact_v1_logits_sha256];
        if let Some(wrong) = digests.into_iter().find(|digest| !is_sha256(digest)) {
            return Err(bad(
                path,
                format!("'{name}': '{wrong}' is not a SHA-256 (64 lower-case hex digits)"),
            ));
        }
        if entry.prompt_token_ids.is_empty() || entry.greedy_token_ids.is_empty() {
            return Err(bad(path, format!("'{name}': a prompt and at least one greedy token are needed")));
        }
        let rows = entry.prompt_token_ids.len() + entry.greedy_token_ids.len();
        if entry.logits_one_token_at_a_time.shape != [rows, entry.vocab_size] {
            return Err(bad(
                path,
                format!("'{name}': the shape of its logits is not (prompt + steps) x vocabulary"),
            ));
        }
    }
    Ok(index)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn logits(entry: &Entry, path: &Path, bytes: &[u8]) -> Result<Vec<f32>> {
    let file = &entry.logits_one_token_at_a_time;
    let expected = file.shape.iter().try_fold(4_usize, |n, side| n.checked_mul(*side));
    if expected != Some(bytes.len()) {
        return Err(bad(path, format!("{} bytes are not {:?} f32 logits", bytes.len(), file.shape)));
    }
    let got = hex::encode(Sha256::digest(bytes));
    if got != file.sha256 {
        return Err(bad(path, format!("its SHA-256 is {got}, the index says {}", file.sha256)));
    }
    Ok(assay_engine::quant::dense::f32_from_bytes(bytes))
}
