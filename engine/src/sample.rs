//! From a row of logits to the next token: greedy, or drawn with a seed; the same choice on every machine.

use crate::error::{Error, Result};
use crate::exact::{argmax, by_logit};
use crate::kernels::Kernels;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeSet;

/// How the next token is chosen. The steps are those of llama.cpp's usual chain and in its order: repetition penalty,
/// top-k, top-p, min-p, temperature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it, last of all; 0 takes the largest logit.
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 is all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 is all.
    pub top_p: f32,
    /// Only tokens at least this likely, as a part of the most likely one; 0 is all.
    pub min_p: f32,
    /// A positive logit of a token that was there already is divided by it, another multiplied; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Tokens, the prompt's too, that count as there already.
    pub repeat_last_n: usize,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling::GREEDY
    }
}

impl Sampling {
    /// The largest logit; of equals the one with the smallest id.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        repeat_last_n: 64,
        seed: 0,
    };

    /// Whether it is the plain argmax, which needs no random number.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 && self.repetition_penalty == 1.0
    }

    /// # Errors
    /// - [`Error::Input`] for a number that means nothing.
    pub fn check(&self) -> Result<()> {
        let refuse = |what, expected: &str, got: f32| {
            Err(Error::Input { what, expected: expected.to_owned(), got: got.to_string() })
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse("temperature", "a number from 0", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top-p", "more than 0, up to 1", self.top_p);
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min-p", "0 to 1", self.min_p);
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return refuse("repetition penalty", "more than 0", self.repetition_penalty);
        }
        Ok(())
    }
}

/// Chooses tokens one after the other.
///
/// The random numbers are ChaCha20's, one `u32` a drawn token. Key: the seed as `u64`, little-endian, then the 24 ASCII characters
/// `assay seeded sampling v1`; stream and counter 0. `u = (u32 >> 8) · 2⁻²⁴`.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    kernels: &'static Kernels,
    rng: ChaCha20Rng,
}

impl Sampler {
    /// A sampler that has drawn nothing yet.
    ///
    /// # Errors
    /// - as [`Sampling::check`].
    pub fn new(sampling: Sampling, kernels: &'static Kernels) -> Result<Sampler> {
        sampling.check()?;
        let mut key = *b"--seed--assay seeded sampling v1";
        key[..8].copy_from_slice(&sampling.seed.to_le_bytes());
        Ok(Sampler { sampling, kernels, rng: ChaCha20Rng::from_seed(key) })
    }

    /// The next token after `before`, whose last one gave `logits` (finite).
    pub fn choose(&mut self, logits: &[f32], before: &[u32]) -> usize {
        if self.sampling.is_greedy() {
            return argmax(logits);
        }
        let logits = self.penalised(logits, before);
        if self.sampling.temperature == 0.0 {
            return argmax(&logits);
        }
        let mut order = self.most_likely(&logits);
        self.cut_by_probability(&logits, &mut order);
        // Divided by the temperature after the largest was taken off, so that no small temperature overflows: exp sees −∞ at worst, as 0.
        let largest = logits[order[0]];
        let scaled = order.iter().map(|&id| (logits[id] - largest) / self.sampling.temperature);
        let mut p: Vec<f32> = scaled.map(|x| x.max(f32::MIN)).collect();
        (self.kernels.softmax)(&mut p);
        let total: f64 = p.iter().map(|&p| f64::from(p)).sum();
        let u = f64::from(self.rng.next_u32() >> 8) / f64::from(1 << 24);
        let mut reached = 0.0;
        let drawn = p.iter().position(|&p| {
            reached += f64::from(p);
            reached > u * total
        });
        order[drawn.unwrap_or(order.len() - 1)]
    }

    fn penalised(&self, logits: &[f32], before: &[u32]) -> Vec<f32> {
        let (mut logits, penalty) = (logits.to_vec(), self.sampling.repetition_penalty);
        let recent = &before[before.len().saturating_sub(self.sampling.repeat_last_n)..];
        for id in recent.iter().collect::<BTreeSet<_>>() {
            let logit = &mut logits[*id as usize];
            let changed = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            *logit = changed.clamp(f32::MIN, f32::MAX);
        }
        logits
    }

    /// The `top_k` most likely ids in the order of the contract.
    fn most_likely(&self, logits: &[f32]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        let k = if self.sampling.top_k == 0 { logits.len() } else { self.sampling.top_k.min(logits.len()) };
        if k < logits.len() {
            order.select_nth_unstable_by(k, by_logit(logits));
            order.truncate(k);
        }
        order.sort_unstable_by(by_logit(logits));
        order
    }

