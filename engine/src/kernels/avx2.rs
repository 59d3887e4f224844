//! AVX2 with FMA and F16C: the 32 lanes of a reduction are four registers of eight.
//!
//! Same names and order as `scalar.rs`, which says what each function means. Bodies are safe: they read and write through
//! references to arrays; a ragged tail is copied into an array of +0.0 and takes the same path.
#![expect(unsafe_code, reason = "loads and stores by pointer; the step from a checked table into AVX2 code")]

use super::{Isa, Kernels, TileActs, assert_rows};
use crate::exact::exp::{LN2_HIGH, LN2_LOW, LOG2_E, MAX, MIN, POLYNOMIAL};
use crate::exact::{ATTENTION_CHUNK, I8_FLOOR};
use crate::quant::qk256::TILE;
use std::arch::x86_64::*;
use std::array::from_fn;

/// The table, where this processor has AVX2, FMA and F16C. There is no other way to it: holding it is the proof.
pub(super) fn kernels() -> Option<&'static Kernels> {
    let has = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    has.then_some(&KERNELS)
}

/// The step from safe code into a `#[target_feature]` function.
macro_rules! enter {
    ($function:ident($($argument:ident),*)) => {
        |$($argument),*| {
            // SAFETY: the closure is reached only through `KERNELS`, which `kernels` gives out only where the processor has
            // every feature that the functions of this file enable.
            unsafe { $function($($argument),*) }
        }
    };
}

static KERNELS: Kernels = Kernels {
    isa: Isa::Avx2,
    gemv_i2s_i8: enter!(gemv_i2s_i8(codes, row_bytes, x, out)),
    gemv_f16_f32: enter!(gemv_f16_f32(w, x, out)),
    gemv_f32_f32: enter!(gemv_f32_f32(w, x, out)),
    dot_f32: enter!(dot_f32(a, b)),
    sum_f32: enter!(sum_f32(a)),
    max_f32: enter!(max_f32(a)),
    find_non_finite: enter!(find_non_finite(a)),
    rms_norm: enter!(rms_norm(x, w, eps, out)),
    exp_f32: enter!(exp_f32(x)),
    silu_mul: enter!(silu_mul(g, u, out)),
    relu2_mul: enter!(relu2_mul(g, u, out)),
    softmax: enter!(softmax(s)),
    scale_f32: enter!(scale_f32(x, f)),
    add_f32: enter!(add_f32(x, y)),
    rope_halves: enter!(rope_halves(x, cos, sin)),
    rope_pairs: enter!(rope_pairs(x, cos, sin)),
    quantise_i8: enter!(quantise_i8(x, q)),
    dequantise_i32: enter!(dequantise_i32(acc, s, w_scale, out)),
    narrow_f16: enter!(narrow_f16(x, out)),
    widen_f16: enter!(widen_f16(x, out)),
    weigh_f16: enter!(weigh_f16(p, v, out)),
};

/// How far ahead of the weight stream to prefetch, in bytes.
const AHEAD: usize = 4096;

/// 32 lanes: lane `l` is element `l % 8` of register `l / 8`.
type Lanes = [__m256; 4];

// ---- loads and stores: every pointer of this file ----

#[inline]
#[target_feature(enable = "avx2")]
fn load(a: &[f32; 8]) -> __m256 {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_ps(a.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(out: &mut [f32; 8], v: __m256) {
    // SAFETY: `out` is 32 writable bytes; no alignment is needed.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
}

/// 32 bytes of codes or little-endian floats.
#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(a: &[u8; 32]) -> __m256i {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(a.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_i8(a: &[i8; 32]) -> __m256i {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(a.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_bytes(out: &mut [i8; 32], v: __m256i) {
    // SAFETY: `out` is 32 writable bytes; no alignment is needed.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_i32(a: &[i32; 8]) -> __m256i {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(a.as_ptr().cast()) }
}

/// Eight little-endian f16, widened.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_f16(a: &[u8; 16]) -> __m256 {
    // SAFETY: `a` is 16 readable bytes; no alignment is needed.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(a.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_halves(out: &mut [u8; 16], v: __m128i) {
    // SAFETY: `out` is 16 writable bytes; no alignment is needed.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), v) }
}

// ---- tails and lanes ----

/// A prefetch never faults, wherever it points.
#[inline]
#[target_feature(enable = "avx2")]
fn prefetch<T>(a: &T) {
    _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(a).cast::<i8>().wrapping_add(AHEAD));
}

