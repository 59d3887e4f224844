//! One multiplication: its data, its bytes, and what must come out, computed from the values.

use super::formats::{Activations, Block, Scales, Weights, dense_weight, q8_1_sum};
use assay_engine::kernels::check::data::Data;
use assay_engine::kernels::plugin::ResultKind;
use assay_engine::kernels::scalar::KERNELS;
use half::f16;

/// Kinds of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    Random,
    /// No two groups, fields or rows are alike.
    Revealing,
    /// All the largest.
    High,
    /// All the smallest.
    Low,
    /// The largest and the smallest in turn, in step with [`Acts::Alternating`].
    Alternating,
    /// The value nearest to 0.
    Zero,
}

/// Kinds of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acts {
    Random,
    /// Period 251.
    Revealing,
    /// All 127.
    High,
    /// All the lowest: −128 or −127.
    Low,
    /// 127 and the lowest in turn.
    Alternating,
    Zero,
    /// 1 … 127: their sum is far from 0.
    Positive,
}

/// Kinds of scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sizes {
    /// All 1.
    Ones,
    /// Powers of two, another in every block.
    Powers,
    /// Any mantissa.
    Ordinary,
}

/// What a case is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) tokens: usize,
    pub(super) fill: Fill,
    pub(super) acts: Acts,
    pub(super) sizes: Sizes,
}

/// The data of a case.
pub(super) struct Problem {
    pub(super) recipe: Recipe,
    pub(super) weights: &'static Weights,
    pub(super) activations: &'static Activations,
    /// `(rows, cols)`.
    pub(super) values: Vec<i8>,
    /// `(tokens, cols)`.
    pub(super) q: Vec<i8>,
    /// Of each block of each row.
    d: Vec<f32>,
    minimum: Vec<f32>,
    sub: Vec<[i8; 16]>,
    pub(super) tensor_scale: f32,
    /// Of each block of each token.
    pub(super) activation_d: Vec<f32>,
    /// The `s` of each token.
    pub(super) s: Vec<f32>,
    /// The bound that the kernel states for close results.
    pub(super) declared_bound: Option<f32>,
}

/// One output as it must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expected {
    /// `Σ value · q` (of blocks with sub-scales: with these in it).
    pub(super) sum: i64,
    /// The bits that `exact-v1` gives.
    pub(super) exact: f32,
    /// The value before any rounding, to f64.
    pub(super) real: f64,
    /// `Σ |scales| · range · |q|`: what errors are measured by.
    pub(super) magnitude: f64,
    /// Every order of float operations gives the same result.
    pub(super) any_order: bool,
}

