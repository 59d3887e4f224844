//! Tensor data that do not fit the tensor infos.

use super::draft::{Draft, HALF, NORM, TILE, W};
use super::{Hostile, parse};
use crate::gguf::GgmlType;

const WHOLE: &str = "the file has all its bytes";
const ALIGNED: &str = "offsets are multiples of the alignment";
pub(super) const OVERLAP: &str = "tensors share no bytes";
pub(super) const GAP: &str = "between tensors there is only alignment padding";
pub(super) const BLOCKS: &str = "the blocks of a type have one size";
pub(super) const TRAILING: &str = "after the last tensor there is only alignment padding";

/// Data, in the order of the file.
pub(super) fn cases() -> Vec<Hostile> {
    [cut_data(), offsets(), sizes()].concat()
}

fn cut_data() -> Vec<Hostile> {
    let valid = Draft::valid();
    let (head, whole) = (valid.head(), valid.bytes());
    let data = whole.len() - valid.data.len();
    vec![
        parse(
            "padding missing",
            WHOLE,
            head.clone(),
            "GGUF alignment padding at byte 494: bytes needed 18, left 0; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "padding cut",
            WHOLE,
            whole[..data - 1].to_vec(),
            "GGUF alignment padding at byte 494: bytes needed 18, left 17; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "no data",
            WHOLE,
            whole[..data].to_vec(),
            "GGUF tensor data 'norm' at byte 512: bytes needed 128, left 0; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "first tensor cut",
            WHOLE,
            whole[..data + 127].to_vec(),
            "GGUF tensor data 'norm' at byte 512: bytes needed 128, left 127; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "I2_S cut in its scale",
            WHOLE,
            whole[..data + 128 + 66].to_vec(),
            "GGUF tensor data 'w' at byte 640: bytes needed 96, left 66; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "last tensor cut",
            WHOLE,
            whole[..data + 256 + 65].to_vec(),
            "GGUF tensor data 'tile' at byte 768: bytes needed 68, left 65; \
             the file is cut short or damaged, fetch or convert it again",
        ),
    ]
}

fn offsets() -> Vec<Hostile> {
    let offset = |index, offset| Draft::with_info(index, |info| info.offset = offset);
    vec![
        parse(
            "offset between alignments",
            ALIGNED,
            offset(W, 132),
            "GGUF tensor info 'w': data offset 132 is not a multiple of the alignment 32; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "offset 2^64 - 1",
            ALIGNED,
            offset(W, u64::MAX),
            "GGUF tensor info 'w': data offset 18446744073709551615 is not a multiple of the alignment 32; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "offset 2^64 - 32",
            GAP,
            offset(TILE, u64::MAX - 31),
            "GGUF tensor data 'tile' starts at data offset 18446744073709551584, expected 256, \
             right after 'half': a type or shape is wrong, or bytes are hidden; \
             convert the model again",
        ),
        parse(
            "two tensors at one offset",
            OVERLAP,
            offset(W, 0),
            "GGUF tensor data 'w' starts at data offset 0, but 'norm' ends at 128: they overlap; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "tensor inside another",
            OVERLAP,
            offset(HALF, 160),
            "GGUF tensor data 'half' starts at data offset 160, but 'w' ends at 224: they overlap; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "first tensor late",
            GAP,
            Draft::with(|draft| {
                draft.infos.iter_mut().for_each(|info| info.offset += 32);
                draft.data.splice(..0, [0; 32]);
            }),
            "GGUF tensor data 'norm' starts at data offset 32, expected 0, right after the start of \
             the data: a type or shape is wrong, or bytes are hidden; convert the model again",
        ),
        parse(
            "gap between tensors",
            GAP,
            Draft::with(|draft| {
                draft.infos[TILE].offset += 32;
                draft.data.splice(256..256, [0; 32]);
            }),
            "GGUF tensor data 'tile' starts at data offset 288, expected 256, right after 'half': a \
             type or shape is wrong, or bytes are hidden; \
             convert the model again",
        ),
        parse(
            "bytes after the last tensor",
            TRAILING,
            Draft::with(|draft| draft.data.push(0)),
            "GGUF tensor data end at byte 864, bytes after that 1: a type or shape is wrong, or \
             bytes are hidden; \
             convert the model again",
        ),
        parse(
            "bytes after the last tensor of none",
            TRAILING,
            Draft::with(|draft| {
                draft.infos.clear();
                draft.tensor_count = 0;
            }),
            "GGUF tensor data end at byte 352, bytes after that 352: a type or shape is wrong, or \
             bytes are hidden; \
             convert the model again",
        ),
    ]
}

/// Types and shapes that ask for more or less room than there is.
fn sizes() -> Vec<Hostile> {
    vec![
        parse(
            "Q2_0 in blocks of 128",
            BLOCKS,
            Draft::with(|draft| {
                draft.infos[W].kind = GgmlType::Q2_0.id();
                draft.infos[W].shape(&[128, 16]);
                draft.infos[HALF].offset = 128 + 544;
                draft.infos[TILE].offset = 128 + 544 + 32;
                draft.data.splice(128..224, [0x55; 544]);
            }),
            "GGUF tensor data 'w': 544 bytes of Q2_0 are blocks of 128 weights in 34 bytes, but this type has 64 \
             in 18 (group-128-file-under-group-64-id); quantise the original model again with a current llama.cpp",
        ),
        parse(
            "one row too many",
            OVERLAP,
            Draft::with_info(W, |info| info.dims[1] += 1),
            "GGUF tensor data 'half' starts at data offset 224, but 'w' ends at 256: they overlap; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "one row too few",
            GAP,
            Draft::with_info(W, |info| info.dims[1] -= 1),
            "GGUF tensor data 'half' starts at data offset 224, expected 192, right after 'w': a type \
             or shape is wrong, or bytes are hidden; convert the model again",
        ),
        parse(
            "type twice as wide",
            OVERLAP,
            Draft::with_info(NORM, |info| info.kind = GgmlType::F64.id()),
            "GGUF tensor data 'w' starts at data offset 128, but 'norm' ends at 256: they overlap; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "type half as wide",
            GAP,
            Draft::with_info(NORM, |info| info.kind = GgmlType::F16.id()),
            "GGUF tensor data 'w' starts at data offset 128, expected 64, right after 'norm': a type \
             or shape is wrong, or bytes are hidden; convert the model again",
        ),
        parse(
            "I2_S without its 32 bytes of scale",
            OVERLAP,
            Draft::with(|draft| {
                draft.infos[HALF].offset -= 32;
                draft.infos[TILE].offset -= 32;
                draft.data.drain(192..224);
            }),
            "GGUF tensor data 'half' starts at data offset 192, but 'w' ends at 224: they overlap; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "last tensor past the end",
            WHOLE,
            Draft::with_info(TILE, |info| info.shape(&[97])),
            "GGUF tensor data 'tile' at byte 768: bytes needed 97, left 96; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "last tensor 2^60 bytes past the end",
            WHOLE,
            Draft::with_info(TILE, |info| info.shape(&[1 << 60])),
            "GGUF tensor data 'tile' at byte 768: bytes needed 1152921504606846976, left 96; \
             the file is cut short or damaged, fetch or convert it again",
        ),
    ]
}