/// `tail` with zeros after it.
fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [T; N] {
    let mut block = [T::default(); N];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[inline]
#[target_feature(enable = "avx2")]
fn load32(a: &[f32; 32]) -> Lanes {
    let a = a.as_chunks::<8>().0;
    [load(&a[0]), load(&a[1]), load(&a[2]), load(&a[3])]
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load32_f16(a: &[u8; 64]) -> Lanes {
    let a = a.as_chunks::<16>().0;
    [load_f16(&a[0]), load_f16(&a[1]), load_f16(&a[2]), load_f16(&a[3])]
}

#[inline]
#[target_feature(enable = "avx2")]
fn load32_f32(a: &[u8; 128]) -> Lanes {
    let a = a.as_chunks::<32>().0;
    let load = |i: usize| _mm256_castsi256_ps(load_bytes(&a[i]));
    [load(0), load(1), load(2), load(3)]
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn fma32(lanes: &mut Lanes, a: Lanes, b: Lanes) {
    for i in 0..4 {
        lanes[i] = _mm256_fmadd_ps(a[i], b[i], lanes[i]);
    }
}

/// [`crate::exact::reduce::tree`].
#[inline]
#[target_feature(enable = "avx2")]
fn tree(lanes: Lanes) -> f32 {
    let by_16 = [_mm256_add_ps(lanes[0], lanes[2]), _mm256_add_ps(lanes[1], lanes[3])];
    let by_8 = _mm256_add_ps(by_16[0], by_16[1]);
    let by_4 = _mm_add_ps(_mm256_castps256_ps128(by_8), _mm256_extractf128_ps::<1>(by_8));
    let by_2 = _mm_add_ps(by_4, _mm_movehl_ps(by_4, by_4));
    _mm_cvtss_f32(_mm_add_ss(by_2, _mm_movehdup_ps(by_2)))
}

/// Largest of eight values without NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn largest(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
}

/// `x_i = f(x_i)`.
#[inline]
#[target_feature(enable = "avx2")]
fn map(x: &mut [f32], f: impl Fn(__m256) -> __m256) {
    let (blocks, tail) = x.as_chunks_mut::<8>();
    for block in blocks {
        store(block, f(load(block)));
    }
    if !tail.is_empty() {
        let mut block = padded(tail);
        let mapped = f(load(&block));
        store(&mut block, mapped);
        tail.copy_from_slice(&block[..tail.len()]);
    }
}

/// `out_i = f(a_i, b_i)`.
#[inline]
#[target_feature(enable = "avx2")]
fn map2(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(__m256, __m256) -> __m256) {
    assert_eq!((a.len(), b.len()), (out.len(), out.len()));
    let (a, a_tail) = a.as_chunks::<8>();
    let (b, b_tail) = b.as_chunks::<8>();
    let (blocks, tail) = out.as_chunks_mut::<8>();
    for i in 0..blocks.len() {
        store(&mut blocks[i], f(load(&a[i]), load(&b[i])));
    }
    if !tail.is_empty() {
        let mut block = [0.0; 8];
        store(&mut block, f(load(&padded(a_tail)), load(&padded(b_tail))));
        tail.copy_from_slice(&block[..tail.len()]);
    }
}

// ---- the operations ----

#[target_feature(enable = "avx2")]
fn gemv_i2s_i8(codes: &[u8], row_bytes: usize, x: &TileActs, out: &mut [i32]) {
    x.assert_fits(codes, row_bytes, out.len());
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (first, last) = codes.split_at(4 * fours.len() * row_bytes);
    for (i, four) in fours.iter_mut().enumerate() {
        *four = dot_i2s_i8(&first[4 * i * row_bytes..], row_bytes, x);
    }
    for (i, one) in rest.iter_mut().enumerate() {
        [*one] = dot_i2s_i8(&last[i * row_bytes..], row_bytes, x);
    }
}

/// `R` rows at a time, so that they share the loads of activations. Half a tile (32 bytes) is one register.
///
/// No overflow: `maddubs` multiplies codes 0..=3 with −128..=127 and adds two products: at most 2 · 3 · 128 = 768 in
/// magnitude. Ten halves of four fields are 40 of them in i16: 30 720 < 32 768; then they are widened.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_i2s_i8<const R: usize>(rows: &[u8], row_bytes: usize, x: &TileActs) -> [i32; R] {
    const HALVES: usize = 10;
    let halves = row_bytes / 32;
    let rows: [&[[u8; 32]]; R] = from_fn(|r| &rows[r * row_bytes..].as_chunks().0[..halves]);
    let tiles = x.values().as_chunks::<TILE>().0;
    let (ones, field) = (_mm256_set1_epi16(1), _mm256_set1_epi8(3));
    let mut sums = [_mm256_setzero_si256(); R];
    for begin in (0..halves).step_by(HALVES) {
        let mut narrow = [_mm256_setzero_si256(); R];
        for i in begin..halves.min(begin + HALVES) {
            // Field f of half h meets run 2 f + h of its tile.
            let runs = tiles[i / 2].as_chunks::<32>().0;
            let x = |f: usize| load_i8(&runs[2 * f + i % 2]);
            let x = [x(0), x(1), x(2), x(3)];
            for r in 0..R {
                let w = load_bytes(&rows[r][i]);
                prefetch(&rows[r][i]);
                let w = [w, _mm256_srli_epi16::<2>(w), _mm256_srli_epi16::<4>(w), _mm256_srli_epi16::<6>(w)];
                for f in 0..4 {
                    let product = _mm256_maddubs_epi16(_mm256_and_si256(w[f], field), x[f]);
                    narrow[r] = _mm256_add_epi16(narrow[r], product);
                }
            }
        }
        for r in 0..R {
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(narrow[r], ones));
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        out[r] = sum_ints(sums[r]) - x.sum();
    }
    out
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_ints(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_unpackhi_epi64(v, v));
    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<1>(v)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn gemv_f16_f32(w: &[u8], x: &[f32], out: &mut [f32]) {
    gemv(w, x, out, |w: &[u8; 64]| load32_f16(w));
}

#[target_feature(enable = "avx2,fma")]
fn gemv_f32_f32(w: &[u8], x: &[f32], out: &mut [f32]) {
    gemv(w, x, out, |w: &[u8; 128]| load32_f32(w));
}

/// Rows of float weights, of which `ROUND` bytes are 32.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn gemv<const ROUND: usize>(w: &[u8], x: &[f32], out: &mut [f32], widen: impl Fn(&[u8; ROUND]) -> Lanes) {
    let row_bytes = ROUND / 32 * x.len();
    assert_rows(w, row_bytes, out.len());
    let (pairs, rest) = out.as_chunks_mut::<2>();
    let (first, last) = w.split_at(2 * pairs.len() * row_bytes);
    for (i, pair) in pairs.iter_mut().enumerate() {
        *pair = dot_rows(&first[2 * i * row_bytes..], x, &widen);
    }
    for (i, one) in rest.iter_mut().enumerate() {
        [*one] = dot_rows(&last[i * row_bytes..], x, &widen);
    }
}

/// `R` rows at a time, each in its own 32 lanes: two rows hide the latency of the fma.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot_rows<const R: usize, const ROUND: usize>(
    w: &[u8],
    x: &[f32],
    widen: &impl Fn(&[u8; ROUND]) -> Lanes,
) -> [f32; R] {
    let row_bytes = ROUND / 32 * x.len();
    let (rounds, tail) = x.as_chunks::<32>();
    let rows: [_; R] = from_fn(|r| w[r * row_bytes..][..row_bytes].as_chunks::<ROUND>());
    let mut lanes = [[_mm256_setzero_ps(); 4]; R];
    for (t, x) in rounds.iter().enumerate() {
        let x = load32(x);
        for r in 0..R {
            let w = &rows[r].0[t];
            prefetch(w);
            fma32(&mut lanes[r], widen(w), x);
        }
    }
    let mut out = [0.0; R];
    for r in 0..R {
        if !tail.is_empty() {
            fma32(&mut lanes[r], widen(&padded(rows[r].1)), load32(&padded(tail)));
        }
        out[r] = tree(lanes[r]);
    }
    out
}

