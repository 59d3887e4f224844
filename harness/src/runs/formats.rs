//! Weight formats held to bytes that the C++ quantisers wrote from one known matrix.

use assay_engine::kernels::Acts;
use assay_engine::kernels::acts::wanted_by;
use assay_engine::kernels::check::diagnose::{Case, Inputs, diagnose};
use assay_engine::kind::Kind;
use assay_engine::quant::{Format, Scale, Ternary};

const ROWS: usize = 8;
const COLS: usize = 768;
/// The scale of the golden matrix.
const SCALE: f32 = f32::from_bits(0x3f9c_0000);

/// The values that the C++ programs were given.
static VALUES: &[u8] = include_bytes!("../../../fixtures/golden/golden-ternary.i8");

/// What they wrote.
static GOLDEN: [(Format, &[u8]); 4] = [
    (Format::I2S, include_bytes!("../../../fixtures/golden/golden-i2_s.bin")),
    (Format::Tq1_0, include_bytes!("../../../fixtures/golden/golden-tq1_0.bin")),
    (Format::Tq2_0, include_bytes!("../../../fixtures/golden/golden-tq2_0.bin")),
    (Format::Q2_0, include_bytes!("../../../fixtures/golden/golden-q2_0.bin")),
];

/// How encoded bytes are read.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// Bytes of a matrix of `(rows, cols)`; `None` if it cannot be.
    pub bytes: fn(Format, usize, usize) -> Option<usize>,
    /// Its values and scale.
    pub decode: fn(Format, &[u8], usize, usize) -> Option<Ternary>,
}

/// The engine's.
pub const ENGINE: Reader = Reader {
    bytes: |format, rows, cols| format.bytes(rows, cols).ok(),
    decode: |format, bytes, rows, cols| format.decode_ternary(bytes, rows, cols),
};

/// A format that is not what the C++ program wrote.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}: {problem}{}", format.name(), kind.map_or(String::new(), |kind| format!("; the error is that {kind}")))]
pub struct Misread {
    /// The format.
    pub format: Format,
    /// What differs.
    pub problem: String,
    /// The kind of error, if it is a known one.
    pub kind: Option<Kind>,
}

/// Reads all golden bytes: the number of formats, if sizes, values and scales are those that went in.
///
/// # Errors
/// - the first that differs.
pub fn read_by(reader: &Reader) -> Result<usize, Misread> {
    for (format, golden) in GOLDEN {
        let misread = |problem: String, kind| Err(Misread { format, problem, kind });
        let size = (reader.bytes)(format, ROWS, COLS);
        if size != Some(golden.len()) {
            let tail = format.info().scale == Scale::Matrix
                && size.is_some_and(|size| size < golden.len() && size >= ROWS * COLS / 4);
            let kind = tail.then_some(Kind::ScaleReadAsPadding);
            return misread(
                format!("size {}, the C++ program wrote {} bytes", said(size), golden.len()),
                kind,
            );
        }
        let Some(got) = (reader.decode)(format, golden, ROWS, COLS) else {
            return misread("has no ternary values".to_owned(), None);
        };
        let expected = |i: usize| VALUES[i].cast_signed();
        if let Some(at) = (0..ROWS * COLS).find(|&i| got.values.get(i) != Some(&expected(i))) {
            let (row, col, got_value) = (at / COLS, at % COLS, said(got.values.get(at)));
            let problem =
                format!("row {row}, column {col} is {got_value}, the C++ program was given {}", expected(at));
            return misread(problem, kind_of(format, golden, &got));
        }
        if got.scale.to_bits() != SCALE.to_bits() {
            let kind = (got.scale == 1.0).then_some(Kind::MissingScale);
            return misread(format!("scale {}, the C++ program was given {SCALE}", got.scale), kind);
        }
    }
    Ok(GOLDEN.len())
}

/// The misreading that gives `got`: products of its values with some activations are those of a kernel that misreads so.
fn kind_of(format: Format, golden: &[u8], got: &Ternary) -> Option<Kind> {
    let (quantiser, order) = wanted_by(format)?;
    let block = quantiser.block().unwrap_or(COLS);
    let q: Vec<i8> = (0..COLS).map(|i| (i * 37 % 251) as u8 as i8).collect();
    let x = Acts::new(order, q.clone(), vec![1.0; COLS / block], Vec::new());
    let row_bytes = format.row_bytes(COLS);
    let product = |row: &[i8]| {
        let sum = |(v, q): (&[i8], &[i8])| -> i32 {
            v.iter().zip(q).map(|(&v, &q)| i32::from(v) * i32::from(q)).sum()
        };
        let mut sums = row.chunks(block).zip(q.chunks(block)).map(sum);
        match quantiser.block() {
            None => sums.sum::<i32>().cast_unsigned(),
            Some(_) => sums
                .try_fold(0.0_f32, |y, sum| Some(got.scale.mul_add(sum as f32, y)))
                .map_or(0, f32::to_bits),
        }
    };
    let products: Vec<u32> = got.values.chunks(COLS).map(product).collect();
    let w = &golden[..ROWS * row_bytes];
    diagnose(&Case { format, w, row_bytes, x: Inputs::Quantised(&[x]) }, &products)
}

fn said<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}
