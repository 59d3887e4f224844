//! A plug-in with the ABI of this version: the library, its declarations, and what is refused.
#![expect(unsafe_code, reason = "loads a shared library and reads what it declares through pointers")]

use super::{Code, Declared, Kernel, Loaded, ResultKind, abi};
use crate::error::{Error, Result};
use libloading::Library;
use std::collections::BTreeSet;
use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;

/// Longest name or version.
const TEXT_MAX: usize = 64;
/// Most kernels of a plug-in.
const KERNELS_MAX: u64 = 1024;
/// Largest alignment that a kernel may ask for: a page.
const ALIGN_MAX: u32 = 4096;

const FIX: &str = "see engine/include/assay_kernel.h and docs/plugins.md";

pub(super) fn refused(path: &Path, problem: impl Into<String>, advice: &'static str) -> Error {
    Error::Plugin { path: path.display().to_string(), problem: problem.into(), advice }
}

/// What the loader says, in one line.
pub(super) fn reason(error: &libloading::Error) -> String {
    use std::error::Error as _;
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    text.replace('\n', " ")
}

/// Loads the plug-in at `path`.
///
/// # Errors
/// - [`Error::File`] if there is no such file; [`Error::Plugin`] if it is no shared library for this machine, does not
///   export `assay_plugin_v1`, is of another version of the ABI, or declares what makes no sense.
///
/// # Safety
/// - The library's code runs in this process from now on. The caller vouches that its constructors, its entry and its
///   kernels do what `assay_kernel.h` says and no more; or accepts, as a child process made for it does, that this
///   process dies or is corrupted.
pub unsafe fn open(path: &Path) -> Result<Loaded> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, &e))?;
    if !metadata.is_file() {
        return Err(refused(path, "is not a regular file", "name a shared library"));
    }
    // A bare name would be looked for in the system's folders.
    let full = std::fs::canonicalize(path).map_err(|e| Error::file(path, &e))?;
    // SAFETY: the caller vouches for the library's code.
    let library = unsafe { Library::new(&full) }.map_err(|e| {
        let advice =
            "build it as a shared library for this machine (cc -shared -fPIC, crate-type = [\"cdylib\"])";
        refused(path, format!("cannot be loaded: {}", reason(&e)), advice)
    })?;
    // SAFETY: a symbol of this name has the type that the header gives it, by the same promise.
    let entry = unsafe { library.get::<abi::Entry>(abi::SYMBOL) };
    let entry = *entry.map_err(|_| {
        let advice = "export it with C linkage: const assay_plugin *assay_plugin_v1(void); a library of llama.cpp or \
                      bitnet.cpp is loaded with --peer";
        refused(path, format!("has no symbol {}", abi::SYMBOL), advice)
    })?;
    // SAFETY: as above; it takes nothing.
    let declared = unsafe { entry() };
    let reader = Reader { path };
    // SAFETY: what the entry returns lives as long as the library and is laid out as the header says.
    let (name, version, kernels) = unsafe { reader.plugin(declared) }?;
    let libraries = Arc::new(vec![library]);
    let kernel = |(declared, code)| Kernel { declared, code, _libraries: Arc::clone(&libraries) };
    Ok(Loaded { name, version, kernels: kernels.into_iter().map(kernel).collect() })
}

/// Reads declarations through pointers of the plug-in.
struct Reader<'a> {
    path: &'a Path,
}

type Parts = (String, String, Vec<(Declared, Code)>);

