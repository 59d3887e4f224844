//! GGUF: the container that models travel in. Bytes → directory ([`Gguf::parse`]), directory → bytes
//! ([`Writer`]).
//!
//! ```text
//! byte 0   ┌ header ─────────────────────────────────────────────────────────────┐
//!          │ "GGUF" │ version u32 (2, 3) │ tensor count u64 │ metadata count u64 │   24 bytes
//! byte 24  ├ metadata, repeated ─────────────────────────────────────────────────┤
//!          │ key: string │ value type u32 │ value                                │
//!          ├ tensor infos, repeated ─────────────────────────────────────────────┤
//!          │ name: string │ n u32 (1..=4) │ ne[n] u64 │ type u32 │ offset u64    │
//!          ├ zero padding to the next multiple of `general.alignment` (32) ──────┤
//! offset 0 ├ tensor data ────────────────────────────────────────────────────────┤
//!          │ tensor, zero padding to the alignment, tensor, zero padding, …      │
//!          └─────────────────────────────────────────────────────────────────────┘
//!
//! string   length u64 │ UTF-8 bytes, no terminator
//! array    element type u32 │ length u64 │ elements (arrays may hold arrays)
//! ```
//!
//! All numbers are little-endian and unaligned; tensor offsets count from the start of the tensor data.
//! `ne[0]` is the contiguous dimension: a matrix of `N` rows and `K` columns is `ne = [K, N]`.
//!
//! Files come from strangers, so the reader
//!
//! - never panics and has no `unsafe`: this module forbids it, and forbids `as` conversions too;
//! - checks every count against the bytes left before it allocates anything for it, and every product for
//!   overflow;
//! - computes the size of each tensor from its type and shape and wants exactly that room between offsets, up
//!   to the alignment padding: nothing is accepted within a tolerance;
//! - borrows: names, strings, arrays and tensor data are slices of the input, so a mapped file is used in
//!   place.
//!
//! What it does not look at is the *payload*: whether codes are ternary and scales finite is for the weight
//! formats to say. [`hostile`] has a broken file for each rule, with the exact message that it must give.
//!
//! Source: [the GGUF
//! specification](https://github.com/ggml-org/ggml/blob/01f0d4da3e444ca2bfe705e72adab08a4394bb1d/docs/gguf.md).
//!
//! ```
//! use assay_engine::gguf::{GgmlType, Gguf, Writer};
//!
//! let mut writer = Writer::new();
//! writer.put("general.architecture", "bitnet-b1.58").tensor("norm", &[2], GgmlType::F32, vec![0; 8]);
//! let bytes = writer.to_bytes()?;
//!
//! let file = Gguf::parse(&bytes)?;
//! assert_eq!(file.str("general.architecture")?, "bitnet-b1.58");
//! assert_eq!(file.tensor("norm").map(|norm| file.data(norm)), Some(&[0; 8][..]));
//! # Ok::<(), assay_engine::Error>(())
//! ```

#![forbid(unsafe_code)]
#![deny(clippy::as_conversions)]

mod cursor;
pub mod hostile;
mod layout;
mod owned;
mod read;
mod types;
mod value;
mod write;

use crate::quant::i2s::Packing;

pub use owned::{OwnedArray, OwnedValue};
pub use read::Gguf;
pub use types::{Dims, GgmlType, Support, TensorInfo, TypeInfo, ValueType};
pub use value::{Array, Element, FromValue, Items, Value};
pub use write::{Counted, Writer};

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Alignment of tensor data when the metadata does not say: the specification's default.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// Smallest alignment: the specification wants a multiple of 8.
pub const MIN_ALIGNMENT: u64 = 8;

/// Largest alignment: a huge page (2 MiB). Nothing that maps files asks for more, and padding stays bounded.
pub const MAX_ALIGNMENT: u64 = 1 << 21;

/// Most dimensions a tensor may have: `GGML_MAX_DIMS`.
pub const MAX_DIMS: usize = 4;

/// Longest metadata key in bytes: the specification's 2¹⁶ − 1.
pub const MAX_KEY_BYTES: u64 = 65_535;

/// Longest tensor name in bytes: the specification's limit.
pub const MAX_NAME_BYTES: u64 = 64;

/// Deepest nesting of arrays, the outermost counted as 1: no producer nests at all, and the reader recurses.
pub const MAX_ARRAY_DEPTH: u32 = 4;

/// The metadata key that sets the alignment.
pub const ALIGNMENT_KEY: &str = "general.alignment";

impl Gguf<'_> {
    /// Reads tensors of type 36 as `packing` from here on: the file does not tell how they are packed.
    pub fn read_i2s_as(&mut self, packing: Packing) {
        self.packing = packing;
    }

    /// How tensors of type 36 are read.
    pub fn i2s_packing(&self) -> Packing {
        self.packing
    }
}
