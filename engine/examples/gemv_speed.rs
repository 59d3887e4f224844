//! Speed of the ternary GEMV for every table of this processor, one thread, in cache and streaming from memory.
//!
//! ```text
//! cargo run --release -p assay-engine --example gemv_speed [rounds]
//! ```
//!
//! The tables take turns within each round, so that what else the machine does meets all of them; the answers are asserted
//! equal before anything is timed. GB/s are bytes of weights, with 10^9.
#![expect(clippy::print_stdout, reason = "a measuring tool prints what it measured")]

use assay_engine::kernels::acts::Order;
use assay_engine::kernels::{Acts, Kernels, available};
use std::hint::black_box;
use std::time::Instant;

const COLS: usize = 2560;
const ROW_BYTES: usize = COLS / 4;
/// Rows of one call: the FFN of the 2B model.
const ROWS: usize = 6912;

/// Nanoseconds of each round.
struct Samples(Vec<f64>);

impl Samples {
    fn sorted(mut self) -> Self {
        self.0.sort_by(f64::total_cmp);
        self
    }

    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// `x per nanosecond` as `median (slowest – fastest)`.
    fn rate(&self, x: f64) -> String {
        let (fastest, slowest) = (self.0[0], self.0[self.0.len() - 1]);
        format!("{:7.2} ({:6.2} – {:6.2})", x / self.median(), x / slowest, x / fastest)
    }
}

/// Bytes with codes 0, 1, 2 only, from a fixed sequence.
fn codes(n: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let bits = (state >> 24) as u8;
        bits & !(bits >> 1 & 0x55)
    };
    (0..n).map(next).collect()
}

fn gemv(table: &Kernels, codes: &[u8], x: &Acts, out: &mut [i32]) {
    for (codes, out) in codes.chunks(ROWS * ROW_BYTES).zip(out.chunks_mut(ROWS)) {
        (table.gemv_i2s_i8)(black_box(codes), ROW_BYTES, x, out);
    }
}

/// What merely reading the bytes takes.
fn read(codes: &[u8]) -> u64 {
    codes.as_chunks::<8>().0.iter().fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word))
}

fn measure(name: &str, rows: usize, repeats: usize, rounds: usize) {
    let tables = available();
    let codes = codes(rows * ROW_BYTES);
    let q: Vec<i8> = (0..COLS).map(|i| (i * 37 % 255) as i8).collect();
    let x = Acts::row(Order::I2S, q.clone(), 1.0);
    let mut expected = vec![0; rows];
    gemv(tables[0], &codes, &x, &mut expected);

    let mut out = vec![0; rows];
    for table in &tables {
        out.fill(i32::MIN);
        gemv(table, &codes, &x, &mut out);
        assert_eq!(out, expected, "{} gives another answer", table.isa);
    }
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); tables.len() + 1];
    let time = |samples: &mut Vec<f64>, repeats: usize, work: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..repeats).for_each(|_| work());
        samples.push(start.elapsed().as_nanos() as f64 / repeats as f64);
    };
    for _ in 0..rounds {
        for (table, samples) in tables.iter().zip(&mut samples) {
            time(samples, repeats, &mut || gemv(table, &codes, &x, &mut out));
        }
        time(&mut samples[tables.len()], repeats, &mut || {
            black_box(read(black_box(&codes)));
        });
    }

    let samples: Vec<Samples> = samples.into_iter().map(|s| Samples(s).sorted()).collect();
    let (macs, bytes) = ((rows * COLS) as f64, codes.len() as f64);
    println!("{name}: {rows} x {COLS}, {:.1} MB, {rounds} rounds", bytes / 1e6);
    println!("{:12} {:28} {:28} times scalar", "", "GMAC/s (spread)", "GB/s (spread)");
    for (table, s) in tables.iter().zip(&samples) {
        let ratio = samples[0].median() / s.median();
        println!("{:12} {:28} {:28} {ratio:6.1}", table.isa.name(), s.rate(macs), s.rate(bytes));
    }
    println!("{:12} {:28} {:28}", "read only", "", samples[tables.len()].rate(bytes));
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(9_usize).max(1);
    measure("in cache", 1280, 20, rounds);
    measure("streaming", 48 * ROWS, 1, rounds);
}
