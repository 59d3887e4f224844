//! Every weight format held to bytes that the C++ quantisers wrote, and to its own inverse.

use assay_engine::quant::{Format, Ternary, q2_0};
use half::f16;
use proptest::prelude::*;
use serde_json::Value;
use std::path::PathBuf;

const ROWS: usize = 8;
const COLS: usize = 768;

/// Formats that keep any ternary matrix to the bit, as far as columns and scale fit.
const LOSSLESS: [Format; 9] = [
    Format::I2S,
    Format::I2S64,
    Format::Qk256,
    Format::I2R4,
    Format::T5,
    Format::BitNet32,
    Format::Tq1_0,
    Format::Tq2_0,
    Format::Q2_0,
];

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn index() -> Value {
    serde_json::from_slice(&golden("golden.json")).expect("golden JSON")
}

/// The golden bytes of a format, held to the digest of the index.
fn golden_bytes(format: Format) -> Vec<u8> {
    use sha2::Digest;
    let entry = &index()["formats"][format.name().to_lowercase()];
    let bytes = golden(entry["file"].as_str().expect("file"));
    assert_eq!(hex::encode(sha2::Sha256::digest(&bytes)), entry["sha256"].as_str().expect("digest"));
    bytes
}

fn golden_floats(format: Format, key: &str) -> Vec<f32> {
    let file = index()["formats"][format.name().to_lowercase()][key].as_str().expect("file").to_owned();
    assay_engine::quant::dense::f32_from_bytes(&golden(&file))
}

/// The golden matrix: index-revealing by being random, scale 1.21875.
fn golden_matrix() -> Ternary {
    let values = golden("golden-ternary.i8").iter().map(|b| b.cast_signed()).collect();
    Ternary { rows: ROWS, cols: COLS, values, scale: f32::from_bits(0x3f9c_0000) }
}

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn ternary_blocks_are_those_of_the_cpp_quantisers() {
    let matrix = golden_matrix();
    for format in [Format::Tq1_0, Format::Tq2_0, Format::Q2_0] {
        let bytes = golden_bytes(format);
        assert_eq!(format.validate("golden", &bytes, ROWS, COLS), Ok(()), "{}", format.name());
        assert_eq!(
            format.decode_ternary(&bytes, ROWS, COLS).as_ref(),
            Some(&matrix),
            "{} decoded",
            format.name()
        );
        assert!(format.encode_ternary("golden", &matrix) == Ok(bytes), "{} encoded", format.name());
    }
}

#[test]
fn dense_blocks_are_those_of_the_cpp_quantisers() {
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q6K] {
        let bytes = golden_bytes(format);
        assert_eq!(format.validate("golden", &bytes, ROWS, COLS), Ok(()), "{}", format.name());
        let decoded = format.widen(&bytes).expect("dense");
        assert!(bits(&decoded) == bits(&golden_floats(format, "decoded_f32")), "{} decoded", format.name());
        let input = golden_floats(format, "input_f32");
        let encoded = format.encode_dense("golden", &input, ROWS, COLS).expect("encoded");
        let differ = encoded.iter().zip(&bytes).position(|(a, b)| a != b);
        assert_eq!((encoded.len(), differ), (bytes.len(), None), "{} encoded", format.name());
    }
}

#[test]
fn all_lossless_formats_have_one_digest() {
    let matrix = golden_matrix();
    for format in LOSSLESS {
        let bytes = format.encode_ternary("w", &matrix).expect("encoded");
        assert_eq!(bytes.len(), format.bytes(ROWS, COLS).expect("size"), "{}", format.name());
        let decoded = format.decode_ternary(&bytes, ROWS, COLS).expect("one scale");
        assert_eq!(decoded.digest(), matrix.digest(), "{}", format.name());
    }
    // Without zeros, and with scale 1, linear-pm2 holds it too.
    let values = matrix.values.iter().map(|&v| if v == 0 { 1 } else { v }).collect();
    let no_zeros = Ternary { values, scale: 1.0, ..matrix };
    let bytes = Format::LinearPm2.encode_ternary("w", &no_zeros).expect("encoded");
    assert_eq!(Format::LinearPm2.decode_ternary(&bytes, ROWS, COLS), Some(no_zeros));
}

