//! Sums of products of 8-bit integers without the dot product instructions (`plain`) or with them (`dot`): the same names in
//! each, so that a kernel is written once for both.
//!
//! [`plain::add`] sums in i16 until `widen`; beside each call stands why that does not overflow. In `dot` all sums are i32,
//! and no sum of a whole row leaves it, see [`crate::kernels::scalar`].

use std::arch::aarch64::*;
use std::arch::asm;

pub(super) mod plain {
    use super::*;

    /// Lanes that take two products of each register.
    pub(in super::super) type Sum = int16x8_t;

    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) fn zero() -> Sum {
        vdupq_n_s16(0)
    }

    /// `sum + Σ code · q`: `2 N` products in each lane.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) fn add<const N: usize>(
        mut sum: Sum,
        codes: [int8x16_t; N],
        acts: &[int8x16_t; N],
    ) -> Sum {
        for i in 0..N {
            sum = vmlal_s8(sum, vget_low_s8(codes[i]), vget_low_s8(acts[i]));
            sum = vmlal_high_s8(sum, codes[i], acts[i]);
        }
        sum
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) fn widen(total: int32x4_t, sum: Sum) -> int32x4_t {
        vpadalq_s16(total, sum)
    }

    /// `total + Σ a · b` of any values: one product, at most 128 · 128, in a lane of i16.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) fn add_any(total: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        let low = vpadalq_s16(total, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
        vpadalq_s16(low, vmull_high_s8(a, b))
    }
}

pub(super) mod dot {
    use super::*;

    /// Lanes that take four products of each register.
    pub(in super::super) type Sum = int32x4_t;

    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) fn zero() -> Sum {
        vdupq_n_s32(0)
    }

    /// `sum + Σ code · q`.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub(in super::super) fn add<const N: usize>(
        mut sum: Sum,
        codes: [int8x16_t; N],
        acts: &[int8x16_t; N],
    ) -> Sum {
        for i in 0..N {
            sum = add_any(sum, codes[i], acts[i]);
        }
        sum
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(in super::super) fn widen(total: int32x4_t, sum: Sum) -> int32x4_t {
        vaddq_s32(total, sum)
    }

    /// `sum_l + Σ_k a_{4l+k} · b_{4l+k}` for `k` in 0..4. In assembly: the intrinsic is not stable.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    #[expect(unsafe_code, reason = "one instruction of assembly")]
    pub(in super::super) fn add_any(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the instruction reads and writes the registers named and nothing else; whoever may call this has it.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }

    /// `sum_l + Σ_k a_{4l+k} · b_{4I+k}` for `k` in 0..4.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    #[expect(unsafe_code, reason = "one instruction of assembly")]
    pub(in super::super) fn add_lane<const I: usize>(
        mut sum: int32x4_t,
        a: int8x16_t,
        b: int8x16_t,
    ) -> int32x4_t {
        // SAFETY: as in `add_any`.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {a:v}.16b, {b:v}.4b[{i}]",
                sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b, i = const I,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }
}
