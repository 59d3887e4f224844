//! A model: hyper-parameters, weights, and one forward pass for every architecture.
//!
//! ```text
//! arch.rs      what differs between architectures, as data
//! config.rs    metadata → hyper-parameters
//! weights.rs   names and shapes of all tensors in one table
//! linear.rs    y = W x by weight format, rows shared out over threads, work counted
//! state.rs     tokens, KV cache and RoPE tables of one sequence
//! saved.rs     a state as a file
//! forward.rs   the pass, straight down
//! nodes.rs     the pass taken apart, operation by operation
//! session.rs   a sequence being run: tokens in, logits out
//! ```

pub mod arch;
pub mod config;
mod forward;
mod linear;
pub mod nodes;
pub mod saved;
mod session;
pub mod state;
pub mod weights;

pub use arch::{Activation, Arch, RopePairing};
pub use config::Config;
pub use nodes::{Node, NodeKind};
pub use session::{Rows, Session};
pub use state::State;
pub use weights::Weights;

use crate::error::Result;
use crate::exact::CONTRACT;
use crate::gguf::Gguf;
use sha2::{Digest, Sha256};

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

    /// What decides the keys and values of a token sequence: the contract, the file (by its SHA-256), the gate, and how tensors are read. A
    /// saved state carries it.
    pub fn identity(&self, file_sha256: [u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        let layers = self.weights.layers.iter().flat_map(weights::Layer::linears);
        let formats = layers.map(|linear| linear.w.format.name());
        for text in [CONTRACT, self.activation.name()].into_iter().chain(formats) {
            hash.update(text);
            hash.update([0]);
        }
        hash.update(file_sha256);
        hash.finalize().into()
    }

    /// Bytes of weights that one decoded token reads: every linear layer and the head.
    pub fn bytes_per_token(&self) -> usize {
        let linears = self.weights.layers.iter().flat_map(weights::Layer::linears);
        linears.chain([&self.weights.head]).map(|linear| linear.w.rows * linear.w.row_bytes()).sum()
    }
}
