//! The two commands of the reference protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::config::ARCHITECTURES;
use crate::error::{Error, Result};
use crate::forward::{Activation, Attention, Sequence, TENSORS};
use crate::model::Model;
use crate::npy::Rows;
use crate::protocol::{Answer, Answered, Asked, Description, PROTOCOL, Reference, Request};
use crate::rounding::finite;

/// The whole program: `["describe"]` or `["run", REQUEST.json, OUT]` → its exit code. `--f16-attention` in front of them stands for
/// [`Attention::F16`].
///
/// `describe` is written to `stdout`; an error is one line on `stderr`.
pub fn main(args: &[String], stdout: &mut dyn Write, stderr: &mut dyn Write) -> i32 {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (attention, command) = match args.as_slice() {
        ["--f16-attention", command @ ..] => (Attention::F16, command),
        command => (Attention::F64, command),
    };
    let done = match command {
        ["describe"] => {
            let written = writeln!(stdout, "{}", description(attention));
            written.map_err(|error| Error::system("standard output", &error))
        }
        ["run", request, out] => run_with(Path::new(request), Path::new(out), attention),
        _ => Err(Error::Usage),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            // A path may hold a line feed; the protocol shows the last line. Where it cannot be written, the exit code has to do.
            let _ = writeln!(stderr, "oracle: {}", error.to_string().replace('\n', " "));
            error.exit_code()
        }
    }
}

/// Who the oracle is and what it can do: the JSON object of the protocol's `describe`.
pub fn describe() -> String {
    description(Attention::F64)
}

fn description(attention: Attention) -> String {
    json(&Description {
        protocol: PROTOCOL,
        reference: Reference::this(attention),
        architectures: &ARCHITECTURES,
        tensors: &TENSORS,
    })
}

/// [`run_with`] attention in `f64`.
///
/// # Errors
///
/// Those of [`run_with`].
pub fn run(request: &Path, out: &Path) -> Result<()> {
    run_with(request, out, Attention::F64)
}

/// Does what the file `request` asks and writes the arrays, and last `result.json`, into the folder `out`.
///
/// # Errors
///
/// - [`Error::Refused`], with exit code 3, for what this program does not have: a protocol version, an architecture, a format
/// - [`Error::Request`] for a request that does not fit the protocol or the model's vocabulary
/// - [`Error::In`] for anything wrong with the model's file
/// - [`Error::NotFinite`] if a computed value is NaN or infinite; [`Error::System`] if something cannot be read or written
pub fn run_with(request: &Path, out: &Path, attention: Attention) -> Result<()> {
    let text =
        fs::read_to_string(request).map_err(|error| Error::system(request.display().to_string(), &error))?;
    let request = Request::parse(&text)?;
    let path = Path::new(&request.model);
    let model = read_model(path)?;
    // All ids first: a mistake in the last sequence should not cost the time of the others.
    request.sequences.iter().try_for_each(|asked| check_vocabulary(&model, asked))?;

    let activation = request.activation()?;
    let mut sequences = Vec::new();
    for asked in &request.sequences {
        let computed = compute(&model, activation, attention, request.threads, asked)?;
        sequences.push(write_arrays(asked, computed, out)?);
    }
    let answer = Answer {
        protocol: PROTOCOL,
        reference: Reference::this(attention),
        feeding: "one-token-at-a-time",
        notes: vec![note(attention).to_owned()],
        sequences,
    };
    write_answer(&answer, out)
}

/// What a receipt should say about every result.
fn note(attention: Attention) -> &'static str {
    match attention {
        Attention::F64 => {
            "attention stays in f64, where ggml rounds queries, keys, values and weights to f16"
        }
        Attention::F16 => "attention is rounded to f16 where ggml rounds it",
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("text and lists of our own always serialise")
}

fn read_model(path: &Path) -> Result<Model> {
    let system = |error: std::io::Error| Error::system(path.display().to_string(), &error);
    // A device could be read without end.
    if !fs::metadata(path).map_err(system)?.is_file() {
        return Err(Error::malformed(path.display().to_string(), "this is not a file"));
    }
    let bytes = fs::read(path).map_err(system)?;
    Model::read(&bytes).map_err(|error| error.in_file(path))
}

fn check_vocabulary(model: &Model, asked: &Asked) -> Result<()> {
    let vocab = model.embedding.rows;
    match asked.tokens.iter().find(|token| **token as usize >= vocab) {
        Some(token) => {
            let id = &asked.id;
            Err(Error::Request(format!(
                "sequence '{id}': token {token} is outside of the vocabulary of {vocab}"
            )))
        }
        None => Ok(()),
    }
}

/// What came of a sequence.
struct Computed {
    generated: Vec<u32>,
    /// `(tokens + steps, vocab)`
    logits: Rows,
    /// Wanted tensors, by name, `(tokens + steps, width)`.
    tensors: BTreeMap<String, Rows>,
}

/// Feeds the given tokens, then as many chosen ones as are wanted.
fn compute(
    model: &Model,
    activation: Activation,
    attention: Attention,
    threads: usize,
    asked: &Asked,
) -> Result<Computed> {
    let mut sequence = Sequence::new(model, activation, attention, threads);
    let mut computed = Computed { generated: Vec::new(), logits: Rows::default(), tensors: BTreeMap::new() };
    for index in 0..asked.tokens.len() + asked.steps as usize {
        let token = match asked.tokens.get(index) {
            Some(token) => *token,
            // What is written decides, so that nobody who reads it can choose otherwise.
            None => {
                let chosen = first_largest(computed.logits.last());
                computed.generated.push(chosen);
                chosen
            }
        };
        let tap = &mut recorder(&asked.tensors, &mut computed.tensors);
        let logits = sequence.feed(token as usize, tap)?;
        computed.logits.push(&logits);
        finite(computed.logits.last(), "logits")?;
    }
    Ok(computed)
}

/// Keeps the rows of wanted tensors. A wanted name that the model does not have never comes up, and gets no file.
fn recorder<'a>(
    wanted: &'a BTreeSet<String>,
    kept: &'a mut BTreeMap<String, Rows>,
) -> impl FnMut(&str, &[f64]) + 'a {
    |name, row| {
        if wanted.contains(name) {
            kept.entry(name.to_owned()).or_default().push(row);
        }
    }
}

/// The index of the largest element, the first of equals; [`Model::read`] keeps vocabularies below 2^32.
fn first_largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best as u32
}

/// Writes `ID.logits.npy` and `ID.<tensor>.npy`. Ids and names of tensors cannot hold a separator of folders.
fn write_arrays(asked: &Asked, computed: Computed, out: &Path) -> Result<Answered> {
    let id = &asked.id;
    let logits = format!("{id}.logits.npy");
    computed.logits.write(&out.join(&logits))?;
    let mut tensors = BTreeMap::new();
    for (name, rows) in computed.tensors {
        let file = format!("{id}.{name}.npy");
        rows.write(&out.join(&file))?;
        tensors.insert(name, file);
    }
    Ok(Answered { id: id.clone(), generated: computed.generated, logits, tensors })
}

/// `result.json`, under another name until it is whole.
fn write_answer(answer: &Answer, out: &Path) -> Result<()> {
    let part = out.join("result.json.part");
    let written =
        fs::write(&part, json(answer) + "\n").and_then(|()| fs::rename(&part, out.join("result.json")));
    written.map_err(|error| Error::system(out.join("result.json").display().to_string(), &error))
}

#[cfg(test)]
mod tests;
