//! The command line.

use assay_engine::kernels::Isa;
use assay_engine::kernels::check::Plan;
use assay_engine::model::Activation;
use assay_engine::quant::Format;
use assay_engine::quant::i2s::Packing;
use assay_engine::tokenizer::Special;
use assay_harness::convert::{ARCHITECTURES, HEADS, TARGETS};
use assay_variables::{SEED, STRICT};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Holds ternary (BitNet b1.58) kernels and models to exact arithmetic.
///
/// Exit codes: 0 everything held; 1 a check, parity or gate found a mismatch; 2 could not run (bad usage or input);
/// 5 a receipt is tampered; 6 its claim came out otherwise; 7 could not be checked here.
#[derive(Debug, Parser)]
#[command(name = "assay", version, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The main job: kernels, formats, models, parity, receipts and a report, on data that are part of the program.
    Check(Check),
    /// Run a model: tokens, text, logits digest, speed.
    Run(Run),
    /// How well a model predicts a text.
    Perplexity(Perplexity),
    /// Time a whole model, prompts and single tokens, beside what the machine allows and beside llama.cpp.
    #[cfg(unix)]
    Bench(BenchModel),
    /// Hold timed runs to a checked one: the same outputs, no answers from a cache, nothing faster than memory.
    #[cfg(unix)]
    Audit(Audit),
    /// Hold a model's logits to another implementation's.
    Parity(Parity),
    /// Say what is in a GGUF file, and what is wrong with it.
    Inspect(Inspect),
    /// Turn text into token ids, or ids into text, as the tokenizer in a GGUF file has it.
    Tokenize(Tokenize),
    /// Store a model's weights in another format: the same weights, or nothing is written.
    Convert(Convert),
    /// Seeded models and tensors, the same bytes on every machine.
    #[command(subcommand)]
    Fixtures(Fixtures),
    /// Kernels of this machine.
    #[command(subcommand)]
    Kernels(KernelsCommand),
    /// Receipts: evidence of runs.
    #[command(subcommand)]
    Receipt(Receipt),
    /// Compare two sets of receipts: verdicts as Markdown and CSV.
    #[cfg(feature = "report")]
    Report(Report),
    /// Other implementations that parity is asked of.
    #[cfg(unix)]
    #[command(subcommand)]
    Reference(Reference),
    /// A reference of our own, as a program that speaks the protocol.
    #[cfg(unix)]
    #[command(hide = true)]
    ReferenceChild {
        /// Which, its options, and what the protocol says.
        #[arg(trailing_var_arg = true)]
        words: Vec<String>,
    },
    /// The child process in which another program runs a model.
    #[cfg(unix)]
    #[command(hide = true)]
    PeerChild {
        /// What to load, as JSON.
        load: String,
    },
}

/// How a model is run.
#[derive(Debug, ClapArgs)]
pub(crate) struct Backend {
    /// Instruction set: scalar, avx2, avx512bw, avx512vnni, neon, neondot [default: the best of this processor]
    #[arg(long, value_parser = |name: &str| Isa::parse(name))]
    pub(crate) isa: Option<Isa>,
    /// Threads [default: all processors]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Tokens of the prompt that are fed at a time; 0 feeds it whole. It never changes a result.
    #[arg(long, default_value_t = 0)]
    pub(crate) batch: usize,
    /// Refuse to run where a kernel would stand in for one of the instruction set.
    #[arg(long)]
    strict: bool,
}

