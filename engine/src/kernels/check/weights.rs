//! Cases of the operations that multiply weights: one function a shape of entry, one row of data a format.

use super::data::{Codes, Data, Floats, Guarded, ROWS, SIZES};
use super::diagnose::{Case, Inputs};
use super::{Outcome, Run, poison, suspects};
use crate::kernels::acts::{Order, wanted_by};
use crate::kernels::{Acts, Batch, Entries, Kernels};
use crate::quant::{Format, i2_r4, qk256, t5};
use half::f16;

/// Tokens of a GEMM: below, at and above a group.
const TOKENS: [usize; 8] = [1, 2, 3, 7, 8, 9, 16, 19];

/// Weight bytes besides scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// Any.
    Random,
    /// Period 251, shifted from row to row.
    Periods,
    /// All the same: the extremes of every format, whose sums overflow what is too narrow.
    Fill(u8),
    /// The extremes in turn.
    Alternating,
}

impl Bytes {
    const ALL: [Bytes; 9] = [
        Bytes::Random,
        Bytes::Periods,
        Bytes::Fill(0x00),
        Bytes::Fill(0xff),
        Bytes::Fill(0xaa),
        Bytes::Fill(0x80),
        Bytes::Fill(0x7f),
        Bytes::Alternating,
        Bytes::Random,
    ];

    fn make(self, data: &mut Data, rows: usize, row_bytes: usize) -> Vec<u8> {
        let byte = |i: usize| match self {
            Bytes::Random => data.u32() as u8,
            Bytes::Periods => (((i % row_bytes) * 7 + (i % row_bytes) / 3 + i / row_bytes) % 251) as u8,
            Bytes::Fill(byte) => byte,
            Bytes::Alternating => [0xff, 0x00][i % 2],
        };
        (0..rows * row_bytes).map(byte).collect()
    }
}

/// The activations that go with weight bytes in case `number`.
fn acts(data: &mut Data, bytes: Bytes, number: u64, n: usize) -> Vec<i8> {
    let kind = match bytes {
        Bytes::Random => Codes::Random,
        Bytes::Periods => Codes::Periods,
        Bytes::Fill(_) => [Codes::Constant(0, 127), Codes::Constant(0, -128)][(number % 2) as usize],
        Bytes::Alternating => Codes::Alternating,
    };
    data.acts(kind, n)
}

/// Where a block has f16 values; elsewhere every byte is a code.
fn halves_in_block(format: Format) -> &'static [usize] {
    match format {
        Format::BitNet32 => &[8],
        Format::Tq1_0 => &[52],
        Format::Tq2_0 => &[64],
        Format::Q6K => &[208],
        Format::Q4_1 => &[0, 2],
        Format::Q2_0 | Format::Q8_0 | Format::Q4_0 => &[0],
        _ => &[],
    }
}

/// A finite f16: mostly ordinary, sometimes any, a zero, or 1.
fn half(data: &mut Data) -> f16 {
    match data.below(8) {
        0 => f16::ONE,
        1 => f16::from_bits((data.u32() & 0x8000) as u16),
        2 => f16::from_bits((data.u32() & 0xfbff) as u16),
        _ => f16::from_f32(data.floats(Floats::Ordinary, 1)[0]),
    }
}

/// Encoded rows of a block format.
fn blocks(data: &mut Data, format: Format, bytes: Bytes, rows: usize, cols: usize) -> Vec<u8> {
    let mut w = bytes.make(data, rows, format.row_bytes(cols));
    for block in w.chunks_exact_mut(format.info().block_bytes) {
        for &at in halves_in_block(format) {
            block[at..at + 2].copy_from_slice(&half(data).to_le_bytes());
        }
    }
    w
}

/// An activation row as the weights of `format` ask, with factors of its own.
fn block_acts(data: &mut Data, format: Format, bytes: Bytes, number: u64, cols: usize) -> Acts {
    let (quantiser, order) = wanted_by(format).expect("a block format");
    let q = acts(data, bytes, number, cols);
    let Some(block) = quantiser.block() else {
        let s = data.floats(Floats::Ordinary, 1)[0].abs();
        return Acts::row(order, q, s);
    };
    let scales = data.floats(Floats::Ordinary, cols / block);
    let mins = if format == Format::Q4_1 { data.floats(Floats::Ordinary, cols / block) } else { Vec::new() };
    Acts::new(order, q, scales, mins)
}

