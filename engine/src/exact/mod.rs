//! The arithmetic contract `exact-v1`: what every backend must give, bit for bit (`docs/numerics.md`).
//!
//! Here are the parts that no instruction set may change: the reduction tree, the exponential, the RoPE tables, the check
//! of the float environment, and the order of logits. The operations themselves are in [`crate::kernels`], where the
//! scalar file is their meaning.

pub mod environment;
pub mod exp;
pub mod reduce;
pub mod rope;

/// Name of the contract, as receipts write it. A change of any bit that the contract fixes is a new name.
pub const CONTRACT: &str = "exact-v1";

/// Positions of the KV cache that are summed together before they are added to the attention output. Fixed, so that
/// CPU threads and CUDA blocks can share a long context without changing a bit.
pub const ATTENTION_CHUNK: usize = 256;

/// Smallest magnitude that the `i8` activation scale divides by: `s = 127 / max(1e-5, max|x|)`.
pub const I8_FLOOR: f32 = 1e-5;

/// Index of the largest logit; the lower index of equals.
///
/// NaN wins over nothing but what stands before it (logits are checked for it first). An empty slice gives 0.
pub fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = i;
        }
    }
    best
}

/// Order of two logits by the contract: descending value (both zeros are equal), then ascending index.
pub fn by_logit(logits: &[f32]) -> impl Fn(&usize, &usize) -> std::cmp::Ordering + '_ {
    |&a, &b| (logits[b] + 0.0).total_cmp(&(logits[a] + 0.0)).then(a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[-0.0, 0.0]), 0);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn ordering_is_descending_then_by_index() {
        let logits = [1.0, 3.0, 3.0, 2.0];
        let mut order: Vec<usize> = (0..4).collect();
        order.sort_by(by_logit(&logits));
        assert_eq!(order, [1, 2, 3, 0]);
        let zeros = [-0.0, 0.0];
        assert!(by_logit(&zeros)(&0, &1).is_lt(), "as argmax has it");
    }
}
