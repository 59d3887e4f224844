//! Files whose directory is in order and whose weights are not.

use super::draft::{Draft, layout, shape_of_tile};
use super::{Hostile, Stage};
use crate::gguf::GgmlType;

pub(super) const TERNARY: &str = "ternary codes are 0, 1 and 2";
const SCALE: &str = "scales are finite";
const FINITE: &str = "weights are finite";

/// Where the tensors start in the data of the valid file.
const NORM: usize = 0;
const W: usize = 128;
const HALF: usize = 224;
const TILE: usize = 256;

/// Weights that are no numbers.
pub(super) fn cases() -> Vec<Hostile> {
    [i2_s(), qk256(), bitnet32(), t5(), blocks(), floats()].concat()
}

fn payload(name: &'static str, rule: &'static str, at: usize, bytes: &[u8], error: &'static str) -> Hostile {
    let bytes = Draft::with(|draft| draft.data[at..at + bytes.len()].copy_from_slice(bytes));
    Hostile { name, rule, bytes, error, stage: Stage::Payload }
}

/// Element `j` of a block of 128 is in byte `j % 32`, at bit `6 - 2 * (j / 32)`; a row of `w` is one block.
fn i2_s() -> Vec<Hostile> {
    let scale = |name, value: f32, error| payload(name, SCALE, W + 64, &value.to_le_bytes(), error);
    vec![
        payload(
            "I2_S code 3 in the first element",
            TERNARY,
            W,
            &[0b11_00_10_01],
            "tensor 'w': code 3 at row 0, column 0 is not ternary; \
             the file is damaged or packed in another layout",
        ),
        payload(
            "I2_S code 3 in the last element",
            TERNARY,
            W + 63,
            &[0b01_00_10_11],
            "tensor 'w': code 3 at row 1, column 127 is not ternary; \
             the file is damaged or packed in another layout",
        ),
        scale("I2_S scale NaN", f32::NAN, "tensor 'w': the tensor scale is NaN; the file is damaged"),
        scale(
            "I2_S scale infinite",
            f32::INFINITY,
            "tensor 'w': the tensor scale is inf; the file is damaged",
        ),
        scale(
            "I2_S scale negative infinite",
            f32::NEG_INFINITY,
            "tensor 'w': the tensor scale is -inf; the file is damaged",
        ),
    ]
}

/// `tile` is a QK256 row: two I2_S blocks, the second with columns 128 to 199 and then padding.
fn qk256() -> Vec<Hostile> {
    vec![
        payload(
            "QK256 code 3",
            TERNARY,
            TILE + 33,
            &[0b01_11_01_01],
            "tensor 'tile': code 3 at row 0, column 161 is not ternary; \
             the file is damaged or packed in another layout",
        ),
        payload(
            "QK256 padding not zero",
            "the padding of a row is zero weights",
            TILE + 40,
            &[0b01_01_10_01],
            "tensor 'tile': row 0: padding at column 200 is not code 1 (zero); write the file again",
        ),
        payload(
            "QK256 scale NaN",
            SCALE,
            TILE + 64,
            &f32::NAN.to_le_bytes(),
            "tensor 'tile': the tensor scale is NaN; the file is damaged",
        ),
    ]
}

/// `tile` as two blocks of BitNet32-F16, the second with an infinite f16 scale.
fn bitnet32() -> Vec<Hostile> {
    let bytes = Draft::with(|draft| {
        draft.entries[5] = layout(b"bitnet32-f16");
        draft.entries[6] = shape_of_tile(64);
        draft.infos[3].shape(&[20]);
        draft.data.truncate(TILE);
        draft
            .data
            .extend([[0b10_10_10_10; 8].as_slice(), &[0, 0x3c], &[0b10_10_10_10; 8], &[0, 0x7c]].concat());
    });
    let error = "tensor 'tile': block scale at row 0, column 32 is NaN or infinite; the file is damaged";
    vec![Hostile { name: "BitNet32-F16 scale infinite", rule: SCALE, bytes, error, stage: Stage::Payload }]
}

/// `tile` as one T5 row of 200 columns, whose byte 6 encodes no trits.
fn t5() -> Vec<Hostile> {
    let bytes = Draft::with(|draft| {
        draft.entries[5] = layout(b"t5");
        draft.data[TILE..TILE + 64].fill(128);
        draft.data[TILE + 6] = 20;
    });
    let error = "tensor 'tile': the byte at row 0, column 6, is no encoding of ternary digits; \
                 the file is damaged or packed in another layout";
    vec![Hostile { name: "T5 byte without trits", rule: TERNARY, bytes, error, stage: Stage::Payload }]
}

/// `tile` as one block of a type of llama.cpp's.
fn blocks() -> Vec<Hostile> {
    let case = |name, rule, kind: GgmlType, (cols, data): (u64, Vec<u8>), error| {
        let bytes = Draft::with(|draft| {
            draft.infos[3].kind = kind.id();
            draft.infos[3].shape(&[cols]);
            draft.data.truncate(TILE);
            draft.data.extend(data);
        });
        Hostile { name, rule, bytes, error, stage: Stage::Payload }
    };
    vec![
        case(
            "TQ2_0 code 3",
            TERNARY,
            GgmlType::TQ2_0,
            (256, [[0b01_01_01_01; 63].as_slice(), &[0b01_11_01_01, 0, 0x3c]].concat()),
            "tensor 'tile': code 3 at row 0, column 223 is not ternary; \
             the file is damaged or packed in another layout",
        ),
        case(
            "TQ1_0 byte with a fifth digit",
            TERNARY,
            GgmlType::TQ1_0,
            (256, [[128; 52].as_slice(), &[0, 0x3c]].concat()),
            "tensor 'tile': the byte at row 0, column 240, is no encoding of ternary digits; \
             the file is damaged or packed in another layout",
        ),
        case(
            "Q2_0 scale NaN",
            SCALE,
            GgmlType::Q2_0,
            (64, [[1, 0x7c].as_slice(), &[0b01_01_01_01; 16]].concat()),
            "tensor 'tile': block scale at row 0, column 0 is NaN or infinite; the file is damaged",
        ),
        case(
            "Q4_1 minimum infinite",
            SCALE,
            GgmlType::Q4_1,
            (32, [[0, 0x3c, 0, 0x7c].as_slice(), &[0; 16]].concat()),
            "tensor 'tile': block minimum at row 0, column 0 is NaN or infinite; the file is damaged",
        ),
    ]
}

fn floats() -> Vec<Hostile> {
    let norm = |name, at: usize, value: f32, error| {
        payload(name, FINITE, NORM + 4 * at, &value.to_le_bytes(), error)
    };
    let half =
        |name, at: usize, bits: u16, error| payload(name, FINITE, HALF + 2 * at, &bits.to_le_bytes(), error);
    vec![
        norm(
            "F32 NaN",
            31,
            f32::NAN,
            "tensor 'norm': weight at row 0, column 31 is NaN or infinite; the file is damaged",
        ),
        norm(
            "F32 infinite",
            0,
            f32::NEG_INFINITY,
            "tensor 'norm': weight at row 0, column 0 is NaN or infinite; the file is damaged",
        ),
        half(
            "F16 NaN",
            3,
            0x7c01,
            "tensor 'half': weight at row 0, column 3 is NaN or infinite; the file is damaged",
        ),
        half(
            "F16 infinite",
            7,
            0x7c00,
            "tensor 'half': weight at row 0, column 7 is NaN or infinite; the file is damaged",
        ),
    ]
}