impl Problem {
    pub(super) fn new(
        weights: &'static Weights,
        activations: &'static Activations,
        recipe: Recipe,
        data: &mut Data,
    ) -> Problem {
        let Recipe { rows, cols, tokens, .. } = recipe;
        let blocks = rows * cols.div_ceil(weights.block);
        let activation_blocks = tokens * cols.div_ceil(activations.block);
        let values = (0..rows * cols)
            .map(|i| value(weights, recipe.fill, i / cols.max(1), i % cols.max(1), data))
            .collect();
        let q = (0..tokens * cols)
            .map(|i| q(activations.low, recipe.acts, i / cols.max(1), i % cols.max(1), data))
            .collect();
        let has_blocks = !matches!(weights.scales, Scales::Tensor | Scales::Dense);
        let f16_scale = |data: &mut Data| f16::from_f32(size(recipe.sizes, data)).to_f32();
        // A dense weight's scale is that of a run of 32.
        let mut run = 1.0;
        let d = (0..blocks)
            .map(|i| {
                if has_blocks {
                    return f16_scale(data);
                }
                if weights.scales == Scales::Dense && i % 32 == 0 {
                    run = size(recipe.sizes, data);
                }
                run
            })
            .collect();
        let minimum = (0..blocks)
            .map(|_| if weights.scales == Scales::BlockAndMinimum { -f16_scale(data) } else { 0.0 });
        let minimum = minimum.collect();
        let sub = (0..blocks).map(|_| std::array::from_fn(|at| sub_scale(recipe, at, data))).collect();
        let zero_token = recipe.acts == Acts::Zero;
        let activation_d = (0..activation_blocks)
            .map(|i| match (activations.name, activations.half) {
                ("i8", _) => 1.0,
                ("f32", _) if i % 32 != 0 => f32::NAN, // that of its run, see below
                _ if zero_token => 0.0,
                (_, true) => f16_scale(data),
                (_, false) => size(recipe.sizes, data),
            })
            .scan(1.0, |run, d: f32| {
                *run = if d.is_nan() { *run } else { d };
                Some(*run)
            })
            .collect();
        let i8_only = activations.name == "i8";
        let s = (0..tokens).map(|_| match (i8_only, zero_token) {
            (true, true) => 127.0 / 1e-5,
            (true, false) => size(recipe.sizes, data),
            (false, _) => 1.0,
        });
        let s = s.collect();
        let tensor_scale = if weights.scales == Scales::Tensor { size(recipe.sizes, data) } else { 1.0 };
        Problem {
            recipe,
            weights,
            activations,
            values,
            q,
            d,
            minimum,
            sub,
            tensor_scale,
            activation_d,
            s,
            declared_bound: None,
        }
    }

    /// Encoded rows, `stride` bytes apart; `gap` fills what lies between.
    pub(super) fn weight_bytes(&self, stride: usize, gap: u8) -> Vec<u8> {
        let (cols, block) = (self.recipe.cols, self.weights.block);
        let per_row = cols.div_ceil(block);
        let row = |r: usize| {
            let mut row = Vec::with_capacity(stride);
            for (b, values) in self.values[r * cols..][..cols].chunks(block).enumerate() {
                let at = r * per_row + b;
                let mut padded = values.to_vec();
                padded.resize(block, self.weights.padding.unwrap_or(0));
                let (d, minimum, sub) = (self.d[at], self.minimum[at], self.sub[at]);
                row.extend((self.weights.encode)(&Block { values: &padded, d, minimum, sub }));
            }
            row
        };
        rows(self.recipe.rows, stride, gap, row)
    }

    /// Encoded tokens, `stride` bytes apart.
    pub(super) fn activation_bytes(&self, stride: usize, gap: u8) -> Vec<u8> {
        let (cols, block) = (self.recipe.cols, self.activations.block);
        let per_row = cols.div_ceil(block);
        let row = |t: usize| {
            let blocks = self.q[t * cols..][..cols].chunks(block).enumerate();
            blocks
                .flat_map(|(b, q)| (self.activations.encode)(q, self.activation_d[t * per_row + b]))
                .collect()
        };
        rows(self.recipe.tokens, stride, gap, row)
    }

    /// Token after token, row after row.
    pub(super) fn expected(&self) -> Vec<Expected> {
        let Recipe { rows, tokens, .. } = self.recipe;
        (0..tokens)
            .flat_map(|t| (0..rows).map(move |r| (t, r)))
            .map(|(t, r)| self.output(t, r, &self.values))
            .collect()
    }

