//! Planted faults: a table that is wrong in one way must be refused by the checker.

use assay_engine::exact::exp::{LN2_HIGH, LN2_LOW, LOG2_E, MAX, MIN, POLYNOMIAL, exp};
use assay_engine::exact::reduce::tree;
use assay_engine::kernels::check::{Plan, check, check_operation, operations};
use assay_engine::kernels::{Acts, Kernels, scalar};
use assay_engine::kind::Kind;
use products::Named;

mod products;

/// An operation, what is wrong with it, and how to plant that into a table.
type Fault = (&'static str, &'static str, fn(&mut Kernels));

/// What a kernel for ternary rows may get wrong, with everything else right.
struct TernaryFault {
    field: fn(usize) -> usize,
    place: fn(usize) -> usize,
    bytes: fn(usize) -> usize,
    act: fn(i8) -> i32,
    add: fn(i32, i32) -> i32,
    subtract: bool,
}

const RIGHT: TernaryFault = TernaryFault {
    field: |f| f,
    place: |p| p,
    bytes: |n| n,
    act: i32::from,
    add: |a, b| a + b,
    subtract: true,
};

fn ternary(fault: &TernaryFault, codes: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32]) {
    for (r, out) in out.iter_mut().enumerate() {
        let row = &codes[r * row_bytes..][..(fault.bytes)(row_bytes)];
        // Sixteen-bit faults show in lanes like those of `maddubs`: pairs of bytes, summed for themselves.
        let mut lanes = [0; 32];
        for (i, byte) in row.iter().enumerate() {
            for f in 0..4 {
                let act = x.slots()[i / 64 * 256 + 64 * f + (fault.place)(i % 64)];
                let code = i32::from(byte >> (2 * (fault.field)(f)) & 3);
                lanes[i % 64 / 2] = (fault.add)(lanes[i % 64 / 2], code * (fault.act)(act));
            }
        }
        *out = lanes.iter().sum::<i32>() - if fault.subtract { x.sum() } else { 0 };
    }
}

/// A faulty kernel from [`RIGHT`] with some fields replaced.
macro_rules! ternary {
    ($($field:ident: $value:expr),*) => {
        |k| k.gemv_i2s_i8 = |codes, row_bytes, x, out| {
            ternary(&TernaryFault { $($field: $value,)* ..RIGHT }, codes, row_bytes, x, out)
        }
    };
}

/// A scalar entry, run by a faulty one for the part that is right.
const SCALAR: &Kernels = &scalar::KERNELS;

fn f16_at(w: &[u8], i: usize) -> f32 {
    half::f16::from_le_bytes([w[2 * i], w[2 * i + 1]]).to_f32()
}

fn lanes_of(n: usize, mut step: impl FnMut(f32, usize) -> f32) -> [f32; 32] {
    let mut lanes = [0.0; 32];
    for i in 0..n {
        lanes[i % 32] = step(lanes[i % 32], i);
    }
    lanes
}

/// The exponential with what may be wrong in it.
fn exp_with(x: f32, round: fn(f32) -> f32, madd: fn(f32, f32, f32) -> f32) -> f32 {
    if x.is_nan() {
        return exp(x);
    }
    let x = x.clamp(MIN, MAX);
    let k = round(x * LOG2_E);
    let r = (-k).mul_add(LN2_LOW, (-k).mul_add(LN2_HIGH, x));
    let p = POLYNOMIAL[1..].iter().fold(POLYNOMIAL[0], |p, &c| madd(p, r, c));
    let y = p.mul_add(r * r, r) + 1.0;
    f32::from_bits(y.to_bits().wrapping_add_signed((k as i32) << 23))
}

