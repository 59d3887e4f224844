//! A model in llama.cpp, behind safe functions. Every error says what to do.
#![expect(unsafe_code, reason = "calls a C library through its function pointers")]

use super::abi::{Eval, Handle, built};
use super::llama_abi::{
    Api, Batch, ContextParams, F16, FLASH_ATTENTION_OFF, LOAD_MMAP, LOG_ERROR, ModelParams, PoolParams,
    not_ours,
};
use super::taps::{Nodes, Taps, watch};
use super::{Facts, Load, Loaded, UBATCH, digests};
use crate::plugins::peers::best;
use assay_engine::Error;
use assay_engine::kernels::plugin::llama::path_of;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Mutex;

type Result<T> = std::result::Result<T, String>;

/// What the library has logged as errors since the last look.
static LOG: Mutex<Log> = Mutex::new(Log { of_error: false, text: String::new() });

struct Log {
    /// The message that goes on is an error.
    of_error: bool,
    text: String,
}

/// As much of it is kept.
const LOG_MAX: usize = 1 << 16;
/// `GGML_LOG_LEVEL_CONT`: the rest of a message that began before.
const LOG_CONTINUED: c_int = 5;

/// A model with one context: its tokens so far, and threads that sleep unless something is fed.
pub(crate) struct Llama {
    api: Api,
    context: Handle,
    memory: Handle,
    pool: Handle,
    fed: Vec<i32>,
    facts: Facts,
    /// Where the context's callback finds what it is to read and to replace; given away as a pointer.
    taps: *mut Taps,
}

impl Llama {
    /// Loads libraries and model; `taps` are read and replaced while tokens are fed.
    ///
    /// # Safety
    /// - code of strangers runs in this process from now on.
    pub(crate) unsafe fn load(load: &Load, taps: Option<Taps>) -> Result<Llama> {
        if !load.folder.join("libggml-base.so").is_file() {
            return Err(not_ours(&load.folder.join("libggml-base.so"), "is not there"));
        }
        let backend = match &load.backend {
            Some(backend) => backend.clone(),
            // SAFETY: the caller's promise.
            None => unsafe { best(&load.folder) }.map_err(|e| e.to_string())?,
        };
        // SAFETY: the caller's promise.
        let api = unsafe { Api::load(&load.folder, &backend) }?;
        let (threads, size) =
            (int(load.threads, "threads")?, int(load.context, "positions")?.cast_unsigned());
        let library = c_path(&path_of(&load.folder, &backend))?;
        let path = c_path(&load.model)?;
        File::open(&load.model).map_err(|e| Error::file(&load.model, &e).to_string())?;
        let model_failed = |what: &str| Err(format!("{}: {what}{}", load.model.display(), logged()));
        // SAFETY: the layouts have been held to the library; strings and structs outlive the calls; handles are not null.
        unsafe {
            (api.log_set)(Some(log), level_of_errors(&LOG_ERROR));
            if (api.backend_load)(library.as_ptr()).is_null() {
                return Err(format!(
                    "llama.cpp's backend {backend} does not run on this processor{}; choose another backend",
                    logged()
                ));
            }
            (api.backend_init)();
            let mut params: ModelParams = built(|at| _ = (api.model_params)(at));
            (params.n_gpu_layers, params.load_mode) = (0, LOAD_MMAP);
            let model = (api.model_load)(path.as_ptr(), params);
            if model.is_null() {
                return model_failed(
                    "llama.cpp cannot load it; `assay convert --arch bitnet` writes BitNet models as it knows them",
                );
            }
            let mut params: ContextParams = built(|at| _ = (api.context_params)(at));
            (params.n_ctx, params.n_batch, params.n_ubatch) = (size, size, UBATCH);
            (params.n_outputs_max, params.flash_attn_type) = (1, FLASH_ATTENTION_OFF);
            (params.n_threads, params.n_threads_batch) = (threads, threads);
            (params.type_k, params.type_v) = (F16, F16);
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
                return model_failed("llama.cpp cannot make a context; ask for fewer positions");
            }
            let pool: PoolParams = built(|at| (api.pool_params)(at, threads));
            let pool = (api.pool_new)(&raw const pool);
            if pool.is_null() {
                return model_failed("llama.cpp cannot make threads; ask for fewer");
            }
            (api.pool_attach)(context, pool, pool);
            let mut text = [0 as c_char; 128];
            (api.model_desc)(model, text.as_mut_ptr(), text.len());
            let facts = Facts {
                name: format!("llama.cpp/{backend}"),
                version: api.version(),
                libraries: digests(&api.paths())?,
                model: CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned(),
                vocab: (api.vocab_tokens)((api.model_vocab)(model)).cast_unsigned(),
                context: (api.context_size)(context),
                threads: load.threads,
            };
            let memory = (api.memory)(context);
            let loaded = Llama { api, context, memory, pool, fed: Vec::new(), facts, taps };
            loaded.sleep();
            Ok(loaded)
        }
    }

    /// Forgets all tokens but the first `keep`.
    pub(super) fn keep(&mut self, keep: usize) -> Result<()> {
        let keep = keep.min(self.fed.len());
        // SAFETY: the memory is the context's; positions from `keep` on, or all of them.
        let done = unsafe {
            match keep {
                0 => {
                    (self.api.memory_clear)(self.memory, false);
                    true
                }
                _ => (self.api.memory_remove)(self.memory, 0, int(keep, "tokens")?, -1),
            }
        };
        if !done {
            return Err(format!("llama.cpp cannot forget what follows {keep} tokens{}", logged()));
        }
        self.fed.truncate(keep);
        Ok(())
    }

    /// Makes `prompt` the tokens so far; what it has in common with them is not computed again, save the last token.
    pub(super) fn become_prompt(&mut self, prompt: &[i32]) -> Result<()> {
        let common = self.fed.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        self.keep(common.min(prompt.len().saturating_sub(1)))?;
        let new = self.fed.len();
        self.feed(&prompt[new..])
    }

    /// Feeds tokens at once; the logits after the last are there when it returns.
    pub(super) fn feed(&mut self, tokens: &[i32]) -> Result<()> {
        let batch = Batch {
            n_tokens: int(tokens.len(), "tokens")?,
            token: tokens.as_ptr(),
            embd: std::ptr::null(),
            pos: std::ptr::null(),
            n_seq_id: std::ptr::null(),
            seq_id: std::ptr::null(),
            logits: std::ptr::null(),
        };
        // SAFETY: the context is alive, and the tokens for the time of the call.
        let code = unsafe {
            let code = (self.api.decode)(self.context, batch);
            (self.api.synchronize)(self.context);
            code
        };
        if code != 0 {
            return Err(format!(
                "llama.cpp cannot compute {} tokens after {} (code {code}){}",
                tokens.len(),
                self.fed.len(),
                logged()
            ));
        }
        self.fed.extend(tokens);
        Ok(())
    }

    /// Sends the threads to sleep: without this they poll for a while after each request, on cores that others measure on.
    pub(super) fn sleep(&self) {
        // SAFETY: the pool is alive, and nothing is being computed. The next computation wakes it.
        unsafe { (self.api.pool_pause)(self.pool) };
    }
}

