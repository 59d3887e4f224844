//! Quantised activations: in natural order, and in the order in which the kernels of a weight format meet them.
//!
//! The order of an integer sum is free. So instead of unpacking weights into the order of the activations, the
//! activations (a few kilobytes) are permuted once into the order in which a register of packed codes gives its fields:
//!
//! ```text
//! order      unit                            slot                          element of the unit
//! I2S        64 bytes, 256 codes             64 f + p                      128 (p / 32) + 32 (3 − f) + p % 32
//! I2S64      64 bytes, 256 codes             64 f + p                      64 (p / 16) + 16 (3 − f) + p % 16
//! Linear256  64 bytes, 256 codes             64 f + p                      4 p + f
//! Tq2_0      64 bytes, 256 codes             64 f + p                      128 (p / 32) + 32 f + p % 32
//! Linear32   8 bytes, 32 codes               8 f + p                       4 p + f
//! R4         128 bytes, 128 columns          c                             c
//! T5         64 bytes, 320 trits             64 k + p                      64 k + p
//! Tq1_0      52 bytes, 256 trits, 4 unused   52 k + p                      p < 32: 32 k + p;  p < 48: 160 + 16 k + p − 32;
//!                                                                          else, k < 4: 240 + 4 k + p − 48
//! Natural32, Natural256                      e                             e
//!
//! field f of a byte = (byte >> 2f) & 3;   p = byte of the unit;   k = trit of a byte, the most significant first
//! ```
//!
//! One kernel then serves every 2-bit layout without scales inside, on bytes as the file holds them.

use crate::quant::{Format, i2_r4};

/// Tokens that a GEMM kernel takes together: one group of a [`Batch`].
pub const GROUP: usize = 8;

/// Zero bytes after the slots: a register may read past the last unit, where its weights are 0.
const SLACK: usize = 64;

/// An order of activations; the table is in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// I2_S in its 128/32 layout, and QK256.
    I2S,
    /// I2_S in its 64/16 layout.
    I2S64,
    /// Four neighbours in a byte, tiles of 64 bytes.
    Linear256,
    /// TQ2_0.
    Tq2_0,
    /// Four neighbours in a byte, blocks of 8 bytes: BitNet32 and Q2_0.
    Linear32,
    /// As they are, blocks of 128 columns of four rows.
    R4,
    /// Five planes of 64 trits.
    T5,
    /// TQ1_0.
    Tq1_0,
    /// As they are, blocks of 32: Q8_0, Q4_0, Q4_1.
    Natural32,
    /// As they are, blocks of 256: Q6_K.
    Natural256,
}

/// How activations are quantised: one factor for a row, or one for every block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantiser {
    /// `i8`: one factor `s` a row; [`crate::kernels::Kernels::quantise_i8`].
    I8,
    /// `q8_K`: blocks of 256; [`crate::kernels::Kernels::quantise_q8_k`].
    Q8K,
    /// `q8_0`: blocks of 32, f16 scales; [`crate::kernels::Kernels::quantise_q8_0`].
    Q8_0,
    /// `q8_1`: as `q8_0`, with the scaled sum of each block; [`crate::kernels::Kernels::quantise_q8_1`].
    Q8_1,
}

impl Quantiser {
    /// Name as the field writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Quantiser::I8 => "i8",
            Quantiser::Q8K => "q8_K",
            Quantiser::Q8_0 => "q8_0",
            Quantiser::Q8_1 => "q8_1",
        }
    }

    /// Columns that share a factor; `None` for a whole row.
    pub const fn block(self) -> Option<usize> {
        match self {
            Quantiser::I8 => None,
            Quantiser::Q8K => Some(256),
            Quantiser::Q8_0 | Quantiser::Q8_1 => Some(32),
        }
    }
}

