//! Every kernel of every instruction set gives the bits of scalar, and scalar gives what plain loops give. That the
//! checker finds what is wrong is in `kernel_faults.rs`.

use assay_engine::exact::exp::exp;
use assay_engine::kernels::acts::Order;
use assay_engine::kernels::check::{Plan, check_tables, operations};
use assay_engine::kernels::{Acts, Isa, Kernels, available, get, scalar};
use assay_engine::quant::{Format, i2s, qk256};
use assay_variables::REQUIRE_ISA;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Tables of this processor. A missing one is named where a person sees it, and fails if `REQUIRE_ISA` names it.
#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn tables() -> Vec<&'static Kernels> {
    for name in REQUIRE_ISA.read().expect("words") {
        let isa = Isa::parse(&name).expect("REQUIRE_ISA names instruction sets");
        assert!(get(isa).is_ok(), "REQUIRE_ISA names {name}, which this processor lacks");
    }
    for isa in Isa::ALL.into_iter().filter(|&isa| get(isa).is_err()) {
        eprintln!("skipped: no {isa} on this processor");
    }
    available()
}

#[test]
fn every_available_table_equals_scalar() {
    let mut seen = Vec::new();
    let checked = check_tables(&tables(), &Plan::default(), &mut |operation| seen.push(operation));
    let digests: Vec<_> = checked.into_iter().map(|found| found.unwrap_or_else(|e| panic!("{e}"))).collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "equal bits, equal digests");
    let names: Vec<_> = digests[0].iter().map(|report| report.operation).collect();
    assert_eq!((&names, &seen), (&operations().collect(), &operations().collect()));
    assert!(digests[0].iter().all(|report| report.cases >= 300));
}

#[test]
fn another_seed_gives_other_outputs_and_equal_bits() {
    let digests = |seed| {
        let plan = Plan { seed, random_cases: 0 };
        let checked = check_tables(&tables(), &plan, &mut |_| {});
        let all: Vec<_> = checked.into_iter().map(|found| found.expect("equal bits")).collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        all[0].clone()
    };
    for (a, b) in digests(2).iter().zip(&digests(3)) {
        // Only where what is returned is an index that the seed does not move is equality possible.
        assert_ne!(a.outputs_sha256, b.outputs_sha256, "{}", a.operation);
    }
}

/// The integer kernel against a decoder that shares nothing with it, and three loops.
#[test]
fn ternary_products_are_those_of_decoded_weights() {
    for cols in [1, 31, 32, 127, 128, 129, 255, 256, 257, 300, 384, 511, 512, 640, 1000, 2560] {
        for rows in [1, 3, 4, 6, 9] {
            let values: Vec<i8> =
                (0..rows * cols).map(|i| ((i * 7 + i / 251 + i / 13) % 3) as i8 - 1).collect();
            let q: Vec<i8> = (0..cols).map(|i| ((i * 37 + i / 256) % 256) as u8 as i8).collect();
            let mut encodings =
                vec![(Format::Qk256, qk256::encode(&values, cols, 1.0), qk256::row_bytes(cols))];
            if cols % 128 == 0 {
                encodings.push((Format::I2S, i2s::encode(&values, 1.0), cols / 4));
            }
            for (format, bytes, row_bytes) in encodings {
                let decoded = format.decode_ternary(&bytes, rows, cols).expect("a ternary format").values;
                let mut expected = vec![0_i64; rows];
                for r in 0..rows {
                    for c in 0..cols {
                        expected[r] += i64::from(decoded[r * cols + c]) * i64::from(q[c]);
                    }
                }
                for table in tables() {
                    let mut got = vec![i32::MIN; rows];
                    (table.gemv_i2s_i8)(
                        &bytes[..rows * row_bytes],
                        row_bytes,
                        &Acts::row(Order::I2S, q.clone(), 1.0),
                        &mut got,
                    );
                    let got: Vec<i64> = got.into_iter().map(i64::from).collect();
                    assert_eq!(got, expected, "{} {rows} x {cols} on {}", format.name(), table.isa);
                }
            }
        }
    }
}

