//! How the check writes weights and activations: one row per format, encoders only. What a kernel must give is computed
//! from the values before they are encoded, never from bytes, so that no decoder of ours stands between.

use half::f16;

/// Where a weight format keeps its scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// One f32 for the tensor, outside the rows.
    Tensor,
    /// None: weights are floats.
    Dense,
    /// An f16 in every block.
    Block,
    /// An f16 and a minimum in every block.
    BlockAndMinimum,
    /// An f16 in every block, an i8 for each 16 elements.
    BlockAndSub,
}

/// One block of weights before it is encoded.
pub(super) struct Block<'a> {
    pub(super) values: &'a [i8],
    /// Scale of the block (of a dense weight: what its value is multiplied by).
    pub(super) d: f32,
    pub(super) minimum: f32,
    pub(super) sub: [i8; 16],
}

/// A weight format.
pub(super) struct Weights {
    pub(super) name: &'static str,
    /// Elements of a block.
    pub(super) block: usize,
    pub(super) block_bytes: usize,
    /// Rows may end inside a block; what is left over holds this value.
    pub(super) padding: Option<i8>,
    /// Every value that there is, rising.
    pub(super) codebook: &'static [i8],
    pub(super) scales: Scales,
    /// Activation formats that go with it.
    pub(super) activations: &'static [&'static str],
    pub(super) encode: fn(&Block<'_>) -> Vec<u8>,
}

const TERNARY: &[i8] = &[-1, 0, 1];

/// −127 … 127: what a quantiser of Q8_0 writes.
static INT8: [i8; 255] = range(-127);
static INT6: [i8; 64] = range(-32);
static INT4: [i8; 16] = range(-8);
static NIBBLE: [i8; 16] = range(0);

const fn range<const N: usize>(low: i8) -> [i8; N] {
    let mut values = [0; N];
    let mut at = 0;
    while at < N {
        values[at] = (low as i32 + at as i32) as i8;
        at += 1;
    }
    values
}

/// One row per weight format.
#[rustfmt::skip]
static WEIGHTS: [Weights; 14] = [
    Weights { name: "I2_S", block: 128, block_bytes: 32, padding: None, codebook: TERNARY, scales: Scales::Tensor, activations: &["i8"], encode: i2s },
    Weights { name: "QK256", block: 256, block_bytes: 64, padding: Some(0), codebook: TERNARY, scales: Scales::Tensor, activations: &["i8"], encode: i2s },
    Weights { name: "T5", block: 320, block_bytes: 64, padding: Some(0), codebook: TERNARY, scales: Scales::Tensor, activations: &["i8"], encode: t5 },
    Weights { name: "linear-pm2", block: 256, block_bytes: 64, padding: Some(-2), codebook: &[-2, -1, 1, 2], scales: Scales::Tensor, activations: &["i8"], encode: linear_pm2 },
    Weights { name: "BitNet32-F16", block: 32, block_bytes: 10, padding: None, codebook: &[-2, -1, 0, 1], scales: Scales::Block, activations: &["i8"], encode: bitnet32 },
    Weights { name: "TQ1_0", block: 256, block_bytes: 54, padding: None, codebook: TERNARY, scales: Scales::Block, activations: &["q8_K"], encode: tq1_0 },
    Weights { name: "TQ2_0", block: 256, block_bytes: 66, padding: None, codebook: TERNARY, scales: Scales::Block, activations: &["q8_K"], encode: tq2_0 },
    Weights { name: "Q2_0", block: 64, block_bytes: 18, padding: None, codebook: &[-1, 0, 1, 2], scales: Scales::Block, activations: &["q8_0"], encode: q2_0 },
    Weights { name: "Q8_0", block: 32, block_bytes: 34, padding: None, codebook: &INT8, scales: Scales::Block, activations: &["q8_0"], encode: q8_0 },
    Weights { name: "Q4_0", block: 32, block_bytes: 18, padding: None, codebook: &INT4, scales: Scales::Block, activations: &["q8_0"], encode: q4_0 },
    Weights { name: "Q4_1", block: 32, block_bytes: 20, padding: None, codebook: &NIBBLE, scales: Scales::BlockAndMinimum, activations: &["q8_1"], encode: q4_1 },
    Weights { name: "Q6_K", block: 256, block_bytes: 210, padding: None, codebook: &INT6, scales: Scales::BlockAndSub, activations: &["q8_K"], encode: q6_k },
    Weights { name: "F16", block: 1, block_bytes: 2, padding: None, codebook: &INT8, scales: Scales::Dense, activations: &["f32"], encode: dense_f16 },
    Weights { name: "F32", block: 1, block_bytes: 4, padding: None, codebook: &INT8, scales: Scales::Dense, activations: &["f32"], encode: dense_f32 },
];

