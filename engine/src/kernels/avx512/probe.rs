//! Bare loops, see [`crate::kernels::probe`].

use super::memory::load_bytes;
use std::arch::x86_64::*;
use std::hint::black_box;

/// Registers that are added to, more than the latency of a multiply-add times its throughput.
const SUMS: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn multiply_adds_vnni(rounds: usize) -> u64 {
    let (a, b) = (black_box(_mm512_set1_epi8(1)), black_box(_mm512_set1_epi8(2)));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    black_box(sums);
    (64 * SUMS * rounds) as u64
}

/// `maddubs`, and the addition in i16 without which its sums are lost.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn multiply_adds_bw(rounds: usize) -> u64 {
    let b = black_box(_mm512_set1_epi8(2));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_add_epi16(*sum, _mm512_maddubs_epi16(*sum, b));
        }
    }
    black_box(sums);
    (64 * SUMS * rounds) as u64
}

#[target_feature(enable = "avx512f")]
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
#[target_feature(enable = "avx512f")]
fn read_streams<const S: usize>(bytes: &[u8], ahead: usize) -> u64 {
    let blocks = bytes.as_chunks::<64>().0;
    let per_stream = blocks.len() / S;
    let streams: [&[[u8; 64]]; S] = std::array::from_fn(|s| &blocks[s * per_stream..][..per_stream]);
    let mut sums = [_mm512_setzero_si512(); S];
    for i in 0..per_stream {
        for s in 0..S {
            let block = &streams[s][i];
            if ahead > 0 {
                // A prefetch never faults, wherever it points.
                _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().cast::<i8>().wrapping_add(ahead));
            }
            sums[s] = _mm512_add_epi64(sums[s], load_bytes(block));
        }
    }
    let total = sums.into_iter().fold(_mm512_setzero_si512(), |total, sum| _mm512_add_epi64(total, sum));
    _mm512_reduce_add_epi64(total).cast_unsigned()
}