#[target_feature(enable = "avx2,fma")]
fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    let mut lanes = [_mm256_setzero_ps(); 4];
    for (a, b) in a.iter().zip(b) {
        fma32(&mut lanes, load32(a), load32(b));
    }
    if !a_tail.is_empty() {
        fma32(&mut lanes, load32(&padded(a_tail)), load32(&padded(b_tail)));
    }
    tree(lanes)
}

#[target_feature(enable = "avx2")]
fn sum_f32(a: &[f32]) -> f32 {
    let (rounds, tail) = a.as_chunks::<32>();
    let mut lanes = [_mm256_setzero_ps(); 4];
    let add = |lanes: &mut Lanes, a: Lanes| {
        for i in 0..4 {
            lanes[i] = _mm256_add_ps(lanes[i], a[i]);
        }
    };
    for a in rounds {
        add(&mut lanes, load32(a));
    }
    if !tail.is_empty() {
        add(&mut lanes, load32(&padded(tail)));
    }
    tree(lanes)
}

#[target_feature(enable = "avx2")]
fn max_f32(a: &[f32]) -> f32 {
    let (blocks, tail) = a.as_chunks::<8>();
    let mut m = _mm256_set1_ps(f32::NEG_INFINITY);
    for block in blocks {
        m = _mm256_max_ps(m, load(block));
    }
    let m = tail.iter().fold(largest(m), |m, &v| if v > m { v } else { m });
    // −0 + 0 = +0.
    m + 0.0
}

