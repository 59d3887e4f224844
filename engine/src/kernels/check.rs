//! Holds a table of kernels to scalar, bit for bit: the one checker that every table is handed to.
//!
//! Each operation runs on the same cases as the scalar one: lengths that bracket every boundary inside a kernel, weights
//! and floats at odd addresses, data that reveals indices, the largest sums, ties, subnormals, signed zeros. Outputs are
//! poisoned beforehand and have guards around them. Two tables that pass give equal digests.

pub mod data;
pub mod diagnose;
mod weights;

use super::acts::Order;
use super::{Acts, Isa, Kernels, scalar};
use crate::exact::I8_FLOOR;
use crate::kind::Kind;
use crate::quant::{Format, qk256};
use data::{Bits, Codes, Data, Floats, Guarded, ROWS, SIZES, exp_sweep};
use diagnose::{Case, Inputs::Quantised, Votes};
use half::f16;
use sha2::{Digest, Sha256};
use std::fmt;

/// Version of the case list: a receipt names it, and a change of any case is a new number.
pub const CASES_VERSION: u32 = 3;

/// What to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Seed of all random data (ChaCha20).
    pub seed: u64,
    /// Cases of random shape and kind for each operation, besides the fixed ones.
    pub random_cases: u32,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { seed: 1, random_cases: 300 }
    }
}

/// An operation that agreed with scalar on every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationReport {
    /// Name of the entry in [`Kernels`].
    pub operation: &'static str,
    /// Cases that were run.
    pub cases: u64,
    /// SHA-256 over the bits of all outputs in order (u32 each, little-endian; u64 for a returned index; NaN as
    /// `0x7fc00000`): equal for every table under the same plan.
    pub outputs_sha256: [u8; 32],
}

/// The first disagreement with scalar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{operation} of table '{isa}' is wrong: {case}: element {element} should be {expected_bits:#010x} and is \
     {got_bits:#010x}; {}", self.meaning()
)]
pub struct Mismatch {
    /// The table that was held to scalar.
    pub isa: Isa,
    /// Name of the entry in [`Kernels`].
    pub operation: &'static str,
    /// Seed, number, shape and data of the case: the same plan gives it again.
    pub case: String,
    /// Index in the output; below 0 or past the end for a stray write; 0 for a returned value.
    pub element: i64,
    /// Bits that scalar gives (or the guard that was there).
    pub expected_bits: u64,
    /// Bits that the table gives.
    pub got_bits: u64,
    /// The kind of error that this case and others after it show, if it is a known one: see [`diagnose`].
    pub kind: Option<Kind>,
    /// What such a difference usually means.
    pub hint: &'static str,
}

impl Mismatch {
    fn meaning(&self) -> String {
        self.kind.map_or_else(|| self.hint.to_owned(), |kind| format!("the error is that {kind}"))
    }
}

/// Every table on trial has failed and been diagnosed: no more cases are needed.
#[derive(Debug)]
struct Stop;

type Outcome = Result<(), Stop>;

