//! What a core can do at most: bare loops of multiply-adds and of reads, to hold kernels against.
//!
//! A kernel cannot be faster than these, so its share of them says how much is left. They are measured in the same
//! interleaved run as the kernels, because a shared machine's peak changes from minute to minute.

use super::Isa;
#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Streams that [`Probe::read`] can take side by side.
pub const STREAMS: [usize; 4] = [1, 2, 4, 8];

/// Distances in bytes at which [`Probe::read`] can prefetch; 0: not at all.
pub const AHEAD: [usize; 3] = [0, 2048, 5120];

/// The loops of one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// The instruction set.
    pub isa: Isa,
    /// Does nothing but 8-bit multiply-adds in registers, `rounds` times as many as fit; returns how many they were.
    pub multiply_adds: fn(rounds: usize) -> u64,
    /// Reads all of `bytes` in one of [`STREAMS`], and returns a number that depends on each of them, so that nothing is
    /// left out. What does not divide by 64 times the streams is not read.
    pub read: fn(bytes: &[u8], streams: usize, ahead: usize) -> u64,
}

/// The loops of an instruction set; `None` where this processor lacks it, or there is no loop for it.
pub fn get(isa: Isa) -> Option<Probe> {
    super::get(isa).ok()?;
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(avx2::probe()),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bw => Some(avx512::probe_bw()),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => Some(avx512::probe_vnni()),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(neon::probe()),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => Some(neon::probe_dot()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_whatever_the_streams() {
        for probe in Isa::ALL.into_iter().filter_map(get) {
            let mut bytes: Vec<u8> = (0..64 * 64).map(|i| (i * 7 % 251) as u8).collect();
            for streams in STREAMS {
                let read = |bytes: &[u8]| (probe.read)(bytes, streams, AHEAD[1]);
                let before = read(&bytes);
                for at in [0, 63, 64, 511, 512, 2047, 2048, 4095] {
                    bytes[at] ^= 16;
                    assert_ne!(read(&bytes), before, "byte {at}, {streams} streams, {}", probe.isa);
                    bytes[at] ^= 16;
                }
            }
            assert!((probe.multiply_adds)(3) > (probe.multiply_adds)(2));
        }
    }
}
