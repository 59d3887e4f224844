//! GEMM over packed codes: weights are unpacked once into panels and meet every token of a batch.
//!
//! ```text
//! panel:   [step][lane] of four codes;   lane = row,   step = four slots of the activations' order
//! group:   [step][token] of four activations, eight tokens
//! product: every lane of a register is a row; a step's four activations of one token are broadcast to all of them
//!
//! fill:    bytes of L rows -> words [word][lane] by a transpose -> codes [step][lane] by shifts and masks
//! ```
//!
//! What is here is portable and generic over a weight format ([`Unit`]) and over the number of lanes; it is compiled into
//! every instruction set's `gemm.rs`, which adds the transpose, the inner product and the scaling. Blocks of rows and steps are chosen so
//! that a panel and a group stay in the first-level cache.

use super::acts::{Batch, GROUP, Order};
use crate::quant::{bitnet32, i2_r4, q2_0, q4_0, q4_1, q6_k, q8_0, qk256, t5, tq1_0, tq2_0};
use half::f16;
use std::array::from_fn;
use std::cell::RefCell;
use std::ops::Range;

/// Four bytes of each of `L` rows, little-endian: of a file, or, as a step of a panel, four codes.
pub(super) type Words<const L: usize> = [u32; L];
/// Four activations of each token of a group.
pub(super) type Tokens = [[i8; 4]; GROUP];
/// One value for each row and token.
pub(super) type Tile<T, const L: usize> = [[T; L]; GROUP];

/// What a block's scaling needs besides its scale.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    /// `y = fma(d_w · d_a, isum, y)`.
    None,
    /// `y = fma(d_w, isum, y)`: the activations have one factor for the row.
    RowFactor,
    /// And then `y = fma(m_w, s_a, y)`.
    Min,
    /// `isum` is a sum of sub-scale · sub-sum, sixteen of them.
    SubScales,
}

/// A weight format as a panel is filled from it.
pub(super) trait Unit {
    /// Order of the activations.
    const ORDER: Order;
    /// Bytes of a unit: one of the order, or several.
    const BYTES: usize;
    /// Which of them hold codes; a multiple of four.
    const CODES: Range<usize> = 0..Self::BYTES;
    /// Steps in it.
    const STEPS: usize;
    /// Steps that one scale belongs to; for rows without scales, those of a unit.
    const SUMMED: usize;
    /// Rows that share the bytes of a unit.
    const ROWS: usize = 1;
    /// `value = code − OFFSET`.
    const OFFSET: i32;
    /// Largest code, also of damaged data.
    const MAX: i32;
    /// How a block is scaled.
    const EXTRA: Extra = Extra::None;
    /// Byte of a unit's f16 scale, where units have one.
    const SCALE: usize = 0;
    /// Byte of its f16 minimum ([`Extra::Min`]).
    const MIN: usize = 0;

    /// The codes of one unit of `L` rows: `STEPS` steps from the words of [`Unit::CODES`].
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]);

    /// Sub-scale `i` of a unit ([`Extra::SubScales`]).
    fn sub_scale(_unit: &[u8], _i: usize) -> i32 {
        1
    }
}

const TWO_BITS: u32 = 0x0303_0303;
const FOUR_BITS: u32 = 0x0f0f_0f0f;

/// `(word >> shift) & mask` in every lane: one field of as many words as there are steps.
#[inline(always)]
fn field<const L: usize>(words: &[Words<L>], shift: u32, mask: u32, out: &mut [Words<L>]) {
    for (out, word) in out.as_flattened_mut().iter_mut().zip(words.as_flattened()) {
        *out = word >> shift & mask;
    }
}

/// The four fields of some words; field `f` of word `i` is step `words · f + i`.
#[inline(always)]
fn two_bits<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
    for (f, out) in out.chunks_exact_mut(words.len()).enumerate() {
        field(words, 2 * f as u32, TWO_BITS, out);
    }
}

/// Low and high nibbles of some words.
#[inline(always)]
fn nibbles<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
    let (low, high) = out.split_at_mut(words.len());
    field(words, 0, FOUR_BITS, low);
    field(words, 4, FOUR_BITS, high);
}

