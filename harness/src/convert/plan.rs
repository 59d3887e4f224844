//! What becomes of every tensor.

use super::Request;
use super::decoded::{Decoded, scale_name};
use assay_engine::gguf::{GgmlType, Gguf, TensorInfo};
use assay_engine::quant::{Format, Ternary};
use assay_engine::tensor::{Matrix, type_of};
use assay_engine::{Error, Result};
use std::borrow::Cow;

/// Architectures whose readers know `.scale` tensors beside linear layers: llama.cpp's of `bitnet` since it has that graph, and
/// since v0.5.0 of every architecture.
const WITH_SCALE_TENSORS: [&str; 2] = ["bitnet", "llama"];
/// The tensors that `--head-type` is about.
const HEADS: [&str; 2] = ["token_embd.weight", "output.weight"];

/// One tensor of the new file.
pub(super) struct Part<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) dims: Vec<u64>,
    pub(super) kind: GgmlType,
    pub(super) data: Cow<'a, [u8]>,
    /// Rows and columns, for one that travels as I8 bytes.
    pub(super) shape: Option<(usize, usize)>,
    /// The scale of ternary weights that became dense.
    pub(super) dense_scale: Option<f32>,
    /// The bytes are those of the old file.
    pub(super) copied: bool,
    /// A `.scale` tensor that is new, or has a new value.
    pub(super) added: bool,
    /// The scale went to a `.scale` tensor.
    pub(super) scale_moved: bool,
}

/// The tensors of the new file, in the order of the old one; a new `.scale` tensor follows its weight.
pub(super) struct Plan<'a> {
    pub(super) parts: Vec<Part<'a>>,
    /// Whether any ternary tensor is in the target format afterwards.
    pub(super) reencodes: bool,
}

impl<'a> Plan<'a> {
    /// Reads, validates and encodes every tensor.
    pub(super) fn new(gguf: &Gguf<'a>, request: Request) -> Result<Plan<'a>> {
        let mut plan = Plan { parts: Vec::new(), reencodes: false };
        let mut scales: Vec<(String, f32)> = Vec::new();
        for tensor in gguf.tensors() {
            let matrix = Matrix::of(gguf, tensor)?;
            matrix.validate()?;
            if matrix.format.info().ternary {
                plan.reencodes = true;
                scales.extend(plan.ternary(gguf, request, tensor, &matrix)?);
                continue;
            }
            let head = request.head.filter(|head| HEADS.contains(&tensor.name) && *head != matrix.format);
            plan.parts.push(match head {
                Some(head) => dense(tensor, &matrix, head)?,
                None => copied(tensor, &matrix),
            });
        }
        for (name, scale) in scales {
            plan.set_scale(name, scale);
        }
        Ok(plan)
    }

    /// Adds a ternary tensor; returns the name and value of the `.scale` tensor that it needs now.
    fn ternary(
        &mut self,
        gguf: &Gguf<'a>,
        request: Request,
        tensor: &TensorInfo<'a>,
        matrix: &Matrix<'a>,
    ) -> Result<Option<(String, f32)>> {
        let whole = |format: &Format| format.bytes(matrix.rows, matrix.cols).is_ok();
        let fallback = request.fallback.filter(|fallback| !whole(&request.target) && whole(fallback));
        let request = Request { target: fallback.unwrap_or(request.target), ..request };
        let target = request.target;
        let kind = type_of(target).unwrap_or(GgmlType::I8);
        if matrix.format == target && tensor.kind == kind {
            self.parts.push(copied(tensor, matrix));
            return Ok(None);
        }
        // Before the scale is looked at: rows that are no whole blocks have no way out.
        target.bytes(matrix.rows, matrix.cols).map_err(|e| e.in_tensor(tensor.name))?;
        let decoded = Decoded::of(gguf, matrix, None)?.ok_or_else(|| {
            refusal(
                tensor.name,
                "its blocks differ in scale or hold +2, so it has no values with one scale to convert",
            )
        })?;
        let (ternary, extra) = split(gguf, tensor.name, decoded, request)?;
        let data = target.encode_ternary(tensor.name, &ternary)?;
        let dims = match kind {
            GgmlType::I8 => vec![data.len() as u64],
            _ if tensor.kind == GgmlType::I8 => vec![matrix.cols as u64, matrix.rows as u64],
            _ => tensor.dims.as_slice().to_vec(),
        };
        self.parts.push(Part {
            dims,
            kind,
            shape: (kind == GgmlType::I8).then_some((matrix.rows, matrix.cols)),
            data: data.into(),
            dense_scale: (!target.info().ternary).then_some(ternary.scale),
            copied: false,
            scale_moved: extra.is_some(),
            ..copied(tensor, matrix)
        });
        Ok(extra)
    }

    /// Gives the `.scale` tensor `name` a value, in its place or, if it is new, after its weight.
    fn set_scale(&mut self, name: String, scale: f32) {
        let data = Cow::Owned(scale.to_le_bytes().to_vec());
        if let Some(part) = self.parts.iter_mut().find(|part| part.name == name) {
            *part = Part { data, kind: GgmlType::F32, copied: false, added: true, ..unnamed(name) };
            return;
        }
        let weight = self.parts.iter().position(|part| scale_name(&part.name).as_ref() == Some(&name));
        let part = Part { data, added: true, ..unnamed(name) };
        self.parts.insert(weight.map_or(self.parts.len(), |at| at + 1), part);
    }
}

fn unnamed(name: String) -> Part<'static> {
    Part {
        name: name.into(),
        dims: vec![1],
        kind: GgmlType::F32,
        data: Cow::Borrowed(&[]),
        shape: None,
        dense_scale: None,
        copied: false,
        added: false,
        scale_moved: false,
    }
}

