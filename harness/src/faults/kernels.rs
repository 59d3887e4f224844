//! Faulty kernels, written from the descriptions of the bugs, apart from the engine's own: every index is spelt out here.

use super::{Fault, Plant};
use assay_engine::kernels::check::{Plan, check_operation};
use assay_engine::kernels::{Acts, Batch, Kernels, scalar};
use assay_engine::kind::Kind;
use half::f16;

/// A right entry, for the part of a faulty one that is right.
const SCALAR: &Kernels = &scalar::KERNELS;

const fn fault(
    kind: Kind,
    what: &'static str,
    source: &'static str,
    operation: &'static str,
    plant: fn(&mut Kernels),
) -> Fault {
    Fault { kind, what, source, plant: Plant::Kernel(operation, plant) }
}

/// What the kernel check says of scalar with one entry replaced.
pub(super) fn check(operation: &str, plant: fn(&mut Kernels)) -> Option<String> {
    let mut table = scalar::KERNELS;
    plant(&mut table);
    // The fixed cases are enough, and the other entries are those of scalar.
    let plan = Plan { random_cases: 0, ..Plan::default() };
    check_operation(&table, &plan, operation).err().map(|mismatch| mismatch.to_string())
}

/// `Σ_c value(row, c) · q[c]` for each row.
fn rows(w: &[u8], row_bytes: usize, x: &Acts, out: &mut [i32], value: impl Fn(&[u8], usize) -> i32) {
    for (out, row) in out.iter_mut().zip(w.chunks(row_bytes.max(1))) {
        *out = x.natural().iter().enumerate().map(|(c, &q)| value(row, c) * i32::from(q)).sum();
    }
    if row_bytes == 0 {
        out.fill(0);
    }
}

/// Code of column `c` as I2_S packs it: 128 weights in 32 bytes.
fn code_128(row: &[u8], c: usize) -> i32 {
    i32::from(row[c / 128 * 32 + c % 32] >> (6 - 2 * (c % 128 / 32)) & 3)
}

/// Code of column `c` as ARM builds pack it: 64 weights in 16 bytes.
fn code_64(row: &[u8], c: usize) -> i32 {
    i32::from(row[c / 64 * 16 + c % 16] >> (6 - 2 * (c % 64 / 16)) & 3)
}

/// Code of column `c` if four neighbours shared a byte.
fn code_sequential(row: &[u8], c: usize) -> i32 {
    i32::from(row[c / 4] >> (2 * (c % 4)) & 3)
}

/// I2_S in groups of 64.
pub(super) fn groups_of_64(w: &[u8], n: usize, x: &Acts, out: &mut [i32]) {
    i2s(w, n, x, out, |w, n, x, out| rows(w, n, x, out, |row, c| code_64(row, c) - 1));
}

/// I2_S as four neighbours a byte.
pub(super) fn sequential(w: &[u8], n: usize, x: &Acts, out: &mut [i32]) {
    rows(w, n, x, out, |row, c| code_sequential(row, c) - 1);
}

/// I2_S with codes as -2, -1, +1, +2.
pub(super) fn without_zero(w: &[u8], n: usize, x: &Acts, out: &mut [i32]) {
    i2s(w, n, x, out, |w, n, x, out| rows(w, n, x, out, |row, c| [-2, -1, 1, 2][code_128(row, c) as usize]));
}

/// I2_S with the sum of activations subtracted once more.
pub(super) fn sum_twice(w: &[u8], n: usize, x: &Acts, out: &mut [i32]) {
    (SCALAR.gemv_i2s_i8)(w, n, x, out);
    out.iter_mut().for_each(|sum| *sum -= x.natural().iter().map(|&q| i32::from(q)).sum::<i32>());
}

/// Sums that are not multiplied by the scale of the weights.
pub(super) fn without_scale(acc: &[i32], s: f32, _: f32, out: &mut [f32]) {
    out.iter_mut().zip(acc).for_each(|(y, &acc)| *y = acc as f32 / s);
}