type Cases = fn(&mut Run<'_>) -> Outcome;

/// One row per entry of [`Kernels`], in its order.
const OPERATIONS: [(&str, Cases); 52] = [
    ("gemv_i2s_i8", gemv_i2s_i8),
    ("gemm_i2s_i8", |run| weights::gemm_rows(run, Format::I2S)),
    ("gemv_pm2_i8", |run| weights::gemv_rows(run, Format::LinearPm2)),
    ("gemm_pm2_i8", |run| weights::gemm_rows(run, Format::LinearPm2)),
    ("gemv_r4_i8", |run| weights::gemv_rows(run, Format::I2R4)),
    ("gemm_r4_i8", |run| weights::gemm_rows(run, Format::I2R4)),
    ("gemv_t5_i8", |run| weights::gemv_rows(run, Format::T5)),
    ("gemm_t5_i8", |run| weights::gemm_rows(run, Format::T5)),
    ("gemv_bitnet32_i8", |run| weights::gemv_blocks(run, Format::BitNet32)),
    ("gemm_bitnet32_i8", |run| weights::gemm_blocks(run, Format::BitNet32)),
    ("gemv_tq1_0_q8_k", |run| weights::gemv_blocks(run, Format::Tq1_0)),
    ("gemm_tq1_0_q8_k", |run| weights::gemm_blocks(run, Format::Tq1_0)),
    ("gemv_tq2_0_q8_k", |run| weights::gemv_blocks(run, Format::Tq2_0)),
    ("gemm_tq2_0_q8_k", |run| weights::gemm_blocks(run, Format::Tq2_0)),
    ("gemv_q2_0_q8_0", |run| weights::gemv_blocks(run, Format::Q2_0)),
    ("gemm_q2_0_q8_0", |run| weights::gemm_blocks(run, Format::Q2_0)),
    ("gemv_q8_0_q8_0", |run| weights::gemv_blocks(run, Format::Q8_0)),
    ("gemm_q8_0_q8_0", |run| weights::gemm_blocks(run, Format::Q8_0)),
    ("gemv_q4_0_q8_0", |run| weights::gemv_blocks(run, Format::Q4_0)),
    ("gemm_q4_0_q8_0", |run| weights::gemm_blocks(run, Format::Q4_0)),
    ("gemv_q4_1_q8_1", |run| weights::gemv_blocks(run, Format::Q4_1)),
    ("gemm_q4_1_q8_1", |run| weights::gemm_blocks(run, Format::Q4_1)),
    ("gemv_q6_k_q8_k", |run| weights::gemv_blocks(run, Format::Q6K)),
    ("gemm_q6_k_q8_k", |run| weights::gemm_blocks(run, Format::Q6K)),
    ("gemv_f16_f32", |run| weights::gemv_floats(run, Format::F16)),
    ("gemm_f16_f32", |run| weights::gemm_floats(run, Format::F16)),
    ("gemv_bf16_f32", |run| weights::gemv_floats(run, Format::Bf16)),
    ("gemm_bf16_f32", |run| weights::gemm_floats(run, Format::Bf16)),
    ("gemv_f32_f32", |run| weights::gemv_floats(run, Format::F32)),
    ("gemm_f32_f32", |run| weights::gemm_floats(run, Format::F32)),
    ("dot_f32", dot_f32),
    ("sum_f32", sum_f32),
    ("max_f32", max_f32),
    ("find_non_finite", find_non_finite),
    ("rms_norm", rms_norm),
    ("exp_f32", exp_f32),
    ("silu_mul", silu_mul),
    ("relu2_mul", relu2_mul),
    ("softmax", softmax),
    ("scale_f32", scale_f32),
    ("add_f32", add_f32),
    ("rope_halves", rope_halves),
    ("rope_pairs", rope_pairs),
    ("quantise_i8", quantise_i8),
    ("quantise_q8_k", quantise_q8_k),
    ("quantise_q8_0", quantise_q8_0),
    ("quantise_q8_1", quantise_q8_1),
    ("dequantise_i32", dequantise_i32),
    ("narrow_f16", narrow_f16),
    ("widen_f16", widen_f16),
    ("round_bf16", round_bf16),
    ("weigh_f16", weigh_f16),
];

/// Names of the operations, in the order in which [`check`] takes them.
pub fn operations() -> impl ExactSizeIterator<Item = &'static str> {
    OPERATIONS.iter().map(|(name, _)| *name)
}

/// What a table gave: a report for each operation, or the first mismatch.
pub type Checked = Result<Vec<OperationReport>, Box<Mismatch>>;

/// Runs every operation of `table` on the cases of `plan`, and reports each one as it is done.
///
/// # Errors
/// - [`Mismatch`]: the first case whose output differs from scalar in any bit.
pub fn check(table: &Kernels, plan: &Plan, on_operation: &mut dyn FnMut(&OperationReport)) -> Checked {
    let mut reports = Vec::with_capacity(OPERATIONS.len());
    for operation in operations() {
        let report = check_operation(table, plan, operation)?;
        on_operation(&report);
        reports.push(report);
    }
    Ok(reports)
}

/// [`check`] of several tables at once: what scalar gives is computed once for all. The results are in the order of
/// `tables`; `on_operation` is told what is done.
pub fn check_tables(
    tables: &[&Kernels],
    plan: &Plan,
    on_operation: &mut dyn FnMut(&'static str),
) -> Vec<Checked> {
    let mut checked: Vec<Checked> = tables.iter().map(|_| Ok(Vec::with_capacity(OPERATIONS.len()))).collect();
    for operation in operations() {
        on_operation(operation);
        let good: Vec<usize> = (0..tables.len()).filter(|&i| checked[i].is_ok()).collect();
        let on_trial: Vec<&Kernels> = good.iter().map(|&i| tables[i]).collect();
        for (i, result) in good.into_iter().zip(check_operation_of(&on_trial, plan, operation)) {
            match (result, &mut checked[i]) {
                (Ok(report), Ok(reports)) => reports.push(report),
                (Err(mismatch), checked) => *checked = Err(mismatch),
                (Ok(_), Err(_)) => {}
            }
        }
    }
    checked
}

/// The part of [`check`] that belongs to one operation.
///
/// # Errors
/// - [`Mismatch`]: the first case whose output differs from scalar in any bit.
///
/// # Panics
/// - if `operation` is none of [`operations`].
pub fn check_operation(
    table: &Kernels,
    plan: &Plan,
    operation: &str,
) -> Result<OperationReport, Box<Mismatch>> {
    check_operation_of(&[table], plan, operation).pop().expect("a result for each table")
}

fn check_operation_of(
    tables: &[&Kernels],
    plan: &Plan,
    operation: &str,
) -> Vec<Result<OperationReport, Box<Mismatch>>> {
    let row = OPERATIONS.into_iter().find(|(name, _)| *name == operation);
    let (operation, cases) =
        row.unwrap_or_else(|| panic!("'{operation}' is no operation of a table of kernels"));
    let tables = tables.iter().map(|&table| Trial {
        table,
        found: None,
        votes: Votes::default(),
        since: 0,
        since_vote: VOTING_STEP,
    });
    let mut run = Run { tables: tables.collect(), plan, operation, cases: 0, hash: Sha256::new() };
    let stopped = cases(&mut run).is_err();
    let report = OperationReport { operation, cases: run.cases, outputs_sha256: run.hash.finalize().into() };
    let result = |trial: Trial<'_>| match trial.found {
        Some(mut mismatch) => {
            mismatch.kind = trial.votes.winner();
            Err(mismatch)
        }
        None => {
            debug_assert!(!stopped, "a table without a mismatch keeps the cases coming");
            Ok(report)
        }
    };
    run.tables.into_iter().map(result).collect()
}

