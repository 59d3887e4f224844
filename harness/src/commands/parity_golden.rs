//! `assay parity --reference golden`: a model's logits against stored ones.

use super::{about, backend, open, receipts_can_be_written};
use crate::args;
use crate::output;
use assay_engine::model::Model;
use assay_harness::exit::Exit;
use assay_harness::receipts::{canonical, record};
use assay_harness::runs::Error as RunError;
use assay_harness::runs::golden::Golden;
use assay_harness::runs::parity::{Parity, against_golden};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The comparison, as JSON and as text.
#[derive(Serialize)]
pub(super) struct Output {
    model: String,
    reference: String,
    isa: &'static str,
    held: bool,
    failures: Vec<String>,
    exact: bool,
    logits_sha256: String,
    exact_v1_logits_sha256: String,
    positions: usize,
    cosine_min: f64,
    cosine_mean: f64,
    max_abs: f64,
    kl_mean: f64,
    kl_max: f64,
    top1_agree: usize,
    top10_agree: f64,
    greedy_steps: usize,
    greedy_equal: usize,
    receipt: Option<PathBuf>,
}

impl Output {
    fn of(name: &str, golden: &Golden, parity: &Parity, receipt: Option<PathBuf>) -> Output {
        let numbers = &parity.comparison;
        let reference = &golden.index.reference;
        Output {
            model: name.to_owned(),
            reference: format!("{} {} ({})", reference.name, reference.commit, reference.device),
            isa: parity.run.backend.kernels.isa.name(),
            held: parity.held(),
            failures: parity.failures(),
            exact: parity.exact(),
            logits_sha256: hex::encode(parity.run.outcome.logits_sha256),
            exact_v1_logits_sha256: parity.expected_sha256.clone(),
            positions: numbers.positions,
            cosine_min: numbers.cosine_min,
            cosine_mean: numbers.cosine_mean,
            max_abs: numbers.max_abs,
            kl_mean: numbers.kl_mean,
            kl_max: numbers.kl_max,
            top1_agree: numbers.top1_agree,
            top10_agree: numbers.top10_agree,
            greedy_steps: parity.reference_tokens.len(),
            greedy_equal: parity.equal_tokens(),
            receipt,
        }
    }

    fn plain(&self) -> String {
        let exact = if self.exact { "equal to exact-v1" } else { "NOT those of exact-v1" };
        let mut lines = vec![
            format!("model      {} on {}", self.model, self.isa),
            format!("reference  {}", self.reference),
            format!("digest     {exact}: {}", self.logits_sha256),
            format!(
                "cosine     min {:.9}, mean {:.9} over {} positions",
                self.cosine_min, self.cosine_mean, self.positions
            ),
            format!("max abs    {:.6}", self.max_abs),
            format!("KL         mean {:.3e}, max {:.3e} nats", self.kl_mean, self.kl_max),
            format!("top-1      {} of {} positions agree", self.top1_agree, self.positions),
            format!("top-10     {:.4} of the tokens agree", self.top10_agree),
            format!("greedy     {} of {} tokens equal", self.greedy_equal, self.greedy_steps),
        ];
        lines.extend(self.receipt.as_ref().map(|path| format!("receipt    {}", path.display())));
        lines.push(format!("verdict    {}", if self.held { "held" } else { "MISMATCH" }));
        lines.extend(self.failures.iter().map(|failure| format!("           {failure}")));
        lines.join("\n")
    }
}

pub(super) fn run(args: &args::Parity, path: &Path, golden: &Golden) -> anyhow::Result<Exit> {
    let backend = backend(&args.backend)?;
    let file = open(path)?;
    let entry = match golden.find(&file) {
        Ok((_, entry)) => entry,
        Err(changed @ RunError::ModelChanged { .. }) => {
            output::error(&changed.into());
            return Ok(Exit::Mismatch);
        }
        Err(error) => return Err(error.into()),
    };
    let gguf = about(path, file.gguf())?;
    let model = about(path, Model::load(&gguf, None))?;
    receipts_can_be_written(args.out.as_deref(), &file)?;
    let parity = against_golden(golden, entry, &model, backend)?;
    let receipt = match &args.out {
        Some(out) => {
            let facts = record::model_facts(&file, &gguf, &model)?;
            Some(canonical::write(out, &record::parity(file.name(), facts, golden, &parity)?)?)
        }
        None => None,
    };
    let output = Output::of(file.name(), golden, &parity, receipt);
    if args.json {
        output::json(&output)?
    } else {
        output::line(&output.plain())?
    }
    Ok(Exit::of(output.held))
}

/// Stored logits by their name on the command line; `None` if it is another reference.
pub(super) fn golden(name: &str) -> anyhow::Result<Option<Golden>> {
    match name.split_once(':') {
        Some(("golden", folder)) if !folder.is_empty() => Ok(Some(Golden::open(Path::new(folder))?)),
        Some(("golden", _)) => anyhow::bail!("golden: needs a folder with a models.json; or give golden"),
        None if name == "golden" => Ok(Some(Golden::embedded()?)),
        _ => Ok(None),
    }
}
