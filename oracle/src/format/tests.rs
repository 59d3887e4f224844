//! Decoders held to bytes that bitnet.cpp and llama.cpp wrote, and to packers that go the other way.

use super::*;
use crate::testing::Gguf;
use std::fs;
use std::path::Path;

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden").join(name)).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

fn values(format: Format, bytes: &[u8], rows: usize, cols: usize) -> Result<Vec<f32>, String> {
    assert_eq!(bytes.len(), size(format, rows, cols).unwrap());
    Stored { format, rows, cols, bytes }.values()
}

#[test]
fn ternary_formats_decode_what_the_cpp_programs_wrote() {
    let codes = golden("golden-ternary.i8");
    let expected: Vec<f32> = codes.iter().map(|code| f32::from(code.cast_signed()) * 1.21875).collect();
    for (format, file) in [
        (Format::I2S, "golden-i2_s.bin"),
        (Format::Tq1_0, "golden-tq1_0.bin"),
        (Format::Tq2_0, "golden-tq2_0.bin"),
        (Format::Q2_0, "golden-q2_0.bin"),
    ] {
        assert!(values(format, &golden(file), 8, 768).unwrap() == expected, "{file}");
    }
}

#[test]
fn dense_formats_decode_as_ggml_does() {
    for (format, name) in
        [(Format::Q8_0, "q8_0"), (Format::Q4_0, "q4_0"), (Format::Q4_1, "q4_1"), (Format::Q6K, "q6_k")]
    {
        let expected = floats(&golden(&format!("golden-{name}-decoded.f32")));
        assert!(
            values(format, &golden(&format!("golden-{name}.bin")), 8, 768).unwrap() == expected,
            "{name}"
        );
    }
}

#[test]
fn plain_floats_are_read() {
    assert_eq!(values(Format::F32, &[0, 0, 0, 0xc0, 0, 0, 0x40, 0x3f], 1, 2).unwrap(), [-2.0, 0.75]);
    assert_eq!(values(Format::F16, &[0, 0xc0, 0, 0x3a], 2, 1).unwrap(), [-2.0, 0.75]);
    assert_eq!(values(Format::Bf16, &[0, 0xc0, 0x40, 0x3f], 1, 2).unwrap(), [-2.0, 0.75]);
}

/// Ternary codes without a pattern that a wrong order could keep.
fn codes(count: usize) -> Vec<u8> {
    (0..count).map(|i| ((i * i + i / 7 + i / 131) % 3) as u8).collect()
}

fn as_values(codes: &[u8], scale: f32) -> Vec<f32> {
    codes.iter().map(|code| (f32::from(*code) - 1.0) * scale).collect()
}

/// Packs rows of codes as `docs/formats.md` draws them: by walking the bytes, where the decoder walks the elements.
fn pack(rows: &[&[u8]], tile: usize, byte_of: impl Fn(&dyn Fn(usize) -> u8, usize) -> u8) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        let tiles = row.len().div_ceil(tile);
        for t in 0..tiles {
            let code = |j: usize| row.get(t * tile + j).copied().unwrap_or(1);
            out.extend((0..64).map(|byte| byte_of(&code, byte)));
        }
    }
    out
}

#[test]
fn qk256_pads_its_rows() {
    let codes = codes(3 * 300);
    let rows: Vec<&[u8]> = codes.chunks(300).collect();
    let mut bytes = pack(&rows, 256, |code, byte| {
        let first = byte / 32 * 128 + byte % 32;
        code(first) << 6 | code(first + 32) << 4 | code(first + 64) << 2 | code(first + 96)
    });
    bytes.extend(0.3_f32.to_le_bytes());
    assert_eq!(bytes.len(), 388);
    assert_eq!(values(Format::Qk256, &bytes, 3, 300).unwrap(), as_values(&codes, 0.3));
}

#[test]
fn t5_holds_five_trits_in_a_byte() {
    let codes = codes(2 * 330);
    let rows: Vec<&[u8]> = codes.chunks(330).collect();
    let mut bytes = pack(&rows, 320, |code, byte| {
        let number = (0..5).fold(0_u32, |number, k| number * 3 + u32::from(code(64 * k + byte)));
        (number * 256).div_ceil(243) as u8
    });
    bytes.extend(0.3_f32.to_le_bytes());
    assert_eq!(values(Format::T5, &bytes, 2, 330).unwrap(), as_values(&codes, 0.3));
    let invalid = (0..=255_u8).filter(|byte| {
        bytes[0] = *byte;
        values(Format::T5, &bytes, 2, 330).is_err()
    });
    assert_eq!(invalid.count(), 13);
}

#[test]
fn i2_r4_interleaves_four_rows() {
    let codes = codes(8 * 130);
    let mut bytes = Vec::new();
    for four in codes.chunks(4 * 130) {
        let code = |row: usize, c: usize| if c < 130 { four[row * 130 + c] } else { 1 };
        bytes.extend((0..256).map(|c| code(0, c) << 6 | code(1, c) << 4 | code(2, c) << 2 | code(3, c)));
    }
    bytes.extend(2.5_f32.to_le_bytes());
    assert_eq!(values(Format::I2R4, &bytes, 8, 130).unwrap(), as_values(&codes, 2.5));
    assert!(size(Format::I2R4, 6, 130).is_err());
}