/// What the kernels of a weight format ask of activations; `None` for float weights.
pub const fn wanted_by(format: Format) -> Option<(Quantiser, Order)> {
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => None,
        Format::I2S | Format::Qk256 => Some((Quantiser::I8, Order::I2S)),
        Format::I2S64 => Some((Quantiser::I8, Order::I2S64)),
        Format::LinearPm2 => Some((Quantiser::I8, Order::Linear256)),
        Format::I2R4 => Some((Quantiser::I8, Order::R4)),
        Format::T5 => Some((Quantiser::I8, Order::T5)),
        Format::BitNet32 => Some((Quantiser::I8, Order::Linear32)),
        Format::Tq1_0 => Some((Quantiser::Q8K, Order::Tq1_0)),
        Format::Tq2_0 => Some((Quantiser::Q8K, Order::Tq2_0)),
        Format::Q6K => Some((Quantiser::Q8K, Order::Natural256)),
        Format::Q2_0 => Some((Quantiser::Q8_0, Order::Linear32)),
        Format::Q8_0 | Format::Q4_0 => Some((Quantiser::Q8_0, Order::Natural32)),
        Format::Q4_1 => Some((Quantiser::Q8_1, Order::Natural32)),
    }
}

/// Neighbours that stay neighbours: `len` elements from `element` on go to `slot` and on.
#[derive(Clone, Copy)]
struct Run {
    slot: usize,
    element: usize,
    len: usize,
}

const fn fields<const N: usize>(bytes: usize, group: usize, falling: bool) -> [Run; N] {
    // Bytes in groups of `group`: field f of group g holds `group` neighbours.
    let mut runs = [Run { slot: 0, element: 0, len: group }; N];
    let groups = bytes / group;
    let mut i = 0;
    while i < N {
        let (f, g) = (i / groups, i % groups);
        let place = if falling { 3 - f } else { f };
        runs[i].slot = bytes * f + group * g;
        runs[i].element = 4 * group * g + group * place;
        i += 1;
    }
    runs
}

const fn trits_of_tq1_0() -> [Run; 14] {
    let mut runs = [Run { slot: 0, element: 0, len: 0 }; 14];
    let mut k = 0;
    while k < 5 {
        runs[3 * k] = Run { slot: 52 * k, element: 32 * k, len: 32 };
        runs[3 * k + 1] = Run { slot: 52 * k + 32, element: 160 + 16 * k, len: 16 };
        if k < 4 {
            runs[3 * k + 2] = Run { slot: 52 * k + 48, element: 240 + 4 * k, len: 4 };
        }
        k += 1;
    }
    runs
}

static I2S: [Run; 8] = fields(64, 32, true);
static I2S64: [Run; 16] = fields(64, 16, true);
static LINEAR_256: [Run; 256] = fields(64, 1, false);
static LINEAR_32: [Run; 32] = fields(8, 1, false);
static TQ2_0: [Run; 8] = fields(64, 32, false);
static TQ1_0: [Run; 14] = trits_of_tq1_0();
static NATURAL_32: [Run; 1] = [Run { slot: 0, element: 0, len: 32 }];
static NATURAL_128: [Run; 1] = [Run { slot: 0, element: 0, len: 128 }];
static NATURAL_256: [Run; 1] = [Run { slot: 0, element: 0, len: 256 }];
static NATURAL_320: [Run; 1] = [Run { slot: 0, element: 0, len: 320 }];

impl Order {
    /// Elements in a unit.
    pub const fn elements(self) -> usize {
        match self {
            Order::Linear32 | Order::Natural32 => 32,
            Order::R4 => 128,
            Order::T5 => 320,
            _ => 256,
        }
    }

    /// Slots of a unit: its elements, and those that stay 0.
    pub const fn slots(self) -> usize {
        match self {
            Order::Tq1_0 => 260,
            _ => self.elements(),
        }
    }

    /// Elements whose sum a kernel takes for itself; `None` for a whole row.
    pub const fn summed(self) -> Option<usize> {
        match self {
            Order::I2S | Order::I2S64 | Order::Linear256 | Order::R4 | Order::T5 => None,
            Order::Tq1_0 | Order::Tq2_0 => Some(256),
            Order::Linear32 | Order::Natural32 => Some(32),
            Order::Natural256 => Some(16),
        }
    }