impl Reader<'_> {
    fn refuse<T>(&self, problem: impl Into<String>) -> Result<T> {
        Err(refused(self.path, problem, FIX))
    }

    /// # Safety
    /// - `plugin` is null or points to an `assay_plugin` of `struct_size` bytes.
    unsafe fn plugin(&self, plugin: *const abi::Plugin) -> Result<Parts> {
        if plugin.is_null() {
            return self.refuse(format!("{} returns a null pointer", abi::SYMBOL));
        }
        // SAFETY: not null; these two fields are in every version.
        let (size, version) = unsafe { ((*plugin).struct_size, (*plugin).abi_version) };
        if version != abi::ABI_VERSION {
            let known = abi::ABI_VERSION;
            let problem =
                format!("was built for version {version} of the plug-in ABI, this program has {known}");
            return Err(refused(self.path, problem, "compile it with the assay_kernel.h of this release"));
        }
        if (size as usize) < size_of::<abi::Plugin>() {
            return self.refuse(format!("assay_plugin.struct_size is {size}, expected sizeof(assay_plugin)"));
        }
        // SAFETY: as large as the struct that is read.
        let plugin = unsafe { *plugin };
        // SAFETY: the strings of a plug-in are as its kernels'.
        let (name, version) =
            unsafe { (self.name("assay_plugin.name", plugin.name)?, self.text(plugin.version)) };
        let Some(version) = version else { return self.refuse("assay_plugin.version is not a short text") };
        let count = plugin.kernel_count;
        if count == 0 || count > KERNELS_MAX || plugin.kernels.is_null() {
            return self.refuse(format!("lists {count} kernels, expected 1 to {KERNELS_MAX}"));
        }
        let mut names = BTreeSet::new();
        let mut kernels = Vec::new();
        for index in 0..count as usize {
            // SAFETY: the array has `count` pointers.
            let kernel = unsafe { self.kernel(index, *plugin.kernels.add(index)) }?;
            if !names.insert(kernel.0.name.clone()) {
                return self.refuse(format!("has two kernels of the name '{}'", kernel.0.name));
            }
            kernels.push(kernel);
        }
        Ok((name, version, kernels))
    }

    /// # Safety
    /// - `kernel` is null or points to an `assay_kernel` of `struct_size` bytes.
    unsafe fn kernel(&self, index: usize, kernel: *const abi::Kernel) -> Result<(Declared, Code)> {
        if kernel.is_null() {
            return self.refuse(format!("kernel {index} is a null pointer"));
        }
        // SAFETY: not null; the first field is in every version.
        let size = unsafe { (*kernel).struct_size };
        if (size as usize) < size_of::<abi::Kernel>() {
            let problem = format!("kernel {index}: struct_size is {size}, expected sizeof(assay_kernel)");
            return self.refuse(problem);
        }
        // SAFETY: as large as the struct that is read.
        let kernel = unsafe { *kernel };
        // SAFETY: the strings of a kernel end with NUL and live as long as the library.
        let [name, weights, activations] = unsafe {
            [
                self.name(&format!("name of kernel {index}"), kernel.name)?,
                self.name(&format!("weights of kernel {index}"), kernel.weights)?,
                self.name(&format!("activations of kernel {index}"), kernel.activations)?,
            ]
        };
        let Some(run) = kernel.run else { return self.refuse(format!("kernel '{name}': run is null")) };
        let Some(result) = ResultKind::ALL.get(kernel.result as usize).copied() else {
            return self.refuse(format!("kernel '{name}': result is {}, expected 0 to 2", kernel.result));
        };
        let align = |what: &str, align: u32, default: u32| {
            let align = if align == 0 { default } else { align };
            if align.is_power_of_two() && align <= ALIGN_MAX {
                return Ok(align as usize);
            }
            self.refuse(format!(
                "kernel '{name}': {what} is {align}, expected a power of two up to {ALIGN_MAX}"
            ))
        };
        let bound = kernel.relative_bound;
        if !(0.0..=0.01).contains(&bound) {
            return self.refuse(format!("kernel '{name}': relative_bound is {bound}, expected 0 to 0.01"));
        }
        let declared = Declared {
            result,
            max_tokens: kernel.max_tokens.max(1) as usize,
            cols_multiple: kernel.cols_multiple.max(1) as usize,
            weights_align: align("weights_align", kernel.weights_align, 1)?,
            activations_align: align("activations_align", kernel.activations_align, 1)?,
            out_align: align("out_align", kernel.out_align, 4)?.max(4),
            relative_bound: (bound > 0.0).then_some(bound),
            name,
            weights,
            activations,
        };
        Ok((declared, Code::Plugin(run)))
    }

    /// # Safety
    /// - as [`Reader::text`].
    unsafe fn name(&self, what: &str, text: *const c_char) -> Result<String> {
        let fits = |text: &String| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/+-".contains(&b))
        };
        // SAFETY: given by the caller.
        match unsafe { self.text(text) }.filter(fits) {
            Some(name) => Ok(name),
            None => self.refuse(format!("{what} is not 1 to {TEXT_MAX} of A-Z a-z 0-9 . _ / + -")),
        }
    }

    /// The text, if it is UTF-8 of at most [`TEXT_MAX`] bytes.
    ///
    /// # Safety
    /// - `text` is null or readable up to its NUL or, if that is further, for `TEXT_MAX + 1` bytes.
    unsafe fn text(&self, text: *const c_char) -> Option<String> {
        if text.is_null() {
            return None;
        }
        let mut bytes = Vec::new();
        for at in 0..=TEXT_MAX {
            // `c_char` is signed or not, as the architecture has it.
            // SAFETY: no byte before was the NUL.
            match unsafe { *text.add(at) }.to_ne_bytes() {
                [0] => return String::from_utf8(bytes).ok(),
                [byte] => bytes.push(byte),
            }
        }
        None
    }
}