/// A table that is held to scalar.
struct Trial<'a> {
    table: &'a Kernels,
    found: Option<Box<Mismatch>>,
    votes: Votes,
    /// Cases since the mismatch, and since the last vote.
    since: u64,
    since_vote: u64,
}

/// Wrong cases that are enough for a diagnosis, and cases in which to look for them.
const VOTING_CASES: (usize, u64) = (30, 3000);
/// Cases between two votes: those beside each other are of one shape, and shapes are what tells kinds apart.
const VOTING_STEP: u64 = 5;
/// Multiply-adds of a case above which it is not diagnosed.
const DIAGNOSED: usize = 60_000;

impl Trial<'_> {
    fn is_done(&self) -> bool {
        self.found.is_some() && (self.votes.cases() >= VOTING_CASES.0 || self.since >= VOTING_CASES.1)
    }
}

/// What a case showed: memory and return values of scalar and of a table, for a diagnosis.
struct Seen<'a, T, R> {
    start: &'a [T],
    expected: &'a [T],
    got: &'a [T],
    returned: (R, R),
}

/// One operation's cases.
struct Run<'a> {
    tables: Vec<Trial<'a>>,
    plan: &'a Plan,
    operation: &'static str,
    cases: u64,
    /// Of what scalar gives: a table that passes gives the same.
    hash: Sha256,
}

