//! Starts a reference, waits no longer than allowed, and reads what it wrote. Nothing that a reference does is trusted.

use super::Feeding;
use super::protocol::{
    Answer, CANNOT, Computed, Description, Identity, PROTOCOL, RESULT_FILE, Request, Sequence,
};
use crate::files;
use crate::peers::{beginning, ending, last_words_of};
use crate::plugins::fault::{Victim, dies_with_parent};
use assay_engine::exact::argmax;
use assay_variables::SIGNING_KEY;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Largest `result.json`: ids of a million tokens.
const RESULT_MAX: usize = 16 << 20;
/// Longest sentence, and most sentences, of a reference: they go into receipts.
const SENTENCE_MAX: usize = 2000;
const SENTENCES_MAX: usize = 32;
/// Most columns of a tensor: the largest width that a model may have.
const COLUMNS_MAX: usize = 1 << 22;
/// Longest head of an array.
const HEAD_MAX: usize = 1 << 16;
/// Largest description.
const DESCRIPTION_MAX: u64 = 1 << 20;

/// Why a reference gave nothing that can be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It cannot do this, in its words: nothing is said about parity.
    #[error("{0}")]
    Refused(String),
    /// It cannot be started, or the request not be written.
    #[error("the reference cannot be started: {0}")]
    Start(String),
    /// It ended without a result.
    #[error("the reference {how}{said}")]
    Died {
        /// The signal or exit code.
        how: String,
        /// Its last words, if any, after a colon.
        said: String,
    },
    /// It was ended after the time allowed.
    #[error("the reference was still running after {0} s and was ended; allow more with --timeout")]
    Hung(u64),
    /// What it wrote is no result.
    #[error("the reference's result is not one: {0}")]
    Garbage(String),
}

impl Failure {
    /// Something is wrong with the reference, rather than with what was asked of it.
    pub fn is_finding(&self) -> bool {
        matches!(self, Failure::Died { .. } | Failure::Hung(_) | Failure::Garbage(_))
    }
}

type Result<T, E = Failure> = std::result::Result<T, E>;

/// A command line: a program and its first arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(pub Vec<String>);

/// What a reference computed, held to the request.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// Who computed it.
    pub identity: Identity,
    /// How tokens were fed.
    pub feeding: Feeding,
    /// Sentences of the reference.
    pub notes: Vec<String>,
    /// In the order of the request.
    pub sequences: Vec<Rows>,
}

/// What was computed for one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// The generated token ids.
    pub generated: Vec<u32>,
    /// `(tokens + steps, vocab)`
    pub logits: Vec<f32>,
    /// `(tokens + steps, width)` each, by name.
    pub tensors: BTreeMap<String, Vec<f32>>,
}

impl Program {
    /// Runs `request` in a folder that is removed afterwards. The model has `vocab` rows of logits.
    ///
    /// # Errors
    /// - [`Failure`], as its variants say.
    pub fn run(&self, request: &Request, vocab: usize, timeout: Duration) -> Result<Outputs> {
        let start = |e: &dyn std::fmt::Display| Failure::Start(e.to_string());
        let folder = tempfile::tempdir().map_err(|e| start(&e))?;
        let (file, out) = (folder.path().join("request.json"), folder.path().join("out"));
        std::fs::create_dir(&out).map_err(|e| start(&e))?;
        let text = serde_json::to_vec_pretty(request).map_err(|e| start(&e))?;
        files::write(&file, &text).map_err(|e| start(&e))?;
        let arguments = ["run".as_ref(), file.as_os_str(), out.as_os_str()];
        let mut running = Running::start(self, &arguments, Stdio::null())?;
        running.wait(timeout)?;
        read(&out, request, vocab)
    }

    /// What the program says of itself.
    ///
    /// # Errors
    /// - [`Failure`], as its variants say.
    pub fn describe(&self, timeout: Duration) -> Result<Description> {
        let mut running = Running::start(self, &["describe".as_ref()], Stdio::piped())?;
        let stdout = running.child.stdout.take();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            stdout.map(|stdout| stdout.take(DESCRIPTION_MAX).read_to_end(&mut text));
            text
        });
        running.wait(timeout)?;
        let text = reader.join().unwrap_or_default();
        let description: Description =
            serde_json::from_slice(&text).map_err(|e| Failure::Garbage(format!("its description: {e}")))?;
        match description.protocol {
            PROTOCOL => Ok(description),
            other => {
                Err(Failure::Garbage(format!("it speaks version {other} of the protocol, not {PROTOCOL}")))
            }
        }
    }
}

