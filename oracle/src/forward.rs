//! The graph: one token in, a row of logits out.
//!
//! ```text
//! x = embedding[token]
//! each layer:  h = norm(x)      q, k, v = Wq h, Wk h, Wv h      q, k rotated by position; k, v kept
//!              o = attention(q, all k, all v)                   x = x + Wo [norm] o
//!              h = norm(x)      f = act(Wgate h) * (Wup h)      x = x + Wdown [norm] f
//! logits = head norm(x)
//! ```
//!
//! `[norm]` are the sub-norms of the BitNet architectures.

use crate::config::Config;
use crate::error::Result;
use crate::float::round_f16;
use crate::model::{Layer, Model};
use crate::rounding::finite;

/// Gate of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `max(0, g)^2`
    Relu2,
    /// `g / (1 + exp(-g))`
    Silu,
}

impl Activation {
    fn of(self, g: f64) -> f64 {
        match self {
            Activation::Relu2 => g.max(0.0) * g.max(0.0),
            Activation::Silu => g / (1.0 + (-g).exp()),
        }
    }
}

/// How exact attention is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attention {
    /// Everything stays `f64`, as the definition of the model has it.
    #[default]
    F64,
    /// Rotated queries and keys, values, and attention weights are rounded to f16 before they are multiplied, as ggml does when it
    /// decodes one token.
    F16,
}

impl Attention {
    /// # Errors
    ///
    /// [`Error::NotFinite`](crate::Error::NotFinite) for a value of `what` that no f16 holds.
    fn round(self, values: Vec<f64>, what: &str) -> Result<Vec<f64>> {
        let rounded = match self {
            Attention::F64 => values,
            Attention::F16 => values.iter().map(|x| round_f16(*x as f32)).collect(),
        };
        finite(&rounded, what)?;
        Ok(rounded)
    }
}

/// Names of all intermediate tensors; those between the first and the last are found in each layer, as `blk.N.<name>`.
pub(crate) const TENSORS: [&str; 19] = [
    "embedding",
    "attn_norm",
    "q",
    "k",
    "v",
    "q_rope",
    "k_rope",
    "attention",
    "attn_sub_norm",
    "attn_output",
    "attn_residual",
    "ffn_norm",
    "ffn_up",
    "ffn_gate",
    "ffn_gated",
    "ffn_sub_norm",
    "ffn_down",
    "layer_output",
    "output_norm",
];

/// Is shown every intermediate tensor as soon as it is there: its name and its row for the token that is being fed.
pub(crate) type Tap<'a> = dyn FnMut(&str, &[f64]) + 'a;

/// One sequence being run.
#[derive(Debug)]
pub(crate) struct Sequence<'a> {
    model: &'a Model,
    activation: Activation,
    attention: Attention,
    threads: usize,
    /// Tokens fed so far.
    position: usize,
    /// For each layer and each position: all key heads, one after the other, rotated.
    keys: Vec<Vec<Vec<f64>>>,
    /// The same of the values.
    values: Vec<Vec<Vec<f64>>>,
}

