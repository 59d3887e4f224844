//! Bare loops, see [`crate::kernels::probe`].

use super::memory::load_bytes;
use std::arch::x86_64::*;
use std::hint::black_box;

/// Registers that are added to, more than the latency of a multiply-add times its throughput.
const SUMS: usize = 10;

/// `maddubs`, and the addition in i16 without which its sums are lost.
#[target_feature(enable = "avx2")]
pub(super) fn multiply_adds(rounds: usize) -> u64 {
    let b = black_box(_mm256_set1_epi8(2));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(*sum, b));
        }
    }
    black_box(sums);
    (32 * SUMS * rounds) as u64
}

#[target_feature(enable = "avx2")]
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
#[target_feature(enable = "avx2")]
fn read_streams<const S: usize>(bytes: &[u8], ahead: usize) -> u64 {
    let blocks = bytes.as_chunks::<32>().0;
    let per_stream = blocks.len() / S;
    let streams: [&[[u8; 32]]; S] = std::array::from_fn(|s| &blocks[s * per_stream..][..per_stream]);
    let mut sums = [_mm256_setzero_si256(); S];
    for i in 0..per_stream {
        for s in 0..S {
            let block = &streams[s][i];
            if ahead > 0 {
                // A prefetch never faults, wherever it points.
                _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().cast::<i8>().wrapping_add(ahead));
            }
            sums[s] = _mm256_add_epi64(sums[s], load_bytes(block));
        }
    }
    let total = sums.into_iter().fold(_mm256_setzero_si256(), |total, sum| _mm256_add_epi64(total, sum));
    sum_longs(total)
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_longs(v: __m256i) -> u64 {
    let v = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    _mm_extract_epi64::<0>(v).wrapping_add(_mm_extract_epi64::<1>(v)).cast_unsigned()
}
