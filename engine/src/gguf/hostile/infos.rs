//! Broken tensor infos.

use super::draft::{Draft, W, without_last};
use super::{Hostile, parse};
use crate::gguf::GgmlType;

const WHOLE: &str = "the file has all its bytes";
const NAME: &str = "tensor names have 1 to 64 bytes";
const DIMS: &str = "tensors have 1 to 4 dimensions";
const PRODUCT: &str = "sizes fit 64 bits";
const ROW: &str = "rows are whole blocks of the type";
const KNOWN: &str = "the tensor type is known";
const SUPPORTED: &str = "the tensor type has a known size";

/// Tensor infos, in the order of their fields.
pub(super) fn cases() -> Vec<Hostile> {
    [truncated(), names(), shapes(), kinds()].concat()
}

/// The last info has 8 + 4 bytes of name, 4 + 8 of dimensions, 4 of type and 8 of offset.
fn truncated() -> Vec<Hostile> {
    let without = |n| without_last(n, Draft::valid().head());
    vec![
        parse(
            "tensor name length cut",
            WHOLE,
            without(36 - 5),
            "GGUF tensor info 3 at byte 458: bytes needed 8, left 5; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "tensor name cut",
            WHOLE,
            without(36 - 10),
            "GGUF tensor info 3 at byte 466: bytes needed 4, left 2; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "dimension count cut",
            WHOLE,
            without(36 - 14),
            "GGUF tensor info 'tile' at byte 470: bytes needed 4, left 2; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "dimension cut",
            WHOLE,
            without(36 - 20),
            "GGUF tensor info 'tile' at byte 474: bytes needed 8, left 4; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "tensor type cut",
            WHOLE,
            without(36 - 25),
            "GGUF tensor info 'tile' at byte 482: bytes needed 4, left 1; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "tensor offset cut",
            WHOLE,
            without(36 - 29),
            "GGUF tensor info 'tile' at byte 486: bytes needed 8, left 1; \
             the file is cut short or damaged, fetch or convert it again",
        ),
    ]
}

fn names() -> Vec<Hostile> {
    let named = |name: &[u8]| Draft::with_info(W, |info| info.name = name.to_vec());
    vec![
        parse(
            "tensor name empty",
            NAME,
            named(b""),
            "GGUF tensor info 1 at byte 381: length 0, expected 1 to 64 bytes; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "tensor name of 65 bytes",
            NAME,
            named(&[b'n'; 65]),
            "GGUF tensor info 1 at byte 381: length 65, expected 1 to 64 bytes; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "tensor name not UTF-8",
            "keys, names and strings are UTF-8",
            named(b"w\x80"),
            "GGUF tensor info 1: not UTF-8 at byte 390; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "tensor name twice",
            "tensor names are unique",
            named(b"norm"),
            "GGUF tensor name 'norm' is there twice, as number 0 and 1 from 0; \
             the file is damaged or its converter is at fault",
        ),
    ]
}