/// Values of period 3 and of period 251: a permutation of elements shows.
fn painted(n: usize, low: i8, period: usize) -> Vec<i8> {
    (0..n).map(|i| low + ((i % period * 7 + i / period) % 3) as i8).collect()
}

#[test]
fn every_format_returns_index_revealing_values_at_every_boundary() {
    for format in LOSSLESS {
        let rows = 3_usize.next_multiple_of(format.info().rows_multiple);
        for cols in [1_usize, 31, 63, 64, 65, 128, 256, 300, 319, 320, 321, 384, 512, 640, 641, 768] {
            if !cols.is_multiple_of(format.info().cols_multiple) {
                assert!(format.bytes(rows, cols).is_err());
                continue;
            }
            for period in [3, 251] {
                let values = painted(rows * cols, -1, period);
                let matrix = Ternary { rows, cols, values, scale: -0.375 };
                let bytes = format.encode_ternary("w", &matrix).expect("encoded");
                assert_eq!(format.validate("w", &bytes, rows, cols), Ok(()), "{} of {cols}", format.name());
                let decoded = format.decode_ternary(&bytes, rows, cols);
                assert_eq!(decoded, Some(matrix), "{} of {cols}", format.name());
            }
        }
    }
}

/// A decoder and an encoder with the same mistake would agree: places and bytes as the formats page draws them.
#[test]
fn layouts_without_golden_bytes_are_as_drawn() {
    let one_at = |format: Format, cols: usize, column: usize| {
        let mut values = vec![0; 2 * cols];
        values[cols + column] = 1;
        format.encode_ternary("w", &Ternary { rows: 2, cols, values, scale: 1.0 }).expect("encoded")
    };
    // Zeros are v = 121 and byte 128; a +1 as trit k adds 81, 27, 9, 3, 1 to v: 202, 148, 130, 124, 122.
    for (k, byte) in [213, 156, 137, 131, 129].into_iter().enumerate() {
        let bytes = one_at(Format::T5, 700, 320 + 64 * k + 7);
        assert_eq!(bytes[..3 * 64], [128; 3 * 64], "row 0");
        assert_eq!((bytes[3 * 64 + 64 + 6], bytes[3 * 64 + 64 + 7]), (128, byte), "trit {k}");
    }
    for (group, byte) in [0b10_01_01_01, 0b01_10_01_01, 0b01_01_10_01, 0b01_01_01_10].into_iter().enumerate()
    {
        let bytes = one_at(Format::I2S64, 128, 64 + 16 * group + 5);
        assert_eq!((bytes[32 + 16 + 4], bytes[32 + 16 + 5]), (0b01_01_01_01, byte), "group {group}");
    }
    let values = [[-2, -1, 1, 2], [2, 2, 2, -2], [-1, 1, -1, 1]].concat();
    let matrix = Ternary { rows: 2, cols: 6, values, scale: 1.0 };
    let bytes = Format::LinearPm2.encode_ternary("w", &matrix).expect("encoded");
    assert_eq!((bytes.len(), &bytes[..3], &bytes[64..66]), (128, &[0xe4, 0x0f, 0][..], &[0x93, 0x09][..]));
}

#[test]
fn q8_0_rounds_ties_away_from_zero_as_ggml_does() {
    let mut x = [0.0; 32];
    x[..6].copy_from_slice(&[127.0, 0.5, 2.5, -0.5, -2.5, 1.5]);
    let bytes = Format::Q8_0.encode_dense("w", &x, 1, 32).expect("encoded");
    assert_eq!(Format::Q8_0.widen(&bytes).expect("dense")[..6], [127.0, 1.0, 3.0, -1.0, -3.0, 2.0]);
}

