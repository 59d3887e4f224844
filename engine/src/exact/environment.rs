//! The float environment: round to nearest, subnormals kept. Checked at start and on every worker thread.
#![expect(unsafe_code, reason = "reading the float control register takes one instruction of assembly")]

use crate::error::{Error, Result};
use std::hint::black_box;

/// What was read from the processor on one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatEnvironment {
    /// `mxcsr` (x86), `fpcr` (ARM), or `none` where there is no register to read.
    pub register: &'static str,
    /// Its value.
    pub value: u64,
    /// Rounds to nearest, ties to even.
    pub nearest: bool,
    /// Subnormal operands and results are kept.
    pub subnormals_kept: bool,
}

/// Bits of the register that break the contract: x86 MXCSR: FTZ (15), RC (14–13), DAZ (6);
/// ARM FPCR: AHP (26), FZ (24), RMode (23–22), FZ16 (19), and FIZ (0).
#[cfg(target_arch = "x86_64")]
const FORBIDDEN: u64 = 1 << 15 | 3 << 13 | 1 << 6;
#[cfg(target_arch = "aarch64")]
const FORBIDDEN: u64 = 1 << 26 | 1 << 24 | 3 << 22 | 1 << 19 | 1;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const FORBIDDEN: u64 = 0;

#[cfg(target_arch = "x86_64")]
fn control_register() -> (&'static str, u64) {
    let mut value = 0_u32;
    // SAFETY: `stmxcsr` stores 32 bits to the address given, which is that of a live u32.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    ("mxcsr", u64::from(value))
}

#[cfg(target_arch = "aarch64")]
fn control_register() -> (&'static str, u64) {
    let value: u64;
    // SAFETY: reading FPCR has no side effect and is allowed in user mode.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
    ("fpcr", value)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn control_register() -> (&'static str, u64) {
    ("none", 0)
}

/// Reads the register and tries what it should mean: 1 + 2^-24 and 1 + 3·2^-24 (ties to even both ways, and towards
/// zero or infinity in the other modes), a subnormal result and a subnormal operand.
pub fn read() -> FloatEnvironment {
    let (register, value) = control_register();
    let half_ulp = black_box(f32::EPSILON / 2.0);
    let nearest = |sign: f32| {
        let one = black_box(sign);
        one + sign * half_ulp == one && one + sign * 3.0 * half_ulp == sign * (1.0 + 2.0 * f32::EPSILON)
    };
    let smallest = black_box(f32::MIN_POSITIVE);
    let result = black_box(smallest * black_box(0.5));
    let operand = black_box(f32::from_bits(black_box(0x0040_0000)));
    FloatEnvironment {
        register,
        value,
        nearest: nearest(1.0) && nearest(-1.0),
        subnormals_kept: result.to_bits() == 0x0040_0000 && (operand * black_box(2.0)) == smallest,
    }
}

/// Refuses an environment that breaks the contract, on the calling thread.
///
/// # Errors
/// - [`Error::FloatEnvironment`] with the register, its value and what is wrong.
pub fn check() -> Result<FloatEnvironment> {
    let found = read();
    let problem = if !found.nearest {
        "results are not rounded to nearest"
    } else if !found.subnormals_kept {
        "subnormals are flushed to zero (ftz-on)"
    } else if found.value & FORBIDDEN != 0 {
        "a control bit changes float results"
    } else {
        return Ok(found);
    };
    let thread = std::thread::current().name().unwrap_or("a worker thread").to_owned();
    Err(Error::FloatEnvironment { thread, problem, register: found.register, value: found.value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_environment_passes() {
        let found = check().expect("Rust starts threads with round-to-nearest and subnormals kept");
        assert!(found.nearest && found.subnormals_kept);
    }

    /// Runs `body` with `bits` set in MXCSR, and restores it.
    #[cfg(target_arch = "x86_64")]
    fn with_mxcsr_bits<T>(bits: u32, body: impl FnOnce() -> T) -> T {
        let set = |value: u32| {
            // SAFETY: `ldmxcsr` loads 32 bits from a live u32; only flags and rounding change, and are restored.
            unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack)) };
        };
        let before = control_register().1 as u32;
        set(before | bits);
        let result = body();
        set(before);
        result
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn every_forbidden_bit_is_found_by_behaviour_and_by_register() {
        for (bit, subnormals_kept, nearest) in
            [(15, false, true), (6, false, true), (13, true, false), (14, true, false)]
        {
            let (found, checked) = with_mxcsr_bits(1 << bit, || (read(), check()));
            assert_eq!((found.subnormals_kept, found.nearest), (subnormals_kept, nearest), "MXCSR bit {bit}");
            assert!(matches!(checked, Err(Error::FloatEnvironment { .. })), "MXCSR bit {bit}");
        }
    }

    /// Runs `body` with `bits` set in FPCR, and restores it.
    #[cfg(target_arch = "aarch64")]
    fn with_fpcr_bits<T>(bits: u64, body: impl FnOnce() -> T) -> T {
        let set = |value: u64| {
            // SAFETY: only the float arithmetic of this thread changes, and is restored.
            unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nostack)) };
        };
        let before = control_register().1;
        set(before | bits);
        let result = body();
        set(before);
        result
    }

    /// FZ16 and FIZ exist on some processors only; where they do not, the register does not keep them.
    #[test]
    #[cfg(target_arch = "aarch64")]
    fn every_forbidden_bit_is_found_by_behaviour_and_by_register() {
        for (bit, subnormals_kept, nearest) in
            [(24, false, true), (22, true, false), (23, true, false), (26, true, true)]
        {
            let (found, checked) = with_fpcr_bits(1 << bit, || (read(), check()));
            assert_eq!((found.subnormals_kept, found.nearest), (subnormals_kept, nearest), "FPCR bit {bit}");
            assert!(matches!(checked, Err(Error::FloatEnvironment { .. })), "FPCR bit {bit}");
        }
    }
}
