//! Faults in what multiplies weights and in what quantises activations, each with the kind that the check must name.

use super::SCALAR;
use assay_engine::exact::reduce::tree;
use assay_engine::kernels::{Acts, Kernels};
use assay_engine::kind::Kind;
use assay_engine::quant::{bitnet32, linear_pm2, q2_0, q4_0, q4_1, q6_k, q8_0, t5, tq1_0, tq2_0};
use half::{bf16, f16};

/// An operation, what is wrong with it, how to plant that into a table, and what the check must call it, if it knows.
pub(crate) type Named = (&'static str, &'static str, fn(&mut Kernels), Option<Kind>);

/// Exact sums with values of one's own.
fn rows(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32], value: impl Fn(&[u8], usize) -> i32) {
    for (r, out) in out.iter_mut().enumerate() {
        let row = &w[r * row_bytes..][..row_bytes];
        *out = x.natural().iter().enumerate().map(|(c, &q)| value(row, c) * i32::from(q)).sum();
    }
}

/// A block format: bytes of a block, elements that share an activation scale, such parts of a block, its values and scale.
struct Blocks {
    bytes: usize,
    step: usize,
    parts: usize,
    value: fn(&[u8], usize) -> i8,
    scale: fn(&[u8]) -> f32,
}

const BITNET32: Blocks =
    Blocks { bytes: 10, step: 32, parts: 1, value: bitnet32::value_at, scale: bitnet32::scale };
const TQ1_0: Blocks = Blocks { bytes: 54, step: 256, parts: 1, value: tq1_0::value_at, scale: tq1_0::scale };
const TQ2_0: Blocks = Blocks { bytes: 66, step: 256, parts: 1, value: tq2_0::value_at, scale: tq2_0::scale };
const Q2_0: Blocks = Blocks { bytes: 18, step: 32, parts: 2, value: q2_0::value_at, scale: q2_0::scale };
const Q8_0: Blocks = Blocks { bytes: 34, step: 32, parts: 1, value: q8_0::value_at, scale: q8_0::scale };
const Q4_0: Blocks = Blocks { bytes: 18, step: 32, parts: 1, value: q4_0::value_at, scale: q4_0::scale };
const Q4_1: Blocks = Blocks { bytes: 20, step: 32, parts: 1, value: q4_1::value_at, scale: q4_1::scale };

/// What one step of a block kernel sees: the row, numbers of the weight block and of the activation block, the exact sum.
struct Step<'a> {
    row: &'a [u8],
    own: usize,
    b: usize,
    isum: i32,
    x: &'a Acts,
}

