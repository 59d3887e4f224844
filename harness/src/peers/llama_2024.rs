//! A model in a library with llama.cpp's interface of October 2024, which bitnet.cpp has: layouts, functions, and the model behind safe functions.
//!
//! Source: `llama.h` of that month, and a C program against it that printed offsets and defaults.
#![expect(unsafe_code, reason = "loads shared libraries and calls them through function pointers")]

use super::abi::{Eval, Handle, Log, built, held, open};
use super::llama::{c_path, int, level_of_errors, log, logged};
use super::taps::{Nodes, Taps, watch};
use super::{Facts, Load, Loaded, UBATCH, digests};
use assay_engine::Error;
use libloading::Library;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::path::{Path, PathBuf};

type Result<T, E = String> = std::result::Result<T, E>;

/// `GGML_LOG_LEVEL_ERROR`
const LOG_ERROR: c_int = 3;
/// `GGML_TYPE_F16`
const F16: c_int = 1;
/// Tokens whose number and address show where a constructor puts them.
static SAMPLE: [i32; 3] = [7, 8, 9];

layouts! {
    /// `llama_model_params`
    ModelParams {
        n_gpu_layers: i32 = 0,
        split_mode: c_int = 1,
        main_gpu: i32 = 0,
        tensor_split: *const f32 = std::ptr::null(),
        rpc_servers: *const c_char = std::ptr::null(),
        progress_callback: *const c_void = std::ptr::null(),
        progress_callback_user_data: *const c_void = std::ptr::null(),
        kv_overrides: *const c_void = std::ptr::null(),
        vocab_only: u8 = 0,
        use_mmap: u8 = 1,
        use_mlock: u8 = 0,
        check_tensors: u8 = 0,
    }
    /// `llama_context_params`
    ContextParams {
        n_ctx: u32 = 512,
        n_batch: u32 = 2048,
        n_ubatch: u32 = 512,
        n_seq_max: u32 = 1,
        n_threads: i32 = 4,
        n_threads_batch: i32 = 4,
        rope_scaling_type: c_int = -1,
        pooling_type: c_int = -1,
        attention_type: c_int = -1,
        rope_freq_base: f32 = 0.0,
        rope_freq_scale: f32 = 0.0,
        yarn_ext_factor: f32 = -1.0,
        yarn_attn_factor: f32 = 1.0,
        yarn_beta_fast: f32 = 32.0,
        yarn_beta_slow: f32 = 1.0,
        yarn_orig_ctx: u32 = 0,
        defrag_thold: f32 = -1.0,
        cb_eval: *const c_void = std::ptr::null(),
        cb_eval_user_data: *mut c_void = std::ptr::null_mut(),
        type_k: c_int = F16,
        type_v: c_int = F16,
        logits_all: u8 = 0,
        embeddings: u8 = 0,
        offload_kqv: u8 = 1,
        flash_attn: u8 = 0,
        no_perf: u8 = 1,
        abort_callback: *const c_void = std::ptr::null(),
        abort_callback_data: *const c_void = std::ptr::null(),
    }
    /// `llama_batch`, as `llama_batch_get_one` makes it for the position 5 of the sequence 6
    Batch {
        n_tokens: i32 = SAMPLE.len() as i32,
        token: *const i32 = SAMPLE.as_ptr(),
        embd: *const f32 = std::ptr::null(),
        pos: *const i32 = std::ptr::null(),
        n_seq_id: *const i32 = std::ptr::null(),
        seq_id: *const c_void = std::ptr::null(),
        logits: *const i8 = std::ptr::null(),
        all_pos_0: i32 = 5,
        all_pos_1: i32 = 1,
        all_seq_id: i32 = 6,
    }
}

const _: () = assert!(size_of::<ModelParams>() == 64 && size_of::<ContextParams>() == 120);
const _: () = assert!(size_of::<Batch>() == 72);

