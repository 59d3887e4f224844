//! Architectures as data: one row each, one forward pass for all.

use crate::error::{Error, Result, shown};

/// The gate of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `max(x, 0)²`
    Relu2,
    /// `x / (1 + exp(−x))`
    Silu,
}

impl Activation {
    /// Name on the command line and in receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Activation::Relu2 => "relu2",
            Activation::Silu => "silu",
        }
    }
}

/// Which elements of a head RoPE turns together, for `d` rotated dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairing {
    /// `(i, i + d/2)`
    Halves,
    /// `(2i, 2i + 1)`
    Pairs,
}

/// What differs between the architectures that Assay runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arch {
    /// `general.architecture`
    pub name: &'static str,
    /// Gate of the feed-forward block.
    pub activation: Activation,
    /// RMSNorm before `attn_output` and before `ffn_down`.
    pub sub_norms: bool,
    /// RoPE pairing.
    pub rope: RopePairing,
    /// May have its own `output.weight`; otherwise the embedding is the head.
    pub own_head: bool,
}

/// The table. Source: `docs/numerics.md`, after the graphs of bitnet.cpp (`build_bitnet_158`, `build_bitnet`) and
/// llama.cpp (`build_llama`).
pub const ARCHITECTURES: [Arch; 4] = [
    Arch {
        name: "bitnet-b1.58",
        activation: Activation::Relu2,
        sub_norms: true,
        rope: RopePairing::Halves,
        own_head: false,
    },
    Arch {
        name: "bitnet-25",
        activation: Activation::Relu2,
        sub_norms: true,
        rope: RopePairing::Halves,
        own_head: false,
    },
    Arch {
        name: "bitnet",
        activation: Activation::Silu,
        sub_norms: true,
        rope: RopePairing::Halves,
        own_head: false,
    },
    Arch {
        name: "llama",
        activation: Activation::Silu,
        sub_norms: false,
        rope: RopePairing::Pairs,
        own_head: true,
    },
];

/// Finds an architecture by its name.
///
/// # Errors
/// - [`Error::Metadata`] for one that Assay does not run, naming those it does.
pub fn find(name: &str) -> Result<&'static Arch> {
    ARCHITECTURES.iter().find(|arch| arch.name == name).ok_or_else(|| Error::Metadata {
        key: "general.architecture".to_owned(),
        problem: "this architecture is not supported",
        expected: ARCHITECTURES.map(|arch| arch.name).join(", "),
        got: shown(name),
    })
}