impl Loaded for Llama {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn forget(&mut self) -> Result<()> {
        self.keep(0)
    }

    fn feed_one(&mut self, token: i32) -> Result<()> {
        self.feed(&[token])
    }

    fn row(&self) -> Result<&[f32]> {
        // SAFETY: the context is alive; a row has as many logits as the vocabulary has tokens, until the next call.
        unsafe {
            let row = (self.api.logits)(self.context, -1);
            if row.is_null() {
                return Err(format!("llama.cpp has no logits{}; feed a token first", logged()));
            }
            Ok(std::slice::from_raw_parts(row, self.facts.vocab as usize))
        }
    }

    fn tapped(&mut self) -> Result<BTreeMap<String, Vec<f32>>> {
        // SAFETY: nothing is being computed.
        unsafe { Taps::tapped(self.taps) }
    }
}

/// Keeps what is logged as an error, and the rest of such a message. `error` points at the level of errors, which releases number
/// differently.
pub(super) extern "C" fn log(level: c_int, text: *const c_char, error: *mut c_void) {
    // SAFETY: the pointer is the one that was given with this function: a number that lives for ever.
    let Some(error) = (unsafe { error.cast::<c_int>().as_ref() }) else { return };
    let Ok(mut log) = LOG.lock() else { return };
    if level != LOG_CONTINUED {
        log.of_error = level == *error;
    }
    if text.is_null() || !log.of_error || log.text.len() > LOG_MAX {
        return;
    }
    // SAFETY: a C string of the library, for the time of this call.
    log.text.push_str(&unsafe { CStr::from_ptr(text) }.to_string_lossy());
}

/// What `log` is given with it.
pub(super) fn level_of_errors(level: &'static c_int) -> *mut c_void {
    std::ptr::from_ref(level).cast_mut().cast()
}

/// The first error that the library has logged, as the end of a sentence.
pub(super) fn logged() -> String {
    let text = LOG.lock().map(|mut log| std::mem::take(&mut log.text)).unwrap_or_default();
    // The first is the cause; those after it tell where it led.
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    first
        .map_or_else(String::new, |line| format!("; it says: {}", line.chars().take(300).collect::<String>()))
}

pub(super) fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| format!("{}: a C program takes no path with a null byte; rename it", path.display()))
}

pub(super) fn int(n: impl TryInto<i32> + Copy + std::fmt::Display, what: &str) -> Result<i32> {
    n.try_into().map_err(|_| format!("{n} {what} are too many for llama.cpp; ask for less than 2^31"))
}
