//! Faulty readers of weights and files.

use super::{Fault, Plant};
use crate::runs::formats::{ENGINE, Reader};
use crate::runs::hostile::engine;
use assay_engine::Error;
use assay_engine::gguf::Gguf;
use assay_engine::gguf::hostile::corpus;
use assay_engine::kind::Kind;
use assay_engine::quant::{Format, Ternary};

const fn format(kind: Kind, what: &'static str, source: &'static str, reader: Reader) -> Fault {
    Fault { kind, what, source, plant: Plant::Format(reader) }
}

/// I2_S with codes in another place and other values; the other formats are right.
fn i2_s(
    format: Format,
    bytes: &[u8],
    rows: usize,
    cols: usize,
    value: fn(&[u8], usize) -> i8,
) -> Option<Ternary> {
    let right = format.decode_ternary(bytes, rows, cols)?;
    if format != Format::I2S {
        return Some(right);
    }
    Some(Ternary { values: (0..rows * cols).map(|e| value(bytes, e)).collect(), ..right })
}

const fn decode(decode: fn(Format, &[u8], usize, usize) -> Option<Ternary>) -> Reader {
    Reader { decode, ..ENGINE }
}

/// 2-bit code at a byte and a shift.
fn code(bytes: &[u8], at: usize, shift: usize) -> i8 {
    (bytes[at] >> shift & 3).cast_signed()
}

pub(super) const FAULTS: &[Fault] = &[
    format(
        Kind::WrongGroup,
        "a reader of 64 weights in 16 bytes",
        "microsoft/BitNet#470, #585",
        decode(|format, bytes, rows, cols| {
            i2_s(format, bytes, rows, cols, |w, e| code(w, e / 64 * 16 + e % 16, 6 - 2 * (e % 64 / 16)) - 1)
        }),
    ),
    format(
        Kind::SequentialDecode,
        "a reader of four neighbours a byte",
        "microsoft/BitNet#610; EffortlessMetrics/BitNet-rs",
        decode(|format, bytes, rows, cols| {
            i2_s(format, bytes, rows, cols, |w, e| code(w, e / 4, 2 * (e % 4)) - 1)
        }),
    ),
    format(
        Kind::MissingScale,
        "a reader that leaves the scale of the tensor at 1",
        "EffortlessMetrics/BitNet-rs, QK256",
        decode(|format, bytes, rows, cols| {
            let right = format.decode_ternary(bytes, rows, cols)?;
            Some(if format == Format::I2S { Ternary { scale: 1.0, ..right } } else { right })
        }),
    ),
    format(
        Kind::CodeMapWithoutZero,
        "a reader of codes as -2, -1, +1, +2",
        "EffortlessMetrics/BitNet-rs, QK256",
        decode(|format, bytes, rows, cols| {
            i2_s(format, bytes, rows, cols, |w, e| {
                [-2, -1, 1, 2][code(w, e / 128 * 32 + e % 32, 6 - 2 * (e % 128 / 32)) as usize]
            })
        }),
    ),
    Fault {
        kind: Kind::CodeMapWithoutZero,
        what: "a loader that takes code 3",
        source: "EffortlessMetrics/BitNet-rs, QK256",
        plant: Plant::File(|bytes| engine(bytes).filter(|said| !said.contains("code 3 at"))),
    },
    format(
        Kind::ScaleReadAsPadding,
        "I2_S is as long as its codes: what follows is alignment",
        "EffortlessMetrics/BitNet-rs loader",
        Reader {
            bytes: |format, rows, cols| {
                let right = format.bytes(rows, cols).ok()?;
                Some(if format == Format::I2S { rows * cols / 4 } else { right })
            },
            ..ENGINE
        },
    ),
    Fault {
        kind: Kind::ScaleReadAsPadding,
        what: "a loader that lets sizes be off by 128 bytes",
        source: "EffortlessMetrics/BitNet-rs loader",
        plant: Plant::File(within_128_bytes),
    },
    Fault {
        kind: Kind::Group128UnderGroup64,
        what: "a file with blocks of 128 under the id of blocks of 64",
        source: "ggml-org/llama.cpp#25824, #25707",
        plant: Plant::Refused(|| {
            let blocks =
                corpus().into_iter().find(|hostile| hostile.kind() == Some(Kind::Group128UnderGroup64));
            blocks.map_or(Vec::new(), |hostile| hostile.bytes)
        }),
    },
];

/// Takes what lies within 128 bytes of where it should.
fn within_128_bytes(bytes: &[u8]) -> Option<String> {
    let off = match Gguf::parse(bytes) {
        Err(Error::GgufGap { offset, expected, .. }) => offset.abs_diff(expected),
        Err(Error::GgufOverlap { end, offset, .. }) => end.abs_diff(offset),
        Err(Error::GgufTrailing { extra, .. }) => extra,
        _ => return engine(bytes),
    };
    if off <= 128 { None } else { engine(bytes) }
}
