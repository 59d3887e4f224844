//! AVX-512 F, BW, VL and DQ, with VNNI or without: the 32 lanes of a reduction are two registers of sixteen.
//!
//! Same names and order as `scalar.rs`, which says what each function means. Two tables differ in the ternary dot alone.
//! Bodies are safe: they read and write through references; a ragged tail is a load whose mask is the slice's length and
//! gives +0.0 elsewhere.
#![expect(
    unsafe_code,
    reason = "loads and stores by pointer; the step from a checked table into AVX-512 code"
)]

use super::{Isa, Kernels, TileActs, assert_rows};
use crate::exact::exp::{LN2_HIGH, LN2_LOW, LOG2_E, MAX, MIN, POLYNOMIAL};
use crate::exact::{ATTENTION_CHUNK, I8_FLOOR};
use crate::quant::qk256::{TILE, TILE_BYTES};
use std::arch::x86_64::*;
use std::array::from_fn;

/// The table without VNNI, where this processor has AVX-512 F, BW, VL and DQ (and AVX2, FMA, F16C, which they imply).
pub(super) fn kernels_bw() -> Option<&'static Kernels> {
    let has = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    has.then_some(&BW)
}

/// The table with VNNI, where this processor has that too.
pub(super) fn kernels_vnni() -> Option<&'static Kernels> {
    let has = kernels_bw().is_some() && is_x86_feature_detected!("avx512vnni");
    has.then_some(&VNNI)
}

/// The step from safe code into a `#[target_feature]` function.
macro_rules! enter {
    ($function:ident($($argument:ident),*)) => {
        |$($argument),*| {
            // SAFETY: the closure is reached only through `BW` and `VNNI`, which `kernels_bw` and `kernels_vnni` give out
            // only where the processor has every feature that the functions of that table enable.
            unsafe { $function($($argument),*) }
        }
    };
}

static VNNI: Kernels =
    Kernels { isa: Isa::Avx512Vnni, gemv_i2s_i8: enter!(gemv_i2s_i8_vnni(codes, row_bytes, x, out)), ..BW };

static BW: Kernels = Kernels {
    isa: Isa::Avx512Bw,
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
const AHEAD: usize = 5120;

/// 32 lanes: lane `l` is element `l % 16` of register `l / 16`.
type Lanes = [__m512; 2];

// ---- loads and stores: every pointer of this file ----

#[inline]
#[target_feature(enable = "avx512f")]
fn load(a: &[f32; 16]) -> __m512 {
    // SAFETY: `a` is 64 readable bytes; no alignment is needed.
    unsafe { _mm512_loadu_ps(a.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(out: &mut [f32; 16], v: __m512) {
    // SAFETY: `out` is 64 writable bytes; no alignment is needed.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
}

/// The first sixteen values at most; +0.0 where there are fewer.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_some(a: &[f32]) -> __m512 {
    // SAFETY: the mask is true for elements of `a` only; masked elements are not touched.
    unsafe { _mm512_maskz_loadu_ps(mask(a.len()), a.as_ptr()) }
}

/// Stores as many of the sixteen as `out` holds.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_some(out: &mut [f32], v: __m512) {
    // SAFETY: the mask is true for elements of `out` only; masked elements are not touched.
    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask(out.len()), v) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_some_i32(a: &[i32]) -> __m512i {
    // SAFETY: the mask is true for elements of `a` only; masked elements are not touched.
    unsafe { _mm512_maskz_loadu_epi32(mask(a.len()), a.as_ptr()) }
}

/// 64 bytes of codes or little-endian floats.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_bytes(a: &[u8; 64]) -> __m512i {
    // SAFETY: `a` is 64 readable bytes; no alignment is needed.
    unsafe { _mm512_loadu_si512(a.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_i8(a: &[i8; 64]) -> __m512i {
    // SAFETY: `a` is 64 readable bytes; no alignment is needed.
    unsafe { _mm512_loadu_si512(a.as_ptr().cast()) }
}

/// The first 64 bytes at most; 0 where there are fewer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_some_bytes(a: &[u8]) -> __m512i {
    let mask = u64::MAX.checked_shr(64_u32.saturating_sub(a.len() as u32)).unwrap_or(0);
    // SAFETY: the mask is true for elements of `a` only; masked elements are not touched.
    unsafe { _mm512_maskz_loadu_epi8(mask, a.as_ptr().cast()) }
}

/// Sixteen little-endian f16, widened.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_f16(a: &[u8; 32]) -> __m512 {
    // SAFETY: `a` is 32 readable bytes; no alignment is needed.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(a.as_ptr().cast()) })
}

/// The first sixteen f16 at most, widened; +0.0 where there are fewer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_some_f16(a: &[u8]) -> __m512 {
    // SAFETY: the mask is true for elements of `a` only, two bytes each; masked elements are not touched.
    _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask(a.len() / 2), a.as_ptr().cast()) })
}

