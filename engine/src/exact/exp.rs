//! The exponential of the contract: Cephes' `expf` polynomial with every rounding fixed.
//!
//! 1.01 ulp at worst; the same bits from every instruction set over all 2^32 inputs. The constants are here once,
//! for scalar and SIMD alike.

/// log2(e), rounded to f32 (`0x1.715476p0`).
pub const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
/// High part of ln 2: exact in 10 bits, so `k * LN2_HIGH` is exact.
pub const LN2_HIGH: f32 = f32::from_bits(0x3f31_8000); // 0.693359375
/// Low part of ln 2 (negative: the high part is rounded up).
pub const LN2_LOW: f32 = f32::from_bits(0xb95e_8083); // -2.12194440e-4
/// Smallest argument; below it the result is `exp(-87)`.
pub const MIN: f32 = -87.0;
/// Largest argument; above it the result is `exp(88.37)`.
pub const MAX: f32 = 88.37;
/// Polynomial in Horner's order, highest power first: the f32 values of the contract's decimals, by their bits.
pub const POLYNOMIAL: [f32; 6] = [
    f32::from_bits(0x3950_6967), // 1.9875691500e-04
    f32::from_bits(0x3ab7_43ce), // 1.3981999507e-03
    f32::from_bits(0x3c08_8908), // 8.3334519073e-03
    f32::from_bits(0x3d2a_a9c1), // 4.1665795894e-02
    f32::from_bits(0x3e2a_aaaa), // 1.6666665459e-01
    f32::from_bits(0x3f00_0000), // 5.0000001201e-01
];

/// `exp(x)`:
/// clamp to [−87, 88.37]; `k = rint(x log2 e)`, ties to even; `r = x − k ln 2` in two fused steps; `p` by Horner with
/// fma; `y = fma(p, r², r) + 1`; times `2^k` by exponent bits. NaN gives the canonical NaN.
#[inline]
pub fn exp(x: f32) -> f32 {
    if x.is_nan() {
        return f32::from_bits(0x7fc0_0000);
    }
    let x = x.clamp(MIN, MAX);
    let k = (x * LOG2_E).round_ties_even();
    let r = (-k).mul_add(LN2_HIGH, x);
    let r = (-k).mul_add(LN2_LOW, r);
    let p = POLYNOMIAL[1..].iter().fold(POLYNOMIAL[0], |p, &c| p.mul_add(r, c));
    let y = p.mul_add(r * r, r) + 1.0;
    // y is in [0.70, 1.42] and k in [-126, 127]; where k = -126, y > 1: the exponent stays in the normal range.
    f32::from_bits(y.to_bits().wrapping_add_signed((k as i32) << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_those_of_the_contract() {
        assert_eq!(LOG2_E.to_bits(), 0x3fb8_aa3b);
        let contract: [f64; 6] = [
            1.9875691500e-4,
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ];
        assert_eq!(POLYNOMIAL, contract.map(|c| c as f32));
        assert_eq!(LN2_LOW, -2.12194440e-4_f64 as f32);
        assert_eq!(f64::from(LN2_HIGH), 0.693359375);
    }

    #[test]
    fn a_sweep_is_within_two_ulp_of_f64() {
        for i in 0..200_000_u32 {
            let x = -87.0 + i as f32 * (175.0 / 200_000.0);
            let (got, want) = (exp(x), libm::exp(f64::from(x)));
            let ulp = f64::from(f32::from_bits((want as f32).to_bits() + 1)) - f64::from(want as f32);
            assert!((f64::from(got) - want).abs() <= 2.0 * ulp, "exp({x}) = {got}, want {want}");
        }
    }

    #[test]
    fn edges_are_finite_and_fixed() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert_eq!(exp(f32::INFINITY), exp(88.37));
        assert!(exp(88.37).is_finite() && exp(-87.0).is_normal());
        assert_eq!(exp(f32::NAN).to_bits(), 0x7fc0_0000);
        assert_eq!(exp(-f32::NAN).to_bits(), 0x7fc0_0000);
    }
}