/// The weighted sum with what may be wrong: chunk length, fused or not, what the chunks are added onto.
fn weigh(
    chunk: usize,
    step: fn(f32, f32, f32) -> f32,
    from_zero: bool,
    p: &[f32],
    v: &[u8],
    d: usize,
    out: &mut [f32],
) {
    let positions = v.len().checked_div(2 * d).unwrap_or(0);
    for (i, out) in out.iter_mut().enumerate() {
        let sum = |(c, p): (usize, &[f32])| {
            p.iter()
                .enumerate()
                .fold(0.0, |sum, (t, &p)| step(p, f16_at(v, (c * chunk + t) * d + i % d), sum))
        };
        let sums: Vec<f32> = p[i / d * positions..][..positions].chunks(chunk).enumerate().map(sum).collect();
        let whole = |sums: &[f32], start: f32| sums.iter().fold(start, |a, b| a + b);
        *out = match sums.split_first() {
            Some((first, rest)) if !from_zero => whole(rest, *first),
            _ => whole(&sums, 0.0),
        };
    }
}

/// `x` with the last `n % group` elements as they were.
fn stale_tail(x: &mut [f32], group: usize, run: impl Fn(&mut [f32])) {
    let whole = x.len() / group * group;
    let tail = x[whole..].to_vec();
    run(x);
    x[whole..].copy_from_slice(&tail);
}

#[expect(unsafe_code, reason = "the fault that is planted is a write past the end")]
fn write_past<T>(out: &mut [T], value: T) {
    // SAFETY: wrong on purpose; the checker's memory goes on after the slice, where its guards are.
    unsafe { out.as_mut_ptr().add(out.len()).write(value) };
}

fn rounds_half_away(x: &[f32], q: &mut [i8]) -> f32 {
    let a = x.iter().fold(1e-5_f32, |a, v| a.max(v.abs()));
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * (127.0 / a)).round().clamp(-128.0, 127.0) as i8;
    }
    127.0 / a
}