#[target_feature(enable = "avx2")]
fn find_non_finite(a: &[f32]) -> Option<usize> {
    let (blocks, tail) = a.as_chunks::<8>();
    let exponent = _mm256_set1_epi32(0x7f80_0000);
    for (i, block) in blocks.iter().enumerate() {
        let bits = _mm256_and_si256(_mm256_castps_si256(load(block)), exponent);
        let bad = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(bits, exponent)));
        if bad != 0 {
            return Some(8 * i + bad.trailing_zeros() as usize);
        }
    }
    tail.iter().position(|v| !v.is_finite()).map(|i| 8 * blocks.len() + i)
}

#[target_feature(enable = "avx2,fma")]
fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((x.len(), w.len()), (out.len(), out.len()));
    let r = _mm256_set1_ps(1.0 / (dot_f32(x, x) / x.len() as f32 + eps).sqrt());
    map2(x, w, out, |x, w| _mm256_mul_ps(_mm256_mul_ps(x, r), w));
}

/// [`crate::exact::exp::exp`] of eight values.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp(x: __m256) -> __m256 {
    let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
    let x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(MIN)), _mm256_set1_ps(MAX));
    let k = _mm256_mul_ps(x, _mm256_set1_ps(LOG2_E));
    let k = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(k);
    let r = _mm256_fnmadd_ps(k, _mm256_set1_ps(LN2_HIGH), x);
    let r = _mm256_fnmadd_ps(k, _mm256_set1_ps(LN2_LOW), r);
    let mut p = _mm256_set1_ps(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*c));
    }
    let y = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0));
    let power = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(k));
    let y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), power));
    _mm256_blendv_ps(y, _mm256_set1_ps(f32::from_bits(0x7fc0_0000)), nan)
}

#[target_feature(enable = "avx2,fma")]
fn exp_f32(x: &mut [f32]) {
    map(x, |v| exp(v));
}

#[target_feature(enable = "avx2,fma")]
fn silu_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    let (one, sign) = (_mm256_set1_ps(1.0), _mm256_set1_ps(-0.0));
    map2(g, u, out, |g, u| {
        let below = _mm256_add_ps(one, exp(_mm256_xor_ps(g, sign)));
        _mm256_mul_ps(_mm256_div_ps(g, below), u)
    });
}

#[target_feature(enable = "avx2")]
fn relu2_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    map2(g, u, out, |g, u| {
        // `maxps` gives its second operand where the first is not the greater: +0 for −0.
        let m = _mm256_max_ps(g, _mm256_setzero_ps());
        _mm256_mul_ps(_mm256_mul_ps(m, m), u)
    });
}

#[target_feature(enable = "avx2,fma")]
fn softmax(s: &mut [f32]) {
    let m = _mm256_set1_ps(max_f32(s));
    map(s, |v| exp(_mm256_sub_ps(v, m)));
    let z = _mm256_set1_ps(sum_f32(s));
    map(s, |v| _mm256_div_ps(v, z));
}

#[target_feature(enable = "avx2")]
fn scale_f32(x: &mut [f32], f: f32) {
    let f = _mm256_set1_ps(f);
    map(x, |v| _mm256_mul_ps(v, f));
}

#[target_feature(enable = "avx2")]
fn add_f32(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    let ((x, x_tail), (y, y_tail)) = (x.as_chunks_mut::<8>(), y.as_chunks::<8>());
    for (x, y) in x.iter_mut().zip(y) {
        store(x, _mm256_add_ps(load(x), load(y)));
    }
    for (x, y) in x_tail.iter_mut().zip(y_tail) {
        *x += y;
    }
}

