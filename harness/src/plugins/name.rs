//! From a wrong number to the kind of mistake: what a kernel with a known defect would have given is computed and compared.

use super::formats::{i2s_element, sequential, tq2_0_element};
use super::problem::{Expected, Problem};
use assay_engine::kernels::plugin::ResultKind;

/// Bits that outputs hold before a call: a NaN that no arithmetic gives, and no sum.
pub(super) const POISON: u32 = 0x7fe5_a5a5;

/// A mistake that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// One word for it; those of `docs/field-bugs.md` where they are there.
    pub(super) kind: &'static str,
    /// What it means.
    pub(super) means: &'static str,
}

fn named(kind: &'static str, means: &'static str) -> Named {
    Named { kind, means }
}

/// A layout of four codes in a byte that a kernel may have taken for the right one.
type Layout = fn(usize, usize) -> usize;

fn group_64(byte: usize, field: usize) -> usize {
    64 * (byte / 16) + 16 * (3 - field) + byte % 16
}

fn sequential_reversed(byte: usize, field: usize) -> usize {
    4 * byte + 3 - field
}

#[rustfmt::skip]
const LAYOUTS: [(Layout, &str, &str); 5] = [
    (group_64, "wrong-group-64-for-128", "weights are unpacked as groups of 64 in 16 bytes, the format has 128 in 32"),
    (i2s_element, "fields-in-reverse", "the four fields of a byte are taken in the reverse order (a wrong shift)"),
    (tq2_0_element, "fields-in-reverse", "the four fields of a byte are taken in the reverse order (a wrong shift)"),
    (sequential, "sequential-decode-of-interleaved", "four consecutive weights are read from each byte, the format interleaves them"),
    (sequential_reversed, "sequential-decode-of-interleaved", "four consecutive weights are read from each byte, highest bits first"),
];

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
    let all = |alternative: &dyn Fn(usize, usize) -> Option<Expected>| {
        pairs().all(|(i, (_, got))| {
            alternative(i / rows, i % rows).is_some_and(|alternative| is(problem, kind, &alternative, *got))
        })
    };
    let with_sum = |change: &dyn Fn(usize, usize) -> i64| {
        pairs().all(|(i, (e, got))| {
            problem.finish(kind, i / rows, e.sum + change(i / rows, i % rows)) == Some(*got)
        })
    };
    let sum_q = |t: usize| -> i64 {
        problem.q[t * problem.recipe.cols..][..problem.recipe.cols].iter().map(|q| i64::from(*q)).sum()
    };
    if with_sum(&|t, _| -sum_q(t)) {
        return named("activation-sum-twice", "the sum of the activations is subtracted once too often");
    }
    if with_sum(&|t, _| sum_q(t)) {
        return named(
            "activation-sum-missing",
            "the sum of the activations is not subtracted from sums of codes",
        );
    }
    if let Some(element) = problem.weights.element {
        for (layout, kind_name, means) in LAYOUTS {
            let Some(values) = read_as(problem, element, layout) else { continue };
            if all(&|t, r| Some(problem.output(t, r, &values))) {
                return named(kind_name, means);
            }
        }
        let mapped: Vec<i8> = problem
            .values
            .iter()
            .map(|v| [-2, -1, 1, 2][(*v - problem.weights.low()) as usize & 3])
            .collect();
        if all(&|t, r| Some(problem.output(t, r, &mapped))) {
            return named("code-map-without-zero", "codes are read as -2, -1, +1, +2");
        }
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
                "missing-activation-scale",
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
    for tail in [16, 32, 64, 128, 256, 512] {
        let whole = problem.recipe.cols / tail * tail;
        if whole < problem.recipe.cols && all(&|t, r| Some(problem.output(t, r, &cut(problem, whole)))) {
            return named("tail-skipped", "columns past the last whole block of the kernel are left out");
        }
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
    overflow(problem, kind, expected, got).unwrap_or_else(|| {
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

/// The values as a kernel sees them that takes the bytes of `element` for those of `layout`.
fn read_as(problem: &Problem, element: Layout, layout: Layout) -> Option<Vec<i8>> {
    let (cols, block) = (problem.recipe.cols, problem.weights.block);
    if element as usize == layout as usize {
        return None;
    }
    let mut read = problem.values.clone();
    for row in 0..problem.recipe.rows {
        for start in (0..cols).step_by(block) {
            for byte in 0..block / 4 {
                for field in 0..4 {
                    let (to, from) = (start + layout(byte, field), start + element(byte, field));
                    if layout(byte, field) >= block {
                        return None;
                    }
                    if to < cols {
                        let padding = problem.weights.padding.unwrap_or(0);
                        read[row * cols + to] =
                            if from < cols { problem.values[row * cols + from] } else { padding };
                    }
                }
            }
        }
    }
    (read != problem.values).then_some(read)
}

/// The values with zeros from column `from` on.
fn cut(problem: &Problem, from: usize) -> Vec<i8> {
    let cols = problem.recipe.cols.max(1);
    problem.values.iter().enumerate().map(|(i, v)| if i % cols < from { *v } else { 0 }).collect()
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