const FAULTS: &[Fault] = &[
    ("gemv_i2s_i8", "fields in reverse", ternary!(field: |f| 3 - f)),
    ("gemv_i2s_i8", "two fields swapped", ternary!(field: |f| [0, 2, 1, 3][f])),
    ("gemv_i2s_i8", "one shift too few", ternary!(field: |f| f.saturating_sub(1))),
    ("gemv_i2s_i8", "halves of a tile swapped", ternary!(place: |p| p ^ 32)),
    ("gemv_i2s_i8", "last half tile skipped", ternary!(bytes: |n| n / 64 * 64)),
    ("gemv_i2s_i8", "last tile skipped", ternary!(bytes: |n| n.saturating_sub(64))),
    ("gemv_i2s_i8", "sum of activations not subtracted", ternary!(subtract: false)),
    ("gemv_i2s_i8", "activations without sign", ternary!(act: |a| i32::from(a.cast_unsigned()))),
    ("gemv_i2s_i8", "activation -128 taken as -127", ternary!(act: |a| i32::from(a.max(-127)))),
    ("gemv_i2s_i8", "a whole row in i16", ternary!(add: |a, b| i32::from((a + b) as i16))),
    ("gemv_i2s_i8", "a whole row in i16, saturating", ternary!(add: |a, b| (a + b).clamp(-32768, 32767))),
    ("gemv_i2s_i8", "last row of an odd number not written", |k| {
        k.gemv_i2s_i8 = |codes, row_bytes, x, out| {
            let rows = out.len() / 2 * 2;
            (SCALAR.gemv_i2s_i8)(&codes[..rows * row_bytes], row_bytes, x, &mut out[..rows]);
        }
    }),
    ("gemv_i2s_i8", "a row too many written", |k| {
        k.gemv_i2s_i8 = |codes, row_bytes, x, out| {
            (SCALAR.gemv_i2s_i8)(codes, row_bytes, x, out);
            write_past(out, 0);
        }
    }),
    ("gemv_i2s_i8", "rows of a group of four swapped", |k| {
        k.gemv_i2s_i8 = |codes, row_bytes, x, out| {
            (SCALAR.gemv_i2s_i8)(codes, row_bytes, x, out);
            out.chunks_exact_mut(4).for_each(|four| four.swap(1, 2));
        }
    }),
    ("gemv_f16_f32", "product rounded before it is added", |k| {
        k.gemv_f16_f32 = |w, x, out| {
            let n = x.len();
            for r in 0..out.len() {
                let lanes = lanes_of(n.div_ceil(32) * 32, |lane, i| {
                    lane + if i < n { f16_at(w, r * n + i) * x[i] } else { 0.0 }
                });
                out[r] = tree(lanes);
            }
        }
    }),
    ("gemv_f16_f32", "padding not executed", |k| {
        k.gemv_f16_f32 = |w, x, out| {
            for r in 0..out.len() {
                let lanes = lanes_of(x.len(), |lane, i| f16_at(w, r * x.len() + i).mul_add(x[i], lane));
                out[r] = tree(lanes);
            }
        }
    }),
    ("gemv_f16_f32", "tail skipped", |k| {
        k.gemv_f16_f32 = |w, x, out| {
            for r in 0..out.len() {
                let lanes =
                    lanes_of(x.len() / 8 * 8, |lane, i| f16_at(w, r * x.len() + i).mul_add(x[i], lane));
                out[r] = tree(lanes);
            }
        }
    }),
    ("gemv_f16_f32", "one output too many written", |k| {
        k.gemv_f16_f32 = |w, x, out| {
            (SCALAR.gemv_f16_f32)(w, x, out);
            write_past(out, 0.0);
        }
    }),
    ("gemv_f32_f32", "tree of neighbours", |k| {
        k.gemv_f32_f32 = |w, x, out| {
            for r in 0..out.len() {
                let at = |i: usize| f32::from_le_bytes(w[4 * (r * x.len() + i)..][..4].try_into().unwrap());
                let mut lanes = lanes_of(x.len(), |lane, i| at(i).mul_add(x[i], lane)).to_vec();
                while lanes.len() > 1 {
                    lanes = lanes.chunks(2).map(|pair| pair[0] + pair[1]).collect();
                }
                out[r] = lanes[0] + 0.0;
            }
        }
    }),
    ("gemv_f32_f32", "last row not written", |k| {
        k.gemv_f32_f32 = |w, x, out| {
            let rows = out.len().saturating_sub(1);
            (SCALAR.gemv_f32_f32)(&w[..4 * rows * x.len()], x, &mut out[..rows]);
        }
    }),
    ("dot_f32", "padding not executed", |k| {
        k.dot_f32 = |a, b| tree(lanes_of(a.len(), |lane, i| a[i].mul_add(b[i], lane)))
    }),
    ("dot_f32", "product rounded before it is added", |k| {
        k.dot_f32 = |a, b| tree(lanes_of(a.len(), |lane, i| lane + a[i] * b[i])) + 0.0
    }),
    ("dot_f32", "16 lanes", |k| {
        k.dot_f32 = |a, b| {
            let mut lanes = [0.0_f32; 32];
            (0..a.len()).for_each(|i| lanes[i % 16] = a[i].mul_add(b[i], lanes[i % 16]));
            tree(lanes)
        }
    }),
    ("dot_f32", "starts from the first product", |k| {
        k.dot_f32 = |a, b| {
            if a.len() == 32 { tree(std::array::from_fn(|i| a[i] * b[i])) } else { (SCALAR.dot_f32)(a, b) }
        }
    }),
    ("dot_f32", "accumulates in f64", |k| {
        k.dot_f32 = |a, b| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
    }),
    ("sum_f32", "one after the other", |k| k.sum_f32 = |a| a.iter().fold(0.0, |sum, v| sum + v)),
    ("sum_f32", "starts from -0", |k| k.sum_f32 = |a| a.iter().copied().sum()),
    ("sum_f32", "reads past the end", |k| {
        k.sum_f32 = |a| {
            // What such a kernel finds there is not zero.
            let beyond = if a.len() % 8 == 0 { 0.0 } else { f32::NAN };
            (SCALAR.sum_f32)(a) + beyond
        }
    }),
    ("max_f32", "starts from 0", |k| k.max_f32 = |a| a.iter().fold(0.0, |m: f32, v| m.max(*v))),
    ("max_f32", "tail skipped", |k| k.max_f32 = |a| (SCALAR.max_f32)(&a[..a.len() / 8 * 8])),
    ("max_f32", "-0 returned", |k| {
        k.max_f32 = |a| a.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
    }),
    ("find_non_finite", "the last one", |k| k.find_non_finite = |a| a.iter().rposition(|v| !v.is_finite())),
    ("find_non_finite", "NaN only", |k| k.find_non_finite = |a| a.iter().position(|v| v.is_nan())),
    ("find_non_finite", "infinity only", |k| k.find_non_finite = |a| a.iter().position(|v| v.is_infinite())),
    ("find_non_finite", "start of the group of 8", |k| {
        k.find_non_finite = |a| (SCALAR.find_non_finite)(a).map(|i| i / 8 * 8)
    }),
    ("rms_norm", "weight times r first", |k| {
        k.rms_norm = |x, w, eps, out| {
            let r = 1.0 / ((SCALAR.dot_f32)(x, x) / x.len() as f32 + eps).sqrt();
            (0..x.len()).for_each(|i| out[i] = x[i] * (r * w[i]));
        }
    }),
    ("rms_norm", "divides by the root", |k| {
        k.rms_norm = |x, w, eps, out| {
            let root = ((SCALAR.dot_f32)(x, x) / x.len() as f32 + eps).sqrt();
            (0..x.len()).for_each(|i| out[i] = x[i] / root * w[i]);
        }
    }),
    ("rms_norm", "eps forgotten", |k| k.rms_norm = |x, w, _, out| (SCALAR.rms_norm)(x, w, 0.0, out)),
    ("exp_f32", "the platform's exp", |k| k.exp_f32 = |x| x.iter_mut().for_each(|v| *v = libm::expf(*v))),
    ("exp_f32", "NaN keeps its payload", |k| {
        k.exp_f32 = |x| x.iter_mut().for_each(|v| *v = if v.is_nan() { *v } else { exp(*v) })
    }),
    ("exp_f32", "ties of k rounded up", |k| {
        k.exp_f32 = |x| x.iter_mut().for_each(|v| *v = exp_with(*v, |y| (y + 0.5).floor(), f32::mul_add))
    }),
    ("exp_f32", "Horner not fused", |k| {
        k.exp_f32 =
            |x| x.iter_mut().for_each(|v| *v = exp_with(*v, f32::round_ties_even, |a, b, c| a * b + c))
    }),
    ("exp_f32", "0 below the clamp", |k| {
        k.exp_f32 = |x| x.iter_mut().for_each(|v| *v = if *v < MIN { 0.0 } else { exp(*v) })
    }),
    ("exp_f32", "infinity above the clamp", |k| {
        k.exp_f32 = |x| x.iter_mut().for_each(|v| *v = if *v > MAX { f32::INFINITY } else { exp(*v) })
    }),
    ("exp_f32", "stale tail", |k| k.exp_f32 = |x| stale_tail(x, 8, |x| (SCALAR.exp_f32)(x))),
    ("silu_mul", "reciprocal instead of division", |k| {
        k.silu_mul = |g, u, out| (0..g.len()).for_each(|i| out[i] = g[i] * (1.0 / (1.0 + exp(-g[i]))) * u[i])
    }),
    ("silu_mul", "u times g first", |k| {
        k.silu_mul = |g, u, out| (0..g.len()).for_each(|i| out[i] = g[i] * u[i] / (1.0 + exp(-g[i])))
    }),
    ("relu2_mul", "u times m first", |k| {
        k.relu2_mul = |g, u, out| {
            (0..g.len()).for_each(|i| {
                let m = g[i].max(0.0);
                out[i] = m * u[i] * m;
            });
        }
    }),
    ("relu2_mul", "square without relu", |k| {
        k.relu2_mul = |g, u, out| (0..g.len()).for_each(|i| out[i] = g[i] * g[i] * u[i])
    }),
    ("softmax", "maximum not subtracted", |k| {
        k.softmax = |s| {
            (SCALAR.exp_f32)(s);
            let z = (SCALAR.sum_f32)(s);
            s.iter_mut().for_each(|v| *v /= z);
        }
    }),
    ("softmax", "times 1/z", |k| {
        k.softmax = |s| {
            let m = (SCALAR.max_f32)(s);
            s.iter_mut().for_each(|v| *v = exp(*v - m));
            let z = 1.0 / (SCALAR.sum_f32)(s);
            s.iter_mut().for_each(|v| *v *= z);
        }
    }),
    ("softmax", "sum one after the other", |k| {
        k.softmax = |s| {
            let m = (SCALAR.max_f32)(s);
            s.iter_mut().for_each(|v| *v = exp(*v - m));
            let z = s.iter().fold(0.0, |z, v| z + v);
            s.iter_mut().for_each(|v| *v /= z);
        }
    }),
    ("scale_f32", "stale tail", |k| k.scale_f32 = |x, f| stale_tail(x, 16, |x| (SCALAR.scale_f32)(x, f))),
    ("scale_f32", "one too many scaled", |k| {
        k.scale_f32 = |x, f| {
            (SCALAR.scale_f32)(x, f);
            write_past(x, f);
        }
    }),
    ("add_f32", "stale tail", |k| k.add_f32 = |x, y| stale_tail(x, 4, |x| (SCALAR.add_f32)(x, y))),
    ("add_f32", "neighbours swapped", |k| {
        k.add_f32 = |x, y| (0..x.len()).for_each(|i| x[i] += y[(i ^ 1).min(y.len() - 1)])
    }),
    ("rope_halves", "not fused", |k| {
        k.rope_halves = |x, c, s| {
            for i in 0..c.len() {
                let (a, b) = (x[i], x[i + c.len()]);
                (x[i], x[i + c.len()]) = (a * c[i] - b * s[i], a * s[i] + b * c[i]);
            }
        }
    }),
    ("rope_halves", "the other product fused", |k| {
        k.rope_halves = |x, c, s| {
            for i in 0..c.len() {
                let (a, b) = (x[i], x[i + c.len()]);
                (x[i], x[i + c.len()]) = ((-b).mul_add(s[i], a * c[i]), b.mul_add(c[i], a * s[i]));
            }
        }
    }),
    ("rope_halves", "halves of the whole vector", |k| {
        k.rope_halves = |x, c, s| {
            let half = x.len() / 2;
            for i in 0..c.len() {
                let (a, b) = (x[i], x[i + half]);
                (x[i], x[i + half]) = (a.mul_add(c[i], -(b * s[i])), a.mul_add(s[i], b * c[i]));
            }
        }
    }),
    ("rope_halves", "pairs instead of halves", |k| k.rope_halves = |x, c, s| (SCALAR.rope_pairs)(x, c, s)),
    ("rope_pairs", "halves instead of pairs", |k| k.rope_pairs = |x, c, s| (SCALAR.rope_halves)(x, c, s)),
    ("rope_pairs", "turned the other way", |k| {
        k.rope_pairs = |x, c, s| {
            let s: Vec<f32> = s.iter().map(|s| -s).collect();
            (SCALAR.rope_pairs)(x, c, &s);
        }
    }),
    ("quantise_i8", "ties away from zero", |k| k.quantise_i8 = rounds_half_away),
    ("quantise_i8", "times 127 times 1/a", |k| {
        k.quantise_i8 = |x, q| {
            let s = (SCALAR.quantise_i8)(x, q);
            let r = 1.0 / x.iter().fold(1e-5_f32, |a, v| a.max(v.abs()));
            q.iter_mut().zip(x).for_each(|(q, x)| *q = (x * r * 127.0).round_ties_even() as i8);
            s
        }
    }),
    ("quantise_i8", "largest value instead of magnitude", |k| {
        k.quantise_i8 = |x, q| {
            let s = 127.0 / x.iter().fold(1e-5_f32, |a, v| a.max(*v));
            q.iter_mut().zip(x).for_each(|(q, x)| *q = (x * s).round_ties_even() as i8);
            s
        }
    }),
    ("quantise_i8", "no floor under the scale", |k| {
        k.quantise_i8 = |x, q| {
            let s = 127.0 / x.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
            q.iter_mut().zip(x).for_each(|(q, x)| *q = (x * s).round_ties_even() as i8);
            s
        }
    }),
    ("quantise_i8", "tail not in the maximum", |k| {
        k.quantise_i8 = |x, q| {
            let whole = x.len() / 32 * 32;
            let s = 127.0 / x[..whole].iter().fold(1e-5_f32, |a, v| a.max(v.abs()));
            q.iter_mut().zip(x).for_each(|(q, x)| *q = (x * s).round_ties_even().clamp(-128.0, 127.0) as i8);
            s
        }
    }),
    ("quantise_i8", "groups of four in pack order", |k| {
        k.quantise_i8 = |x, q| {
            let s = (SCALAR.quantise_i8)(x, q);
            for block in q.chunks_exact_mut(32) {
                let right = block.to_vec();
                (0..32).for_each(|i| block[i] = right[4 * [0, 2, 4, 6, 1, 3, 5, 7][i / 4] + i % 4]);
            }
            s
        }
    }),
    ("quantise_i8", "returns 1/s", |k| k.quantise_i8 = |x, q| 1.0 / (SCALAR.quantise_i8)(x, q)),
    ("dequantise_i32", "scale first", |k| {
        k.dequantise_i32 = |acc, s, w, out| (0..acc.len()).for_each(|i| out[i] = acc[i] as f32 * w / s)
    }),
    ("dequantise_i32", "one factor", |k| {
        k.dequantise_i32 = |acc, s, w, out| (0..acc.len()).for_each(|i| out[i] = acc[i] as f32 * (w / s))
    }),
    ("dequantise_i32", "through 24 bits", |k| {
        k.dequantise_i32 = |acc, s, w, out| {
            let cut = |v: i32| if v.unsigned_abs() < 1 << 24 { v } else { v & !127 };
            (0..acc.len()).for_each(|i| out[i] = cut(acc[i]) as f32 / s * w);
        }
    }),
    ("narrow_f16", "truncated", |k| {
        k.narrow_f16 = |x, out| {
            let cut: Vec<f32> = x.iter().map(|v| f32::from_bits(v.to_bits() & !0x1fff)).collect();
            (SCALAR.narrow_f16)(&cut, out)
        }
    }),
    ("narrow_f16", "ties away from zero", |k| {
        k.narrow_f16 = |x, out| {
            let up: Vec<f32> = x
                .iter()
                .map(|v| f32::from_bits(v.to_bits() | u32::from(v.to_bits() & 0x1fff == 0x1000)))
                .collect();
            (SCALAR.narrow_f16)(&up, out)
        }
    }),
    ("narrow_f16", "subnormals flushed", |k| {
        k.narrow_f16 = |x, out| {
            let flushed: Vec<f32> = x.iter().map(|v| if v.abs() < 6.1e-5 { v * 0.0 } else { *v }).collect();
            (SCALAR.narrow_f16)(&flushed, out)
        }
    }),
    ("narrow_f16", "overflow not reported", |k| {
        k.narrow_f16 = |x, out| (SCALAR.narrow_f16)(x, out).filter(|&i| !x[i].is_finite())
    }),
    ("narrow_f16", "reports the group", |k| {
        k.narrow_f16 = |x, out| (SCALAR.narrow_f16)(x, out).map(|i| i / 8 * 8)
    }),
    ("narrow_f16", "stops at an overflow", |k| {
        k.narrow_f16 = |x, out| {
            let bad = (SCALAR.narrow_f16)(x, &mut vec![0; out.len()]);
            let n = bad.unwrap_or(x.len());
            (SCALAR.narrow_f16)(&x[..n], &mut out[..2 * n]);
            bad
        }
    }),
    ("widen_f16", "subnormals flushed", |k| {
        k.widen_f16 = |x, out| {
            (SCALAR.widen_f16)(x, out);
            out.iter_mut().filter(|v| v.abs() < 6.1e-5).for_each(|v| *v *= 0.0);
        }
    }),
    ("widen_f16", "big-endian", |k| {
        k.widen_f16 = |x, out| {
            let swapped: Vec<u8> = x.chunks(2).flat_map(|h| [h[1], h[0]]).collect();
            (SCALAR.widen_f16)(&swapped, out);
        }
    }),
    ("weigh_f16", "one chunk", |k| {
        k.weigh_f16 = |p, v, d, out| weigh(1 << 20, f32::mul_add, true, p, v, d, out)
    }),
    ("weigh_f16", "chunks of 128", |k| {
        k.weigh_f16 = |p, v, d, out| weigh(128, f32::mul_add, true, p, v, d, out)
    }),
    ("weigh_f16", "not fused", |k| {
        k.weigh_f16 = |p, v, d, out| weigh(256, |p, v, s| p * v + s, true, p, v, d, out)
    }),
    ("weigh_f16", "chunks not onto +0", |k| {
        k.weigh_f16 = |p, v, d, out| weigh(256, f32::mul_add, false, p, v, d, out)
    }),
    ("weigh_f16", "onto what was there", |k| {
        k.weigh_f16 = |p, v, d, out| {
            let before = out.to_vec();
            (SCALAR.weigh_f16)(p, v, d, out);
            (SCALAR.add_f32)(out, &before);
        }
    }),
    ("weigh_f16", "the first query's weights for all", |k| {
        k.weigh_f16 = |p, v, d, out| {
            let positions = v.len().checked_div(2 * d).unwrap_or(p.len());
            out.chunks_mut(d.max(1)).for_each(|out| (SCALAR.weigh_f16)(&p[..positions], v, d, out));
        }
    }),
    ("weigh_f16", "last dimensions not written", |k| {
        k.weigh_f16 = |p, v, d, out| {
            let mut right = out.to_vec();
            (SCALAR.weigh_f16)(p, v, d, &mut right);
            let whole = out.len() / 8 * 8;
            out[..whole].copy_from_slice(&right[..whole]);
        }
    }),
];