impl Weights {
    pub(super) fn find(name: &str) -> Option<&'static Weights> {
        WEIGHTS.iter().find(|row| row.name == name)
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        WEIGHTS.iter().map(|row| row.name)
    }

    pub(super) fn row_bytes(&self, cols: usize) -> usize {
        cols.div_ceil(self.block) * self.block_bytes
    }

    pub(super) fn low(&self) -> i8 {
        self.codebook[0]
    }

    pub(super) fn high(&self) -> i8 {
        self.codebook[self.codebook.len() - 1]
    }
}

fn f16_bytes(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

/// 2-bit codes put where `element` says.
fn two_bit(values: &[i8], lowest: i8, element: fn(usize, usize) -> usize) -> Vec<u8> {
    let code = |byte, field| (values[element(byte, field)] - lowest).cast_unsigned() << (2 * field);
    (0..values.len() / 4).map(|byte| (0..4).fold(0, |bits, field| bits | code(byte, field))).collect()
}

fn i2s_element(byte: usize, field: usize) -> usize {
    128 * (byte / 32) + 32 * (3 - field) + byte % 32
}

fn tq2_0_element(byte: usize, field: usize) -> usize {
    128 * (byte / 32) + 32 * field + byte % 32
}

fn sequential(byte: usize, field: usize) -> usize {
    4 * byte + field
}

fn i2s(block: &Block<'_>) -> Vec<u8> {
    two_bit(block.values, -1, i2s_element)
}

fn linear_pm2(block: &Block<'_>) -> Vec<u8> {
    let codes: Vec<i8> = block.values.iter().map(|&v| if v < 0 { v + 2 } else { v + 1 }).collect();
    two_bit(&codes, 0, sequential)
}

fn bitnet32(block: &Block<'_>) -> Vec<u8> {
    [two_bit(block.values, -2, sequential), f16_bytes(block.d).to_vec()].concat()
}

fn tq2_0(block: &Block<'_>) -> Vec<u8> {
    [two_bit(block.values, -1, tq2_0_element), f16_bytes(block.d).to_vec()].concat()
}

fn q2_0(block: &Block<'_>) -> Vec<u8> {
    [f16_bytes(block.d).to_vec(), two_bit(block.values, -1, sequential)].concat()
}

/// Trits, the first as the most significant, as a fraction of 256, rounded up.
fn trits(values: impl Iterator<Item = i8>) -> u8 {
    let number = values.fold(0, |number, value| 3 * number + u16::from((value + 1).cast_unsigned()));
    (number * 256).div_ceil(243) as u8
}

/// `count` bytes of five trits each, whose trit `k` is element `count * k + byte`.
fn trit_bytes(values: &[i8], count: usize) -> impl Iterator<Item = u8> {
    (0..count).map(move |byte| trits((0..5).map(|k| values.get(count * k + byte).copied().unwrap_or(-1))))
}

fn t5(block: &Block<'_>) -> Vec<u8> {
    trit_bytes(block.values, 64).collect()
}

fn tq1_0(block: &Block<'_>) -> Vec<u8> {
    let (first, rest) = block.values.split_at(160);
    let (second, last) = rest.split_at(80);
    let bytes = trit_bytes(first, 32).chain(trit_bytes(second, 16)).chain(trit_bytes(last, 4));
    bytes.chain(f16_bytes(block.d)).collect()
}

fn q8_0(block: &Block<'_>) -> Vec<u8> {
    f16_bytes(block.d).into_iter().chain(block.values.iter().map(|v| v.cast_unsigned())).collect()
}

fn nibbles(values: &[i8], lowest: i8) -> impl Iterator<Item = u8> {
    let code = move |at: usize| (values[at] - lowest).cast_unsigned();
    (0..16).map(move |at| code(at) | code(at + 16) << 4)
}

fn q4_0(block: &Block<'_>) -> Vec<u8> {
    f16_bytes(block.d).into_iter().chain(nibbles(block.values, -8)).collect()
}

fn q4_1(block: &Block<'_>) -> Vec<u8> {
    let scales = f16_bytes(block.d).into_iter().chain(f16_bytes(block.minimum));
    scales.chain(nibbles(block.values, 0)).collect()
}

fn q6_k(block: &Block<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 192];
    for (j, value) in block.values.iter().enumerate() {
        let (code, (half, group, l)) = ((value + 32).cast_unsigned(), (j / 128, j % 128 / 32, j % 32));
        bytes[64 * half + 32 * (group % 2) + l] |= (code & 15) << (4 * (group / 2));
        bytes[128 + 32 * half + l] |= (code >> 4) << (2 * group);
    }
    bytes.extend(block.sub.map(i8::cast_unsigned));
    bytes.extend(f16_bytes(block.d));
    bytes
}

