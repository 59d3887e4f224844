//! Operation by operation: where two implementations part. Each operation of the engine is also run on the reference's own input to it, so that an operation
//! that is wrong is told from those that were given wrong inputs.

use super::judge::Operations;
use super::live::{Plan, ask};
use super::sensitivity::other_f16;
use super::{Error, Result};
use crate::references::{Failure, Prepared, Reference, Rows, Sequence, tensors};
use crate::runs::compare::{nmse, ulp};
use crate::runs::thresholds::Thresholds;
use assay_engine::model::nodes::{apply, nodes, trace};
use assay_engine::model::{Model, Node, NodeKind};
use assay_engine::threads::Pool;
use serde::Serialize;
use std::borrow::Cow;

/// One operation of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// Its name: `blk.3.ffn_gated`.
    pub name: String,
    /// Its layer; those outside layers have none.
    pub layer: Option<usize>,
    /// What it computes: `ffn_gated`.
    pub operation: &'static str,
    /// The reference gave it.
    pub given: bool,
    /// Normalised mean squared error of the engine's own pass; what came before is in it.
    pub whole: Option<f64>,
    /// Of the operation alone, on the reference's own inputs; where it gave none, on what the engine makes of those that it gave.
    pub alone: Option<f64>,
    /// The largest that is allowed of it alone.
    pub allowed: f64,
    /// The operation alone is off by more than roundings are.
    pub wrong: bool,
    /// The element that is furthest off when the operation runs alone.
    pub worst: Option<Element>,
}

/// An element of a tensor, on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Element {
    /// The token's row.
    pub row: usize,
    /// The column.
    pub element: usize,
    /// The engine's value, on the reference's inputs.
    pub ours: f32,
    /// The reference's.
    pub theirs: f32,
    /// How many f32 lie between them, plus one.
    pub ulp: u64,
}

/// All operations of a model on one sequence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// In the order of the pass.
    pub cells: Vec<Cell>,
    /// Tokens of the sequence.
    pub tokens: usize,
    /// The reference's logits in this run, `(tokens, vocab)`.
    #[serde(skip)]
    pub logits: Vec<f32>,
}

impl Explanation {
    /// Whether the operations, one by one, agree.
    pub fn operations(&self, thresholds: &Thresholds) -> Operations {
        Operations {
            all: self.cells.len(),
            compared: self.cells.iter().filter(|cell| cell.alone.is_some()).count(),
            asked: (thresholds.operations_min * self.cells.len() as f64).ceil() as usize,
            wrong: self.cells.iter().filter(|cell| cell.wrong).map(|cell| cell.name.clone()).collect(),
        }
    }

    /// The first operation that is wrong on its own.
    pub fn first_wrong(&self) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.wrong)
    }

    /// The first operation whose output, in the engine's own pass, is not the reference's to within roundings.
    pub fn first_apart(&self) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.whole.is_some_and(|whole| whole > cell.allowed))
    }

    /// What is to be said in a sentence or two.
    pub fn sentence(&self) -> String {
        let alone = self.cells.iter().filter(|cell| cell.alone.is_some()).count();
        let tried = format!("{alone} of {} operations were compared", self.cells.len());
        match (self.first_wrong(), self.first_apart()) {
            (Some(cell), _) => {
                let at = cell.worst.map_or(String::new(), |Element { row, element, ours, theirs, ulp }| {
                    format!(
                        "; worst at row {row}, element {element}: ours {ours:e}, theirs {theirs:e}, {ulp} ulp"
                    )
                });
                let wrong: Vec<&str> =
                    self.cells.iter().filter(|cell| cell.wrong).map(|cell| &cell.name[..]).collect();
                format!(
                    "first wrong operation: {} (NMSE {:.3e} on the reference's own input, {:.0e} allowed){at}. {} wrong on their own: {}; {tried}",
                    cell.name,
                    cell.alone.unwrap_or_default(),
                    cell.allowed,
                    wrong.len(),
                    if wrong.len() > 8 {
                        format!("{}, …", wrong[..8].join(", "))
                    } else {
                        wrong.join(", ")
                    },
                )
            }
            (None, Some(cell)) => format!(
                "no operation is wrong on its own; outputs first part at {} (NMSE {:.3e}): roundings, amplified by what follows; {tried}",
                cell.name,
                cell.whole.unwrap_or_default()
            ),
            (None, None) => format!("no operation differs by more than roundings do; {tried}"),
        }
    }
}

