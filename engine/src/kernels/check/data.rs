//! What kernels are tried on: ChaCha20, mapped to values here (never by a distribution of a library, whose draws may
//! change between releases), and memory with traps around it.

use half::f16;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Lengths that bracket the boundaries inside kernels: registers, rounds of 32, tiles, chunks of 256.
pub const SIZES: [usize; 35] = [
    0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 95, 96, 97, 127, 128, 129, 255, 256, 257,
    300, 384, 511, 512, 513, 640, 768, 1000, 2560,
];

/// Numbers of rows: below, at and above every group that a kernel may take together.
pub const ROWS: [usize; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33];

/// Kinds of float data. All are finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Floats {
    /// Magnitudes 2^-7 … 2^2, full mantissas.
    Ordinary,
    /// Magnitudes 2^-60 … 2^60 with subnormals and ±0 among them: sums cancel, nothing overflows.
    Mixed,
    /// Every finite bit pattern: sums and products overflow.
    Full,
    /// Period 251: two groups of any size differ.
    Period251,
    /// Period 3, with both signs.
    Period3,
    /// +0 and −0.
    Zeros,
    /// Only −0: the sign of a sum that does not start from +0.
    MinusZeros,
    /// Products vanish, also with the smallest f16: −0 where the padding of a reduction is not executed.
    Tiny,
    /// Small values and one a million times larger.
    Outlier,
}

impl Floats {
    pub(super) const ALL: [Floats; 9] = [
        Floats::Ordinary,
        Floats::Mixed,
        Floats::Full,
        Floats::Period251,
        Floats::Period3,
        Floats::Zeros,
        Floats::MinusZeros,
        Floats::Tiny,
        Floats::Outlier,
    ];
}

/// Kinds of ternary data: codes, and the activations that go with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// Codes of period 3, activations of period 251.
    Periods,
    /// Every code is this, every activation is that: the largest sums, where a narrow accumulator overflows.
    Constant(u8, i8),
    /// Code 2 meets 127 and code 0 meets −128 in turn.
    Alternating,
    /// Any byte, any activation.
    Random,
}

impl Codes {
    pub(super) const ALL: [Codes; 9] = [
        Codes::Periods,
        Codes::Constant(2, -128),
        Codes::Constant(2, 127),
        Codes::Constant(0, -128),
        Codes::Constant(0, 127),
        Codes::Constant(3, -128),
        Codes::Constant(3, 127),
        Codes::Alternating,
        Codes::Random,
    ];
}

/// A source of data, one for each case: also for checks of kernels from outside.
#[derive(Debug)]
pub struct Data(ChaCha20Rng);

impl Data {
    /// Stream `case` of an operation under a seed.
    pub fn new(seed: u64, operation: &str, case: u64) -> Data {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        for (key, byte) in key[8..].iter_mut().zip(operation.bytes()) {
            *key = byte;
        }
        let mut rng = ChaCha20Rng::from_seed(key);
        rng.set_stream(case);
        Data(rng)
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number below `n`, by multiplication.
    pub fn below(&mut self, n: u32) -> usize {
        ((u64::from(self.u32()) * u64::from(n)) >> 32) as usize
    }

    /// One of them, each as likely.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32)]
    }

    /// Random sign and mantissa, magnitude in `2^low … 2^(high + 1)`.
    fn float(&mut self, low: i32, high: i32) -> f32 {
        let bits = self.u32();
        let exponent = low + self.below((high - low + 1).cast_unsigned()) as i32;
        f32::from_bits(bits & 0x807f_ffff | ((127 + exponent) as u32) << 23)
    }

    fn zero(&mut self) -> f32 {
        f32::from_bits(self.u32() & 0x8000_0000)
    }

    fn mixed(&mut self) -> f32 {
        match self.below(8) {
            0 => self.zero(),
            1 => f32::from_bits(self.u32() & 0x807f_ffff),
            _ => self.float(-60, 60),
        }
    }

    fn full(&mut self) -> f32 {
        let bits = self.u32();
        let v = f32::from_bits(bits);
        if v.is_finite() { v } else { f32::from_bits(bits & 0x807f_ffff) }
    }