/// Stores as many of the sixteen f16 as `out` holds.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn store_some_f16(out: &mut [u8], v: __m256i) {
    // SAFETY: the mask is true for elements of `out` only, two bytes each; masked elements are not touched.
    unsafe { _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), mask(out.len() / 2), v) }
}

/// Stores as many of the sixteen bytes as `out` holds.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn store_some_i8(out: &mut [i8], v: __m128i) {
    // SAFETY: the mask is true for elements of `out` only; masked elements are not touched.
    unsafe { _mm_mask_storeu_epi8(out.as_mut_ptr(), mask(out.len()), v) }
}

// ---- tails and lanes ----

/// The first `n` of sixteen, or all.
#[inline]
fn mask(n: usize) -> __mmask16 {
    ((1_u32 << n.min(16)) - 1) as __mmask16
}

/// A prefetch never faults, wherever it points.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch<T>(a: &T) {
    _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(a).cast::<i8>().wrapping_add(AHEAD));
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load32(a: &[f32; 32]) -> Lanes {
    let a = a.as_chunks::<16>().0;
    [load(&a[0]), load(&a[1])]
}

/// The first 32 values at most; +0.0 where there are fewer.
#[inline]
#[target_feature(enable = "avx512f")]
fn load32_some(a: &[f32]) -> Lanes {
    let (low, high) = a.split_at(a.len().min(16));
    [load_some(low), load_some(high)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn fma32(lanes: &mut Lanes, a: Lanes, b: Lanes) {
    for i in 0..2 {
        lanes[i] = _mm512_fmadd_ps(a[i], b[i], lanes[i]);
    }
}

/// [`crate::exact::reduce::tree`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn tree(lanes: Lanes) -> f32 {
    let by_16 = _mm512_add_ps(lanes[0], lanes[1]);
    let by_8 = _mm256_add_ps(_mm512_castps512_ps256(by_16), _mm512_extractf32x8_ps::<1>(by_16));
    let by_4 = _mm_add_ps(_mm256_castps256_ps128(by_8), _mm256_extractf128_ps::<1>(by_8));
    let by_2 = _mm_add_ps(by_4, _mm_movehl_ps(by_4, by_4));
    _mm_cvtss_f32(_mm_add_ss(by_2, _mm_movehdup_ps(by_2)))
}

/// `x_i = f(x_i)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn map(x: &mut [f32], f: impl Fn(__m512) -> __m512) {
    let (blocks, tail) = x.as_chunks_mut::<16>();
    for block in blocks {
        store(block, f(load(block)));
    }
    if !tail.is_empty() {
        store_some(tail, f(load_some(tail)));
    }
}

/// `out_i = f(a_i, b_i)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn map2(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(__m512, __m512) -> __m512) {
    assert_eq!((a.len(), b.len()), (out.len(), out.len()));
    let (a, a_tail) = a.as_chunks::<16>();
    let (b, b_tail) = b.as_chunks::<16>();
    let (blocks, tail) = out.as_chunks_mut::<16>();
    for i in 0..blocks.len() {
        store(&mut blocks[i], f(load(&a[i]), load(&b[i])));
    }
    if !tail.is_empty() {
        store_some(tail, f(load_some(a_tail), load_some(b_tail)));
    }
}

