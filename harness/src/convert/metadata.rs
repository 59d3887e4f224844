//! Metadata of the new file: everything unchanged, save what says how tensors are stored, and the architecture's name.

use super::plan::Plan;
use super::{Renamed, Request};
use assay_engine::gguf::{Gguf, OwnedArray, OwnedValue};
use assay_engine::quant::Format;
use assay_engine::tensor::{LAYOUT_KEY, layout_name, shape_key, type_of};

const FILE_TYPE: &str = "general.file_type";

/// The entries of the new file, in the order of the old one; new ones at the end.
pub(super) fn converted(
    gguf: &Gguf<'_>,
    plan: &Plan<'_>,
    request: Request,
    arch: Option<&Renamed>,
) -> Vec<(String, OwnedValue)> {
    let mut entries = Vec::new();
    for (key, value) in gguf.metadata() {
        match *key {
            LAYOUT_KEY => {}
            FILE_TYPE if plan.reencodes => {
                entries.extend(file_type(request.target).map(|id| (FILE_TYPE.to_owned(), id.into())));
            }
            key if key.starts_with(&shape_key("")) => {}
            key => entries.push((key.to_owned(), (*value).into())),
        }
    }
    let mut shapes = plan.parts.iter().filter_map(|part| Some((part, part.shape?))).peekable();
    if shapes.peek().is_some() && type_of(request.target).is_none() {
        entries.push((LAYOUT_KEY.to_owned(), layout_name(request.target).into()));
    }
    for (part, (rows, cols)) in shapes {
        entries.push((shape_key(&part.name), OwnedArray::of([cols as u64, rows as u64]).into()));
    }
    let Some(arch) = arch else { return entries };
    entries.into_iter().map(|(key, value)| arch.entry(key, value)).chain(arch.missing(gguf)).collect()
}

/// `llama_ftype` of a model with these weights: llama.cpp's numbers, and bitnet.cpp's for I2_S. `None` for formats
/// that neither has: the entry is left out then, since the old one would be wrong.
const fn file_type(target: Format) -> Option<u32> {
    match target {
        Format::F32 => Some(0),
        Format::F16 => Some(1),
        Format::Bf16 => Some(32),
        Format::Tq1_0 => Some(36),
        Format::Tq2_0 => Some(37),
        Format::I2S => Some(40),
        Format::Q2_0 => Some(41),
        _ => None,
    }
}
