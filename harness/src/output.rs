//! What goes to stdout and stderr, in one place. A reader that closes the pipe early (`assay inspect M | head`) is no error.

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{self, Write};
use std::time::Duration;

/// Writes text and a line end to stdout. Control characters (names in files come from strangers) are made visible, so that
/// none reaches the terminal.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", printable(text)).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes a piece of text that goes on, to a terminal.
pub(crate) fn piece(text: &str) {
    let mut out = io::stdout().lock();
    drop(out.write_all(printable(text).as_bytes()).and_then(|()| out.flush()));
}

/// Says what is being done, on a terminal; nothing elsewhere.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new() -> Progress {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
        let bar = ProgressBar::new_spinner().with_style(style.expect("a template of known parts"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress(bar)
    }

    pub(crate) fn say(&self, doing: &str) {
        self.0.set_message(printable(doing));
    }

    pub(crate) fn clear(self) {
        self.0.finish_and_clear();
    }
}

/// Writes a value as JSON to stdout.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Writes a note to stderr. If stderr is gone there is nobody to tell.
pub(crate) fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{}", printable(text)));
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Control characters, and those that turn the direction of writing.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes an error to stderr as one line.
pub(crate) fn error(error: &anyhow::Error) {
    let text = format!("{error:#}").replace('\n', " ");
    note(&format!("error: {text}"));
}

/// A table in plain text: columns padded to their widest cell, numbers (columns named in `right`) to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.replace(is_hidden, "\u{fffd}")).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let pad = |(column, cell): (usize, &str)| {
        let gap = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
        if right.contains(&column) { gap + cell } else { cell.to_owned() + &gap }
    };
    let line = |cells: Vec<&str>| {
        cells.into_iter().enumerate().map(pad).collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let rule = widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>();
    let mut lines = vec![line(head.to_vec()), rule.join("  ")];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

/// Bytes with a unit: 1.27 MB.
pub(crate) fn bytes(n: usize) -> String {
    let n = n as f64;
    match n {
        n if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.2} MB", n / 1e6),
        n if n >= 1e3 => format!("{:.1} kB", n / 1e3),
        n => format!("{n} B"),
    }
}