    fn runs(self) -> &'static [Run] {
        match self {
            Order::I2S => &I2S,
            Order::I2S64 => &I2S64,
            Order::Linear256 => &LINEAR_256,
            Order::Tq2_0 => &TQ2_0,
            Order::Linear32 => &LINEAR_32,
            Order::R4 => &NATURAL_128,
            Order::T5 => &NATURAL_320,
            Order::Tq1_0 => &TQ1_0,
            Order::Natural32 => &NATURAL_32,
            Order::Natural256 => &NATURAL_256,
        }
    }

    /// `q` in this order, padded with zeros to whole units, and some more.
    fn permute(self, q: &[i8]) -> Vec<i8> {
        let mut out = vec![0; q.len().div_ceil(self.elements()) * self.slots() + SLACK];
        for (slots, unit) in out.chunks_exact_mut(self.slots()).zip(q.chunks(self.elements())) {
            for run in self.runs() {
                let Some(values) = unit.get(run.element..) else { continue };
                let slots = &mut slots[run.slot..][..run.len];
                // Lengths that are known make a move of a register or two.
                match run.len {
                    32 => copy::<32>(values, slots),
                    16 => copy::<16>(values, slots),
                    1 => copy::<1>(values, slots),
                    _ => copy_some(values, slots),
                }
            }
        }
        out
    }
}

/// The first `N` values, or as many as there are.
#[inline]
fn copy<const N: usize>(from: &[i8], to: &mut [i8]) {
    match (from.first_chunk::<N>(), to.first_chunk_mut()) {
        (Some(from), Some(to)) => *to = *from,
        _ => copy_some(from, to),
    }
}

fn copy_some(from: &[i8], to: &mut [i8]) {
    let n = from.len().min(to.len());
    to[..n].copy_from_slice(&from[..n]);
}

/// One activation row, quantised.
#[derive(Debug, Clone, PartialEq)]
pub struct Acts {
    order: Order,
    natural: Vec<i8>,
    slots: Vec<i8>,
    sums: Vec<i32>,
    scales: Vec<f32>,
    mins: Vec<f32>,
}

impl Acts {
    /// Permutes `q` (natural order, one value per column) for weights of `order`; `scales` has one factor for the row or for
    /// each block (`s` or `d`), `mins` is empty or has `s` of each `q8_1` block.
    pub fn new(order: Order, q: Vec<i8>, scales: Vec<f32>, mins: Vec<f32>) -> Acts {
        let sum = |part: &[i8]| part.iter().map(|&v| i32::from(v)).sum();
        let sums = match order.summed() {
            None => vec![sum(&q)],
            Some(n) => q.chunks(n).map(sum).collect(),
        };
        Acts { order, slots: order.permute(&q), natural: q, sums, scales, mins }
    }

    /// A row of `i8` activations with factor `s`.
    pub fn row(order: Order, q: Vec<i8>, s: f32) -> Acts {
        Acts::new(order, q, vec![s], Vec::new())
    }

    /// The order of [`Acts::slots`].
    pub fn order(&self) -> Order {
        self.order
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.natural.len()
    }

    /// One value per column, in natural order.
    pub fn natural(&self) -> &[i8] {
        &self.natural
    }

    /// Values in kernel order, whole units.
    pub fn slots(&self) -> &[i8] {
        &self.slots[..self.slots.len() - SLACK]
    }

    /// [`Acts::slots`] and 64 zeros after them, for loads that reach past a unit.
    pub fn slots_and_slack(&self) -> &[i8] {
        &self.slots
    }

    /// `Σ q` of each part of [`Order::summed`] elements: what a kernel on codes from 0 on subtracts.
    pub fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// `Σ q` of a row that is one block.
    pub fn sum(&self) -> i32 {
        self.sums[0]
    }

    /// The factor of each block.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// `s` of each `q8_1` block.
    pub fn mins(&self) -> &[f32] {
        &self.mins
    }

    /// What rows of one batch have in common: order, columns, blocks.
    fn shape(&self) -> (Order, [usize; 3]) {
        (self.order, [self.cols(), self.scales.len(), self.mins.len()])
    }

