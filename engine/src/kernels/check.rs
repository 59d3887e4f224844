//! Holds a table of kernels to scalar, bit for bit: the one checker that every table is handed to.
//!
//! Each operation runs on the same cases as the scalar one: lengths that bracket every boundary inside a kernel, weights
//! and floats at odd addresses, data that reveals indices, the largest sums, ties, subnormals, signed zeros. Outputs are
//! poisoned beforehand and have guards around them. Two tables that pass give equal digests.

pub mod data;

use super::{Isa, Kernels, TileActs, scalar};
use crate::quant::qk256;
use data::{Bits, Codes, Data, Floats, Guarded, ROWS, SIZES, exp_sweep};
use half::f16;
use sha2::{Digest, Sha256};
use std::fmt;

/// Version of the case list: a receipt names it, and a change of any case is a new number.
pub const CASES_VERSION: u32 = 1;

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
     {got_bits:#010x}; {hint}"
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
    /// What such a difference usually means.
    pub hint: &'static str,
}

type Outcome = Result<(), Box<Mismatch>>;

type Cases = fn(&mut Run<'_>) -> Outcome;

/// One row per entry of [`Kernels`], in its order.
const OPERATIONS: [(&str, Cases); 21] = [
    ("gemv_i2s_i8", gemv_i2s_i8),
    ("gemv_f16_f32", gemv_f16_f32),
    ("gemv_f32_f32", gemv_f32_f32),
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
    ("dequantise_i32", dequantise_i32),
    ("narrow_f16", narrow_f16),
    ("widen_f16", widen_f16),
    ("weigh_f16", weigh_f16),
];

/// Names of the operations, in the order in which [`check`] takes them.
pub fn operations() -> impl ExactSizeIterator<Item = &'static str> {
    OPERATIONS.iter().map(|(name, _)| *name)
}

/// Runs every operation of `table` on the cases of `plan`, and reports each one as it is done.
///
/// # Errors
/// - [`Mismatch`]: the first case whose output differs from scalar in any bit.
pub fn check(
    table: &Kernels,
    plan: &Plan,
    on_operation: &mut dyn FnMut(&OperationReport),
) -> Result<Vec<OperationReport>, Box<Mismatch>> {
    let mut reports = Vec::with_capacity(OPERATIONS.len());
    for operation in operations() {
        let report = check_operation(table, plan, operation)?;
        on_operation(&report);
        reports.push(report);
    }
    Ok(reports)
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
    let row = OPERATIONS.into_iter().find(|(name, _)| *name == operation);
    let (operation, cases) =
        row.unwrap_or_else(|| panic!("'{operation}' is no operation of a table of kernels"));
    let mut run = Run { table, plan, operation, cases: 0, hash: Sha256::new() };
    cases(&mut run)?;
    Ok(OperationReport { operation, cases: run.cases, outputs_sha256: run.hash.finalize().into() })
}

/// One operation's cases.
struct Run<'a> {
    table: &'a Kernels,
    plan: &'a Plan,
    operation: &'static str,
    cases: u64,
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

    /// Runs one case on scalar and on the table, from the same `start`, and compares the memory and what `f` returns.
    fn case<T: Bits, R: Bits>(
        &mut self,
        what: fmt::Arguments<'_>,
        start: &[T],
        f: impl Fn(&Kernels, &mut [T]) -> R,
    ) -> Outcome {
        let mut expected = start.to_vec();
        let expected_return = f(&scalar::KERNELS, &mut expected);
        let mut got = Guarded::new(start, self.offset());
        let got_return = f(self.table, got.inner_mut());

        let mismatch = |element: i64, returned: &str, expected: u64, got: u64, hint| {
            let (seed, number) = (self.plan.seed, self.cases);
            let case = format!("seed {seed}, case {number}: {what}{returned}");
            let (isa, operation) = (self.table.isa, self.operation);
            Err(Box::new(Mismatch {
                isa,
                operation,
                case,
                element,
                expected_bits: expected,
                got_bits: got,
                hint,
            }))
        };
        if let Some((at, value)) = got.broken() {
            let hint = "memory outside the output was written";
            return mismatch(at, "", T::POISON.bits(), value.bits(), hint);
        }
        let mut outputs = Vec::with_capacity(4 * start.len() + 8);
        for (i, (&e, &g)) in expected.iter().zip(got.inner()).enumerate() {
            let (e, g) = (self.canonical(e), self.canonical(g));
            if e != g {
                return mismatch(i as i64, "", e, g, hint::<T>(e, g));
            }
            outputs.extend_from_slice(&(g as u32).to_le_bytes());
        }
        let (e, g) = (self.canonical(expected_return), self.canonical(got_return));
        if e != g {
            return mismatch(0, ", the returned value", e, g, hint::<R>(e, g));
        }
        if size_of::<R>() > 0 {
            outputs.extend_from_slice(&g.to_le_bytes());
        }
        self.hash.update(&outputs);
        self.cases += 1;
        Ok(())
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
        ternary_case(run, kind, rows, cols, qk256::row_bytes(cols))?;
        // I2_S rows end in half a tile where cols = 128 (mod 256).
        if cols % 256 == 128 {
            ternary_case(run, kind, rows, cols, cols / 4)?;
        }
    }
    // Near the bound that the loader checks (cols · 128 · 3 < 2^31), with room for the subtraction of the sum.
    for (rows, kind) in
        [(1, Codes::Constant(3, -128)), (4, Codes::Constant(3, -128)), (4, Codes::Constant(2, 127))]
    {
        ternary_case(run, kind, rows, 5_000_000 / 256 * 256, 5_000_000 / 256 * 64)?;
    }
    Ok(())
}

