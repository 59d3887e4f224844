//! The state of one sequence: KV cache in f16, RoPE tables, position.

use super::Config;
use crate::error::{Error, Result};
use crate::exact::rope::RopeTable;

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
    pub(super) position: usize,
}

impl State {
    /// Room for `capacity` positions.
    ///
    /// # Errors
    /// - [`Error::Input`] if that is more than the model's context, or 0.
    pub fn new(config: &Config, rope_freqs: Option<&[f32]>, capacity: usize) -> Result<State> {
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
            rope: RopeTable::new(capacity, config.rope_dim, config.rope_base, rope_freqs),
            capacity,
            position: 0,
        })
    }

    /// Positions filled so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The tables in use; their digest goes into receipts.
    pub fn rope(&self) -> &RopeTable {
        &self.rope
    }
}