#[test]
fn a_zero_matrix_keeps_its_scale() {
    let matrix = Ternary { rows: 4, cols: 768, values: vec![0; 4 * 768], scale: 0.75 };
    for format in LOSSLESS {
        let bytes = format.encode_ternary("w", &matrix).expect("encoded");
        assert_eq!(format.decode_ternary(&bytes, 4, 768).as_ref(), Some(&matrix), "{}", format.name());
    }
}

#[test]
fn blocks_of_zeros_do_not_count_but_two_scales_do() {
    for format in [Format::Tq1_0, Format::Tq2_0, Format::Q2_0, Format::BitNet32] {
        let info = format.info();
        let encode = |first: i8, scale: f32| {
            let values = vec![first; info.block];
            format
                .encode_ternary("w", &Ternary { rows: 1, cols: info.block, values, scale })
                .expect("encoded")
        };
        let decode = |blocks: [Vec<u8>; 2]| format.decode_ternary(&blocks.concat(), 2, info.block);
        let zeros_first = decode([encode(0, 0.5), encode(1, 2.0)]).expect("one scale");
        assert_eq!(zeros_first.scale, 2.0, "{}", format.name());
        assert_eq!(decode([encode(-1, 0.5), encode(1, 2.0)]), None, "{}", format.name());
    }
}

#[test]
fn plus_two_is_a_valid_q2_0_weight_but_not_ternary() {
    let mut values = vec![1; 64];
    values[9] = 2;
    let bytes = q2_0::encode(&values, f16::ONE);
    assert_eq!(Format::Q2_0.validate("w", &bytes, 1, 64), Ok(()));
    assert_eq!(q2_0::value_at(&bytes, 9), 2);
    assert_eq!(Format::Q2_0.decode_ternary(&bytes, 1, 64), None);
}

#[test]
fn what_a_format_cannot_hold_is_refused_by_name() {
    let matrix = |scale| Ternary { rows: 1, cols: 256, values: painted(256, -1, 251), scale };
    for format in [Format::Tq1_0, Format::Tq2_0, Format::Q2_0, Format::BitNet32, Format::F16] {
        let error = format.encode_ternary("w", &matrix(0.1)).expect_err("0.1 is no f16").to_string();
        assert!(error.contains("'w'") && error.contains(format.name()), "{error}");
    }
    let error = Format::LinearPm2.encode_ternary("w", &matrix(1.0)).expect_err("zeros").to_string();
    assert!(error.contains("no code for 0, at row 0, column"), "{error}");
    let overflow = Format::F16.encode_dense("w", &[1e6], 1, 1).expect_err("overflow").to_string();
    assert!(overflow.contains("row 0, column 0"), "{overflow}");
    let overflow = Format::Q8_0.encode_dense("w", &[1e30; 32], 1, 32).expect_err("overflow").to_string();
    assert!(overflow.contains("block scale at row 0, column 0"), "{overflow}");
    assert!(Format::T5.encode_dense("w", &[1.0], 1, 1).is_err());
}

/// Sizes one byte off, in every format.
#[test]
fn a_wrong_size_is_refused_in_every_format() {
    for format in Format::ALL {
        let size = format.bytes(ROWS, COLS).expect("fits");
        for wrong in [0, size - 1, size + 1] {
            let error =
                format.validate("w", &vec![0; wrong], ROWS, COLS).expect_err("wrong size").to_string();
            assert!(error.contains(&format!("expected {size} bytes, got {wrong} bytes")), "{error}");
        }
    }
}