/// A dense weight as the format holds it.
pub(super) fn dense_weight(format: &str, value: i8, d: f32) -> f32 {
    let weight = f32::from(value) * d;
    if format == "F16" { f16::from_f32(weight).to_f32() } else { weight }
}

fn dense_f16(block: &Block<'_>) -> Vec<u8> {
    f16_bytes(dense_weight("F16", block.values[0], block.d)).to_vec()
}

fn dense_f32(block: &Block<'_>) -> Vec<u8> {
    dense_weight("F32", block.values[0], block.d).to_le_bytes().to_vec()
}

/// An activation format.
pub(super) struct Activations {
    pub(super) name: &'static str,
    pub(super) block: usize,
    pub(super) block_bytes: usize,
    /// The lowest `q`: that of `i8` is what its clamp allows, the others' what their quantisers give.
    pub(super) low: i8,
    /// Block scales are f16, not f32.
    pub(super) half: bool,
    /// `q` of a block and its scale.
    pub(super) encode: fn(q: &[i8], d: f32) -> Vec<u8>,
}

#[rustfmt::skip]
static ACTIVATIONS: [Activations; 5] = [
    Activations { name: "i8", block: 1, block_bytes: 1, low: -128, half: false, encode: |q, _| vec![q[0].cast_unsigned()] },
    Activations { name: "q8_K", block: 256, block_bytes: 292, low: -127, half: false, encode: q8_k },
    Activations { name: "q8_0", block: 32, block_bytes: 34, low: -127, half: true, encode: |q, d| q8_0(&Block { values: q, d, minimum: 0.0, sub: [0; 16] }) },
    Activations { name: "q8_1", block: 32, block_bytes: 36, low: -127, half: true, encode: q8_1 },
    Activations { name: "f32", block: 1, block_bytes: 4, low: -127, half: false, encode: |q, d| (f32::from(q[0]) * d).to_le_bytes().to_vec() },
];

impl Activations {
    pub(super) fn find(name: &str) -> Option<&'static Activations> {
        ACTIVATIONS.iter().find(|row| row.name == name)
    }

    pub(super) fn row_bytes(&self, cols: usize) -> usize {
        cols.div_ceil(self.block) * self.block_bytes
    }
}

