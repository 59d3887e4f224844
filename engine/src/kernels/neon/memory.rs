//! Loads and stores: every pointer of the NEON kernels. Lanes and tails on top of them.
#![expect(unsafe_code, reason = "loads and stores by pointer")]

use std::arch::aarch64::*;
use std::arch::asm;

/// 32 lanes: lane `l` is element `l % 4` of register `l / 4`.
pub(super) type Lanes = [float32x4_t; 8];

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load(a: &[f32; 4]) -> float32x4_t {
    // SAFETY: `a` is 16 readable bytes; no alignment beyond that of its elements is needed.
    unsafe { vld1q_f32(a.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store(out: &mut [f32; 4], v: float32x4_t) {
    // SAFETY: `out` is 16 writable bytes; no alignment beyond that of its elements is needed.
    unsafe { vst1q_f32(out.as_mut_ptr(), v) }
}

/// 16 bytes of codes or little-endian floats.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_bytes(a: &[u8; 16]) -> uint8x16_t {
    // SAFETY: `a` is 16 readable bytes; no alignment is needed.
    unsafe { vld1q_u8(a.as_ptr()) }
}

/// The first 16 bytes of at least as many.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_16_bytes(a: &[u8]) -> uint8x16_t {
    load_bytes(a.first_chunk().expect("16 bytes"))
}

/// The first 8 bytes of at least as many.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_8_bytes(a: &[u8]) -> uint8x8_t {
    let a: &[u8; 8] = a.first_chunk().expect("8 bytes");
    // SAFETY: `a` is 8 readable bytes; no alignment is needed.
    unsafe { vld1_u8(a.as_ptr()) }
}

/// The first 16 activations of at least as many.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_16_i8(a: &[i8]) -> int8x16_t {
    load_i8(a.first_chunk().expect("16 activations"))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i8(a: &[i8; 16]) -> int8x16_t {
    // SAFETY: `a` is 16 readable bytes; no alignment is needed.
    unsafe { vld1q_s8(a.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_i8(out: &mut [i8; 16], v: int8x16_t) {
    // SAFETY: `out` is 16 writable bytes; no alignment is needed.
    unsafe { vst1q_s8(out.as_mut_ptr(), v) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i32(a: &[i32; 4]) -> int32x4_t {
    // SAFETY: `a` is 16 readable bytes; no alignment beyond that of its elements is needed.
    unsafe { vld1q_s32(a.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_i32(out: &mut [i32; 4], v: int32x4_t) {
    // SAFETY: `out` is 16 writable bytes; no alignment beyond that of its elements is needed.
    unsafe { vst1q_s32(out.as_mut_ptr(), v) }
}

/// Four little-endian f16, widened.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_f16(a: &[u8; 8]) -> float32x4_t {
    // SAFETY: `a` is 8 readable bytes; no alignment is needed.
    vcvt_f32_f16(vreinterpret_f16_u8(unsafe { vld1_u8(a.as_ptr()) }))
}

/// Eight f16 as their little-endian bits.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_halves(out: &mut [u8; 16], v: uint16x8_t) {
    // SAFETY: `out` is 16 writable bytes; no alignment is needed.
    unsafe { vst1q_u8(out.as_mut_ptr(), vreinterpretq_u8_u16(v)) }
}

/// `tail` with zeros after it.
pub(super) fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [T; N] {
    let mut block = [T::default(); N];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load32(a: &[f32; 32]) -> Lanes {
    let a = a.as_chunks::<4>().0;
    let load = |i: usize| load(&a[i]);
    [load(0), load(1), load(2), load(3), load(4), load(5), load(6), load(7)]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load32_f16(a: &[u8; 64]) -> Lanes {
    let a = a.as_chunks::<8>().0;
    let load = |i: usize| load_f16(&a[i]);
    [load(0), load(1), load(2), load(3), load(4), load(5), load(6), load(7)]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load32_f32(a: &[u8; 128]) -> Lanes {
    let a = a.as_chunks::<16>().0;
    let load = |i: usize| vreinterpretq_f32_u8(load_bytes(&a[i]));
    [load(0), load(1), load(2), load(3), load(4), load(5), load(6), load(7)]
}

/// 32 little-endian bf16, widened: they are the high halves of f32.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load32_bf16(a: &[u8; 64]) -> Lanes {
    let a = a.as_chunks::<8>().0;
    let load = |i: usize| {
        let halves = vreinterpret_u16_u8(load_8_bytes(&a[i]));
        vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(halves)))
    };
    [load(0), load(1), load(2), load(3), load(4), load(5), load(6), load(7)]
}

/// Four words.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_words(a: &[u32; 4]) -> uint32x4_t {
    // SAFETY: `a` is 16 readable bytes; no alignment beyond that of its elements is needed.
    unsafe { vld1q_u32(a.as_ptr()) }
}

/// Four words.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_words(out: &mut [u32; 4], v: uint32x4_t) {
    // SAFETY: `out` is 16 writable bytes; no alignment beyond that of its elements is needed.
    unsafe { vst1q_u32(out.as_mut_ptr(), v) }
}

/// Four activations of eight tokens.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_tokens(a: &[[i8; 4]; 8]) -> [int32x4_t; 2] {
    let a = a.as_flattened();
    [vreinterpretq_s32_s8(load_16_i8(a)), vreinterpretq_s32_s8(load_16_i8(&a[16..]))]
}

/// A prefetch never faults, wherever it points.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn prefetch(at: *const u8) {
    // SAFETY: the instruction is a hint and changes no register.
    unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags)) }
}