// ---- the operations ----

/// Four rows at a time, so that they share the loads of activations; then one by one.
#[inline]
#[target_feature(enable = "avx512f")]
fn by_rows<T>(
    w: &[u8],
    row_bytes: usize,
    out: &mut [T],
    dot_4: impl Fn(&[u8]) -> [T; 4],
    dot_1: impl Fn(&[u8]) -> [T; 1],
) {
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (first, last) = w.split_at(4 * fours.len() * row_bytes);
    for (i, four) in fours.iter_mut().enumerate() {
        *four = dot_4(&first[4 * i * row_bytes..]);
    }
    for (i, one) in rest.iter_mut().enumerate() {
        [*one] = dot_1(&last[i * row_bytes..]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn gemv_i2s_i8(codes: &[u8], row_bytes: usize, x: &TileActs, out: &mut [i32]) {
    x.assert_fits(codes, row_bytes, out.len());
    by_rows(codes, row_bytes, out, |w| dot_i2s_i8(w, row_bytes, x), |w| dot_i2s_i8(w, row_bytes, x));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn gemv_i2s_i8_vnni(codes: &[u8], row_bytes: usize, x: &TileActs, out: &mut [i32]) {
    x.assert_fits(codes, row_bytes, out.len());
    by_rows(
        codes,
        row_bytes,
        out,
        |w| dot_i2s_i8_vnni(w, row_bytes, x),
        |w| dot_i2s_i8_vnni(w, row_bytes, x),
    );
}

/// Tile `t` of a row; the missing half of a last half-tile is code 0, whose products are 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_tile(row: (&[[u8; TILE_BYTES]], &[u8]), t: usize) -> __m512i {
    match row.0.get(t) {
        Some(tile) => {
            prefetch(tile);
            load_bytes(tile)
        }
        None => load_some_bytes(row.1),
    }
}

/// The four runs of activations that meet fields 0, 1, 2, 3 of a tile.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_acts(tile: &[i8; TILE]) -> [__m512i; 4] {
    let runs = tile.as_chunks::<TILE_BYTES>().0;
    [load_i8(&runs[0]), load_i8(&runs[1]), load_i8(&runs[2]), load_i8(&runs[3])]
}

/// `R` rows with `maddubs`.
///
/// One shift for four fields: of `w` and `w >> 4`, the low field is taken as it is and the next one as 4 · code.
///
/// No overflow: `maddubs` multiplies codes 0..=3 with −128..=127 and adds two products: at most 2 · 3 · 128 = 768 in
/// magnitude for a low field and 3072 for a high one. Five tiles add ten of each in i16: 7680 and 30 720 < 32 768. The
/// high sum is a multiple of 4: shifted, it is at most 7680, both together 15 360; then they are widened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn dot_i2s_i8<const R: usize>(rows: &[u8], row_bytes: usize, x: &TileActs) -> [i32; R] {
    const TILES: usize = 5;
    let rows: [_; R] = from_fn(|r| rows[r * row_bytes..][..row_bytes].as_chunks());
    let tiles = x.values().as_chunks::<TILE>().0;
    let (low_field, high_field) = (_mm512_set1_epi8(3), _mm512_set1_epi8(12));
    let mut sums = [_mm512_setzero_si512(); R];
    for (block, tiles) in tiles.chunks(TILES).enumerate() {
        let (mut low, mut high) = ([_mm512_setzero_si512(); R], [_mm512_setzero_si512(); R]);
        for (t, x) in tiles.iter().enumerate() {
            let x = load_acts(x);
            for r in 0..R {
                let w = load_tile(rows[r], TILES * block + t);
                for (w, x) in [(w, [x[0], x[1]]), (_mm512_srli_epi16::<4>(w), [x[2], x[3]])] {
                    let product = _mm512_maddubs_epi16(_mm512_and_si512(w, low_field), x[0]);
                    low[r] = _mm512_add_epi16(low[r], product);
                    let product = _mm512_maddubs_epi16(_mm512_and_si512(w, high_field), x[1]);
                    high[r] = _mm512_add_epi16(high[r], product);
                }
            }
        }
        for r in 0..R {
            let narrow = _mm512_add_epi16(low[r], _mm512_srai_epi16::<2>(high[r]));
            sums[r] = _mm512_add_epi32(sums[r], _mm512_madd_epi16(narrow, _mm512_set1_epi16(1)));
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        out[r] = _mm512_reduce_add_epi32(sums[r]) - x.sum();
    }
    out
}

/// `R` rows with `dpbusd`, which does not saturate.
///
/// No shift at all: field `f` is taken in its place, as 4^f · code, and summed for itself.
///
/// No overflow: a lane adds four products a tile, of field 3 at most 4 · (64 · max code) · 128 = 256 · max code · 128 in
/// magnitude, and a tile is 256 columns: no lane exceeds cols · max code · 128, which the model loader keeps below 2^31.
/// Each sum is a multiple of 4^f: shifted and added, the four have the bound of the scalar kernel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_i2s_i8_vnni<const R: usize>(rows: &[u8], row_bytes: usize, x: &TileActs) -> [i32; R] {
    let rows: [_; R] = from_fn(|r| rows[r * row_bytes..][..row_bytes].as_chunks());
    let fields = [0x03, 0x0c, 0x30, 0xc0_u8.cast_signed()].map(|field| _mm512_set1_epi8(field));
    let mut sums = [[_mm512_setzero_si512(); 4]; R];
    for (t, x) in x.values().as_chunks::<TILE>().0.iter().enumerate() {
        let x = load_acts(x);
        for r in 0..R {
            let w = load_tile(rows[r], t);
            for f in 0..4 {
                sums[r][f] = _mm512_dpbusd_epi32(sums[r][f], _mm512_and_si512(w, fields[f]), x[f]);
            }
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        let low = _mm512_add_epi32(sums[r][0], _mm512_srai_epi32::<2>(sums[r][1]));
        let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(sums[r][2]), _mm512_srai_epi32::<6>(sums[r][3]));
        out[r] = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high)) - x.sum();
    }
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn gemv_f16_f32(w: &[u8], x: &[f32], out: &mut [f32]) {
    let whole = |w: &[u8; 64]| {
        let w = w.as_chunks::<32>().0;
        [load_f16(&w[0]), load_f16(&w[1])]
    };
    let some = |w: &[u8]| {
        let (low, high) = w.split_at(w.len().min(32));
        [load_some_f16(low), load_some_f16(high)]
    };
    gemv(w, x, out, whole, some);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn gemv_f32_f32(w: &[u8], x: &[f32], out: &mut [f32]) {
    let whole = |w: &[u8; 128]| {
        let w = w.as_chunks::<64>().0;
        [_mm512_castsi512_ps(load_bytes(&w[0])), _mm512_castsi512_ps(load_bytes(&w[1]))]
    };
    let some = |w: &[u8]| {
        let (low, high) = w.split_at(w.len().min(64));
        [_mm512_castsi512_ps(load_some_bytes(low)), _mm512_castsi512_ps(load_some_bytes(high))]
    };
    gemv(w, x, out, whole, some);
}

/// Rows of float weights, of which `ROUND` bytes are 32: `whole` loads that many, `some` what is left of a row.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn gemv<const ROUND: usize>(
    w: &[u8],
    x: &[f32],
    out: &mut [f32],
    whole: impl Fn(&[u8; ROUND]) -> Lanes,
    some: impl Fn(&[u8]) -> Lanes,
) {
    let row_bytes = ROUND / 32 * x.len();
    assert_rows(w, row_bytes, out.len());
    by_rows(w, row_bytes, out, |w| dot_rows(w, x, &whole, &some), |w| dot_rows(w, x, &whole, &some));
}