impl Run<'_> {
    /// Data of the next case.
    fn data(&self) -> Data {
        Data::new(self.plan.seed, self.operation, self.cases)
    }

    /// Elements by which the memory of the next case is off its alignment.
    fn offset(&self) -> usize {
        (self.cases % 4) as usize
    }

    /// An input of the next case, between traps.
    fn input<T: Bits>(&self, values: &[T]) -> Guarded<T> {
        Guarded::new(values, self.offset())
    }

    /// Every length with every kind of floats, then random ones.
    fn lengths(&self) -> Vec<(usize, Floats)> {
        let mut data = Data::new(self.plan.seed, self.operation, u64::MAX);
        let fixed = SIZES.iter().flat_map(|&n| Floats::ALL.map(|kind| (n, kind)));
        let random = (0..self.plan.random_cases).map(|_| (data.below(1100), data.one_of(&Floats::ALL)));
        fixed.chain(random).collect()
    }

    /// Shapes with kinds of data: every number of rows with every length (a few rows where these are long) and every
    /// kind, then random ones.
    fn shapes<K: Copy>(&self, lengths: &[usize], kinds: &[K]) -> Vec<(usize, usize, K)> {
        let mut shapes = Vec::new();
        for (rows, cols) in ROWS.into_iter().flat_map(|rows| lengths.iter().map(move |&cols| (rows, cols))) {
            if rows <= 5 || rows * cols <= 9000 {
                shapes.extend(kinds.iter().map(|&kind| (rows, cols, kind)));
            }
        }
        let mut data = Data::new(self.plan.seed, self.operation, u64::MAX - 1);
        let random = |_| (data.below(20), data.below(700), data.one_of(kinds));
        shapes.extend((0..self.plan.random_cases).map(random));
        shapes
    }

    /// [`Run::shapes`] for float weights. Arithmetic on subnormals is a hundred times slower: small shapes of them are
    /// enough.
    fn float_shapes(&self) -> Vec<(usize, usize, Floats)> {
        let mut shapes = self.shapes(&SIZES, &Floats::ALL);
        shapes.retain(|(rows, cols, kind)| *kind != Floats::Tiny || rows * cols <= 600);
        shapes
    }

    /// Runs one case on scalar and on every table, from the same `start`, and compares the memory and what `f` returns.
    fn case<T: Bits, R: Bits>(
        &mut self,
        what: fmt::Arguments<'_>,
        start: &[T],
        f: impl Fn(&Kernels, &mut [T]) -> R,
    ) -> Outcome {
        self.case_of(what, start, f, |_| Vec::new())
    }

    /// [`Run::case`], with what is known of the operation's own errors: called for wrong results only.
    fn case_of<T: Bits, R: Bits>(
        &mut self,
        what: fmt::Arguments<'_>,
        start: &[T],
        f: impl Fn(&Kernels, &mut [T]) -> R,
        suspects: impl Fn(&Seen<'_, T, R>) -> Vec<Kind>,
    ) -> Outcome {
        let mut reference = Guarded::new(start, self.offset());
        let reference_returned = f(&scalar::KERNELS, reference.inner_mut());
        let mut trials = std::mem::take(&mut self.tables);
        for trial in &mut trials {
            if trial.found.is_some() {
                trial.since += 1;
                trial.since_vote += 1;
            }
            if trial.is_done() {
                continue;
            }
            // Scalar is the meaning; of its own table there is only to see whether it stays in its memory.
            let own = std::ptr::eq(trial.table, &raw const scalar::KERNELS);
            let mut ran = Guarded::new(if own { &[] } else { start }, self.offset());
            let ran_returned = if own { reference_returned } else { f(trial.table, ran.inner_mut()) };
            let got = if own { &reference } else { &ran };
            let seen = Seen {
                start,
                expected: reference.inner(),
                got: got.inner(),
                returned: (reference_returned, ran_returned),
            };
            let Some(mismatch) = self.mismatch(what, trial.table, got, &seen) else { continue };
            // A single output that was not written is a part and the whole.
            let tells = seen.got.len() != 1 || seen.got[0].bits() != T::POISON.bits();
            if trial.since_vote >= VOTING_STEP && tells {
                let general = mismatch.kind.map_or_else(|| self.suspects(&seen), |kind| vec![kind]);
                trial.votes.add(&if general.is_empty() { suspects(&seen) } else { general });
                trial.since_vote = 0;
            }
            trial.found.get_or_insert(mismatch);
        }
        self.tables = trials;
        let mut outputs = Vec::with_capacity(4 * start.len() + 8);
        for &e in reference.inner() {
            outputs.extend_from_slice(&(self.canonical(e) as u32).to_le_bytes());
        }
        if size_of::<R>() > 0 {
            outputs.extend_from_slice(&self.canonical(reference_returned).to_le_bytes());
        }
        self.hash.update(&outputs);
        self.cases += 1;
        if !self.tables.is_empty() && self.tables.iter().all(Trial::is_done) { Err(Stop) } else { Ok(()) }
    }

    /// The first difference of a case.
    fn mismatch<T: Bits, R: Bits>(
        &self,
        what: fmt::Arguments<'_>,
        table: &Kernels,
        got: &Guarded<T>,
        seen: &Seen<'_, T, R>,
    ) -> Option<Box<Mismatch>> {
        let mismatch = |element: i64, returned: &str, expected_bits: u64, got_bits: u64, kind, hint| {
            let case = format!("seed {}, case {}: {what}{returned}", self.plan.seed, self.cases);
            let (isa, operation) = (table.isa, self.operation);
            Some(Box::new(Mismatch { isa, operation, case, element, expected_bits, got_bits, kind, hint }))
        };
        if let Some((at, value)) = got.broken() {
            let hint = "memory outside the output was written";
            return mismatch(at, "", T::POISON.bits(), value.bits(), Some(Kind::WriteOutside), hint);
        }
        for (i, (&e, &g)) in seen.expected.iter().zip(seen.got).enumerate() {
            let (e, g) = (self.canonical(e), self.canonical(g));
            if e != g {
                return mismatch(i as i64, "", e, g, None, hint::<T>(e, g));
            }
        }
        let (e, g) = (self.canonical(seen.returned.0), self.canonical(seen.returned.1));
        if e != g { mismatch(0, ", the returned value", e, g, None, hint::<R>(e, g)) } else { None }
    }

    /// Kinds of error that show in any operation: what was not written, old values, zeros for subnormals, sums that
    /// wrapped.
    fn suspects<T: Bits, R: Bits>(&self, seen: &Seen<'_, T, R>) -> Vec<Kind> {
        let bits = |values: &[T], i: usize| self.canonical(values[i]);
        let wrong: Vec<usize> =
            (0..seen.got.len()).filter(|&i| bits(seen.expected, i) != bits(seen.got, i)).collect();
        let all = |fits: &dyn Fn(usize) -> bool| !wrong.is_empty() && wrong.iter().all(|&i| fits(i));
        let poisoned = |i: usize| bits(seen.got, i) == T::POISON.bits();
        let mut kinds = Vec::new();
        if all(&poisoned) {
            if (0..seen.got.len()).all(poisoned) {
                kinds.push(Kind::EmptyFallback);
            }
            kinds.push(Kind::PartNotWritten);
        } else if all(&|i| seen.got[i].bits() == seen.start[i].bits()) {
            if (0..seen.got.len()).all(|i| seen.got[i].bits() == seen.start[i].bits()) {
                kinds.push(Kind::EmptyFallback);
            }
            kinds.push(Kind::StaleTail);
        }
        let flushed = |e: u64, g: u64| {
            let (e, g) = (f32::from_bits(e as u32), f32::from_bits(g as u32));
            (e.is_subnormal() || e.is_normal() && e.abs() < 6.2e-5 && self.operation == "widen_f16")
                && g == 0.0
        };
        if T::FLOAT && all(&|i| flushed(bits(seen.expected, i), bits(seen.got, i))) {
            kinds.push(Kind::FtzOn);
        }
        kinds
    }

    /// Bits to compare. Which NaN an operation on infinities gives is not fixed, except by `exp`; poison stays what it is.
    fn canonical<T: Bits>(&self, value: T) -> u64 {
        let bits = value.bits();
        let nan = T::FLOAT && f32::from_bits(bits as u32).is_nan();
        if nan && bits != f32::POISON.bits() && self.operation != "exp_f32" { 0x7fc0_0000 } else { bits }
    }
}

