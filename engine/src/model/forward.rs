//! The forward pass: straight down, one for every architecture, `tokens` rows at a time.
//!
//! Every output element belongs to one thread and its arithmetic does not depend on which, on how many there are, or on how
//! the prompt is cut: that is why one digest holds for every combination.
//!
//! What belongs to one token is done by one thread in one go: a row is normed, checked and quantised while it is in a
//! first-level cache.

use super::linear::{F16_OVERFLOW, Job, Place, all, linear, round_f16};
use super::state::{LayerCache, State};
use super::weights::{Layer, Linear};
use super::{Activation, Model, RopePairing};
use crate::error::Result;
use crate::kernels::Kernels;
use crate::work::{Key, Operation, Work};
use rayon::prelude::*;

/// Results on the way through a layer, `(tokens, …)` each; the memory serves all layers.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    o: Vec<f32>,
    up: Vec<f32>,
    gate: Vec<f32>,
    /// What a half of a layer adds to the residual stream.
    y: Vec<f32>,
}

/// What the layers work with while some tokens are fed.
pub(super) struct Pass<'s, 'a> {
    pub(super) model: &'s Model<'a>,
    pub(super) kernels: &'static Kernels,
    pub(super) work: &'s Work,
    pub(super) state: &'s mut State,
}

impl Model<'_> {
    /// Rows of the embedding table, `(tokens, embedding)`.
    pub(super) fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let table = &self.weights.embedding;
        // The loader takes dense formats only.
        let widen = |id: usize| table.format.widen(table.rows_at(id, 1)).expect("a dense format");
        tokens.iter().flat_map(|&id| widen(id as usize)).collect()
    }
}

