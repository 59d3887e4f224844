//! The injected faults: every one is killed, every published kind has one, and the page of field bugs lists them.

use assay_engine::kind::Kind;
use assay_harness::faults::{Fault, all, run_all};
use assay_variables::{UPDATE, skip_slow};
use std::fmt::Write as _;
use std::path::PathBuf;

const BEGIN: &str = "<!-- faults: written by ASSAY_UPDATE=1 cargo test -p assay-harness --test faults -->\n";
const END: &str = "<!-- end of faults -->\n";

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/field-bugs.md")
}

#[test]
fn every_fault_is_killed_by_its_name() {
    if skip_slow("every injected fault") {
        return;
    }
    let outcomes = run_all(&mut |_| ()).expect("golden data");
    let survivors: Vec<String> = outcomes.iter().filter(|o| !o.killed).map(|o| o.line()).collect();
    assert!(survivors.is_empty(), "{} survive:\n{}", survivors.len(), survivors.join("\n"));
}

#[test]
fn every_published_kind_has_a_fault_and_no_other_has() {
    for kind in Kind::ALL {
        let has = all().iter().any(|fault| fault.kind == *kind);
        // Setting the float control register is written for these processors only.
        let settable = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
        assert_eq!(has, kind.is_published() && (settable || *kind != Kind::FtzOn), "{}", kind.id());
    }
}

#[test]
fn the_page_lists_every_published_kind_in_order() {
    let page = std::fs::read_to_string(page()).expect("docs/field-bugs.md");
    let rows: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let published: Vec<&str> =
        Kind::ALL.iter().filter(|kind| kind.is_published()).map(|kind| kind.id()).collect();
    assert_eq!(&rows[..published.len()], &published[..], "the first table of docs/field-bugs.md");
}

#[test]
fn the_page_lists_every_fault() {
    let mut expected = String::from(
        "| fault of kind | what is planted | seen in | caught by |\n| --- | --- | --- | --- |\n",
    );
    for fault in all() {
        let Fault { kind, what, source, .. } = fault;
        writeln!(expected, "| `{}` | {what} | {source} | {} |", kind.id(), fault.check()).expect("a string");
    }
    let text = std::fs::read_to_string(page()).expect("docs/field-bugs.md");
    let (before, rest) = text.split_once(BEGIN).expect("the mark before the table");
    let (table, after) = rest.split_once(END).expect("the mark after the table");
    if UPDATE.read().expect("a flag") {
        std::fs::write(page(), format!("{before}{BEGIN}{expected}{END}{after}")).expect("written");
    } else {
        assert!(
            table == expected,
            "docs/field-bugs.md is stale: ASSAY_UPDATE=1 cargo test -p assay-harness --test faults"
        );
    }
}