/// The five trits of some words; trit `k` of word `i` is step `words · k + i`: `t = (3 q) >> 8`, `q = 3 q mod 256`, for the
/// even and the odd bytes of a word in 16 bits each.
#[inline(always)]
fn trits<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
    const BYTES: u32 = 0x00ff_00ff;
    let words = words.as_flattened();
    let (first, out) = out.as_flattened_mut().split_at_mut(words.len());
    let (second, out) = out.split_at_mut(words.len());
    let (third, out) = out.split_at_mut(words.len());
    let (fourth, fifth) = out.split_at_mut(words.len());
    for (i, word) in words.iter().enumerate() {
        let (mut even, mut odd) = (word & BYTES, word >> 8 & BYTES);
        for plane in [&mut *first, second, third, fourth, fifth] {
            (even, odd) = (3 * even, 3 * odd);
            plane[i] = (even >> 8 & BYTES | odd & !BYTES) & TWO_BITS;
            (even, odd) = (even & BYTES, odd & BYTES);
        }
    }
}

#[inline(always)]
fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32_const()
}

/// I2_S in both bit orders, and QK256.
pub(super) struct I2s;
impl Unit for I2s {
    const ORDER: Order = Order::I2S;
    const BYTES: usize = qk256::TILE_BYTES;
    const STEPS: usize = 64;
    const SUMMED: usize = 64;
    const OFFSET: i32 = 1;
    const MAX: i32 = 3;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        two_bits(words, out);
    }
}

/// I2_R4: the words of four rows are the same, and each has a field of its own.
pub(super) struct R4;
impl Unit for R4 {
    const ORDER: Order = Order::R4;
    const BYTES: usize = i2_r4::ROWS * i2_r4::BLOCK_BYTES;
    const CODES: Range<usize> = 0..Self::BYTES;
    const STEPS: usize = 32;
    const SUMMED: usize = 32;
    const ROWS: usize = i2_r4::ROWS;
    const OFFSET: i32 = 1;
    const MAX: i32 = 3;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        let fours = words.as_flattened().as_chunks::<4>().0;
        for (out, word) in out.as_flattened_mut().as_chunks_mut::<4>().0.iter_mut().zip(fours) {
            for row in 0..4 {
                out[row] = word[row] >> (6 - 2 * row) & TWO_BITS;
            }
        }
    }
}

/// linear-pm2: codes 0, 1, 2, 3 become 0, 1, 3, 4.
pub(super) struct Pm2;
impl Unit for Pm2 {
    const ORDER: Order = Order::Linear256;
    const BYTES: usize = qk256::TILE_BYTES;
    const STEPS: usize = 64;
    const SUMMED: usize = 64;
    const OFFSET: i32 = 2;
    const MAX: i32 = 4;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        two_bits(words, out);
        for codes in out[..64].iter_mut().flatten() {
            *codes += *codes >> 1 & 0x0101_0101;
        }
    }
}

/// T5.
pub(super) struct T5;
impl Unit for T5 {
    const ORDER: Order = Order::T5;
    const BYTES: usize = t5::BLOCK_BYTES;
    const STEPS: usize = 80;
    const SUMMED: usize = 80;
    const OFFSET: i32 = 1;
    const MAX: i32 = 2;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        trits(words, out);
    }
}

/// TQ1_0.
pub(super) struct Tq1_0;
impl Unit for Tq1_0 {
    const ORDER: Order = Order::Tq1_0;
    const BYTES: usize = tq1_0::BLOCK_BYTES;
    const CODES: Range<usize> = 0..52;
    const STEPS: usize = 65;
    const SUMMED: usize = 65;
    const OFFSET: i32 = 1;
    const MAX: i32 = 2;
    const SCALE: usize = 52;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        trits(words, out);
    }
}

/// TQ2_0.
pub(super) struct Tq2_0;
impl Unit for Tq2_0 {
    const ORDER: Order = Order::Tq2_0;
    const BYTES: usize = tq2_0::BLOCK_BYTES;
    const CODES: Range<usize> = 0..64;
    const STEPS: usize = 64;
    const SUMMED: usize = 64;
    const OFFSET: i32 = 1;
    const MAX: i32 = 3;
    const SCALE: usize = 64;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        two_bits(words, out);
    }
}

/// BitNet32-F16.
pub(super) struct BitNet32;
impl Unit for BitNet32 {
    const ORDER: Order = Order::Linear32;
    const BYTES: usize = bitnet32::BLOCK_BYTES;
    const CODES: Range<usize> = 0..8;
    const STEPS: usize = 8;
    const SUMMED: usize = 8;
    const OFFSET: i32 = 2;
    const MAX: i32 = 3;
    const EXTRA: Extra = Extra::RowFactor;
    const SCALE: usize = 8;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        two_bits(words, out);
    }
}

