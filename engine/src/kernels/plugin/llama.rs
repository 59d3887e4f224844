//! llama.cpp's CPU backends: `vec_dot` and `from_float` of each weight type, through `ggml_get_type_traits_cpu`.
//!
//! ```text
//! struct ggml_type_traits_cpu {          stride 32, the same in every release since 2024-12
//!     from_float    pointer              floats to blocks of this type
//!     vec_dot       pointer              Σ of two rows
//!     vec_dot_type  int                  what the second row is encoded in
//!     nrows         int64                rows taken at once (1 is always taken)
//! };
//! ```
//!
//! A release has one library per microarchitecture (`libggml-cpu-haswell.so`, …), which all need `libggml-base.so` beside
//! them. Each tells by `ggml_backend_score` whether this processor runs it (0: no) and how well.
#![expect(unsafe_code, reason = "loads shared libraries and calls them through their type traits")]

use super::load::{reason, refused};
use super::{Code, Declared, FromFloat, Kernel, Loaded, ResultKind, VecDot};
use crate::error::{Error, Result};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What comes before and after a backend's name in its file's.
const PREFIX: &str = "libggml-cpu-";
const SUFFIX: &str = ".so";

/// A weight type: number in ggml, its name there, ours, and the activations that its `vec_dot` takes.
struct Type {
    id: c_int,
    ggml: &'static str,
    ours: &'static str,
    activations: &'static Activations,
}

/// An activation type.
struct Activations {
    id: c_int,
    name: &'static str,
    block: usize,
    bytes: usize,
    align: usize,
}

const Q8_0: Activations = Activations { id: 8, name: "q8_0", block: 32, bytes: 34, align: 2 };
const Q8_1: Activations = Activations { id: 9, name: "q8_1", block: 32, bytes: 36, align: 2 };
const Q8_K: Activations = Activations { id: 15, name: "q8_K", block: 256, bytes: 292, align: 4 };

/// One row per weight type.
const TYPES: [Type; 7] = [
    Type { id: 34, ggml: "tq1_0", ours: "TQ1_0", activations: &Q8_K },
    Type { id: 35, ggml: "tq2_0", ours: "TQ2_0", activations: &Q8_K },
    Type { id: 42, ggml: "q2_0", ours: "Q2_0", activations: &Q8_0 },
    Type { id: 8, ggml: "q8_0", ours: "Q8_0", activations: &Q8_0 },
    Type { id: 2, ggml: "q4_0", ours: "Q4_0", activations: &Q8_0 },
    Type { id: 3, ggml: "q4_1", ours: "Q4_1", activations: &Q8_1 },
    Type { id: 14, ggml: "q6_K", ours: "Q6_K", activations: &Q8_K },
];

/// `ggml_type_traits_cpu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Traits {
    from_float: Option<FromFloat>,
    vec_dot: Option<VecDot>,
    vec_dot_type: c_int,
    nrows: i64,
}

const _: () = assert!(size_of::<Traits>() == 32);

type GetTraits = unsafe extern "C" fn(c_int) -> *const Traits;

/// Bytes of `n` activations in a format of ggml's.
pub(super) fn activation_bytes(format: &str, n: usize) -> Option<usize> {
    let row = [Q8_0, Q8_1, Q8_K].into_iter().find(|row| row.name == format)?;
    n.is_multiple_of(row.block).then_some(n / row.block * row.bytes)
}

/// Names of the backends in `folder`, sorted: `haswell`, `icelake`, ….
///
/// # Errors
/// - [`Error::File`] if the folder cannot be read.
pub fn backends(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::file(folder, &e))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let backend = |name: String| Some(name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.to_owned());
    let mut backends: Vec<String> = names.filter_map(backend).collect();
    backends.sort();
    Ok(backends)
}

/// The library of a backend.
pub fn path_of(folder: &Path, backend: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{backend}{SUFFIX}"))
}

/// How well a backend fits this processor by its own account; 0: it cannot run here.
///
/// # Errors
/// - [`Error::Plugin`] if it cannot be loaded.
///
/// # Safety
/// - As [`super::open`].
pub unsafe fn score(folder: &Path, backend: &str) -> Result<i32> {
    // SAFETY: the caller vouches for the libraries.
    let libraries = unsafe { load(folder, backend) }?;
    // SAFETY: the type that ggml gives this symbol.
    let score = unsafe { libraries[1].get::<unsafe extern "C" fn() -> c_int>("ggml_backend_score") };
    // SAFETY: it takes nothing and asks the processor.
    score.map(|score| unsafe { score() }).map_err(|_| lacks(folder, backend, "ggml_backend_score"))
}

