//! Half precision by arithmetic: f16 and bf16 read from bits, and numbers rounded to them.

/// `2^exponent`, exactly; `exponent` in −1022 … 1023, the normal numbers.
fn power_of_two(exponent: i32) -> f64 {
    assert!((-1022..=1023).contains(&exponent), "2^{exponent} is not a normal f64");
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// The value of an f16: a sign, five bits of exponent, ten of fraction.
///
/// ```text
/// bit 15   14 … 10    9 … 0
/// sign     exponent   fraction
/// exponent 0:   fraction * 2^-24;    31: infinity, or NaN with a fraction;   else (1024 + fraction) * 2^(exponent - 25)
/// ```
pub(crate) fn f16_value(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((bits >> 10) & 31);
    let fraction = f64::from(bits & 1023);
    match exponent {
        0 => sign * fraction * power_of_two(-24),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1024.0 + fraction) * power_of_two(exponent - 25),
    }
}

/// The value of a bf16: the upper half of an f32.
pub(crate) fn bf16_value(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// `x` rounded to the nearest f16, ties to even; infinity from 65520 on.
pub(crate) fn round_f16(x: f32) -> f64 {
    round_to(x, 10, -14, 65504.0)
}

/// `x` rounded to the nearest bf16, ties to even; infinity beyond the largest.
pub(crate) fn round_bf16(x: f32) -> f64 {
    round_to(x, 7, -126, bf16_value(0x7f7f))
}

/// `x` as the nearest multiple of `2^(e - fraction_bits)`, where `2^e <= |x| < 2^(e+1)`, and `e` is not below `lowest`: what
/// rounding to a binary format is. Exact, since `f64` has 29 bits more than `x`.
fn round_to(x: f32, fraction_bits: i32, lowest: i32, largest: f64) -> f64 {
    let x = f64::from(x);
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let e = ((x.abs().to_bits() >> 52) as i32 - 1023).max(lowest);
    let step = power_of_two(e - fraction_bits);
    let rounded = (x / step).round_ties_even() * step;
    if rounded.abs() > largest { f64::INFINITY.copysign(x) } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_half_precision_values() {
        let cases =
            [(0x0000, 0.0), (0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_953_125), (0x7bff, 65504.0)];
        for (bits, value) in cases {
            assert_eq!(f16_value(bits), value, "{bits:04x}");
        }
        assert_eq!(f16_value(0x0001), 5.960_464_477_539_063e-8);
        assert_eq!(f16_value(0x0400), 6.103_515_625e-5);
        assert!(f16_value(0x7c01).is_nan() && f16_value(0xfc00) == f64::NEG_INFINITY);
        assert_eq!(bf16_value(0x3f80), 1.0);
        assert_eq!(bf16_value(0xc049), -3.140_625);
    }

    /// The neighbours `low` and `low + 1` of a 16-bit format: both stay, and what lies between goes to the nearer one, at
    /// the middle to the even one.
    fn check_between(low: u16, value: fn(u16) -> f64, round: fn(f32) -> f64) {
        let (below, above) = (value(low), value(low + 1));
        let middle = ((below + above) / 2.0) as f32;
        let even = if low.is_multiple_of(2) { below } else { above };
        assert_eq!(round(below as f32), below, "{low:04x}");
        assert_eq!(round(-below as f32), -below, "{low:04x}");
        assert_eq!(round(middle), even, "{low:04x}");
        assert_eq!(round(middle.next_down()), below, "{low:04x}");
        assert_eq!(round(middle.next_up()), above, "{low:04x}");
    }

    #[test]
    fn every_f16_and_what_lies_between_two_of_them() {
        (0..0x7bff).for_each(|low| check_between(low, f16_value, round_f16));
    }

    #[test]
    fn every_bf16_and_what_lies_between_two_of_them() {
        (0..0x7f7f).for_each(|low| check_between(low, bf16_value, round_bf16));
    }

    #[test]
    fn what_is_too_large_becomes_infinity() {
        assert_eq!(round_f16(65519.996), 65504.0);
        assert_eq!(round_f16(65520.0), f64::INFINITY);
        assert_eq!(round_f16(-1e30), f64::NEG_INFINITY);
        assert_eq!(round_bf16(f32::MAX), f64::INFINITY);
        assert!(round_f16(f32::NAN).is_nan());
    }
}
