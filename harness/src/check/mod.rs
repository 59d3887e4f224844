//! The main job: everything that Assay holds, run on data that are part of the program.
//!
//! ```text
//! stages.rs   kernels, formats, fixtures, models, parity: each gives a row
//! references.rs  live parity: the oracle, and llama.cpp where it is installed
//! evidence.rs receipts of what ran, written, verified, attacked; the report over them
//! ```

mod evidence;
#[cfg(unix)]
mod references;
mod stages;

use crate::files;
use crate::runs::golden::Golden;
use assay_engine::kernels::{self, Isa, Kernels};
use assay_engine::threads::Pool;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// How one part of the check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All of it held.
    Held,
    /// Something did not.
    Failed,
    /// It could not run here; the detail says why.
    Skipped,
}

/// One line of the table at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was checked.
    pub what: String,
    /// How many things.
    pub count: u64,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen; for a failure, the first thing that failed.
    pub detail: String,
}

impl Row {
    fn skipped(what: &str, why: &str) -> Row {
        Row { what: what.to_owned(), count: 0, verdict: Verdict::Skipped, detail: why.to_owned() }
    }

    /// `Held` with `detail`, or `Failed` with what went wrong.
    fn of(what: &str, count: u64, result: Result<String, String>) -> Row {
        let (verdict, detail) = match result {
            Ok(detail) => (Verdict::Held, detail),
            Err(problem) => (Verdict::Failed, problem),
        };
        Row { what: what.to_owned(), count, verdict, detail }
    }
}

/// What was found, and where the evidence lies.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// The table.
    pub rows: Vec<Row>,
    /// Folder of the receipts.
    pub receipts: PathBuf,
    /// The report's files; empty in a build without reports.
    pub reports: Vec<PathBuf>,
}

/// Why a row was skipped that no setting and no installation could have run here.
const NOT_ON_THIS_PROCESSOR: &str = "not on this processor";

impl Findings {
    /// Everything ran that this processor can run.
    pub fn complete(&self) -> bool {
        let elsewhere = |row: &Row| row.detail.contains(NOT_ON_THIS_PROCESSOR);
        self.rows.iter().all(|row| row.verdict != Verdict::Skipped || elsewhere(row))
    }

    /// Nothing failed, and something ran.
    pub fn held(&self) -> bool {
        let ran = self.rows.iter().any(|row| row.verdict == Verdict::Held);
        ran && self.rows.iter().all(|row| row.verdict != Verdict::Failed)
    }
}

/// What the stages share.
struct Context<'p> {
    golden: Golden,
    tables: Vec<&'static Kernels>,
    threads: usize,
    skip_slow: bool,
    /// This program, whose children references are.
    assay: PathBuf,
    progress: &'p mut dyn FnMut(&str),
    rows: Vec<Row>,
}

impl Context<'_> {
    /// Runs a stage. What it could not do is a failed row, and the stages after it go on.
    fn stage<T: Default>(&mut self, what: &str, stage: fn(&mut Self) -> anyhow::Result<T>) -> T {
        stage(self).unwrap_or_else(|error| {
            self.rows.push(Row::of(what, 0, Err(format!("{error:#}"))));
            T::default()
        })
    }

    /// A stage that takes much of the time, and can be left out.
    fn slow_stage<T: Default>(&mut self, what: &str, stage: fn(&mut Self) -> anyhow::Result<T>) -> T {
        if self.skip_slow {
            self.rows.push(Row::skipped(what, "left out: ASSAY_SKIP_SLOW is set"));
            return T::default();
        }
        self.stage(what, stage)
    }

    fn say(&mut self, what: &str) {
        (self.progress)(what);
    }
}

/// Runs everything, but for live parity and the self-test where slow stages are skipped. Receipts and the report go under `out`; `assay` is the
/// program whose children references are; `progress` is told what is being done.
///
/// # Errors
/// - `threads` is 0 or too large, files cannot be written, or the program's own data cannot be read. What does not hold is a row, not an error.
pub fn check(
    out: &Path,
    threads: usize,
    skip_slow: bool,
    assay: &Path,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Findings> {
    files::output_folder(out)?;
    Pool::new(threads)?;
    let mut context = Context {
        golden: Golden::embedded()?,
        tables: kernels::available(),
        threads,
        skip_slow,
        assay: assay.to_owned(),
        progress,
        rows: Vec::new(),
    };
    context.stage("float environment", stages::float_environment);
    context.stage("hostile GGUF files", stages::hostile_files);
    context.stage("golden formats", stages::golden_formats);
    let kernels = context.stage("kernels", stages::kernels);
    let fixtures = context.stage("seeded fixtures", stages::fixtures);
    let parities = context.stage("golden models", stages::golden_models);
    context.stage("digest matrix", stages::invariance);
    context.stage("trained model", stages::trained_model);
    #[cfg(unix)]
    let live = context.slow_stage("live parity", references::live_parity);
    #[cfg(not(unix))]
    let live = Vec::new();
    context.slow_stage("self-test", stages::self_test);
    let (receipts, reports) = evidence::gather(&mut context, out, (&kernels, &fixtures, &parities), &live)?;
    Ok(Findings { rows: context.rows, receipts, reports })
}

/// Instruction sets that have no table here.
fn absent(tables: &[&Kernels]) -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| tables.iter().all(|table| table.isa != *isa))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_stage_that_is_left_out_is_a_row_that_says_why() {
        let mut context = Context {
            golden: Golden::embedded().expect("golden data"),
            tables: Vec::new(),
            threads: 1,
            skip_slow: true,
            assay: PathBuf::new(),
            progress: &mut |_| (),
            rows: Vec::new(),
        };
        context.slow_stage::<()>("a stage", |_| panic!("it ran"));
        assert_eq!(context.rows, [Row::skipped("a stage", "left out: ASSAY_SKIP_SLOW is set")]);
        context.skip_slow = false;
        assert_eq!(context.slow_stage("a stage", |_| Ok(7)), 7);
    }
}
