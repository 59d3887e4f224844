//! `assay parity --matrix`: models × references × prompts, receipts and one table.

use super::parity_live::{asked, plan, prompts};
use super::reference;
use crate::args;
use crate::output;
use assay_engine::gguf::Gguf;
use assay_engine::model::Model;
use assay_harness::exit::Exit;
use assay_harness::files;
use assay_harness::fixtures;
use assay_harness::parity::diagnose::Diagnosis;
use assay_harness::parity::live::Plan;
use assay_harness::parity::matrix::{Cell, Numbers, Side, Verdict, cell, side};
use assay_harness::receipts::canonical;
use assay_harness::receipts::record::{self, LiveContext};
use assay_harness::references::{Kind, Reference};
use assay_harness::runs::golden::Golden;
use assay_harness::runs::thresholds::Asked;
use assay_harness::runs::tiny;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Output {
    steps: usize,
    seed: u64,
    verdict: &'static str,
    cells: Vec<Row>,
    /// References that are not here, and what to do.
    absent: Vec<String>,
    table: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    model: String,
    reference: String,
    verdict: Verdict,
    #[serde(flatten)]
    numbers: Option<Numbers>,
    why: Option<String>,
    explained_by: Vec<&'static str>,
    receipt: Option<PathBuf>,
}

pub(super) fn run(args: &args::Parity) -> anyhow::Result<Exit> {
    let seed = args.seed()?;
    let asked = asked(args)?;
    let plan = plan(args, &asked)?;
    if let Some(out) = &args.out {
        files::output_folder(out)?;
    }
    let (mut references, mut absent) = (Vec::new(), Vec::new());
    for name in &args.reference {
        match reference::find(name, args.abi.as_deref(), args.unmodified)? {
            Some(reference) => references.push(reference),
            None => absent.push(name.clone()),
        }
    }
    let folder = tempfile::tempdir()?;
    let models = if args.models.is_empty() { own_models(folder.path())? } else { args.models.clone() };
    let progress = output::Progress::new();
    let mut cells = Vec::new();
    let mut run = || -> anyhow::Result<()> {
        for model in &models {
            let mut say = |doing: &str| progress.say(&format!("{}: {doing}", model.display()));
            cells.extend(row(args, model, &references, &plan, &asked, &mut say)?);
        }
        Ok(())
    };
    let done = run();
    progress.clear();
    done?;
    let outcome = outcome(&cells, !absent.is_empty(), args.allow_explained);
    let mut output = Output {
        steps: args.steps,
        seed,
        verdict: match outcome {
            Exit::Held => "held",
            Exit::Mismatch => "MISMATCH",
            _ => "inconclusive: a reference is not here, or nothing could be compared",
        },
        cells,
        absent,
        table: None,
    };
    if let Some(out) = &args.out {
        let path = out.join("parity-matrix.json");
        output.table = Some(path.clone());
        files::write(&path, &serde_json::to_vec_pretty(&output)?)?;
    }
    if args.json {
        output::json(&output)?
    } else {
        output::line(&output.plain())?
    }
    Ok(outcome)
}

/// Parity that does not hold anywhere decides; then whether anything was compared, with all that was asked for.
fn outcome(cells: &[Row], absent: bool, allow_explained: bool) -> Exit {
    let bad = |row: &Row| match row.verdict {
        Verdict::Mismatch | Verdict::Finding => true,
        Verdict::Explained => !allow_explained,
        Verdict::Held | Verdict::Refused => false,
    };
    let compared = cells.iter().any(|row| row.numbers.is_some());
    match (cells.iter().any(bad), compared && !absent) {
        (true, _) => Exit::Mismatch,
        (false, true) => Exit::Held,
        (false, false) => Exit::Inconclusive,
    }
}

/// The models that are part of the program, as files: seeded ones, those with golden logits, the trained one.
fn own_models(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mut add = |name: String, bytes: &[u8]| -> anyhow::Result<()> {
        let path = folder.join(name);
        files::write(&path, bytes)?;
        paths.push(path);
        Ok(())
    };
    for fixture in fixtures::all().iter().filter(|fixture| fixture.model().is_some()) {
        add(format!("seeded-{}", fixture.file_name()), &fixtures::generate(fixture)?)?;
    }
    let golden = Golden::embedded()?;
    for entry in golden.index.models.values() {
        add(format!("golden-{}", entry.file), golden.model(entry)?.bytes())?;
    }
    add("trained-tiny.gguf".to_owned(), tiny::model().bytes())?;
    Ok(paths)
}