/// `R` rows at a time, each in its own 32 lanes: four rows hide the latency of the fma.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn dot_rows<const R: usize, const ROUND: usize>(
    w: &[u8],
    x: &[f32],
    whole: &impl Fn(&[u8; ROUND]) -> Lanes,
    some: &impl Fn(&[u8]) -> Lanes,
) -> [f32; R] {
    let row_bytes = ROUND / 32 * x.len();
    let (rounds, tail) = x.as_chunks::<32>();
    let rows: [_; R] = from_fn(|r| w[r * row_bytes..][..row_bytes].as_chunks::<ROUND>());
    let mut lanes = [[_mm512_setzero_ps(); 2]; R];
    for (t, x) in rounds.iter().enumerate() {
        let x = load32(x);
        for r in 0..R {
            let w = &rows[r].0[t];
            prefetch(w);
            fma32(&mut lanes[r], whole(w), x);
        }
    }
    let mut out = [0.0; R];
    for r in 0..R {
        if !tail.is_empty() {
            fma32(&mut lanes[r], some(rows[r].1), load32_some(tail));
        }
        out[r] = tree(lanes[r]);
    }
    out
}

#[target_feature(enable = "avx512f,avx512dq")]
fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    let mut lanes = [_mm512_setzero_ps(); 2];
    for (a, b) in a.iter().zip(b) {
        fma32(&mut lanes, load32(a), load32(b));
    }
    if !a_tail.is_empty() {
        fma32(&mut lanes, load32_some(a_tail), load32_some(b_tail));
    }
    tree(lanes)
}