/// What the check must call some of [`FAULTS`].
const NAMES: &[(&str, Kind)] = &[
    ("fields in reverse", Kind::FieldsReversed),
    ("last tile skipped", Kind::TailSkipped),
    ("sum of activations not subtracted", Kind::ActivationSumForgotten),
    ("activations without sign", Kind::UnsignedActivations),
    ("a whole row in i16", Kind::I16AccumulatorOverflow),
    ("a whole row in i16, saturating", Kind::I16AccumulatorOverflow),
    ("last row of an odd number not written", Kind::PartNotWritten),
    ("a row too many written", Kind::WriteOutside),
    ("product rounded before it is added", Kind::ProductNotFused),
    ("16 lanes", Kind::BatchVariantReduction),
    ("one after the other", Kind::BatchVariantReduction),
    ("no floor under the scale", Kind::NanOnZeroRow),
    ("stale tail", Kind::StaleTail),
    ("one too many scaled", Kind::WriteOutside),
];

#[test]
fn every_planted_fault_is_caught_and_named() {
    let named = |&(operation, what, plant): &Fault| -> Named {
        let name = NAMES.iter().find(|(known, _)| *known == what);
        (operation, what, plant, name.map(|(_, kind)| *kind))
    };
    let faults: Vec<Named> = FAULTS.iter().map(named).chain(products::faults()).collect();
    for operation in operations() {
        assert!(faults.iter().any(|fault| fault.0 == operation), "no fault is planted in {operation}");
    }
    let plan = Plan { random_cases: 0, ..Plan::default() };
    let missed = |(operation, what, plant, kind): &Named| {
        let mut table = scalar::KERNELS;
        plant(&mut table);
        // The other operations are those of scalar: checking the faulty one alone is checking the table.
        match check_operation(&table, &plan, operation) {
            Err(mismatch) => {
                assert_eq!(mismatch.operation, *operation);
                let misnamed = kind.is_some() && mismatch.kind != *kind;
                misnamed.then(|| format!("{operation}, {what}: called {:?}", mismatch.kind))
            }
            Ok(_) => Some(format!("{operation}, {what}: not caught")),
        }
    };
    let missed: Vec<String> = faults.iter().filter_map(missed).collect();
    assert!(missed.is_empty(), "{} of {} faults missed:\n{}", missed.len(), faults.len(), missed.join("\n"));
}

#[test]
fn a_mismatch_says_how_to_see_it_again() {
    let mut table = scalar::KERNELS;
    table.scale_f32 = |x, f| stale_tail(x, 16, |x| (SCALAR.scale_f32)(x, f));
    let mismatch = check(&table, &Plan::default(), &mut |_| {}).expect_err("the tail is stale");
    let said = mismatch.to_string();
    for part in ["scale_f32", "table 'scalar'", "seed 1, case", "length 1, ", "element 0", "should be 0x"] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}
