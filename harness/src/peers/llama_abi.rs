//! The C interface of llama.cpp v0.5.0, as far as it is used: the layouts, in one place.
#![expect(unsafe_code, reason = "loads shared libraries and calls them through function pointers")]

use super::abi::{Handle, Log, held, open};
use crate::plugins::peers::{LLAMA_VERSION, PACKAGE, PACKAGE_VERSION};
use assay_engine::kernels::plugin::llama::path_of;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// `ggml_log_level`: an error.
pub(super) const LOG_ERROR: c_int = 4;
/// `LLAMA_LOAD_MODE_MMAP`
pub(super) const LOAD_MMAP: c_int = 1;
/// `LLAMA_FLASH_ATTN_TYPE_DISABLED`
pub(super) const FLASH_ATTENTION_OFF: c_int = 0;
/// `GGML_TYPE_F16`
pub(super) const F16: c_int = 1;
/// Tokens whose number and address show where a constructor puts them.
static SAMPLE: [i32; 3] = [7, 8, 9];

layouts! {
    /// `llama_model_params`
    ModelParams {
        devices: *const c_void = std::ptr::null(),
        tensor_buft_overrides: *const c_void = std::ptr::null(),
        n_gpu_layers: i32 = -1,
        split_mode: c_int = 1,
        load_mode: c_int = -1,
        lazy_mode: c_int = 1,
        main_gpu: i32 = 0,
        tensor_split: *const f32 = std::ptr::null(),
        progress_callback: *const c_void = std::ptr::null(),
        progress_callback_user_data: *const c_void = std::ptr::null(),
        kv_overrides: *const c_void = std::ptr::null(),
        vocab_only: u8 = 0,
        check_tensors: u8 = 0,
        use_extra_bufts: u8 = 1,
        no_host: u8 = 0,
        no_alloc: u8 = 0,
        load_mtp: u8 = 0,
    }
    /// `llama_context_params`
    ContextParams {
        n_ctx: u32 = 512,
        n_batch: u32 = 2048,
        n_ubatch: u32 = 512,
        n_seq_max: u32 = 1,
        n_rs_seq: u32 = 0,
        n_outputs_max: u32 = 0,
        n_outputs_max_per_seq: u32 = 1,
        n_threads: i32 = 4,
        n_threads_batch: i32 = 4,
        ctx_type: c_int = 0,
        rope_scaling_type: c_int = -1,
        pooling_type: c_int = -1,
        attention_type: c_int = -1,
        flash_attn_type: c_int = -1,
        rope_freq_base: f32 = 0.0,
        rope_freq_scale: f32 = 0.0,
        yarn_ext_factor: f32 = -1.0,
        yarn_attn_factor: f32 = -1.0,
        yarn_beta_fast: f32 = -1.0,
        yarn_beta_slow: f32 = -1.0,
        yarn_orig_ctx: u32 = 0,
        defrag_thold: f32 = -1.0,
        cb_eval: *const c_void = std::ptr::null(),
        cb_eval_user_data: *mut c_void = std::ptr::null_mut(),
        type_k: c_int = F16,
        type_v: c_int = F16,
        abort_callback: *const c_void = std::ptr::null(),
        abort_callback_data: *const c_void = std::ptr::null(),
        embeddings: u8 = 0,
        offload_kqv: u8 = 1,
        no_perf: u8 = 1,
        op_offload: u8 = 1,
        swa_full: u8 = 1,
        kv_unified: u8 = 0,
        samplers: *const c_void = std::ptr::null(),
        n_samplers: usize = 0,
        ctx_other: *const c_void = std::ptr::null(),
    }
    /// `ggml_threadpool_params`, for as many threads as `SAMPLE` has tokens
    PoolParams {
        cpumask: [u8; 512] = [0; 512],
        n_threads: c_int = SAMPLE.len() as c_int,
        prio: c_int = 0,
        poll: u32 = 50,
        strict_cpu: u8 = 0,
        paused: u8 = 0,
    }
    /// `llama_batch`: no positions (each token follows the last), no wish for outputs (the logits of the last alone)
    Batch {
        n_tokens: i32 = SAMPLE.len() as i32,
        token: *const i32 = SAMPLE.as_ptr(),
        embd: *const f32 = std::ptr::null(),
        pos: *const i32 = std::ptr::null(),
        n_seq_id: *const i32 = std::ptr::null(),
        seq_id: *const c_void = std::ptr::null(),
        logits: *const i8 = std::ptr::null(),
    }
}