/// A reference that runs; it and what it started end with this value.
struct Running {
    child: Child,
    said: std::sync::mpsc::Receiver<String>,
    ended: bool,
}

impl Running {
    fn start(program: &Program, arguments: &[&std::ffi::OsStr], stdout: Stdio) -> Result<Running> {
        let Some((name, first)) = program.0.split_first() else {
            return Err(Failure::Start("no program was named".to_owned()));
        };
        let mut command = Command::new(name);
        command.args(first).args(arguments).env("GGML_NO_BACKTRACE", "1").env_remove(SIGNING_KEY.name());
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).process_group(0);
        dies_with_parent(&mut command);
        let mut child = command.spawn().map_err(|e| Failure::Start(format!("{name}: {e}")))?;
        let said = last_words_of(child.stderr.take());
        Ok(Running { child, said, ended: false })
    }

    /// Waits until it ends with success.
    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        let mut pause = Duration::from_millis(1);
        while !self.victim().has_ended() {
            if Instant::now() >= end {
                return Err(Failure::Hung(timeout.as_secs()));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        // What it has started ends before it is waited for: until then its group has its id.
        self.victim().kill_group();
        let status = self.child.wait().map_err(|e| Failure::Start(e.to_string()))?;
        self.ended = true;
        if status.success() { Ok(()) } else { Err(self.obituary(status)) }
    }

    fn obituary(&self, status: ExitStatus) -> Failure {
        let said = self.said.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        // A program that aborts says why before its debugger speaks.
        let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
        let last = lines().find(|line| line.contains("ASSERT")).or(lines().next_back()).map(beginning);
        if status.code() == Some(CANNOT) {
            return Failure::Refused(
                last.unwrap_or_else(|| "the reference refuses, without a word".to_owned()),
            );
        }
        Failure::Died { how: ending(status), said: last.map_or_else(String::new, |last| format!(": {last}")) }
    }

    fn victim(&self) -> Victim {
        Victim::new(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.victim().kill_group();
            drop(self.child.wait());
        }
    }
}

/// Reads a result and holds it to the request.
fn read(out: &Path, request: &Request, vocab: usize) -> Result<Outputs> {
    let garbage = |problem: String| Failure::Garbage(problem);
    let text = files::read(&out.join(RESULT_FILE), RESULT_MAX)
        .map_err(|e| garbage(format!("{RESULT_FILE} cannot be read: {e}")))?;
    let answer: Answer = serde_json::from_slice(&text).map_err(|e| garbage(format!("{RESULT_FILE}: {e}")))?;
    if answer.protocol != PROTOCOL {
        return Err(garbage(format!("it is of version {} of the protocol, not {PROTOCOL}", answer.protocol)));
    }
    if answer.reference.name.trim().is_empty() || answer.reference.version.trim().is_empty() {
        return Err(garbage("the reference has no name or no version".to_owned()));
    }
    if too_wordy(&answer) {
        return Err(garbage(format!(
            "more than {SENTENCES_MAX} notes, or a note or name of more than {SENTENCE_MAX} bytes"
        )));
    }
    let mut computed: BTreeMap<&str, &Computed> = BTreeMap::new();
    for sequence in &answer.sequences {
        if computed.insert(&sequence.id, sequence).is_some() {
            return Err(garbage(format!("the sequence '{}' is there twice", sequence.id)));
        }
    }
    let rows = |sequence: &Sequence| {
        let id = &sequence.id;
        let computed =
            computed.remove(id.as_str()).ok_or_else(|| format!("the sequence '{id}' is missing"))?;
        rows_of(out, sequence, computed, vocab).map_err(|problem| format!("sequence '{id}': {problem}"))
    };
    let sequences: Vec<Rows> =
        request.sequences.iter().map(rows).collect::<Result<_, String>>().map_err(garbage)?;
    if let Some(id) = computed.keys().next() {
        return Err(garbage(format!("the sequence '{id}' was not asked for")));
    }
    let Answer { reference: identity, feeding, notes, .. } = answer;
    Ok(Outputs { identity, feeding, notes, sequences })
}

