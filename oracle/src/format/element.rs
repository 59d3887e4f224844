//! The value of one element: where its bits are, and what they stand for.

use super::Format;
use crate::float::{bf16_value, f16_value};

const INVALID_CODE: &str = "code 3 stands for nothing";
const INVALID_BYTE: &str = "no five trits are written as this byte";

/// The value in column `col` of the row that `row` holds, before the scale of the matrix. For I2_R4, `row` holds four rows,
/// and `lane` says which.
pub(super) fn value(format: Format, row: &[u8], lane: usize, col: usize) -> Result<f64, &'static str> {
    Ok(match format {
        Format::F32 => {
            f64::from(f32::from_bits(u32::from(half(row, 4 * col)) | u32::from(half(row, 4 * col + 2)) << 16))
        }
        Format::F16 => f16_value(half(row, 2 * col)),
        Format::Bf16 => bf16_value(half(row, 2 * col)),
        // Two blocks of I2_S are a tile of QK256, byte for byte.
        Format::I2S | Format::Qk256 => {
            ternary(bits(row[32 * (col / 128) + col % 32], 6 - 2 * (col % 128 / 32)))?
        }
        Format::I2S64 => ternary(bits(row[16 * (col / 64) + col % 16], 6 - 2 * (col % 64 / 16)))?,
        Format::I2R4 => ternary(bits(row[col], 6 - 2 * lane))?,
        Format::LinearPm2 => [-2.0, -1.0, 1.0, 2.0][usize::from(bits(row[col / 4], 2 * (col % 4)))],
        Format::T5 => t5(row, col)?,
        Format::BitNet32 => bitnet32(&row[10 * (col / 32)..][..10], col % 32),
        Format::Tq1_0 => tq1_0(&row[54 * (col / 256)..][..54], col % 256),
        Format::Tq2_0 => tq2_0(&row[66 * (col / 256)..][..66], col % 256)?,
        Format::Q2_0 => q2_0(&row[18 * (col / 64)..][..18], col % 64),
        Format::Q8_0 => q8_0(&row[34 * (col / 32)..][..34], col % 32),
        Format::Q4_0 => q4_0(&row[18 * (col / 32)..][..18], col % 32),
        Format::Q4_1 => q4_1(&row[20 * (col / 32)..][..20], col % 32),
        Format::Q6K => q6_k(&row[210 * (col / 256)..][..210], col % 256),
    })
}

/// The two bytes from `at` on.
fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Two bits from `shift` on.
fn bits(byte: u8, shift: usize) -> u8 {
    (byte >> shift) & 3
}

/// The low or, with `upper` 1, the high nibble.
fn nibble(byte: u8, upper: usize) -> f64 {
    f64::from((byte >> (4 * upper)) & 15)
}

/// Codes 0, 1, 2 = −1, 0, +1.
fn ternary(code: u8) -> Result<f64, &'static str> {
    if code == 3 { Err(INVALID_CODE) } else { Ok(f64::from(code) - 1.0) }
}

/// Trit `k` of a byte that holds five as a fraction of 243: the integer part after the k-th multiplication by 3.
fn trit(byte: u8, k: usize) -> f64 {
    let mut rest = u32::from(byte);
    for _ in 0..k {
        rest = rest * 3 % 256;
    }
    f64::from(rest * 3 / 256) - 1.0
}

fn t5(row: &[u8], col: usize) -> Result<f64, &'static str> {
    let byte = row[64 * (col / 320) + col % 64];
    let number = u32::from(byte) * 243 / 256;
    if (number * 256).div_ceil(243) != u32::from(byte) {
        return Err(INVALID_BYTE);
    }
    Ok(trit(byte, col % 320 / 64))
}

fn bitnet32(block: &[u8], j: usize) -> f64 {
    (f64::from(bits(block[j / 4], 2 * (j % 4))) - 2.0) * f16_value(half(block, 8))
}

fn tq1_0(block: &[u8], j: usize) -> f64 {
    let trit = match j {
        0..160 => trit(block[j % 32], j / 32),
        160..240 => trit(block[32 + (j - 160) % 16], (j - 160) / 16),
        _ => trit(block[48 + (j - 240) % 4], (j - 240) / 4),
    };
    trit * f16_value(half(block, 52))
}

fn tq2_0(block: &[u8], j: usize) -> Result<f64, &'static str> {
    let code = bits(block[32 * (j / 128) + j % 32], 2 * (j % 128 / 32));
    Ok(ternary(code)? * f16_value(half(block, 64)))
}

fn q2_0(block: &[u8], j: usize) -> f64 {
    (f64::from(bits(block[2 + j / 4], 2 * (j % 4))) - 1.0) * f16_value(half(block, 0))
}

fn q8_0(block: &[u8], j: usize) -> f64 {
    f64::from(block[2 + j].cast_signed()) * f16_value(half(block, 0))
}

fn q4_0(block: &[u8], j: usize) -> f64 {
    (nibble(block[2 + j % 16], j / 16) - 8.0) * f16_value(half(block, 0))
}

fn q4_1(block: &[u8], j: usize) -> f64 {
    nibble(block[4 + j % 16], j / 16) * f16_value(half(block, 0)) + f16_value(half(block, 2))
}

fn q6_k(block: &[u8], j: usize) -> f64 {
    let (h, g, l) = (j / 128, j % 128 / 32, j % 32);
    let low = nibble(block[64 * h + 32 * (g % 2) + l], g / 2);
    let high = f64::from(bits(block[128 + 32 * h + l], 2 * g));
    let sub_scale = f64::from(block[192 + j / 16].cast_signed());
    f16_value(half(block, 208)) * sub_scale * (low + 16.0 * high - 32.0)
}
