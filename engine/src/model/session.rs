//! A sequence being run: tokens in, logits out.

use super::Model;
use super::forward::{Buffers, Pass};
use super::state::State;
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::trace::LayerChain;
use crate::work::Work;

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
    buffers: Buffers,
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
        Session { model, kernels, state, work: Work::default(), chain, buffers: Buffers::default() }
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
        self.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let Session { model, kernels, state, work, chain, buffers } = self;
        let mut x = model.embed(tokens);
        let mut pass = Pass { model, kernels, work, state };
        // A layer is hashed while the next one is computed.
        let mut hash = |layers: usize, x: &[f32]| {
            if let Some(last) = layers.checked_sub(1) {
                chain.update(last, x);
            }
        };
        for (i, layer) in model.weights.layers.iter().enumerate() {
            rayon::join(|| pass.attention(i, layer, &x, buffers), || hash(i, &x)).0?;
            pass.add_onto(buffers, &mut x);
            pass.feed_forward(i, layer, &x, buffers)?;
            pass.add_onto(buffers, &mut x);
        }
        let first = match rows {
            Rows::All => 0,
            Rows::Last => tokens.len() - 1,
            Rows::None => tokens.len(),
        };
        let logits = rayon::join(|| pass.logits(first, &x), || hash(model.config.layers, &x)).0?;
        self.state.tokens.extend_from_slice(tokens);
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
}
