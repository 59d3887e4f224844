//! The page is fresh, and nothing reads or sets a variable past the table.

use assay_variables::{ALL, UPDATE, page};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files below a folder, but for build output and other hidden things.
fn files(path: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !["target", ".git"].contains(&&*name) {
            files(&path, endings, found);
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

fn sources(folders: &[&str], endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    folders.iter().for_each(|folder| files(&root().join(folder), endings, &mut found));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("source"))
    };
    found.into_iter().map(read).collect()
}

fn rust() -> impl Iterator<Item = (String, String)> {
    let own = ["variables/", "harness/build.rs"];
    sources(&["engine", "harness", "oracle", "examples"], &[".rs"])
        .into_iter()
        .filter(move |(name, _)| !own.iter().any(|own| name.starts_with(own)))
}

/// Names in a text that look like variables of ours.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("ASSAY_") || *word == "REQUIRE_ISA").collect()
}

#[test]
fn the_page_is_fresh() {
    let path = root().join("docs/environment.md");
    if UPDATE.read().expect("a flag") {
        fs::write(&path, page()).expect("written");
    }
    let advice = "docs/environment.md is stale; run: ASSAY_UPDATE=1 cargo test -p assay-variables";
    assert!(fs::read_to_string(&path).is_ok_and(|text| text == page()), "{advice}");
}

#[test]
fn names_are_unique_and_each_row_is_a_sentence() {
    let names: BTreeSet<&str> = ALL.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), ALL.len());
    for row in ALL {
        assert!(
            !row.readers.is_empty() && row.what.ends_with('.') && !row.what.contains('|'),
            "{}",
            row.name
        );
    }
}

/// Cargo, its compiler and the search path are the system's, and read where they are needed.
#[test]
fn no_other_file_reads_or_sets_a_variable() {
    let allowed = ["PATH", "RUSTC"].map(|name| format!("env::var_os(\"{name}\")"));
    let mut seen = 0;
    for (name, text) in rust() {
        seen += 1;
        let rest = allowed.iter().fold(text, |text, allowed| text.replace(allowed, ""));
        for word in ["env::var", "env::{", "env::*", "set_var", "remove_var"] {
            assert!(
                !rest.contains(word),
                "{name}: has `{word}`; variables are read by the crate assay-variables"
            );
        }
    }
    assert!(seen > 100, "{seen} files: the sources are not where they were");
}

#[test]
fn only_tests_have_guards() {
    for (name, text) in rust().filter(|(name, _)| name.contains("/src/") && !name.ends_with("/tests.rs")) {
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in text.lines().filter(|line| line.contains("assay_variables::")) {
            assert!(!line.contains("Guard") && !line.contains("skip_slow"), "{name}: `{line}` is for tests");
        }
    }
}

#[test]
fn every_variable_of_a_script_has_a_row() {
    let known: BTreeSet<&str> = ALL.iter().map(|row| row.name).collect();
    for (name, text) in sources(
        &["scripts", ".ci", ".github/workflows", "examples/references"],
        &[".sh", ".yml", ".py", "run"],
    ) {
        for found in names(&text) {
            assert!(known.contains(found), "{name}: {found} has no row in variables/src/table.rs");
        }
    }
}
