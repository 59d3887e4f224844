//! Models that are part of the program or that it can make, found by their digest.

use super::Result;
use super::file::ModelFile;
use super::golden::Golden;
use super::tiny;
use crate::fixtures::{self, GENERATOR_VERSION};

/// The model with this SHA-256: the trained one, a golden one, or the seeded one called `fixture` if this version makes it. `None` if none
/// of them is it.
///
/// # Errors
/// - never in a program whose tests passed: the embedded index is parsed here, and a seeded model may be made.
pub fn find(sha256: &str, fixture: Option<(&str, u32)>) -> Result<Option<ModelFile>> {
    let is_it = |file: &ModelFile| hex::encode(file.sha256()) == sha256;
    if let Some(file) = Some(tiny::model()).filter(is_it) {
        return Ok(Some(file));
    }
    let golden = Golden::embedded()?;
    if let Some(entry) = golden.index.models.values().find(|entry| entry.sha256 == sha256) {
        return Ok(Some(golden.model(entry)?).filter(is_it));
    }
    // A stranger's name and version decide only which of our own models is made.
    let known = fixture.filter(|(_, version)| *version == GENERATOR_VERSION);
    let Some(fixture) = known.and_then(|(name, _)| fixtures::find(name).ok()) else { return Ok(None) };
    if fixture.model().is_none() {
        return Ok(None);
    }
    let bytes = fixtures::checked(fixture)?;
    Ok(Some(ModelFile::generated(&fixture.file_name(), bytes)).filter(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_of_the_program_is_found_by_its_digest() {
        let tiny = hex::encode(tiny::model().sha256());
        assert_eq!(find(&tiny, None).unwrap().map(|file| file.name().to_owned()), Some("tiny.gguf".into()));
        for entry in Golden::embedded().unwrap().index.models.values() {
            assert_eq!(
                find(&entry.sha256, None).unwrap().map(|file| file.name().to_owned()),
                Some(entry.file.clone())
            );
        }
        let fixture = fixtures::all().iter().find(|fixture| fixture.model().is_some()).unwrap();
        let bytes = fixtures::checked(fixture).unwrap();
        let sha256 = hex::encode(ModelFile::generated("x", bytes).sha256());
        let found = |version| find(&sha256, Some((fixture.name, version))).unwrap().is_some();
        assert!(found(GENERATOR_VERSION) && !found(GENERATOR_VERSION + 1));
        assert!(find(&sha256, None).unwrap().is_none());
        assert!(find(&"0".repeat(64), Some((fixture.name, GENERATOR_VERSION))).unwrap().is_none());
    }
}