/// Q2_0: a block is two units of the order, which share a scale.
pub(super) struct Q2_0;
impl Unit for Q2_0 {
    const ORDER: Order = Order::Linear32;
    const BYTES: usize = q2_0::BLOCK_BYTES;
    const CODES: Range<usize> = 2..18;
    const STEPS: usize = 16;
    const SUMMED: usize = 8;
    const OFFSET: i32 = 1;
    const MAX: i32 = 3;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        two_bits(&words[..2], &mut out[..8]);
        two_bits(&words[2..], &mut out[8..]);
    }
}

/// Q8_0: value + 128, which is the value with its sign bit turned.
pub(super) struct Q8_0;
impl Unit for Q8_0 {
    const ORDER: Order = Order::Natural32;
    const BYTES: usize = q8_0::BLOCK_BYTES;
    const CODES: Range<usize> = 2..34;
    const STEPS: usize = 8;
    const SUMMED: usize = 8;
    const OFFSET: i32 = 128;
    const MAX: i32 = 255;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        for (out, word) in out.as_flattened_mut().iter_mut().zip(words.as_flattened()) {
            *out = word ^ 0x8080_8080;
        }
    }
}

/// Q4_0.
pub(super) struct Q4_0;
impl Unit for Q4_0 {
    const ORDER: Order = Order::Natural32;
    const BYTES: usize = q4_0::BLOCK_BYTES;
    const CODES: Range<usize> = 2..18;
    const STEPS: usize = 8;
    const SUMMED: usize = 8;
    const OFFSET: i32 = 8;
    const MAX: i32 = 15;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        nibbles(words, out);
    }
}

/// Q4_1.
pub(super) struct Q4_1;
impl Unit for Q4_1 {
    const ORDER: Order = Order::Natural32;
    const BYTES: usize = q4_1::BLOCK_BYTES;
    const CODES: Range<usize> = 4..20;
    const STEPS: usize = 8;
    const SUMMED: usize = 8;
    const OFFSET: i32 = 0;
    const MAX: i32 = 15;
    const EXTRA: Extra = Extra::Min;
    const MIN: usize = 2;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        nibbles(words, out);
    }
}

/// Q6_K: low nibbles in `ql` (128 bytes), two high bits in `qh` (64), sub-scales (16), scale.
pub(super) struct Q6K;
impl Unit for Q6K {
    const ORDER: Order = Order::Natural256;
    const BYTES: usize = q6_k::BLOCK_BYTES;
    const CODES: Range<usize> = 0..192;
    const STEPS: usize = 64;
    const SUMMED: usize = 64;
    const OFFSET: i32 = 32;
    const MAX: i32 = 63;
    const EXTRA: Extra = Extra::SubScales;
    const SCALE: usize = 208;

    #[inline(always)]
    fn unpack<const L: usize>(words: &[Words<L>], out: &mut [Words<L>]) {
        let (low, high) = words.split_at(32);
        for (part, out) in out.chunks_exact_mut(8).enumerate() {
            let (half, part) = (part / 4, part % 4);
            let low = low[16 * half + 8 * (part % 2)..][..8].as_flattened();
            let high = high[8 * half..][..8].as_flattened();
            for ((out, low), high) in out.as_flattened_mut().iter_mut().zip(low).zip(high) {
                *out = low >> (4 * (part / 2)) & FOUR_BITS | (high >> (2 * part) & TWO_BITS) << 4;
            }
        }
    }

    #[inline(always)]
    fn sub_scale(unit: &[u8], i: usize) -> i32 {
        i32::from(unit[192 + i].cast_signed())
    }
}

/// Steps of a panel at most: with 32 to 48 rows it is about as large as a first-level cache.
const PANEL_STEPS: usize = 128;

/// Words of the largest unit, Q6_K's.
const MAX_WORDS: usize = 48;