/// What a difference usually means.
fn hint<T: Bits>(expected: u64, got: u64) -> &'static str {
    if got == T::POISON.bits() {
        return "the element was not written";
    }
    if size_of::<T>() != 4 {
        return "look at rounding (ties to even), order within a register, and the tail";
    }
    if !T::FLOAT {
        let apart = (expected as u32).wrapping_sub(got as u32);
        return match apart & 0xffff {
            0 => "apart by a multiple of 65536: a 16-bit accumulator overflowed",
            _ => "look at the tail, the order of the fields, the sum of activations, and saturation",
        };
    }
    if expected ^ got == 0x8000_0000 && expected & 0x7fff_ffff == 0 {
        return "the sign of a zero: sums start from +0.0, and the padding of a last round is executed";
    }
    match expected.abs_diff(got) {
        1..=4 => "a few ulp: a product fused or not against the contract, or another order of additions",
        _ => "look at the tail, and at the order within a register",
    }
}

fn poison<T: Bits>(n: usize) -> Vec<T> {
    vec![T::POISON; n]
}

fn gemv_i2s_i8(run: &mut Run<'_>) -> Outcome {
    let columns = [&SIZES[..], &[6912]].concat();
    for (rows, cols, kind) in run.shapes(&columns, &Codes::ALL) {
        for order in [Order::I2S, Order::I2S64] {
            ternary_case(run, order, kind, rows, cols, qk256::row_bytes(cols))?;
            // I2_S rows end in half a tile where cols = 128 (mod 256).
            if cols % 256 == 128 {
                ternary_case(run, order, kind, rows, cols, cols / 4)?;
            }
        }
    }
    // Near the bound that the loader checks (cols · 128 · 3 < 2^31), with room for the subtraction of the sum.
    for (rows, kind) in
        [(1, Codes::Constant(3, -128)), (4, Codes::Constant(3, -128)), (4, Codes::Constant(2, 127))]
    {
        ternary_case(run, Order::I2S, kind, rows, 5_000_000 / 256 * 256, 5_000_000 / 256 * 64)?;
    }
    Ok(())
}

fn ternary_case(
    run: &mut Run<'_>,
    order: Order,
    kind: Codes,
    rows: usize,
    cols: usize,
    row_bytes: usize,
) -> Outcome {
    let mut data = run.data();
    let codes = run.input(&data.codes(kind, rows, row_bytes));
    let x = Acts::row(order, data.acts(kind, cols), 1.0);
    let what = format_args!("{rows} rows x {cols} columns in {row_bytes} bytes, order {order:?}, {kind:?}");
    let case =
        Case { format: Format::I2S, w: codes.inner(), row_bytes, x: Quantised(std::slice::from_ref(&x)) };
    let f = |k: &Kernels, out: &mut [i32]| (k.gemv_i2s_i8)(codes.inner(), row_bytes, &x, out);
    run.case_of(what, &poison(rows), f, |seen| suspects(&case, seen.got))
}

/// The suspects of a product, where it is small enough to be computed again under every reading.
fn suspects<T: Bits>(case: &Case<'_>, got: &[T]) -> Vec<Kind> {
    let got: Vec<u32> = got.iter().map(|v| v.bits() as u32).collect();
    if case.cost() <= DIAGNOSED { diagnose::suspects(case, &got) } else { Vec::new() }
}

fn dot_f32(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let (a, b) = (run.input(&data.floats(kind, n)), run.input(&data.partners(kind, n)));
        let f = |k: &Kernels, _: &mut [()]| (k.dot_f32)(a.inner(), b.inner());
        run.case_of(format_args!("length {n}, {kind:?}"), &[(); 0], f, |seen| {
            diagnose::suspects_of_sum(a.inner(), b.inner(), seen.returned.1)
        })?;
    }
    Ok(())
}

fn sum_f32(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let a = run.input(&run.data().floats(kind, n));
        run.case_of(
            format_args!("length {n}, {kind:?}"),
            &[(); 0],
            |k, _| (k.sum_f32)(a.inner()),
            |seen| diagnose::suspects_of_sum(a.inner(), &vec![1.0; n], seen.returned.1),
        )?;
    }
    Ok(())
}

fn max_f32(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let mut values = data.floats(kind, n);
        for shape in ["both signs", "negative", "largest last"] {
            match shape {
                "negative" => values.iter_mut().for_each(|v| *v = -v.abs()),
                "largest last" if n > 0 => values[n - 1] = f32::MAX,
                _ => {}
            }
            let a = run.input(&values);
            let what = format_args!("length {n}, {kind:?}, {shape}");
            run.case(what, &[(); 0], |k, _| (k.max_f32)(a.inner()))?;
        }
    }
    Ok(())
}

fn find_non_finite(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let mut values = data.floats(kind, n);
        values.iter_mut().take(1).for_each(|v| *v = f32::MAX);
        for found in [None, Some(f32::NAN), Some(f32::INFINITY), Some(f32::NEG_INFINITY), Some(-f32::NAN)] {
            // Later ones are added before earlier ones, so that only the first counts.
            let at = if found.is_some() { data.below(n.max(1) as u32) } else { 0 };
            if let (Some(bad), true) = (found, n > 0) {
                values[at] = bad;
            }
            let a = run.input(&values);
            let what = format_args!("length {n}, {kind:?}, {found:?} at {at}");
            run.case(what, &[(); 0], |k, _| (k.find_non_finite)(a.inner()))?;
        }
    }
    for at in 0..100 {
        let mut values = vec![1.0; 100];
        values[at] = f32::INFINITY;
        let a = run.input(&values);
        run.case(format_args!("length 100, infinity at {at}"), &[(); 0], |k, _| {
            (k.find_non_finite)(a.inner())
        })?;
    }
    Ok(())
}

