//! A second opinion: BitNet b1.58 and Llama models computed in plain `f64`, one token and one element at a time.
//!
//! ```text
//! bytes of a file → gguf (directory) ─→ config (sizes) ─┐
//!                     └→ format (element r, c) → matrix ┴→ model → forward → logits, tensors
//!                 x → rounding (what the weight type does to activations) ┘      │
//! request.json → protocol → program: one sequence after the other ───────────────┴→ npy, result.json
//! ```
//!
//! Modules use only what stands to their left in `error → float → gguf → config → format → rounding → matrix → model →
//! forward → npy → protocol → program`.
//!
//! Nothing here is fast, and nothing is shared with the engine that it is held against: it was written from the papers
//! ([BitNet b1.58](https://arxiv.org/abs/2402.17764), [RoPE](https://arxiv.org/abs/2104.09864)), from the model definitions of
//! Hugging Face's `transformers`, and from the layouts in `docs/formats.md`. A mistake would have to be made twice to stay unseen.
//!
//! # Numerics
//!
//! - Weights are decoded once. Every value of every format fits an `f32` exactly, so they are kept as `f32`; only Q4_1, a product plus
//!   a minimum, is rounded to it, as ggml's own decoder does.
//! - Everything after that is `f64`, with the platform's `exp`, `powf`, `sin` and `cos`: sums in rising order, no fused operations. Keys
//!   and values stay `f64` too. ggml rounds queries, keys, values and attention weights to f16; [`Attention::F16`] does the same, and then
//!   logits agree with bitnet.cpp's to the last digits of `f32`, until the first activation that rounds the other way.
//! - Only the rounding of activations before a linear layer repeats the `f32` arithmetic of ggml, because it is part of the model: see
//!   `rounding.rs`. A value that lies at the edge between two integers may still go the other way than in an `f32` program, so
//!   results are close to those of other programs, never the same bits.
//! - Weights of Q4_1 meet activations that are rounded once; ggml rounds the sum that their minimum is multiplied with apart (Q8_1).
//! - What is written is rounded to `f32`.
//!
//! # Use
//!
//! It speaks the protocol of `docs/reference-protocol.md`: [`main`] is the program, [`run`] and [`describe`] are its two commands.

// Sizes of files and products of hyper-parameters are computed in `usize`.
const _: () = assert!(usize::BITS >= 64, "the oracle needs a 64-bit machine");

mod error;

mod float;

mod gguf;

mod config;

mod format;

mod rounding;

mod matrix;

mod model;

mod forward;

mod npy;

mod protocol;

mod program;

#[cfg(test)]
mod testing;

pub use error::Error;
pub use forward::Attention;
pub use program::{describe, main, run, run_with};
