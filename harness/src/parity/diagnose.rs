//! The known mistakes that explain what a reference computed.

use super::Result;
use crate::runs::engine::Backend;
use crate::runs::hypotheses::{self, Hypothesis};
use crate::runs::thresholds::Thresholds;
use assay_engine::kind::Kind;
use assay_engine::model::Model;
use serde::Serialize;

/// Bytes of weights above which misread weights, kept as f32, are not tried.
const MISREAD_MAX: usize = 1 << 28;

/// What known mistakes say of a reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// Smallest cosine of a row of the reference and the correct engine's.
    pub correct: f64,
    /// The mistakes that explain the reference, the best first; mistakes that explain it much worse than the best are left out.
    pub suspects: Vec<Suspect>,
    /// How many were tried.
    pub tried: usize,
    /// Why some were not; `None` if all were that change anything.
    pub not_tried: Option<String>,
}

/// A mistake that explains a reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suspect {
    /// Its id.
    pub id: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// Smallest cosine of a row of the reference and the mistaken engine's.
    pub cosine: f64,
    #[serde(skip)]
    kind: Kind,
}

impl Suspect {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl Diagnosis {
    /// Ids of the suspects, the best first.
    pub fn ids(&self) -> Vec<&'static str> {
        self.suspects.iter().map(|suspect| suspect.id).collect()
    }

    /// In a sentence: "behaves like `silu-for-relu2` (cosine 0.99998; correct engine 0.81), microsoft/BitNet#588".
    pub fn sentence(&self) -> String {
        let Some(Suspect { id, what, source, cosine, .. }) = self.suspects.first() else {
            return format!(
                "none of {} known mistakes explains it (correct engine: cosine {:.5})",
                self.tried, self.correct
            );
        };
        format!(
            "behaves like `{id}` (cosine {cosine:.5}; correct engine {:.5}): {what}, {source}",
            self.correct
        )
    }
}

/// Tries every known mistake on `tokens`, and names those whose logits are nearer to `theirs`, `(tokens, vocab)`, than the correct engine's: see
/// [`Thresholds::explains`].
///
/// # Errors
/// - the correct engine's. A mistaken engine that comes to no end explains nothing.
pub fn diagnose(
    model: &Model<'_>,
    backend: Backend,
    tokens: &[u32],
    theirs: &[f32],
    thresholds: &Thresholds,
    progress: &mut dyn FnMut(&str),
) -> Result<Diagnosis> {
    let correct = hypotheses::cosine(model, backend, tokens, theirs)?.unwrap_or(-1.0);
    let large = model.bytes_per_token() > MISREAD_MAX;
    let (mut suspects, mut tried, mut left_out) = (Vec::new(), 0, 0);
    for hypothesis in hypotheses::ALL {
        if large && hypothesis.misreads_weights() {
            left_out += 1;
            continue;
        }
        progress(&format!("is it {}?", hypothesis.kind.id()));
        let Some(cosine) = hypothesis.cosine(model, backend, tokens, theirs) else { continue };
        tried += 1;
        let Some(cosine) = cosine else { continue };
        let Hypothesis { kind, what, source, .. } = *hypothesis;
        suspects.push(Suspect { id: kind.id(), what, source, cosine, kind });
    }
    // Where the correct engine is as near as numbers can tell, nothing is left to explain.
    let left = 1.0 - correct;
    suspects.retain(|suspect| left > 1e-6 && 1.0 - suspect.cosine <= thresholds.explains * left);
    suspects.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
    if let Some(best) = suspects.first().map(|best| 1.0 - best.cosine) {
        suspects.retain(|suspect| {
            1.0 - suspect.cosine <= (best / thresholds.explains.max(f64::EPSILON)).max(1e-6)
        });
    }
    let why = |n| format!("{n} misreadings of weights: the model is larger than {MISREAD_MAX} bytes");
    Ok(Diagnosis { correct, suspects, tried, not_tried: (left_out > 0).then(|| why(left_out)) })
}