const _: () = assert!(size_of::<ModelParams>() == 80 && size_of::<ContextParams>() == 160);
const _: () = assert!(size_of::<PoolParams>() == 528 && size_of::<Batch>() == 56);

// A struct that C returns by value goes, on x86-64, where a hidden first pointer says: so the constructors stand here.
functions! {
    version_text = llama llama_version() -> *const c_char;
    log_set = llama llama_log_set(Option<Log>, *mut c_void);
    backend_init = llama llama_backend_init();
    model_params = llama llama_model_default_params(*mut c_void) -> *mut c_void;
    context_params = llama llama_context_default_params(*mut c_void) -> *mut c_void;
    batch_of = llama llama_batch_get_one(*mut c_void, *const i32, i32) -> *mut c_void;
    pool_params = base ggml_threadpool_params_init(*mut c_void, c_int);
    node_name = base ggml_get_name(Handle) -> *const c_char;
    node_op = base ggml_op_desc(Handle) -> *const c_char;
    node_elements = base ggml_nelements(Handle) -> i64;
    node_bytes = base ggml_nbytes(Handle) -> usize;
    node_data = base ggml_get_data_f32(Handle) -> *mut f32;
    backend_load = ggml ggml_backend_load(*const c_char) -> Handle;
    model_load = llama llama_model_load_from_file(*const c_char, ModelParams) -> Handle;
    model_desc = llama llama_model_desc(Handle, *mut c_char, usize) -> i32;
    model_vocab = llama llama_model_get_vocab(Handle) -> Handle;
    vocab_tokens = llama llama_vocab_n_tokens(Handle) -> i32;
    context_new = llama llama_init_from_model(Handle, ContextParams) -> Handle;
    context_size = llama llama_n_ctx(Handle) -> u32;
    memory = llama llama_get_memory(Handle) -> Handle;
    memory_clear = llama llama_memory_clear(Handle, bool);
    memory_remove = llama llama_memory_seq_rm(Handle, i32, i32, i32) -> bool;
    decode = llama llama_decode(Handle, Batch) -> i32;
    synchronize = llama llama_synchronize(Handle);
    logits = llama llama_get_logits_ith(Handle, i32) -> *const f32;
    pool_attach = llama llama_attach_threadpool(Handle, Handle, Handle);
    pool_new = cpu ggml_threadpool_new(*const PoolParams) -> Handle;
    pool_pause = cpu ggml_threadpool_pause(Handle);
}

/// The libraries with their paths. The last three are found by the others beside them.
#[derive(Debug)]
struct Libraries {
    base: (PathBuf, Library),
    ggml: (PathBuf, Library),
    llama: (PathBuf, Library),
    cpu: (PathBuf, Library),
}

pub(super) fn not_ours(path: &Path, problem: &str) -> String {
    format!(
        "{}: {problem}; the layouts here are those of llama.cpp {LLAMA_VERSION} in {PACKAGE} {PACKAGE_VERSION}: get it \
         with: assay reference install llama.cpp",
        path.display()
    )
}

/// The package names the release in its files; a user's build may not.
fn named(folder: &Path, name: &str) -> PathBuf {
    let plain = folder.join(format!("{name}.so"));
    if plain.is_file() { plain } else { folder.join(format!("{name}.{LLAMA_VERSION}.so")) }
}

