//! The ledger as several programs use it, some of which are killed.

use crate::made_up;
use assay_harness::receipts::ledger::{Entry, Ledger, append};
use assay_harness::receipts::text::{FileName, Sha256Hex};
use assay_harness::receipts::verify::{Chain, Options, Verdict, verify};
use assay_harness::receipts::{canonical, types::Kind};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn entry(n: u32) -> Entry {
    Entry {
        receipt_id: Sha256Hex::of(&n.to_le_bytes()),
        claim_id: Sha256Hex::of(b"claim"),
        kind: Kind::ModelRun,
        file: FileName::parse(&format!("{n}.json")).unwrap(),
    }
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.jsonl");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope
                .spawn(move || (0..25).for_each(|n| drop(append(path, &[entry(100 * writer + n)]).unwrap())));
        }
    });
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(ledger.lines.len(), 100);
    let all = (0..4).flat_map(|writer| (0..25).map(move |n| entry(100 * writer + n)));
    assert!(all.into_iter().all(|entry| ledger.find(&entry.receipt_id).is_some()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the ledger and its lock");
}

#[test]
fn a_receipt_is_held_to_a_ledger_and_its_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.jsonl");
    let statement = made_up::model_run();
    let bytes = canonical::to_bytes(&statement).unwrap();
    let own = Entry {
        receipt_id: Sha256Hex::of(&bytes),
        claim_id: statement.predicate.claim_id.clone(),
        kind: statement.predicate.kind,
        file: FileName::parse("own.json").unwrap(),
    };
    append(&path, &[entry(1), own, entry(2)]).unwrap();
    let ledger = std::fs::read(&path).unwrap();
    let head = Ledger::parse(&ledger).unwrap().head;
    let verdict = |ledger: &[u8], head: Option<&Sha256Hex>| {
        let options = Options { chain: Chain::read(ledger, head), ..made_up::options(&statement) };
        verify(&bytes, &options).verdict
    };
    assert_eq!(verdict(&ledger, Some(&head)), Verdict::Valid);
    // Its last line is gone, at the line's end: only the head tells.
    let cut = ledger[..ledger.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    assert_eq!(verdict(&ledger[..cut], None), Verdict::Valid);
    assert_eq!(verdict(&ledger[..cut], Some(&head)), Verdict::Tampered);
    assert_eq!(verdict(b"", None), Verdict::Inconclusive);
}

/// What the test below starts: a program that does nothing but append, until it is killed. It is told on standard input where, and from which
/// entry on.
#[test]
#[ignore = "a program that the test of killed writers starts"]
fn a_writer_until_it_is_killed() {
    let mut told = String::new();
    std::io::stdin().read_to_string(&mut told).unwrap();
    let Some((path, first)) = told.split_once('\n') else { return };
    let first: u32 = first.trim().parse().unwrap();
    for n in first..first + ENTRIES {
        append(Path::new(path), &[entry(n)]).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{SAID}{n}").and_then(|()| out.flush()).unwrap();
    }
}

/// What stands before the number of an entry that is on disk.
const SAID: &str = "on disk: ";
/// Entries of one writer: more than it comes to before it is killed.
const ENTRIES: u32 = 10_000;

fn writer(path: &Path, first: u32) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "ledgers::a_writer_until_it_is_killed", "--ignored", "--nocapture"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let told = format!("{}\n{first}", path.display());
    child.stdin.take().unwrap().write_all(told.as_bytes()).unwrap();
    child
}

/// Entries that a killed writer had said were on disk: whole lines only.
fn acknowledged(mut child: Child) -> Vec<u32> {
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    let lines = said.split_inclusive('\n').filter_map(|line| line.strip_prefix(SAID)?.strip_suffix('\n'));
    lines.map(|number| number.parse().unwrap()).collect()
}

#[cfg(unix)]
#[test]
fn writers_killed_200_times_lose_nothing_and_tear_nothing() {
    const KILLS: u32 = 200;
    if assay_variables::skip_slow("writers of a ledger that are killed") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.jsonl");
    let (mut there, mut seed, mut working) = (BTreeSet::new(), 1u64, 0);
    // Two at a time, so that one dies while the other waits for the lock, or holds it.
    for round in 0..KILLS / 2 {
        let writers = [2 * round, 2 * round + 1].map(|n| writer(&path, n * ENTRIES));
        let mut killed = Vec::new();
        for mut child in writers {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_micros(5_000 + (seed >> 33) % 60_000));
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            child.kill().unwrap();
            killed.push(child);
        }
        for child in killed {
            let said = acknowledged(child);
            working += u32::from(!said.is_empty());
            there.extend(said);
        }
        let ledger = Ledger::open(&path).unwrap_or_else(|error| panic!("after {round} rounds: {error}"));
        for n in &there {
            assert!(ledger.find(&entry(*n).receipt_id).is_some(), "entry {n} was lost after {round} rounds");
        }
    }
    // The next writer, unharmed, finds nothing in its way and leaves nothing behind.
    append(&path, &[entry(u32::MAX)]).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the ledger and its lock");
    let lines = Ledger::open(&path).unwrap().lines.len();
    assert!(working > KILLS / 4, "only {working} of {KILLS} had written anything");
    // Each may have had a line on disk that it did not come to say.
    assert!(
        (there.len()..=there.len() + 1 + KILLS as usize).contains(&lines),
        "{lines} lines of {}",
        there.len()
    );
}