#[target_feature(enable = "avx2,fma")]
fn rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    let (x0, x1) = x[..2 * n].split_at_mut(n);
    let ((x0, x0_tail), (x1, x1_tail)) = (x0.as_chunks_mut::<8>(), x1.as_chunks_mut::<8>());
    let ((c, c_tail), (s, s_tail)) = (cos.as_chunks::<8>(), sin.as_chunks::<8>());
    for i in 0..c.len() {
        rotate_halves(&mut x0[i], &mut x1[i], &c[i], &s[i]);
    }
    let tail = c_tail.len();
    if tail > 0 {
        let (mut a, mut b) = (padded(x0_tail), padded(x1_tail));
        rotate_halves(&mut a, &mut b, &padded(c_tail), &padded(s_tail));
        x0_tail.copy_from_slice(&a[..tail]);
        x1_tail.copy_from_slice(&b[..tail]);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn rotate_halves(x0: &mut [f32; 8], x1: &mut [f32; 8], c: &[f32; 8], s: &[f32; 8]) {
    let (a, b, c, s) = (load(x0), load(x1), load(c), load(s));
    store(x0, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    store(x1, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
}

#[target_feature(enable = "avx2,fma")]
fn rope_pairs(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    let (x, x_tail) = x[..2 * n].as_chunks_mut::<16>();
    let ((c, c_tail), (s, s_tail)) = (cos.as_chunks::<8>(), sin.as_chunks::<8>());
    for i in 0..c.len() {
        rotate_pairs(&mut x[i], &c[i], &s[i]);
    }
    if !x_tail.is_empty() {
        let mut block = padded(x_tail);
        rotate_pairs(&mut block, &padded(c_tail), &padded(s_tail));
        x_tail.copy_from_slice(&block[..x_tail.len()]);
    }
}

/// Even elements become `x0·c − (x1·s)`, odd ones `x0·s + (x1·c)`: `fmaddsub` does both.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn rotate_pairs(x: &mut [f32; 16], c: &[f32; 8], s: &[f32; 8]) {
    let (c, s) = (load(c), load(s));
    // c0 s0 c1 s1 | c4 s4 c5 s5 and c2 s2 c3 s3 | c6 s6 c7 s7
    let (low, high) = (_mm256_unpacklo_ps(c, s), _mm256_unpackhi_ps(c, s));
    let turns = [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)];
    for (x, turn) in x.as_chunks_mut::<8>().0.iter_mut().zip(turns) {
        let v = load(x);
        let swapped = _mm256_permute_ps::<0b10_11_00_01>(turn);
        let cross = _mm256_mul_ps(_mm256_movehdup_ps(v), swapped);
        store(x, _mm256_fmaddsub_ps(_mm256_moveldup_ps(v), turn, cross));
    }
}

#[target_feature(enable = "avx2")]
fn quantise_i8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let (blocks, tail) = x.as_chunks::<32>();
    let (out, out_tail) = q.as_chunks_mut::<32>();
    let sign = _mm256_set1_ps(-0.0);
    let mut m = [_mm256_set1_ps(I8_FLOOR); 4];
    for block in blocks {
        let v = load32(block);
        for i in 0..4 {
            m[i] = _mm256_max_ps(m[i], _mm256_andnot_ps(sign, v[i]));
        }
    }
    let m = largest(_mm256_max_ps(_mm256_max_ps(m[0], m[1]), _mm256_max_ps(m[2], m[3])));
    let s = 127.0 / tail.iter().fold(m, |a, v| a.max(v.abs()));
    for (block, out) in blocks.iter().zip(out) {
        round_32(block, s, out);
    }
    if !tail.is_empty() {
        let mut block = [0; 32];
        round_32(&padded(tail), s, &mut block);
        out_tail.copy_from_slice(&block[..tail.len()]);
    }
    s
}

/// `cvtps` rounds ties to even; the packs saturate, which is the clamp.
#[inline]
#[target_feature(enable = "avx2")]
fn round_32(x: &[f32; 32], s: f32, out: &mut [i8; 32]) {
    let (x, s) = (load32(x), _mm256_set1_ps(s));
    let round = |x: __m256| _mm256_cvtps_epi32(_mm256_mul_ps(x, s));
    let pairs = [_mm256_packs_epi32(round(x[0]), round(x[1])), _mm256_packs_epi32(round(x[2]), round(x[3]))];
    // The packs work in 128-bit halves: groups of four values come out as 0 2 4 6 | 1 3 5 7.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    store_bytes(out, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(pairs[0], pairs[1]), order));
}

