//! Modules use only what stands before them: `lib.rs` gives the order.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules in the order in which data flows; those on one line do not use each other, except downwards in the list.
const ORDER: [&str; 15] = [
    "error",
    "exact",
    "kind",
    "mapped",
    "quant",
    "gguf",
    "tensor",
    "kernels",
    "threads",
    "trace",
    "work",
    "model",
    "tokenizer",
    "sample",
    "decode",
];

fn rust_files(path: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// The module of the crate that a file belongs to.
fn module(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).expect("inside").components().next().expect("a name");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let position = |name: &str| ORDER.iter().position(|known| *known == name);
    for file in files {
        let user = module(&src, &file);
        if user == "lib" {
            continue;
        }
        let own = position(&user).unwrap_or_else(|| panic!("module '{user}' has no place in the order"));
        let text = fs::read_to_string(&file).expect("source");
        // Tests at the foot of a file may use more.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let text: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for used in text.split("crate::").skip(1) {
            let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if let Some(place) = position(&name) {
                assert!(place <= own, "{}: '{user}' uses '{name}', which comes after it", file.display());
            }
        }
    }
}
