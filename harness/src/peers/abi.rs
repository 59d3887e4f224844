//! What every C interface needs: structs held to what the library's own constructors write, and functions found by name.
//!
//! A library of another release has other structs under the same names, and a call through the wrong one corrupts memory. So
//! each struct stands in its module with the values that the library's own constructor must give, and is held to them before anything else is
//! called: which bytes the constructor writes (the size), and what stands in every field.
#![expect(unsafe_code, reason = "loads shared libraries, and reads what a C function has written")]

use libloading::Library;
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// Memory of the library.
pub(super) type Handle = *mut c_void;
/// `ggml_log_callback`: level, text, user data.
pub(super) type Log = extern "C" fn(c_int, *const c_char, *mut c_void);

/// `ggml_backend_sched_eval_callback`: tensor, whether its data are wanted, user data.
pub(super) type Eval = extern "C" fn(Handle, bool, *mut c_void) -> bool;

/// Structs with the value of each field after the library's constructor.
macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $default:expr,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy)]
        pub(super) struct $name { $(pub(super) $field: $type,)* }

        impl $name {
            /// The first field that has not the value of the constructor.
            fn differs(&self) -> Option<&'static str> {
                $(
                    let expected: $type = $default;
                    if self.$field != expected {
                        return Some(stringify!($field));
                    }
                )*
                None
            }
        }
    )*};
}

/// Functions: library, symbol, type.
macro_rules! functions {
    ($($name:ident = $library:ident $symbol:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// llama.cpp's functions.
        #[derive(Debug)]
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            /// Loaded for as long as the functions are.
            libraries: Libraries,
        }

        impl Api {
            /// # Safety
            /// - the libraries are llama.cpp's, of the release whose types stand here.
            unsafe fn of(libraries: Libraries) -> Result<Api, String> {
                Ok(Api {
                    $($name: {
                        let (path, library) = &libraries.$library;
                        // SAFETY: the type that the release gives this symbol; the caller vouches for the release.
                        let found = unsafe { library.get(stringify!($symbol)) };
                        *found.map_err(|_| not_ours(path, &format!("has no symbol {}", stringify!($symbol))))?
                    },)*
                    libraries,
                })
            }
        }
    };
}

/// Opens a library. `not_ours` says what it means that it cannot be.
///
/// # Safety
/// - code of strangers runs in this process from now on.
pub(super) unsafe fn open(
    path: PathBuf,
    not_ours: fn(&Path, &str) -> String,
) -> Result<(PathBuf, Library), String> {
    let full = path.canonicalize().map_err(|e| not_ours(&path, &format!("cannot be opened: {e}")))?;
    // SAFETY: the caller's promise.
    let library = unsafe { Library::new(&full) };
    library.map(|library| (full, library)).map_err(|e| not_ours(&path, &format!("cannot be loaded: {e}")))
}

/// What a constructor gives.
///
/// # Safety
/// - `construct` writes a whole `T` where it is told.
pub(super) unsafe fn built<T>(construct: impl Fn(*mut c_void)) -> T {
    let mut room = MaybeUninit::<T>::uninit();
    construct(room.as_mut_ptr().cast());
    // SAFETY: the caller's promise.
    unsafe { room.assume_init() }
}

/// Holds a layout to what its constructor writes: the size, and the value of every field.
///
/// # Safety
/// - `construct` writes no more than `ROOM` bytes.
pub(super) unsafe fn held<T>(
    differs: fn(&T) -> Option<&'static str>,
    construct: impl Fn(*mut c_void),
) -> Result<(), String> {
    let name = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
    // Bytes that are the same over two backgrounds are those that were written; padding at the end may not be.
    let over = |background: u8| {
        let mut room = Room([background; ROOM]);
        construct(room.0.as_mut_ptr().cast());
        room
    };
    let (low, high) = (over(0), over(255));
    let written = (0..ROOM).rfind(|&i| low.0[i] == high.0[i]).map_or(0, |last| last + 1);
    let size = size_of::<T>();
    if written > size || written + align_of::<T>() <= size {
        return Err(format!("its {name} has {written} bytes, expected {size}"));
    }
    // SAFETY: the room is as large and as aligned, and every field is one that takes any bits.
    let value = unsafe { low.0.as_ptr().cast::<T>().read() };
    match differs(&value) {
        Some(field) => {
            Err(format!("the field {field} of its {name} has not the value that the release gives it"))
        }
        None => Ok(()),
    }
}

const ROOM: usize = 4096;

#[repr(align(64))]
struct Room([u8; ROOM]);