fn rms_norm(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let (x, w) = (run.input(&data.floats(kind, n)), run.input(&data.partners(kind, n)));
        let eps = data.one_of(&[1e-5, 1e-6, 0.1, f32::MIN_POSITIVE]);
        let what = format_args!("length {n}, {kind:?}, eps {eps:e}");
        let f = |k: &Kernels, out: &mut [f32]| (k.rms_norm)(x.inner(), w.inner(), eps, out);
        run.case_of(what, &poison(n), f, |seen| {
            diagnose::suspects_of_norm(x.inner(), w.inner(), eps, seen.got)
        })?;
    }
    Ok(())
}

fn exp_f32(run: &mut Run<'_>) -> Outcome {
    let sweep = exp_sweep(&mut run.data());
    run.case(format_args!("sweep over all exponents"), &sweep, |k, x| (k.exp_f32)(x))?;
    for (n, kind) in run.lengths() {
        let values = run.data().floats(kind, n);
        run.case(format_args!("length {n}, {kind:?}"), &values, |k, x| (k.exp_f32)(x))?;
    }
    Ok(())
}

fn silu_mul(run: &mut Run<'_>) -> Outcome {
    gated(run, |k| k.silu_mul)
}

fn relu2_mul(run: &mut Run<'_>) -> Outcome {
    gated(run, |k| k.relu2_mul)
}

type Gated = fn(&[f32], &[f32], &mut [f32]);

fn gated(run: &mut Run<'_>, entry: fn(&Kernels) -> Gated) -> Outcome {
    let relu2 = run.operation == "relu2_mul";
    let mut sweep = exp_sweep(&mut run.data());
    sweep.retain(|g| g.is_finite());
    let u = run.data().floats(Floats::Ordinary, sweep.len());
    let what = format_args!("sweep over all exponents");
    run.case_of(
        what,
        &poison(sweep.len()),
        |k, out| entry(k)(&sweep, &u, out),
        |seen| if relu2 { diagnose::suspects_of_gate(&sweep, &u, seen.got) } else { Vec::new() },
    )?;
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let (g, u) = (run.input(&data.floats(kind, n)), run.input(&data.partners(kind, n)));
        let what = format_args!("length {n}, {kind:?}");
        run.case_of(
            what,
            &poison(n),
            |k, out| entry(k)(g.inner(), u.inner(), out),
            |seen| match relu2 {
                true => diagnose::suspects_of_gate(g.inner(), u.inner(), seen.got),
                false => Vec::new(),
            },
        )?;
    }
    Ok(())
}

fn softmax(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let values = run.data().floats(kind, n);
        run.case(format_args!("length {n}, {kind:?}"), &values, |k, s| (k.softmax)(s))?;
    }
    Ok(())
}

fn scale_f32(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let values = data.floats(kind, n);
        let f = data.floats(Floats::Mixed, 1)[0];
        run.case(format_args!("length {n}, {kind:?}, factor {f:e}"), &values, |k, x| (k.scale_f32)(x, f))?;
    }
    Ok(())
}

fn add_f32(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let values = data.floats(kind, n);
        let y = run.input(&data.partners(kind, n));
        run.case(format_args!("length {n}, {kind:?}"), &values, |k, x| (k.add_f32)(x, y.inner()))?;
    }
    Ok(())
}

fn rope_halves(run: &mut Run<'_>) -> Outcome {
    rope(run, |k| k.rope_halves)
}

fn rope_pairs(run: &mut Run<'_>) -> Outcome {
    rope(run, |k| k.rope_pairs)
}

type Rope = fn(&mut [f32], &[f32], &[f32]);

fn rope(run: &mut Run<'_>, entry: fn(&Kernels) -> Rope) -> Outcome {
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let rest = data.one_of(&[0, 0, 1, 2, 17]);
        let x = data.floats(kind, 2 * n + rest);
        let angles = data.floats(Floats::Ordinary, n);
        let turn = |f: fn(f32) -> f32| angles.iter().map(|&a| f(a)).collect::<Vec<f32>>();
        let (cos, sin) = (run.input(&turn(libm::cosf)), run.input(&turn(libm::sinf)));
        let what = format_args!("{n} pairs and {rest} more, {kind:?}");
        run.case(what, &x, |k, x| entry(k)(x, cos.inner(), sin.inner()))?;
    }
    Ok(())
}