impl Backend {
    pub(crate) fn strict(&self) -> Result<bool, assay_variables::Error> {
        strict(self.strict)
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    /// Where receipts and the report go.
    #[arg(long, default_value = "assay-out")]
    pub(crate) out: PathBuf,
    /// Only test the checks themselves: every injected fault must be caught and named. Writes no files.
    #[arg(long, conflicts_with_all = ["out", "threads"])]
    pub(crate) self_test: bool,
    /// Threads for the model runs [default: all processors]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// What could not be checked here does not pass: end with code 7 where a row was skipped.
    #[arg(long)]
    strict: bool,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Check {
    pub(crate) fn strict(&self) -> Result<bool, assay_variables::Error> {
        strict(self.strict)
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Run {
    /// A GGUF model [default: the small trained one that is part of the program]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) prompt: Prompt,
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 32)]
    pub(crate) steps: usize,
    /// The prompt is what a user says: the model's chat template is put around it.
    #[arg(long, requires = "text")]
    pub(crate) chat: bool,
    /// What the system says before, with --chat.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub(crate) system: Option<String>,
    /// End before this text is generated; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Go on after a token that ends what the model says.
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    #[command(flatten)]
    pub(crate) backend: Backend,
    /// Read the file into memory instead of using it where it lies.
    #[arg(long)]
    pub(crate) read: bool,
    /// Compute no logits of the prompt but those of its last token: faster, the same tokens; the digest has fewer rows.
    #[arg(long, conflicts_with_all = ["logits", "out"])]
    pub(crate) skip_prompt_logits: bool,
    /// Write keys and values of all tokens fed, to go on from later.
    #[arg(long, value_name = "FILE")]
    pub(crate) save_state: Option<PathBuf>,
    /// Go on from keys and values that --save-state wrote; the prompt must begin with its tokens.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    pub(crate) load_state: Option<PathBuf>,
    /// Gate of the feed-forward block, for a file that is known to be mislabelled; recorded in the receipt.
    #[arg(long, value_enum)]
    pub(crate) activation: Option<Gate>,
    /// How tensors of type 36 (I2_S) are packed; a file does not tell: 128/32, 64/16 (ARM builds of bitnet.cpp), linear-pm2
    /// (as BitNet-rs reads them)
    #[arg(long, value_parser = packing, default_value = "128/32")]
    pub(crate) layout: Packing,
    /// Write all logits: little-endian f32, `[prompt + steps][vocab]`, row k after token k was fed.
    #[arg(long, value_name = "FILE")]
    pub(crate) logits: Option<PathBuf>,
    /// Write a receipt into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Record a digest of what each operation gives: a replay that differs can name the first. It takes about as long as the whole
    /// sequence as one prompt.
    #[arg(long, requires = "out")]
    pub(crate) trace: bool,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Audit {
    /// A GGUF model [default: the small trained one that is part of the program]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) prompt: Prompt,
    /// Tokens to generate.
    #[arg(long, default_value_t = 32)]
    pub(crate) steps: usize,
    /// Timed runs of the same prompt.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub(crate) repeats: u32,
    #[command(flatten)]
    pub(crate) backend: Backend,
    /// Write a receipt into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How tokens are chosen: the largest logit, unless a temperature is given.
#[derive(Debug, ClapArgs)]
pub(crate) struct Sampling {
    /// Draw tokens, with logits divided by this; 0 takes the largest.
    #[arg(long, value_name = "T", default_value_t = 0.0, conflicts_with = "out")]
    pub(crate) temperature: f32,
    /// Draw among this many of the most likely tokens; 0: all.
    #[arg(long, value_name = "K", default_value_t = 40, requires = "temperature")]
    pub(crate) top_k: usize,
    /// Draw among the most likely tokens that together reach this probability.
    #[arg(long, value_name = "P", default_value_t = 0.95, requires = "temperature")]
    pub(crate) top_p: f32,
    /// Draw among tokens at least this likely, as a part of the most likely one.
    #[arg(long, value_name = "P", default_value_t = 0.05, requires = "temperature")]
    pub(crate) min_p: f32,
    /// Divide positive logits of tokens that were there already by this, multiply negative ones; 1 changes nothing.
    #[arg(long, value_name = "R", default_value_t = 1.0, conflicts_with = "out")]
    pub(crate) repeat_penalty: f32,
    /// Tokens that count as there already.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) repeat_last_n: usize,
    /// Seed of the draws: the same seed draws the same, on any machine [default: ASSAY_SEED, or 0]
    #[arg(long)]
    seed: Option<u64>,
}

impl Sampling {
    pub(crate) fn seed(&self) -> Result<u64, assay_variables::Error> {
        seed(self.seed, 0)
    }
}

/// Whether the option or the variable says so.
fn strict(option: bool) -> Result<bool, assay_variables::Error> {
    Ok(option || STRICT.read()?)
}

/// The seed of the option, or of the variable, or the command's own.
fn seed(option: Option<u64>, own: u64) -> Result<u64, assay_variables::Error> {
    option.map_or_else(|| Ok(SEED.read()?.unwrap_or(own)), Ok)
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Perplexity {
    /// A GGUF model with a tokenizer.
    pub(crate) model: PathBuf,
    /// The text: a UTF-8 file, or - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) text: PathBuf,
    /// Tokens of a window [default: 512, or the model's context where that is smaller]
    #[arg(long)]
    pub(crate) context: Option<usize>,
    /// Tokens from one window to the next [default: windows do not overlap]
    #[arg(long)]
    pub(crate) stride: Option<usize>,
    #[command(flatten)]
    pub(crate) backend: Backend,
    /// Gate of the feed-forward block, for a file that is known to be mislabelled.
    #[arg(long, value_enum)]
    pub(crate) activation: Option<Gate>,
    /// How tensors of type 36 (I2_S) are packed: 128/32, 64/16, linear-pm2
    #[arg(long, value_parser = packing, default_value = "128/32")]
    pub(crate) layout: Packing,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(unix)]
#[derive(Debug, ClapArgs)]
pub(crate) struct BenchModel {
    /// A GGUF model [default: the small trained one that is part of the program]
    pub(crate) model: Option<PathBuf>,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    pub(crate) threads: Vec<usize>,
    /// Tokens of the prompt that is timed.
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub(crate) prefill: usize,
    /// Tokens before those that are timed one at a time.
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_values_t = [128])]
    pub(crate) depth: Vec<usize>,
    /// Single tokens a turn.
    #[arg(long, default_value_t = 8)]
    pub(crate) steps: usize,
    /// Rounds in which all take turns.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Instruction set [default: the best of this processor]
    #[arg(long, value_parser = |name: &str| Isa::parse(name))]
    pub(crate) isa: Option<Isa>,
    /// llama.cpp or llama.cpp:BACKEND, to take turns with (`assay reference install llama.cpp` fetches it)
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    /// The file that the peer runs [default: the model's; `assay convert --type tq2_0 --arch bitnet` makes one that llama.cpp knows]
    #[arg(long, value_name = "FILE", requires = "peer")]
    pub(crate) peer_model: Option<PathBuf>,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[group(multiple = false)]
pub(crate) struct Prompt {
    /// The prompt as text, for models with a tokenizer. The begin token comes first where the model asks for it.
    #[arg(long = "prompt", value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// The prompt as token ids: 1,2,3
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub(crate) tokens: Option<Vec<u32>>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Gate {
    Relu2,
    Silu,
}

impl From<Gate> for Activation {
    fn from(gate: Gate) -> Activation {
        match gate {
            Gate::Relu2 => Activation::Relu2,
            Gate::Silu => Activation::Silu,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Parity {
    /// GGUF models; one, or any number with --matrix [default with --matrix: the program's own models]
    #[arg(required_unless_present = "matrix")]
    pub(crate) models: Vec<PathBuf>,
    /// The other implementation: oracle, llama.cpp, llama.cpp:BACKEND, transformers, library:PATH, or a program that speaks the protocol
    /// (docs/reference-protocol.md); golden:DIR or `golden` for stored logits. May be given several times with --matrix.
    #[arg(long, value_name = "NAME|PROGRAM", default_value = "oracle")]
    pub(crate) reference: Vec<String>,
    /// The interface of library:PATH.
    #[arg(long, value_name = "NAME")]
    pub(crate) abi: Option<String>,
    /// Many models, references and prompts, and one table.
    #[arg(long)]
    pub(crate) matrix: bool,
    /// With --matrix: a cell that a known mistake explains is not held against the exit code.
    #[arg(long, requires = "matrix")]
    pub(crate) allow_explained: bool,
    /// Say where the two part, operation by operation, and draw it.
    #[arg(long, conflicts_with = "matrix")]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) prompt: Prompt,
    /// Prompts as text, one a line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "tokens"])]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Seeded prompts, where none is given [default: 1, or 100 with --matrix]
    #[arg(long, value_name = "N", conflicts_with_all = ["text", "tokens", "prompt_file"])]
    pub(crate) prompts: Option<usize>,
    /// Seed of the prompts [default: ASSAY_SEED, or 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Greedy steps after each prompt.
    #[arg(long, default_value_t = 32)]
    pub(crate) steps: usize,
    #[command(flatten)]
    pub(crate) backend: Backend,
    /// Gate of the feed-forward block, for a file that is known to be mislabelled.
    #[arg(long, value_enum)]
    pub(crate) activation: Option<Gate>,
    /// Let llama.cpp's graph run as it is, also where its gate is not the model's.
    #[arg(long)]
    pub(crate) unmodified: bool,
    /// A JSON file with other thresholds than those of docs/parity.md.
    #[arg(long, value_name = "FILE")]
    pub(crate) thresholds: Option<PathBuf>,
    /// Seconds that a reference may take each time that it is run: for all prompts of a model, and again where tokens differ.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Write receipts (and the picture of --explain, and the table of --matrix) into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(unix)]
impl Parity {
    pub(crate) fn seed(&self) -> Result<u64, assay_variables::Error> {
        seed(self.seed, 1)
    }
}

#[cfg(unix)]
#[derive(Debug, Subcommand)]
pub(crate) enum Reference {
    /// The references that have a name, and whether they are here.
    List {
        /// The result as JSON on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Fetch a reference: llama.cpp (with npm), transformers (with pip; large).
    Install {
        /// Which.
        name: String,
    },
    /// What a reference says of itself.
    Describe {
        /// A name of the list, or a program that speaks the protocol.
        name: String,
        /// The result as JSON on stdout.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Inspect {
    /// A GGUF file.
    pub(crate) model: PathBuf,
    /// How tensors of type 36 (I2_S) are packed; a file does not tell: 128/32, 64/16 (ARM builds of bitnet.cpp), linear-pm2
    /// (as BitNet-rs reads them)
    #[arg(long, value_parser = packing, default_value = "128/32")]
    pub(crate) layout: Packing,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Tokenize {
    /// A GGUF file with a tokenizer.
    pub(crate) model: PathBuf,
    /// A file with the text, UTF-8; - is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) text: PathBuf,
    /// The text itself.
    #[arg(long, value_name = "TEXT", conflicts_with = "text")]
    pub(crate) prompt: Option<String>,
    /// Special tokens in the text (<|eot_id|>): parse makes tokens of them, as `assay run --prompt` does; plain leaves them
    /// text.
    #[arg(long, value_enum, default_value_t = SpecialTokens::Parse)]
    pub(crate) special: SpecialTokens,
    /// Print the ids alone, as `assay run --tokens` takes them.
    #[arg(long)]
    pub(crate) ids: bool,
    /// The other way round: the text of these ids: 1,2,3
    #[arg(long, value_delimiter = ',', value_name = "IDS", conflicts_with_all = ["text", "prompt", "special", "ids"])]
    pub(crate) decode: Option<Vec<u32>>,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SpecialTokens {
    Parse,
    Plain,
}

impl From<SpecialTokens> for Special {
    fn from(special: SpecialTokens) -> Special {
        match special {
            SpecialTokens::Parse => Special::Parse,
            SpecialTokens::Plain => Special::Plain,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Convert {
    /// A GGUF file.
    pub(crate) input: PathBuf,
    /// Where the new file goes.
    pub(crate) output: PathBuf,
    /// Format of the ternary tensors: i2_s, i2_s-64/16, linear-pm2, qk256, i2_r4, t5, bitnet32-f16, tq1_0, tq2_0, q2_0, f16, bf16, f32
    #[arg(long = "type", value_name = "FORMAT", value_parser = |name: &str| format_of(name, &TARGETS))]
    pub(crate) target: Format,
    /// Format of ternary tensors whose rows are no whole blocks of --type: q2_0 beside tq2_0
    #[arg(long, value_name = "FORMAT", value_parser = |name: &str| format_of(name, &TARGETS))]
    pub(crate) fallback_type: Option<Format>,
    /// Format of the embedding and the head, if they are to change: q8_0, q4_0, q4_1, q6_k, f16, bf16, f32
    #[arg(long, value_name = "FORMAT", value_parser = |name: &str| format_of(name, &HEADS))]
    pub(crate) head_type: Option<Format>,
    /// Name another architecture, for a program that knows the graph by it: bitnet (llama.cpp). The gate is then another: silu
    #[arg(long, value_name = "NAME", value_parser = architecture)]
    pub(crate) arch: Option<&'static str>,
    /// How tensors of type 36 (I2_S) are packed; a file does not tell: 128/32, 64/16 (ARM builds of bitnet.cpp), linear-pm2
    /// (as BitNet-rs reads them)
    #[arg(long, value_parser = packing, default_value = "128/32")]
    pub(crate) layout: Packing,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

fn format_of(name: &str, allowed: &[Format]) -> Result<Format, String> {
    let found = Format::parse(name).filter(|format| allowed.contains(format));
    found.ok_or_else(|| {
        let names: Vec<String> = allowed.iter().map(|format| format.name().to_lowercase()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn architecture(name: &str) -> Result<&'static str, String> {
    let found = ARCHITECTURES.into_iter().find(|known| *known == name);
    found.ok_or_else(|| format!("expected one of {}", ARCHITECTURES.join(", ")))
}

fn packing(name: &str) -> Result<Packing, String> {
    let found = Packing::ALL.into_iter().find(|packing| packing.name() == name);
    found.ok_or_else(|| format!("expected one of {}", Packing::ALL.map(Packing::name).join(", ")))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fixtures {
    /// Write fixtures into a folder.
    Generate {
        /// Where they go.
        #[arg(long, default_value = "assay-fixtures")]
        out: PathBuf,
        /// Only this one.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// A full-size random model of a real model's shape instead, for speed and memory: 2b-4t (1.2 GB)
        #[arg(long, value_name = "SHAPE", conflicts_with = "only")]
        shape: Option<String>,
        /// The result as JSON on stdout.
        #[arg(long)]
        json: bool,
    },
    /// List the fixtures: seed, size, digest.
    List {
        /// The result as JSON on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Hold the fixtures in a folder to the manifest.
    Verify {
        /// Where they are.
        #[arg(default_value = "assay-fixtures")]
        dir: PathBuf,
        /// The result as JSON on stdout.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelsCommand {
    /// Instruction sets of this build and this processor.
    List {
        /// The result as JSON on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Hold every instruction set to scalar, bit for bit; or kernels from outside, in a child process.
    Check(CheckKernels),
    /// Time kernels beside each other, beside a plug-in or peer, and beside what the core can do at most; one thread.
    #[cfg(unix)]
    Bench(BenchKernels),
    /// The child process of `check --plugin`.
    #[command(hide = true)]
    Child {
        /// What to do, as JSON.
        request: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckKernels {
    /// Only this instruction set.
    #[arg(long, value_parser = |name: &str| Isa::parse(name), conflicts_with_all = ["plugin", "peer"])]
    pub(crate) isa: Option<Isa>,
    /// A plug-in: a shared library with the C ABI of assay_kernel.h (docs/plugins.md).
    #[arg(long, value_name = "FILE", conflicts_with = "peer")]
    pub(crate) plugin: Option<PathBuf>,
    /// Another program's kernels: llama.cpp, llama.cpp:BACKEND (`assay reference install llama.cpp` fetches them), bitnet.cpp:LIBGGML
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    /// Only this kernel of the plug-in or peer.
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Option<String>,
    /// Seconds that a group of cases of a plug-in or peer may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: u32,
    /// Seed of the random cases [default: ASSAY_SEED, or 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Write receipts into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

impl CheckKernels {
    pub(crate) fn seed(&self) -> Result<u64, assay_variables::Error> {
        seed(self.seed, Plan::default().seed)
    }
}

#[cfg(unix)]
#[derive(Debug, ClapArgs)]
pub(crate) struct BenchKernels {
    /// Weight formats, by name; `all` for every one that holds rows of --cols [default: I2_S,I2_R4,T5 and
    /// those that the plug-in or peer multiplies, or TQ2_0,TQ1_0,Q8_0,Q6_K]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) format: Vec<String>,
    /// Instruction sets [default: all of this processor but scalar]
    #[arg(long, value_delimiter = ',', value_parser = |name: &str| Isa::parse(name))]
    pub(crate) isa: Vec<Isa>,
    /// Settings: weights in the second-level cache (cache), weights from memory (stream), several tokens (gemm).
    #[arg(long, value_delimiter = ',', default_values = ["cache", "stream", "gemm"])]
    pub(crate) setting: Vec<String>,
    /// Columns of the matrices: a multiple of every format's block.
    #[arg(long, default_value_t = 2560, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) cols: u32,
    /// Tokens of the setting gemm.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=512))]
    pub(crate) tokens: u32,
    /// Megabytes (10^6) of weights of the setting stream: several times the last cache.
    #[arg(long, default_value_t = 192, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub(crate) megabytes: u32,
    /// Rounds in which all take turns.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Milliseconds of a turn at least.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) turn: u32,
    /// A plug-in to time too. It runs in this process: `check` it first.
    #[arg(long, value_name = "FILE", conflicts_with = "peer")]
    pub(crate) plugin: Option<PathBuf>,
    /// Another program's kernels to time too: llama.cpp, llama.cpp:BACKEND, bitnet.cpp:LIBGGML. They run in this process.
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Receipt {
    /// Check receipts: form, identity, signatures, and whether what they say adds up.
    Verify(VerifyReceipts),
    /// Run a receipt's claim again, on another backend unless told otherwise, and compare.
    Replay(ReplayReceipt),
    /// Say what is in a receipt. Nothing is checked.
    Show(ShowReceipt),
    /// Make a key: the private half in FILE, which only you can read, the public half in FILE.pub.
    Keygen(Keygen),
    /// Put receipts into envelopes with your signature, or add it to those that are there.
    Sign(SignReceipts),
    /// The ledger: receipts in a chain of lines, so that one that goes missing is missed.
    #[command(subcommand)]
    Ledger(LedgerCommand),
}

/// What a receipt is held to.
#[derive(Debug, ClapArgs)]
pub(crate) struct Holding {
    /// The receipt id (64 hex digits) to hold a single file to, if its name does not carry it.
    #[arg(long, value_name = "HEX")]
    pub(crate) id: Option<String>,
    /// Hold the receipts to this model file.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Hold the receipts to the model of their subject's name in this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    pub(crate) models: Option<PathBuf>,
    /// Refuse receipts older than this.
    #[arg(long, value_name = "DAYS")]
    pub(crate) max_age_days: Option<u32>,
    /// A public key that must have signed; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// How many of the keys must have signed [default: all]
    #[arg(long, value_name = "N", requires = "key", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) signatures: Option<u16>,
    /// A ledger that the receipts must stand in.
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// The head (64 hex digits) that the ledger must have.
    #[arg(long, value_name = "HEX", requires = "ledger")]
    pub(crate) head: Option<String>,
    /// Refuse fallbacks, corrections, and builds that cannot be made again.
    #[arg(long)]
    strict: bool,
}

impl Holding {
    pub(crate) fn strict(&self) -> Result<bool, assay_variables::Error> {
        strict(self.strict)
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyReceipts {
    /// Receipt files, in envelopes or not.
    #[arg(required = true)]
    pub(crate) receipts: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) holding: Holding,
    /// End with code 1 if a valid receipt says that its run failed.
    #[arg(long)]
    pub(crate) held: bool,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ReplayReceipt {
    /// The receipt file, in an envelope or not.
    pub(crate) receipt: PathBuf,
    #[command(flatten)]
    pub(crate) holding: Holding,
    /// Instruction set [default: scalar; for a receipt of scalar the best of this processor]
    #[arg(long, value_parser = |name: &str| Isa::parse(name))]
    pub(crate) isa: Option<Isa>,
    /// Where it runs.
    #[arg(long, value_enum, default_value = "cpu")]
    pub(crate) device: Device,
    /// Threads [default: all processors]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// End with code 1 if a reproduced receipt says that its run failed.
    #[arg(long)]
    pub(crate) held: bool,
    /// Write the replay's own receipt into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// The processor.
    Cpu,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShowReceipt {
    /// The receipt file, in an envelope or not.
    pub(crate) receipt: PathBuf,
    /// Only the receipt as it is inside: canonical JSON, without a line feed.
    #[arg(long, conflicts_with = "json")]
    pub(crate) statement: bool,
    /// The receipt as indented JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Keygen {
    /// Where the private key goes; nothing is overwritten.
    pub(crate) file: PathBuf,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SignReceipts {
    /// Receipt files, in envelopes or not.
    #[arg(required = true)]
    pub(crate) receipts: Vec<PathBuf>,
    /// Your private key; may be given several times [default: the variable ASSAY_SIGNING_KEY]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// Where envelopes go [default: beside each receipt]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Append receipts that verify; each is said when it is on disk.
    Add {
        /// The ledger: made if it is not there.
        ledger: PathBuf,
        /// Receipt files, in envelopes or not.
        #[arg(required = true)]
        receipts: Vec<PathBuf>,
        /// The result as JSON on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Hold a ledger to its chain, to a head, and to the receipts of a folder.
    Verify {
        /// The ledger.
        ledger: PathBuf,
        /// The head (64 hex digits) that it must have: that of your last copy, or more.
        #[arg(long, value_name = "HEX")]
        head: Option<String>,
        /// A head (64 hex digits) that it must have had: lines may have been added since.
        #[arg(long, value_name = "HEX")]
        since: Option<String>,
        /// Every receipt of this folder must stand in it, and every receipt that stands in it must be there.
        #[arg(long, value_name = "DIR")]
        receipts: Option<PathBuf>,
        /// The result as JSON on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Say what is in a ledger whose chain holds.
    Show {
        /// The ledger.
        ledger: PathBuf,
        /// The result as JSON on stdout.
        #[arg(long)]
        json: bool,
    },
}

#[cfg(feature = "report")]
#[derive(Debug, ClapArgs)]
pub(crate) struct Report {
    /// Receipts to compare with: a file, or a folder that is searched.
    pub(crate) baseline: PathBuf,
    /// Receipts to judge.
    pub(crate) candidate: PathBuf,
    /// Where report.md and report.csv go.
    #[arg(long, default_value = "assay-out/reports")]
    pub(crate) out: PathBuf,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}
