//! The matrices, and who runs on them.

use super::time::{Contestant, Line, References, lines};
use assay_engine::Error;
use assay_engine::kernels::acts::{Quantiser, wanted_by};
use assay_engine::kernels::plugin::{Call, Declared, Kernel, Loaded, ResultKind, Status};
use assay_engine::kernels::{self, Acts, Batch, Entries, Isa, Kernels, Multiply, probe, scalar};
use assay_engine::quant::{Format, Ternary};
use half::f16;
use memmap2::MmapMut;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

/// Rows after which a matrix repeats itself: enough for every group that a kernel takes together to differ.
const PERIOD: usize = 64;

/// How far another program's floats may be from scalar's, over the largest of them: it adds in another order.
const CLOSE: f32 = 1e-3;

/// How long every loop in registers runs in a pass.
const PEAK_ROUNDS: usize = 20_000;

/// Why nothing was timed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// Something that the engine refuses.
    #[error(transparent)]
    Engine(#[from] Error),
    /// A kernel whose answer is wrong: its time would mean nothing.
    #[error(
        "{who} is wrong at token {token}, row {row}: expected {expected}, as from scalar, got {got}; nothing was timed"
    )]
    Wrong {
        /// The kernel.
        who: String,
        /// Where its first wrong output is.
        token: usize,
        /// Where its first wrong output is.
        row: usize,
        /// What scalar gives.
        expected: String,
        /// What the kernel gives.
        got: String,
    },
}

/// Result of everything here.
type Result<T, E = BenchError> = std::result::Result<T, E>;

/// A matrix in memory of its own and the tokens that meet it.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// `cache`, `stream` or `gemm`.
    pub name: &'static str,
    /// Columns.
    pub cols: usize,
    /// Bytes of weights that rows are added up to; 64 rows at least.
    pub bytes: usize,
    /// Tokens; 1 for a GEMV.
    pub tokens: usize,
    /// Whether loops that only read the same number of bytes take part.
    pub readers: bool,
    /// Rounds.
    pub rounds: usize,
    /// The least time of a turn.
    pub turn: Duration,
}

/// Weights of one format, the tokens that meet them, and what must come out.
struct Problem {
    format: Format,
    rows: usize,
    cols: usize,
    w: MmapMut,
    /// `(tokens, cols)`.
    x: Vec<f32>,
    /// `(tokens, PERIOD)`: bits that scalar gives for the first rows, after which the rows repeat.
    expected: Vec<u32>,
}

/// Results `(tokens, rows)`: exact sums, or floats.
enum Out {
    Sums(Vec<i32>),
    Floats(Vec<f32>),
}

impl Out {
    fn bits(&self) -> Vec<u32> {
        match self {
            Out::Sums(sums) => sums.iter().map(|sum| sum.cast_unsigned()).collect(),
            Out::Floats(floats) => floats.iter().map(|float| float.to_bits()).collect(),
        }
    }
}

/// A kernel with the activations that it takes.
struct Runner {
    multiply: Multiply,
    /// `None` for float weights.
    acts: Option<Batch>,
    cols: usize,
    tokens: usize,
    row_bytes: usize,
}

impl Runner {
    fn new(format: Format, table: &Kernels, cols: usize, x: &[f32]) -> Result<Runner> {
        let quantise = |x: &[f32]| table.quantise(format, x).transpose();
        let acts: std::result::Result<Vec<_>, usize> =
            x.chunks(cols).filter_map(|x| quantise(x).transpose()).collect();
        let acts = acts.map_err(|at| Error::Input {
            what: "activations of the bench",
            expected: format!("values whose scale {} holds", format.name()),
            got: format!("element {at}"),
        })?;
        let acts = (!acts.is_empty()).then(|| Batch::new(acts));
        let (tokens, row_bytes) = (x.len() / cols, format.row_bytes(cols));
        Ok(Runner { multiply: table.multiply(format), acts, cols, tokens, row_bytes })
    }

