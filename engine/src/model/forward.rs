//! The forward pass: straight down, one for every architecture, `tokens` rows at a time.
//!
//! Every output element belongs to one thread and its arithmetic does not depend on which, on how many there are, or on how
//! the prompt is cut: that is why one digest holds for every combination.

use super::linear::{F16_OVERFLOW, Place, all, linear, round_f16};
use super::state::{LayerCache, State};
use super::weights::{Layer, Linear};
use super::{Activation, Model, RopePairing};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::trace::LayerChain;
use crate::work::{Key, Operation, Work};
use rayon::prelude::*;

/// Of which of the tokens fed the logits are computed. It changes no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rows {
    /// Of each.
    #[default]
    All,
    /// Of the last one: the next token is chosen from them.
    Last,
    /// Of none.
    None,
}

/// A sequence being run: a model, the kernels that run it, its state, and what was counted.
///
/// [`Session::feed`] works in the thread pool that it is called in: see [`crate::threads::Pool::run`].
#[derive(Debug)]
pub struct Session<'m, 'a> {
    model: &'m Model<'a>,
    kernels: &'static Kernels,
    state: State,
    work: Work,
    chain: LayerChain,
}

impl<'m, 'a> Session<'m, 'a> {
    /// Starts a sequence with room for `capacity` tokens.
    ///
    /// # Errors
    /// - [`Error::Input`] if the model's context is smaller.
    pub fn new(model: &'m Model<'a>, kernels: &'static Kernels, capacity: usize) -> Result<Session<'m, 'a>> {
        let state = State::new(model, capacity)?;
        Ok(Session::resume(model, kernels, state))
    }

    /// Goes on from `state`, which the same model computed.
    pub fn resume(model: &'m Model<'a>, kernels: &'static Kernels, state: State) -> Session<'m, 'a> {
        let chain = LayerChain::new(model.config.layers);
        Session { model, kernels, state, work: Work::default(), chain }
    }

    /// The model.
    pub fn model(&self) -> &'m Model<'a> {
        self.model
    }

    /// The kernels that run it.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// What the kernels did so far.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Digests of the residual stream after each layer, over all tokens that this session was fed.
    pub fn chain(&self) -> &LayerChain {
        &self.chain
    }

    /// The state of the sequence.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Forgets all positions from `n` on.
    pub fn truncate(&mut self, n: usize) {
        self.state.tokens.truncate(n);
    }

    /// Feeds `tokens` and returns the logits of the `rows` asked for, `(rows, vocab)`.
    ///
    /// # Errors
    /// - [`Error::Input`] for an id outside the vocabulary or more tokens than there is room for;
    /// - [`Error::Arithmetic`] where NaN, infinity or an f16 overflow appears.
    pub fn feed(&mut self, tokens: &[u32], rows: Rows) -> Result<Vec<f32>> {
        let config = &self.model.config;
        self.check_tokens(tokens)?;
        let mut x = self.embed(tokens);
        for (i, layer) in self.model.weights.layers.iter().enumerate() {
            self.attention(i, layer, &mut x)?;
            self.feed_forward(i, layer, &mut x)?;
            self.chain.update(i, &x);
        }
        let first = match rows {
            Rows::All => 0,
            Rows::Last => tokens.len().saturating_sub(1),
            Rows::None => tokens.len(),
        };
        let logits = self.logits(first, &x[first * config.embedding..])?;
        self.state.tokens.extend_from_slice(tokens);
        Ok(logits)
    }