/// `R32` written from the page of the contract: lane by lane, over a padded copy.
fn r32(mut a: Vec<f32>, mut b: Vec<f32>, step: fn(f32, f32, f32) -> f32) -> f32 {
    let padded = a.len().div_ceil(32) * 32;
    a.resize(padded, 0.0);
    b.resize(padded, 0.0);
    let mut lanes = [0.0; 32];
    for l in 0..32 {
        for i in (l..padded).step_by(32) {
            lanes[l] = step(a[i], b[i], lanes[l]);
        }
    }
    for s in [16, 8, 4, 2, 1] {
        for l in 0..s {
            lanes[l] += lanes[l + s];
        }
    }
    lanes[0]
}

#[test]
fn scalar_reductions_follow_the_page() {
    for n in [0, 1, 31, 32, 33, 63, 64, 65, 300, 1000] {
        let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37 - 9.1) * 1.1_f32.powi(i % 17)).collect();
        let b: Vec<f32> = (0..n).map(|i| (i as f32 * -0.73 + 2.3) / 1.3_f32.powi(i % 11)).collect();
        let dot = r32(a.clone(), b.clone(), f32::mul_add);
        assert_eq!((scalar::KERNELS.dot_f32)(&a, &b).to_bits(), dot.to_bits(), "dot of {n}");
        let sum = r32(a.clone(), b, |a, _, lane| lane + a);
        assert_eq!((scalar::KERNELS.sum_f32)(&a).to_bits(), sum.to_bits(), "sum of {n}");
    }
}

/// Runs `f` on memory that is one element short somewhere.
fn refuses(table: &Kernels, what: &str, f: impl Fn()) {
    assert!(
        catch_unwind(AssertUnwindSafe(f)).is_err(),
        "{} takes lengths that do not fit: {what}",
        table.isa
    );
}