#[test]
fn formats_of_other_programs() {
    let mut block = [0b11_10_01_00_u8; 10];
    block[8..].copy_from_slice(&[0, 0x38]);
    assert_eq!(values(Format::BitNet32, &block, 1, 32).unwrap()[..4], [-1.0, -0.5, 0.0, 0.5]);

    let tile = [0b11_10_01_00_u8; 64];
    assert_eq!(values(Format::LinearPm2, &tile, 1, 5).unwrap(), [-2.0, -1.0, 1.0, 2.0, -2.0]);

    let mut bytes = vec![0b01_01_01_01_u8; 16 + 32];
    bytes[3] = 0b00_01_10_01;
    bytes[16..20].copy_from_slice(&2.0_f32.to_le_bytes());
    let row = values(Format::I2S64, &bytes, 1, 64).unwrap();
    assert_eq!((row[3], row[19], row[35], row[51]), (-2.0, 0.0, 2.0, 0.0));
}

#[test]
fn invalid_codes_and_scales_are_named() {
    let mut i2_s = vec![0b01_01_01_01_u8; 64 + 32];
    i2_s[32 + 5] = 0b01_11_01_01;
    assert_eq!(
        values(Format::I2S, &i2_s, 2, 128).unwrap_err(),
        "row 1, column 37: code 3 stands for nothing"
    );
    let mut q8_0 = vec![0_u8; 34];
    q8_0[1] = 0x7c;
    assert_eq!(values(Format::Q8_0, &q8_0, 1, 32).unwrap_err(), "row 0, column 0: the value is not finite");
}

#[test]
fn the_committed_files_of_the_projects_own_formats_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    for (name, format, rows, cols) in [
        ("bitnet32_2x64", Format::BitNet32, 2, 64),
        ("i2_r4_8x130", Format::I2R4, 8, 130),
        ("i2_s-64_4x128", Format::I2S64, 4, 128),
        ("linear-pm2_3x300", Format::LinearPm2, 3, 300),
        ("q2_0_4x128", Format::Q2_0, 4, 128),
        ("qk256_3x300", Format::Qk256, 3, 300),
        ("qk256_4x256", Format::Qk256, 4, 256),
        ("t5_3x330", Format::T5, 3, 330),
        ("t5_4x320", Format::T5, 4, 320),
        ("tq1_0_2x512", Format::Tq1_0, 2, 512),
        ("tq2_0_2x512", Format::Tq2_0, 2, 512),
    ] {
        let bytes = fs::read(folder.join(format!("{name}.gguf"))).unwrap();
        let file = File::parse(&bytes).unwrap();
        for (tensor, entry) in &file.tensors {
            let stored = Stored::find(&file, tensor, entry).unwrap();
            assert_eq!((stored.format, stored.rows, stored.cols), (format, rows, cols), "{name}");
            stored.values().unwrap();
        }
    }
}

#[test]
fn shapes_and_types_that_cannot_be() {
    let find = |gguf: Gguf| {
        let bytes = gguf.bytes();
        let file = File::parse(&bytes).unwrap();
        Stored::find(&file, "t", &file.tensors["t"]).map(|_| ()).unwrap_err()
    };
    assert_eq!(find(Gguf::new().tensor("t", &[256], 10, &[0; 84])).exit_code(), 3, "Q2_K");
    assert_eq!(find(Gguf::new().tensor("t", &[64], 24, &[0; 64])).exit_code(), 3, "I8 without a layout");
    for (dimensions, kind) in [
        (vec![100], 36),
        (vec![0], 0),
        (vec![4, 0], 0),
        (vec![u64::MAX], 0),
        (vec![1 << 40, 1 << 40], 0),
        (vec![1 << 61], 0),
        (vec![1 << 32, 1 << 20, 2], 36),
    ] {
        assert_eq!(
            find(Gguf::new().tensor("t", &dimensions, kind, &[0; 64])).exit_code(),
            2,
            "{dimensions:?}"
        );
    }
    let shape = |sizes: &[u64]| {
        let head = [&10_u32.to_le_bytes()[..], &(sizes.len() as u64).to_le_bytes()].concat();
        let sizes: Vec<u8> = sizes.iter().flat_map(|n| n.to_le_bytes()).collect();
        let file = Gguf::new().text("assay.layout", "qk256").raw("assay.shape.t", 9, &[head, sizes].concat());
        find(file.tensor("t", &[68], 24, &[0; 68]))
    };
    for sizes in [&[256][..], &[256, 2], &[0, 1], &[u64::MAX, u64::MAX]] {
        assert_eq!(shape(sizes).exit_code(), 2, "{sizes:?}");
    }
}
