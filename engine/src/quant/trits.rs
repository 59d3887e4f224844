//! Five trits in a byte: what [`super::tq1_0`] and [`super::t5`] share.
//!
//! ```text
//! trits t0 … t4 (value + 1, so 0, 1, 2):   v = 81 t0 + 27 t1 + 9 t2 + 3 t3 + t4,  0 … 242
//! byte = ceil(v * 256 / 243):  v / 243 as a fraction of 256, rounded up, so that multiplying brings out trit after trit:
//! q0 = byte,  q(k+1) = 3 qk mod 256,  tk = 3 qk >> 8
//! ```
//!
//! 243 of the 256 bytes are made so; the other 13 decode to trits too, but no encoder writes them.
//!
//! Source: `quantize_row_tq1_0_ref` and `dequantize_row_tq1_0` of llama.cpp, `ggml/src/ggml-quants.c`.

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The byte of `v` = 81 t0 + 27 t1 + 9 t2 + 3 t3 + t4.
const fn byte_of(v: u16) -> u8 {
    // At most ceil(242 * 256 / 243) = 255.
    (v * 256).div_ceil(243) as u8
}

/// Which bytes are encodings of five trits.
static IS_ENCODING: [bool; 256] = {
    let mut table = [false; 256];
    let mut v = 0;
    while v < 243 {
        table[byte_of(v) as usize] = true;
        v += 1;
    }
    table
};

/// Packs five values −1, 0, +1, the first as the most significant trit.
///
/// # Panics
/// - if a value is not −1, 0 or +1.
pub(super) fn pack(values: [i8; 5]) -> u8 {
    byte_of(values.iter().fold(0, |v, &value| {
        assert!((-1..=1).contains(&value), "{value} is not ternary");
        3 * v + u16::from((value + 1).cast_unsigned())
    }))
}

/// Value of trit `k` (0 ≤ k < 5): −1, 0 or +1.
#[inline]
pub(super) fn value(byte: u8, k: usize) -> i8 {
    let q = u16::from(byte.wrapping_mul(POWERS[k]));
    ((3 * q) >> 8) as i8 - 1
}

/// Whether an encoder can have written this byte.
pub(super) fn is_encoding(byte: u8) -> bool {
    IS_ENCODING[usize::from(byte)]
}

pub(super) fn describe_bad(row: usize, column: usize) -> String {
    format!(
        "the byte at row {row}, column {column}, is no encoding of ternary digits; the file is damaged or packed in another layout"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_five_trits_come_back() {
        let mut seen = std::collections::BTreeSet::new();
        for v in 0..243 {
            let values = [81, 27, 9, 3, 1].map(|power| (v / power % 3) as i8 - 1);
            let byte = pack(values);
            assert_eq!([0, 1, 2, 3, 4].map(|k| value(byte, k)), values, "v = {v}");
            assert!(is_encoding(byte) && seen.insert(byte));
        }
        assert_eq!((0..=255).filter(|&byte| is_encoding(byte)).count(), 243);
    }
}
