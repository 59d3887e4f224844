//! Turns and their statistics.

use serde::Serialize;
use std::time::{Duration, Instant};

/// Something that is timed.
pub(super) struct Contestant {
    pub(super) name: String,
    /// Multiply-adds of one pass; 0 for a loop that only reads.
    pub(super) macs: f64,
    /// Bytes of weights that one pass reads; 0 for a loop in registers.
    pub(super) bytes: f64,
    pub(super) pass: Box<dyn FnMut()>,
}

/// Median, smallest and largest over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(super) fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        Spread { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}

/// What one contestant did in a setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Instruction set and kernel, or peer and function, or loop.
    pub name: String,
    /// 10^9 multiply-adds a second; absent for a loop that only reads.
    pub gmacs: Option<Spread>,
    /// 10^9 bytes of weights a second; absent for a loop in registers.
    pub gbytes: Option<Spread>,
    /// Multiply-adds over those of the fastest loop of multiply-adds in the same round.
    pub of_peak: Option<Spread>,
    /// Bytes over those of the fastest loop that reads in the same round.
    pub of_reading: Option<Spread>,
    /// Multiply-adds over those of the first peer in the same round.
    pub of_peer: Option<Spread>,
}

/// The contestants that others are held against.
pub(super) struct References {
    pub(super) peaks: Vec<usize>,
    pub(super) readers: Vec<usize>,
    pub(super) peer: Option<usize>,
}

/// Passes a second: `rounds` of them for each contestant, each of at least `turn`. Who begins changes from round to round.
fn rates(contestants: &mut [Contestant], rounds: usize, turn: Duration) -> Vec<Vec<f64>> {
    let mut rates = vec![Vec::with_capacity(rounds); contestants.len()];
    for contestant in contestants.iter_mut() {
        (contestant.pass)();
    }
    for round in 0..rounds {
        for i in 0..contestants.len() {
            let at = (round + i) % contestants.len();
            let (start, mut passes) = (Instant::now(), 0.0);
            while start.elapsed() < turn {
                (contestants[at].pass)();
                passes += 1.0;
            }
            rates[at].push(passes / start.elapsed().as_secs_f64());
        }
    }
    rates
}

/// Times all contestants in turn.
pub(super) fn lines(
    contestants: &mut [Contestant],
    references: &References,
    rounds: usize,
    turn: Duration,
) -> Vec<Line> {
    let rates = rates(contestants, rounds, turn);
    let per_second =
        |at: usize, round: usize, of: fn(&Contestant) -> f64| rates[at][round] * of(&contestants[at]) / 1e9;
    let best = |among: &[usize], round: usize, of: fn(&Contestant) -> f64| {
        among.iter().map(|&at| per_second(at, round, of)).fold(0.0, f64::max)
    };
    let spread = |value: &dyn Fn(usize) -> f64| Spread::of((0..rounds).map(value).collect());
    (0..contestants.len())
        .map(|at| {
            let macs = contestants[at].macs > 0.0;
            let bytes = contestants[at].bytes > 0.0;
            let share = |has: bool, among: &[usize], of: fn(&Contestant) -> f64| {
                (has && !among.is_empty() && !among.contains(&at))
                    .then(|| spread(&|round| per_second(at, round, of) / best(among, round, of)))
            };
            let peer: Vec<usize> = references.peer.into_iter().collect();
            Line {
                name: contestants[at].name.clone(),
                gmacs: macs.then(|| spread(&|round| per_second(at, round, |c| c.macs))),
                gbytes: bytes.then(|| spread(&|round| per_second(at, round, |c| c.bytes))),
                of_peak: share(macs, &references.peaks, |c| c.macs),
                of_reading: share(bytes, &references.readers, |c| c.bytes),
                of_peer: share(macs && !references.peaks.contains(&at), &peer, |c| c.macs),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_taken_within_a_round() {
        let wait = |n: u32| move || std::thread::sleep(Duration::from_millis(u64::from(n)));
        let contestant = |name: &str, macs, bytes, n| Contestant {
            name: name.to_owned(),
            macs,
            bytes,
            pass: Box::new(wait(n)),
        };
        let mut contestants = [
            contestant("peak", 4e6, 0.0, 1),
            contestant("reader", 0.0, 2e6, 1),
            contestant("ours", 1e6, 1e6, 1),
        ];
        let references = References { peaks: vec![0], readers: vec![1], peer: None };
        let lines = lines(&mut contestants, &references, 3, Duration::from_millis(3));
        assert_eq!(lines[0].of_peak, None, "nothing is held against itself");
        assert_eq!((lines[1].gmacs, lines[1].of_reading), (None, None));
        let ours = &lines[2];
        assert!(ours.of_peak.is_some() && ours.of_reading.is_some() && ours.of_peer.is_none());
        let gmacs = ours.gmacs.expect("it multiplies");
        assert!(gmacs.min <= gmacs.median && gmacs.median <= gmacs.max && gmacs.min > 0.0);
    }

    #[test]
    fn a_spread_is_the_median_and_both_ends() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
    }
}