#[target_feature(enable = "avx512f,avx512dq")]
fn sum_f32(a: &[f32]) -> f32 {
    let (rounds, tail) = a.as_chunks::<32>();
    let mut lanes = [_mm512_setzero_ps(); 2];
    let add = |lanes: &mut Lanes, a: Lanes| {
        for i in 0..2 {
            lanes[i] = _mm512_add_ps(lanes[i], a[i]);
        }
    };
    for a in rounds {
        add(&mut lanes, load32(a));
    }
    if !tail.is_empty() {
        add(&mut lanes, load32_some(tail));
    }
    tree(lanes)
}

#[target_feature(enable = "avx512f")]
fn max_f32(a: &[f32]) -> f32 {
    let (blocks, tail) = a.as_chunks::<16>();
    let mut m = _mm512_set1_ps(f32::NEG_INFINITY);
    for block in blocks {
        m = _mm512_max_ps(m, load(block));
    }
    m = _mm512_mask_max_ps(m, mask(tail.len()), m, load_some(tail));
    // −0 + 0 = +0.
    _mm512_reduce_max_ps(m) + 0.0
}

#[target_feature(enable = "avx512f")]
fn find_non_finite(a: &[f32]) -> Option<usize> {
    let exponent = _mm512_set1_epi32(0x7f80_0000);
    for (i, block) in a.chunks(16).enumerate() {
        let bits = _mm512_and_si512(_mm512_castps_si512(load_some(block)), exponent);
        let bad = _mm512_cmpeq_epi32_mask(bits, exponent);
        if bad != 0 {
            return Some(16 * i + bad.trailing_zeros() as usize);
        }
    }
    None
}

#[target_feature(enable = "avx512f,avx512dq")]
fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((x.len(), w.len()), (out.len(), out.len()));
    let r = _mm512_set1_ps(1.0 / (dot_f32(x, x) / x.len() as f32 + eps).sqrt());
    map2(x, w, out, |x, w| _mm512_mul_ps(_mm512_mul_ps(x, r), w));
}