    /// One output, with `values` in the place of the weights.
    pub(super) fn output(&self, t: usize, r: usize, values: &[i8]) -> Expected {
        let cols = self.recipe.cols;
        let (row, q) = (&values[r * cols..][..cols], &self.q[t * cols..][..cols]);
        let range = f64::from(self.weights.high()) - f64::from(self.weights.low());
        let (block, activation_block) = (self.weights.block, self.activations.block);
        let (per_row, per_token) = (cols.div_ceil(block), cols.div_ceil(activation_block));
        if self.weights.scales == Scales::Dense {
            return self.dense(t, r, row, q);
        }
        let unit = if activation_block == 1 { block } else { block.min(activation_block) };
        let (mut sum, mut y, mut real, mut magnitude) = (0_i64, 0.0_f32, 0.0_f64, 0.0_f64);
        let (mut finest, mut powers) = (f64::INFINITY, true);
        for (at, (w, q)) in row.chunks(unit).zip(q.chunks(unit)).enumerate() {
            let start = at * unit;
            let (b, a) = (r * per_row + start / block, t * per_token + start / activation_block);
            let (d, m, da) = (self.d[b], self.minimum[b], self.activation_d[a]);
            let sub = |j: usize| {
                if self.weights.scales == Scales::BlockAndSub {
                    i64::from(self.sub[b][(start + j) % block / 16])
                } else {
                    1
                }
            };
            let part: i64 = (0..w.len()).map(|j| sub(j) * i64::from(w[j]) * i64::from(q[j])).sum();
            let size: f64 = (0..w.len()).map(|j| sub(j).abs() as f64 * f64::from(q[j]).abs()).sum();
            sum += part;
            y = (d * da).mul_add(part as f32, y);
            real += f64::from(d) * f64::from(da) * part as f64;
            magnitude += (f64::from(d) * f64::from(da)).abs() * range * size;
            if da != 0.0 {
                finest = finest.min(f64::from(d.abs()) * f64::from(da.abs()));
                powers &= is_power_of_two(d) && is_power_of_two(da);
            }
            if self.weights.scales == Scales::BlockAndMinimum {
                let s = q8_1_sum(q, da);
                y = m.mul_add(s, y);
                real += f64::from(m) * f64::from(s);
                magnitude += (f64::from(m) * f64::from(s)).abs();
                if da != 0.0 {
                    finest = finest.min(f64::from(m.abs()) * f64::from(da.abs()));
                    powers &= is_power_of_two(m);
                }
            }
        }
        let (s, scale) = (self.s[t], self.tensor_scale);
        let i8_acts = self.activations.name == "i8";
        let exact = match (self.weights.scales, i8_acts) {
            (Scales::Tensor, _) => (sum as f32 / s) * scale,
            (_, true) => y / s,
            (_, false) => y,
        };
        let factor = f64::from(scale) / f64::from(s);
        powers &= is_power_of_two(s) && is_power_of_two(scale);
        let any_order = powers && (finest.is_infinite() || magnitude / finest < 16_777_216.0);
        Expected { sum, exact, real: real * factor, magnitude: magnitude * factor.abs(), any_order }
    }

    fn dense(&self, t: usize, r: usize, row: &[i8], q: &[i8]) -> Expected {
        let cols = self.recipe.cols;
        let w: Vec<f32> =
            (0..cols).map(|c| dense_weight(self.weights.name, row[c], self.d[r * cols + c])).collect();
        let x: Vec<f32> = (0..cols).map(|c| f32::from(q[c]) * self.activation_d[t * cols + c]).collect();
        let products = || w.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
        let magnitude: f64 = products().map(f64::abs).sum();
        let scales = self.d[r * cols..][..cols].iter().zip(&self.activation_d[t * cols..][..cols]);
        let powers = scales.clone().all(|(d, a)| is_power_of_two(*d) && (*a == 0.0 || is_power_of_two(*a)));
        let finest = scales
            .map(|(d, a)| f64::from(*d) * f64::from(*a))
            .filter(|f| *f > 0.0)
            .fold(f64::INFINITY, f64::min);
        let any_order = powers && (finest.is_infinite() || magnitude / finest < 16_777_216.0);
        let sum = row.iter().zip(q).map(|(w, q)| i64::from(*w) * i64::from(*q)).sum();
        Expected { sum, exact: (KERNELS.dot_f32)(&w, &x), real: products().sum(), magnitude, any_order }
    }

    /// The bound of a close result, as a share of the magnitude.
    pub(super) fn bound(&self) -> f64 {
        let blocks = self.recipe.cols.div_ceil(self.weights.block.min(self.activations.block).max(32));
        self.declared_bound.map_or((blocks + 16) as f64 * (0.5_f64).powi(24), f64::from)
    }

