//! Bare loops, see [`crate::kernels::probe`].

use super::memory::{load_bytes, prefetch};
use super::products::{dot, plain};
use std::arch::aarch64::*;
use std::hint::black_box;

/// Registers that are added to, more than the latency of a multiply-add times its throughput.
const SUMS: usize = 16;

/// `smlal` and `smlal2`, which add in i16.
#[target_feature(enable = "neon")]
pub(super) fn multiply_adds(rounds: usize) -> u64 {
    let b = black_box(vdupq_n_s8(2));
    let mut sums = [plain::zero(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            // Of itself: otherwise one product would serve all rounds.
            *sum = plain::add(*sum, [vreinterpretq_s8_s16(*sum)], &[b]);
        }
    }
    black_box(sums);
    (16 * SUMS * rounds) as u64
}

/// `sdot`.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn multiply_adds_dot(rounds: usize) -> u64 {
    let (a, b) = (black_box(vdupq_n_s8(1)), black_box(vdupq_n_s8(2)));
    let mut sums = [dot::zero(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = dot::add(*sum, [a], &[b]);
        }
    }
    black_box(sums);
    (16 * SUMS * rounds) as u64
}

#[target_feature(enable = "neon")]
pub(super) fn read(bytes: &[u8], streams: usize, ahead: usize) -> u64 {
    match streams {
        1 => read_streams::<1>(bytes, ahead),
        2 => read_streams::<2>(bytes, ahead),
        4 => read_streams::<4>(bytes, ahead),
        8 => read_streams::<8>(bytes, ahead),
        _ => panic!("{streams} streams are none of those that there are"),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn read_streams<const S: usize>(bytes: &[u8], ahead: usize) -> u64 {
    let lines = bytes.as_chunks::<64>().0;
    let per_stream = lines.len() / S;
    let streams: [&[[u8; 64]]; S] = std::array::from_fn(|s| &lines[s * per_stream..][..per_stream]);
    let mut sums = [vdupq_n_u64(0); S];
    for i in 0..per_stream {
        for s in 0..S {
            let line = &streams[s][i];
            if ahead > 0 {
                prefetch(line.as_ptr().wrapping_add(ahead));
            }
            for part in line.as_chunks().0 {
                sums[s] = vaddq_u64(sums[s], vreinterpretq_u64_u8(load_bytes(part)));
            }
        }
    }
    let total = sums.into_iter().fold(vdupq_n_u64(0), |total, sum| vaddq_u64(total, sum));
    vaddvq_u64(total)
}
