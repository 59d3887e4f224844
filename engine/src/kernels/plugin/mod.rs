//! Kernels from outside: shared libraries with the C ABI of `engine/include/assay_kernel.h`, and adapters that present
//! other programs' libraries in the same form.
//!
//! ```text
//! abi.rs      the header, type for type
//! load.rs     a plug-in: the library, its declarations, and what is refused
//! llama.rs    llama.cpp's CPU backends: vec_dot of each weight type
//! bitnet.rs   a libggml of bitnet.cpp: ggml_vec_dot_i2_i8_s
//! ```
//!
//! [`Loaded`] is a library in this process: [`open`], [`llama::open`] and [`bitnet::open`] are `unsafe`, because what
//! they load is code of strangers that can do anything. Whoever wants to survive it loads it in a child process, as
//! `assay kernels check --plugin` does. After that a [`Kernel`] is used like any of Assay's: lengths are asserted in
//! [`Kernel::run`].
#![expect(unsafe_code, reason = "calls functions of a shared library")]

pub mod abi;
pub mod bitnet;
pub mod llama;
mod load;

pub use load::open;

use libloading::Library;
use std::fmt;
use std::sync::Arc;

/// What a kernel writes for each output: 4 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResultKind {
    /// The exact sum `Σ value · q`, before any scale.
    I32,
    /// The f32 whose bits `exact-v1` fixes.
    F32Exact,
    /// An f32 in an order of operations of the kernel's own.
    F32Close,
}

impl ResultKind {
    /// Every kind, by its number in the ABI.
    pub const ALL: [ResultKind; 3] = [ResultKind::I32, ResultKind::F32Exact, ResultKind::F32Close];

    /// The name in tables and receipts.
    pub const fn name(self) -> &'static str {
        match self {
            ResultKind::I32 => "i32",
            ResultKind::F32Exact => "f32-exact",
            ResultKind::F32Close => "f32-close",
        }
    }
}

/// What a kernel says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// Its name, unique in its library.
    pub name: String,
    /// Weight format: `I2_S`, `TQ2_0`, ….
    pub weights: String,
    /// Activation format: `i8`, `q8_K`, `q8_0`, `q8_1`, `f32`.
    pub activations: String,
    /// What it writes.
    pub result: ResultKind,
    /// Tokens that it takes at once; 1 for a GEMV.
    pub max_tokens: usize,
    /// Row lengths that it takes are multiples of this, besides what the format asks for.
    pub cols_multiple: usize,
    /// Alignment in bytes of every row of weights.
    pub weights_align: usize,
    /// Alignment in bytes of every token of activations.
    pub activations_align: usize,
    /// Alignment in bytes of every token's outputs.
    pub out_align: usize,
    /// [`ResultKind::F32Close`]: the bound that it states; `None` for the default.
    pub relative_bound: Option<f32>,
}

/// One multiplication: `out[t][r] = Σ_c weight[r][c] · activation[t][c]`.
///
/// Shapes: `weights` holds `rows` rows, `weights_stride` bytes apart; `activations` and `out` a row for each token.
/// The last row of each need not be followed by the rest of its stride.
#[derive(Debug)]
pub struct Call<'a> {
    /// Encoded rows.
    pub weights: &'a [u8],
    /// Bytes of one row.
    pub weights_row_bytes: usize,
    /// Bytes from row to row.
    pub weights_stride: usize,
    /// Outputs of a token.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Scale of the whole tensor; 1 where blocks carry their own.
    pub tensor_scale: f32,
    /// Encoded activations.
    pub activations: &'a [u8],
    /// Bytes of one token.
    pub activations_row_bytes: usize,
    /// Bytes from token to token.
    pub activations_stride: usize,
    /// The `s` of each token of `i8` activations (`q = x · s`), 1 for other formats: its length is the number of tokens.
    pub activation_scales: &'a [f32],
    /// The bits of the results: token `t`, row `r` at `t · out_stride + r`.
    pub out: &'a mut [u32],
    /// Outputs from token to token.
    pub out_stride: usize,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Computed.
    Done,
    /// The kernel does not take this shape.
    Declined,
    /// It said that it failed, with this code.
    Failed(i32),
}

/// `ggml_vec_dot_t`: `s[0] = Σ x · y` over `n` elements.
type VecDot = unsafe extern "C" fn(i32, *mut f32, usize, *const u8, usize, *const u8, usize, i32);

/// `ggml_from_float_t`: `n` floats to encoded activations.
type FromFloat = unsafe extern "C" fn(*const f32, *mut u8, i64);

/// The code behind a kernel.
#[derive(Clone, Copy)]
enum Code {
    /// A plug-in's function.
    Plugin(abi::Run),
    /// llama.cpp: a dot product for each row and token, and the quantiser of its activations.
    Llama(VecDot, Option<FromFloat>),
    /// bitnet.cpp: a dot product with codes 0, 1, 2 for each row and token.
    BitNet(VecDot),
}

/// A kernel of a loaded library.
#[derive(Clone)]
pub struct Kernel {
    declared: Declared,
    code: Code,
    /// What the code lies in: unloaded with the last kernel.
    _libraries: Arc<Vec<Library>>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("declared", &self.declared).finish_non_exhaustive()
    }
}