#[target_feature(enable = "avx2")]
fn dequantise_i32(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]) {
    assert_eq!(acc.len(), out.len());
    let ((acc, acc_tail), (out, out_tail)) = (acc.as_chunks::<8>(), out.as_chunks_mut::<8>());
    let (divisor, factor) = (_mm256_set1_ps(s), _mm256_set1_ps(w_scale));
    for (acc, out) in acc.iter().zip(out) {
        let quotient = _mm256_div_ps(_mm256_cvtepi32_ps(load_i32(acc)), divisor);
        store(out, _mm256_mul_ps(quotient, factor));
    }
    for (acc, out) in acc_tail.iter().zip(out_tail) {
        *out = (*acc as f32 / s) * w_scale;
    }
}

#[target_feature(enable = "avx2,f16c")]
fn narrow_f16(x: &[f32], out: &mut [u8]) -> Option<usize> {
    assert_eq!(2 * x.len(), out.len());
    let (blocks, tail) = x.as_chunks::<8>();
    let (out, out_tail) = out.as_chunks_mut::<16>();
    let mut bad = None;
    for (i, (block, out)) in blocks.iter().zip(out).enumerate() {
        let found = narrow_8(block, out);
        bad = bad.or_else(|| found.map(|at| 8 * i + at));
    }
    if !tail.is_empty() {
        let mut block = [0; 16];
        let found = narrow_8(&padded(tail), &mut block);
        out_tail.copy_from_slice(&block[..out_tail.len()]);
        bad = bad.or_else(|| found.map(|at| 8 * blocks.len() + at));
    }
    bad
}

/// Returns the first that is no finite f16.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow_8(x: &[f32; 8], out: &mut [u8; 16]) -> Option<usize> {
    let narrow = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(load(x));
    store_halves(out, narrow);
    let exponent = _mm_set1_epi16(0x7c00);
    let bad = _mm_movemask_epi8(_mm_cmpeq_epi16(_mm_and_si128(narrow, exponent), exponent));
    (bad != 0).then(|| bad.trailing_zeros() as usize / 2)
}

#[target_feature(enable = "avx2,f16c")]
fn widen_f16(x: &[u8], out: &mut [f32]) {
    assert_eq!(x.len(), 2 * out.len());
    let ((x, x_tail), (out, out_tail)) = (x.as_chunks::<16>(), out.as_chunks_mut::<8>());
    for (x, out) in x.iter().zip(out) {
        store(out, load_f16(x));
    }
    if !out_tail.is_empty() {
        let mut block = [0.0; 8];
        store(&mut block, load_f16(&padded(x_tail)));
        out_tail.copy_from_slice(&block[..out_tail.len()]);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn weigh_f16(p: &[f32], v: &[u8], out: &mut [f32]) {
    let d = out.len();
    assert_rows(v, 2 * d, p.len());
    let mut at = 0;
    while at + 64 <= d {
        weigh_block::<8>(p, v, d, at, &mut out[at..]);
        at += 64;
    }
    while at < d {
        weigh_block::<1>(p, v, d, at, &mut out[at..]);
        at += 8;
    }
}

/// Dimensions `at … at + 8 B`, or as many as there are, in registers over all positions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weigh_block<const B: usize>(p: &[f32], v: &[u8], d: usize, at: usize, out: &mut [f32]) {
    let n = out.len().min(8 * B);
    let mut sums = [_mm256_setzero_ps(); B];
    for (chunk, p) in p.chunks(ATTENTION_CHUNK).enumerate() {
        let mut lanes = [_mm256_setzero_ps(); B];
        for (t, p) in p.iter().enumerate() {
            let v = &v[2 * ((chunk * ATTENTION_CHUNK + t) * d + at)..][..2 * n];
            let p = _mm256_set1_ps(*p);
            for b in 0..B {
                let v = if n == 8 * B { load_f16(&v.as_chunks().0[b]) } else { load_f16(&padded(v)) };
                lanes[b] = _mm256_fmadd_ps(p, v, lanes[b]);
            }
        }
        for b in 0..B {
            sums[b] = _mm256_add_ps(sums[b], lanes[b]);
        }
    }
    for b in 0..B {
        let mut block = [0.0; 8];
        store(&mut block, sums[b]);
        let out = &mut out[8 * b..n.min(8 * b + 8)];
        out.copy_from_slice(&block[..out.len()]);
    }
}