fn ternary_case(run: &mut Run<'_>, kind: Codes, rows: usize, cols: usize, row_bytes: usize) -> Outcome {
    let mut data = run.data();
    let codes = run.input(&data.codes(kind, rows, row_bytes));
    let x = TileActs::new(&data.acts(kind, cols));
    let what = format_args!("{rows} rows x {cols} columns in {row_bytes} bytes, {kind:?}");
    run.case(what, &poison(rows), |k, out| (k.gemv_i2s_i8)(codes.inner(), row_bytes, &x, out))
}

fn gemv_f16_f32(run: &mut Run<'_>) -> Outcome {
    for (rows, cols, kind) in run.float_shapes() {
        let mut data = run.data();
        let w = run.input(&data.halves(kind, rows * cols));
        let x = run.input(&data.partners(kind, cols));
        let what = format_args!("{rows} rows x {cols} columns, {kind:?}");
        run.case(what, &poison(rows), |k, out| (k.gemv_f16_f32)(w.inner(), x.inner(), out))?;
    }
    Ok(())
}

fn gemv_f32_f32(run: &mut Run<'_>) -> Outcome {
    for (rows, cols, kind) in run.float_shapes() {
        let mut data = run.data();
        let w: Vec<u8> = data.floats(kind, rows * cols).into_iter().flat_map(f32::to_le_bytes).collect();
        let (w, x) = (run.input(&w), run.input(&data.partners(kind, cols)));
        let what = format_args!("{rows} rows x {cols} columns, {kind:?}");
        run.case(what, &poison(rows), |k, out| (k.gemv_f32_f32)(w.inner(), x.inner(), out))?;
    }
    Ok(())
}

fn dot_f32(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let (a, b) = (run.input(&data.floats(kind, n)), run.input(&data.partners(kind, n)));
        run.case(format_args!("length {n}, {kind:?}"), &[(); 0], |k, _| (k.dot_f32)(a.inner(), b.inner()))?;
    }
    Ok(())
}

fn sum_f32(run: &mut Run<'_>) -> Outcome {
    for (n, kind) in run.lengths() {
        let a = run.input(&run.data().floats(kind, n));
        run.case(format_args!("length {n}, {kind:?}"), &[(); 0], |k, _| (k.sum_f32)(a.inner()))?;
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
        run.case(what, &poison(n), |k, out| (k.rms_norm)(x.inner(), w.inner(), eps, out))?;
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
    let mut sweep = exp_sweep(&mut run.data());
    sweep.retain(|g| g.is_finite());
    let u = run.data().floats(Floats::Ordinary, sweep.len());
    let what = format_args!("sweep over all exponents");
    run.case(what, &poison(sweep.len()), |k, out| entry(k)(&sweep, &u, out))?;
    for (n, kind) in run.lengths() {
        let mut data = run.data();
        let (g, u) = (run.input(&data.floats(kind, n)), run.input(&data.partners(kind, n)));
        let what = format_args!("length {n}, {kind:?}");
        run.case(what, &poison(n), |k, out| entry(k)(g.inner(), u.inner(), out))?;
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
        run.case(what, &poison(n), |k, q| (k.quantise_i8)(values.inner(), q))?;
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
        let s = data.one_of(&[1.0, 127.0 / 1e-5, 127.0 / f32::MAX, 31.7, 0.3]);
        let w_scale = data.floats(kind, 1)[0];
        let what = format_args!("length {n}, s {s:e}, scale {w_scale:e}");
        run.case(what, &poison(n), |k, out| (k.dequantise_i32)(acc.inner(), s, w_scale, out))?;
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
            shapes.extend(kinds.map(|kind| (positions, d, *kind)));
        }
    }
    let mut data = run.data();
    let random = |_| (data.below(300), data.below(140), data.one_of(&kinds[..4]));
    shapes.extend((0..run.plan.random_cases).map(random));
    for (positions, d, kind) in shapes {
        let mut data = run.data();
        let p = run.input(&data.partners(kind, positions));
        let v = run.input(&data.halves(kind, positions * d));
        let what = format_args!("{positions} positions x {d} dimensions, {kind:?}");
        run.case(what, &poison(d), |k, out| (k.weigh_f16)(p.inner(), v.inner(), out))?;
    }
    Ok(())
}