/// I2_S rows summed as `maddubs` and `add_epi16` do: pairs of bytes in `lanes` lanes of 16 bits, taken to 32 bits after
/// `blocks` blocks of 32 bytes.
fn narrow(
    (lanes, blocks): (usize, usize),
    add: fn(i16, i16) -> i16,
    w: &[u8],
    row_bytes: usize,
    x: &Acts,
    out: &mut [i32],
) {
    for (r, out) in out.iter_mut().enumerate() {
        let row = &w[r * row_bytes..][..row_bytes];
        let sum: i32 = x.natural().iter().map(|&q| i32::from(q)).sum();
        *out = -sum;
        for (part, bytes) in row.chunks(32 * blocks).enumerate() {
            let mut sums = vec![0_i16; lanes];
            for pair in 0..bytes.len() / 2 {
                for field in 0..4 {
                    let product = |byte: usize| {
                        let c = part * blocks * 128 + byte / 32 * 128 + 32 * field + byte % 32;
                        let q = x.natural().get(c).copied().unwrap_or(0);
                        // At most 3 · 128 · 2 for a pair: it fits.
                        i16::from(bytes[byte] >> (6 - 2 * field) & 3) * i16::from(q)
                    };
                    let lane = &mut sums[pair % lanes];
                    *lane = add(*lane, product(2 * pair) + product(2 * pair + 1));
                }
            }
            *out += sums.iter().map(|&sum| i32::from(sum)).sum::<i32>();
        }
    }
}

/// Runs a faulty kernel for one token on every token.
fn each(x: &Batch, out: &mut [i32], one: impl Fn(&Acts, &mut [i32])) {
    let rows = out.len() / x.tokens();
    x.rows().zip(out.chunks_mut(rows.max(1))).for_each(|(x, out)| one(x, out));
}