    /// top-p, then min-p, on the probabilities of what is left; the most likely token always stays.
    fn cut_by_probability(&self, logits: &[f32], order: &mut Vec<usize>) {
        let Sampling { top_p, min_p, .. } = self.sampling;
        if top_p < 1.0 {
            let mut p: Vec<f32> = order.iter().map(|&id| logits[id]).collect();
            (self.kernels.softmax)(&mut p);
            let mut reached = 0.0;
            let before_last = p.iter().position(|&p| {
                reached += f64::from(p);
                reached >= f64::from(top_p)
            });
            order.truncate(before_last.map_or(order.len(), |at| at + 1));
        }
        if min_p > 0.0 {
            let mut ratio: Vec<f32> = order.iter().map(|&id| logits[id] - logits[order[0]]).collect();
            (self.kernels.exp_f32)(&mut ratio);
            let keep = ratio.iter().take_while(|&&ratio| ratio >= min_p).count();
            order.truncate(keep.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;

    fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling, kernels::best()).expect("settings");
        let mut counts = vec![0; logits.len()];
        (0..draws).for_each(|_| counts[sampler.choose(logits, &[])] += 1);
        counts
    }

    const PLAIN: Sampling = Sampling { temperature: 1.0, seed: 7, ..Sampling::GREEDY };

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        let p = [0.5_f64, 0.1, 0.3, 0.1];
        let logits = p.map(|p| p.ln() as f32 + 3.0);
        let found = counts(PLAIN, &logits, 20_000);
        for (p, n) in p.iter().zip(found) {
            assert!((n as f64 / 20_000.0 - p).abs() < 0.012, "{n} of 20000 for {p}");
        }
    }

    #[test]
    fn a_low_temperature_is_nearly_greedy_and_the_lowest_does_not_overflow() {
        let logits = [1.0, 3.0, 2.0, -5.0];
        assert_eq!(counts(Sampling { temperature: 0.05, ..PLAIN }, &logits, 500), [0, 500, 0, 0]);
        assert_eq!(counts(Sampling { temperature: f32::MIN_POSITIVE, ..PLAIN }, &logits, 50), [0, 50, 0, 0]);
    }

    #[test]
    fn each_cut_leaves_what_it_says() {
        let logits = [0.0, 2.0, 1.0, 2.0];
        let kinds = |sampling| {
            counts(sampling, &logits, 3000).iter().map(|n| usize::from(*n > 0)).collect::<Vec<_>>()
        };
        assert_eq!(kinds(PLAIN), [1, 1, 1, 1]);
        assert_eq!(kinds(Sampling { top_k: 2, ..PLAIN }), [0, 1, 0, 1]);
        assert_eq!(kinds(Sampling { top_k: 1, ..PLAIN }), [0, 1, 0, 0], "of equals the lower id");
        // Probabilities: 0.0541, 0.3995, 0.1470, 0.3995.
        assert_eq!(kinds(Sampling { top_p: 0.39, ..PLAIN }), [0, 1, 0, 0]);
        assert_eq!(kinds(Sampling { top_p: 0.9, ..PLAIN }), [0, 1, 1, 1]);
        assert_eq!(kinds(Sampling { min_p: 0.2, ..PLAIN }), [0, 1, 1, 1], "exp(-1) = 0.37, exp(-2) = 0.14");
        assert_eq!(kinds(Sampling { min_p: 1.0, ..PLAIN }), [0, 1, 0, 1]);
    }

    #[test]
    fn a_penalty_turns_away_from_what_was_there() {
        let penalty = Sampling { repetition_penalty: 2.0, repeat_last_n: 2, ..Sampling::GREEDY };
        let mut sampler = Sampler::new(penalty, kernels::best()).expect("settings");
        assert_eq!(sampler.choose(&[1.0, 3.0, 2.0], &[1]), 2);
        assert_eq!(sampler.choose(&[1.0, 3.0, 2.0], &[1, 0, 0]), 1, "too long ago");
        assert_eq!(sampler.choose(&[-1.0, -1.5, -9.0], &[0]), 1, "a negative logit falls further");
    }

    #[test]
    fn one_seed_draws_the_same_on_every_instruction_set_and_another_seed_does_not() {
        let logits: Vec<f32> = (0..300).map(|i| ((i * 37) % 101) as f32 / 20.0).collect();
        let draw = |kernels, seed| {
            let sampling = Sampling { seed, top_k: 120, top_p: 0.95, min_p: 0.01, ..PLAIN };
            let mut sampler = Sampler::new(sampling, kernels).expect("settings");
            (0..100).map(|_| sampler.choose(&logits, &[3, 4])).collect::<Vec<_>>()
        };
        let expected = draw(&kernels::scalar::KERNELS, 1);
        kernels::available()
            .into_iter()
            .for_each(|table| assert_eq!(draw(table, 1), expected, "{}", table.isa));
        assert_ne!(draw(kernels::best(), 2), expected);
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        let wrong = [
            Sampling { temperature: f32::NAN, ..PLAIN },
            Sampling { temperature: -1.0, ..PLAIN },
            Sampling { top_p: 0.0, ..PLAIN },
            Sampling { min_p: 1.5, ..PLAIN },
            Sampling { repetition_penalty: 0.0, ..PLAIN },
        ];
        wrong.iter().for_each(|sampling| assert!(sampling.check().is_err(), "{sampling:?}"));
    }
}