    /// Token `t` alone.
    pub(super) fn token(&self, t: usize) -> Problem {
        let (cols, per_token) = (self.recipe.cols, self.recipe.cols.div_ceil(self.activations.block));
        Problem {
            recipe: Recipe { tokens: 1, ..self.recipe },
            q: self.q[t * cols..][..cols].to_vec(),
            activation_d: self.activation_d[t * per_token..][..per_token].to_vec(),
            s: vec![self.s[t]],
            values: self.values.clone(),
            d: self.d.clone(),
            minimum: self.minimum.clone(),
            sub: self.sub.clone(),
            ..*self
        }
    }

    /// The sum behind a result of weights with one scale for the tensor, as bits of an i32; `None` if no integer gives it.
    pub(super) fn unfinish(&self, kind: ResultKind, t: usize, bits: u32) -> Option<u32> {
        if kind == ResultKind::I32 {
            return Some(bits);
        }
        let value = f64::from(f32::from_bits(bits));
        let sum = (value * f64::from(self.s[t]) / f64::from(self.tensor_scale)).round();
        let again = f64::from((sum as f32 / self.s[t]) * self.tensor_scale);
        let is_it = sum.abs() <= 16_777_216.0 && (again - value).abs() <= 1e-6 * value.abs();
        is_it.then_some((sum as i32).cast_unsigned())
    }
}

fn rows(count: usize, stride: usize, gap: u8, row: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * stride);
    for r in 0..count {
        let row = row(r);
        let end = bytes.len() + stride;
        bytes.extend(row);
        if r + 1 < count {
            bytes.resize(end, gap);
        }
    }
    bytes
}

fn is_power_of_two(value: f32) -> bool {
    value.is_normal() && value.to_bits() & 0x7f_ffff == 0
}

fn value(weights: &Weights, fill: Fill, r: usize, c: usize, data: &mut Data) -> i8 {
    let codebook = weights.codebook;
    match fill {
        Fill::Random => data.one_of(codebook),
        // Blocks of 16, 32, 64 and 128 are out of step with each other, and so are rows.
        Fill::Revealing => {
            codebook[(c + c / 3 + 5 * (c / 16) + 3 * (c / 64) + c / 128 + 7 * r) % codebook.len()]
        }
        Fill::High => weights.high(),
        Fill::Low => weights.low(),
        Fill::Alternating => {
            if c.is_multiple_of(2) {
                weights.high()
            } else {
                weights.low()
            }
        }
        Fill::Zero => *codebook.iter().min_by_key(|v| v.unsigned_abs()).expect("a codebook has values"),
    }
}

fn q(low: i8, acts: Acts, t: usize, c: usize, data: &mut Data) -> i8 {
    match acts {
        Acts::Random => (data.u32() as i8).max(low),
        Acts::Revealing => (((c + 17 * t) % 251) as i16 - 125) as i8,
        Acts::High => 127,
        Acts::Low => low,
        Acts::Alternating => {
            if c.is_multiple_of(2) {
                127
            } else {
                low
            }
        }
        Acts::Zero => 0,
        Acts::Positive => 1 + data.below(127) as i8,
    }
    .max(low)
}

fn size(sizes: Sizes, data: &mut Data) -> f32 {
    match sizes {
        Sizes::Ones => 1.0,
        Sizes::Powers => data.one_of(&[0.5, 1.0, 2.0]),
        Sizes::Ordinary => (1.0 + data.below(1 << 23) as f32 / 8_388_608.0) * data.one_of(&[0.125, 0.5, 2.0]),
    }
}

fn sub_scale(recipe: Recipe, at: usize, data: &mut Data) -> i8 {
    match recipe.fill {
        Fill::Random => (data.u32() as i8).max(-127),
        Fill::Revealing => [1, -2, 3, 5][at % 4] + (at / 4) as i8,
        _ => [127, -127][at % 2],
    }
}
