//! TQ1_0: llama.cpp's blocks of 256 ternary weights, five to a byte, with an f16 scale; GGUF type 34, 1.6875 bits a weight.
//!
//! ```text
//! block: 54 bytes;  trits t0 … t4 of a byte as in `trits`
//! bytes 0–31    byte p:      element 32k + p is trit k            (k = 0 … 4: elements 0–159)
//! bytes 32–47   byte 32 + p: element 160 + 16k + p is trit k      (k = 0 … 4: elements 160–239)
//! bytes 48–51   byte 48 + p: element 240 + 4k + p is trit k       (k = 0 … 3: elements 240–255; trit 4 is 0)
//! bytes 52–53   the scale, f16
//! trit 0, 1, 2 = -1, 0, +1
//! ```
//!
//! Source: `block_tq1_0` in llama.cpp's `ggml/src/ggml-common.h`; the bytes of its quantiser are in
//! `fixtures/golden/golden-tq1_0.bin`.

use super::blocks::{self, Blocks, f16_at};
use super::{Ternary, trits};
use half::f16;

/// Elements in a block.
pub const BLOCK: usize = 256;
/// Bytes in a block: 48 of five trits, 4 of four, and the scale.
pub const BLOCK_BYTES: usize = 54;

/// Runs of bytes that take an element each in turn: first byte, bytes, trits in each.
const RUNS: [(usize, usize, usize); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];

pub(super) const BLOCKS: Blocks = Blocks { elements: BLOCK, bytes: BLOCK_BYTES, value_at, scale };

/// Value of element `j` of a block, before the scale: −1, 0 or +1.
#[inline]
pub fn value_at(block: &[u8], j: usize) -> i8 {
    match j {
        0..160 => trits::value(block[j % 32], j / 32),
        160..240 => trits::value(block[32 + j % 16], (j - 160) / 16),
        _ => trits::value(block[48 + j % 4], (j - 240) / 4),
    }
}

/// The block's scale, widened.
#[inline]
pub fn scale(block: &[u8]) -> f32 {
    f16_at(block, 52)
}

/// Encodes `values` (−1, 0, +1; a multiple of 256 of them), with the scale `scale`; blocks of zeros get the scale 0, as
/// from ggml, unless there are no others, so that no matrix loses its scale.
///
/// # Panics
/// - if the number of values is not a multiple of 256 or a value is not −1, 0 or +1.
pub fn encode(values: &[i8], scale: f16) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "TQ1_0 needs a multiple of {BLOCK} values");
    let scale_of = blocks::ggml_scales(values, scale);
    let mut out = Vec::with_capacity(blocks.len() * BLOCK_BYTES);
    for block in blocks {
        let mut first = 0;
        for (_, bytes, trits) in RUNS {
            for p in 0..bytes {
                // The last bytes have no fifth element: their trit 4 is 0, which is the value −1.
                let value = |k| if k < trits { block[first + k * bytes + p] } else { -1 };
                out.push(trits::pack(std::array::from_fn(value)));
            }
            first += bytes * trits;
        }
        out.extend_from_slice(&scale_of(block).to_le_bytes());
    }
    out
}

/// Decodes to row-major values and the scale; `None` if blocks that hold a non-zero value do not share one scale.
///
/// # Panics
/// - if `bytes` is shorter than the shape needs.
pub fn decode(bytes: &[u8], rows: usize, cols: usize) -> Option<Ternary> {
    BLOCKS.decode(bytes, rows, cols)
}

/// Says what is wrong with a payload of the right size: a byte that encodes no trits, or a bad scale.
pub(super) fn find_bad(bytes: &[u8], cols: usize) -> Option<String> {
    BLOCKS.find_bad(bytes, cols, first_bad, trits::describe_bad)
}

/// First element of the first byte that no encoder writes.
fn first_bad(block: &[u8]) -> Option<usize> {
    let bad = |at: usize| !trits::is_encoding(block[at]) || (at >= 48 && trits::value(block[at], 4) != -1);
    let at = (0..52).find(|&at| bad(at))?;
    let mut first = 0;
    for (start, bytes, trits) in RUNS {
        if at < start + bytes {
            return Some(first + at - start);
        }
        first += bytes * trits;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_encode_no_trits_are_named_by_row_and_column() {
        let bad = (0..=255).find(|&byte| !trits::is_encoding(byte)).expect("13 of them");
        let good = encode(&[1; 1024], f16::ONE);
        for (at, column) in [(0, 0), (31, 31), (32, 160), (47, 175), (48, 240), (51, 243)] {
            let mut bytes = good.clone();
            bytes[3 * BLOCK_BYTES + at] = bad;
            let said = find_bad(&bytes, 512).expect("found");
            assert!(said.contains(&format!("row 1, column {},", 256 + column)), "{said}");
        }
        assert_eq!(find_bad(&good, 512), None);
    }

    #[test]
    fn a_fifth_trit_in_the_last_bytes_is_refused() {
        let mut bytes = encode(&[1; 256], f16::ONE);
        bytes[48] = trits::pack([1, 1, 1, 1, 0]);
        assert!(find_bad(&bytes, 256).expect("found").contains("row 0, column 240,"));
    }
}
