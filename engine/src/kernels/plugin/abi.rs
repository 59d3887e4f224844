//! The C ABI of `engine/include/assay_kernel.h`, type for type. The header says what each field means.

use std::ffi::{c_char, c_void};

/// `ASSAY_ABI_VERSION`.
pub const ABI_VERSION: u32 = 1;

/// The symbol that a plug-in exports: [`Entry`].
pub const SYMBOL: &str = "assay_plugin_v1";

/// `ASSAY_OK`.
pub const OK: i32 = 0;
/// `ASSAY_DECLINED`.
pub const DECLINED: i32 = 1;

/// `assay_plugin_v1`.
pub type Entry = unsafe extern "C" fn() -> *const Plugin;

/// `assay_run`.
pub type Run = unsafe extern "C" fn(*const Call) -> i32;

/// `assay_call`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Size of this struct.
    pub struct_size: u32,
    /// [`ABI_VERSION`].
    pub abi_version: u32,
    /// First row of weights.
    pub weights: *const c_void,
    /// Bytes of a row.
    pub weights_row_bytes: u64,
    /// Bytes from row to row.
    pub weights_stride: u64,
    /// Outputs of a token.
    pub rows: u64,
    /// Elements of a row.
    pub cols: u64,
    /// Scale of the whole tensor.
    pub tensor_scale: f32,
    /// Tokens of this call.
    pub tokens: u32,
    /// First token's activations.
    pub activations: *const c_void,
    /// Bytes of a token.
    pub activations_row_bytes: u64,
    /// Bytes from token to token.
    pub activations_stride: u64,
    /// A scale for each token.
    pub activation_scales: *const f32,
    /// First token's outputs.
    pub out: *mut c_void,
    /// Bytes from token to token.
    pub out_stride: u64,
}

/// `assay_kernel`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Size of this struct as the plug-in knows it.
    pub struct_size: u32,
    /// `ASSAY_RESULT_…`.
    pub result: u32,
    /// Name, NUL at its end.
    pub name: *const c_char,
    /// Weight format.
    pub weights: *const c_char,
    /// Activation format.
    pub activations: *const c_char,
    /// Tokens taken at once.
    pub max_tokens: u32,
    /// Row lengths taken.
    pub cols_multiple: u32,
    /// Alignment of each row.
    pub weights_align: u32,
    /// Alignment of each token.
    pub activations_align: u32,
    /// Alignment of each token's outputs.
    pub out_align: u32,
    /// Bound of a close result.
    pub relative_bound: f32,
    /// The kernel; a null pointer is `None`.
    pub run: Option<Run>,
}

/// `assay_plugin`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Plugin {
    /// Size of this struct as the plug-in knows it.
    pub struct_size: u32,
    /// [`ABI_VERSION`].
    pub abi_version: u32,
    /// Name, NUL at its end.
    pub name: *const c_char,
    /// Version, NUL at its end.
    pub version: *const c_char,
    /// Kernels.
    pub kernel_count: u64,
    /// A pointer for each.
    pub kernels: *const *const Kernel,
}

// The layout of the header on every 64-bit machine: a change here is a change of the ABI.
const _: () = {
    assert!(size_of::<Call>() == 104 && size_of::<Kernel>() == 64 && size_of::<Plugin>() == 40);
    assert!(std::mem::offset_of!(Call, tensor_scale) == 48 && std::mem::offset_of!(Call, out) == 88);
};
