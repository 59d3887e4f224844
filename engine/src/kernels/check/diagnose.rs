//! Which kind of error a wrong result shows: the same product computed with one thing wrong at a time.
//!
//! A wrong result says *that* a kernel is wrong. Nearly all that went wrong in shipped kernels is one of a few misreadings;
//! each has a bit pattern of its own. So after a mismatch (never before) the case is computed again under each of
//! `READINGS`, and those that give exactly the bits seen are suspects. One case may fit several; [`Votes`] over a few
//! wrong cases settles it.

use crate::exact::exp::exp;
use crate::kernels::Acts;
use crate::kernels::acts::Order;
use crate::kind::Kind;
use crate::quant::{Format, bitnet32, i2_r4, q2_0, q4_0, q4_1, q6_k, q8_0, t5, tq1_0, tq2_0};
use half::{bf16, f16};

/// A product of weights and activations: what went into a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// Format of the weights. `I2S`, `I2S64` and `Qk256` differ for row formats by what the order of the activations says.
    pub format: Format,
    /// Encoded rows, one after the other.
    pub w: &'a [u8],
    /// Bytes of a row.
    pub row_bytes: usize,
    /// One row of activations a token.
    pub x: Inputs<'a>,
}

/// Activations of a [`Case`].
#[derive(Debug, Clone, Copy)]
pub enum Inputs<'a> {
    /// Quantised rows.
    Quantised(&'a [Acts]),
    /// `(tokens, cols)` floats, for float weights: columns, values.
    Floats(usize, &'a [f32]),
}

impl Case<'_> {
    fn rows(&self) -> usize {
        self.w.len().checked_div(self.row_bytes).unwrap_or(0)
    }

    fn tokens(&self) -> usize {
        match self.x {
            Inputs::Quantised(rows) => rows.len(),
            Inputs::Floats(cols, x) => x.len().checked_div(cols).unwrap_or(1),
        }
    }

    fn cols(&self) -> usize {
        match self.x {
            Inputs::Quantised(rows) => rows.first().map_or(0, Acts::cols),
            Inputs::Floats(cols, _) => cols,
        }
    }

    /// Multiply-adds of the case: what a diagnosis costs, times the number of readings.
    pub(super) fn cost(&self) -> usize {
        self.rows() * self.tokens() * self.cols()
    }

    /// I2_S activations say which packing they meet.
    fn format(&self) -> Format {
        match (self.format, self.x) {
            (Format::I2S | Format::Qk256, Inputs::Quantised([x, ..])) if x.order() == Order::I2S64 => {
                Format::I2S64
            }
            (Format::Qk256, _) => Format::I2S,
            (format, _) => format,
        }
    }
}

/// The kind of error that gives `got` for `case`: bits of i32 sums for row formats, of f32 for the others, `(tokens, rows)`.
/// The first that fits, or `None`: then it is none of those known here, or the result is right.
pub fn diagnose(case: &Case<'_>, got: &[u32]) -> Option<Kind> {
    suspects(case, got).first().copied()
}

/// Every kind that gives exactly `got`, the likelier first.
pub fn suspects(case: &Case<'_>, got: &[u32]) -> Vec<Kind> {
    if case.format == Format::I2R4 {
        let w = rows_of_r4(case.w, case.row_bytes);
        return suspects(&Case { format: Format::I2S, w: &w, ..*case }, got);
    }
    let right = outputs(case, &RIGHT);
    if right.len() != got.len() || same(case, &right, got) {
        return Vec::new();
    }
    let mut kinds: Vec<Kind> = Vec::new();
    let mut suspect = |kind, fits: bool| {
        if fits && !kinds.contains(&kind) {
            kinds.push(kind);
        }
    };
    for (kind, reading) in READINGS {
        let applies = reading.applies(case.format());
        suspect(*kind, applies && same(case, &outputs(case, reading), got));
    }
    let (rows, tokens) = (case.rows(), case.tokens());
    if tokens > 1 {
        let exchanged: Vec<u32> = (0..rows * tokens).map(|i| right[i % tokens * rows + i / tokens]).collect();
        suspect(Kind::RolesSwapped, same(case, &exchanged, got));
        for group in [8, 4, 2, tokens] {
            let first = (0..rows * tokens).map(|i| right[i / rows / group * group * rows + i % rows]);
            suspect(Kind::FirstTokenRepeated, same(case, &first.collect::<Vec<_>>(), got));
        }
    }
    suspect(Kind::I16AccumulatorOverflow, !is_float(case.format) && overflowed(case, &right, got));
    kinds
}