/// The rows of a GEMM as panels are filled from them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    w: &'a [u8],
    row_bytes: usize,
    rows: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(w: &'a [u8], row_bytes: usize, rows: usize) -> Rows<'a> {
        super::assert_rows(w, row_bytes, rows);
        Rows { w, row_bytes, rows }
    }

    /// Unit `u` of row `r`, or of the rows that it shares it with; beyond the last row it is the last row's again.
    #[inline(always)]
    fn unit<U: Unit>(&self, r: usize, u: usize) -> &'a [u8] {
        let first = r.min(self.rows - 1) / U::ROWS * U::ROWS;
        let row = &self.w[first * self.row_bytes..][..U::ROWS * self.row_bytes];
        &row[u * U::BYTES..row.len().min((u + 1) * U::BYTES)]
    }

    /// What comes nearer while the block of up to `count` rows from `first` on is met in `steps` steps.
    fn ahead(&self, first: usize, count: usize, steps: usize) -> Ahead {
        let bytes = count.min(self.rows - first) * self.row_bytes;
        let lines = bytes.div_ceil(Ahead::LINE).div_ceil(steps.max(1));
        Ahead { next: self.w.as_ptr().wrapping_add(first * self.row_bytes + bytes), lines }
    }
}

thread_local! {
    /// Memory for the panels of one call after the other.
    static PANELS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Memory for panels, aligned to a cache line; what it holds at first is what a panel before left.
struct Scratch(Vec<u32>);

impl Scratch {
    const LINE: usize = 64 / size_of::<u32>();

    fn new<const L: usize>(steps: usize) -> Scratch {
        let mut memory = PANELS.take();
        memory.resize(memory.len().max(steps * L + Self::LINE), 0);
        Scratch(memory)
    }

    fn steps<const L: usize>(&mut self) -> &mut [Words<L>] {
        let skip = self.0.as_ptr().align_offset(64).min(Self::LINE);
        self.0[skip..].as_chunks_mut().0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        PANELS.set(std::mem::take(&mut self.0));
    }
}

/// Brings the bytes of the next block of rows nearer, some lines with every group of tokens: a block is read once, in as
/// many streams as it has rows, and the processor follows only a few. It goes on past the last block of a call, where the
/// next call's rows are.
struct Ahead {
    next: *const u8,
    lines: usize,
}

impl Ahead {
    const LINE: usize = 64;

    #[inline(always)]
    fn step(&mut self, fetch: &impl Fn(*const u8)) {
        for _ in 0..self.lines {
            fetch(self.next);
            self.next = self.next.wrapping_add(Self::LINE);
        }
    }
}

/// A value that begins with a cache line, so that no register of it lies in two.
#[derive(Clone)]
#[repr(align(64))]
struct Line<T>(T);

/// The codes of `L` rows over some units. `transpose` turns as many bytes of each row into words.
#[inline(always)]
fn fill<U: Unit, const L: usize>(
    rows: Rows<'_>,
    first: usize,
    units: Range<usize>,
    transpose: &impl Fn([&[u8]; L], &mut [Words<L>]),
    out: &mut [Words<L>],
) {
    let mut words = Line([[0; L]; MAX_WORDS]);
    let words = &mut words.0[..U::CODES.len() / 4];
    for (u, out) in units.zip(out.chunks_exact_mut(U::STEPS)) {
        // Loops and not `map`, whose closure the compiler may leave a call.
        let mut unit = [&[][..]; L];
        for l in 0..L {
            unit[l] = rows.unit::<U>(first + l, u);
        }
        if unit[0].len() == U::BYTES {
            for unit in &mut unit {
                *unit = &unit[U::CODES];
            }
            transpose(unit, words);
        } else {
            // Half a tile: the other half meets activations that are 0.
            let padded = unit.map(|unit| {
                let mut whole = [0; 64];
                whole[..unit.len()].copy_from_slice(unit);
                whole
            });
            transpose(from_fn(|l| &padded[l][U::CODES]), words);
        }
        U::unpack(words, out);
    }
}

/// [`fill`]'s transpose, one word after the other.
#[inline(always)]
pub(super) fn transpose<const L: usize>(rows: [&[u8]; L], out: &mut [Words<L>]) {
    for (l, row) in rows.iter().enumerate() {
        for (word, out) in row.as_chunks().0.iter().zip(out.iter_mut()) {
            out[l] = u32::from_le_bytes(*word);
        }
    }
}

/// What a GEMM's inner product is given: `R` panels of the same steps, one group's activations.
pub(super) struct Inner<'a, const L: usize, const R: usize> {
    /// Codes of `L` rows each.
    pub(super) panels: [&'a [Words<L>]; R],
    /// As many steps.
    pub(super) tokens: &'a [Tokens],
}

/// `out[t][r] = Σ value · q`, exact: rows without scales. `add` adds the products of codes to a tile of sums.
#[inline(always)]
pub(super) fn gemm_rows<U: Unit, const L: usize, const R: usize>(
    orders: &[Order],
    w: &[u8],
    row_bytes: usize,
    x: &Batch,
    out: &mut [i32],
    transpose: impl Fn([&[u8]; L], &mut [Words<L>]),
    fetch: impl Fn(*const u8),
    add: impl Fn(Inner<'_, L, R>, &mut [Tile<i32, L>; R]),
) {
    let rows = out.len() / x.tokens();
    assert_eq!(rows * x.tokens(), out.len(), "outputs are not whole rows for {} tokens", x.tokens());
    x.first().assert_fits(orders, U::BYTES / U::ROWS, w, row_bytes, rows);
    assert!(rows.is_multiple_of(U::ROWS), "{rows} rows are not whole groups of {}", U::ROWS);
    let (units, all) = ((U::ROWS * row_bytes).div_ceil(U::BYTES), Rows::new(w, row_bytes, rows));
    let units_at_once = (PANEL_STEPS / U::STEPS).max(1);
    let mut scratch = Scratch::new::<L>(R * units_at_once * U::STEPS);
    let panels = scratch.steps::<L>();
    let mut sums = vec![Line([[[0; L]; GROUP]; R]); x.tokens().div_ceil(GROUP)];
    for first in (0..rows).step_by(R * L) {
        if first > 0 {
            sums.fill(Line([[[0; L]; GROUP]; R]));
        }
        let mut ahead = all.ahead(first, R * L, units.div_ceil(units_at_once) * sums.len());
        for unit in (0..units).step_by(units_at_once) {
            let units = unit..units.min(unit + units_at_once);
            let (from, steps) = (unit * U::STEPS, units.len() * U::STEPS);
            for (r, panel) in panels.chunks_exact_mut(units_at_once * U::STEPS).take(R).enumerate() {
                fill::<U, L>(all, first + r * L, units.clone(), &transpose, panel);
            }
            let panel = |r: usize| &panels[r * units_at_once * U::STEPS..][..steps];
            for (group, sums) in x.groups().iter().zip(&mut sums) {
                ahead.step(&fetch);
                let tokens = &group.slots[from..from + steps];
                add(Inner { panels: from_fn(panel), tokens }, &mut sums.0);
            }
        }
        for ((group, sums), out) in x.groups().iter().zip(&sums).zip(out.chunks_mut(GROUP * rows)) {
            let less = group.sums[0].map(|sum| U::OFFSET * sum);
            scatter(out, rows, first, &sums.0, |sum, t| sum - less[t]);
        }
    }
}

/// Writes one group's values of up to `R · L` rows from `first` on into its part of the output, `(tokens, rows)`.
#[inline(always)]
fn scatter<T: Copy, const L: usize, const R: usize>(
    out: &mut [T],
    rows: usize,
    first: usize,
    tiles: &[Tile<T, L>; R],
    value: impl Fn(T, usize) -> T,
) {
    for (t, out) in out.chunks_mut(rows).enumerate() {
        for (tile, out) in tiles.iter().zip(out[first..].chunks_mut(L)) {
            let mut values = tile[t];
            for l in 0..L {
                values[l] = value(values[l], t);
            }
            match out.as_mut_array() {
                Some(out) => *out = values,
                None => out.copy_from_slice(&values[..out.len()]),
            }
        }
    }
}

/// Factors of `L` rows for one block: what scaling needs besides the sums.
#[derive(Clone, Copy)]
pub(super) struct Factors<const L: usize> {
    /// `d_w`.
    pub(super) scales: [f32; L],
    /// `m_w` ([`Extra::Min`]).
    pub(super) mins: [f32; L],
    /// Sub-scales ([`Extra::SubScales`]).
    pub(super) sub_scales: [[i32; L]; 16],
}

/// One block of `R · L` rows with one group of tokens.
pub(super) struct Block<'a, const L: usize, const R: usize> {
    /// Codes and activations of the block.
    pub(super) inner: Inner<'a, L, R>,
    /// Factors of the rows.
    pub(super) factors: [&'a Factors<L>; R],
    /// `Σ q` of the block, or of each of its sixteen parts.
    pub(super) sums: &'a [[i32; GROUP]],
    /// `d_a`.
    pub(super) scales: &'a [f32; GROUP],
    /// `s_a`.
    pub(super) mins: &'a [f32; GROUP],
}

/// `out[t][r]` = the fold of blocks in rising order from +0.0: `step` takes one block on.
#[inline(always)]
pub(super) fn gemm_blocks<U: Unit, const L: usize, const R: usize>(
    w: &[u8],
    x: &Batch,
    out: &mut [f32],
    transpose: impl Fn([&[u8]; L], &mut [Words<L>]),
    fetch: impl Fn(*const u8),
    step: impl Fn(Block<'_, L, R>, &mut [Tile<f32, L>; R]),
) {
    const ONES: [f32; GROUP] = [1.0; GROUP];
    let rows = out.len() / x.tokens();
    assert_eq!(rows * x.tokens(), out.len(), "outputs are not whole rows for {} tokens", x.tokens());
    let per_unit = U::STEPS / U::SUMMED;
    let block = U::ORDER.elements() * per_unit;
    let row_bytes = x.first().assert_blocks(U::ORDER, block, U::BYTES, w, rows);
    let (units, all) = (row_bytes / U::BYTES, Rows::new(w, row_bytes, rows));
    let units_at_once = (PANEL_STEPS / U::STEPS).max(1);
    let mut scratch = Scratch::new::<L>(R * units_at_once * U::STEPS);
    let panels = scratch.steps::<L>();
    let none = Factors { scales: [0.0; L], mins: [0.0; L], sub_scales: [[0; L]; 16] };
    let mut factors = vec![none; R * units_at_once];
    let mut ys = vec![Line([[[0.0; L]; GROUP]; R]); x.tokens().div_ceil(GROUP)];
    let parts = block / per_unit / U::ORDER.summed().unwrap_or(block);
    for first in (0..rows).step_by(R * L) {
        if first > 0 {
            ys.fill(Line([[[0.0; L]; GROUP]; R]));
        }
        let mut ahead = all.ahead(first, R * L, units.div_ceil(units_at_once) * ys.len());
        for unit in (0..units).step_by(units_at_once) {
            let range = unit..units.min(unit + units_at_once);
            for r in 0..R {
                let panel = &mut panels[r * units_at_once * U::STEPS..][..range.len() * U::STEPS];
                fill::<U, L>(all, first + r * L, range.clone(), &transpose, panel);
                for (u, factors) in range.clone().zip(&mut factors[r * units_at_once..]) {
                    fill_factors::<U, L>(all, first + r * L, u, factors);
                }
            }
            for (group, y) in x.groups().iter().zip(&mut ys) {
                ahead.step(&fetch);
                for (b, sub) in
                    range.clone().flat_map(|u| (0..per_unit).map(move |sub| (u * per_unit + sub, sub)))
                {
                    let at = (b / per_unit - unit) * U::STEPS + sub * U::SUMMED;
                    let panel = |r: usize| &panels[r * units_at_once * U::STEPS + at..][..U::SUMMED];
                    let row_factor = U::EXTRA == Extra::RowFactor;
                    step(
                        Block {
                            inner: Inner {
                                panels: from_fn(panel),
                                tokens: &group.slots[b * U::SUMMED..][..U::SUMMED],
                            },
                            factors: from_fn(|r| &factors[r * units_at_once + b / per_unit - unit]),
                            sums: &group.sums[b * parts..][..parts],
                            scales: if row_factor { &ONES } else { &group.scales[b] },
                            mins: if U::EXTRA == Extra::Min { &group.mins[b] } else { &ONES },
                        },
                        &mut y.0,
                    );
                }
            }
        }
        for ((group, y), out) in x.groups().iter().zip(&ys).zip(out.chunks_mut(GROUP * rows)) {
            if U::EXTRA == Extra::RowFactor {
                let s = group.scales[0];
                scatter(out, rows, first, &y.0, |y, t| y / s[t]);
            } else {
                scatter(out, rows, first, &y.0, |y, _| y);
            }
        }
    }
}

#[inline(always)]
fn fill_factors<U: Unit, const L: usize>(rows: Rows<'_>, first: usize, u: usize, out: &mut Factors<L>) {
    for l in 0..L {
        let unit = rows.unit::<U>(first + l, u);
        out.scales[l] = f16_at(unit, U::SCALE);
        if U::EXTRA == Extra::Min {
            out.mins[l] = f16_at(unit, U::MIN);
        }
        if U::EXTRA == Extra::SubScales {
            for i in 0..16 {
                out.sub_scales[i][l] = U::sub_scale(unit, i);
            }
        }
    }
}