/// Every number of rows with a few numbers of blocks and every kind of bytes, then random ones; `tokens` of each.
fn shapes(run: &Run<'_>, block: usize, tokens: &[usize]) -> Vec<(usize, usize, usize, Bytes)> {
    let mut shapes = Vec::new();
    let lengths = [1, 2, 3, 2560_usize.div_ceil(block)];
    for (i, rows) in ROWS.into_iter().enumerate() {
        for (j, blocks) in lengths.into_iter().enumerate() {
            for (k, bytes) in Bytes::ALL.into_iter().enumerate() {
                // Long rows a few at a time; the tokens go round, so that each meets every kind.
                if rows * blocks * block <= 9000 || rows <= 2 {
                    shapes.push((rows, blocks * block, tokens[(i + j + k) % tokens.len()], bytes));
                }
            }
        }
    }
    let mut data = Data::new(run.plan.seed, run.operation, u64::MAX - 1);
    for _ in 0..run.plan.random_cases {
        let (rows, blocks) = (data.below(70), 1 + data.below(1 + 1024 / block as u32));
        shapes.push((rows, blocks * block, data.one_of(tokens), data.one_of(&Bytes::ALL)));
    }
    shapes
}

/// `gemv_<blocks>`.
pub(super) fn gemv_blocks(run: &mut Run<'_>, format: Format) -> Outcome {
    for (rows, cols, _, bytes) in shapes(run, format.info().block, &[1]) {
        let mut data = run.data();
        let w = run.input(&blocks(&mut data, format, bytes, rows, cols));
        let x = block_acts(&mut data, format, bytes, run.cases, cols);
        let what = format_args!("{rows} rows x {cols} columns of {}, {bytes:?}", format.name());
        let f = |k: &Kernels, out: &mut [f32]| match k.multiply(format).entries {
            Entries::Blocks(gemv, _) => gemv(w.inner(), &x, out),
            _ => unreachable!("a block format"),
        };
        let quantised = Inputs::Quantised(std::slice::from_ref(&x));
        let case = Case { format, w: w.inner(), row_bytes: format.row_bytes(cols), x: quantised };
        run.case_of(what, &poison(rows), f, |seen| suspects(&case, seen.got))?;
    }
    Ok(())
}

/// `gemm_<blocks>`.
pub(super) fn gemm_blocks(run: &mut Run<'_>, format: Format) -> Outcome {
    for (rows, cols, tokens, bytes) in shapes(run, format.info().block, &TOKENS) {
        let mut data = run.data();
        let w = run.input(&blocks(&mut data, format, bytes, rows, cols));
        let row = |t: usize| block_acts(&mut data, format, bytes, run.cases + t as u64, cols);
        let acts: Vec<Acts> = (0..tokens).map(row).collect();
        let x = Batch::new(acts.clone());
        let what =
            format_args!("{rows} rows x {cols} columns of {}, {tokens} tokens, {bytes:?}", format.name());
        let f = |k: &Kernels, out: &mut [f32]| match k.multiply(format).entries {
            Entries::Blocks(_, gemm) => gemm(w.inner(), &x, out),
            _ => unreachable!("a block format"),
        };
        let quantised = Inputs::Quantised(&acts);
        let case = Case { format, w: w.inner(), row_bytes: format.row_bytes(cols), x: quantised };
        run.case_of(what, &poison(rows * tokens), f, |seen| suspects(&case, seen.got))?;
    }
    Ok(())
}

/// An order, and the bytes of a row of so many columns.
type RowOrder = (Order, fn(usize) -> usize);

/// Row formats with the orders their kernels serve, and the bytes of a row of so many columns.
fn row_orders(format: Format) -> &'static [RowOrder] {
    match format {
        Format::I2R4 => &[(Order::R4, i2_r4::row_bytes)],
        Format::T5 => &[(Order::T5, t5::row_bytes)],
        Format::LinearPm2 => &[(Order::Linear256, qk256::row_bytes)],
        _ => &[(Order::I2S, qk256::row_bytes), (Order::I2S64, qk256::row_bytes)],
    }
}

/// `gemv_<rows>`, for formats other than I2_S, which has its own cases.
pub(super) fn gemv_rows(run: &mut Run<'_>, format: Format) -> Outcome {
    rows_cases(run, format, &[1], |k, w, row_bytes, x, out| match k.multiply(format).entries {
        Entries::Rows(gemv, _) => gemv(w, row_bytes, x.first(), out),
        _ => unreachable!("a row format"),
    })
}

/// `gemm_<rows>`.
pub(super) fn gemm_rows(run: &mut Run<'_>, format: Format) -> Outcome {
    rows_cases(run, format, &TOKENS, |k, w, row_bytes, x, out| match k.multiply(format).entries {
        Entries::Rows(_, gemm) => gemm(w, row_bytes, x, out),
        _ => unreachable!("a row format"),
    })
}

