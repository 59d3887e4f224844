//! From a wrong number to the kind of mistake: what a kernel with a known defect would have given is computed and compared.
//! Misreadings of weights and activations are those that the engine's own check knows
//! ([`assay_engine::kernels::check::diagnose`]); here is what only kernels from outside do.

use super::formats::{Scales, q8_1_sum};
use super::problem::{Expected, Problem};
use assay_engine::kernels::Acts;
use assay_engine::kernels::acts::wanted_by;
use assay_engine::kernels::check::diagnose::{Case, Inputs, suspects};
use assay_engine::kernels::plugin::ResultKind;
use assay_engine::kind::Kind;
use assay_engine::quant::Format;

/// Bits that outputs hold before a call: a NaN that no arithmetic gives, and no sum.
pub(super) const POISON: u32 = 0x7fe5_a5a5;

/// A mistake that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// One word for it; those of `docs/field-bugs.md` where they are there.
    pub(super) kind: &'static str,
    /// What it means.
    pub(super) means: String,
}

fn named(kind: &'static str, means: &str) -> Named {
    Named { kind, means: means.to_owned() }
}

/// A misreading, and what else would give the same numbers.
fn read_as(found: &[Kind]) -> Option<Named> {
    let means: Vec<&str> = found.iter().map(|kind| kind.says()).collect();
    Some(Named { kind: found.first()?.id(), means: means.join("; or ") })
}

/// The mistake behind `got`, which differs from `expected` somewhere.
pub(super) fn name(problem: &Problem, kind: ResultKind, expected: &[Expected], got: &[u32]) -> Named {
    let rows = problem.recipe.rows;
    let pairs = || expected.iter().zip(got).enumerate();
    if pairs().any(|(_, (_, got))| *got == POISON) {
        return named("output-not-written", "outputs still hold what was there before the call");
    }
    if kind == ResultKind::I32
        && pairs().all(|(_, (e, got))| *got == POISON.wrapping_add_signed(e.sum as i32))
    {
        return named("adds-to-the-output", "the result is added to what the output held before the call");
    }
    if kind != ResultKind::I32 && pairs().any(|(_, (_, got))| !f32::from_bits(*got).is_finite()) {
        let zero = problem.q.iter().all(|q| *q == 0) || problem.values.iter().all(|v| *v == 0);
        return if zero {
            named("nan-on-zero-row", "a row of zeros gives NaN or infinity: a division by its scale")
        } else {
            named("not-finite", "the result is NaN or infinite")
        };
    }
    if kind != ResultKind::I32 {
        let scaled = |factor: &dyn Fn(usize) -> f64| {
            pairs().all(|(i, (e, got))| {
                let wanted = e.real * factor(i / rows);
                (f64::from(f32::from_bits(*got)) - wanted).abs()
                    <= 1e-5 * (e.magnitude * factor(i / rows)).abs()
            })
        };
        let (scale, s) = (f64::from(problem.tensor_scale), |t: usize| f64::from(problem.s[t]));
        if scale != 1.0 && scaled(&|_| 1.0 / scale) {
            return named("missing-tensor-scale", "the result is not multiplied by the scale of the tensor");
        }
        if scaled(&|t| s(t)) && problem.s.iter().any(|s| *s != 1.0) {
            return named(
                Kind::ActivationScaleIgnored.id(),
                "the result is not divided by the scale of the activations",
            );
        }
        if scaled(&|t| s(t) / scale) && scale != 1.0 {
            return named(
                "missing-scales",
                "the result is neither divided by the scale of the activations nor multiplied by the tensor's",
            );
        }
        if scaled(&|t| s(t) * s(t)) {
            return named(
                "activation-scale-inverted",
                "the result is multiplied by the scale of the activations, not divided",
            );
        }
    }
    // Whether 16 bits overflowed is told apart below, where it can be said how.
    let misread = misread(problem, kind, got);
    if let Some(named) = read_as(&misread).filter(|_| misread[0] != Kind::I16AccumulatorOverflow) {
        return named;
    }
    if rows > 1
        && pairs()
            .all(|(i, (_, got))| (0..rows).any(|r| is(problem, kind, &expected[i / rows * rows + r], *got)))
    {
        return named("rows-in-another-order", "the results are right, but in other rows");
    }
    let tokens = problem.recipe.tokens;
    if tokens > 1
        && pairs()
            .all(|(i, (_, got))| (0..tokens).any(|t| is(problem, kind, &expected[t * rows + i % rows], *got)))
    {
        return named("tokens-in-another-order", "the results are right, but of other tokens");
    }
    if tokens > 1 && rows > 1 && {
        let turned = |i: usize| expected[i % rows * tokens % (rows * tokens)];
        pairs().all(|(i, (_, got))| is(problem, kind, &turned(i), *got))
    } {
        return named("row-and-column-roles-swapped", "rows and tokens change places");
    }
    overflow(problem, kind, expected, got).or_else(|| read_as(&misread)).unwrap_or_else(|| {
        if kind == ResultKind::F32Close && pairs().all(|(_, (e, got))| is_near(e, *got)) {
            named("rounding", "within the bound, but not exact where every order of operations is")
        } else {
            named("wrong-result", "no known defect gives these numbers")
        }
    })
}

