//! `assay receipt ledger`.

use super::{read, under_its_name, unwrap};
use crate::args::LedgerCommand;
use crate::output;
use anyhow::Context as _;
use assay_harness::exit::Exit;
use assay_harness::files;
use assay_harness::receipts::ledger::{Entry, Ledger, Line, MAX_BYTES, append, origin};
use assay_harness::receipts::text::{FileName, Sha256Hex};
use assay_harness::receipts::types::Statement;
use assay_harness::receipts::verify::{Chain, Options, Verdict, verify};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) fn run(args: &LedgerCommand) -> anyhow::Result<Exit> {
    match args {
        LedgerCommand::Add { ledger, receipts, json } => add(ledger, receipts, *json),
        LedgerCommand::Verify { ledger, head, since, receipts, json } => {
            let held = Held {
                head: hex("--head", head)?,
                since: hex("--since", since)?,
                receipts: receipts.as_deref(),
            };
            hold(ledger, &held, *json)
        }
        LedgerCommand::Show { ledger, json } => show(ledger, *json),
    }
}

fn hex(flag: &'static str, text: &Option<String>) -> anyhow::Result<Option<Sha256Hex>> {
    text.as_deref().map(Sha256Hex::parse).transpose().context(flag)
}

/// Appends receipts one by one; one that is tampered with is said and left out.
fn add(ledger: &Path, receipts: &[PathBuf], json: bool) -> anyhow::Result<Exit> {
    let (mut lines, mut exits) = (Vec::new(), vec![Exit::Held]);
    for path in receipts {
        let report = verify(&read(path)?, &under_its_name(&Options::default(), path));
        let Some(statement) = report.statement.as_ref().filter(|_| report.verdict != Verdict::Tampered)
        else {
            let why = report.decided_by().map_or("it cannot be read", |rule| rule.message.as_str());
            output::note(&format!("not added: {}: {}: {why}", path.display(), report.verdict.name()));
            exits.push(report.verdict.exit());
            continue;
        };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let entry = Entry {
            receipt_id: report.receipt_id.clone(),
            claim_id: statement.predicate.claim_id.clone(),
            kind: statement.predicate.kind,
            file: FileName::parse(&name).context("a ledger cannot hold the file's name; rename it")?,
        };
        for line in append(ledger, &[entry])? {
            if !json {
                output::line(&format!("{}  {}  {}", line.index, line.receipt_id, path.display()))?;
            }
            lines.push(line);
        }
    }
    if json {
        output::json(&lines)?;
    }
    Ok(Exit::gravest(exits))
}

/// What a ledger is held to.
struct Held<'a> {
    head: Option<Sha256Hex>,
    since: Option<Sha256Hex>,
    receipts: Option<&'a Path>,
}

#[derive(Serialize)]
struct Verified {
    ledger: String,
    verdict: Verdict,
    lines: usize,
    head: Option<Sha256Hex>,
    problems: Vec<String>,
}

fn hold(path: &Path, held: &Held<'_>, json: bool) -> anyhow::Result<Exit> {
    let bytes = files::read(path, MAX_BYTES)?;
    let mut verified = Verified {
        ledger: path.display().to_string(),
        verdict: Verdict::Valid,
        lines: 0,
        head: None,
        problems: Vec::new(),
    };
    match Chain::read(&bytes, held.head.as_ref()) {
        Chain::Holds(ledger) => {
            verified.lines = ledger.lines.len();
            verified.problems.extend(held.since.as_ref().and_then(|since| never_had(&ledger, since)));
            if let Some(folder) = held.receipts {
                verified.problems.extend(against_folder(&ledger, folder)?);
            }
            verified.head = Some(ledger.head);
        }
        Chain::Broken(problem) => verified.problems.push(problem),
        Chain::NotAsked | Chain::Unreadable(_) => {}
    }
    if !verified.problems.is_empty() {
        verified.verdict = Verdict::Tampered;
    }
    if json {
        output::json(&verified)?;
    } else {
        let mut said = vec![format!("{}  {}", verified.verdict.name(), verified.ledger)];
        let head = verified.head.as_ref().map_or("unknown", Sha256Hex::as_str);
        said.push(format!("  {} lines; head {head}", verified.lines));
        said.extend(verified.problems.iter().map(|problem| format!("  BROKEN: {problem}")));
        output::line(&said.join("\n"))?;
    }
    Ok(verified.verdict.exit())
}

/// Where a ledger never had a head.
fn never_had(ledger: &Ledger, since: &Sha256Hex) -> Option<String> {
    let had = *since == origin()
        || ledger.head == *since
        || ledger.lines.iter().any(|line| line.previous == *since);
    (!had).then(|| format!("it never had the head {since}: lines are missing or were changed"))
}

/// Receipts of the folder that the ledger lacks or says otherwise of, and lines whose receipts the folder lacks. What is no receipt is said
/// and passed over: a receipt that was made one is missed by its line.
fn against_folder(ledger: &Ledger, folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut there = BTreeSet::new();
    let mut problems = Vec::new();
    for path in receipt_files(folder)? {
        let said = |problem: &str| format!("{}: {problem}", path.display());
        let inside = unwrap(read(&path)?).ok();
        let statement =
            inside.as_ref().and_then(|(payload, _)| serde_json::from_slice::<Statement>(payload).ok());
        let (Some((payload, _)), Some(statement)) = (inside, statement) else {
            output::note(&said("not a receipt: passed over"));
            continue;
        };
        let id = Sha256Hex::of(&payload);
        match ledger.find(&id) {
            None => problems.push(said("the ledger does not hold it")),
            Some(line)
                if (&line.claim_id, line.kind)
                    != (&statement.predicate.claim_id, statement.predicate.kind) =>
            {
                problems.push(said(&format!("line {} says another claim or kind", line.index + 1)));
            }
            Some(_) => {}
        }
        there.insert(id);
    }
    let missing = |line: &&Line| !there.contains(&line.receipt_id);
    let lines = ledger.lines.iter().filter(missing);
    problems.extend(lines.map(|line| format!("line {}: {} is not in the folder", line.index + 1, line.file)));
    Ok(problems)
}

/// Every file below a folder whose name ends in `.json`, sorted. Links are said and passed over.
fn receipt_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        if kind.is_dir() {
            found.extend(receipt_files(&path)?);
        } else if kind.is_file() && is_json {
            found.push(path);
        } else if is_json {
            output::note(&format!("{}: a link: passed over", path.display()));
        }
    }
    found.sort();
    Ok(found)
}

fn show(path: &Path, json: bool) -> anyhow::Result<Exit> {
    // One that is not there is an error here: there is nothing to show.
    files::read(path, 0)?;
    let ledger = Ledger::open(path)?;
    if json {
        output::json(&ledger.lines)?;
        return Ok(Exit::Held);
    }
    let row = |line: &Line| {
        vec![
            line.index.to_string(),
            line.appended.to_string(),
            line.kind.as_str().to_owned(),
            line.receipt_id.short().to_owned(),
            line.claim_id.short().to_owned(),
            line.file.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = ledger.lines.iter().map(row).collect();
    output::line(&output::table(&["line", "appended", "kind", "receipt", "claim", "file"], &rows, &[0]))?;
    output::line(&format!("head {}", ledger.head))?;
    Ok(Exit::Held)
}
