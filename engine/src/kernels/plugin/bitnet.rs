//! A libggml of bitnet.cpp: any build that exports `ggml_vec_dot_i2_i8_s`.
//!
//! ```text
//! void ggml_vec_dot_i2_i8_s(int n, float *s, size_t bs, const void *x, size_t bx, const void *y, size_t by, int nrc)
//! s[0] = Σ code · q     codes 0, 1, 2 of I2_S, q int8 in natural order
//! ```
//!
//! The program around it subtracts `Σ q`, divides by the activation scale and multiplies by the tensor's; here the kernel
//! is presented as [`ResultKind::I32`]: `Σ code · q − Σ q = Σ value · q`, where the integer that overflowed shows.
#![expect(unsafe_code, reason = "loads a shared library")]

use super::load::{reason, refused};
use super::{Code, Declared, Kernel, Loaded, ResultKind, VecDot};
use crate::error::{Error, Result};
use libloading::Library;
use std::path::Path;
use std::sync::Arc;

/// The symbol.
pub const SYMBOL: &str = "ggml_vec_dot_i2_i8_s";

/// Loads the library at `path`.
///
/// # Errors
/// - [`Error::File`] if there is no such file; [`Error::Plugin`] if it cannot be loaded or lacks the symbol.
///
/// # Safety
/// - As [`super::open`]: the library's code runs in this process, and the symbol has the type that is drawn above.
pub unsafe fn open(path: &Path) -> Result<Loaded> {
    let full = std::fs::canonicalize(path).map_err(|e| Error::file(path, &e))?;
    // SAFETY: the caller vouches for the library's code.
    let library = unsafe { Library::new(full) }.map_err(|e| {
        let advice = "name the libggml.so of a bitnet.cpp build for this machine";
        refused(path, format!("cannot be loaded: {}", reason(&e)), advice)
    })?;
    // SAFETY: the caller vouches for the symbol's type.
    let vec_dot = unsafe { library.get::<VecDot>(SYMBOL) }.map(|symbol| *symbol).map_err(|_| {
        let advice =
            "name the libggml.so of a bitnet.cpp build with I2_S kernels; it may be linked into libllama.so";
        refused(path, format!("has no symbol {SYMBOL}"), advice)
    })?;
    let declared = Declared {
        name: "bitnet.cpp/vec_dot_i2_i8_s".to_owned(),
        weights: "I2_S".to_owned(),
        activations: "i8".to_owned(),
        result: ResultKind::I32,
        max_tokens: 1,
        cols_multiple: 128,
        // Rows of a file are 32-byte aligned at least, and the program allocates its activations.
        weights_align: 32,
        activations_align: 32,
        out_align: 4,
        relative_bound: None,
    };
    let kernel = Kernel { declared, code: Code::BitNet(vec_dot), _libraries: Arc::new(vec![library]) };
    Ok(Loaded { name: "bitnet.cpp".to_owned(), version: "unknown".to_owned(), kernels: vec![kernel] })
}

/// `Σ code · q` as the library gives it, to the bits of the i32 `Σ value · q`. What is no integer in range becomes
/// `i32::MIN`, which no sum here is.
pub(super) fn sum_of_values(raw: f32, q: &[u8]) -> u32 {
    let sum: i32 = q.iter().map(|&q| i32::from(q.cast_signed())).sum();
    let is_integer = raw.fract() == 0.0 && raw.abs() <= 16_777_216.0;
    let value = if is_integer { raw as i32 - sum } else { i32::MIN };
    value.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::sum_of_values;

    #[test]
    fn codes_become_values() {
        // Codes 2, 0, 1 with q = 5, -7, 9.
        let q = [5, (-7_i8).cast_unsigned(), 9];
        assert_eq!(sum_of_values(19.0, &q).cast_signed(), 5 + 7);
        assert_eq!(sum_of_values(0.5, &q).cast_signed(), i32::MIN);
        assert_eq!(sum_of_values(f32::NAN, &q).cast_signed(), i32::MIN);
    }
}