impl Kernel {
    /// What it says of itself.
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// Runs it. It may run on several threads at once.
    ///
    /// # Panics
    /// - where lengths do not fit, or an address is not aligned as the kernel declares.
    pub fn run(&self, call: &mut Call<'_>) -> Status {
        self.assert_fits(call);
        match self.code {
            Code::Plugin(run) => status(unsafe_run(run, call)),
            Code::Llama(vec_dot, _) => {
                by_row(vec_dot, call, |raw, _| raw.to_bits());
                Status::Done
            }
            Code::BitNet(vec_dot) => {
                by_row(vec_dot, call, bitnet::sum_of_values);
                Status::Done
            }
        }
    }

    /// Encodes a row of activations by the library's own quantiser; `false` if it has none.
    ///
    /// # Panics
    /// - if `x` is longer than an `i64` can say.
    pub fn quantise(&self, x: &[f32], out: &mut [u8]) -> bool {
        let Code::Llama(_, Some(from_float)) = self.code else { return false };
        let n = i64::try_from(x.len()).expect("a length");
        assert_eq!(Some(out.len()), llama::activation_bytes(&self.declared.activations, x.len()));
        // SAFETY: the function reads `n` floats and writes that many elements in the format whose size was just
        // asserted; that the library does what its interface says is the promise given when it was loaded.
        unsafe { from_float(x.as_ptr(), out.as_mut_ptr(), n) };
        true
    }

    #[track_caller]
    fn assert_fits(&self, call: &Call<'_>) {
        let declared = &self.declared;
        let tokens = call.activation_scales.len();
        assert!((1..=declared.max_tokens).contains(&tokens), "{tokens} tokens");
        let holds = |len: usize, count: usize, size: usize, stride: usize| {
            assert!(stride >= size, "a stride of {stride} for rows of {size}");
            let needed = count.checked_sub(1).and_then(|n| n.checked_mul(stride)?.checked_add(size));
            let needed = if count == 0 { Some(0) } else { needed };
            assert!(needed.is_some_and(|needed| needed <= len), "{len} do not hold {count} rows of {size}");
        };
        holds(call.weights.len(), call.rows, call.weights_row_bytes, call.weights_stride);
        holds(call.activations.len(), tokens, call.activations_row_bytes, call.activations_stride);
        holds(call.out.len(), tokens, call.rows, call.out_stride);
        let aligned = |what: &str, address: usize, stride: usize, align: usize| {
            assert!(address.is_multiple_of(align), "{what} not aligned to {align}");
            assert!(stride.is_multiple_of(align), "{what}: a stride of {stride}, not a multiple of {align}");
        };
        if call.rows > 0 {
            aligned("weights", call.weights.as_ptr().addr(), call.weights_stride, declared.weights_align);
            aligned("outputs", call.out.as_ptr().addr(), 4 * call.out_stride, declared.out_align);
        }
        let activations = call.activations.as_ptr().addr();
        aligned("activations", activations, call.activations_stride, declared.activations_align);
        assert!(call.cols.is_multiple_of(declared.cols_multiple), "{} columns", call.cols);
    }
}

fn status(code: i32) -> Status {
    match code {
        abi::OK => Status::Done,
        abi::DECLINED => Status::Declined,
        code => Status::Failed(code),
    }
}

fn unsafe_run(run: abi::Run, call: &mut Call<'_>) -> i32 {
    let raw = abi::Call {
        struct_size: size_of::<abi::Call>() as u32,
        abi_version: abi::ABI_VERSION,
        weights: call.weights.as_ptr().cast(),
        weights_row_bytes: call.weights_row_bytes as u64,
        weights_stride: call.weights_stride as u64,
        rows: call.rows as u64,
        cols: call.cols as u64,
        tensor_scale: call.tensor_scale,
        tokens: u32::try_from(call.activation_scales.len()).expect("at most max_tokens, which is a u32"),
        activations: call.activations.as_ptr().cast(),
        activations_row_bytes: call.activations_row_bytes as u64,
        activations_stride: call.activations_stride as u64,
        activation_scales: call.activation_scales.as_ptr(),
        out: call.out.as_mut_ptr().cast(),
        out_stride: 4 * call.out_stride as u64,
    };
    // SAFETY: every pointer is to memory of the length that the call says (asserted by the caller), borrowed for the
    // whole call, the output exclusively; that the function keeps to it is the promise given when it was loaded.
    unsafe { run(&raw) }
}

/// A dot product for each row and token.
fn by_row(vec_dot: VecDot, call: &mut Call<'_>, finish: impl Fn(f32, &[u8]) -> u32) {
    let n = i32::try_from(call.cols).expect("rows of fewer than 2^31 columns");
    for token in 0..call.activation_scales.len() {
        let x = &call.activations[token * call.activations_stride..][..call.activations_row_bytes];
        for row in 0..call.rows {
            let w = &call.weights[row * call.weights_stride..][..call.weights_row_bytes];
            let mut sum = f32::NAN;
            // SAFETY: `w` and `x` are whole rows of `n` elements in the formats of this function, one result is
            // written (nrc = 1); that the function keeps to it is the promise given when it was loaded.
            unsafe { vec_dot(n, &mut sum, 0, w.as_ptr(), 0, x.as_ptr(), 0, 1) };
            call.out[token * call.out_stride + row] = finish(sum, x);
        }
    }
}

/// A library in this process, and its kernels.
#[derive(Debug)]
pub struct Loaded {
    /// The name that it gives itself.
    pub name: String,
    /// Its version, in its own words.
    pub version: String,
    kernels: Vec<Kernel>,
}

impl Loaded {
    /// Its kernels, in its order.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.declared.name == name)
    }
}