impl Api {
    /// Loads the libraries in `folder` and holds every layout to them.
    ///
    /// # Safety
    /// - code of strangers runs in this process from now on.
    pub(super) unsafe fn load(folder: &Path, backend: &str) -> Result<Api, String> {
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            return Err(format!("{PACKAGE} is for x86-64 Linux; run this on such a machine"));
        }
        // SAFETY: the caller's promise.
        let open = |path: PathBuf| unsafe { open(path, not_ours) };
        let libraries = Libraries {
            base: open(folder.join("libggml-base.so"))?,
            ggml: open(named(folder, "libggml"))?,
            llama: open(named(folder, "libllama"))?,
            cpu: open(path_of(folder, backend))?,
        };
        // SAFETY: the caller's promise; which release it is is asked next, by a function that every release has.
        let api = unsafe { Api::of(libraries) }?;
        api.check()?;
        Ok(api)
    }

    /// The files that were loaded.
    pub(super) fn paths(&self) -> [&Path; 4] {
        let Libraries { base, ggml, llama, cpu } = &self.libraries;
        [base, ggml, llama, cpu].map(|(path, _)| path.as_path())
    }

    /// The library's version.
    pub(super) fn version(&self) -> String {
        // SAFETY: it takes nothing and returns a string of the library.
        unsafe { CStr::from_ptr((self.version_text)()) }.to_string_lossy().into_owned()
    }

    /// Holds version and layouts to the library.
    fn check(&self) -> Result<(), String> {
        let (path, version) = (&self.libraries.llama.0, self.version());
        if version.split('-').next() != LLAMA_VERSION.strip_prefix('v') {
            return Err(not_ours(path, &format!("is version {version}")));
        }
        let n = SAMPLE.len() as c_int;
        // SAFETY: each constructor writes its struct where its first argument says, and there is room for a larger one.
        let found = unsafe {
            [
                held(ModelParams::differs, |at| _ = (self.model_params)(at)),
                held(ContextParams::differs, |at| _ = (self.context_params)(at)),
                held(PoolParams::differs, |at| (self.pool_params)(at, n)),
                held(Batch::differs, |at| _ = (self.batch_of)(at, SAMPLE.as_ptr(), n)),
            ]
        };
        found.into_iter().collect::<Result<(), _>>().map_err(|problem| not_ours(path, &problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `bytes` bytes as a constructor would, of which those from `at` are `value`.
    fn writes(bytes: usize, at: usize, value: &[u8]) -> impl Fn(*mut c_void) {
        let mut image = vec![0_u8; bytes];
        image[at..at + value.len()].copy_from_slice(value);
        // SAFETY: `held` gives room for more than any struct of these tests.
        move |to| unsafe { to.cast::<u8>().copy_from_nonoverlapping(image.as_ptr(), bytes) }
    }

    fn pool(bytes: usize, at: usize, value: &[u8]) -> Result<(), String> {
        // SAFETY: the constructor above writes what it is told, less than `ROOM`.
        unsafe { held(PoolParams::differs, writes(bytes, at, value)) }
    }

    #[test]
    fn a_layout_is_held_to_its_size_and_to_every_value() {
        let (three, fifty) = (3_u32.to_le_bytes(), 50_u32.to_le_bytes());
        let right = [three, [0; 4], fifty].concat();
        for bytes in [526, 528] {
            assert_eq!(pool(bytes, 512, &right), Ok(()), "{bytes} bytes");
        }
        let larger = pool(536, 512, &right).expect_err("a field more");
        assert_eq!(larger, "its PoolParams has 536 bytes, expected 528");
        let smaller = pool(524, 512, &right).expect_err("two fields less");
        assert_eq!(smaller, "its PoolParams has 524 bytes, expected 528");
        let moved = pool(528, 508, &right).expect_err("fields lie elsewhere");
        assert!(moved.contains("the field cpumask of its PoolParams"), "{moved}");
        let other = pool(528, 512, &[three, [0; 4], three].concat()).expect_err("another value");
        assert!(other.contains("the field poll"), "{other}");
    }

    #[test]
    fn libraries_that_are_not_there_are_named_with_what_fetches_them() {
        let folder = Path::new("/nonexistent");
        // SAFETY: there is nothing to load.
        let error = unsafe { Api::load(folder, "haswell") }.expect_err("nothing is there");
        assert!(error.contains("/nonexistent") || error.contains("x86-64 Linux"), "{error}");
        assert!(
            error.contains("assay reference install llama.cpp") || error.contains("x86-64 Linux"),
            "{error}"
        );
    }
}
