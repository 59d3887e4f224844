//! Kinds of error that kernels, files and reports of this field really had: what a check says when it knows which one it
//! sees.

use std::fmt;

/// Defines [`Kind`] and the list of all in order, so that neither can miss one.
macro_rules! kinds {
    ($($name:ident = $id:literal, $from:ident, $says:literal;)+) => {
        /// A kind of error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $(#[doc = $says] $name),+
        }

        impl Kind {
            /// Every kind: first those of `docs/field-bugs.md`, in its order, then the others.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),+];

            /// Its name in messages and in `docs/field-bugs.md`.
            pub const fn id(self) -> &'static str {
                match self { $(Kind::$name => $id),+ }
            }

            /// What is wrong, in words.
            pub const fn says(self) -> &'static str {
                match self { $(Kind::$name => $says),+ }
            }

            /// Somebody has published it: it is a row of `docs/field-bugs.md`.
            pub const fn is_published(self) -> bool {
                matches!(match self { $(Kind::$name => From::$from),+ }, From::Field)
            }
        }
    };
}

/// Where a kind comes from.
enum From {
    Field,
    Here,
}

kinds! {
    I16AccumulatorOverflow = "i16-accumulator-overflow", Field, "a sum overflowed 16 bits";
    WrongGroup = "wrong-group-64-for-128", Field, "weights are read in groups of 64 where they lie in groups of 128, or the other way round";
    SequentialDecode = "sequential-decode-of-interleaved", Field, "four neighbours are read from a byte that interleaves weights";
    RolesSwapped = "row-and-column-roles-swapped", Field, "rows and tokens are exchanged";
    EmptyFallback = "empty-fallback", Field, "nothing was written";
    MissingScale = "missing-tensor-scale", Field, "the scale of the weights is ignored";
    ActivationSumTwice = "activation-sum-twice", Field, "the sum of activations is subtracted twice";
    CodeMapWithoutZero = "code-map-without-zero", Field, "codes are read as -2, -1, +1, +2";
    ScaleReadAsPadding = "scale-read-as-padding", Field, "the tail of a tensor, where its scale is, is taken for padding";
    SiluForRelu2 = "silu-for-relu2", Field, "the gate is SiLU where it should be squared ReLU";
    LayernormForRmsnorm = "layernorm-for-rmsnorm", Field, "the mean is subtracted before the norm";
    SubNormSkipped = "sub-norm-skipped", Field, "a norm is not applied";
    Group128UnderGroup64 = "group-128-file-under-group-64-id", Field, "blocks of 128 weights in 34 bytes are taken for blocks of 64 in 18, or the other way round";
    NanOnZeroRow = "nan-on-zero-row", Field, "a row of zeros is divided by its largest magnitude";
    StaleTail = "stale-tail", Field, "values past a multiple of the block are old ones";
    BatchVariantReduction = "batch-variant-reduction", Field, "additions run in another order than the contract's: results depend on batch, threads or kernel";
    FtzOn = "ftz-on", Field, "subnormals are flushed to zero";
    ReportedNotRun = "reported-not-run", Field, "what is reported is not what ran";
    Relu2ForSilu = "relu2-for-silu", Here, "the gate is squared ReLU where it should be SiLU";
    RopePairing = "rope-pairing", Here, "rotation turns neighbours where it should turn halves, or the other way round";
    ActivationSumForgotten = "activation-sum-forgotten", Here, "the sum of activations (the offset of the codes) is not subtracted";
    FieldsReversed = "fields-reversed", Here, "the fields of a byte are read in reverse (a wrong shift)";
    InterleavedForSequential = "interleaved-for-sequential", Here, "weights are read as if they were interleaved, but neighbours share a byte";
    TailSkipped = "tail-skipped", Here, "values past a multiple of the block do not count";
    PartNotWritten = "part-not-written", Here, "a part of the output was not written";
    WriteOutside = "write-outside", Here, "memory outside the output was written";
    ScaleOfNeighbour = "scale-of-neighbour", Here, "a block is scaled as the one beside it";
    MinimumForgotten = "minimum-forgotten", Here, "the minimum of a block is not added";
    SubScaleOfNeighbour = "sub-scale-of-neighbour", Here, "sixteen weights are scaled as the sixteen beside them";
    ActivationScaleIgnored = "activation-scale-ignored", Here, "the scale of the activations is ignored";
    FirstTokenRepeated = "first-token-repeated", Here, "every token gets the result of the first of its group";
    UnsignedActivations = "unsigned-activations", Here, "activations are taken without sign";
    ProductNotFused = "product-not-fused", Here, "a product is rounded before it is added";
}

impl Kind {
    /// Finds a kind by its name.
    pub fn parse(id: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.id() == id)
    }
}

/// What is wrong, and the name of it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.says(), self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.id()), Some(*kind));
        }
        assert_eq!(Kind::parse("flux-capacitor"), None);
        assert_eq!(Kind::ALL.iter().filter(|kind| kind.is_published()).count(), 18);
    }
}
