//! How far two sets of logits are apart. Every sum runs in f64 in a fixed order, so that a verdict is the same everywhere.

use assay_engine::exact::{argmax, by_logit};

/// Metrics over `positions` rows of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Rows compared.
    pub positions: usize,
    /// Smallest `a · b / (|a| |b|)` of a row.
    pub cosine_min: f64,
    /// Its mean.
    pub cosine_mean: f64,
    /// Largest `|a_i − b_i|`.
    pub max_abs: f64,
    /// Largest normalised mean squared error of a row, `Σ (a_i − b_i)² / Σ b_i²`.
    pub nmse_max: f64,
    /// Largest distance of two values in units in the last place: how many f32 lie between them, plus one.
    pub max_ulp: u64,
    /// Largest rank that the reference's most likely token has among ours, from 1.
    pub rank_max: usize,
    /// Mean of `KL(b ‖ a) = Σ p_b (ln p_b − ln p_a)` in nats, `b` being the reference.
    pub kl_mean: f64,
    /// Largest of a row.
    pub kl_max: f64,
    /// Rows with the same largest logit.
    pub top1_agree: usize,
    /// Mean share of the ten largest that are among the other's ten largest, 0 to 1.
    pub top10_agree: f64,
}

/// Compares rows of `vocab` logits: `ours` with a reference's. `None` if there is no whole row, the lengths differ, or a
/// value is not finite.
pub fn compare(ours: &[f32], reference: &[f32], vocab: usize) -> Option<Comparison> {
    let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
    if vocab == 0 || ours.is_empty() || ours.len() != reference.len() || !ours.len().is_multiple_of(vocab) {
        return None;
    }
    if !finite(ours) || !finite(reference) {
        return None;
    }
    let rows: Vec<Row> =
        ours.chunks(vocab).zip(reference.chunks(vocab)).map(|(a, b)| Row::of(a, b)).collect();
    let n = rows.len() as f64;
    let mean = |value: fn(&Row) -> f64| rows.iter().map(value).sum::<f64>() / n;
    let largest = |value: fn(&Row) -> f64| rows.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
    Some(Comparison {
        positions: rows.len(),
        cosine_min: -largest(|row| -row.cosine),
        cosine_mean: mean(|row| row.cosine),
        max_abs: largest(|row| row.max_abs),
        nmse_max: largest(|row| row.nmse),
        max_ulp: rows.iter().map(|row| row.max_ulp).max().unwrap_or(0),
        rank_max: rows.iter().map(|row| row.rank).max().unwrap_or(1),
        kl_mean: mean(|row| row.kl),
        kl_max: largest(|row| row.kl),
        top1_agree: rows.iter().filter(|row| row.top1).count(),
        top10_agree: mean(|row| row.top10),
    })
}

struct Row {
    cosine: f64,
    max_abs: f64,
    nmse: f64,
    max_ulp: u64,
    rank: usize,
    kl: f64,
    top1: bool,
    top10: f64,
}