fn shapes() -> Vec<Hostile> {
    let shaped = |dims: &[u64]| Draft::with_info(W, |info| info.shape(dims));
    let typed = |kind: GgmlType, dims: &[u64]| {
        Draft::with_info(W, |info| {
            info.shape(dims);
            info.kind = kind.id();
        })
    };
    vec![
        parse(
            "no dimensions",
            DIMS,
            shaped(&[]),
            "GGUF tensor info 'w' at byte 390: 0 dimensions, expected 1 to 4; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "five dimensions",
            DIMS,
            shaped(&[128, 2, 1, 1, 1]),
            "GGUF tensor info 'w' at byte 390: 5 dimensions, expected 1 to 4; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "2^32 - 1 dimensions",
            DIMS,
            Draft::with_info(W, |info| info.dim_count = u32::MAX),
            "GGUF tensor info 'w' at byte 390: 4294967295 dimensions, expected 1 to 4; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "first dimension 0",
            "dimensions are at least 1",
            shaped(&[0, 2]),
            "GGUF tensor info 'w' at byte 394: dimension 0 is 0, expected at least 1; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "second dimension 0",
            "dimensions are at least 1",
            shaped(&[128, 0]),
            "GGUF tensor info 'w' at byte 402: dimension 1 is 0, expected at least 1; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "2^64 elements",
            PRODUCT,
            shaped(&[1 << 32, 1 << 32]),
            "GGUF tensor info 'w': [4294967296, 4294967296] elements are more than 64 bits can count; \
             the file is damaged or hostile",
        ),
        parse(
            "product wraps to a small one",
            PRODUCT,
            shaped(&[1 << 62, 2, 2, 3]),
            "GGUF tensor info 'w': [4611686018427387904, 2, 2, 3] elements are more than 64 bits \
             can count; \
             the file is damaged or hostile",
        ),
        parse(
            "2^66 bytes",
            PRODUCT,
            typed(GgmlType::F32, &[1 << 62, 3]),
            "GGUF tensor info 'w': [4611686018427387904, 3] elements of type F32 take more bytes than \
             this machine can address; the file is damaged or hostile",
        ),
        parse(
            "I2_S row of 64",
            ROW,
            shaped(&[64, 4]),
            "GGUF tensor info 'w': rows of 64 elements, but type I2_S needs a multiple of 128; \
             convert this tensor to another type",
        ),
        parse(
            "TQ2_0 row of 128",
            ROW,
            typed(GgmlType::TQ2_0, &[128, 2]),
            "GGUF tensor info 'w': rows of 128 elements, but type TQ2_0 needs a multiple of 256; \
             convert this tensor to another type",
        ),
        parse(
            "Q8_0 row of 33",
            ROW,
            typed(GgmlType::Q8_0, &[33, 32]),
            "GGUF tensor info 'w': rows of 33 elements, but type Q8_0 needs a multiple of 32; \
             convert this tensor to another type",
        ),
    ]
}

fn kinds() -> Vec<Hostile> {
    let kind = |id| Draft::with_info(W, |info| info.kind = id);
    vec![
        parse(
            "tensor type 43",
            KNOWN,
            kind(43),
            "GGUF tensor info 'w' at byte 410: type 43 is not known here; \
             convert the model to I2_S or TQ2_0",
        ),
        parse(
            "tensor type 2^32 - 1",
            KNOWN,
            kind(u32::MAX),
            "GGUF tensor info 'w' at byte 410: type 4294967295 is not known here; \
             convert the model to I2_S or TQ2_0",
        ),
        parse(
            "tensor type Q4_2",
            SUPPORTED,
            kind(4),
            "GGUF tensor info 'w' at byte 410: type 4 (Q4_2) is not supported here; \
             ggml has removed it; \
             quantise the original model again",
        ),
        parse(
            "tensor type Q4_0_4_4",
            SUPPORTED,
            kind(31),
            "GGUF tensor info 'w' at byte 410: type 31 (Q4_0_4_4) is not supported here; \
             ggml has removed it; \
             quantise the original model again",
        ),
        parse(
            "tensor type TL1",
            SUPPORTED,
            kind(38),
            "GGUF tensor info 'w' at byte 410: type 38 (TL1) is not supported here; \
             convert the model to I2_S with bitnet.cpp or to TQ2_0 with llama.cpp",
        ),
        parse(
            "tensor type TL2",
            SUPPORTED,
            kind(39),
            "GGUF tensor info 'w' at byte 410: type 39 (TL2 of bitnet.cpp or MXFP4 of llama.cpp) is \
             not supported here; \
             convert the model to I2_S with bitnet.cpp or to TQ2_0 with llama.cpp",
        ),
        parse(
            "tensor type IQ2_BN",
            SUPPORTED,
            kind(135),
            "GGUF tensor info 'w' at byte 410: type 135 (IQ2_BN) is not supported here; \
             convert the model to I2_S or TQ2_0 with ik_llama.cpp's tools",
        ),
    ]
}
