//! Markdown and CSV.

use super::Result;
use super::join::{Report, Row};
use crate::files;
use polars::prelude::{CsvWriter, SerWriter as _};
use std::path::{Path, PathBuf};

/// Writes `report.md` and `report.csv` into `folder` and returns their paths.
///
/// # Errors
/// - the folder cannot be written.
pub fn write(folder: &Path, report: &Report) -> Result<[PathBuf; 2]> {
    let mut csv = Vec::new();
    CsvWriter::new(&mut csv).finish(&mut report.frame.clone())?;
    let paths = [folder.join("report.md"), folder.join("report.csv")];
    files::output_folder(folder)?;
    for path in &paths {
        files::output_file(path, &[])?; // both before either is written
    }
    for (path, bytes) in paths.iter().zip([markdown(report).as_bytes(), &csv]) {
        files::write(path, bytes)?;
    }
    Ok(paths)
}

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let count = report.rows.iter().filter(|row| row.verdict.passes()).count();
    let verdict = if report.held() { "held" } else { "MISMATCH" };
    let mut text = format!(
        "# Receipts compared\n\n**{verdict}**: {count} of {} claims pass, {} receipts refused.\n\n",
        report.rows.len(),
        report.refused.len()
    );
    text += "| verdict | claim | baseline | candidate | digest | decode speed, candidate / baseline |\n";
    text += "| --- | --- | --- | --- | --- | ---: |\n";
    for row in &report.rows {
        text += &line(row);
    }
    if !report.refused.is_empty() {
        text += "\n## Refused\n\n";
        for line in &report.refused {
            text += &format!("- {}\n", escape(line));
        }
    }
    text += "\nA digest is the first 12 digits of the SHA-256 of all logits (of all outputs, for kernels). *same*: equal bits. \
             Speeds are medians within each receipt; machines are shared, so a ratio across runs is an indication only.\n";
    text
}

fn line(row: &Row) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let short = |value: &Option<String>| {
        value.as_deref().map_or("-", |digest| &digest[..12.min(digest.len())]).to_owned()
    };
    let (baseline, candidate) = (short(&row.baseline_digest), short(&row.candidate_digest));
    let digest = if baseline == candidate { baseline } else { format!("{baseline} → {candidate}") };
    let ratio = row.decode_speed_ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let (from, to) = (text(&row.baseline_isa), text(&row.candidate_isa));
    format!("| {} | {} | {from} | {to} | {digest} | {ratio} |\n", row.verdict, escape(&row.claim))
}

/// Names come from receipts of strangers: nothing in them may become markup.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '|' | '<' | '>' | '`' | '[' | ']' | '*' | '_' | '\\' => format!("\\{c}"),
            c if c.is_control() => " ".to_owned(),
            c => c.to_string(),
        })
        .collect()
}
