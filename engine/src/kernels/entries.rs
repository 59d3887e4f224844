//! Which entries of a table are its own. A receipt names the kernel that ran, and a scalar one in a wide table is no wide one.

use super::{Isa, Kernels, scalar};

macro_rules! entries {
    ($($name:ident)+) => {
        /// The name of every entry of a table.
        pub const ENTRIES: &[&str] = &[$(stringify!($name)),+];

        /// Whether two tables have the same function under a name; false for a name that is none.
        fn share(a: &Kernels, b: &Kernels, name: &str) -> bool {
            // The compiler asks for an entry that is missing here.
            let Kernels { isa: _, $($name: _),+ } = a;
            match name {
                $(stringify!($name) => a.$name as usize == b.$name as usize,)+
                _ => false,
            }
        }
    };
}

entries! {
    gemv_i2s_i8 gemm_i2s_i8 gemv_pm2_i8 gemm_pm2_i8 gemv_r4_i8 gemm_r4_i8 gemv_t5_i8 gemm_t5_i8
    gemv_bitnet32_i8 gemm_bitnet32_i8 gemv_tq1_0_q8_k gemm_tq1_0_q8_k gemv_tq2_0_q8_k gemm_tq2_0_q8_k
    gemv_q2_0_q8_0 gemm_q2_0_q8_0 gemv_q8_0_q8_0 gemm_q8_0_q8_0 gemv_q4_0_q8_0 gemm_q4_0_q8_0
    gemv_q4_1_q8_1 gemm_q4_1_q8_1 gemv_q6_k_q8_k gemm_q6_k_q8_k
    gemv_f16_f32 gemm_f16_f32 gemv_bf16_f32 gemm_bf16_f32 gemv_f32_f32 gemm_f32_f32
    dot_f32 sum_f32 max_f32 find_non_finite rms_norm exp_f32 silu_mul relu2_mul softmax scale_f32 add_f32
    rope_halves rope_pairs quantise_i8 quantise_q8_k quantise_q8_0 quantise_q8_1 dequantise_i32
    narrow_f16 widen_f16 round_bf16 weigh_f16
}

impl Kernels {
    /// The instruction set of an entry, by its name: that of the table, or scalar where the table borrows it.
    pub fn isa_of(&self, entry: &str) -> Isa {
        if share(self, &scalar::KERNELS, entry) { Isa::Scalar } else { self.isa }
    }

    /// The entries that this table borrows from scalar.
    pub fn borrowed(&self) -> Vec<&'static str> {
        let is_own = |entry: &&str| self.isa_of(entry) == self.isa;
        ENTRIES.iter().copied().filter(|entry| !is_own(entry)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::available;

    #[test]
    fn no_table_borrows_from_scalar() {
        for table in available() {
            assert_eq!(table.borrowed(), Vec::<&str>::new(), "{}", table.isa);
        }
    }

    #[test]
    fn what_a_table_borrows_is_named() {
        let other = Kernels { isa: Isa::Avx2, ..scalar::KERNELS };
        assert_eq!(other.borrowed(), ENTRIES);
        let nothing: fn(&mut [f32]) = |_| ();
        let other = Kernels { softmax: nothing, ..other };
        assert!(!other.borrowed().contains(&"softmax"));
        assert_eq!((other.isa_of("softmax"), other.isa_of("add_f32")), (Isa::Avx2, Isa::Scalar));
    }
}
