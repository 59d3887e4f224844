//! What memory and cores allow at most, with several threads: single tokens are held against reading, prompts against multiply-adds.

use assay_engine::kernels::probe::{self, AHEAD, STREAMS};
use assay_engine::kernels::{self, Isa, Kernels};
use std::hint::black_box;
use std::time::Instant;

/// Bytes that are read at most in one measurement: several times the last cache.
const READ: usize = 256 << 20;
/// Bytes that are read at least, again and again if there are fewer.
const READ_AT_LEAST: usize = 64 << 20;
/// Rounds of the loop in registers: some milliseconds.
const ROUNDS: usize = 2_000_000;

/// The loops of the widest instruction set up to `isa` that has some.
fn probe_of(kernels: &Kernels) -> Option<probe::Probe> {
    let usable = |isa: &Isa| *isa <= kernels.isa && kernels::get(*isa).is_ok();
    Isa::ALL.into_iter().rev().filter(usable).find_map(probe::get)
}

/// Bytes a second that `threads` threads read together, each its own part of `bytes`: the fastest of the loops. `None` where there is no
/// loop for the instruction set.
pub fn reading(kernels: &Kernels, bytes: &[u8], threads: usize) -> Option<f64> {
    let (probe, bytes) = (probe_of(kernels)?, &bytes[..bytes.len().min(READ)]);
    let part = bytes.len() / threads.max(1);
    if part < 64 * STREAMS[3] {
        return None;
    }
    let passes = READ_AT_LEAST.div_ceil(bytes.len());
    let loops = AHEAD.map(|ahead| {
        let read = |i: usize| {
            (0..passes)
                .for_each(|_| _ = black_box((probe.read)(&bytes[part * i..][..part], STREAMS[3], ahead)));
        };
        (passes * part * threads) as f64 / seconds(threads, read)
    });
    loops.into_iter().reduce(f64::max)
}

/// Multiply-adds a second of 8-bit numbers that `threads` threads do together in registers.
pub fn multiply_adds(kernels: &Kernels, threads: usize) -> Option<f64> {
    let probe = probe_of(kernels)?;
    let macs = (probe.multiply_adds)(1) as f64 * ROUNDS as f64;
    let one = |_| _ = black_box((probe.multiply_adds)(ROUNDS));
    Some(macs * threads as f64 / seconds(threads, one))
}

/// Seconds until `body` has run on as many threads at once.
fn seconds(threads: usize, body: impl Fn(usize) + Sync) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        (1..threads).for_each(|i| {
            let body = &body;
            drop(scope.spawn(move || body(i)));
        });
        body(0);
    });
    start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_positive_where_there_is_a_loop() {
        let bytes = vec![1; 1 << 20];
        for kernels in kernels::available() {
            let loops = probe_of(kernels).is_some();
            assert_eq!(loops, kernels.isa != Isa::Scalar);
            assert_eq!(reading(kernels, &bytes, 2).is_some_and(|rate| rate > 0.0), loops);
            assert_eq!(multiply_adds(kernels, 2).is_some_and(|rate| rate > 0.0), loops);
        }
        assert_eq!(reading(kernels::best(), &[1; 100], 2), None, "too little to read");
    }
}
