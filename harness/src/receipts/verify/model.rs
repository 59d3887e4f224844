//! The rule that derives numbers from the model's shape: the multiply-adds and the calls of a run.
//!
//! All sums are in u128 and saturate: the counters they are compared with are at most 2^64 each, so a sum that
//! saturates is equal to none that a receipt can hold.

use super::claim::{does_not_apply, model_parts};
use super::honest::{feeds, tokens};
use super::{Broken, Finding, Held, Options, require};
use crate::receipts::types::{ComputePath, Shape, Statement, Work, operation};
use std::collections::{BTreeMap, BTreeSet};

/// What a run requires of one operation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Required {
    /// Matrices that each feeding of tokens goes through: at least as many calls.
    pub(crate) matrices: u128,
    /// Rows by their length.
    pub(crate) rows_by_columns: BTreeMap<u64, u128>,
    /// Multiply-adds.
    pub(crate) macs: u128,
}

/// The multiply-adds that `tokens` tokens through a model of `shape` take, by operation. Each token attends to
/// itself and to those before it, so position `p` reads `p + 1` keys and values per head.
///
/// ```text
/// linear             tokens * layers * (2*d*h*c + 2*d*k*c + 3*d*ff)      h heads, k heads_kv, c head_dim, d embedding
/// head               tokens * d * vocab
/// attention_scores   layers * h * c * tokens * (tokens + 1) / 2
/// attention_values   the same
/// ```
pub(crate) fn required_work(shape: &Shape, tokens: u64) -> BTreeMap<&'static str, Required> {
    let wide = |value: u32| u128::from(value);
    let (d, ff) = (wide(shape.embedding), wide(shape.feed_forward));
    let heads = wide(shape.heads) * wide(shape.head_dim);
    let heads_kv = wide(shape.heads_kv) * wide(shape.head_dim);
    let (layers, tokens) = (wide(shape.layers), u128::from(tokens));
    let passes = layers.saturating_mul(tokens);
    let matrices = |list: &[(u128, u128)], times: u128| {
        let mut required = Required::default();
        for (rows, columns) in list {
            let rows = rows.saturating_mul(times);
            let sum =
                required.rows_by_columns.entry(u64::try_from(*columns).unwrap_or(u64::MAX)).or_default();
            *sum = sum.saturating_add(rows);
            required.macs = required.macs.saturating_add(rows.saturating_mul(*columns));
        }
        required
    };
    let q_k_v_o = [(heads, d), (heads_kv, d), (heads_kv, d), (d, heads)];
    let up_gate_down = [(ff, d), (ff, d), (d, ff)];
    let pairs = tokens.saturating_mul(tokens.saturating_add(1)) / 2;
    let rows = layers.saturating_mul(wide(shape.heads)).saturating_mul(pairs);
    let attention = || Required {
        matrices: layers,
        rows_by_columns: BTreeMap::from([(u64::from(shape.head_dim), rows)]),
        macs: rows.saturating_mul(wide(shape.head_dim)),
    };
    BTreeMap::from([
        (
            operation::LINEAR,
            Required {
                matrices: 7 * layers,
                ..matrices(&[&q_k_v_o[..], &up_gate_down[..]].concat(), passes)
            },
        ),
        (operation::HEAD, Required { matrices: 1, ..matrices(&[(wide(shape.vocab), d)], tokens) }),
        (operation::ATTENTION_SCORES, attention()),
        (operation::ATTENTION_VALUES, attention()),
    ])
}

pub(super) fn work(statement: &Statement, _: &Options) -> Finding {
    let Some((model, input, _)) = model_parts(statement) else { return does_not_apply() };
    let execution = &statement.predicate.execution;
    if execution.compute_path == ComputePath::Mock {
        return does_not_apply();
    }
    let (tokens, feeds) = (tokens(input), feeds(input, execution.batch));
    let required = required_work(&model.shape, tokens);
    for (name, required) in &required {
        let rows = || execution.work.iter().filter(|work| work.operation.as_str() == *name);
        let macs: u128 = rows().map(|work| u128::from(work.macs.get())).sum();
        require!(
            macs == required.macs,
            "{name}: {macs} multiply-adds counted, the shape requires {} for {tokens} tokens",
            required.macs
        );
        if let Some(misfit) = rows_misfit(rows(), required) {
            return Broken(format!("{name}: {misfit}"));
        }
        let calls: u128 = rows().map(|work| u128::from(work.calls.get())).sum();
        let least = required.matrices * u128::from(feeds);
        require!(calls >= least, "{name}: {calls} calls; {feeds} feedings take at least {least}");
    }
    let macs = required_macs(&model.shape, tokens);
    Held(format!("{macs} multiply-adds, as the shape requires for {tokens} tokens"))
}

/// All multiply-adds of a run.
pub(super) fn required_macs(shape: &Shape, tokens: u64) -> u128 {
    required_work(shape, tokens).values().fold(0, |sum, required| sum.saturating_add(required.macs))
}

/// Where the rows counted by length are not those required; the same multiply-adds could be other matrices.
fn rows_misfit<'a>(work: impl Iterator<Item = &'a Work>, required: &Required) -> Option<String> {
    let mut counted = BTreeMap::<u64, u128>::new();
    for row in work {
        *counted.entry(row.columns.get()).or_default() += u128::from(row.rows.get());
    }
    let lengths: BTreeSet<_> = counted.keys().chain(required.rows_by_columns.keys()).collect();
    lengths.into_iter().find_map(|columns| {
        let of = |map: &BTreeMap<u64, u128>| map.get(columns).copied().unwrap_or(0);
        let (counted, required) = (of(&counted), of(&required.rows_by_columns));
        (counted != required)
            .then(|| format!("{counted} rows of {columns} columns, the shape requires {required}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_work_is_that_of_the_loops_written_out() {
        let shape = Shape {
            layers: 3,
            embedding: 10,
            feed_forward: 14,
            heads: 4,
            heads_kv: 2,
            head_dim: 5,
            vocab: 21,
        };
        let (mut linear, mut head, mut attention) = (0u128, 0, 0);
        for position in 0..6 {
            for _layer in 0..3 {
                linear += 10 * (4 * 5) + 2 * 10 * (2 * 5) + (4 * 5) * 10 + 3 * 10 * 14;
                attention += 4 * (position + 1) * 5;
            }
            head += 10 * 21;
        }
        let required = required_work(&shape, 6);
        let macs = required.iter().map(|(name, required)| (*name, required.macs)).collect::<BTreeMap<_, _>>();
        let expected = [
            ("attention_scores", attention),
            ("attention_values", attention),
            ("head", head),
            ("linear", linear),
        ];
        assert_eq!(macs, BTreeMap::from(expected));
        let rows = &required["linear"].rows_by_columns;
        assert_eq!(
            *rows,
            BTreeMap::from([(10, 18 * (20 + 10 + 10 + 14 + 14)), (14, 18 * 10), (20, 18 * 10)])
        );
    }

    #[test]
    fn the_largest_shape_overflows_nothing() {
        let m = u32::MAX;
        let shape =
            Shape { layers: m, embedding: m, feed_forward: m, heads: m, heads_kv: m, head_dim: m, vocab: m };
        assert_eq!(required_work(&shape, u64::MAX)["linear"].macs, u128::MAX);
    }
}