// A struct that C returns by value goes, on x86-64, where a hidden first pointer says: so the constructors stand here.
functions! {
    log_set = llama llama_log_set(Option<Log>, *mut c_void);
    backend_init = llama llama_backend_init();
    model_params = llama llama_model_default_params(*mut c_void) -> *mut c_void;
    context_params = llama llama_context_default_params(*mut c_void) -> *mut c_void;
    batch_of = llama llama_batch_get_one(*mut c_void, *const i32, i32, i32, i32) -> *mut c_void;
    model_load = llama llama_load_model_from_file(*const c_char, ModelParams) -> Handle;
    model_desc = llama llama_model_desc(Handle, *mut c_char, usize) -> i32;
    vocab_tokens = llama llama_n_vocab(Handle) -> i32;
    context_new = llama llama_new_context_with_model(Handle, ContextParams) -> Handle;
    context_size = llama llama_n_ctx(Handle) -> u32;
    cache_clear = llama llama_kv_cache_clear(Handle);
    decode = llama llama_decode(Handle, Batch) -> i32;
    synchronize = llama llama_synchronize(Handle);
    logits = llama llama_get_logits_ith(Handle, i32) -> *const f32;
    node_name = ggml ggml_get_name(Handle) -> *const c_char;
    node_op = ggml ggml_op_desc(Handle) -> *const c_char;
    node_elements = ggml ggml_nelements(Handle) -> i64;
    node_bytes = ggml ggml_nbytes(Handle) -> usize;
    node_data = ggml ggml_get_data_f32(Handle) -> *mut f32;
}

/// The libraries with their paths, in the order in which they are loaded.
#[derive(Debug)]
struct Libraries {
    ggml: (PathBuf, Library),
    llama: (PathBuf, Library),
}

fn not_ours(path: &Path, problem: &str) -> String {
    format!(
        "{}: {problem}; it has not the interface of llama.cpp of October 2024 (--abi bitnet.cpp): choose another --abi",
        path.display()
    )
}

impl Api {
    /// Loads the libraries in `folder` and holds every layout to them.
    ///
    /// # Safety
    /// - code of strangers runs in this process from now on.
    unsafe fn load(folder: &Path) -> Result<Api> {
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            return Err(
                "the layouts of --abi bitnet.cpp are those of x86-64 Linux; run this on such a machine"
                    .into(),
            );
        }
        // SAFETY: the caller's promise.
        let open = |name: &str| unsafe { open(folder.join(name), not_ours) };
        let libraries = Libraries { ggml: open("libggml.so")?, llama: open("libllama.so")? };
        let path = libraries.llama.0.clone();
        // SAFETY: the caller's promise; the constructors are called before anything else, with room for any struct.
        let api = unsafe { Api::of(libraries) }?;
        let n = SAMPLE.len() as c_int;
        // SAFETY: each constructor writes its struct where its first argument says.
        let found = unsafe {
            [
                held(ModelParams::differs, |at| _ = (api.model_params)(at)),
                held(ContextParams::differs, |at| _ = (api.context_params)(at)),
                held(Batch::differs, |at| _ = (api.batch_of)(at, SAMPLE.as_ptr(), n, 5, 6)),
            ]
        };
        found.into_iter().collect::<Result<(), _>>().map_err(|problem| not_ours(&path, &problem))?;
        Ok(api)
    }
}

/// A model with one context, and the number of tokens in it.
pub(crate) struct Llama2024 {
    api: Api,
    context: Handle,
    fed: i32,
    facts: Facts,
    /// Where the context's callback finds what it is to read and to replace; given away as a pointer.
    taps: *mut Taps,
}

