//! Counters of the work that was really done, incremented where a kernel is called.
//!
//! A receipt's claim to be real rests on them: their multiply-adds must equal, exactly, what the model's shape and the
//! number of tokens require.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// An operation of the graph that multiplies and adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// The seven linear layers of a block.
    Linear,
    /// Logits.
    Head,
    /// `q · k`.
    AttentionScores,
    /// `Σ p v`.
    AttentionValues,
}

impl Operation {
    /// Name in receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Linear => "linear",
            Operation::Head => "head",
            Operation::AttentionScores => "attention_scores",
            Operation::AttentionValues => "attention_values",
        }
    }
}

/// What one kernel did for one operation on rows of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The operation.
    pub operation: Operation,
    /// The kernel's name, `<operation>_<weights>_<activations>`.
    pub kernel: &'static str,
    /// The instruction set of the table that was called.
    pub isa: crate::kernels::Isa,
    /// Columns of the matrix (inputs of a row).
    pub columns: usize,
}

/// Totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Kernel calls. It depends on the number of threads; nothing else here does.
    pub calls: u64,
    /// Rows computed.
    pub rows: u64,
    /// Multiply-adds: rows × columns.
    pub macs: u64,
    /// Bytes of the encoded weights, keys or values of these rows: those of a matrix once for every token, also where one
    /// reading serves several.
    pub weight_bytes: u64,
}

/// A set of counters that threads share.
#[derive(Debug, Default)]
pub struct Work(Mutex<BTreeMap<Key, Counts>>);

impl Work {
    /// Adds calls over `rows` rows together, whose encoded bytes are `weight_bytes`.
    pub fn add(&self, key: Key, calls: usize, rows: usize, weight_bytes: usize) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = totals.entry(key).or_default();
        counts.calls += calls as u64;
        counts.rows += rows as u64;
        counts.macs += (rows * key.columns) as u64;
        counts.weight_bytes += weight_bytes as u64;
    }

    /// The totals so far, in a fixed order.
    pub fn totals(&self) -> Vec<(Key, Counts)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(k, v)| (*k, *v)).collect()
    }
}