impl Blocks {
    fn block<'a>(&self, step: &Step<'a>) -> &'a [u8] {
        &step.row[step.own * self.bytes..]
    }

    fn d(&self, step: &Step<'_>) -> f32 {
        (self.scale)(self.block(step)) * step.x.scales()[step.b]
    }

    /// The fold with `value` of element `j` of a block and one's own step.
    fn fold(
        &self,
        w: &[u8],
        x: &Acts,
        out: &mut [f32],
        value: impl Fn(&[u8], usize) -> i32,
        add: impl Fn(f32, &Step<'_>) -> f32,
    ) {
        let blocks = x.cols() / (self.step * self.parts);
        for (r, y) in out.iter_mut().enumerate() {
            let row = &w[r * blocks * self.bytes..][..blocks * self.bytes];
            *y = (0..blocks * self.parts).fold(0.0, |y, b| {
                let own = b / self.parts;
                let product = |j: usize| {
                    let q = i32::from(x.natural()[self.step * b + j]);
                    value(&row[own * self.bytes..], self.step * (b % self.parts) + j) * q
                };
                add(y, &Step { row, own, b, isum: (0..self.step).map(product).sum(), x })
            });
        }
    }

    /// Right but for the values.
    fn values(&self, w: &[u8], x: &Acts, out: &mut [f32], value: impl Fn(&[u8], usize) -> i32) {
        self.fold(w, x, out, value, |y, step| self.d(step).mul_add(step.isum as f32, y));
    }

    /// Right but for the step.
    fn steps(&self, w: &[u8], x: &Acts, out: &mut [f32], add: impl Fn(f32, &Step<'_>) -> f32) {
        self.fold(w, x, out, |block, j| i32::from((self.value)(block, j)), add);
    }
}

/// 2-bit code at a byte and a shift.
fn code(bytes: &[u8], at: usize, shift: usize) -> i32 {
    i32::from(bytes[at] >> shift & 3)
}

/// What any kernel for several tokens may get wrong: two faults a row.
macro_rules! gemm {
    ($($entry:ident($($arg:ident),*);)*) => {
        vec![$(
            (
                stringify!($entry),
                "second token gets the first one's result",
                |k: &mut Kernels| {
                    k.$entry = |$($arg,)* x, out| {
                        (SCALAR.$entry)($($arg,)* x, out);
                        gemm!(@tokens tokens, $entry, x, $($arg),*);
                        let rows = out.len() / tokens;
                        for pair in out.chunks_mut((2 * rows).max(1)) {
                            let (first, second) = pair.split_at_mut(rows.min(pair.len()));
                            second.copy_from_slice(&first[..second.len()]);
                        }
                    }
                },
                Some(Kind::FirstTokenRepeated),
            ),
            (
                stringify!($entry),
                "last token of a ragged group not written",
                |k: &mut Kernels| {
                    k.$entry = |$($arg,)* x, out| {
                        gemm!(@tokens tokens, $entry, x, $($arg),*);
                        let rows = out.len() / tokens;
                        let kept = out[(tokens - 1) * rows..].to_vec();
                        (SCALAR.$entry)($($arg,)* x, out);
                        if tokens % 8 > 1 {
                            out[(tokens - 1) * rows..].copy_from_slice(&kept);
                        }
                    }
                },
                Some(Kind::PartNotWritten),
            ),
        )*]
    };
    (@tokens $tokens:ident, $entry:ident, $x:ident, $w:ident, $cols:ident) => {
        let $tokens = Tokens::of(&$x, $cols);
    };
    (@tokens $tokens:ident, $entry:ident, $x:ident, $w:ident) => {
        let $tokens = Tokens::of(&$x, 0);
    };
}

/// How many tokens an argument holds.
trait Tokens {
    fn of(x: &Self, cols: usize) -> usize;
}

impl Tokens for &assay_engine::kernels::Batch {
    fn of(x: &Self, _: usize) -> usize {
        x.tokens()
    }
}

impl Tokens for &[f32] {
    fn of(x: &Self, cols: usize) -> usize {
        x.len().checked_div(cols).unwrap_or(1)
    }
}

fn of_several_tokens() -> Vec<Named> {
    gemm! {
        gemm_i2s_i8(w, row_bytes);
        gemm_pm2_i8(w, row_bytes);
        gemm_r4_i8(w, row_bytes);
        gemm_t5_i8(w, row_bytes);
        gemm_bitnet32_i8(w);
        gemm_tq1_0_q8_k(w);
        gemm_tq2_0_q8_k(w);
        gemm_q2_0_q8_0(w);
        gemm_q8_0_q8_0(w);
        gemm_q4_0_q8_0(w);
        gemm_q4_1_q8_1(w);
        gemm_q6_k_q8_k(w);
        gemm_f16_f32(w, cols);
        gemm_bf16_f32(w, cols);
        gemm_f32_f32(w, cols);
    }
}

const PRODUCTS: &[Named] = &[
    (
        "gemm_i2s_i8",
        "rows and tokens exchanged",
        |k| {
            k.gemm_i2s_i8 = |w, row_bytes, x, out| {
                let mut right = out.to_vec();
                (SCALAR.gemm_i2s_i8)(w, row_bytes, x, &mut right);
                let (tokens, rows) = (x.tokens(), out.len() / x.tokens());
                (0..out.len()).for_each(|i| out[i] = right[i % tokens * rows + i / tokens]);
            }
        },
        Some(Kind::RolesSwapped),
    ),
    (
        "gemv_pm2_i8",
        "codes as -1, 0, +1, +2",
        |k| k.gemv_pm2_i8 = |w, n, x, out| rows(w, n, x, out, |row, c| code(row, c / 4, 2 * (c % 4)) - 1),
        None,
    ),
    (
        "gemv_pm2_i8",
        "shifts from the top",
        |k| {
            k.gemv_pm2_i8 = |w, n, x, out| {
                rows(w, n, x, out, |row, c| {
                    i32::from(linear_pm2::value_at(&row[c / 256 * 64..], (c % 256) ^ 3))
                })
            }
        },
        Some(Kind::FieldsReversed),
    ),
    (
        "gemv_r4_i8",
        "rows of a group in reverse",
        |k| {
            k.gemv_r4_i8 = |w, n, x, out| {
                (SCALAR.gemv_r4_i8)(w, n, x, out);
                out.chunks_mut(4).for_each(<[i32]>::reverse);
            }
        },
        None,
    ),
    (
        "gemv_r4_i8",
        "offset not subtracted",
        |k| {
            k.gemv_r4_i8 = |w, n, x, out| {
                (SCALAR.gemv_r4_i8)(w, n, x, out);
                out.iter_mut().for_each(|sum| *sum += x.sum());
            }
        },
        Some(Kind::ActivationSumForgotten),
    ),
    (
        "gemv_t5_i8",
        "planes in reverse",
        |k| {
            k.gemv_t5_i8 = |w, n, x, out| {
                rows(w, n, x, out, |row, c| {
                    i32::from(t5::value_at(&row[c / 320 * 64..], (4 - c % 320 / 64) * 64 + c % 64))
                })
            }
        },
        None,
    ),
    (
        "gemv_t5_i8",
        "offset not subtracted",
        |k| {
            k.gemv_t5_i8 = |w, n, x, out| {
                rows(w, n, x, out, |row, c| i32::from(t5::value_at(&row[c / 320 * 64..], c % 320)) + 1)
            }
        },
        Some(Kind::ActivationSumForgotten),
    ),
    (
        "gemv_bitnet32_i8",
        "scale of the neighbouring block",
        |k| {
            k.gemv_bitnet32_i8 = |w, x, out| {
                BITNET32.steps(w, x, out, |y, step| {
                    bitnet32::scale(&step.row[step.own.saturating_sub(1) * 10..]).mul_add(step.isum as f32, y)
                });
                out.iter_mut().for_each(|y| *y /= x.scales()[0]);
            }
        },
        Some(Kind::ScaleOfNeighbour),
    ),
    (
        "gemv_bitnet32_i8",
        "not divided by the factor of the activations",
        |k| {
            k.gemv_bitnet32_i8 = |w, x, out| {
                BITNET32.steps(w, x, out, |y, step| {
                    bitnet32::scale(BITNET32.block(step)).mul_add(step.isum as f32, y)
                })
            }
        },
        Some(Kind::ActivationScaleIgnored),
    ),
    (
        "gemv_bitnet32_i8",
        "codes less 1, not less 2",
        |k| {
            k.gemv_bitnet32_i8 = |w, x, out| {
                let value = |block: &[u8], j: usize| i32::from(bitnet32::value_at(block, j)) + 1;
                let step = |y: f32, step: &Step<'_>| {
                    bitnet32::scale(BITNET32.block(step)).mul_add(step.isum as f32, y)
                };
                BITNET32.fold(w, x, out, value, step);
                out.iter_mut().for_each(|y| *y /= x.scales()[0]);
            }
        },
        None,
    ),
    (
        "gemv_tq1_0_q8_k",
        "offset not subtracted",
        |k| {
            k.gemv_tq1_0_q8_k =
                |w, x, out| TQ1_0.values(w, x, out, |block, j| i32::from(tq1_0::value_at(block, j)) + 1)
        },
        Some(Kind::ActivationSumForgotten),
    ),
    (
        "gemv_tq1_0_q8_k",
        "the last four bytes have five trits",
        |k| {
            k.gemv_tq1_0_q8_k = |w, x, out| {
                TQ1_0.values(w, x, out, |block, j| {
                    i32::from(tq1_0::value_at(block, if j < 240 { j } else { 240 + (j + 1) % 16 }))
                })
            }
        },
        None,
    ),
    (
        "gemv_tq2_0_q8_k",
        "groups of 64",
        |k| {
            k.gemv_tq2_0_q8_k = |w, x, out| {
                TQ2_0.values(w, x, out, |block, j| code(block, j / 64 * 16 + j % 16, 2 * (j % 64 / 16)) - 1)
            }
        },
        Some(Kind::WrongGroup),
    ),
    (
        "gemv_tq2_0_q8_k",
        "a block's sum in i16",
        |k| {
            k.gemv_tq2_0_q8_k = |w, x, out| {
                TQ2_0.steps(w, x, out, |y, step| {
                    let sum: i32 = x.natural()[256 * step.b..][..256].iter().map(|&q| i32::from(q)).sum();
                    TQ2_0.d(step).mul_add((i32::from((step.isum + sum) as i16) - sum) as f32, y)
                })
            }
        },
        Some(Kind::I16AccumulatorOverflow),
    ),
    (
        "gemv_q2_0_q8_0",
        "one activation scale for 64",
        |k| {
            k.gemv_q2_0_q8_0 = |w, x, out| {
                Q2_0.steps(w, x, out, |y, step| {
                    let d = q2_0::scale(Q2_0.block(step)) * x.scales()[step.b / 2 * 2];
                    d.mul_add(step.isum as f32, y)
                })
            }
        },
        None,
    ),
    (
        "gemv_q2_0_q8_0",
        "codes as -2, -1, +1, +2",
        |k| {
            k.gemv_q2_0_q8_0 = |w, x, out| {
                Q2_0.values(w, x, out, |block, j| {
                    [-2, -1, 1, 2][code(block, 2 + j / 4, 2 * (j % 4)) as usize]
                })
            }
        },
        Some(Kind::CodeMapWithoutZero),
    ),
    (
        "gemv_q8_0_q8_0",
        "scale of the neighbouring block",
        |k| {
            k.gemv_q8_0_q8_0 = |w, x, out| {
                Q8_0.steps(w, x, out, |y, step| {
                    let d = q8_0::scale(&step.row[step.own.saturating_sub(1) * 34..]);
                    (d * x.scales()[step.b]).mul_add(step.isum as f32, y)
                })
            }
        },
        Some(Kind::ScaleOfNeighbour),
    ),
    (
        "gemv_q8_0_q8_0",
        "scaled one after the other",
        |k| {
            k.gemv_q8_0_q8_0 = |w, x, out| {
                Q8_0.steps(w, x, out, |y, step| {
                    q8_0::scale(Q8_0.block(step)).mul_add(x.scales()[step.b] * step.isum as f32, y)
                })
            }
        },
        None,
    ),
    (
        "gemv_q4_0_q8_0",
        "offset not subtracted",
        |k| {
            k.gemv_q4_0_q8_0 =
                |w, x, out| Q4_0.values(w, x, out, |block, j| i32::from(q4_0::value_at(block, j)) + 8)
        },
        Some(Kind::ActivationSumForgotten),
    ),
    (
        "gemv_q4_0_q8_0",
        "neighbours in a byte",
        |k| {
            k.gemv_q4_0_q8_0 = |w, x, out| {
                Q4_0.values(w, x, out, |block, j| i32::from(block[2 + j / 2] >> (4 * (j % 2)) & 15) - 8)
            }
        },
        None,
    ),
    (
        "gemv_q4_1_q8_1",
        "minimum forgotten",
        |k| {
            k.gemv_q4_1_q8_1 =
                |w, x, out| Q4_1.steps(w, x, out, |y, step| Q4_1.d(step).mul_add(step.isum as f32, y))
        },
        Some(Kind::MinimumForgotten),
    ),
    (
        "gemv_q4_1_q8_1",
        "minimum before the sum",
        |k| {
            k.gemv_q4_1_q8_1 = |w, x, out| {
                Q4_1.steps(w, x, out, |y, step| {
                    let y = q4_1::min(Q4_1.block(step)).mul_add(x.mins()[step.b], y);
                    Q4_1.d(step).mul_add(step.isum as f32, y)
                })
            }
        },
        None,
    ),
    (
        "gemv_q6_k_q8_k",
        "sub-scale of the wrong sixteen",
        |k| k.gemv_q6_k_q8_k = |w, x, out| q6_k(w, x, out, 1, 0),
        Some(Kind::SubScaleOfNeighbour),
    ),
    (
        "gemv_q6_k_q8_k",
        "offset not subtracted",
        |k| k.gemv_q6_k_q8_k = |w, x, out| q6_k(w, x, out, 0, 32),
        Some(Kind::ActivationSumForgotten),
    ),
    (
        "gemv_bf16_f32",
        "product rounded before it is added",
        |k| k.gemv_bf16_f32 = |w, x, out| bf16_rows(w, x, out, x.len(), |a, b, lane| lane + a * b),
        Some(Kind::ProductNotFused),
    ),
    (
        "gemv_bf16_f32",
        "tail skipped",
        |k| k.gemv_bf16_f32 = |w, x, out| bf16_rows(w, x, out, x.len() / 16 * 16, f32::mul_add),
        Some(Kind::TailSkipped),
    ),
    (
        "quantise_q8_k",
        "last instead of first of equals",
        |k| k.quantise_q8_k = |x, q, d| q8_k(x, q, d, |m, v| v.abs() >= m.abs(), |i, x| i * x),
        None,
    ),
    (
        "quantise_q8_k",
        "largest instead of magnitude",
        |k| k.quantise_q8_k = |x, q, d| q8_k(x, q, d, |m, v| v > m, |i, x| i * x),
        None,
    ),
    (
        "quantise_q8_k",
        "a block of zeros divided",
        |k| {
            k.quantise_q8_k = |x, q, d| {
                (SCALAR.quantise_q8_k)(x, q, d);
                for (x, (q, d)) in x.chunks(256).zip(q.chunks_mut(256).zip(d)) {
                    if x.iter().all(|v| *v == 0.0) {
                        q.fill(127);
                        *d = f32::NAN;
                    }
                }
            }
        },
        Some(Kind::NanOnZeroRow),
    ),
    (
        "quantise_q8_0",
        "d not rounded to f16",
        |k| {
            k.quantise_q8_0 = |x, q, d| {
                (SCALAR.quantise_q8_0)(x, q, d);
                let largest = |x: &[f32]| x.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
                x.chunks(32).zip(d).filter(|(_, d)| **d != 0.0).for_each(|(x, d)| *d = largest(x) / 127.0);
            }
        },
        None,
    ),
    (
        "quantise_q8_0",
        "divided by the rounded d",
        |k| {
            k.quantise_q8_0 = |x, q, d| {
                (SCALAR.quantise_q8_0)(x, q, d);
                for (x, (q, d)) in x.chunks(32).zip(q.chunks_mut(32).zip(d)) {
                    (0..32).filter(|_| *d != 0.0).for_each(|i| q[i] = (x[i] / *d).round_ties_even() as i8);
                }
            }
        },
        None,
    ),
    (
        "quantise_q8_1",
        "s from the rounded d",
        |k| {
            k.quantise_q8_1 = |x, q, d, s| {
                (SCALAR.quantise_q8_1)(x, q, d, s);
                for (q, (d, s)) in q.chunks(32).zip(d.iter().zip(s)) {
                    let sum: i32 = q.iter().map(|&q| i32::from(q)).sum();
                    *s = f16::from_f32(*d * sum as f32).to_f32();
                }
            }
        },
        None,
    ),
    (
        "quantise_q8_1",
        "s of the values before they are rounded",
        |k| {
            k.quantise_q8_1 = |x, q, d, s| {
                (SCALAR.quantise_q8_1)(x, q, d, s);
                x.chunks(32).zip(s).for_each(|(x, s)| *s = f16::from_f32(x.iter().sum()).to_f32());
            }
        },
        None,
    ),
    (
        "round_bf16",
        "truncated",
        |k| {
            k.round_bf16 = |x| {
                x.iter_mut().for_each(|v| *v = f32::from_bits(v.to_bits() & 0xffff_0000));
                x.iter().position(|v| !v.is_finite())
            }
        },
        None,
    ),
    (
        "round_bf16",
        "ties away from zero",
        |k| {
            k.round_bf16 = |x| {
                x.iter_mut().for_each(|v| *v = f32::from_bits((v.to_bits() + 0x8000) & 0xffff_0000));
                x.iter().position(|v| !v.is_finite())
            }
        },
        None,
    ),
    (
        "round_bf16",
        "overflow not reported",
        |k| k.round_bf16 = |x| (SCALAR.round_bf16)(x).filter(|_| false),
        None,
    ),
];

