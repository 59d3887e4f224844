//! Digests of intermediate tensors: a chain over layers says where two runs part.

use sha2::{Digest, Sha256};

/// For each layer, the SHA-256 of the residual stream after it: all tokens in order, as little-endian f32. It does
/// not depend on how the prompt was cut.
#[derive(Debug, Clone)]
pub struct LayerChain(Vec<Sha256>);

impl LayerChain {
    /// A chain for `layers` layers, nothing hashed yet.
    pub fn new(layers: usize) -> LayerChain {
        LayerChain(vec![Sha256::new(); layers])
    }

    /// Adds rows of the residual stream after layer `i`.
    pub(crate) fn update(&mut self, i: usize, x: &[f32]) {
        hash_f32(&mut self.0[i], x);
    }

    /// The digests so far, by layer.
    pub fn digests(&self) -> Vec<[u8; 32]> {
        self.0.iter().map(|hash| hash.clone().finalize().into()).collect()
    }
}

/// Hashes values as little-endian f32, through a buffer of fixed size.
pub fn hash_f32(hash: &mut Sha256, values: &[f32]) {
    let mut buffer = [0; 4096];
    for part in values.chunks(buffer.len() / 4) {
        for (bytes, value) in buffer.as_chunks_mut::<4>().0.iter_mut().zip(part) {
            *bytes = value.to_le_bytes();
        }
        hash.update(&buffer[..4 * part.len()]);
    }
}
