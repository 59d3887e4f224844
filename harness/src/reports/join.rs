//! Baseline and candidate, joined on what was claimed.

use super::Result;
use super::load::{Loaded, Run};
use polars::prelude::{
    DataFrame, DataFrameJoinOps as _, JoinArgs, JoinCoalesce, JoinType, SortMultipleOptions, df,
};
use serde::Serialize;
use std::fmt;

/// What the comparison of one claim says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Both held, with the same digest.
    Same,
    /// The digests differ, or the baseline's status was *failed*.
    Changed,
    /// The candidate's own status is *failed*.
    Failed,
    /// Only the baseline has it.
    Missing,
    /// Only the candidate has it.
    New,
}

impl Verdict {
    /// Whether a gate lets it pass.
    pub fn passes(self) -> bool {
        matches!(self, Verdict::Same | Verdict::New)
    }

    fn of(baseline: Option<&Run>, candidate: Option<&Run>) -> Verdict {
        match (baseline, candidate) {
            (_, Some(candidate)) if !candidate.held => Verdict::Failed,
            (Some(baseline), Some(candidate)) if baseline.held && baseline.digest == candidate.digest => {
                Verdict::Same
            }
            (Some(_), Some(_)) => Verdict::Changed,
            (Some(_), None) => Verdict::Missing,
            (None, _) => Verdict::New,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Same => "same",
            Verdict::Changed => "CHANGED",
            Verdict::Failed => "FAILED",
            Verdict::Missing => "MISSING",
            Verdict::New => "new",
        })
    }
}

/// One claim on both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was asked.
    pub claim: String,
    /// What the comparison says.
    pub verdict: Verdict,
    /// Instruction set of the baseline.
    pub baseline_isa: Option<String>,
    /// Instruction set of the candidate.
    pub candidate_isa: Option<String>,
    /// Digest of the baseline.
    pub baseline_digest: Option<String>,
    /// Digest of the candidate.
    pub candidate_digest: Option<String>,
    /// Candidate's decoded tokens per second over the baseline's.
    pub decode_speed_ratio: Option<f64>,
}

/// All claims, sorted, and what was refused.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// A row per claim.
    pub rows: Vec<Row>,
    /// Receipts that did not count, one line each.
    pub refused: Vec<String>,
    /// The same rows as a table, for CSV.
    #[serde(skip)]
    pub frame: DataFrame,
}

impl Report {
    /// Every claim passes and nothing was refused.
    pub fn held(&self) -> bool {
        self.refused.is_empty() && self.rows.iter().all(|row| row.verdict.passes())
    }
}

/// Joins the two sides on their claims, in the order of the claims.
///
/// # Errors
/// - polars refuses the table; it is built here, so that is a defect.
pub fn compare(baseline: &Loaded, candidate: &Loaded) -> Result<Report> {
    let how = JoinArgs::new(JoinType::Full).with_coalesce(JoinCoalesce::CoalesceColumns);
    let joined =
        side(baseline, "baseline")?.join(&side(candidate, "candidate")?, ["key"], ["key"], how, None)?;
    let joined = joined.sort(["key"], SortMultipleOptions::default())?;
    let keys = joined.column("key")?.str()?;
    let rows = keys.iter().flatten().map(|key| row(key, baseline, candidate)).collect::<Vec<_>>();
    let frame = finish(joined, &rows)?;
    let prefix = |side: &str, refused: &[String]| {
        refused.iter().map(|line| format!("{side}: {line}")).collect::<Vec<_>>()
    };
    let refused = [prefix("baseline", &baseline.refused), prefix("candidate", &candidate.refused)].concat();
    Ok(Report { rows, refused, frame })
}

fn side(loaded: &Loaded, name: &str) -> Result<DataFrame> {
    let runs = || loaded.runs.values();
    Ok(df!(
        "key" => runs().map(|run| run.key.as_str()).collect::<Vec<_>>(),
        format!("{name}_isa") => runs().map(|run| run.isa.as_str()).collect::<Vec<_>>(),
        format!("{name}_held") => runs().map(|run| run.held).collect::<Vec<_>>(),
        format!("{name}_digest") => runs().map(|run| run.digest.as_str()).collect::<Vec<_>>(),
        format!("{name}_decode_tokens_per_second") =>
            runs().map(|run| run.decode_tokens_per_second).collect::<Vec<_>>(),
    )?)
}

fn row(key: &str, baseline: &Loaded, candidate: &Loaded) -> Row {
    let (baseline, candidate) = (baseline.runs.get(key), candidate.runs.get(key));
    let rate = |run: Option<&Run>| run.and_then(|run| run.decode_tokens_per_second);
    let ratio = |(b, c): (f64, f64)| c / b;
    Row {
        claim: candidate.or(baseline).map_or_else(String::new, |run| run.label.clone()),
        verdict: Verdict::of(baseline, candidate),
        baseline_isa: baseline.map(|run| run.isa.clone()),
        candidate_isa: candidate.map(|run| run.isa.clone()),
        baseline_digest: baseline.map(|run| run.digest.clone()),
        candidate_digest: candidate.map(|run| run.digest.clone()),
        decode_speed_ratio: rate(baseline).zip(rate(candidate)).map(ratio),
    }
}

/// Adds the verdict and the ratio to the joined table.
fn finish(mut joined: DataFrame, rows: &[Row]) -> Result<DataFrame> {
    let more = df!(
        "claim" => rows.iter().map(|row| row.claim.as_str()).collect::<Vec<_>>(),
        "verdict" => rows.iter().map(|row| row.verdict.to_string()).collect::<Vec<_>>(),
        "decode_speed_ratio" => rows.iter().map(|row| row.decode_speed_ratio).collect::<Vec<_>>(),
    )?;
    joined.hstack_mut(more.columns())?;
    Ok(joined)
}