    /// Asserts what a kernel's loads rely on: `w` is `rows` rows of `row_bytes`, in units of `unit_bytes` (a last one may be
    /// shorter), and this row has as many units, in one of `orders`.
    #[track_caller]
    pub(crate) fn assert_fits(
        &self,
        orders: &[Order],
        unit_bytes: usize,
        w: &[u8],
        row_bytes: usize,
        rows: usize,
    ) {
        super::assert_rows(w, row_bytes, rows);
        assert!(orders.contains(&self.order), "activations are in the order of another format");
        assert!(row_bytes.is_multiple_of(32), "rows of {row_bytes} bytes are not whole blocks of 32");
        let units = self.slots().len() / self.order.slots();
        assert_eq!(units, row_bytes.div_ceil(unit_bytes), "activations do not fit rows of {row_bytes} bytes");
    }

    /// [`Acts::assert_fits`] for I2_R4, whose rows come in fours.
    #[track_caller]
    pub(crate) fn assert_fits_r4(&self, w: &[u8], row_bytes: usize, rows: usize) {
        self.assert_fits(&[Order::R4], i2_r4::BLOCK_BYTES, w, row_bytes, rows);
        assert!(rows.is_multiple_of(i2_r4::ROWS), "{rows} rows are not whole groups of {}", i2_r4::ROWS);
    }

    /// The same for weights in blocks of `block` columns, `block_bytes` each; returns the bytes of a row.
    #[track_caller]
    pub(crate) fn assert_blocks(
        &self,
        order: Order,
        block: usize,
        block_bytes: usize,
        w: &[u8],
        rows: usize,
    ) -> usize {
        assert_eq!(self.order, order, "activations are in the order of another format");
        assert!(self.cols().is_multiple_of(block), "{} columns are not whole blocks of {block}", self.cols());
        let row_bytes = self.cols() / block * block_bytes;
        super::assert_rows(w, row_bytes, rows);
        row_bytes
    }
}

/// Several activation rows of one order and length, in groups of [`GROUP`] tokens: what a GEMM kernel takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch(Vec<Group>);

impl Batch {
    /// Interleaves `rows`.
    ///
    /// # Panics
    /// - if there are none, or they differ in order, length or blocks.
    pub fn new(rows: Vec<Acts>) -> Batch {
        let mut rows = rows.into_iter();
        let groups = (0..rows.len().div_ceil(GROUP)).map(|_| Group::new(rows.by_ref().take(GROUP).collect()));
        Batch::of(groups.collect())
    }

    /// Puts groups together that were made each for itself.
    ///
    /// # Panics
    /// - if there are none, they differ in order, length or blocks, or one before the last is not full.
    pub fn of(groups: Vec<Group>) -> Batch {
        let (last, full) = groups.split_last().expect("a batch has at least one token");
        assert!(full.iter().all(|group| group.rows.len() == GROUP), "a group before the last is not full");
        assert!(full.iter().all(|group| group.shape() == last.shape()), "rows of one batch differ in shape");
        Batch(groups)
    }

    /// The rows, one a token.
    pub fn rows(&self) -> impl Iterator<Item = &Acts> {
        self.0.iter().flat_map(|group| &group.rows)
    }

    /// The first row; all have its shape.
    pub fn first(&self) -> &Acts {
        &self.0[0].rows[0]
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.0.iter().map(|group| group.rows.len()).sum()
    }

    /// Groups of tokens.
    #[cfg_attr(
        not(any(test, target_arch = "x86_64", target_arch = "aarch64")),
        expect(dead_code, reason = "no SIMD")
    )]
    pub(crate) fn groups(&self) -> &[Group] {
        &self.0
    }
}

/// Up to [`GROUP`] tokens of a [`Batch`], interleaved; zeros for those that a last group lacks.
///
/// ```text
/// slots:             [slot / 4][token of the group][slot % 4]
/// sums, scales, …:   [block][token of the group]
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub(crate) rows: Vec<Acts>,
    pub(crate) slots: Vec<[[i8; 4]; GROUP]>,
    pub(crate) sums: Vec<[i32; GROUP]>,
    pub(crate) scales: Vec<[f32; GROUP]>,
    pub(crate) mins: Vec<[f32; GROUP]>,
}