/// Runs both sides on `tokens`, the reference with all tensors that it can give, and compares operation by operation.
///
/// # Errors
/// - the engine's, or [`Error::Reference`]: also if the reference gives no tensors at all.
pub fn explain(
    model: &Model<'_>,
    reference: &Reference,
    prepared: &Prepared,
    tokens: &[u32],
    plan: &Plan<'_>,
) -> Result<Explanation> {
    let wanted = tensors::of_model(&model.config);
    let sequence = Sequence { id: "explain".to_owned(), tokens: tokens.to_vec(), steps: 0, tensors: wanted };
    let given = ask(reference, prepared, plan, model.config.vocab, vec![sequence])?.sequences;
    let Some(rows) = given.into_iter().next().filter(|rows| !rows.tensors.is_empty()) else {
        let failure =
            Failure::Refused("it gives no intermediate tensors, so nothing can be explained".to_owned());
        return Err(Error::Reference { reference: reference.name.clone(), failure });
    };
    let pool = Pool::new(plan.backend.threads)?;
    let cells = pool.run(|| cells(model, &reference.name, plan, tokens, &rows))?;
    Ok(Explanation { cells, tokens: tokens.len(), logits: rows.logits })
}

fn cells(
    model: &Model<'_>,
    reference: &str,
    plan: &Plan<'_>,
    tokens: &[u32],
    rows: &Rows,
) -> Result<Vec<Cell>> {
    let kernels = plan.backend.kernels;
    let (nodes, ours) = (nodes(&model.config), trace(model, kernels, tokens)?);
    let theirs: Vec<Option<&[f32]>> = nodes
        .iter()
        .map(|node| match node.kind {
            NodeKind::Logits => Some(&rows.logits[..]),
            _ => rows.tensors.get(&node.name()).map(|values| &values[..]),
        })
        .collect();
    // What each operation is run on: the reference's tensors, and where it gives none what the engine makes of those that it gave.
    let mut chain: Vec<Cow<'_, [f32]>> = Vec::new();
    // What roundings may have done to each of them since the last that was given.
    let mut slack: Vec<f64> = Vec::new();
    let mut cells = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let mut cell = Cell {
            name: node.name(),
            layer: node.kind.in_layer().then_some(node.layer),
            operation: node.kind.name(),
            given: theirs[i].is_some(),
            whole: None,
            alone: None,
            allowed: node
                .inputs
                .iter()
                .map(|&input| slack[input])
                .fold(allowed(node, plan.thresholds), f64::max),
            wrong: false,
            worst: None,
        };
        if let Some(given) = theirs[i].filter(|given| given.len() != ours[i].len()) {
            let problem = format!("{} has {} values, expected {}", node.name(), given.len(), ours[i].len());
            return Err(Error::Reference {
                reference: reference.to_owned(),
                failure: Failure::Garbage(problem),
            });
        }
        let inputs: Vec<&[f32]> = node.inputs.iter().map(|&input| &*chain[input]).collect();
        let alone = match apply(model, kernels, (&nodes, i), tokens, &inputs) {
            // Values of theirs that no f16 holds, or whose squares overflow: nothing of ours can be as far off.
            Err(assay_engine::Error::Arithmetic { .. }) => vec![f32::MAX; ours[i].len()],
            alone => alone?,
        };
        let Some(theirs) = theirs[i] else {
            chain.push(Cow::Owned(alone));
            slack.push(cell.allowed);
            cells.push(cell);
            continue;
        };
        cell.whole = Some(nmse(&ours[i], theirs).min(f64::MAX));
        cell.alone = Some(nmse(&alone, theirs).min(f64::MAX));
        cell.worst = worst(&alone, theirs, node.width(&model.config));
        if node.kind == NodeKind::Attention
            && let Some(kernels) = other_f16(kernels)
            && let Ok(moved) = apply(model, kernels, (&nodes, i), tokens, &inputs)
        {
            // Sharp attention amplifies the rounding of keys: what that does here is allowed, to those who do not round at all.
            let factor = plan.thresholds.tie_factor;
            cell.allowed = cell.allowed.max(factor * factor * nmse(&moved, &alone));
        }
        cell.wrong = cell.alone.is_some_and(|alone| alone > cell.allowed);
        chain.push(Cow::Borrowed(theirs));
        slack.push(0.0);
        cells.push(cell);
    }
    Ok(cells)
}

/// What roundings may do to an operation alone.
fn allowed(node: &Node, thresholds: &Thresholds) -> f64 {
    match node.kind {
        NodeKind::Q
        | NodeKind::K
        | NodeKind::V
        | NodeKind::AttnOutput
        | NodeKind::FfnUp
        | NodeKind::FfnGate
        | NodeKind::FfnDown
        | NodeKind::Logits => thresholds.nmse_product,
        NodeKind::Attention => thresholds.nmse_attention,
        _ => thresholds.nmse_exact,
    }
}

/// The element with the largest difference, if any differs.
fn worst(ours: &[f32], theirs: &[f32], width: usize) -> Option<Element> {
    let off = |i: usize| (f64::from(ours[i]) - f64::from(theirs[i])).abs();
    let at = (0..ours.len()).max_by(|&a, &b| off(a).total_cmp(&off(b)))?;
    (off(at) > 0.0).then(|| Element {
        row: at / width,
        element: at % width,
        ours: ours[at],
        theirs: theirs[at],
        ulp: ulp(ours[at], theirs[at]),
    })
}