fn quantise_i8(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let values = run.input(&run.data().floats(kind, n));
        let what = format_args!("length {n}, {kind:?}");
        let f = |k: &Kernels, q: &mut [i8]| (k.quantise_i8)(values.inner(), q);
        let vanishes = values.inner().iter().all(|v| v.abs() < I8_FLOOR);
        run.case_of(what, &poison(n), f, |_| zero_row(vanishes))?;
    }
    for n in SIZES.into_iter().filter(|&n| n > 0) {
        for largest in [127.0, -127.0, 254.0, 63.5, 1e-5, 1e-6] {
            // s is a power of two (or the floor's): every value is a tie, the largest is anywhere.
            let mut data = run.data();
            let step = largest / 127.0;
            let mut values: Vec<f32> = (0..n).map(|_| (data.below(254) as f32 - 126.5) * step).collect();
            values[data.below(n as u32)] = largest;
            let values = run.input(&values);
            let what = format_args!("length {n}, ties, largest {largest}");
            run.case(what, &poison(n), |k, q| (k.quantise_i8)(values.inner(), q))?;
        }
    }
    Ok(())
}

/// What is wrong where only activations that vanish go wrong.
fn zero_row(vanishes: bool) -> Vec<Kind> {
    if vanishes { vec![Kind::NanOnZeroRow] } else { Vec::new() }
}

fn quantise_q8_k(run: &mut Run<'_>) -> Outcome {
    quantise_blocks(run, 256, |k, x, q, d, _| (k.quantise_q8_k)(x, q, d))
}

fn quantise_q8_0(run: &mut Run<'_>) -> Outcome {
    quantise_blocks(run, 32, |k, x, q, d, _| (k.quantise_q8_0)(x, q, d))
}

fn quantise_q8_1(run: &mut Run<'_>) -> Outcome {
    quantise_blocks(run, 32, |k, x, q, d, s| (k.quantise_q8_1)(x, q, d, s))
}

/// `(kernels, x, values, scales, sums)`
type QuantiseBlocks = fn(&Kernels, &[f32], &mut [i8], &mut [f32], &mut [f32]);

/// Values, then scales, then sums: each is an output of a case of its own.
fn quantise_blocks(run: &mut Run<'_>, block: usize, f: QuantiseBlocks) -> Outcome {
    let mut inputs: Vec<(String, Vec<f32>)> = Vec::new();
    for (i, kind) in (0..40).flat_map(|i| Floats::ALL.map(|kind| (i, kind))) {
        let n = block * [1, 2, 3, 5, 0][i % 5];
        let mut data = Data::new(run.plan.seed, run.operation, 1 << 40 | (inputs.len() as u64));
        let mut values = data.floats(kind, n);
        match i % 4 {
            // A block of zeros among others, and equal magnitudes of both signs.
            1 => values.iter_mut().skip(block).take(block).for_each(|v| *v = 0.0),
            2 if n > 0 => {
                let largest = values.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
                let (a, b) = (data.below(n as u32), data.below(n as u32));
                (values[a], values[b]) = (largest, -largest);
            }
            // The scale is a power of two: every value is a tie.
            3 => {
                values.iter_mut().for_each(|v| *v = data.below(254) as f32 - 126.5);
                values.iter_mut().step_by(block).for_each(|v| *v = [127.0, -127.0][data.below(2)]);
            }
            _ => {}
        }
        inputs.push((format!("length {n}, {kind:?}, variant {}", i % 4), values));
    }
    for (what, values) in inputs {
        let (x, n, blocks) = (run.input(&values), values.len(), values.len() / block);
        let zero = |b: usize| x.inner()[b * block..][..block].iter().all(|v| *v == 0.0);
        run.case_of(
            format_args!("{what}, values"),
            &poison(n),
            |k, q| f(k, x.inner(), q, &mut vec![0.0; blocks], &mut vec![0.0; blocks]),
            |seen| zero_row((0..n).all(|i| seen.got[i] == seen.expected[i] || zero(i / block))),
        )?;
        run.case_of(
            format_args!("{what}, scales"),
            &poison(blocks),
            |k, d| f(k, x.inner(), &mut vec![0; n], d, &mut vec![0.0; blocks]),
            |seen| {
                zero_row((0..blocks).all(|b| seen.got[b].to_bits() == seen.expected[b].to_bits() || zero(b)))
            },
        )?;
        if run.operation == "quantise_q8_1" {
            run.case(format_args!("{what}, sums"), &poison(blocks), |k, s| {
                f(k, x.inner(), &mut vec![0; n], &mut vec![0.0; blocks], s);
            })?;
        }
    }
    Ok(())
}

fn round_bf16(run: &mut Run<'_>) -> Outcome {
    // Both sides of every tie, for all bf16 with a few signs and exponents; the largest overflow.
    let ties: Vec<f32> = (0..=0xffff_u32)
        .step_by(7)
        .flat_map(|high| [0x7fff, 0x8000, 0x8001, 0].map(|low| f32::from_bits(high << 16 | low)))
        .filter(|v| v.is_finite())
        .collect();
    run.case(format_args!("ties"), &ties, |k, x| (k.round_bf16)(x))?;
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let mut values = data.floats(kind, n);
        if n > 0 && data.below(2) == 1 {
            values[data.below(n as u32)] = f32::MAX;
        }
        run.case(format_args!("length {n}, {kind:?}"), &values, |k, x| (k.round_bf16)(x))?;
    }
    Ok(())
}

