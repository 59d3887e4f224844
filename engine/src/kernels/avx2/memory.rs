//! Loads, stores and tails: every pointer of this instruction set.
#![expect(unsafe_code, reason = "loads and stores by pointer")]

use super::floats::Lanes;
use std::arch::x86_64::*;

/// How far ahead in each stream of weights to prefetch, in bytes.
pub(super) const AHEAD: usize = 1024;

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(a: &[f32; 8]) -> __m256 {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_ps(a.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(out: &mut [f32; 8], v: __m256) {
    // SAFETY: `out` is 32 writable bytes; no alignment is needed.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
}

/// 32 bytes of codes or little-endian floats.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_bytes(a: &[u8; 32]) -> __m256i {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(a.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8(a: &[i8; 32]) -> __m256i {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(a.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_bytes(out: &mut [i8; 32], v: __m256i) {
    // SAFETY: `out` is 32 writable bytes; no alignment is needed.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i32(a: &[i32; 8]) -> __m256i {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(a.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_i32(out: &mut [i32; 8], v: __m256i) {
    // SAFETY: `out` is 32 writable bytes; no alignment is needed.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) }
}

/// Sixteen bytes in each half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_halves(a: [&[u8; 16]; 2]) -> __m256i {
    _mm256_set_m128i(load_16_bytes(a[1]), load_16_bytes(a[0]))
}

/// Eight words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_words(out: &mut [u32; 8], v: __m256i) {
    // SAFETY: `out` is 32 writable bytes; no alignment is needed.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) }
}

/// Eight words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_words(a: &[u32; 8]) -> __m256i {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(a.as_ptr().cast()) }
}

/// The first 32 bytes of at least as many.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_32_bytes(a: &[u8]) -> __m256i {
    load_bytes(a.first_chunk().expect("32 bytes"))
}

/// The first 32 activations of at least as many.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_32_i8(a: &[i8]) -> __m256i {
    load_i8(a.first_chunk().expect("32 activations"))
}

/// The first 16 bytes of at least as many.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_16_bytes(a: &[u8]) -> __m128i {
    let a: &[u8; 16] = a.first_chunk().expect("16 bytes");
    // SAFETY: `a` is 16 readable bytes; no alignment is needed.
    unsafe { _mm_loadu_si128(a.as_ptr().cast()) }
}

/// Block `b` of a row, of which eight are read side by side: each cache line about once.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn prefetch_block<const BYTES: usize>(block: &[u8; BYTES], b: usize) {
    if b.is_multiple_of((64 / BYTES).max(1)) {
        for line in 0..BYTES.max(64) / 64 {
            prefetch(&block[64 * line]);
        }
    }
}

/// Eight little-endian f16, widened.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_f16(a: &[u8; 16]) -> __m256 {
    // SAFETY: `a` is 16 readable bytes; no alignment is needed.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(a.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_halves(out: &mut [u8; 16], v: __m128i) {
    // SAFETY: `out` is 16 writable bytes; no alignment is needed.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), v) }
}

/// Into the first-level cache, [`AHEAD`] of `a`. A prefetch never faults, wherever it points.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn prefetch<T>(a: &T) {
    _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(a).cast::<i8>().wrapping_add(AHEAD));
}

/// Into the second-level cache: the first one is full of what is being multiplied.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn fetch(at: *const u8) {
    _mm_prefetch::<_MM_HINT_T1>(at.cast());
}

/// `tail` with zeros after it.
pub(super) fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [T; N] {
    let mut block = [T::default(); N];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load32(a: &[f32; 32]) -> Lanes {
    let a = a.as_chunks::<8>().0;
    [load(&a[0]), load(&a[1]), load(&a[2]), load(&a[3])]
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load32_f16(a: &[u8; 64]) -> Lanes {
    let a = a.as_chunks::<16>().0;
    [load_f16(&a[0]), load_f16(&a[1]), load_f16(&a[2]), load_f16(&a[3])]
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load32_f32(a: &[u8; 128]) -> Lanes {
    let a = a.as_chunks::<32>().0;
    let load = |i: usize| _mm256_castsi256_ps(load_bytes(&a[i]));
    [load(0), load(1), load(2), load(3)]
}

/// 32 little-endian bf16, widened: they are the high halves of f32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load32_bf16(a: &[u8; 64]) -> Lanes {
    let a = a.as_chunks::<16>().0;
    let load = |i: usize| {
        let halves = load_16_bytes(&a[i]);
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    };
    [load(0), load(1), load(2), load(3)]
}