fn copied<'a>(tensor: &TensorInfo<'a>, matrix: &Matrix<'a>) -> Part<'a> {
    Part {
        name: tensor.name.into(),
        dims: tensor.dims.as_slice().to_vec(),
        kind: tensor.kind,
        data: matrix.bytes.into(),
        shape: (tensor.kind == GgmlType::I8).then_some((matrix.rows, matrix.cols)),
        dense_scale: None,
        copied: true,
        added: false,
        scale_moved: false,
    }
}

fn dense<'a>(tensor: &TensorInfo<'a>, matrix: &Matrix<'a>, format: Format) -> Result<Part<'a>> {
    let floats = matrix.dense().unwrap_or_default();
    let data = format.encode_dense(tensor.name, &floats, matrix.rows, matrix.cols)?;
    let kind = type_of(format).unwrap_or(tensor.kind);
    Ok(Part { kind, data: data.into(), copied: false, ..copied(tensor, matrix) })
}

/// The matrix as the target can hold it, and the `.scale` tensor that takes the scale if it cannot.
fn split(
    gguf: &Gguf<'_>,
    name: &str,
    decoded: Decoded,
    request: Request,
) -> Result<(Ternary, Option<(String, f32)>)> {
    let (scale, target) = (decoded.ternary.scale, request.target);
    if target.holds_scale(scale) {
        return Ok((decoded.ternary, None));
    }
    let architecture = match request.arch {
        Some(arch) => arch,
        None => gguf.opt_str("general.architecture")?.unwrap_or("none"),
    };
    let scale_tensor = scale_name(name).filter(|_| WITH_SCALE_TENSORS.contains(&architecture));
    let Some(scale_tensor) = scale_tensor else {
        let problem = format!(
            "{} cannot hold the scale {scale} exactly, and architecture '{architecture}' has no '.scale' tensors to take it; \
             convert to i2_s, qk256 or t5, which keep any f32 scale",
            target.name()
        );
        return Err(refusal(name, &problem));
    };
    let product = decoded.one_scale().ok_or_else(|| {
        let problem = format!(
            "{} cannot hold the scale {scale} exactly, and its product with '{scale_tensor}' is no f32; convert to i2_s, \
             qk256 or t5, which keep any f32 scale",
            target.name()
        );
        refusal(name, &problem)
    })?;
    Ok((Ternary { scale: 1.0, ..decoded.ternary }, Some((scale_tensor, product))))
}

fn refusal(tensor: &str, problem: &str) -> Error {
    Error::Weights { tensor: tensor.to_owned(), problem: problem.to_owned() }
}