fn q6_k(w: &[u8], x: &Acts, out: &mut [f32], further: usize, more: i32) {
    let blocks = x.cols() / 256;
    for (r, y) in out.iter_mut().enumerate() {
        *y = 0.0;
        for b in 0..blocks {
            let block = &w[(r * blocks + b) * 210..][..210];
            let product = |j: usize| {
                let scale = i32::from(q6_k::sub_scale(block, (j + 16 * further) % 256));
                scale * (i32::from(q6_k::value_at(block, j)) + more) * i32::from(x.natural()[256 * b + j])
            };
            let sum: i32 = (0..256).map(product).sum();
            *y = (q6_k::scale(block) * x.scales()[b]).mul_add(sum as f32, *y);
        }
    }
}

fn bf16_rows(w: &[u8], x: &[f32], out: &mut [f32], n: usize, add: fn(f32, f32, f32) -> f32) {
    for (r, y) in out.iter_mut().enumerate() {
        let at = |i: usize| {
            let at = 2 * (r * x.len() + i);
            bf16::from_le_bytes([w[at], w[at + 1]]).to_f32()
        };
        *y = tree(super::lanes_of(n.div_ceil(32) * 32, |lane, i| {
            if i < n { add(at(i), x[i], lane) } else { add(0.0, 0.0, lane) }
        }));
    }
}

fn q8_k(x: &[f32], q: &mut [i8], d: &mut [f32], larger: fn(f32, f32) -> bool, scaled: fn(f32, f32) -> f32) {
    for (x, (q, d)) in x.chunks(256).zip(q.chunks_mut(256).zip(d)) {
        let m = x.iter().fold(0.0_f32, |m, &v| if larger(m, v) { v } else { m });
        let i = -127.0 / m;
        if m == 0.0 || i.is_infinite() {
            q.fill(0);
            *d = 0.0;
            continue;
        }
        q.iter_mut().zip(x).for_each(|(q, &x)| *q = scaled(i, x).round_ties_even().min(127.0) as i8);
        *d = 1.0 / i;
    }
}

/// All of them.
pub(crate) fn faults() -> Vec<Named> {
    let mut all = of_several_tokens();
    all.extend_from_slice(PRODUCTS);
    all
}