impl Llama2024 {
    /// Loads libraries and model; `taps` are read and replaced while tokens are fed.
    ///
    /// # Safety
    /// - code of strangers runs in this process from now on.
    pub(crate) unsafe fn load(load: &Load, taps: Option<Taps>) -> Result<Llama2024> {
        // SAFETY: the caller's promise.
        let api = unsafe { Api::load(&load.folder) }?;
        let threads = int(load.threads, "threads")?;
        let path = c_path(&load.model)?;
        File::open(&load.model).map_err(|e| Error::file(&load.model, &e).to_string())?;
        let failed = |what: &str| format!("{}: {what}{}", load.model.display(), logged());
        // SAFETY: the layouts have been held to the library; strings and structs outlive the calls; handles are not null.
        unsafe {
            (api.log_set)(Some(log), level_of_errors(&LOG_ERROR));
            (api.backend_init)();
            let params: ModelParams = built(|at| _ = (api.model_params)(at));
            let model = (api.model_load)(path.as_ptr(), params);
            if model.is_null() {
                return Err(failed("the library cannot load it"));
            }
            let mut params: ContextParams = built(|at| _ = (api.context_params)(at));
            (params.n_ctx, params.n_batch, params.n_ubatch) = (load.context, load.context, UBATCH);
            (params.n_threads, params.n_threads_batch) = (threads, threads);
            (params.type_k, params.type_v, params.flash_attn) = (F16, F16, 0);
            let nodes = Nodes {
                name: api.node_name,
                op: api.node_op,
                elements: api.node_elements,
                bytes: api.node_bytes,
                data: api.node_data,
            };
            let taps = Taps::given_away(taps, nodes);
            if !taps.is_null() {
                (params.cb_eval, params.cb_eval_user_data) = (watch as Eval as *const c_void, taps.cast());
            }
            let context = (api.context_new)(model, params);
            if context.is_null() {
                return Err(failed("the library cannot make a context; ask for fewer positions"));
            }
            let mut text = [0 as c_char; 128];
            (api.model_desc)(model, text.as_mut_ptr(), text.len());
            let facts = Facts {
                name: "library/of the user".to_owned(),
                version: "interface of October 2024".to_owned(),
                libraries: digests(&[&api.libraries.ggml.0, &api.libraries.llama.0])?,
                model: CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned(),
                vocab: (api.vocab_tokens)(model).cast_unsigned(),
                context: (api.context_size)(context),
                threads: load.threads,
            };
            Ok(Llama2024 { api, context, fed: 0, facts, taps })
        }
    }
}

impl Loaded for Llama2024 {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn forget(&mut self) -> Result<()> {
        // SAFETY: the context is alive.
        unsafe { (self.api.cache_clear)(self.context) };
        self.fed = 0;
        Ok(())
    }

    fn feed_one(&mut self, token: i32) -> Result<()> {
        let batch = Batch {
            n_tokens: 1,
            token: &raw const token,
            embd: std::ptr::null(),
            pos: std::ptr::null(),
            n_seq_id: std::ptr::null(),
            seq_id: std::ptr::null(),
            logits: std::ptr::null(),
            all_pos_0: self.fed,
            all_pos_1: 1,
            all_seq_id: 0,
        };
        // SAFETY: the context is alive, and the token for the time of the call.
        let code = unsafe {
            let code = (self.api.decode)(self.context, batch);
            (self.api.synchronize)(self.context);
            code
        };
        if code != 0 {
            return Err(format!(
                "the library cannot compute a token after {} (code {code}){}",
                self.fed,
                logged()
            ));
        }
        self.fed += 1;
        Ok(())
    }

    fn row(&self) -> Result<&[f32]> {
        // SAFETY: the context is alive; a row has as many logits as the vocabulary has tokens, until the next call.
        unsafe {
            let row = (self.api.logits)(self.context, -1);
            if row.is_null() {
                return Err(format!("the library has no logits{}; feed a token first", logged()));
            }
            Ok(std::slice::from_raw_parts(row, self.facts.vocab as usize))
        }
    }

    fn tapped(&mut self) -> Result<BTreeMap<String, Vec<f32>>> {
        // SAFETY: nothing is being computed.
        unsafe { Taps::tapped(self.taps) }
    }
}