/// Bits are equal; every NaN is one.
fn same(case: &Case<'_>, a: &[u32], b: &[u32]) -> bool {
    let one = |bits: u32| {
        let nan = is_float(case.format) && f32::from_bits(bits).is_nan();
        if nan { 0x7fc0_0000 } else { bits }
    };
    a.iter().zip(b).all(|(a, b)| one(*a) == one(*b))
}

/// The kernel's result is a float, not an exact sum.
fn is_float(format: Format) -> bool {
    !matches!(format, Format::I2S | Format::I2S64 | Format::Qk256 | Format::LinearPm2 | Format::T5)
}

/// Sums of lanes that wrapped are apart by multiples of 65536, whatever the lanes; where all lanes have saturated, the sum
/// before the offset is a multiple of the bound.
fn overflowed(case: &Case<'_>, right: &[u32], got: &[u32]) -> bool {
    let Inputs::Quantised(x) = case.x else { return false };
    let offset = i64::from(offset(case.format()));
    let rows = case.rows();
    let fits = |i: usize| {
        let (right, got) = (i64::from(right[i].cast_signed()), i64::from(got[i].cast_signed()));
        let sum = offset * x[i / rows].natural().iter().map(|&q| i64::from(q)).sum::<i64>();
        let saturated = |bound: i64| {
            let codes = got + sum;
            codes != 0 && codes % bound == 0 && codes.abs() < (right + sum).abs() && codes / bound <= 64
        };
        (right - got) % 65536 == 0 || saturated(32767) || saturated(-32768)
    };
    (0..right.len()).all(fits)
}

/// Where element `c` of a row (or of a block) of 2-bit codes is: its byte and shift.
type Place = fn(usize) -> (usize, u32);

const GROUPS_128: Place = |c| (c / 128 * 32 + c % 32, shift(3 - c % 128 / 32));
const GROUPS_64: Place = |c| (c / 64 * 16 + c % 16, shift(3 - c % 64 / 16));
const GROUPS_32: Place = |c| (c / 32 * 8 + c % 8, shift(3 - c % 32 / 8));
const GROUPS_128_LOW_FIRST: Place = |c| (c / 128 * 32 + c % 32, shift(c % 128 / 32));
const GROUPS_64_LOW_FIRST: Place = |c| (c / 64 * 16 + c % 16, shift(c % 64 / 16));
const NEIGHBOURS: Place = |c| (c / 4, shift(c % 4));
const NEIGHBOURS_HIGH_FIRST: Place = |c| (c / 4, shift(3 - c % 4));

const fn shift(field: usize) -> u32 {
    2 * field as u32
}

/// How the 2-bit codes of a format lie: byte of a block where they start, place of an element, elements before the pattern
/// starts anew with the next block (0: a whole row).
fn two_bits(format: Format) -> Option<(usize, Place)> {
    match format {
        Format::I2S => Some((0, GROUPS_128)),
        Format::I2S64 => Some((0, GROUPS_64)),
        Format::LinearPm2 | Format::BitNet32 => Some((0, NEIGHBOURS)),
        Format::Tq2_0 => Some((0, GROUPS_128_LOW_FIRST)),
        Format::Q2_0 => Some((2, NEIGHBOURS)),
        _ => None,
    }
}

/// The codes of I2_R4 as rows of I2_S, which have as many bytes: what goes wrong with sums goes wrong alike.
fn rows_of_r4(w: &[u8], row_bytes: usize) -> Vec<u8> {
    let mut rows = vec![0; w.len()];
    let fours = rows.chunks_exact_mut((i2_r4::ROWS * row_bytes).max(1));
    for (rows, four) in fours.zip(w.chunks_exact((i2_r4::ROWS * row_bytes).max(1))) {
        for (c, byte) in four.iter().enumerate() {
            let (at, place) = GROUPS_128(c);
            for (r, row) in rows.chunks_exact_mut(row_bytes).enumerate() {
                row[at] |= (byte >> shift(3 - r) & 3) << place;
            }
        }
    }
    rows
}

/// What is subtracted from a code to give its value.
fn offset(format: Format) -> i32 {
    match format {
        Format::I2S | Format::I2S64 | Format::T5 | Format::Tq1_0 | Format::Tq2_0 | Format::Q2_0 => 1,
        Format::BitNet32 => 2,
        Format::Q4_0 => 8,
        Format::Q6K => 32,
        _ => 0,
    }
}

