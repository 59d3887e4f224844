//! Modules use only what stands to their left: `fixtures → runs → convert → plugins → peers → references → parity → bench → receipts → reports`, then `check`.

use std::fs;
use std::path::{Path, PathBuf};

const ORDER: [&str; 15] = [
    "exit",
    "files",
    "chat",
    "fixtures",
    "runs",
    "convert",
    "plugins",
    "peers",
    "references",
    "parity",
    "bench",
    "receipts",
    "reports",
    "faults",
    "check",
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

#[test]
fn modules_use_only_what_stands_to_their_left() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (own, user) in ORDER.iter().enumerate() {
        let mut files = Vec::new();
        match src.join(user) {
            folder if folder.is_dir() => rust_files(&folder, &mut files),
            folder => files.push(folder.with_extension("rs")),
        }
        for file in files {
            let text = fs::read_to_string(&file).expect("source");
            for later in &ORDER[own + 1..] {
                assert!(!text.contains(&format!("crate::{later}")), "{}: uses '{later}'", file.display());
            }
        }
    }
}