fn lacks(folder: &Path, backend: &str, symbol: &str) -> Error {
    refused(
        &path_of(folder, backend),
        format!("has no symbol {symbol}"),
        "use the release that `assay reference install llama.cpp` fetches",
    )
}

/// # Safety
/// - As [`super::open`].
unsafe fn load(folder: &Path, backend: &str) -> Result<Vec<Library>> {
    let open = |path: PathBuf| {
        let full = std::fs::canonicalize(&path).map_err(|e| Error::file(&path, &e))?;
        // SAFETY: the caller vouches for the library's code. Its names stay its own (RTLD_LOCAL), so that backends do
        // not meet each other's.
        let library = unsafe { Library::new(full) };
        library.map_err(|e| {
            let problem = format!("cannot be loaded: {}", reason(&e));
            refused(
                &path,
                problem,
                "libggml-base.so must lie beside it; run: assay reference install llama.cpp",
            )
        })
    };
    Ok(vec![open(folder.join("libggml-base.so"))?, open(path_of(folder, backend))?])
}

/// Loads a backend; its kernels are named `llama.cpp/<backend>/vec_dot_<weights>_<activations>`.
///
/// # Errors
/// - [`Error::Plugin`] if it cannot be loaded, does not run on this processor, or its types are not those that this
///   adapter knows.
///
/// # Safety
/// - As [`super::open`], and the library is of a release with the structs that are drawn above.
pub unsafe fn open(folder: &Path, backend: &str, version: &str) -> Result<Loaded> {
    let path = path_of(folder, backend);
    // SAFETY: the caller vouches for the libraries.
    if unsafe { score(folder, backend) }? == 0 {
        return Err(refused(&path, "does not run on this processor", "choose another backend"));
    }
    // SAFETY: the caller vouches for the libraries.
    let libraries = Arc::new(unsafe { load(folder, backend) }?);
    let missing = |symbol| move |_| lacks(folder, backend, symbol);
    // SAFETY: the types that ggml gives these symbols; the first fills its tables.
    let traits_of = unsafe {
        let init = libraries[1].get::<unsafe extern "C" fn()>("ggml_cpu_init");
        init.map_err(missing("ggml_cpu_init"))?();
        *libraries[1]
            .get::<GetTraits>("ggml_get_type_traits_cpu")
            .map_err(missing("ggml_get_type_traits_cpu"))?
    };
    let mut kernels = Vec::new();
    for row in &TYPES {
        // SAFETY: the type of this symbol in ggml; the number is one that it knows, or the name is not the expected one.
        let name = unsafe { type_name(&libraries[0], row.id) };
        if name.as_deref() != Some(row.ggml) {
            let problem = format!("type {} is {name:?}, expected '{}'", row.id, row.ggml);
            return Err(refused(
                &path,
                problem,
                "use the release that `assay reference install llama.cpp` fetches",
            ));
        }
        // SAFETY: a number within the table, which lives as long as the library.
        let (traits, quantiser) = unsafe { (*traits_of(row.id), *traits_of(row.activations.id)) };
        let Some(vec_dot) = traits.vec_dot else { continue };
        let activations = row.activations;
        if traits.vec_dot_type != activations.id || traits.nrows < 1 {
            let problem =
                format!("{} meets type {}, expected {}", row.ggml, traits.vec_dot_type, activations.id);
            return Err(refused(
                &path,
                problem,
                "use the release that `assay reference install llama.cpp` fetches",
            ));
        }
        let declared = Declared {
            name: format!("llama.cpp/{backend}/vec_dot_{}_{}", row.ggml, activations.name),
            weights: row.ours.to_owned(),
            activations: activations.name.to_owned(),
            result: ResultKind::F32Close,
            max_tokens: 1,
            cols_multiple: activations.block,
            // Blocks hold an f16, which C reads at an even address.
            weights_align: 2,
            activations_align: activations.align,
            out_align: 4,
            relative_bound: None,
        };
        let code = Code::Llama(vec_dot, quantiser.from_float);
        kernels.push(Kernel { declared, code, _libraries: Arc::clone(&libraries) });
    }
    Ok(Loaded { name: format!("llama.cpp/{backend}"), version: version.to_owned(), kernels })
}

/// # Safety
/// - `base` is a libggml-base.
unsafe fn type_name(base: &Library, id: c_int) -> Option<String> {
    // SAFETY: the type of this symbol in ggml; it returns a string of the library for any number.
    unsafe {
        let name = base.get::<unsafe extern "C" fn(c_int) -> *const c_char>("ggml_type_name").ok()?(id);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}