/// More is said than belongs into a receipt.
fn too_wordy(Answer { reference: Identity { name, version, build }, notes, .. }: &Answer) -> bool {
    let mut sentences = notes.iter().chain([name, version]).chain(build);
    notes.len() > SENTENCES_MAX || sentences.any(|sentence| sentence.len() > SENTENCE_MAX)
}

type Checked<T> = Result<T, String>;

fn rows_of(out: &Path, sequence: &Sequence, computed: &Computed, vocab: usize) -> Checked<Rows> {
    let steps = sequence.steps as usize;
    if computed.generated.len() != steps {
        return Err(format!("{} generated tokens of {steps}", computed.generated.len()));
    }
    if let Some(token) = computed.generated.iter().find(|token| **token as usize >= vocab) {
        return Err(format!("the generated token {token} is not below {vocab}"));
    }
    let rows = sequence.tokens.len() + steps;
    let logits = array(out, &computed.logits, rows, Some(vocab))?;
    let choosing = logits.chunks(vocab).skip(sequence.tokens.len() - 1);
    for (step, (row, token)) in choosing.zip(&computed.generated).enumerate() {
        let largest = argmax(row);
        if largest != *token as usize {
            return Err(format!(
                "at step {step} it generated token {token}, but its largest logit is {largest}'s"
            ));
        }
    }
    let mut tensors = BTreeMap::new();
    for (name, file) in &computed.tensors {
        if !sequence.tensors.contains(name) {
            return Err(format!("the tensor '{}' was not asked for", beginning(name)));
        }
        tensors.insert(name.clone(), array(out, file, rows, None)?);
    }
    Ok(Rows { generated: computed.generated.clone(), logits, tensors })
}

/// The values of a `.npy` file of `rows` rows.
fn array(out: &Path, file: &str, rows: usize, cols: Option<usize>) -> Checked<Vec<f32>> {
    if Path::new(file).file_name().is_none_or(|plain| plain != file) {
        return Err(format!("'{}' is not a plain file name", beginning(file)));
    }
    let bad = |problem: String| format!("{}: {problem}", beginning(file));
    let most = HEAD_MAX + 4 * rows * cols.unwrap_or(COLUMNS_MAX);
    let bytes = files::read(&out.join(file), most).map_err(|e| bad(e.to_string()))?;
    if bytes.len() > most {
        return Err(bad(format!("it is longer than {most} bytes")));
    }
    let npy = npyz::NpyFile::new(&bytes[..]).map_err(|e| bad(format!("is no .npy file: {e}")))?;
    let shape = npy.shape().to_vec();
    let fits =
        matches!(shape[..], [r, c] if r == rows as u64 && cols.is_none_or(|cols| c == cols as u64) && c > 0);
    if !fits {
        let cols = cols.map_or_else(|| "width".to_owned(), |cols| cols.to_string());
        return Err(bad(format!("has the shape {shape:?}, expected [{rows}, {cols}]")));
    }
    let (order, kind) = (npy.order(), npy.dtype().descr());
    if order != npyz::Order::C || kind != "'<f4'" {
        return Err(bad(format!("holds {kind} in {order:?} order, expected '<f4' in C order")));
    }
    // What is asked of memory is what the file has, whatever its head says.
    if shape.iter().try_fold(4_u64, |n, side| n.checked_mul(*side)).is_none_or(|n| n > bytes.len() as u64) {
        return Err(bad(format!("{} bytes are less than its shape {shape:?} needs", bytes.len())));
    }
    let values: Vec<f32> = npy.into_vec().map_err(|e| bad(e.to_string()))?;
    let width = values.len() / rows.max(1);
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(bad(format!("row {}, column {} is {}", at / width, at % width, values[at]))),
        None => Ok(values),
    }
}

/// Writes `(rows, cols)` values as a `.npy` file.
pub(super) fn write_array(path: &Path, cols: usize, values: &[f32]) -> std::io::Result<()> {
    use npyz::WriterBuilder as _;
    let shape = [(values.len() / cols.max(1)) as u64, cols as u64];
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file).begin_nd()?;
    writer.extend(values.iter().copied())?;
    writer.finish()
}