/// `(tokens, rows)` results written as `(rows, tokens)`.
fn turned<T: Copy>(out: &mut [T], tokens: usize) {
    let (right, rows) = (out.to_vec(), out.len() / tokens);
    (0..out.len()).for_each(|i| out[i] = right[i % tokens * rows + i / tokens]);
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// TQ2_0 with codes read by `code` and its scale by `scale`.
fn tq2_0(w: &[u8], x: &Acts, out: &mut [f32], value: fn(&[u8], usize) -> i32, scale: fn(&[u8]) -> f32) {
    let blocks = x.cols() / 256;
    for (r, out) in out.iter_mut().enumerate() {
        *out = (0..blocks).fold(0.0, |y, b| {
            let block = &w[(r * blocks + b) * 66..][..66];
            let q = &x.natural()[256 * b..][..256];
            let sum: i32 = (0..256).map(|j| value(block, j) * i32::from(q[j])).sum();
            (scale(block) * x.scales()[b]).mul_add(sum as f32, y)
        });
    }
}

/// TQ2_0's own place of an element.
fn code_tq2_0(block: &[u8], j: usize) -> i32 {
    i32::from(block[32 * (j / 128) + j % 32] >> (2 * (j % 128 / 32)) & 3)
}

fn each_f32(x: &Batch, out: &mut [f32], one: impl Fn(&Acts, &mut [f32])) {
    let rows = out.len() / x.tokens();
    x.rows().zip(out.chunks_mut(rows.max(1))).for_each(|(x, out)| one(x, out));
}

/// Sixteen lanes and a tree where the contract has 32: what a kernel for another register width does.
pub(super) fn sixteen_lanes(w: &[u8], cols: usize, x: &[f32], out: &mut [f32]) {
    let tokens = x.len().checked_div(cols).unwrap_or(1);
    let rows = out.len() / tokens.max(1);
    for (i, out) in out.iter_mut().enumerate() {
        let (token, row) = (i / rows, i % rows);
        let mut lanes = [0.0_f32; 16];
        for c in 0..cols {
            let w = f16_at(w, 2 * (row * cols + c));
            lanes[c % 16] = w.mul_add(x[token * cols + c], lanes[c % 16]);
        }
        for s in [8, 4, 2, 1] {
            (0..s).for_each(|l| lanes[l] += lanes[l + s]);
        }
        *out = lanes[0] + 0.0;
    }
}

/// Q2_0 as files of some forks have it: 128 weights in 34 bytes.
fn q2_0_of_128(w: &[u8], x: &Acts, out: &mut [f32]) {
    let row_bytes = x.cols() / 64 * 18;
    for (r, out) in out.iter_mut().enumerate() {
        let row = &w[r * row_bytes..][..row_bytes];
        *out = 0.0;
        for b in 0..x.cols() / 128 {
            let block = &row[34 * b..][..34];
            for part in 0..4 {
                let product = |j: usize| {
                    let code = i32::from(block[2 + j / 4] >> (2 * (j % 4)) & 3);
                    (code - 1) * i32::from(x.natural()[128 * b + j])
                };
                let sum: i32 = (32 * part..32 * part + 32).map(product).sum();
                *out = (f16_at(block, 0) * x.scales()[4 * b + part]).mul_add(sum as f32, *out);
            }
        }
    }
}

pub(super) const FAULTS: &[Fault] = &[
    fault(
        Kind::I16AccumulatorOverflow,
        "AVX2: 32 blocks of pairs summed in 16 lanes of 16 bits, wrapping",
        "microsoft/BitNet#525",
        "gemv_i2s_i8",
        |k| {
            k.gemv_i2s_i8 = |w, n, x, out| {
                i2s(w, n, x, out, |w, n, x, out| narrow((16, 32), i16::wrapping_add, w, n, x, out))
            }
        },
    ),
    fault(
        Kind::I16AccumulatorOverflow,
        "AVX2: the same with saturation",
        "microsoft/BitNet#525",
        "gemv_i2s_i8",
        |k| {
            k.gemv_i2s_i8 = |w, n, x, out| {
                i2s(w, n, x, out, |w, n, x, out| narrow((16, 32), i16::saturating_add, w, n, x, out))
            }
        },
    ),
    fault(
        Kind::I16AccumulatorOverflow,
        "NEON without dotprod: 256 products in each of 8 lanes of 16 bits",
        "microsoft/BitNet#411",
        "gemv_i2s_i8",
        |k| {
            k.gemv_i2s_i8 = |w, n, x, out| {
                i2s(w, n, x, out, |w, n, x, out| narrow((8, 16), i16::wrapping_add, w, n, x, out))
            }
        },
    ),
    fault(
        Kind::I16AccumulatorOverflow,
        "the batched path, AVX2 lanes",
        "microsoft/BitNet#525",
        "gemm_i2s_i8",
        |k| {
            k.gemm_i2s_i8 = |w, n, x, out| {
                each(x, out, |x, out| {
                    i2s(w, n, x, out, |w, n, x, out| narrow((16, 32), i16::wrapping_add, w, n, x, out))
                });
            }
        },
    ),
    fault(
        Kind::WrongGroup,
        "unpacks 64 weights from 16 bytes, the file has 128 in 32",
        "microsoft/BitNet#470, #585",
        "gemv_i2s_i8",
        |k| k.gemv_i2s_i8 = groups_of_64,
    ),
    fault(
        Kind::WrongGroup,
        "the batched path unpacks 64 weights from 16 bytes",
        "microsoft/BitNet#598",
        "gemm_i2s_i8",
        |k| k.gemm_i2s_i8 = |w, n, x, out| each(x, out, |x, out| groups_of_64(w, n, x, out)),
    ),
    fault(
        Kind::WrongGroup,
        "TQ2_0 with groups of 16 bytes for 32",
        "microsoft/BitNet#585, for the other interleaved format",
        "gemv_tq2_0_q8_k",
        |k| {
            k.gemv_tq2_0_q8_k = |w, x, out| {
                tq2_0(
                    w,
                    x,
                    out,
                    |b, j| i32::from(b[j / 64 * 16 + j % 16] >> (2 * (j % 64 / 16)) & 3) - 1,
                    |b| f16_at(b, 64),
                );
            }
        },
    ),
    fault(
        Kind::SequentialDecode,
        "the scalar fallback reads four neighbours from a byte",
        "microsoft/BitNet#598, #600, #610",
        "gemv_i2s_i8",
        |k| k.gemv_i2s_i8 = sequential,
    ),
    fault(
        Kind::SequentialDecode,
        "TQ2_0: a byte as four neighbours, as the CUDA kernel",
        "ggml-org/llama.cpp#28769",
        "gemv_tq2_0_q8_k",
        |k| {
            k.gemv_tq2_0_q8_k =
                |w, x, out| tq2_0(w, x, out, |b, j| code_sequential(b, j) - 1, |b| f16_at(b, 64))
        },
    ),
    fault(
        Kind::SequentialDecode,
        "TQ2_0 for several tokens, the same",
        "ggml-org/llama.cpp#28769",
        "gemm_tq2_0_q8_k",
        |k| {
            k.gemm_tq2_0_q8_k = |w, x, out| {
                each_f32(x, out, |x, out| {
                    tq2_0(w, x, out, |b, j| code_sequential(b, j) - 1, |b| f16_at(b, 64))
                });
            }
        },
    ),
    fault(
        Kind::RolesSwapped,
        "the batched path takes rows for tokens",
        "microsoft/BitNet#598",
        "gemm_i2s_i8",
        |k| {
            k.gemm_i2s_i8 = |w, n, x, out| {
                (SCALAR.gemm_i2s_i8)(w, n, x, out);
                turned(out, x.tokens());
            }
        },
    ),
    fault(
        Kind::RolesSwapped,
        "TQ2_0 for several tokens, the same",
        "microsoft/BitNet#598, for another format",
        "gemm_tq2_0_q8_k",
        |k| {
            k.gemm_tq2_0_q8_k = |w, x, out| {
                (SCALAR.gemm_tq2_0_q8_k)(w, x, out);
                turned(out, x.tokens());
            }
        },
    ),
    fault(
        Kind::EmptyFallback,
        "no branch compiled for the processor: GEMV does nothing",
        "microsoft/BitNet#305, #547",
        "gemv_i2s_i8",
        |k| k.gemv_i2s_i8 = |_, _, _, _| (),
    ),
    fault(
        Kind::EmptyFallback,
        "no branch compiled for the processor: GEMM of TQ1_0 does nothing",
        "microsoft/BitNet#305, #547",
        "gemm_tq1_0_q8_k",
        |k| k.gemm_tq1_0_q8_k = |_, _, _| (),
    ),
    fault(
        Kind::EmptyFallback,
        "activations are never quantised",
        "microsoft/BitNet#305, #547",
        "quantise_i8",
        |k| k.quantise_i8 = |x, _| (SCALAR.quantise_i8)(x, &mut vec![0; x.len()]),
    ),
    fault(
        Kind::MissingScale,
        "sums are not multiplied by the scale of the tensor",
        "microsoft/BitNet#468",
        "dequantise_i32",
        |k| k.dequantise_i32 = without_scale,
    ),
    fault(
        Kind::MissingScale,
        "TQ2_0: blocks without their scale",
        "EffortlessMetrics/BitNet-rs, QK256",
        "gemv_tq2_0_q8_k",
        |k| k.gemv_tq2_0_q8_k = |w, x, out| tq2_0(w, x, out, |b, j| code_tq2_0(b, j) - 1, |_| 1.0),
    ),
    fault(
        Kind::ActivationSumTwice,
        "codes as -1, 0, +1, and the sum of activations subtracted too",
        "microsoft/BitNet#600, #610",
        "gemv_i2s_i8",
        |k| k.gemv_i2s_i8 = sum_twice,
    ),
    fault(
        Kind::ActivationSumTwice,
        "TQ2_0, the same",
        "microsoft/BitNet#610, for another format",
        "gemv_tq2_0_q8_k",
        |k| k.gemv_tq2_0_q8_k = |w, x, out| tq2_0(w, x, out, |b, j| code_tq2_0(b, j) - 2, |b| f16_at(b, 64)),
    ),
    fault(
        Kind::CodeMapWithoutZero,
        "codes as -2, -1, +1, +2",
        "EffortlessMetrics/BitNet-rs, QK256",
        "gemv_i2s_i8",
        |k| k.gemv_i2s_i8 = without_zero,
    ),
    fault(
        Kind::Group128UnderGroup64,
        "Q2_0: blocks of 128 weights in 34 bytes",
        "ggml-org/llama.cpp#25824, #25707",
        "gemv_q2_0_q8_0",
        |k| k.gemv_q2_0_q8_0 = q2_0_of_128,
    ),
    fault(Kind::NanOnZeroRow, "i8 activations: 127 / 0", "several projects", "quantise_i8", |k| {
        k.quantise_i8 = |x, q| {
            let s = 127.0 / x.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
            q.iter_mut().zip(x).for_each(|(q, x)| *q = (x * s).round_ties_even().clamp(-128.0, 127.0) as i8);
            s
        }
    }),
    fault(Kind::NanOnZeroRow, "q8_K activations: -127 / 0", "several projects", "quantise_q8_k", |k| {
        k.quantise_q8_k = |x, q, d| {
            (SCALAR.quantise_q8_k)(x, q, d);
            for (x, (q, d)) in x.chunks(256).zip(q.chunks_mut(256).zip(d)) {
                let i = -127.0 / x.iter().fold(0.0_f32, |m, &v| if v.abs() > m.abs() { v } else { m });
                if x.iter().all(|v| *v == 0.0) {
                    (0..256).for_each(|j| q[j] = (i * x[j]).min(127.0) as i8);
                    *d = 1.0 / i;
                }
            }
        }
    }),
    fault(
        Kind::StaleTail,
        "past the last whole tile: activations of the tile before",
        "rows such as 3 x 300",
        "gemv_i2s_i8",
        |k| {
            k.gemv_i2s_i8 = |w, n, x, out| {
                i2s(w, n, x, out, |w, n, x, out| {
                    let mut tile = vec![0; 256];
                    out.fill(0);
                    for (t, part) in x.natural().chunks(256).enumerate() {
                        // Not cleared for a shorter last part.
                        tile[..part.len()].copy_from_slice(part);
                        for (out, row) in out.iter_mut().zip(w.chunks(n.max(1))) {
                            let codes = 4 * row.len().saturating_sub(64 * t).min(64);
                            let product = |c: usize| (code_128(row, 256 * t + c) - 1) * i32::from(tile[c]);
                            *out += (0..codes).map(product).sum::<i32>();
                        }
                    }
                });
            }
        },
    ),
    fault(
        Kind::StaleTail,
        "past the last whole tile: weights of the row before",
        "rows such as 3 x 300",
        "gemv_i2s_i8",
        |k| {
            k.gemv_i2s_i8 = |w, n, x, out| {
                i2s(w, n, x, out, |w, n, x, out| {
                    let whole = x.cols() / 256 * 256;
                    for (r, out) in out.iter_mut().enumerate() {
                        let row = |r: usize| &w[r * n..][..n];
                        let from = |c: usize| if c < whole { row(r) } else { row(r.saturating_sub(1)) };
                        let product = |(c, q): (usize, &i8)| (code_128(from(c), c) - 1) * i32::from(*q);
                        *out = x.natural().iter().enumerate().map(product).sum();
                    }
                });
            }
        },
    ),
    fault(
        Kind::StaleTail,
        "the residual is not added past a multiple of 16",
        "rows such as 3 x 300",
        "add_f32",
        |k| {
            k.add_f32 = |x, y| {
                let whole = x.len() / 16 * 16;
                (SCALAR.add_f32)(&mut x[..whole], &y[..whole]);
            }
        },
    ),
    fault(
        Kind::BatchVariantReduction,
        "the batched path of the head adds in 16 lanes, the other in 32",
        "ggml-org/llama.cpp#3014, #7052",
        "gemm_f16_f32",
        |k| k.gemm_f16_f32 = sixteen_lanes,
    ),
    fault(
        Kind::BatchVariantReduction,
        "a sum that runs from left to right",
        "ggml-org/llama.cpp#7052",
        "dot_f32",
        |k| k.dot_f32 = |a, b| a.iter().zip(b).fold(0.0, |sum, (a, b)| a.mul_add(*b, sum)),
    ),
    fault(
        Kind::FtzOn,
        "an operation that flushes subnormals to zero",
        "llvm/llvm-project#57589",
        "scale_f32",
        |k| {
            k.scale_f32 = |x, f| {
                (SCALAR.scale_f32)(x, f);
                x.iter_mut().filter(|v| v.is_subnormal()).for_each(|v| *v *= 0.0);
            }
        },
    ),
    fault(
        Kind::SiluForRelu2,
        "the entry for squared ReLU is SiLU",
        "microsoft/BitNet#588, #602",
        "relu2_mul",
        |k| k.relu2_mul = scalar::KERNELS.silu_mul,
    ),
    fault(
        Kind::LayernormForRmsnorm,
        "the mean is subtracted before the norm",
        "EffortlessMetrics/BitNet-rs",
        "rms_norm",
        |k| k.rms_norm = layer_norm,
    ),
    fault(Kind::SubNormSkipped, "a norm that copies", "EffortlessMetrics/BitNet-rs", "rms_norm", |k| {
        k.rms_norm = |x, _, _, out| out.copy_from_slice(x)
    }),
];

/// Only activations in the order of 128/32 meet the fault: those in the order of 64/16 belong to another packing.
fn i2s(
    w: &[u8],
    row_bytes: usize,
    x: &Acts,
    out: &mut [i32],
    faulty: impl Fn(&[u8], usize, &Acts, &mut [i32]),
) {
    use assay_engine::kernels::acts::Order;
    if x.order() == Order::I2S {
        faulty(w, row_bytes, x, out);
    } else {
        (SCALAR.gemv_i2s_i8)(w, row_bytes, x, out);
    }
}

/// `(x − mean) / sqrt(var + eps) · w`, all in f32.
pub(super) fn layer_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    let var = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n;
    let r = 1.0 / (var + eps).sqrt();
    (0..x.len()).for_each(|i| out[i] = (x[i] - mean) * r * w[i]);
}