fn rows_cases(
    run: &mut Run<'_>,
    format: Format,
    tokens: &[usize],
    f: impl Fn(&Kernels, &[u8], usize, &Batch, &mut [i32]),
) -> Outcome {
    for (i, (rows, cols, bytes)) in run.shapes(&SIZES, &Bytes::ALL).into_iter().enumerate() {
        let count = tokens[i % tokens.len()];
        let rows = rows.next_multiple_of(format.info().rows_multiple);
        if rows * cols * count > 40_000 && rows > 1 {
            continue;
        }
        for &(order, row_bytes) in row_orders(format) {
            row_case(run, format, (order, row_bytes(cols)), (rows, cols, count), bytes, &f)?;
            // I2_S rows end in half a tile where cols = 128 (mod 256).
            if row_orders(format).len() == 2 && cols % 256 == 128 {
                row_case(run, format, (order, cols / 4), (rows, cols, count), bytes, &f)?;
            }
        }
    }
    // Near the bound that the loader checks, where a narrow sum or a product kept too long overflows.
    let longest = 3_000_000;
    for (bytes, &(order, row_bytes)) in [Bytes::Fill(0xff), Bytes::Fill(0xaa), Bytes::Fill(0x00)]
        .into_iter()
        .zip(row_orders(format).iter().cycle())
    {
        let rows = format.info().rows_multiple;
        row_case(run, format, (order, row_bytes(longest)), (rows, longest, 1), bytes, &f)?;
    }
    Ok(())
}

fn row_case(
    run: &mut Run<'_>,
    format: Format,
    (order, row_bytes): (Order, usize),
    (rows, cols, tokens): (usize, usize, usize),
    bytes: Bytes,
    f: &impl Fn(&Kernels, &[u8], usize, &Batch, &mut [i32]),
) -> Outcome {
    let mut data = run.data();
    let w: Guarded<u8> = run.input(&bytes.make(&mut data, rows, row_bytes));
    let row = |t: usize| Acts::row(order, acts(&mut data, bytes, run.cases + t as u64, cols), 1.0);
    let rows_of_x: Vec<Acts> = (0..tokens).map(row).collect();
    let x = Batch::new(rows_of_x.clone());
    let what = format_args!(
        "{rows} rows x {cols} columns of {} in {row_bytes} bytes, order {order:?}, {tokens} tokens, {bytes:?}",
        format.name()
    );
    let case = Case { format, w: w.inner(), row_bytes, x: Inputs::Quantised(&rows_of_x) };
    let f = |k: &Kernels, out: &mut [i32]| f(k, w.inner(), row_bytes, &x, out);
    run.case_of(what, &poison(rows * tokens), f, |seen| suspects(&case, seen.got))
}

/// `gemm_<floats>`.
pub(super) fn gemm_floats(run: &mut Run<'_>, format: Format) -> Outcome {
    for (i, (rows, cols, kind)) in run.float_shapes().into_iter().enumerate() {
        let tokens = TOKENS[i % TOKENS.len()];
        if rows * cols * tokens > 20_000 {
            continue;
        }
        let mut data = run.data();
        let w = run.input(&floats(&mut data, format, kind, rows * cols));
        // Without columns there is one token.
        let tokens = if cols == 0 { 1 } else { tokens };
        let x = run.input(&data.partners(kind, tokens * cols));
        let what = format_args!("{rows} rows x {cols} columns, {tokens} tokens, {kind:?}");
        let f = |k: &Kernels, out: &mut [f32]| match k.multiply(format).entries {
            Entries::Floats(_, gemm) => gemm(w.inner(), cols, x.inner(), out),
            _ => unreachable!("a float format"),
        };
        let floats = Inputs::Floats(cols, x.inner());
        let case = Case { format, w: w.inner(), row_bytes: format.row_bytes(cols), x: floats };
        run.case_of(what, &poison(rows * tokens), f, |seen| suspects(&case, seen.got))?;
    }
    Ok(())
}

/// `gemv_<floats>`.
pub(super) fn gemv_floats(run: &mut Run<'_>, format: Format) -> Outcome {
    for (rows, cols, kind) in run.float_shapes() {
        let mut data = run.data();
        let w = run.input(&floats(&mut data, format, kind, rows * cols));
        let x = run.input(&data.partners(kind, cols));
        let what = format_args!("{rows} rows x {cols} columns, {kind:?}");
        let f = |k: &Kernels, out: &mut [f32]| match k.multiply(format).entries {
            Entries::Floats(gemv, _) => gemv(w.inner(), x.inner(), out),
            _ => unreachable!("a float format"),
        };
        let floats = Inputs::Floats(cols, x.inner());
        let case = Case { format, w: w.inner(), row_bytes: format.row_bytes(cols), x: floats };
        run.case_of(what, &poison(rows), f, |seen| suspects(&case, seen.got))?;
    }
    Ok(())
}

fn floats(data: &mut Data, format: Format, kind: Floats, n: usize) -> Vec<u8> {
    match format {
        Format::F16 => data.halves(kind, n),
        Format::F32 => data.floats(kind, n).into_iter().flat_map(f32::to_le_bytes).collect(),
        // The upper half of a finite f32 is a finite bf16.
        _ => data
            .floats(kind, n)
            .into_iter()
            .flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes())
            .collect(),
    }
}
