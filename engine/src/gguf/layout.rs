//! Sizes of tensors, and whether they fill the data section exactly.

use super::cursor::{Place, wide};
use super::{Dims, GgmlType, TensorInfo};
use crate::error::shown;
use crate::{Error, Result};

impl GgmlType {
    /// Bytes of a tensor of this type and shape: `rows * (cols / block) * block_bytes + tail_bytes`.
    ///
    /// `name` is for the message only.
    ///
    /// # Errors
    ///
    /// - [`Error::GgufRow`]: the row length is not a multiple of the type's block.
    /// - [`Error::GgufSize`]: the size does not fit this machine's addresses.
    pub fn data_bytes(self, name: &str, dims: &Dims) -> Result<usize> {
        let row = self.row();
        if !dims.cols().is_multiple_of(row.block) {
            let (tensor, kind) = (shown(name), row.name);
            return Err(Error::GgufRow { tensor, kind, cols: dims.cols(), block: row.block });
        }
        let blocks = dims.cols() / row.block * dims.rows();
        let bytes = blocks.checked_mul(row.block_bytes).and_then(|n| n.checked_add(row.tail_bytes));
        let fits = bytes.and_then(|n| usize::try_from(n).ok());
        fits.ok_or_else(|| Error::GgufSize { tensor: shown(name), dims: dims.to_string(), kind: row.name })
    }
}

/// Checks that the tensors, by rising offset, fill `data` without overlap or gap, up to alignment padding.
///
/// `start` is where the data are in the file, for messages.
pub(super) fn check(tensors: &[TensorInfo<'_>], alignment: u64, data: &[u8], start: u64) -> Result<()> {
    let mut sorted: Vec<&TensorInfo<'_>> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.offset);
    let mut previous = None;
    for (i, &tensor) in sorted.iter().enumerate() {
        let end = sorted.get(i + 1).map_or(wide(data.len()), |next| next.offset);
        own_blocks(tensor, end.saturating_sub(tensor.offset), alignment)?;
    }
    for &tensor in &sorted {
        follows(previous, tensor, alignment)?;
        inside(tensor, data, start)?;
        previous = Some(tensor);
    }
    nothing_after(previous, alignment, data, start)
}

/// Where `tensor` ends, and where the next one must start, from the start of the data.
fn ends(tensor: Option<&TensorInfo<'_>>, alignment: u64) -> (u64, u64) {
    let end = tensor.map_or(0, |t| t.offset.saturating_add(wide(t.bytes)));
    (end, end.checked_next_multiple_of(alignment).unwrap_or(u64::MAX))
}

/// `room`, from `tensor` to what follows, is not that of Q2_0 in blocks of 128 weights, as files of some forks have it
/// under the same type id (ggml-org/llama.cpp#25824).
fn own_blocks(tensor: &TensorInfo<'_>, room: u64, alignment: u64) -> Result<()> {
    if tensor.kind != GgmlType::Q2_0 {
        return Ok(());
    }
    let padded = |bytes: u64| bytes.checked_next_multiple_of(alignment);
    let other = (tensor.cols() / 128).checked_mul(tensor.rows()).and_then(|blocks| blocks.checked_mul(34));
    let other = other.and_then(padded).filter(|_| tensor.cols().is_multiple_of(128));
    if other.is_some() && padded(room) == other && other != padded(wide(tensor.bytes)) {
        return Err(Error::GgufGroups { tensor: shown(tensor.name), room });
    }
    Ok(())
}

/// `tensor` starts at the first aligned byte after `previous`. Its offset is aligned already.
fn follows(previous: Option<&TensorInfo<'_>>, tensor: &TensorInfo<'_>, alignment: u64) -> Result<()> {
    let (end, next) = ends(previous, alignment);
    let name =
        previous.map_or_else(|| "the start of the data".to_owned(), |t| format!("'{}'", shown(t.name)));
    if tensor.offset < end {
        return Err(Error::GgufOverlap {
            first: name,
            end,
            second: shown(tensor.name),
            offset: tensor.offset,
        });
    }
    if tensor.offset != next {
        let (tensor, offset) = (shown(tensor.name), tensor.offset);
        return Err(Error::GgufGap { tensor, offset, expected: next, after: name });
    }
    Ok(())
}

/// `tensor` ends inside the file.
fn inside(tensor: &TensorInfo<'_>, data: &[u8], start: u64) -> Result<()> {
    let (needed, left) = (wide(tensor.bytes), wide(data.len()).saturating_sub(tensor.offset));
    if needed <= left {
        return Ok(());
    }
    let place = Place { section: "tensor data", name: Some(tensor.name), index: None }.to_string();
    Err(Error::GgufTruncated { place, offset: start.saturating_add(tensor.offset), needed, left })
}

/// The file ends with the last tensor or with its padding.
fn nothing_after(last: Option<&TensorInfo<'_>>, alignment: u64, data: &[u8], start: u64) -> Result<()> {
    let (_, padded) = ends(last, alignment);
    match wide(data.len()).checked_sub(padded) {
        None | Some(0) => Ok(()),
        Some(extra) => Err(Error::GgufTrailing { offset: start.saturating_add(padded), extra }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_type_table() {
        let size = |kind: GgmlType, sizes: &[u64]| kind.data_bytes("w", &Dims::new(sizes).unwrap());
        assert_eq!(size(GgmlType::F32, &[3, 5]), Ok(60));
        assert_eq!(size(GgmlType::I2_S, &[2560, 6912]), Ok(2560 * 6912 / 4 + 32));
        assert_eq!(size(GgmlType::TQ2_0, &[512, 2, 2]), Ok(8 * 66));
        assert_eq!(size(GgmlType::Q2_0, &[64]), Ok(18));
        assert!(matches!(size(GgmlType::I2_S, &[64, 2]), Err(Error::GgufRow { cols: 64, block: 128, .. })));
        assert!(matches!(size(GgmlType::F64, &[1 << 62]), Err(Error::GgufSize { .. })));
    }
}