impl<'a> Sequence<'a> {
    /// An empty context.
    pub(crate) fn new(
        model: &'a Model,
        activation: Activation,
        attention: Attention,
        threads: usize,
    ) -> Sequence<'a> {
        let empty = vec![Vec::new(); model.layers.len()];
        Sequence { model, activation, attention, threads, position: 0, keys: empty.clone(), values: empty }
    }

    /// Feeds one token and gives the logits after it, `(vocab)`. Panics if the token is not in the vocabulary.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NotFinite`] for the input of a linear layer that is NaN or infinite, or beyond `f32`.
    pub(crate) fn feed(&mut self, token: usize, tap: &mut Tap) -> Result<Vec<f64>> {
        let model = self.model;
        let mut x: Vec<f64> = model.embedding.row(token).iter().map(|x| f64::from(*x)).collect();
        tap("embedding", &x);
        for (index, layer) in model.layers.iter().enumerate() {
            let tap = &mut |name: &str, row: &[f64]| tap(&format!("blk.{index}.{name}"), row);
            x = self.attention_block(index, layer, &x, tap)?;
            x = self.feed_forward_block(layer, &x, tap)?;
        }
        let h = rms_norm(&x, &model.output_norm, model.config.epsilon);
        tap("output_norm", &h);
        let logits = model.head().product(&h, self.threads)?;
        self.position += 1;
        Ok(logits)
    }

    fn attention_block(&mut self, index: usize, layer: &Layer, x: &[f64], tap: &mut Tap) -> Result<Vec<f64>> {
        let config = &self.model.config;
        let h = rms_norm(x, &layer.attn_norm, config.epsilon);
        tap("attn_norm", &h);
        let mut q = layer.q.product(&h, self.threads)?;
        tap("q", &q);
        let mut k = layer.k.product(&h, self.threads)?;
        tap("k", &k);
        let v = layer.v.product(&h, self.threads)?;
        tap("v", &v);

        rotate(&mut q, self.position, config, &self.model.rope_divisors);
        tap("q_rope", &q);
        rotate(&mut k, self.position, config, &self.model.rope_divisors);
        tap("k_rope", &k);
        let rounding = self.attention;
        let q = rounding.round(q, "q_rope")?;
        self.keys[index].push(rounding.round(k, "k_rope")?);
        self.values[index].push(rounding.round(v, "v")?);

        let mut o = attention(&q, &self.keys[index], &self.values[index], config, rounding)?;
        tap("attention", &o);
        if let Some(weight) = &layer.attn_sub_norm {
            o = rms_norm(&o, weight, config.epsilon);
            tap("attn_sub_norm", &o);
        }
        let o = layer.attn_output.product(&o, self.threads)?;
        tap("attn_output", &o);
        let x = add(x, &o);
        tap("attn_residual", &x);
        Ok(x)
    }

    fn feed_forward_block(&self, layer: &Layer, x: &[f64], tap: &mut Tap) -> Result<Vec<f64>> {
        let epsilon = self.model.config.epsilon;
        let h = rms_norm(x, &layer.ffn_norm, epsilon);
        tap("ffn_norm", &h);
        let up = layer.up.product(&h, self.threads)?;
        tap("ffn_up", &up);
        let gate = layer.gate.product(&h, self.threads)?;
        tap("ffn_gate", &gate);

        let mut f: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| self.activation.of(*g) * u).collect();
        tap("ffn_gated", &f);
        if let Some(weight) = &layer.ffn_sub_norm {
            f = rms_norm(&f, weight, epsilon);
            tap("ffn_sub_norm", &f);
        }
        let f = layer.down.product(&f, self.threads)?;
        tap("ffn_down", &f);
        let x = add(x, &f);
        tap("layer_output", &x);
        Ok(x)
    }
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `y_i = x_i / sqrt(mean(x^2) + epsilon) * weight_i`
fn rms_norm(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    let root = (dot(x, x) / x.len() as f64 + epsilon).sqrt();
    x.iter().zip(weight).map(|(x, weight)| x / root * weight).collect()
}

/// Rotary position embedding of all heads in `x`: pair `i` of a head is turned by `position * base^(-2i / size) / divisor_i`.
/// Elements past `rope_size` stay.
fn rotate(x: &mut [f64], position: usize, config: &Config, divisors: &[f64]) {
    let size = config.rope_size;
    for head in x.chunks_mut(config.head_size) {
        for i in 0..size / 2 {
            let frequency = config.rope_base.powf(-2.0 * i as f64 / size as f64);
            let (sin, cos) = (position as f64 * frequency / divisors[i]).sin_cos();
            let (a, b) = if config.rope_neighbours { (2 * i, 2 * i + 1) } else { (i, i + size / 2) };
            let (x0, x1) = (head[a], head[b]);
            head[a] = x0 * cos - x1 * sin;
            head[b] = x0 * sin + x1 * cos;
        }
    }
}

/// `o_j = Σ_t softmax_t(q_j · k_t / sqrt(head_size)) v_t` for each query head `j`, over all positions `t` so far; query head
/// `j` reads key head `j / (heads / key_heads)`. `keys` and `values` are `(positions, key_width)`, the result `(query_width)`.
fn attention(
    q: &[f64],
    keys: &[Vec<f64>],
    values: &[Vec<f64>],
    config: &Config,
    rounding: Attention,
) -> Result<Vec<f64>> {
    let size = config.head_size;
    let mut out = Vec::with_capacity(config.query_width);
    for (j, q) in q.chunks(size).enumerate() {
        let start = j / (config.heads / config.key_heads) * size;
        let scores: Vec<f64> =
            keys.iter().map(|k| dot(q, &k[start..start + size]) / (size as f64).sqrt()).collect();
        let weights = rounding.round(softmax(&scores), "attention weights")?;
        let mut o = vec![0.0; size];
        for (weight, v) in weights.iter().zip(values) {
            for (o, v) in o.iter_mut().zip(&v[start..start + size]) {
                *o += weight * v;
            }
        }
        out.extend(o);
    }
    Ok(out)
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
    let powers: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

#[cfg(test)]
mod tests;