impl Group {
    /// Interleaves `rows`, up to [`GROUP`] of them.
    ///
    /// # Panics
    /// - if there are none or more, or they differ in order, length or blocks.
    pub fn new(rows: Vec<Acts>) -> Group {
        assert!((1..=GROUP).contains(&rows.len()), "a group has 1 to {GROUP} tokens");
        assert!(rows.iter().all(|row| row.shape() == rows[0].shape()), "rows of one group differ in shape");
        let slots = interleave(&rows, |row| row.slots().as_chunks().0);
        let sums = interleave(&rows, |row| &row.sums);
        let scales = interleave(&rows, |row| &row.scales);
        let mins = interleave(&rows, |row| &row.mins);
        Group { rows, slots, sums, scales, mins }
    }

    fn shape(&self) -> (Order, [usize; 3]) {
        self.rows[0].shape()
    }
}

/// `[i][token of the group]`, with defaults for the tokens that it lacks.
fn interleave<T: Copy + Default>(rows: &[Acts], part: impl Fn(&Acts) -> &[T]) -> Vec<[T; GROUP]> {
    let mut out = vec![[T::default(); GROUP]; part(&rows[0]).len()];
    for (token, row) in rows.iter().enumerate() {
        for (slot, value) in out.iter_mut().zip(part(row)) {
            slot[token] = *value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn natural(n: usize) -> Vec<i8> {
        (0..n).map(|i| (i % 251) as i8).collect()
    }

    #[test]
    fn every_activation_meets_its_weight() {
        type Element = fn(usize, usize) -> usize;
        let two_bits: [(Order, Element); 4] = [
            (Order::I2S, |f, p| 128 * (p / 32) + 32 * (3 - f) + p % 32),
            (Order::I2S64, |f, p| 64 * (p / 16) + 16 * (3 - f) + p % 16),
            (Order::Linear256, |f, p| 4 * p + f),
            (Order::Tq2_0, |f, p| 128 * (p / 32) + 32 * f + p % 32),
        ];
        for (order, element) in two_bits {
            for cols in [1_usize, 31, 32, 33, 128, 255, 256, 300, 640] {
                let acts = Acts::row(order, natural(cols), 1.0);
                assert_eq!(acts.slots().len(), cols.div_ceil(256) * 256);
                for (at, &value) in acts.slots().iter().enumerate() {
                    let e = 256 * (at / 256) + element(at % 256 / 64, at % 64);
                    let expected = acts.natural().get(e).copied().unwrap_or(0);
                    assert_eq!(value, expected, "{order:?}, cols {cols}, at {at}");
                }
            }
        }
    }

    #[test]
    fn blocks_and_trits_are_permuted_too() {
        let acts = Acts::row(Order::Linear32, natural(96), 1.0);
        for (at, &value) in acts.slots().iter().enumerate() {
            assert_eq!(value, acts.natural()[at / 32 * 32 + 4 * (at % 8) + at % 32 / 8]);
        }
        let acts = Acts::new(Order::Tq1_0, natural(512), vec![1.0; 2], Vec::new());
        assert_eq!(acts.slots().len(), 520);
        for (at, &value) in acts.slots().iter().enumerate() {
            let (k, p) = (at % 260 / 52, at % 52);
            let e = match p {
                0..32 => 32 * k + p,
                32..48 => 160 + 16 * k + p - 32,
                _ if k < 4 => 240 + 4 * k + p - 48,
                _ => 1000,
            };
            let expected = if e < 256 { acts.natural()[at / 260 * 256 + e] } else { 0 };
            assert_eq!(value, expected, "at {at}");
        }
    }

    #[test]
    fn a_batch_interleaves_tokens_in_groups_of_eight() {
        let row = |t: usize| {
            let q = (0..64).map(|i| (i + 3 * t) as i8).collect();
            Acts::new(Order::Natural32, q, vec![t as f32, -(t as f32)], Vec::new())
        };
        let batch = Batch::new((0..11).map(row).collect());
        let groups = batch.groups();
        assert_eq!((batch.tokens(), groups.len(), groups[1].rows.len()), (11, 2, 3));
        assert_eq!(groups[1].slots[5][2], [50, 51, 52, 53]);
        assert_eq!(groups[1].slots[5][3], [0; 4]);
        assert_eq!((groups[1].scales[1][2], groups[1].sums[0][0]), (-10.0, (0..32).map(|i| i + 24).sum()));
    }
}