/// Whether `got` is what `expected` says, by the rule of its kind.
pub(super) fn is(problem: &Problem, kind: ResultKind, expected: &Expected, got: u32) -> bool {
    let value = f32::from_bits(got);
    match kind {
        ResultKind::I32 => i64::from(got.cast_signed()) == expected.sum,
        ResultKind::F32Exact => got == expected.exact.to_bits(),
        // A zero's sign depends on the order.
        ResultKind::F32Close if expected.any_order => f64::from(value) == expected.real,
        ResultKind::F32Close => {
            (f64::from(value) - expected.real).abs() <= problem.bound() * expected.magnitude
        }
    }
}

fn is_near(expected: &Expected, got: u32) -> bool {
    (f64::from(f32::from_bits(got)) - expected.real).abs() <= 1e-5 * expected.magnitude
}

/// The misreadings of weights or activations that give exactly `got`, the likelier first.
fn misread(problem: &Problem, kind: ResultKind, got: &[u32]) -> Vec<Kind> {
    let Some(format) = Format::parse(problem.weights.name) else { return Vec::new() };
    let (rows, cols) = (problem.recipe.rows, problem.recipe.cols);
    let row_bytes = problem.weights.row_bytes(cols);
    let w = problem.weight_bytes(row_bytes, 0);
    if problem.weights.scales == Scales::Dense {
        let x: Vec<f32> =
            problem.q.iter().zip(&problem.activation_d).map(|(q, d)| f32::from(*q) * d).collect();
        return suspects(&Case { format, w: &w, row_bytes, x: Inputs::Floats(cols, &x) }, got);
    }
    let sums: Option<Vec<u32>> = match problem.weights.scales {
        Scales::Tensor => {
            got.iter().enumerate().map(|(i, got)| problem.unfinish(kind, i / rows, *got)).collect()
        }
        _ => Some(got.to_vec()),
    };
    let (Some(got), Some((_, order))) = (sums, wanted_by(format)) else { return Vec::new() };
    let per_token = cols.div_ceil(problem.activations.block);
    let acts = |t: usize| {
        let q = problem.q[t * cols..][..cols].to_vec();
        if problem.activations.block == 1 {
            return Acts::row(order, q, problem.s[t]);
        }
        let d = problem.activation_d[t * per_token..][..per_token].to_vec();
        let blocks = q.chunks(problem.activations.block).zip(&d);
        let mins = match problem.weights.scales {
            Scales::BlockAndMinimum => blocks.map(|(q, d)| q8_1_sum(q, *d)).collect(),
            _ => Vec::new(),
        };
        Acts::new(order, q, d, mins)
    };
    let x: Vec<Acts> = (0..problem.recipe.tokens).map(acts).collect();
    suspects(&Case { format, w: &w, row_bytes, x: Inputs::Quantised(&x) }, &got)
}

/// A difference that a narrow accumulator makes: a multiple of 2^16 when it wraps; a sum that is too small where all terms
/// have one sign when it saturates.
fn overflow(problem: &Problem, kind: ResultKind, expected: &[Expected], got: &[u32]) -> Option<Named> {
    let rows = problem.recipe.rows;
    let mut wrapped = true;
    let mut smaller = true;
    for (i, (e, got)) in expected.iter().zip(got).enumerate() {
        if is(problem, kind, e, *got) {
            continue;
        }
        let value = match kind {
            ResultKind::I32 => f64::from(got.cast_signed()),
            // Scales are 1 where overflow is looked for.
            _ => {
                f64::from(f32::from_bits(*got)) * f64::from(problem.s[i / rows])
                    / f64::from(problem.tensor_scale)
            }
        };
        let wanted = if kind == ResultKind::I32 {
            e.sum as f64
        } else {
            e.real * f64::from(problem.s[i / rows]) / f64::from(problem.tensor_scale)
        };
        let difference = value - wanted;
        wrapped &= difference != 0.0 && difference % 65_536.0 == 0.0;
        // A sum of codes saturates before the sum of the activations is subtracted: its value may come out smaller than any.
        smaller &=
            difference.abs() >= 1.0 && wanted.abs() >= 8192.0 && difference.signum() == -wanted.signum();
    }
    let uniform = problem.values.iter().all(|v| *v == problem.values[0]);
    match (wrapped, smaller && uniform) {
        (true, _) => Some(named(
            "i16-accumulator-overflow",
            "off by a multiple of 65536: a 16-bit accumulator wrapped",
        )),
        (_, true) => Some(named(
            "i16-accumulator-overflow",
            "too small where all terms have one sign: a 16-bit accumulator saturated",
        )),
        _ => None,
    }
}
