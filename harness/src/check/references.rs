//! Live parity: the models that are part of the program, beside the oracle and, where it is installed, beside llama.cpp.

use super::{Context, Row};
use crate::files;
use crate::parity::Error;
use crate::parity::live::Plan;
use crate::parity::matrix::{Cell, Side, Verdict, cell, seeded_prompts, side};
use crate::plugins::peers;
use crate::receipts::record::{self, LiveContext};
use crate::receipts::types::Statement;
use crate::references::{Found, Kind, Reference, find};
use crate::runs::engine::Backend;
use crate::runs::thresholds::Asked;
use crate::runs::tiny::{self, Expected};
use assay_engine::gguf::Gguf;
use assay_engine::kernels;
use assay_engine::model::Model;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CPU backends of llama.cpp: the plainest, AVX2, and AVX-512.
const BACKENDS: [&str; 3] = ["llama.cpp:x64", "llama.cpp:haswell", "llama.cpp:icelake"];
/// Seeded prompts for each model, beside its own.
const PROMPTS: usize = 2;
/// Greedy steps after each prompt.
const STEPS: usize = 32;
/// Longest own prompt that is fed to references: the oracle is slow on purpose.
const PROMPT_MAX: usize = 64;
/// What llama.cpp's child says of a backend for another processor.
const NOT_HERE: &str = "does not run on this processor";
const TIMEOUT: Duration = Duration::from_secs(600);

/// A model of the program as a file, and its prompt.
struct Own {
    path: PathBuf,
    prompt: Vec<u32>,
}

/// One row for each reference; receipts of what was compared.
pub(super) fn live_parity(context: &mut Context<'_>) -> anyhow::Result<Vec<Statement>> {
    let folder = tempfile::tempdir()?;
    let models = own_models(context, folder.path())?;
    let asked = Asked::default();
    let backend = Backend { kernels: kernels::best(), threads: context.threads, batch: 0 };
    let plan = Plan {
        backend,
        reference_threads: context.threads,
        steps: STEPS,
        timeout: TIMEOUT,
        thresholds: &asked.values,
    };
    let assay = context.assay.clone();
    let mut statements = Vec::new();
    for (kind, names) in [(Kind::Program, &["oracle"][..]), (Kind::Llama, &BACKENDS[..])] {
        let mut references = Vec::new();
        for name in names {
            match find(name, None, &assay, &peers::folder(), false)? {
                Found::Here(reference) => references.push(reference),
                Found::Absent(why) => context.rows.push(Row::skipped(&what(name), &why)),
            }
        }
        if references.is_empty() {
            continue;
        }
        let mut sides = Vec::new();
        for own in &models {
            let folder = folder.path().join(own.path.file_stem().unwrap_or_default());
            std::fs::create_dir_all(&folder)?;
            let prompts = |_: &Gguf<'_>, model: &Model<'_>| Ok::<_, Error>(prompts(model, &own.prompt));
            sides.push(side(&own.path, (kind, None), &folder, &plan, prompts, context.progress)?);
        }
        for reference in &references {
            let row = beside(context, reference, &sides, &plan, &asked, &mut statements)?;
            context.rows.push(row);
        }
    }
    Ok(statements)
}

fn what(name: &str) -> String {
    format!("parity with {}", name.replace(':', " "))
}

/// The golden models and the trained one, as files.
fn own_models(context: &Context<'_>, folder: &Path) -> anyhow::Result<Vec<Own>> {
    let mut models = Vec::new();
    for entry in context.golden.index.models.values() {
        let path = folder.join(&entry.file);
        files::write(&path, context.golden.model(entry)?.bytes())?;
        models.push(Own { path, prompt: entry.prompt_token_ids.clone() });
    }
    let path = folder.join(tiny::model().name());
    files::write(&path, tiny::model().bytes())?;
    models.push(Own { path, prompt: Expected::committed()?.prompt_token_ids });
    Ok(models)
}

fn prompts(model: &Model<'_>, own: &[u32]) -> Vec<Vec<u32>> {
    let own = own[..own.len().min(PROMPT_MAX)].to_vec();
    [own].into_iter().chain(seeded_prompts(model.config.vocab, None, PROMPTS, 1)).collect()
}

/// All models beside one reference.
fn beside(
    context: &mut Context<'_>,
    reference: &Reference,
    sides: &[Side],
    plan: &Plan<'_>,
    asked: &Asked,
    statements: &mut Vec<Statement>,
) -> anyhow::Result<Row> {
    let what = what(&reference.name);
    let mut cells = Vec::new();
    for side in sides {
        let name = side.prepared.file.name();
        let mut say = |doing: &str| (context.progress)(&format!("{name}: {doing}"));
        let cell = cell(side, reference, plan, &mut say)?;
        match cell.verdict {
            // A backend for another processor. To refuse a model is a failure.
            Verdict::Refused if cell.why.as_deref().is_some_and(|why| why.contains(NOT_HERE)) => {
                return Ok(Row::skipped(&what, cell.why.as_deref().unwrap_or_default()));
            }
            Verdict::Held => statements.push(receipt(side, reference, &cell, asked)?),
            _ => {}
        }
        cells.push(cell);
    }
    let failed = cells.iter().find(|cell| cell.verdict != Verdict::Held);
    let result = match failed {
        Some(Cell { model, why, .. }) => Err(format!("{model}: {}", why.as_deref().unwrap_or("no reason"))),
        None => Ok(seen(&cells)),
    };
    let count = cells.iter().filter_map(|cell| Some(cell.live.as_ref()?.prompts.len() as u64)).sum();
    Ok(Row::of(&what, count, result))
}

/// The numbers over all models.
fn seen(cells: &[Cell]) -> String {
    let numbers = || cells.iter().filter_map(|cell| Some(cell.live.as_ref()?.numbers()));
    let identity = cells.iter().find_map(|cell| Some(&cell.live.as_ref()?.identity));
    let version =
        identity.map_or(String::new(), |identity| format!("{} {}", identity.name, identity.version));
    format!(
        "{version}, {} models: {} of {} greedy tokens equal before a tie, {} ties, {} mismatches; cosine ≥ {:.5}",
        cells.len(),
        numbers().map(|n| n.equal_steps).sum::<usize>(),
        numbers().map(|n| n.steps).sum::<usize>(),
        numbers().map(|n| n.ties).sum::<usize>(),
        numbers().map(|n| n.mismatches).sum::<usize>(),
        numbers().map(|n| n.cosine_min).fold(1.0, f64::min),
    )
}

/// The receipt of the prompt that came out worst.
fn receipt(side: &Side, reference: &Reference, cell: &Cell, asked: &Asked) -> anyhow::Result<Statement> {
    let live = cell.live.as_ref().expect("it held");
    let worst = live.worst().expect("it has prompts");
    let context = LiveContext::new(&side.prepared, asked, reference, &[])?;
    Ok(record::of_prompt(&context, (live, worst))?)
}
