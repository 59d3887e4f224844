//! A plug-in with a right kernel, in Rust, in one file without dependencies: weights QK256 times int8 activations.
//!
//! ```text
//! rustc --edition 2024 -O --crate-type cdylib -o libternary_rust.so examples/plugins/rust/ternary.rs
//! assay kernels check --plugin ./libternary_rust.so
//! ```
//!
//! The types are those of `engine/include/assay_kernel.h`; `assay_engine::kernels::plugin::abi` has them too.

use std::ffi::{c_char, c_void};

#[repr(C)]
pub struct Call {
    struct_size: u32,
    abi_version: u32,
    weights: *const c_void,
    weights_row_bytes: u64,
    weights_stride: u64,
    rows: u64,
    cols: u64,
    tensor_scale: f32,
    tokens: u32,
    activations: *const c_void,
    activations_row_bytes: u64,
    activations_stride: u64,
    activation_scales: *const f32,
    out: *mut c_void,
    out_stride: u64,
}

#[repr(C)]
pub struct Kernel {
    struct_size: u32,
    result: u32,
    name: *const c_char,
    weights: *const c_char,
    activations: *const c_char,
    max_tokens: u32,
    cols_multiple: u32,
    weights_align: u32,
    activations_align: u32,
    out_align: u32,
    relative_bound: f32,
    run: unsafe extern "C" fn(*const Call) -> i32,
}

#[repr(C)]
pub struct Plugin {
    struct_size: u32,
    abi_version: u32,
    name: *const c_char,
    version: *const c_char,
    kernel_count: u64,
    kernels: *const &'static Kernel,
}

// SAFETY: constants that point to constants.
unsafe impl Sync for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

/// `Σ value · q` of one row. QK256: tiles of 256 in 64 bytes, each 128 as in I2_S; what a last tile has too much is zero.
fn dot(row: &[u8], q: &[i8]) -> i32 {
    let mut sum = 0;
    for (bytes, x) in row.chunks(32).zip(q.chunks(128)) {
        for (j, &x) in x.iter().enumerate() {
            let code = bytes[j % 32] >> (6 - 2 * (j / 32)) & 3;
            // |sum| ≤ 128 · columns.
            sum += (i32::from(code) - 1) * i32::from(x);
        }
    }
    sum
}

/// # Safety
/// - `call` points to a call as the header describes it.
unsafe extern "C" fn run(call: *const Call) -> i32 {
    // SAFETY: given by the caller.
    let call = unsafe { &*call };
    let (rows, cols) = (call.rows as usize, call.cols as usize);
    for token in 0..call.tokens as usize {
        // SAFETY: the header says how many bytes there are, and that outputs are aligned to 4.
        let (q, out) = unsafe {
            let q = call.activations.byte_add(token * call.activations_stride as usize).cast::<i8>();
            let out = call.out.byte_add(token * call.out_stride as usize).cast::<i32>();
            (std::slice::from_raw_parts(q, cols), std::slice::from_raw_parts_mut(out, rows))
        };
        for (r, out) in out.iter_mut().enumerate() {
            let at = r * call.weights_stride as usize;
            // SAFETY: as above.
            let row = unsafe {
                let row = call.weights.byte_add(at).cast::<u8>();
                std::slice::from_raw_parts(row, call.weights_row_bytes as usize)
            };
            *out = dot(row, q);
        }
    }
    0
}

static KERNEL: Kernel = Kernel {
    struct_size: size_of::<Kernel>() as u32,
    result: 0,
    name: c"gemv_qk256_i8".as_ptr(),
    weights: c"QK256".as_ptr(),
    activations: c"i8".as_ptr(),
    max_tokens: 4,
    cols_multiple: 0,
    weights_align: 0,
    activations_align: 0,
    out_align: 0,
    relative_bound: 0.0,
    run,
};

static KERNELS: [&Kernel; 1] = [&KERNEL];

static PLUGIN: Plugin = Plugin {
    struct_size: size_of::<Plugin>() as u32,
    abi_version: 1,
    name: c"ternary-rust".as_ptr(),
    version: c"1.0".as_ptr(),
    kernel_count: KERNELS.len() as u64,
    kernels: KERNELS.as_ptr(),
};

/// What Assay looks up.
#[unsafe(no_mangle)]
pub extern "C" fn assay_plugin_v1() -> *const Plugin {
    &PLUGIN
}
