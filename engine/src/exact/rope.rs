//! RoPE tables: made once per model in f64 and rounded once, so that no backend computes an angle itself.

use sha2::{Digest, Sha256};

/// cos and sin of every angle, `(positions, half)` row-major each, where `half = rotated dimensions / 2`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// `theta_i = position * base^(-2i/d) / factor_i` for `i < d/2`, in f64 with `libm`; cos and sin rounded to f32.
    ///
    /// `d` is the number of rotated dimensions of a head; `factors` is the file's `rope_freqs` tensor (`d/2` values), 1
    /// where it is absent.
    ///
    /// # Panics
    /// - if `factors` is given with another length than `d / 2`.
    pub fn new(positions: usize, d: usize, base: f32, factors: Option<&[f32]>) -> RopeTable {
        let half = d / 2;
        assert!(factors.is_none_or(|f| f.len() == half), "one RoPE factor for each of {half} pairs");
        let frequency = |i: usize| {
            let exponent = -((2 * i) as f64) / d as f64;
            libm::pow(f64::from(base), exponent)
        };
        let frequencies: Vec<f64> = (0..half).map(frequency).collect();
        let (mut cos, mut sin) = (Vec::with_capacity(positions * half), Vec::with_capacity(positions * half));
        for position in 0..positions {
            for i in 0..half {
                let theta = position as f64 * frequencies[i] / factors.map_or(1.0, |f| f64::from(f[i]));
                cos.push(libm::cos(theta) as f32);
                sin.push(libm::sin(theta) as f32);
            }
        }
        RopeTable { half, cos, sin }
    }

    /// `(cos, sin)` of a position, `half` values each.
    ///
    /// # Panics
    /// - if the position is outside the table.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }

    /// SHA-256 over all cos, then all sin, as little-endian f32. It goes into every receipt.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for value in self.cos.iter().chain(&self.sin) {
            hash.update(value.to_le_bytes());
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_0_turns_nothing() {
        let table = RopeTable::new(2, 48, 10_000.0, None);
        assert_eq!(table.at(0), (&[1.0; 24][..], &[0.0; 24][..]));
        assert_eq!(table.at(1).0[0], libm::cos(1.0) as f32);
    }

    #[test]
    fn factors_divide_the_angle() {
        let plain = RopeTable::new(9, 4, 10_000.0, None);
        let halved = RopeTable::new(9, 4, 10_000.0, Some(&[2.0, 4.0]));
        assert_eq!(halved.at(8).1[0], plain.at(4).1[0]);
        assert_eq!(halved.at(8).1[1], plain.at(2).1[1]);
        assert_ne!(plain.digest(), halved.digest());
    }
}