#[test]
fn every_table_refuses_lengths_that_do_not_fit() {
    for k in tables() {
        let (w, f, acts) =
            (vec![0_u8; 1 << 12], vec![0.0_f32; 1 << 10], Acts::row(Order::I2S, vec![1; 256], 1.0));
        let (mut o, mut i) = (vec![0.0_f32; 1 << 10], vec![0_i32; 8]);
        let o = std::cell::RefCell::new((&mut o, &mut i));
        let out = |n: usize, run: &dyn Fn(&mut [f32])| run(&mut o.borrow_mut().0[..n]);
        let ints = |n: usize, run: &dyn Fn(&mut [i32])| run(&mut o.borrow_mut().1[..n]);
        refuses(k, "codes", || ints(3, &|o| (k.gemv_i2s_i8)(&w[..191], 64, &acts, o)));
        refuses(k, "more rows", || ints(3, &|o| (k.gemv_i2s_i8)(&w[..256], 64, &acts, o)));
        refuses(k, "block of codes", || ints(3, &|o| (k.gemv_i2s_i8)(&w[..180], 60, &acts, o)));
        refuses(k, "long rows", || ints(3, &|o| (k.gemv_i2s_i8)(&w[..384], 128, &acts, o)));
        refuses(k, "short rows", || ints(3, &|o| (k.gemv_i2s_i8)(&[], 0, &acts, o)));
        refuses(k, "rows that overflow", || {
            ints(2, &|o| (k.gemv_i2s_i8)(&[], 1 << (usize::BITS - 1), &acts, o))
        });
        refuses(k, "f16 weights", || out(4, &|o| (k.gemv_f16_f32)(&w[..2 * 4 * 33 - 1], &f[..33], o)));
        refuses(k, "f32 weights", || out(4, &|o| (k.gemv_f32_f32)(&w[..4 * 4 * 33 - 4], &f[..33], o)));
        refuses(k, "dot", || _ = (k.dot_f32)(&f[..32], &f[..33]));
        refuses(k, "norm weights", || out(33, &|o| (k.rms_norm)(&f[..33], &f[..32], 1e-5, o)));
        refuses(k, "norm input", || out(33, &|o| (k.rms_norm)(&f[..32], &f[..33], 1e-5, o)));
        refuses(k, "silu", || out(33, &|o| (k.silu_mul)(&f[..33], &f[..32], o)));
        refuses(k, "relu2", || out(33, &|o| (k.relu2_mul)(&f[..32], &f[..33], o)));
        refuses(k, "add", || out(33, &|o| (k.add_f32)(o, &f[..32])));
        refuses(k, "rope", || out(65, &|o| (k.rope_halves)(o, &f[..33], &f[..33])));
        refuses(k, "rope sin", || out(66, &|o| (k.rope_halves)(o, &f[..33], &f[..32])));
        refuses(k, "rope pairs", || out(65, &|o| (k.rope_pairs)(o, &f[..33], &f[..33])));
        refuses(k, "rope pairs sin", || out(66, &|o| (k.rope_pairs)(o, &f[..33], &f[..32])));
        refuses(k, "quantise", || _ = (k.quantise_i8)(&f[..33], &mut [0; 32]));
        refuses(k, "dequantise", || out(33, &|o| (k.dequantise_i32)(&[0; 32], 1.0, 1.0, o)));
        refuses(k, "narrow", || _ = (k.narrow_f16)(&f[..33], &mut [0; 65]));
        refuses(k, "widen", || out(33, &|o| (k.widen_f16)(&w[..67], o)));
        refuses(k, "weigh", || out(33, &|o| (k.weigh_f16)(&f[..5], &w[..2 * 5 * 33 - 2], 33, o)));
    }
}

/// All inputs of the exponential on every table, shared by two threads.
#[test]
#[ignore = "all 2^32 inputs: minutes"]
fn every_table_has_the_same_exponential_of_every_float() {
    const BLOCK: u32 = 1 << 16;
    // The scalar table runs the expected function itself.
    let tables: Vec<_> = tables().into_iter().filter(|table| table.isa != Isa::Scalar).collect();
    let part = |part: u32| {
        for block in (part..1 << 16).step_by(2) {
            let inputs: Vec<f32> = (0..BLOCK).map(|i| f32::from_bits(block * BLOCK + i)).collect();
            let expected: Vec<u32> = inputs.iter().map(|&x| exp(x).to_bits()).collect();
            for table in &tables {
                let mut got = inputs.clone();
                (table.exp_f32)(&mut got);
                for i in 0..inputs.len() {
                    let x = inputs[i].to_bits();
                    assert_eq!(got[i].to_bits(), expected[i], "exp of {x:#010x} on {}", table.isa);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| part(0));
        scope.spawn(|| part(1));
    });
}

/// A table may divide by other means than the division instruction: mantissas of a divisor all over their range, with
/// exponents that move through all that activations have.
#[test]
fn sums_are_divided_as_ieee_754_says() {
    for k in tables() {
        let mut out = [0.0; 16];
        for mantissa in (0..1_u32 << 23).step_by(31) {
            let s = f32::from_bits((127 - 20 + mantissa % 45) << 23 | mantissa);
            let acc: [i32; 16] = std::array::from_fn(|i| {
                (mantissa.wrapping_mul(2_654_435_761) ^ (i as u32).wrapping_mul(0x9e37_79b9)).cast_signed()
                    >> i
            });
            (k.dequantise_i32)(&acc, s, 1.0, &mut out);
            let right = acc.map(|acc| acc as f32 / s);
            assert_eq!(out.map(f32::to_bits), right.map(f32::to_bits), "{}: {acc:?} / {s:e}", k.isa);
        }
    }
}