fn sum(q: &[i8]) -> i32 {
    q.iter().map(|&q| i32::from(q)).sum()
}

fn q8_k(q: &[i8], d: f32) -> Vec<u8> {
    let sums = q.chunks(16).flat_map(|q| (sum(q) as i16).to_le_bytes());
    d.to_le_bytes().into_iter().chain(q.iter().map(|q| q.cast_unsigned())).chain(sums).collect()
}

/// `s` of a q8_1 block: `f16(d * sum(q))`.
pub(super) fn q8_1_sum(q: &[i8], d: f32) -> f32 {
    f16::from_f32(d * sum(q) as f32).to_f32()
}

fn q8_1(q: &[i8], d: f32) -> Vec<u8> {
    let scales = f16_bytes(d).into_iter().chain(f16_bytes(q8_1_sum(q, d)));
    scales.chain(q.iter().map(|q| q.cast_unsigned())).collect()
}

/// Floats to blocks as `exact-v1` says (docs/numerics.md), to hold other quantisers to it. `None` for formats without one.
pub(super) fn quantise(format: &str, x: &[f32]) -> Option<Vec<u8>> {
    let rounded = |x: f32| x.round_ties_even();
    let of_32 = |encode: fn(&[i8], f32, f32) -> Vec<u8>| {
        x.chunks(32)
            .flat_map(|x| {
                let largest = x.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
                let d = largest / 127.0;
                let i = if largest == 0.0 { 0.0 } else { 127.0 / largest };
                let q: Vec<i8> = x.iter().map(|x| rounded(x * i) as i8).collect();
                encode(&q, f16::from_f32(d).to_f32(), d)
            })
            .collect()
    };
    match format {
        "q8_0" => Some(of_32(|q, d, _| (Activations::find("q8_0").expect("a row").encode)(q, d))),
        "q8_1" => Some(of_32(|q, d, wide| {
            let s = f16_bytes(wide * sum(q) as f32);
            f16_bytes(d).into_iter().chain(s).chain(q.iter().map(|q| q.cast_unsigned())).collect()
        })),
        "q8_K" => Some(
            x.chunks(256)
                .flat_map(|x| {
                    let m = x.iter().fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
                    let i = if m == 0.0 { 0.0 } else { -127.0 / m };
                    let q: Vec<i8> = x.iter().map(|x| rounded(i * x).min(127.0) as i8).collect();
                    q8_k(&q, if m == 0.0 { 0.0 } else { 1.0 / i })
                })
                .collect(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_blocks_of_its_size_and_activations_that_exist() {
        for weights in &WEIGHTS {
            let values = vec![weights.high(); weights.block];
            let block = Block { values: &values, d: 0.5, minimum: 0.25, sub: [3; 16] };
            assert_eq!((weights.encode)(&block).len(), weights.block_bytes, "{}", weights.name);
            assert!(weights.activations.iter().all(|name| Activations::find(name).is_some()));
        }
        for row in &ACTIVATIONS {
            assert_eq!((row.encode)(&vec![1; row.block], 0.5).len(), row.block_bytes, "{}", row.name);
        }
    }

    /// Bytes of the C++ quantiser.
    #[test]
    fn i2_s_rows_are_those_of_bitnet_cpp() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/golden/");
        let values: Vec<i8> = std::fs::read(format!("{golden}golden-ternary.i8"))
            .expect("golden values")
            .iter()
            .map(|b| b.cast_signed())
            .collect();
        let bytes = std::fs::read(format!("{golden}golden-i2_s.bin")).expect("golden bytes");
        let encode = |values| i2s(&Block { values, d: 1.0, minimum: 0.0, sub: [0; 16] });
        let ours: Vec<u8> = values.chunks(128).flat_map(encode).collect();
        assert_eq!(ours[..], bytes[..ours.len()]);
    }
}