    pub(super) fn floats(&mut self, kind: Floats, n: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..n).map(|i| self.element(kind, i)).collect();
        if kind == Floats::Outlier && n > 0 {
            let at = self.below(n as u32);
            values[at] *= 1e6;
        }
        values
    }

    fn element(&mut self, kind: Floats, i: usize) -> f32 {
        match kind {
            Floats::Ordinary | Floats::Outlier => self.float(-7, 1),
            Floats::Mixed => self.mixed(),
            Floats::Full => self.full(),
            Floats::Period251 => ((i % 251) as f32 - 125.3) / 16.0,
            Floats::Period3 => [-1.5, 0.3, 2.75][i % 3],
            Floats::Zeros => self.zero(),
            Floats::MinusZeros => -0.0,
            Floats::Tiny => -f32::from_bits(1 + self.below(512) as u32),
        }
    }

    /// The partner of [`Data::floats`] in a product: the other period, the other sign.
    pub(super) fn partners(&mut self, kind: Floats, n: usize) -> Vec<f32> {
        match kind {
            Floats::Period251 => self.floats(Floats::Period3, n),
            Floats::Period3 => self.floats(Floats::Period251, n),
            Floats::Zeros => self.floats(Floats::Ordinary, n),
            Floats::MinusZeros => self.floats(Floats::Ordinary, n).iter().map(|v| v.abs()).collect(),
            Floats::Tiny => self.floats(kind, n).iter().map(|v| -v).collect(),
            _ => self.floats(kind, n),
        }
    }

    /// Little-endian f16, finite.
    pub(super) fn halves(&mut self, kind: Floats, n: usize) -> Vec<u8> {
        let half = |data: &mut Data, i: usize| match kind {
            Floats::Mixed | Floats::Full => {
                let h = f16::from_bits(data.u32() as u16);
                if h.is_finite() { h } else { f16::from_bits(h.to_bits() & 0x83ff) }
            }
            Floats::Tiny => f16::from_bits(0x8001),
            _ => f16::from_f32(data.element(kind, i)),
        };
        (0..n).flat_map(|i| half(self, i).to_le_bytes()).collect()
    }

    /// `rows * row_bytes` code bytes.
    pub(super) fn codes(&mut self, kind: Codes, rows: usize, row_bytes: usize) -> Vec<u8> {
        let byte = |data: &mut Data, r: usize, i: usize| match kind {
            // The fields of a byte, the halves of a tile and the rows are out of step with each other.
            Codes::Periods => {
                (0..4).fold(0, |byte, f| byte << 2 | ((i + i / 32 + (i / 3 + 2) * f + r) % 3) as u8)
            }
            Codes::Constant(code, _) => code * 0b01_01_01_01,
            Codes::Alternating => [0b10_10_10_10, 0][i % 2],
            Codes::Random => data.u32() as u8,
        };
        (0..rows * row_bytes).map(|i| byte(self, i / row_bytes.max(1), i % row_bytes.max(1))).collect()
    }

    pub(super) fn acts(&mut self, kind: Codes, n: usize) -> Vec<i8> {
        let act = |data: &mut Data, i: usize| match kind {
            Codes::Periods => ((i % 251) as i32 - 125) as i8,
            Codes::Constant(_, act) => act,
            Codes::Alternating => [127, -128][i % 2],
            Codes::Random => data.u32() as i8,
        };
        (0..n).map(|i| act(self, i)).collect()
    }
}

/// Inputs of the exponential: every sign and exponent with edges of the mantissa and random ones, both sides of every tie
/// of `rint(x log2 e)`, the range of use, and NaN.
pub(super) fn exp_sweep(data: &mut Data) -> Vec<f32> {
    let edges = [0, 1, 2, 0x3f_ffff, 0x40_0000, 0x40_0001, 0x7f_fffe, 0x7f_ffff];
    let mut bits = vec![0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffbf_ffff];
    for high in 0..512 {
        bits.extend(edges.map(|low| high << 23 | low));
        bits.extend((0..24).map(|_| high << 23 | data.u32() & 0x7f_ffff));
    }
    for k in -128..128 {
        let tie = ((f64::from(k) + 0.5) * std::f64::consts::LN_2) as f32;
        bits.extend((-4..=4).map(|d| tie.to_bits().wrapping_add_signed(d)));
    }
    let mut values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
    values.extend((0..10_000).map(|_| data.below(1 << 24) as f32 * (180.0 / 16_777_216.0) - 90.0));
    values
}

/// A value as bits, with a pattern that marks memory nobody has written.
pub(super) trait Bits: Copy {
    const POISON: Self;
    /// A type of floats, among which every NaN but the poison is equal.
    const FLOAT: bool = false;
    fn bits(self) -> u64;
}

impl Bits for f32 {
    const POISON: f32 = f32::from_bits(0x7fe5_a5a5);
    const FLOAT: bool = true;
    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Bits for i32 {
    const POISON: i32 = 0x5ea5_a5a5;
    fn bits(self) -> u64 {
        u64::from(self.cast_unsigned())
    }
}

impl Bits for i8 {
    const POISON: i8 = -91;
    fn bits(self) -> u64 {
        u64::from(self.cast_unsigned())
    }
}

impl Bits for u8 {
    const POISON: u8 = 0xff;
    fn bits(self) -> u64 {
        u64::from(self)
    }
}

impl Bits for () {
    const POISON: () = ();
    fn bits(self) -> u64 {
        0
    }
}

/// An index, or `u64::MAX` for none.
impl Bits for Option<usize> {
    const POISON: Option<usize> = Some(usize::MAX - 1);
    fn bits(self) -> u64 {
        self.map_or(u64::MAX, |i| i as u64)
    }
}

/// Values with poison before and after them: what is read outside shows in the result, what is written outside in the
/// poison.
pub(super) struct Guarded<T> {
    memory: Vec<T>,
    at: usize,
    len: usize,
}

impl<T: Bits> Guarded<T> {
    const GUARD: usize = 64;

    /// `offset` elements away from alignment.
    pub(super) fn new(values: &[T], offset: usize) -> Guarded<T> {
        let at = Self::GUARD + offset;
        let mut memory = vec![T::POISON; at];
        memory.extend_from_slice(values);
        memory.resize(memory.len() + Self::GUARD, T::POISON);
        Guarded { memory, at, len: values.len() }
    }

    pub(super) fn inner(&self) -> &[T] {
        &self.memory[self.at..][..self.len]
    }

    pub(super) fn inner_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.at..][..self.len]
    }

    /// Place, relative to the first element, and value of the first guard that has been written.
    pub(super) fn broken(&self) -> Option<(i64, T)> {
        let inside = self.at..self.at + self.len;
        let at = (0..self.memory.len())
            .find(|i| !inside.contains(i) && self.memory[*i].bits() != T::POISON.bits())?;
        Some((at as i64 - self.at as i64, self.memory[at]))
    }
}