    fn kernel(&self) -> &'static str {
        if self.tokens == 1 { self.multiply.gemv } else { self.multiply.gemm }
    }

    fn out(&self, rows: usize) -> Out {
        match self.multiply.entries {
            Entries::Rows(..) => Out::Sums(vec![0; rows * self.tokens]),
            _ => Out::Floats(vec![0.0; rows * self.tokens]),
        }
    }

    fn run(&self, w: &[u8], x: &[f32], out: &mut Out) {
        let single = self.tokens == 1;
        match (self.multiply.entries, &self.acts, out) {
            (Entries::Rows(gemv, _), Some(acts), Out::Sums(out)) if single => {
                gemv(w, self.row_bytes, acts.first(), out);
            }
            (Entries::Rows(_, gemm), Some(acts), Out::Sums(out)) => gemm(w, self.row_bytes, acts, out),
            (Entries::Blocks(gemv, _), Some(acts), Out::Floats(out)) if single => gemv(w, acts.first(), out),
            (Entries::Blocks(_, gemm), Some(acts), Out::Floats(out)) => gemm(w, acts, out),
            (Entries::Floats(gemv, _), None, Out::Floats(out)) if single => gemv(w, x, out),
            (Entries::Floats(_, gemm), None, Out::Floats(out)) => gemm(w, self.cols, x, out),
            _ => unreachable!("activations and results were made for this kernel"),
        }
    }
}