/// [`crate::exact::exp::exp`] of sixteen values.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    let x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(MIN)), _mm512_set1_ps(MAX));
    let k = _mm512_mul_ps(x, _mm512_set1_ps(LOG2_E));
    let k = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(k);
    let r = _mm512_fnmadd_ps(k, _mm512_set1_ps(LN2_HIGH), x);
    let r = _mm512_fnmadd_ps(k, _mm512_set1_ps(LN2_LOW), r);
    let mut p = _mm512_set1_ps(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
    }
    let y = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0));
    let power = _mm512_slli_epi32::<23>(_mm512_cvtps_epi32(k));
    let y = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), power));
    _mm512_mask_blend_ps(nan, y, _mm512_set1_ps(f32::from_bits(0x7fc0_0000)))
}

#[target_feature(enable = "avx512f")]
fn exp_f32(x: &mut [f32]) {
    map(x, |v| exp(v));
}

#[target_feature(enable = "avx512f,avx512dq")]
fn silu_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    let (one, sign) = (_mm512_set1_ps(1.0), _mm512_set1_ps(-0.0));
    map2(g, u, out, |g, u| {
        let below = _mm512_add_ps(one, exp(_mm512_xor_ps(g, sign)));
        _mm512_mul_ps(_mm512_div_ps(g, below), u)
    });
}

#[target_feature(enable = "avx512f")]
fn relu2_mul(g: &[f32], u: &[f32], out: &mut [f32]) {
    map2(g, u, out, |g, u| {
        // `maxps` gives its second operand where the first is not the greater: +0 for −0.
        let m = _mm512_max_ps(g, _mm512_setzero_ps());
        _mm512_mul_ps(_mm512_mul_ps(m, m), u)
    });
}

#[target_feature(enable = "avx512f,avx512dq")]
fn softmax(s: &mut [f32]) {
    let m = _mm512_set1_ps(max_f32(s));
    map(s, |v| exp(_mm512_sub_ps(v, m)));
    let z = _mm512_set1_ps(sum_f32(s));
    map(s, |v| _mm512_div_ps(v, z));
}

#[target_feature(enable = "avx512f")]
fn scale_f32(x: &mut [f32], f: f32) {
    let f = _mm512_set1_ps(f);
    map(x, |v| _mm512_mul_ps(v, f));
}

#[target_feature(enable = "avx512f")]
fn add_f32(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    for (x, y) in x.chunks_mut(16).zip(y.chunks(16)) {
        store_some(x, _mm512_add_ps(load_some(x), load_some(y)));
    }
}

#[target_feature(enable = "avx512f")]
fn rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    let (x0, x1) = x[..2 * n].split_at_mut(n);
    for (((x0, x1), c), s) in x0.chunks_mut(16).zip(x1.chunks_mut(16)).zip(cos.chunks(16)).zip(sin.chunks(16))
    {
        let (a, b, c, s) = (load_some(x0), load_some(x1), load_some(c), load_some(s));
        store_some(x0, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        store_some(x1, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
    }
}

/// Even elements become `x0·c − (x1·s)`, odd ones `x0·s + (x1·c)`: `fmaddsub` does both.
#[target_feature(enable = "avx512f")]
fn rope_pairs(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    assert!(sin.len() == n && x.len() >= 2 * n);
    // Index i is cos i, index 16 + i is sin i: c0 s0 c1 s1 … c7 s7.
    let pairs = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    for ((x, c), s) in x[..2 * n].chunks_mut(16).zip(cos.chunks(8)).zip(sin.chunks(8)) {
        let turn = _mm512_permutex2var_ps(load_some(c), pairs, load_some(s));
        let v = load_some(x);
        let swapped = _mm512_permute_ps::<0b10_11_00_01>(turn);
        let cross = _mm512_mul_ps(_mm512_movehdup_ps(v), swapped);
        store_some(x, _mm512_fmaddsub_ps(_mm512_moveldup_ps(v), turn, cross));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn quantise_i8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let mut m = [_mm512_set1_ps(I8_FLOOR); 2];
    let (rounds, tail) = x.as_chunks::<32>();
    for round in rounds {
        let v = load32(round);
        for i in 0..2 {
            m[i] = _mm512_max_ps(m[i], _mm512_abs_ps(v[i]));
        }
    }
    let v = load32_some(tail);
    for i in 0..2 {
        m[i] = _mm512_max_ps(m[i], _mm512_abs_ps(v[i]));
    }
    let s = 127.0 / _mm512_reduce_max_ps(_mm512_max_ps(m[0], m[1]));
    let factor = _mm512_set1_ps(s);
    for (x, q) in x.chunks(16).zip(q.chunks_mut(16)) {
        // `cvtps` rounds ties to even; the narrowing saturates, which is the clamp.
        let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load_some(x), factor));
        store_some_i8(q, _mm512_cvtsepi32_epi8(rounded));
    }
    s
}