/// Elements and bytes of a weight block whose f16 scale is at some byte, and the activation blocks it meets.
fn block(format: Format) -> (usize, usize, usize) {
    let info = format.info();
    (info.block, info.block_bytes, if format == Format::Q2_0 { 2 } else { 1 })
}

/// What a 16-bit lane makes of a sum.
type Narrow = fn(i32) -> i32;

/// What a kernel may get wrong, with everything else right.
#[derive(Clone, Copy)]
struct Reading {
    /// Another order of 2-bit codes, where the format's own is one of the first list (empty: any but the same).
    place: Option<(&'static [Format], Place)>,
    /// Other values of 2-bit codes.
    values: Option<[i32; 4]>,
    /// How often the offset is missing from a value; negative: too often.
    offset: i32,
    act: fn(i8) -> i32,
    /// The columns that count.
    cols: fn(usize) -> usize,
    /// The offset is that of all columns, of which the codes of some do not count.
    whole_offset: bool,
    /// Past the last column, to the end of its tile: activations of the tile before.
    stale_acts: bool,
    /// Past the last whole block of 256: weights of the row before.
    stale_weights: bool,
    /// What becomes of a sum in 16-bit lanes: lanes, and what each does after an addition.
    lanes: Option<(usize, Narrow)>,
    scale: Scale,
    /// The same for the factor of the activations.
    act_scale: Scale,
    minimum: bool,
    /// Sub-scales further.
    sub_scale: usize,
    /// Q2_0 blocks of 128.
    blocks_of_128: bool,
    /// How floats are added.
    add: Add,
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Own,
    One,
    Next,
    Before,
}

/// How the products of float weights are added.
#[derive(Clone, Copy, PartialEq)]
enum Add {
    /// 32 lanes and a tree.
    Contract,
    /// So many lanes, then a tree.
    Lanes(usize),
    /// The contract's lanes, each product rounded first.
    NotFused,
    /// In f64.
    Double,
}

const RIGHT: Reading = Reading {
    place: None,
    values: None,
    offset: 0,
    act: |a| a as i32,
    cols: |n| n,
    whole_offset: false,
    stale_acts: false,
    stale_weights: false,
    lanes: None,
    scale: Scale::Own,
    act_scale: Scale::Own,
    minimum: true,
    sub_scale: 0,
    blocks_of_128: false,
    add: Add::Contract,
};

const fn placed(of: &'static [Format], place: Place) -> Reading {
    Reading { place: Some((of, place)), ..RIGHT }
}

const fn skipped(cols: fn(usize) -> usize) -> Reading {
    Reading { cols, ..RIGHT }
}

const fn added(add: Add) -> Reading {
    Reading { add, ..RIGHT }
}

const INTERLEAVED: &[Format] = &[Format::I2S, Format::I2S64, Format::Tq2_0];
const SEQUENTIAL: &[Format] = &[Format::LinearPm2, Format::Q2_0, Format::BitNet32];
const WRAP: Narrow = |v| v as i16 as i32;
const SATURATE: Narrow = |v| v.clamp(-32768, 32767);

/// All but the last tile.
const LAST_TILE: fn(usize) -> usize = |n| n.div_ceil(256).saturating_sub(1) * 256;

/// The wrong readings, the likelier first.
const READINGS: &[(Kind, Reading)] = &[
    (Kind::WrongGroup, placed(&[Format::I2S], GROUPS_64)),
    (Kind::WrongGroup, placed(&[Format::I2S64], GROUPS_128)),
    (Kind::WrongGroup, placed(&[Format::Tq2_0], GROUPS_64_LOW_FIRST)),
    (Kind::SequentialDecode, placed(INTERLEAVED, NEIGHBOURS)),
    (Kind::SequentialDecode, placed(INTERLEAVED, NEIGHBOURS_HIGH_FIRST)),
    (Kind::FieldsReversed, placed(&[Format::I2S], GROUPS_128_LOW_FIRST)),
    (Kind::FieldsReversed, placed(&[Format::I2S64], GROUPS_64_LOW_FIRST)),
    (Kind::FieldsReversed, placed(&[Format::Tq2_0], GROUPS_128)),
    (Kind::FieldsReversed, placed(SEQUENTIAL, NEIGHBOURS_HIGH_FIRST)),
    (Kind::InterleavedForSequential, placed(&[Format::LinearPm2], GROUPS_128)),
    (Kind::InterleavedForSequential, placed(&[Format::LinearPm2, Format::Q2_0], GROUPS_64)),
    (Kind::InterleavedForSequential, placed(&[Format::Q2_0], GROUPS_64_LOW_FIRST)),
    (Kind::InterleavedForSequential, placed(&[Format::BitNet32], GROUPS_32)),
    (Kind::CodeMapWithoutZero, Reading { values: Some([-2, -1, 1, 2]), ..RIGHT }),
    (Kind::ActivationSumTwice, Reading { offset: -1, ..RIGHT }),
    (Kind::ActivationSumForgotten, Reading { offset: 1, ..RIGHT }),
    (Kind::Group128UnderGroup64, Reading { blocks_of_128: true, ..RIGHT }),
    (Kind::MissingScale, Reading { scale: Scale::One, ..RIGHT }),
    (Kind::ScaleOfNeighbour, Reading { scale: Scale::Next, ..RIGHT }),
    (Kind::ScaleOfNeighbour, Reading { scale: Scale::Before, ..RIGHT }),
    (Kind::ActivationScaleIgnored, Reading { act_scale: Scale::One, ..RIGHT }),
    (Kind::ScaleOfNeighbour, Reading { act_scale: Scale::Next, ..RIGHT }),
    (Kind::ScaleOfNeighbour, Reading { act_scale: Scale::Before, ..RIGHT }),
    (Kind::MinimumForgotten, Reading { minimum: false, ..RIGHT }),
    (Kind::SubScaleOfNeighbour, Reading { sub_scale: 1, ..RIGHT }),
    (Kind::SubScaleOfNeighbour, Reading { sub_scale: 15, ..RIGHT }),
    (Kind::StaleTail, Reading { stale_acts: true, ..RIGHT }),
    (Kind::StaleTail, Reading { stale_weights: true, ..RIGHT }),
    (Kind::UnsignedActivations, Reading { act: |a| a.cast_unsigned() as i32, ..RIGHT }),
    (Kind::I16AccumulatorOverflow, Reading { lanes: Some((1, WRAP)), ..RIGHT }),
    (Kind::I16AccumulatorOverflow, Reading { lanes: Some((1, SATURATE)), ..RIGHT }),
    (Kind::I16AccumulatorOverflow, Reading { lanes: Some((8, SATURATE)), ..RIGHT }),
    (Kind::I16AccumulatorOverflow, Reading { lanes: Some((16, SATURATE)), ..RIGHT }),
    (Kind::I16AccumulatorOverflow, Reading { lanes: Some((32, SATURATE)), ..RIGHT }),
    (Kind::TailSkipped, skipped(|n| n / 8 * 8)),
    (Kind::TailSkipped, skipped(|n| n / 16 * 16)),
    (Kind::TailSkipped, skipped(|n| n / 32 * 32)),
    (Kind::TailSkipped, skipped(|n| n / 64 * 64)),
    (Kind::TailSkipped, skipped(|n| n / 128 * 128)),
    (Kind::TailSkipped, skipped(|n| n / 256 * 256)),
    (Kind::TailSkipped, skipped(LAST_TILE)),
    (Kind::TailSkipped, Reading { whole_offset: true, ..skipped(|n| n / 32 * 32) }),
    (Kind::TailSkipped, Reading { whole_offset: true, ..skipped(|n| n / 64 * 64) }),
    (Kind::TailSkipped, Reading { whole_offset: true, ..skipped(|n| n / 128 * 128) }),
    (Kind::TailSkipped, Reading { whole_offset: true, ..skipped(|n| n / 256 * 256) }),
    (Kind::TailSkipped, Reading { whole_offset: true, ..skipped(LAST_TILE) }),
    (Kind::ProductNotFused, added(Add::NotFused)),
    (Kind::BatchVariantReduction, added(Add::Lanes(1))),
    (Kind::BatchVariantReduction, added(Add::Lanes(4))),
    (Kind::BatchVariantReduction, added(Add::Lanes(8))),
    (Kind::BatchVariantReduction, added(Add::Lanes(16))),
    (Kind::BatchVariantReduction, added(Add::Lanes(64))),
    (Kind::BatchVariantReduction, added(Add::Double)),
];

impl Reading {
    /// Whether it can differ from the right one for a format, so that nothing is computed for nothing.
    fn applies(&self, format: Format) -> bool {
        let floats = matches!(format, Format::F32 | Format::F16 | Format::Bf16);
        let blocks = is_float(format) && !floats;
        if floats {
            return self.add != Add::Contract || (self.cols)(255) != 255 && (self.cols)(256) == 256;
        }
        match self.place {
            Some((of, _)) => of.contains(&format),
            None if self.values.is_some() => two_bits(format).is_some() && format != Format::LinearPm2,
            None if self.offset != 0 => offset(format) != 0,
            None if self.blocks_of_128 => format == Format::Q2_0,
            None if !self.minimum => format == Format::Q4_1,
            None if self.sub_scale != 0 => format == Format::Q6K,
            // Its activations have one factor a row.
            None if matches!(self.act_scale, Scale::Next | Scale::Before) => {
                blocks && format != Format::BitNet32
            }
            None if self.scale != Scale::Own || self.act_scale != Scale::Own => blocks,
            None if self.stale_acts || self.stale_weights => !blocks,
            None => self.add == Add::Contract,
        }
    }
}

/// Bits of the results of `case` under `reading`, `(tokens, rows)`.
fn outputs(case: &Case<'_>, reading: &Reading) -> Vec<u32> {
    let rows = case.rows();
    let each = (0..case.tokens()).flat_map(|token| (0..rows).map(move |row| (token, row)));
    match case.x {
        Inputs::Floats(cols, x) => each
            .map(|(token, row)| floats(case, &x[token * cols..][..cols], row, reading).to_bits())
            .collect(),
        Inputs::Quantised(x) if is_float(case.format) => {
            each.map(|(token, row)| blocks(case, &x[token], row, reading).to_bits()).collect()
        }
        Inputs::Quantised(x) => each
            .map(|(token, row)| {
                let (all, end) = (x[token].cols(), (reading.cols)(x[token].cols()));
                let counted = |c| {
                    let term = term(case, &x[token], row, c, reading);
                    if c < end || reading.stale_acts { term } else { Term { codes: 0, ..term } }
                };
                let end = if reading.whole_offset { all } else { end };
                let slots = case.row_bytes * tile(case.format()) / 64;
                let terms = (0..if reading.stale_acts { slots } else { end }).map(counted);
                total(terms, reading).cast_unsigned()
            })
            .collect(),
    }
}

/// Code times activation of a column, and the value times activation that the offset takes away.
struct Term {
    codes: i32,
    offset: i32,
    /// Byte of the code in a row: what gives its lane.
    byte: usize,
}

fn term(case: &Case<'_>, x: &Acts, row: usize, c: usize, reading: &Reading) -> Term {
    let format = case.format();
    let tail = case_tail(x.cols(), c);
    let w_row = if reading.stale_weights && tail { row.saturating_sub(1) } else { row };
    let bytes = &case.w[w_row * case.row_bytes..][..case.row_bytes];
    let before = if reading.stale_acts { c.checked_sub(tile(format)) } else { None };
    let q = x.natural().get(c).or_else(|| x.natural().get(before?)).copied().unwrap_or(0);
    let (value, byte) = value(format, bytes, c, reading);
    Term {
        codes: (value + offset(format)) * (reading.act)(q),
        offset: (1 - reading.offset) * offset(format) * i32::from(q),
        byte,
    }
}

/// Elements of a tile of 64 bytes of a row format.
fn tile(format: Format) -> usize {
    if format == Format::T5 { t5::BLOCK } else { 256 }
}

/// A column past the last whole block of 256.
fn case_tail(cols: usize, c: usize) -> bool {
    c >= cols / 256 * 256
}

/// Sums of codes, then the offset; in lanes as those of `maddubs`, pairs of bytes, where 16 bits are asked for.
fn total(terms: impl Iterator<Item = Term>, reading: &Reading) -> i32 {
    let Some((lanes, narrow)) = reading.lanes else {
        return terms.map(|term| term.codes.wrapping_sub(term.offset)).fold(0, i32::wrapping_add);
    };
    let mut terms: Vec<Term> = terms.collect();
    terms.sort_by_key(|term| term.byte);
    let mut sums = vec![0_i32; lanes];
    let mut offset = 0_i32;
    for term in terms {
        let lane = &mut sums[term.byte % (2 * lanes) / 2];
        *lane = narrow(lane.wrapping_add(term.codes));
        offset = offset.wrapping_add(term.offset);
    }
    sums.iter().sum::<i32>().wrapping_sub(offset)
}

/// Value of column `c` of an encoded row, and the byte it is in.
fn value(format: Format, row: &[u8], c: usize, reading: &Reading) -> (i32, usize) {
    let (elements, bytes, _) = block(format);
    if let Some((codes_at, own)) = two_bits(format) {
        let place = reading.place.map_or(own, |(_, place)| place);
        let (start, j) = match is_float(format) {
            _ if reading.blocks_of_128 => (c / 128 * 34, c % 128),
            true => (c / elements * bytes, c % elements),
            false => (0, c),
        };
        let (byte, shift) = place(j);
        let at = start + codes_at + byte;
        // Past the row: only where a wrong reading asks for more than there is.
        let code = row.get(at).map_or(1, |byte| byte >> shift & 3);
        let pm2 = [-2, -1, 1, 2];
        let right =
            if format == Format::LinearPm2 { pm2[code as usize] } else { i32::from(code) - offset(format) };
        return (reading.values.map_or(right, |values| values[code as usize]), at);
    }
    let (start, j) = (c / elements * bytes, c % elements);
    let block = &row[start..];
    let value = match format {
        Format::T5 => t5::value_at(block, j),
        Format::Tq1_0 => tq1_0::value_at(block, j),
        Format::Q8_0 => q8_0::value_at(block, j),
        Format::Q4_0 => q4_0::value_at(block, j),
        Format::Q4_1 => q4_1::value_at(block, j),
        _ => q6_k::value_at(block, j),
    };
    (i32::from(value), start)
}

fn scale_of(format: Format, block: &[u8]) -> f32 {
    match format {
        Format::BitNet32 => bitnet32::scale(block),
        Format::Tq1_0 => tq1_0::scale(block),
        Format::Tq2_0 => tq2_0::scale(block),
        Format::Q2_0 => q2_0::scale(block),
        Format::Q8_0 => q8_0::scale(block),
        Format::Q4_0 => q4_0::scale(block),
        Format::Q4_1 => q4_1::scale(block),
        _ => q6_k::scale(block),
    }
}

/// The factor of block `at` of `n`, or what a wrong reading takes for it.
fn pick(which: Scale, at: usize, n: usize, own: impl Fn(usize) -> f32) -> f32 {
    match which {
        Scale::Own => own(at),
        Scale::One => 1.0,
        Scale::Next => own((at + 1).min(n - 1)),
        Scale::Before => own(at.saturating_sub(1)),
    }
}

/// `y = fma(d_w · d_a, isum, y)` over blocks, as the scalar kernels.
fn blocks(case: &Case<'_>, x: &Acts, row: usize, reading: &Reading) -> f32 {
    let format = case.format();
    let (mut elements, mut bytes, mut parts) = block(format);
    if reading.blocks_of_128 {
        (elements, bytes, parts) = (128, 34, 4);
    }
    let w = &case.w[row * case.row_bytes..][..case.row_bytes];
    let (n, step) = (x.cols() / elements, elements / parts);
    let mut y = 0.0_f32;
    for b in 0..n * parts {
        let own = b / parts;
        let block = &w[own * bytes..];
        let terms = |first: usize, n: usize| {
            let end = (reading.cols)(x.cols());
            (first..(first + n).min(end.max(first))).map(|c| term(case, x, row, c, reading))
        };
        let isum = if format == Format::Q6K {
            let sub = |s: usize| {
                let scale = q6_k::sub_scale(block, (s + reading.sub_scale) % 16 * 16);
                i32::from(scale) * total(terms(256 * b + 16 * s, 16), reading)
            };
            (0..16).map(sub).sum()
        } else {
            total(terms(step * b, step), reading)
        };
        let d_w = pick(reading.scale, own, n, |i| scale_of(format, &w[i * bytes..]));
        let d_a = |which| pick(which, b, n * parts, |i| x.scales()[i]);
        let d = if format == Format::BitNet32 { d_w } else { d_w * d_a(reading.act_scale) };
        y = d.mul_add(isum as f32, y);
        if format == Format::Q4_1 && reading.minimum {
            y = q4_1::min(block).mul_add(x.mins()[b], y);
        }
    }
    if format == Format::BitNet32 && reading.act_scale == Scale::Own { y / x.scales()[0] } else { y }
}

/// `dot(w[row], x)` with what may be wrong.
fn floats(case: &Case<'_>, x: &[f32], row: usize, reading: &Reading) -> f32 {
    let w = &case.w[row * case.row_bytes..][..case.row_bytes];
    let weight = |c: usize| match case.format {
        Format::F16 => f16::from_le_bytes([w[2 * c], w[2 * c + 1]]).to_f32(),
        Format::Bf16 => bf16::from_le_bytes([w[2 * c], w[2 * c + 1]]).to_f32(),
        _ => f32::from_le_bytes([w[4 * c], w[4 * c + 1], w[4 * c + 2], w[4 * c + 3]]),
    };
    let n = (reading.cols)(x.len());
    add(reading.add, n, weight, |c| x[c])
}

/// `Σ a(c) · b(c)`, padded with executed zeros to whole rounds.
fn add(how: Add, n: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> f32 {
    let count = match how {
        Add::Lanes(count) => count,
        Add::Double => return (0..n).map(|c| f64::from(a(c)) * f64::from(b(c))).sum::<f64>() as f32,
        Add::Contract | Add::NotFused => 32,
    };
    let mut lanes = vec![0.0_f32; count];
    for c in 0..n.next_multiple_of(count) {
        let (a, b) = if c < n { (a(c), b(c)) } else { (0.0, 0.0) };
        let lane = &mut lanes[c % count];
        *lane = if how == Add::NotFused { *lane + a * b } else { a.mul_add(b, *lane) };
    }
    let mut half = count / 2;
    while half > 0 {
        (0..half).for_each(|l| lanes[l] += lanes[l + half]);
        half /= 2;
    }
    lanes[0]
}

/// The order of a sum: which of the wrong ones gives `got` for `Σ a · b`.
pub(super) fn suspects_of_sum(a: &[f32], b: &[f32], got: f32) -> Vec<Kind> {
    let fits = |(_, reading): &&(Kind, Reading)| {
        let n = (reading.cols)(a.len());
        let counts = reading.add != Add::Contract || n != a.len() && reading.applies(Format::F32);
        counts && add(reading.add, n, |c| a[c], |c| b[c]).to_bits() == got.to_bits()
    };
    READINGS.iter().filter(fits).map(|(kind, _)| *kind).collect()
}

/// What a norm that gives `got` does instead: nothing, or a layer norm.
pub(super) fn suspects_of_norm(x: &[f32], w: &[f32], eps: f32, got: &[f32]) -> Vec<Kind> {
    let n = x.len() as f64;
    let wide = || x.iter().map(|&v| f64::from(v));
    let mean = wide().sum::<f64>() / n;
    let root = |sum: f64| 1.0 / (sum / n + f64::from(eps)).sqrt();
    let deviation = root(wide().map(|v| (v - mean) * (v - mean)).sum());
    let magnitude = root(wide().map(|v| v * v).sum());
    let of = |r: f64| -> Vec<f64> {
        x.iter().zip(w).map(|(&x, &w)| (f64::from(x) - mean) * r * f64::from(w)).collect()
    };
    let mut kinds = Vec::new();
    if x.iter().zip(got).all(|(x, got)| x.to_bits() == got.to_bits()) {
        kinds.push(Kind::SubNormSkipped);
    }
    if close(&of(deviation), got) || close(&of(magnitude), got) {
        kinds.push(Kind::LayernormForRmsnorm);
    }
    kinds
}

/// Whether `got`, which should be of squared ReLU, is of SiLU.
pub(super) fn suspects_of_gate(g: &[f32], u: &[f32], got: &[f32]) -> Vec<Kind> {
    let silu = |(&g, &u): (&f32, &f32)| f64::from(g) / (1.0 + f64::from(exp(-g))) * f64::from(u);
    let silu: Vec<f64> = g.iter().zip(u).map(silu).collect();
    if close(&silu, got) { vec![Kind::SiluForRelu2] } else { Vec::new() }
}

/// Equal up to what f32 arithmetic of another order, or an overflow, makes of it.
fn close(a: &[f64], b: &[f32]) -> bool {
    let largest = b.iter().filter(|v| v.is_finite()).fold(0.0_f64, |m, &v| m.max(f64::from(v).abs()));
    let one = |a: f64, b: f64| !b.is_finite() || (a - b).abs() <= 1e-3 * b.abs() + 1e-5 * largest;
    a.iter().zip(b).all(|(&a, &b)| one(a, f64::from(b))) && b.iter().any(|v| v.is_finite() && *v != 0.0)
}

/// How many wrong cases speak for each kind.
#[derive(Debug, Clone, Default)]
pub struct Votes {
    cases: usize,
    of_kind: Vec<(Kind, usize)>,
}

impl Votes {
    /// Adds the suspects of a wrong case.
    pub fn add(&mut self, suspects: &[Kind]) {
        self.cases += 1;
        for kind in suspects {
            match self.of_kind.iter_mut().find(|(known, _)| known == kind) {
                Some((_, votes)) => *votes += 1,
                None => self.of_kind.push((*kind, 1)),
            }
        }
    }

    /// Wrong cases so far.
    pub fn cases(&self) -> usize {
        self.cases
    }

    /// The kind that most wrong cases show, if more than half of them do; of two that fit equally, the one that was
    /// suspected first.
    pub fn winner(&self) -> Option<Kind> {
        let most = self.of_kind.iter().map(|(_, votes)| *votes).max()?;
        let first = self.of_kind.iter().find(|(_, votes)| *votes == most).map(|(kind, _)| *kind);
        first.filter(|_| 2 * most > self.cases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::acts::wanted_by;
    use crate::kernels::check::data::Data;
    use crate::kernels::{Entries, scalar};

    const ALL: [Format; 14] = [
        Format::I2S,
        Format::I2S64,
        Format::LinearPm2,
        Format::T5,
        Format::BitNet32,
        Format::Tq1_0,
        Format::Tq2_0,
        Format::Q2_0,
        Format::Q8_0,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q6K,
        Format::F16,
        Format::F32,
    ];

    /// Runs `f` with random weights (finite scales) and activations of three tokens.
    fn with_case(format: Format, f: impl Fn(&Case<'_>, Vec<u32>)) {
        let (rows, cols, tokens) = (3, if format == Format::T5 { 640 } else { 768 }, 3);
        let mut data = Data::new(1, format.name(), 0);
        let row_bytes = format.row_bytes(cols);
        // No byte above 0x3b: every f16 among them is finite.
        let w: Vec<u8> = (0..rows * row_bytes).map(|_| data.u32() as u8 & 0x3b).collect();
        let k = &scalar::KERNELS;
        let mut right = Vec::new();
        let Some((quantiser, order)) = wanted_by(format) else {
            let x: Vec<f32> = (0..tokens * cols).map(|_| data.below(1000) as f32 - 500.0).collect();
            let Entries::Floats(_, gemm) = k.multiply(format).entries else { unreachable!() };
            let mut out = vec![0.0; rows * tokens];
            gemm(&w, cols, &x, &mut out);
            right.extend(out.iter().map(|v| v.to_bits()));
            return f(&Case { format, w: &w, row_bytes, x: Inputs::Floats(cols, &x) }, right);
        };
        let mut row = || {
            let q = (0..cols).map(|_| data.u32() as i8).collect();
            let blocks = quantiser.block().map_or(1, |block| cols / block);
            let scales = (0..blocks).map(|_| 0.5 + data.below(9) as f32).collect();
            let mins = if format == Format::Q4_1 { vec![1.5; blocks] } else { Vec::new() };
            Acts::new(order, q, scales, mins)
        };
        let x: Vec<Acts> = (0..tokens).map(|_| row()).collect();
        for x in &x {
            match k.multiply(format).entries {
                Entries::Rows(gemv, _) => {
                    let mut out = vec![0; rows];
                    gemv(&w, row_bytes, x, &mut out);
                    right.extend(out.iter().map(|v| v.cast_unsigned()));
                }
                Entries::Blocks(gemv, _) => {
                    let mut out = vec![0.0; rows];
                    gemv(&w, x, &mut out);
                    right.extend(out.iter().map(|v: &f32| v.to_bits()));
                }
                Entries::Floats(..) => unreachable!(),
            }
        }
        f(&Case { format, w: &w, row_bytes, x: Inputs::Quantised(&x) }, right);
    }

    #[test]
    fn nothing_is_suspected_of_the_right_result() {
        for format in ALL {
            with_case(format, |case, right| {
                assert_eq!(outputs(case, &RIGHT), right, "{}", format.name());
                assert_eq!(diagnose(case, &right), None);
            });
        }
    }

    #[test]
    fn every_reading_that_applies_is_told_from_the_others() {
        for format in ALL {
            with_case(format, |case, right| {
                for (kind, reading) in READINGS.iter().filter(|(_, reading)| reading.applies(format)) {
                    let wrong = outputs(case, reading);
                    // Where nothing overflows and no tail is ragged there is no error to see.
                    if wrong != right {
                        assert_eq!(diagnose(case, &wrong), Some(*kind), "{}", format.name());
                    }
                }
                let rows = case.rows();
                let turned: Vec<u32> = (0..right.len()).map(|i| right[i % 3 * rows + i / 3]).collect();
                assert_eq!(diagnose(case, &turned), Some(Kind::RolesSwapped), "{}", format.name());
            });
        }
    }

    #[test]
    fn the_kind_of_most_cases_wins() {
        let mut votes = Votes::default();
        assert_eq!(votes.winner(), None);
        votes.add(&[Kind::StaleTail, Kind::TailSkipped]);
        votes.add(&[Kind::TailSkipped]);
        assert_eq!((votes.winner(), votes.cases()), (Some(Kind::TailSkipped), 2));
        votes.add(&[]);
        votes.add(&[]);
        assert_eq!(votes.winner(), None);
    }
}