fn dequantise_i32(run: &mut Run<'_>) -> Outcome {
    let edges = [
        0,
        1,
        -1,
        i32::MAX,
        i32::MIN,
        (1 << 24) + 1,
        (1 << 24) + 3,
        -(1 << 24) - 1,
        (1 << 25) + 2,
        2_000_000_065,
    ];
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let acc: Vec<i32> = (0..n)
            .map(|_| {
                if data.below(4) == 0 {
                    data.one_of(&edges)
                } else {
                    data.u32().cast_signed() >> data.below(28)
                }
            })
            .collect();
        let acc = run.input(&acc);
        // Any mantissa, and magnitudes far beyond those of activations.
        let any = f32::from_bits((127 - 120 + data.u32() % 240) << 23 | data.u32() >> 9);
        let s = data.one_of(&[1.0, 127.0 / 1e-5, 127.0 / f32::MAX, 31.7, 0.3, any, any, any]);
        let w_scale = data.floats(kind, 1)[0];
        let what = format_args!("length {n}, s {s:e}, scale {w_scale:e}");
        let f = |k: &Kernels, out: &mut [f32]| (k.dequantise_i32)(acc.inner(), s, w_scale, out);
        run.case_of(what, &poison(n), f, |seen| {
            let ignored = seen.got.iter().zip(acc.inner()).all(|(y, &acc)| *y == acc as f32 / s);
            if ignored { vec![Kind::MissingScale] } else { Vec::new() }
        })?;
    }
    Ok(())
}

fn narrow_f16(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let values = run.input(&run.data().floats(kind, n));
        let what = format_args!("length {n}, {kind:?}");
        run.case(what, &poison(2 * n), |k, out| (k.narrow_f16)(values.inner(), out))?;
    }
    // Every finite f16, the tie above it, and both neighbours of the tie.
    let ties: Vec<f32> = (0..0x7c00_u16)
        .flat_map(|bits| {
            let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
            let tie = if high.is_finite() { (low + high) / 2.0 } else { 65520.0 };
            [low, tie.next_down(), tie, tie.next_up(), -tie]
        })
        .collect();
    run.case(format_args!("all ties"), &poison(2 * ties.len()), |k, out| (k.narrow_f16)(&ties, out))?;
    // The bytes of a NaN are not fixed: only where it is found.
    for n in SIZES.into_iter().filter(|&n| n > 0) {
        for bad in [65520.0, -65520.0, 1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut data = run.data();
            let mut values = data.floats(Floats::Ordinary, n);
            let at = [data.below(n as u32), data.below(n as u32)];
            at.iter().for_each(|&at| values[at] = bad);
            let values = run.input(&values);
            let what = format_args!("length {n}, {bad} at {at:?}");
            run.case(what, &[(); 0], |k, _| (k.narrow_f16)(values.inner(), &mut vec![0; 2 * n]))?;
        }
    }
    Ok(())
}

fn widen_f16(run: &mut Run<'_>) -> Outcome {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    run.case(format_args!("every f16"), &poison(1 << 16), |k, out| (k.widen_f16)(&all, out))?;
    for (n, kind) in run.lengths() {
        let values = run.input(&run.data().halves(kind, n));
        let what = format_args!("length {n}, {kind:?}");
        run.case(what, &poison(n), |k, out| (k.widen_f16)(values.inner(), out))?;
    }
    Ok(())
}

fn weigh_f16(run: &mut Run<'_>) -> Outcome {
    let dimensions = [0, 1, 7, 8, 9, 16, 17, 31, 33, 63, 64, 65, 80, 100, 127, 128, 129, 256, 300];
    let kinds = [Floats::Ordinary, Floats::Mixed, Floats::Period251, Floats::MinusZeros, Floats::Tiny];
    let mut shapes = Vec::new();
    for positions in [0, 1, 2, 3, 5, 31, 255, 256, 257, 511, 512, 513, 700] {
        // Long contexts with a few dimensions: each has every path of a kernel but its repetition.
        for d in dimensions.into_iter().filter(|d| positions < 300 || d % 16 == 1 && *d < 100 || *d == 80) {
            // Arithmetic on subnormals is a hundred times slower: small shapes of them are enough.
            let kinds = kinds.iter().filter(|kind| **kind != Floats::Tiny || positions * d <= 2000);
            let queries = 1 + shapes.len() % 9;
            shapes.extend(kinds.map(|kind| (queries, positions, d, *kind)));
        }
    }
    let mut data = run.data();
    let random = |_| (1 + data.below(9), data.below(300), data.below(140), data.one_of(&kinds[..4]));
    shapes.extend((0..run.plan.random_cases).map(random));
    for (queries, positions, d, kind) in shapes {
        // Without dimensions there is one.
        let queries = if d == 0 { 1 } else { queries };
        let mut data = run.data();
        let p = run.input(&data.partners(kind, queries * positions));
        let v = run.input(&data.halves(kind, positions * d));
        let what = format_args!("{queries} queries, {positions} positions x {d} dimensions, {kind:?}");
        run.case(what, &poison(queries * d), |k, out| (k.weigh_f16)(p.inner(), v.inner(), d, out))?;
    }
    Ok(())
}