impl Row {
    fn of(a: &[f32], b: &[f32]) -> Row {
        Row {
            cosine: cosine(a, b),
            max_abs: max_abs(a, b),
            nmse: nmse(a, b),
            max_ulp: max_ulp(a, b),
            rank: rank(a, argmax(b)),
            kl: kl(b, a),
            top1: argmax(a) == argmax(b),
            top10: top_overlap(a, b, 10),
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `max |a_i − b_i|`
pub fn max_abs(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max)
}

/// `Σ (a_i − b_i)² / Σ b_i²`; 0 for two rows of zeros, infinite if only `b` is zero.
pub fn nmse(a: &[f32], b: &[f32]) -> f64 {
    let error: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    if error == 0.0 { 0.0 } else { error / dot(b, b) }
}

/// Rows of one size have a normalised mean squared error of 2 (1 − cosine); twice as much is allowed. The cosine alone would not see logits
/// that are all twice too large.
pub fn nmse_allowed(cosine_min: f64) -> f64 {
    4.0 * (1.0 - cosine_min)
}

/// How many steps from one f32 to the next lead from `a` to `b`; both zeros are the same value.
pub fn ulp(a: f32, b: f32) -> u64 {
    let place = |v: f32| {
        let magnitude = i64::from(v.to_bits() & 0x7fff_ffff);
        if v.is_sign_negative() { -magnitude } else { magnitude }
    };
    place(a).abs_diff(place(b))
}

fn max_ulp(a: &[f32], b: &[f32]) -> u64 {
    a.iter().zip(b).map(|(a, b)| ulp(*a, *b)).max().unwrap_or(0)
}

/// Place of token `of` in the order of `logits`, from 1.
pub fn rank(logits: &[f32], of: usize) -> usize {
    let order = by_logit(logits);
    1 + (0..logits.len()).filter(|i| order(i, &of) == std::cmp::Ordering::Less).count()
}

/// 1 for two rows of zeros, 0 if only one of them is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (aa, bb) = (dot(a, a), dot(b, b));
    if aa == 0.0 || bb == 0.0 {
        return if aa == bb { 1.0 } else { 0.0 };
    }
    dot(a, b) / (aa.sqrt() * bb.sqrt())
}

/// `ln softmax(x)`
fn log_softmax(x: &[f32]) -> Vec<f64> {
    let m = x.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(f64::from(v)));
    let z: f64 = x.iter().map(|&v| libm::exp(f64::from(v) - m)).sum();
    let shift = m + libm::log(z);
    x.iter().map(|&v| f64::from(v) - shift).collect()
}

/// `KL(p ‖ q)`; rounding may leave a tiny negative number, which is 0.
fn kl(p: &[f32], q: &[f32]) -> f64 {
    let (p, q) = (log_softmax(p), log_softmax(q));
    p.iter().zip(&q).map(|(lp, lq)| libm::exp(*lp) * (lp - lq)).sum::<f64>().max(0.0)
}

fn top_overlap(a: &[f32], b: &[f32], k: usize) -> f64 {
    let top = |x: &[f32]| {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(by_logit(x));
        order.truncate(k);
        order
    };
    let (a, b) = (top(a), top(b));
    a.iter().filter(|i| b.contains(i)).count() as f64 / a.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_are_at_no_distance() {
        let x: Vec<f32> = (0..40).map(|i| (i % 7) as f32 - 3.0).collect();
        let same = compare(&x, &x, 20).expect("comparable");
        assert!((same.cosine_min - 1.0).abs() < 1e-15 && same.max_abs == 0.0 && same.kl_max == 0.0);
        assert_eq!((same.positions, same.top1_agree, same.top10_agree), (2, 2, 1.0));
        assert_eq!((same.nmse_max, same.max_ulp, same.rank_max), (0.0, 0, 1));
    }

    #[test]
    fn known_distances() {
        let (a, b) = ([1.0, 0.0], [0.0, 1.0]);
        let apart = compare(&a, &b, 2).expect("comparable");
        assert_eq!((apart.cosine_min, apart.max_abs, apart.top1_agree), (0.0, 1.0, 0));
        assert_eq!((apart.nmse_max, apart.rank_max), (2.0, 2));
        assert_eq!((ulp(0.0, -0.0), ulp(1.0, 1.0 + f32::EPSILON), ulp(f32::from_bits(1), -0.0)), (0, 1, 1));
        assert_eq!(ulp(f32::from_bits(1), -f32::from_bits(2)), 3);
        assert_eq!(
            (rank(&[1.0, 3.0, 3.0], 1), rank(&[1.0, 3.0, 3.0], 2), rank(&[1.0, 3.0, 3.0], 0)),
            (1, 2, 3)
        );
        // p = (1, e) / (1 + e): KL = (e - 1) / (e + 1)
        let e = std::f64::consts::E;
        assert!((apart.kl_mean - (e - 1.0) / (e + 1.0)).abs() < 1e-12, "{}", apart.kl_mean);
    }

    #[test]
    fn what_cannot_be_compared_is_none() {
        assert_eq!(compare(&[], &[], 4), None);
        assert_eq!(compare(&[1.0; 4], &[1.0; 8], 4), None);
        assert_eq!(compare(&[1.0; 6], &[1.0; 6], 4), None);
        assert_eq!(compare(&[1.0, f32::NAN], &[1.0, 1.0], 2), None);
    }
}