    /// Logits of the rows of the residual stream `x`, the first of which belongs to token `first` of those being fed.
    fn logits(&self, first: usize, x: &[f32]) -> Result<Vec<f32>> {
        if x.is_empty() {
            return Ok(Vec::new());
        }
        let (config, weights) = (&self.model.config, &self.model.weights);
        let at = |name| {
            let place = self.place(name, config.layers);
            Place { operation: Operation::Head, position: place.position + first, ..place }
        };
        let h = self.norm_at(at("output_norm"), x, &weights.output_norm)?;
        let logits = self.linear(&weights.head, at("output"), &h)?;
        for (token, row) in logits.chunks(config.vocab).enumerate() {
            if let Some(element) = (self.kernels.find_non_finite)(row) {
                return Err(at("logits").error(token, "NaN or infinity", element));
            }
        }
        Ok(logits)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let (vocab, room) = (self.model.config.vocab, self.state.capacity - self.state.position());
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            let expected = format!("0 to {}", vocab - 1);
            return Err(Error::Input { what: "token id", expected, got: id.to_string() });
        }
        if tokens.len() > room {
            let expected = format!("at most {room} more tokens");
            return Err(Error::Input { what: "sequence length", expected, got: tokens.len().to_string() });
        }
        Ok(())
    }

    fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let table = &self.model.weights.embedding;
        // The loader takes dense formats only.
        let widen = |id: usize| table.format.widen(table.rows_at(id, 1)).expect("a dense format");
        tokens.iter().flat_map(|&id| widen(id as usize)).collect()
    }

    /// `x += attn_output · (norm of) attention(norm(x))`
    fn attention(&mut self, i: usize, layer: &Layer<'a>, x: &mut [f32]) -> Result<()> {
        let config = &self.model.config;
        let h = self.rms_norm("attn_norm", i, x, &layer.attn_norm)?;
        let mut q = self.linear(&layer.attn_q, self.place("attn_q", i), &h)?;
        let mut k = self.linear(&layer.attn_k, self.place("attn_k", i), &h)?;
        let v = self.linear(&layer.attn_v, self.place("attn_v", i), &h)?;
        self.rope(&mut q, config.query_width());
        self.rope(&mut k, config.kv_width());
        let place = self.place("q", i);
        let rows = q.par_chunks_mut(config.query_width()).enumerate();
        let round =
            |(token, q)| round_f16(self.kernels, q).map_err(|at| place.error(token, F16_OVERFLOW, at));
        all(rows.map(round).collect())?;
        self.store(i, &k, &v)?;
        let mut o = self.attend(i, &q)?;
        if let Some(w) = &layer.attn_sub_norm {
            o = self.rms_norm("attn_sub_norm", i, &o, w)?;
        }
        let y = self.linear(&layer.attn_output, self.place("attn_output", i), &o)?;
        self.add_onto(&y, x);
        Ok(())
    }

    /// `x += ffn_down · (norm of) act(gate(norm(x))) · up(norm(x))`
    fn feed_forward(&self, i: usize, layer: &Layer<'a>, x: &mut [f32]) -> Result<()> {
        let width = self.model.config.feed_forward;
        let h = self.rms_norm("ffn_norm", i, x, &layer.ffn_norm)?;
        let up = self.linear(&layer.ffn_up, self.place("ffn_up", i), &h)?;
        let gate = self.linear(&layer.ffn_gate, self.place("ffn_gate", i), &h)?;
        let gated = match self.model.activation {
            Activation::Relu2 => self.kernels.relu2_mul,
            Activation::Silu => self.kernels.silu_mul,
        };
        let mut f = vec![0.0; up.len()];
        let rows = f.par_chunks_mut(width).zip(gate.par_chunks(width)).zip(up.par_chunks(width)).enumerate();
        let each = rows.map(|(token, ((f, g), u))| {
            if let Some(element) = (self.kernels.find_non_finite)(g) {
                return Err(self.place("ffn activation", i).error(token, "NaN or infinity", element));
            }
            gated(g, u, f);
            Ok(())
        });
        all(each.collect())?;
        if let Some(w) = &layer.ffn_sub_norm {
            f = self.rms_norm("ffn_sub_norm", i, &f, w)?;
        }
        let y = self.linear(&layer.ffn_down, self.place("ffn_down", i), &f)?;
        self.add_onto(&y, x);
        Ok(())
    }

    fn place(&self, name: &'static str, layer: usize) -> Place {
        Place { operation: Operation::Linear, name, layer, position: self.state.position() }
    }

    fn linear(&self, layer: &Linear<'a>, place: Place, x: &[f32]) -> Result<Vec<f32>> {
        let mut out = vec![0.0; x.len() / layer.w.cols * layer.w.rows];
        linear(self.kernels, &self.work, place, layer, x, &mut out)?;
        Ok(out)
    }

    /// RMSNorm of every row. A sum of squares that is not finite would make the row zero without a word: it stops the run.
    fn rms_norm(&self, name: &'static str, i: usize, x: &[f32], w: &[f32]) -> Result<Vec<f32>> {
        self.norm_at(self.place(name, i), x, w)
    }

    fn norm_at(&self, place: Place, x: &[f32], w: &[f32]) -> Result<Vec<f32>> {
        let mut out = vec![0.0; x.len()];
        let rows = out.par_chunks_mut(w.len()).zip(x.par_chunks(w.len())).enumerate();
        let each = rows.map(|(token, (out, x))| {
            if !(self.kernels.dot_f32)(x, x).is_finite() {
                let element = (self.kernels.find_non_finite)(x).unwrap_or(0);
                return Err(place.error(token, "NaN, infinity, or squares whose sum overflows", element));
            }
            (self.kernels.rms_norm)(x, w, self.model.config.rms_eps, out);
            Ok(())
        });
        all(each.collect())?;
        Ok(out)
    }

    fn add_onto(&self, y: &[f32], x: &mut [f32]) {
        let width = self.model.config.embedding;
        x.par_chunks_mut(width).zip(y.par_chunks(width)).for_each(|(x, y)| (self.kernels.add_f32)(x, y));
    }

    /// Turns every head of every token by its position.
    fn rope(&self, x: &mut [f32], width: usize) {
        let config = &self.model.config;
        let turn = match config.arch.rope {
            RopePairing::Halves => self.kernels.rope_halves,
            RopePairing::Pairs => self.kernels.rope_pairs,
        };
        x.par_chunks_mut(width).enumerate().for_each(|(token, row)| {
            let (cos, sin) = self.state.rope.at(self.state.position() + token);
            row.chunks_mut(config.head_dim).for_each(|head| turn(head, cos, sin));
        });
    }

    /// Rounds keys and values to f16 and puts them into the cache, `(heads_kv, capacity, head_dim)`.
    fn store(&mut self, i: usize, k: &[f32], v: &[f32]) -> Result<()> {
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

    /// Attention of every token over all positions up to its own: `(tokens, heads · head_dim)`.
    fn attend(&self, i: usize, q: &[f32]) -> Result<Vec<f32>> {
        let config = &self.model.config;
        let (heads, d) = (config.heads, config.head_dim);
        let mut o = vec![0.0; q.len()];
        let each = o.par_chunks_mut(d).zip(q.par_chunks(d)).enumerate().map(|(row, (o, q))| {
            let (token, head) = (row / heads, row % heads);
            self.attend_one(i, head / (heads / config.heads_kv), token, q, o)
        });
        all(each.collect())?;
        Ok(o)
    }

    /// `o = Σ_t softmax(q · k_t / sqrt(d)) v_t` for one query head.
    fn attend_one(&self, i: usize, kv_head: usize, token: usize, q: &[f32], o: &mut [f32]) -> Result<()> {
        let (d, kernels) = (q.len(), self.kernels);
        let n = self.state.position() + token + 1;
        let start = 2 * d * kv_head * self.state.capacity;
        let cache = &self.state.layers[i];
        let (k, v) = (&cache.k[start..start + 2 * d * n], &cache.v[start..start + 2 * d * n]);
        let fail = |name, problem, at| Err(self.place(name, i).error(token, problem, at));

        let mut p = vec![0.0; n];
        (kernels.gemv_f16_f32)(k, q, &mut p);
        self.count(Operation::AttentionScores, "gemv_f16_f32", d, n, k.len());
        (kernels.scale_f32)(&mut p, 1.0 / (d as f32).sqrt());
        if let Some(at) = (kernels.find_non_finite)(&p) {
            return fail("softmax", "NaN or infinity", at);
        }
        (kernels.softmax)(&mut p);
        if let Err(at) = round_f16(kernels, &mut p) {
            return fail("attention weights", F16_OVERFLOW, at);
        }
        (kernels.weigh_f16)(&p, v, o);
        self.count(Operation::AttentionValues, "weigh_f16", d, n, v.len());
        Ok(())
    }

    fn count(&self, operation: Operation, kernel: &'static str, columns: usize, rows: usize, bytes: usize) {
        self.work.add(Key { operation, kernel, isa: self.kernels.isa, columns }, rows, bytes);
    }
}
