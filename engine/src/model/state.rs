//! The state of one sequence: its tokens, their keys and values in f16, RoPE tables.

use super::Model;
use crate::error::{Error, Result};
use crate::exact::rope::RopeTable;
use std::ops::Range;

/// Keys and values of one layer, `(heads_kv, capacity, head_dim)` each, little-endian f16.
#[derive(Debug, Clone)]
pub(super) struct LayerCache {
    pub(super) k: Vec<u8>,
    pub(super) v: Vec<u8>,
}

/// Memory for keys or values, or an error where an allocation would end the program.
fn zeros(bytes: usize) -> Result<Vec<u8>> {
    let mut cache = Vec::new();
    cache.try_reserve_exact(bytes).map_err(|_| Error::Input {
        what: "memory for keys and values",
        expected: "less (fewer steps, or a shorter prompt)".to_owned(),
        got: format!("{bytes} bytes for each layer's keys, and as many for its values"),
    })?;
    cache.resize(bytes, 0);
    Ok(cache)
}

/// Where a sequence stands.
#[derive(Debug, Clone)]
pub struct State {
    pub(super) layers: Vec<LayerCache>,
    pub(super) rope: RopeTable,
    pub(super) capacity: usize,
    pub(super) tokens: Vec<u32>,
}

impl State {
    /// Room for `capacity` positions.
    ///
    /// # Errors
    /// - [`Error::Input`] if that is more than the model's context, or 0.
    pub fn new(model: &Model<'_>, capacity: usize) -> Result<State> {
        let config = &model.config;
        if !(1..=config.context).contains(&capacity) {
            return Err(Error::Input {
                what: "prompt and steps together",
                expected: format!("1 to {} tokens (the model's context)", config.context),
                got: capacity.to_string(),
            });
        }
        let bytes = config.kv_width() * capacity * 2;
        let layer = |_| Ok(LayerCache { k: zeros(bytes)?, v: zeros(bytes)? });
        Ok(State {
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            rope: RopeTable::new(
                capacity,
                config.rope_dim,
                config.rope_base,
                model.weights.rope_freqs.as_deref(),
            ),
            capacity,
            tokens: Vec::new(),
        })
    }

    /// Positions filled so far.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// Bytes of keys and values that there is room for.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.k.len() + layer.v.len()).sum()
    }

    /// The tokens that were fed.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// A state with room for `capacity` positions that begins with the first `n` of this one. Keys and values of a position depend only on the
    /// tokens up to it, so that sequences may share a prefix.
    ///
    /// # Errors
    /// - [`Error::Input`] as [`State::new`], or if there are fewer than `n` positions or more than `capacity`.
    pub fn prefix(&self, n: usize, model: &Model<'_>, capacity: usize) -> Result<State> {
        if n > self.position().min(capacity) {
            let expected = format!("up to {}", self.position().min(capacity));
            return Err(Error::Input { what: "positions of a prefix", expected, got: n.to_string() });
        }
        let mut state = State::new(model, capacity)?;
        let width = 2 * model.config.head_dim;
        for (to, from) in state.layers.iter_mut().zip(&self.layers) {
            for (to, from) in [(&mut to.k, &from.k), (&mut to.v, &from.v)] {
                let rows = to.chunks_mut(width * capacity).zip(from.chunks(width * self.capacity));
                rows.for_each(|(to, from)| to[..width * n].copy_from_slice(&from[..width * n]));
            }
        }
        state.tokens = self.tokens[..n].to_vec();
        Ok(state)
    }

    /// Where head `head` of the cache keeps the filled positions.
    pub(super) fn filled(&self, head: usize, head_dim: usize) -> Range<usize> {
        let start = 2 * head_dim * head * self.capacity;
        start..start + 2 * head_dim * self.position()
    }

    /// The tables in use; their digest goes into receipts.
    pub fn rope(&self) -> &RopeTable {
        &self.rope
    }
}
