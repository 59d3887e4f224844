//! Runs ternary (BitNet b1.58) language models with arithmetic that gives the same bits everywhere.
//!
//! ```text
//! bytes of a file → gguf → tensor ─┐
//!           quant (weight formats) ┤
//!  exact (the arithmetic contract) ┴→ kernels → model ──→ decode → tokens, logits, digests, work
//!                                              sample ↗
//! gguf → tokenizer: text ↔ ids
//! ```
//!
//! Modules use only what stands before them in this list.

// Sizes of files and products of hyper-parameters are computed in `usize`.
const _: () = assert!(usize::BITS >= 64, "Assay needs a 64-bit machine");

pub mod error;
pub mod exact;
pub mod kind;
pub mod mapped;
pub mod quant;

pub mod gguf;

pub mod tensor;

pub mod kernels;

pub mod threads;
pub mod trace;
pub mod work;

pub mod model;

pub mod tokenizer;

pub mod sample;

pub mod decode;

pub use error::{Error, Result};
pub use mapped::MappedFile;