/// Writes NaN and infinity where each format has an f16 or f32 number.
#[test]
fn a_scale_that_is_no_number_is_refused_in_every_format() {
    let f16_at = |format: Format| match format {
        Format::BitNet32 => vec![8],
        Format::Tq1_0 => vec![52],
        Format::Tq2_0 => vec![64],
        Format::Q2_0 | Format::Q8_0 | Format::Q4_0 => vec![0],
        Format::Q4_1 => vec![0, 2],
        Format::Q6K => vec![208],
        _ => vec![],
    };
    let valid = |format: Format| match format.info().ternary {
        true => {
            format.encode_ternary("w", &Ternary { rows: 4, cols: 768, values: vec![1; 4 * 768], scale: 1.0 })
        }
        false => format.encode_dense("w", &[1.0; 4 * 768], 4, 768),
    };
    for format in Format::ALL {
        let info = format.info();
        // The last block of row 3.
        let block = 4 * format.row_bytes(768) - info.block_bytes;
        for at in f16_at(format) {
            for bad in [0x7c00_u16, 0xfc00, 0x7e01] {
                let mut bytes = valid(format).expect("encoded");
                bytes[block + at..][..2].copy_from_slice(&bad.to_le_bytes());
                let error = format.validate("w", &bytes, 4, 768).expect_err("no number").to_string();
                assert!(error.contains(&format!("row 3, column {}", 768 - info.block)), "{error}");
            }
        }
        if info.tail_bytes > 0 {
            let mut bytes = valid(format).expect("encoded");
            let at = bytes.len() - info.tail_bytes;
            bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            let error = format.validate("w", &bytes, 4, 768).expect_err("NaN").to_string();
            assert!(error.contains("tensor scale is NaN"), "{error}");
        }
    }
    let error = Format::Bf16.validate("w", &[0, 0, 0x80, 0x7f], 2, 1).expect_err("infinite").to_string();
    assert!(error.contains("row 1, column 0"), "{error}");
}

#[test]
fn code_3_is_named_by_row_and_column_in_tq2_0() {
    let values = painted(1024, -1, 251);
    let bytes = Format::Tq2_0
        .encode_ternary("w", &Ternary { rows: 2, cols: 512, values, scale: 1.0 })
        .expect("encoded");
    for (element, byte, shift) in [(0, 0, 0), (33, 1, 2), (255, 63, 6), (512 + 256 + 130, 3 * 66 + 34, 0)] {
        let mut bytes = bytes.clone();
        bytes[byte] |= 3 << shift;
        let error = Format::Tq2_0.validate("w", &bytes, 2, 512).expect_err("code 3").to_string();
        assert!(error.contains(&format!("row {}, column {}", element / 512, element % 512)), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_is_the_inverse_of_encoding(
        rows in 1..4_usize,
        blocks in 1..4_usize,
        ragged in 0..330_usize,
        scale in any::<u16>().prop_map(|bits| f16::from_bits(bits & 0xfbff).to_f32()),
        picks in prop::collection::vec(-1..=1_i8, 4096),
    ) {
        for format in LOSSLESS {
            let info = format.info();
            let cols = if info.cols_multiple == 1 { 1 + ragged } else { blocks * info.block };
            let rows = rows.next_multiple_of(info.rows_multiple);
            let values: Vec<i8> = picks.iter().copied().cycle().take(rows * cols).collect();
            let matrix = Ternary { rows, cols, values, scale };
            let bytes = format.encode_ternary("w", &matrix).expect("encoded");
            prop_assert_eq!(format.validate("w", &bytes, rows, cols), Ok(()));
            prop_assert_eq!(format.decode_ternary(&bytes, rows, cols), Some(matrix), "{}", format.name());
        }
    }

    #[test]
    fn no_payload_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 4000)) {
        for format in Format::ALL {
            let size = format.bytes(4, 256).expect("fits");
            let bytes = &bytes[..size.min(4000)];
            if bytes.len() == size && format.validate("w", bytes, 4, 256).is_ok() {
                let decoded = format.decode_ternary(bytes, 4, 256).map(|t| t.values.len());
                let widened = format.widen(bytes).map(|x| x.len());
                prop_assert!(decoded.or(widened).is_none_or(|n| n == 1024));
            }
        }
    }
}
