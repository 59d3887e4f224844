//! A model: hyper-parameters, weights, and one forward pass for every architecture.
//!
//! ```text
//! arch.rs      what differs between architectures, as data
//! config.rs    metadata → hyper-parameters
//! weights.rs   names and shapes of all tensors in one table
//! linear.rs    y = W x by weight format, rows shared out over threads, work counted
//! state.rs     KV cache and RoPE tables of one sequence
//! forward.rs   the pass, straight down
//! ```

pub mod arch;
pub mod config;
mod forward;
mod linear;
pub mod state;
pub mod weights;

pub use arch::{Activation, Arch, RopePairing};
pub use config::Config;
pub(crate) use forward::Session;
pub use state::State;
pub use weights::Weights;

use crate::error::Result;
use crate::gguf::Gguf;

/// A loaded, validated model. Its weights lie in the file that `gguf` borrows.
#[derive(Debug, Clone)]
pub struct Model<'a> {
    /// Hyper-parameters.
    pub config: Config,
    /// Gate of the feed-forward block: the architecture's, or the caller's for a file known to be mislabelled.
    pub activation: Activation,
    /// All tensors.
    pub weights: Weights<'a>,
}

impl<'a> Model<'a> {
    /// Reads and validates the model in `gguf`. `activation` overrides the architecture's gate.
    ///
    /// # Errors
    /// - whatever keeps the model from being run exactly: see [`Config::read`] and [`Weights::read`].
    pub fn load(gguf: &Gguf<'a>, activation: Option<Activation>) -> Result<Model<'a>> {
        let config = Config::read(gguf)?;
        let weights = Weights::read(gguf, &config)?;
        Ok(Model { activation: activation.unwrap_or(config.arch.activation), config, weights })
    }

    /// Bytes of weights that one decoded token reads: every linear layer and the head.
    pub fn bytes_per_token(&self) -> usize {
        let layer = |l: &weights::Layer<'_>| {
            [&l.attn_q, &l.attn_k, &l.attn_v, &l.attn_output, &l.ffn_up, &l.ffn_gate, &l.ffn_down]
                .map(|linear| linear.w.rows * linear.w.row_bytes())
                .iter()
                .sum::<usize>()
        };
        let head = &self.weights.head.w;
        self.weights.layers.iter().map(layer).sum::<usize>() + head.rows * head.row_bytes()
    }
}