impl<'a> Pass<'_, 'a> {
    /// `y = attn_output · (norm of) attention(norm(x))`
    pub(super) fn attention(
        &mut self,
        i: usize,
        layer: &Layer<'a>,
        x: &[f32],
        Buffers { q, k, v, o, y, .. }: &mut Buffers,
    ) -> Result<()> {
        let config = &self.model.config;
        let width = config.embedding;
        let tokens = x.len() / width;
        let qkv = [
            ("attn_q", &layer.attn_q, &mut *q),
            ("attn_k", &layer.attn_k, &mut *k),
            ("attn_v", &layer.attn_v, &mut *v),
        ];
        self.linear(i, tokens, qkv, |token, row| {
            self.norm(self.place("attn_norm", i), token, &x[token * width..][..width], &layer.attn_norm, row)
        })?;
        let rows = q.par_chunks_mut(config.query_width()).zip(k.par_chunks_mut(config.kv_width()));
        rows.enumerate().for_each(|(token, (q, k))| {
            self.rope(token, q);
            self.rope(token, k);
        });
        self.round_queries(i, q)?;
        self.store(i, k, v)?;
        self.attend(i, q, o)?;
        let width = config.query_width();
        self.linear(i, tokens, [("attn_output", &layer.attn_output, y)], |token, row| {
            let o = &o[token * width..][..width];
            match &layer.attn_sub_norm {
                Some(w) => self.norm(self.place("attn_sub_norm", i), token, o, w, row)?,
                None => row.copy_from_slice(o),
            }
            Ok(())
        })
    }

    /// `y = ffn_down · (norm of) act(gate(norm(x))) · up(norm(x))`
    pub(super) fn feed_forward(
        &self,
        i: usize,
        layer: &Layer<'a>,
        x: &[f32],
        Buffers { up, gate, y, .. }: &mut Buffers,
    ) -> Result<()> {
        let (config, kernels) = (&self.model.config, self.kernels);
        let width = config.embedding;
        let tokens = x.len() / width;
        let both = [("ffn_up", &layer.ffn_up, &mut *up), ("ffn_gate", &layer.ffn_gate, &mut *gate)];
        self.linear(i, tokens, both, |token, row| {
            self.norm(self.place("ffn_norm", i), token, &x[token * width..][..width], &layer.ffn_norm, row)
        })?;
        let gated = match self.model.activation {
            Activation::Relu2 => kernels.relu2_mul,
            Activation::Silu => kernels.silu_mul,
        };
        let width = config.feed_forward;
        self.linear(i, tokens, [("ffn_down", &layer.ffn_down, y)], |token, row| {
            let (gate, up) = (&gate[token * width..][..width], &up[token * width..][..width]);
            if let Some(element) = (kernels.find_non_finite)(gate) {
                return Err(self.place("ffn activation", i).error(token, "NaN or infinity", element));
            }
            match &layer.ffn_sub_norm {
                Some(w) => {
                    let mut f = vec![0.0; width];
                    gated(gate, up, &mut f);
                    self.norm(self.place("ffn_sub_norm", i), token, &f, w, row)?;
                }
                None => gated(gate, up, row),
            }
            Ok(())
        })
    }

    /// Logits of the rows of the residual stream `x` from token `first` on, `(rows, vocab)`.
    pub(super) fn logits(&self, first: usize, x: &[f32]) -> Result<Vec<f32>> {
        let (config, weights) = (&self.model.config, &self.model.weights);
        let at = |name| {
            let place = self.place(name, config.layers);
            Place { operation: Operation::Head, position: place.position + first, ..place }
        };
        let (width, x) = (config.embedding, &x[first * config.embedding..]);
        let mut logits = Vec::new();
        if x.is_empty() {
            return Ok(logits);
        }
        let mut jobs = [Job { place: at("output"), layer: &weights.head, out: &mut logits }];
        linear(self.kernels, self.work, x.len() / width, &mut jobs, |token, row| {
            self.norm(at("output_norm"), token, &x[token * width..][..width], &weights.output_norm, row)
        })?;
        for (token, row) in logits.chunks(config.vocab).enumerate() {
            if let Some(element) = (self.kernels.find_non_finite)(row) {
                return Err(at("logits").error(token, "NaN or infinity", element));
            }
        }
        Ok(logits)
    }

    /// `x += y`
    pub(super) fn add_onto(&self, Buffers { y, .. }: &Buffers, x: &mut [f32]) {
        let width = self.model.config.embedding;
        x.par_chunks_mut(width).zip(y.par_chunks(width)).for_each(|(x, y)| (self.kernels.add_f32)(x, y));
    }

    fn place(&self, name: &'static str, layer: usize) -> Place {
        Place { operation: Operation::Linear, name, layer, position: self.state.position() }
    }

    /// Matrices of one layer that meet the same activations: `x(t, row)` writes those of token `t`.
    fn linear<const N: usize>(
        &self,
        i: usize,
        tokens: usize,
        matrices: [(&'static str, &Linear<'a>, &mut Vec<f32>); N],
        x: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
    ) -> Result<()> {
        let mut jobs = matrices.map(|(name, layer, out)| Job { place: self.place(name, i), layer, out });
        linear(self.kernels, self.work, tokens, &mut jobs, x)
    }

    /// RMSNorm of one row. A sum of squares that is not finite would make the row zero without a word: it stops the run.
    pub(super) fn norm(
        &self,
        place: Place,
        token: usize,
        x: &[f32],
        w: &[f32],
        out: &mut [f32],
    ) -> Result<()> {
        if !(self.kernels.dot_f32)(x, x).is_finite() {
            let element = (self.kernels.find_non_finite)(x).unwrap_or(0);
            return Err(place.error(token, "NaN, infinity, or squares whose sum overflows", element));
        }
        (self.kernels.rms_norm)(x, w, self.model.config.rms_eps, out);
        Ok(())
    }

    /// Rounds queries to f16, as keys are.
    pub(super) fn round_queries(&self, i: usize, q: &mut [f32]) -> Result<()> {
        let (place, width) = (self.place("q", i), self.model.config.query_width());
        let rows = q.par_chunks_mut(width).enumerate();
        let rounded = rows
            .map(|(token, q)| round_f16(self.kernels, q).map_err(|at| place.error(token, F16_OVERFLOW, at)));
        all(rounded.collect()).map(drop)
    }

    /// Turns every head of a token by its position.
    pub(super) fn rope(&self, token: usize, row: &mut [f32]) {
        let config = &self.model.config;
        let turn = match config.arch.rope {
            RopePairing::Halves => self.kernels.rope_halves,
            RopePairing::Pairs => self.kernels.rope_pairs,
        };
        let (cos, sin) = self.state.rope.at(self.state.position() + token);
        row.chunks_mut(config.head_dim).for_each(|head| turn(head, cos, sin));
    }

    /// Rounds keys and values to f16 and puts them into the cache, `(heads_kv, capacity, head_dim)`.
    pub(super) fn store(&mut self, i: usize, k: &[f32], v: &[f32]) -> Result<()> {
        let (d, width) = (self.model.config.head_dim, self.model.config.kv_width());
        let (first, capacity, kernels) = (self.state.position(), self.state.capacity, self.kernels);
        let place = |name| self.place(name, i);
        let (place_k, place_v) = (place("k"), place("v"));
        let LayerCache { k: cache_k, v: cache_v } = &mut self.state.layers[i];
        for (rows, cache, place) in [(k, cache_k, place_k), (v, cache_v, place_v)] {
            for (token, row) in rows.chunks(width).enumerate() {
                for (head, x) in row.chunks(d).enumerate() {
                    let at = 2 * d * (head * capacity + first + token);
                    let bad = (kernels.narrow_f16)(x, &mut cache[at..at + 2 * d]);
                    if let Some(element) = bad {
                        return Err(place.error(token, F16_OVERFLOW, head * d + element));
                    }
                }
            }
        }
        Ok(())
    }

    /// Attention of every token over all positions up to its own: `o` becomes `(tokens, heads · head_dim)`.
    pub(super) fn attend(&self, i: usize, q: &[f32], o: &mut Vec<f32>) -> Result<()> {
        let config = &self.model.config;
        let (heads, d, group) = (config.heads, config.head_dim, config.heads / config.heads_kv);
        // Heads that share keys and values are taken together, as many as leave something to do for every thread.
        let tasks = |together: usize| q.len() / (d * together);
        let enough = 2 * rayon::current_num_threads();
        let divisor = |n: &usize| group.is_multiple_of(*n) && tasks(*n) >= enough;
        let together = (1..=group).rev().find(divisor).unwrap_or(1);
        o.resize(q.len(), 0.0);
        let each = o.par_chunks_mut(together * d).zip(q.par_chunks(together * d)).enumerate();
        let attended = each.map_init(Vec::new, |p, (task, (o, q))| {
            let (token, head) = (task * together / heads, task * together % heads);
            self.attend_together(i, head / group, token, q, p, o)
        });
        let positions: usize = all(attended.collect())?.iter().sum();
        let (rows, bytes) = (positions * together, 2 * d * positions * together);
        let key = |operation, kernel| Key { operation, kernel, isa: self.kernels.isa, columns: d };
        for key in
            [key(Operation::AttentionScores, "gemm_f16_f32"), key(Operation::AttentionValues, "weigh_f16")]
        {
            self.work.add(key, tasks(together), rows, bytes);
        }
        Ok(())
    }

    /// `o = Σ_t softmax(q · k_t / sqrt(d)) v_t` for some query heads of one token that share a head of keys and values;
    /// returns the number of positions. `p` is memory for scores.
    fn attend_together(
        &self,
        i: usize,
        kv_head: usize,
        token: usize,
        q: &[f32],
        p: &mut Vec<f32>,
        o: &mut [f32],
    ) -> Result<usize> {
        let (d, kernels) = (self.model.config.head_dim, self.kernels);
        let n = self.state.position() + token + 1;
        let start = 2 * d * kv_head * self.state.capacity;
        let cache = &self.state.layers[i];
        let (k, v) = (&cache.k[start..start + 2 * d * n], &cache.v[start..start + 2 * d * n]);
        let fail = |name, problem, at| Err(self.place(name, i).error(token, problem, at));

        p.resize(q.len() / d * n, 0.0);
        (kernels.gemm_f16_f32)(k, d, q, p);
        for p in p.chunks_mut(n) {
            (kernels.scale_f32)(p, 1.0 / (d as f32).sqrt());
            if let Some(at) = (kernels.find_non_finite)(p) {
                return fail("softmax", "NaN or infinity", at);
            }
            (kernels.softmax)(p);
            if let Err(at) = round_f16(kernels, p) {
                return fail("attention weights", F16_OVERFLOW, at);
            }
        }
        (kernels.weigh_f16)(p, v, d, o);
        Ok(n)
    }
}