/// Memory in huge pages where the system has them: a small page every 4096 bytes costs a kernel that streams more than
/// its arithmetic.
fn memory(bytes: usize) -> Result<MmapMut> {
    let failed = |e: std::io::Error| Error::Input {
        what: "memory for the bench",
        expected: format!("{bytes} bytes"),
        got: e.to_string(),
    };
    let map = MmapMut::map_anon(bytes.max(1)).map_err(failed)?;
    #[cfg(target_os = "linux")]
    // Advice: without it the run is only slower.
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

/// Values that differ from row to row and from group to group, and repeat after [`PERIOD`] rows.
fn encoded(format: Format, cols: usize) -> Result<Vec<u8>> {
    let at = |i: usize| (i * 7 + i / 251 + i / cols * 5 + i / 13) % 3;
    let mut bytes = if format.info().ternary {
        let value = |i: usize| match format {
            // It has no zero.
            Format::LinearPm2 => [-2, -1, 1][at(i)],
            _ => at(i) as i8 - 1,
        };
        let values = (0..PERIOD * cols).map(value).collect();
        format.encode_ternary("bench", &Ternary { rows: PERIOD, cols, values, scale: 1.0 })?
    } else {
        let values: Vec<f32> =
            (0..PERIOD * cols).map(|i| (i * 37 % 251) as f32 / 64.0 - at(i) as f32).collect();
        format.encode_dense("bench", &values, PERIOD, cols)?
    };
    bytes.truncate(PERIOD * format.row_bytes(cols));
    Ok(bytes)
}

impl Problem {
    fn new(format: Format, setting: &Setting) -> Result<Problem> {
        let (cols, row_bytes) = (setting.cols, format.row_bytes(setting.cols));
        let period = encoded(format, cols)?;
        let rows = (setting.bytes / row_bytes).max(PERIOD) / PERIOD * PERIOD;
        let mut w = memory(rows * row_bytes)?;
        w.chunks_exact_mut(period.len()).for_each(|part| part.copy_from_slice(&period));
        let value = |t: usize, c: usize| ((c * 37 + t * 11) % 251) as f32 / 16.0 - 7.5;
        let x: Vec<f32> = (0..setting.tokens).flat_map(|t| (0..cols).map(move |c| value(t, c))).collect();
        let right = Runner::new(format, &scalar::KERNELS, cols, &x)?;
        let mut out = right.out(PERIOD);
        right.run(&period, &x, &mut out);
        Ok(Problem { format, rows, cols, w, x, expected: out.bits() })
    }

    /// Holds results `(tokens, rows)` to scalar: all bits, or, for another program's floats, within a bound.
    fn hold(
        &self,
        who: &str,
        got: &[u32],
        kind: ResultKind,
        scaled: &dyn Fn(usize, u32) -> u32,
    ) -> Result<()> {
        let tokens = got.chunks(self.rows).zip(self.expected.chunks(PERIOD)).enumerate();
        for (token, (row, expected)) in tokens {
            let expected: Vec<u32> = expected.iter().map(|bits| scaled(token, *bits)).collect();
            let largest = expected.iter().map(|bits| f32::from_bits(*bits).abs()).fold(0.0, f32::max);
            for (r, bits) in row.iter().enumerate() {
                let right = expected[r % PERIOD];
                let apart = (f32::from_bits(*bits) - f32::from_bits(right)).abs();
                let close = kind == ResultKind::F32Close && apart <= CLOSE * largest;
                if *bits != right && !close {
                    let shown = |bits: u32| match kind {
                        ResultKind::I32 => bits.cast_signed().to_string(),
                        _ => format!("{:e} ({bits:#010x})", f32::from_bits(bits)),
                    };
                    let (expected, got) = (shown(right), shown(*bits));
                    return Err(BenchError::Wrong { who: who.to_owned(), token, row: r, expected, got });
                }
            }
        }
        Ok(())
    }

    fn contestant(&self, name: String, pass: impl FnMut() + 'static) -> Contestant {
        let macs = self.rows * self.cols * (self.x.len() / self.cols);
        let bytes = self.rows * self.format.row_bytes(self.cols);
        Contestant { name, macs: macs as f64, bytes: bytes as f64, pass: Box::new(pass) }
    }
}

/// One of ours, after it was held to scalar.
fn ours(problem: &Rc<Problem>, table: &Kernels) -> Result<Contestant> {
    let runner = Runner::new(problem.format, table, problem.cols, &problem.x)?;
    let name = format!("{} {} {}", table.isa, runner.kernel(), problem.format.name());
    let mut out = runner.out(problem.rows);
    runner.run(&problem.w, &problem.x, &mut out);
    let kind = if matches!(out, Out::Sums(_)) { ResultKind::I32 } else { ResultKind::F32Exact };
    problem.hold(&name, &out.bits(), kind, &|_, bits| bits)?;
    let of = Rc::clone(problem);
    Ok(problem.contestant(name, move || runner.run(&of.w, &of.x, black_box(&mut out))))
}

/// An activation row in the bytes of the C ABI (`engine/include/assay_kernel.h`), which are ggml's.
fn as_bytes(quantiser: Quantiser, acts: &Acts) -> Vec<u8> {
    let bytes = |q: &[i8]| q.iter().map(|q| q.cast_unsigned()).collect::<Vec<u8>>();
    let half = |x: f32| f16::from_f32(x).to_le_bytes();
    let Some(block) = quantiser.block() else { return bytes(acts.natural()) };
    let blocks = acts.natural().chunks(block).enumerate();
    blocks
        .flat_map(|(b, q)| {
            let d = acts.scales()[b];
            match quantiser {
                Quantiser::Q8K => {
                    let sum = |q: &[i8]| q.iter().map(|&q| i16::from(q)).sum::<i16>().to_le_bytes();
                    [d.to_le_bytes().to_vec(), bytes(q), q.chunks(16).flat_map(sum).collect()].concat()
                }
                Quantiser::Q8_1 => [half(d).to_vec(), half(acts.mins()[b]).to_vec(), bytes(q)].concat(),
                Quantiser::Q8_0 | Quantiser::I8 => [half(d).to_vec(), bytes(q)].concat(),
            }
        })
        .collect()
}

/// Rows that a kernel from outside gets at a time where it takes one token, as llama.cpp itself goes through a matrix.
const ROWS: usize = 16;

/// Alignment of results in bytes: groups of [`ROWS`] keep it.
const OUT_ALIGN: usize = 4 * ROWS;

/// Whether a kernel takes matrices of this shape at the addresses that they have here.
fn takes(declared: &Declared, cols: usize, row_bytes: usize) -> bool {
    cols.is_multiple_of(declared.cols_multiple)
        && row_bytes.is_multiple_of(declared.weights_align)
        && OUT_ALIGN.is_multiple_of(declared.out_align)
}

/// A kernel from outside, after it was held to scalar. It gets some rows of a token at a time where it takes one token,
/// otherwise as many tokens as it takes. `None` if it declines.
fn theirs(problem: &Rc<Problem>, kernel: &Kernel) -> Result<Option<Contestant>> {
    let (rows, cols, row_bytes) = (problem.rows, problem.cols, problem.format.row_bytes(problem.cols));
    let Some((quantiser, _)) = wanted_by(problem.format) else { return Ok(None) };
    let declared = kernel.declared();
    let runner = Runner::new(problem.format, &scalar::KERNELS, cols, &problem.x)?;
    let taken = declared.activations == quantiser.name() && takes(declared, cols, row_bytes);
    let Some(batch) = runner.acts.filter(|_| taken) else { return Ok(None) };
    let encoded: Vec<Vec<u8>> = batch.rows().map(|acts| as_bytes(quantiser, acts)).collect();
    let scales: Vec<f32> =
        batch.rows().map(|acts| if quantiser == Quantiser::I8 { acts.scales()[0] } else { 1.0 }).collect();
    // In pages of their own, so that every token is aligned as the kernel asks.
    let (token_bytes, stride) =
        (encoded[0].len(), encoded[0].len().next_multiple_of(declared.activations_align));
    let mut acts = memory(scales.len() * stride)?;
    for (to, from) in acts.chunks_exact_mut(stride).zip(&encoded) {
        to[..token_bytes].copy_from_slice(from);
    }
    let at_once = declared.max_tokens.min(scales.len());
    let (of, kernel, name) = (Rc::clone(problem), kernel.clone(), declared.name.clone());
    let kind = declared.result;
    let (of_scales, tokens) = (scales.clone(), scales.len());
    let run = move |out: &mut [u32]| {
        for (group, w) in of.w[..rows * row_bytes].chunks(ROWS * row_bytes).enumerate() {
            let tokens = acts.chunks(at_once * stride).zip(scales.chunks(at_once));
            for ((acts, scales), out) in tokens.zip(out.chunks_mut(at_once * rows)) {
                let mut call = Call {
                    weights: w,
                    weights_row_bytes: row_bytes,
                    weights_stride: row_bytes,
                    rows: w.len() / row_bytes,
                    cols,
                    tensor_scale: 1.0,
                    activations: acts,
                    activations_row_bytes: token_bytes,
                    activations_stride: stride,
                    activation_scales: scales,
                    out: &mut out[ROWS * group..],
                    out_stride: rows,
                };
                if kernel.run(&mut call) != Status::Done {
                    return false;
                }
            }
        }
        true
    };
    let mut out = vec![0; rows * tokens + OUT_ALIGN / 4];
    let start = out.as_ptr().align_offset(OUT_ALIGN);
    let end = start + rows * tokens;
    if !run(&mut out[start..end]) {
        return Ok(None);
    }
    // Where ours gives exact sums and theirs scales them, ours are scaled as the contract says.
    let of_rows = matches!(scalar::KERNELS.multiply(problem.format).entries, Entries::Rows(..));
    problem.hold(&name, &out[start..end], kind, &|token, bits| {
        if of_rows && kind != ResultKind::I32 {
            (bits.cast_signed() as f32 / of_scales[token]).to_bits()
        } else {
            bits
        }
    })?;
    Ok(Some(problem.contestant(name, move || {
        run(black_box(&mut out[start..end]));
    })))
}

/// Times every format on every instruction set in one setting, beside the bare loops and a peer.
///
/// # Errors
/// - [`BenchError::Wrong`]: a kernel whose answer is not scalar's;
/// - an instruction set that is not here; columns that do not fit a format; memory that the system does not give.
pub fn contest(
    setting: &Setting,
    formats: &[Format],
    isas: &[Isa],
    peer: Option<&Loaded>,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Line>> {
    let mut contestants = Vec::new();
    let mut references = References { peaks: Vec::new(), readers: Vec::new(), peer: None };
    for probe in isas.iter().filter_map(|isa| probe::get(*isa)) {
        references.peaks.push(contestants.len());
        let macs = (probe.multiply_adds)(PEAK_ROUNDS) as f64;
        let pass = Box::new(move || _ = black_box((probe.multiply_adds)(PEAK_ROUNDS)));
        contestants.push(Contestant {
            name: format!("{} multiply-adds alone", probe.isa),
            macs,
            bytes: 0.0,
            pass,
        });
    }
    let best = isas.iter().rev().find_map(|isa| probe::get(*isa)).filter(|_| setting.readers);
    if let Some(probe) = best {
        let mut bytes = memory(setting.bytes)?;
        bytes.iter_mut().step_by(64).for_each(|byte| *byte = 1);
        let bytes = Rc::new(bytes);
        for (streams, ahead) in probe::STREAMS.into_iter().flat_map(|s| probe::AHEAD.map(|ahead| (s, ahead)))
        {
            references.readers.push(contestants.len());
            let bytes = Rc::clone(&bytes);
            contestants.push(Contestant {
                name: format!("{} reads, streams {streams}, ahead {ahead}", probe.isa),
                macs: 0.0,
                bytes: bytes.len() as f64,
                pass: Box::new(move || _ = black_box((probe.read)(&bytes, streams, ahead))),
            });
        }
    }
    for &format in formats {
        progress(format.name());
        let problem = Rc::new(Problem::new(format, setting)?);
        for &isa in isas {
            contestants.push(ours(&problem, kernels::get(isa)?)?);
        }
        for kernel in peer.map_or(&[][..], Loaded::kernels) {
            if kernel.declared().weights == format.name() {
                let theirs = theirs(&problem, kernel)?;
                if theirs.is_none() {
                    progress(&format!("{} is not timed: it does not take these", kernel.declared().name));
                }
                // The first format that the peer has too is what others are held against.
                if theirs.is_some() && (references.peer.is_none() || format == Format::Tq2_0) {
                    references.peer = Some(contestants.len());
                }
                contestants.extend(theirs);
            }
        }
    }
    progress("timing");
    Ok(lines(&mut contestants, &references, setting.rounds, setting.turn))
}