/// All references on one model.
fn row(
    args: &args::Parity,
    path: &Path,
    references: &[Reference],
    plan: &Plan<'_>,
    asked: &Asked,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for kind in [Kind::Program, Kind::Llama] {
        let of_kind: Vec<&Reference> = references.iter().filter(|reference| reference.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let activation = args.activation.map(Into::into);
        let prompts = |gguf: &Gguf<'_>, model: &Model<'_>| prompts(args, gguf, model);
        let side = match side(path, (kind, activation), folder.path(), plan, prompts, say) {
            Ok(side) => side,
            // The engine, or no form of it that the reference could read: said for each, and the other models go on.
            Err(error) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                rows.extend(of_kind.iter().map(|reference| Row {
                    model: name.clone(),
                    reference: reference.name.clone(),
                    verdict: Verdict::Refused,
                    numbers: None,
                    why: Some(format!("{error:#}")),
                    explained_by: Vec::new(),
                    receipt: None,
                }));
                continue;
            }
        };
        for reference in of_kind {
            let cell = cell(&side, reference, plan, say)?;
            rows.push(written(args, &side, reference, cell, asked)?);
        }
    }
    Ok(rows)
}

/// A line of the table; a receipt of the prompt that came out worst.
fn written(
    args: &args::Parity,
    side: &Side,
    reference: &Reference,
    cell: Cell,
    asked: &Asked,
) -> anyhow::Result<Row> {
    let explained_by = cell.diagnosis.as_ref().map_or_else(Vec::new, Diagnosis::ids);
    let mut receipt = None;
    if let (Some(out), Some(live)) = (&args.out, &cell.live)
        && let Some(worst) = live.worst()
    {
        let context = LiveContext::new(&side.prepared, asked, reference, &explained_by)?;
        let statement = record::of_prompt(&context, (live, worst))?;
        receipt = Some(canonical::write(out, &statement)?);
    }
    Ok(Row {
        numbers: cell.live.as_ref().map(|live| live.numbers()),
        model: cell.model,
        reference: cell.reference,
        verdict: cell.verdict,
        why: cell.why,
        explained_by,
        receipt,
    })
}

impl Output {
    fn plain(&self) -> String {
        let cells = |row: &Row| {
            let number =
                |value: fn(&Numbers) -> String| row.numbers.as_ref().map_or_else(|| "-".to_owned(), value);
            vec![
                row.model.clone(),
                row.reference.clone(),
                row.verdict.name().to_owned(),
                number(|n| format!("{}/{}", n.prompts_held, n.prompts)),
                number(|n| format!("{}/{}", n.equal_steps, n.steps)),
                number(|n| n.ties.to_string()),
                number(|n| n.mismatches.to_string()),
                number(|n| format!("{:.7}", n.cosine_min)),
                number(|n| format!("{:.7}", n.sensitivity)),
            ]
        };
        let head = [
            "model",
            "reference",
            "verdict",
            "prompts",
            "tokens",
            "ties",
            "mismatches",
            "cosine ≥",
            "own cosine ≥",
        ];
        let rows: Vec<Vec<String>> = self.cells.iter().map(cells).collect();
        let mut lines = vec![output::table(&head, &rows, &[3, 4, 5, 6, 7, 8]), String::new()];
        let mut said: Vec<String> = Vec::new();
        for row in &self.cells {
            if let Some(why) = &row.why {
                said.push(format!("{} beside {}: {}: {why}", row.model, row.reference, row.verdict.name()));
            }
        }
        lines.extend(said);
        lines.extend(self.table.as_ref().map(|path| format!("table    {}", path.display())));
        lines.extend(self.absent.iter().map(|name| format!("absent   {name}")));
        lines.push(format!("verdict  {}", self.verdict));
        lines.join("\n")
    }
}