#[target_feature(enable = "avx512f")]
fn dequantise_i32(acc: &[i32], s: f32, w_scale: f32, out: &mut [f32]) {
    assert_eq!(acc.len(), out.len());
    let (divisor, factor) = (_mm512_set1_ps(s), _mm512_set1_ps(w_scale));
    for (acc, out) in acc.chunks(16).zip(out.chunks_mut(16)) {
        let quotient = _mm512_div_ps(_mm512_cvtepi32_ps(load_some_i32(acc)), divisor);
        store_some(out, _mm512_mul_ps(quotient, factor));
    }
}

/// Finds the first that is no finite f16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn narrow_f16(x: &[f32], out: &mut [u8]) -> Option<usize> {
    assert_eq!(2 * x.len(), out.len());
    let exponent = _mm256_set1_epi16(0x7c00);
    let mut first = None;
    for (i, (x, out)) in x.chunks(16).zip(out.chunks_mut(32)).enumerate() {
        let narrow = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(load_some(x));
        store_some_f16(out, narrow);
        let bad = _mm256_cmpeq_epi16_mask(_mm256_and_si256(narrow, exponent), exponent);
        if bad != 0 && first.is_none() {
            first = Some(16 * i + bad.trailing_zeros() as usize);
        }
    }
    first
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen_f16(x: &[u8], out: &mut [f32]) {
    assert_eq!(x.len(), 2 * out.len());
    for (x, out) in x.chunks(32).zip(out.chunks_mut(16)) {
        store_some(out, load_some_f16(x));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn weigh_f16(p: &[f32], v: &[u8], out: &mut [f32]) {
    let d = out.len();
    assert_rows(v, 2 * d, p.len());
    let mut at = 0;
    while at + 128 <= d {
        weigh_block::<8>(p, v, at, &mut out[at..at + 128], d);
        at += 128;
    }
    while at < d {
        let n = (d - at).min(64);
        weigh_block::<4>(p, v, at, &mut out[at..at + n], d);
        at += n;
    }
}

/// `out.len()` dimensions from `at` on, 16 B at most, in registers over all positions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn weigh_block<const B: usize>(p: &[f32], v: &[u8], at: usize, out: &mut [f32], d: usize) {
    let n = out.len();
    let mut sums = [_mm512_setzero_ps(); B];
    for (chunk, p) in p.chunks(ATTENTION_CHUNK).enumerate() {
        let mut lanes = [_mm512_setzero_ps(); B];
        for (t, p) in p.iter().enumerate() {
            let v = &v[2 * ((chunk * ATTENTION_CHUNK + t) * d + at)..][..2 * n];
            let p = _mm512_set1_ps(*p);
            for b in 0..B {
                lanes[b] = _mm512_fmadd_ps(p, load_some_f16(&v[v.len().min(32 * b)..]), lanes[b]);
            }
        }
        for b in 0..B {
            sums[b] = _mm512_add_ps(sums[b], lanes[b]);
        }
    }
    for b in 0..B {
        store_some(&mut out[n.min(16 * b)..], sums[b]);
    }
}
