//! Loads, stores and tails: every pointer of this instruction set.
#![expect(unsafe_code, reason = "loads and stores by pointer")]

use super::floats::Lanes;
use std::arch::asm;
use std::arch::x86_64::*;

/// How far ahead in each stream of weights to prefetch, in bytes.
pub(super) const AHEAD: usize = 1024;

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(a: &[f32; 16]) -> __m512 {
    // SAFETY: `a` is 64 readable bytes; no alignment is needed.
    unsafe { _mm512_loadu_ps(a.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(out: &mut [f32; 16], v: __m512) {
    // SAFETY: `out` is 64 writable bytes; no alignment is needed.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
}

/// The first sixteen values at most; +0.0 where there are fewer.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_some(a: &[f32]) -> __m512 {
    // SAFETY: the mask is true for elements of `a` only; masked elements are not touched.
    unsafe { _mm512_maskz_loadu_ps(mask(a.len()), a.as_ptr()) }
}

/// Stores as many of the sixteen as `out` holds.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_some(out: &mut [f32], v: __m512) {
    // SAFETY: the mask is true for elements of `out` only; masked elements are not touched.
    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask(out.len()), v) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_some_i32(a: &[i32]) -> __m512i {
    // SAFETY: the mask is true for elements of `a` only; masked elements are not touched.
    unsafe { _mm512_maskz_loadu_epi32(mask(a.len()), a.as_ptr()) }
}

/// 64 bytes of codes or little-endian floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_bytes(a: &[u8; 64]) -> __m512i {
    // SAFETY: `a` is 64 readable bytes; no alignment is needed.
    unsafe { _mm512_loadu_si512(a.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i8(a: &[i8; 64]) -> __m512i {
    // SAFETY: `a` is 64 readable bytes; no alignment is needed.
    unsafe { _mm512_loadu_si512(a.as_ptr().cast()) }
}

/// The first 64 bytes at most; 0 where there are fewer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn load_some_bytes(a: &[u8]) -> __m512i {
    let mask = u64::MAX.checked_shr(64_u32.saturating_sub(a.len() as u32)).unwrap_or(0);
    // SAFETY: the mask is true for elements of `a` only; masked elements are not touched.
    unsafe { _mm512_maskz_loadu_epi8(mask, a.as_ptr().cast()) }
}

/// Sixteen little-endian f16, widened.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f16(a: &[u8; 32]) -> __m512 {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(a.as_ptr().cast()) })
}

/// The first sixteen f16 at most, widened; +0.0 where there are fewer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn load_some_f16(a: &[u8]) -> __m512 {
    // SAFETY: the mask is true for elements of `a` only, two bytes each; masked elements are not touched.
    _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask(a.len() / 2), a.as_ptr().cast()) })
}

/// Stores as many of the sixteen f16 as `out` holds.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn store_some_f16(out: &mut [u8], v: __m256i) {
    // SAFETY: the mask is true for elements of `out` only, two bytes each; masked elements are not touched.
    unsafe { _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), mask(out.len() / 2), v) }
}

/// Stores as many of the sixteen bytes as `out` holds.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn store_some_i8(out: &mut [i8], v: __m128i) {
    // SAFETY: the mask is true for elements of `out` only; masked elements are not touched.
    unsafe { _mm_mask_storeu_epi8(out.as_mut_ptr(), mask(out.len()), v) }
}

/// The first `n` of sixteen, or all.
#[inline]
pub(super) fn mask(n: usize) -> __mmask16 {
    ((1_u32 << n.min(16)) - 1) as __mmask16
}

/// Into the first-level cache, [`AHEAD`] of `a`. A prefetch never faults, wherever it points.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn prefetch<T>(a: &T) {
    _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(a).cast::<i8>().wrapping_add(AHEAD));
}

/// Into the second-level cache: the first one is full of what is being multiplied.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn fetch(at: *const u8) {
    _mm_prefetch::<_MM_HINT_T1>(at.cast());
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load32(a: &[f32; 32]) -> Lanes {
    let a = a.as_chunks::<16>().0;
    [load(&a[0]), load(&a[1])]
}

/// The first 32 values at most; +0.0 where there are fewer.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load32_some(a: &[f32]) -> Lanes {
    let (low, high) = a.split_at(a.len().min(16));
    [load_some(low), load_some(high)]
}

/// Sixteen i32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load16(a: &[i32; 16]) -> __m512i {
    // SAFETY: `a` is 64 readable bytes; no alignment is needed.
    unsafe { _mm512_loadu_si512(a.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store16(out: &mut [i32; 16], v: __m512i) {
    // SAFETY: `out` is 64 writable bytes; no alignment is needed.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
}

/// Sixteen bytes in each quarter.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_quarters(a: [&[u8; 16]; 4]) -> __m512i {
    let low = _mm512_castsi128_si512(load_16_bytes(a[0]));
    let low = _mm512_inserti32x4::<1>(low, load_16_bytes(a[1]));
    let low = _mm512_inserti32x4::<2>(low, load_16_bytes(a[2]));
    _mm512_inserti32x4::<3>(low, load_16_bytes(a[3]))
}

/// Sixteen words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_words(out: &mut [u32; 16], v: __m512i) {
    // SAFETY: `out` is 64 writable bytes; no alignment is needed.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
}

/// Sixteen words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_words(a: &[u32; 16]) -> __m512i {
    // SAFETY: `a` is 64 readable bytes; no alignment is needed.
    unsafe { _mm512_loadu_si512(a.as_ptr().cast()) }
}

/// The first 64 bytes of at least as many.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_64_bytes(a: &[u8]) -> __m512i {
    load_bytes(a.first_chunk().expect("64 bytes"))
}

/// The first 64 activations of at least as many.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_64_i8(a: &[i8]) -> __m512i {
    load_i8(a.first_chunk().expect("64 activations"))
}

/// The first 32 bytes of at least as many.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_32_bytes(a: &[u8]) -> __m256i {
    let a: &[u8; 32] = a.first_chunk().expect("32 bytes");
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(a.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_32_i8(a: &[i8; 32]) -> __m256i {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(a.as_ptr().cast()) }
}

/// The first 16 bytes of at least as many.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_16_bytes(a: &[u8]) -> __m128i {
    let a: &[u8; 16] = a.first_chunk().expect("16 bytes");
    // SAFETY: `a` is 16 readable bytes; no alignment is needed.
    unsafe { _mm_loadu_si128(a.as_ptr().cast()) }
}

/// `3 q mod 256` in every byte. In two additions: left alone, the compiler turns nine times and more into multiplications,
/// which take twice as long.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn thrice(q: __m512i) -> __m512i {
    let mut q = _mm512_add_epi8(q, _mm512_add_epi8(q, q));
    // SAFETY: no instruction; the register keeps its value.
    unsafe { asm!("/* {0} */", inout(zmm_reg) q, options(pure, nomem, nostack, preserves_flags)) };
    q
}

/// Block `b` of a row, of which sixteen are read side by side: each cache line about once.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn prefetch_block(block: &[u8], b: usize) {
    if b.is_multiple_of((64 / block.len()).max(1)) {
        for line in 0..block.len().max(64) / 64 {
            prefetch(&block[64 * line]);
        }
    }
}

/// Sixteen little-endian bf16, widened: they are the high halves of f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_bf16(a: &[u8; 32]) -> __m512 {
    let halves = load_32_bytes(a);
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
}
