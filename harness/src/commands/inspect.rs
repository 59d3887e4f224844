//! `assay inspect`: what is in a GGUF file, and what is wrong with it.

use super::{about, open};
use crate::args;
use crate::output;
use assay_engine::gguf::{Gguf, TensorInfo};
use assay_engine::model::Model;
use assay_engine::tensor::{Matrix, TENSORS_ONLY};
use assay_engine::tokenizer::Tokenizer;
use assay_harness::exit::Exit;
use assay_harness::receipts::canonical::decoded_weights_sha256;
use assay_harness::receipts::record::tensor_facts;
use assay_harness::receipts::types::TensorFacts;
use serde::Serialize;

#[derive(Serialize)]
struct Output {
    file: String,
    bytes: usize,
    sha256: String,
    gguf_version: u32,
    alignment: u64,
    metadata: Vec<Entry>,
    tensors: Vec<Tensor>,
    decoded_weights_sha256: Option<String>,
    model: Option<String>,
    notes: Vec<String>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Entry {
    key: String,
    kind: String,
    value: String,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    kind: String,
    /// Logical rows and columns; the stored ones where the format is not read here.
    shape: [u64; 2],
    offset: u64,
    bytes: usize,
    sha256: Option<String>,
    decoded_sha256: Option<String>,
}

pub(super) fn run(args: &args::Inspect) -> anyhow::Result<Exit> {
    let file = open(&args.model)?;
    let mut gguf = about(&args.model, file.gguf())?;
    gguf.read_i2s_as(args.layout);
    let mut output = Output {
        file: args.model.display().to_string(),
        bytes: file.bytes().len(),
        sha256: hex::encode(file.sha256()),
        gguf_version: gguf.version(),
        alignment: gguf.alignment(),
        metadata: metadata(&gguf),
        tensors: Vec::new(),
        decoded_weights_sha256: None,
        model: None,
        notes: Vec::new(),
        problems: Vec::new(),
    };
    let facts = tensors(&gguf, &mut output);
    output.decoded_weights_sha256 = decoded_weights_sha256(&facts)?.map(|digest| digest.to_string());
    describe_model(&gguf, &mut output);
    if args.json {
        output::json(&output)?
    } else {
        output::line(&plain(&output))?
    }
    Ok(Exit::of(output.problems.is_empty()))
}

fn metadata(gguf: &Gguf<'_>) -> Vec<Entry> {
    let entry = |(key, value): &(&str, assay_engine::gguf::Value<'_>)| Entry {
        key: (*key).to_owned(),
        kind: value.type_name(),
        value: value.to_string(),
    };
    gguf.metadata().iter().map(entry).collect()
}

/// Fills in the tensors and their problems; returns the facts of those that are sound.
fn tensors(gguf: &Gguf<'_>, output: &mut Output) -> Vec<TensorFacts> {
    let mut sound = Vec::new();
    for tensor in gguf.tensors() {
        let matrix = Matrix::of(gguf, tensor).and_then(|matrix| matrix.validate().map(|()| matrix));
        match matrix {
            Ok(matrix) => {
                let facts = tensor_facts(&matrix);
                if matrix.format.info().ternary && facts.decoded_sha256.is_none() {
                    let name = tensor.name;
                    output.notes.push(format!(
                        "tensor '{name}': blocks differ in scale or hold +2, so it has no decoded digest"
                    ));
                }
                output.tensors.push(Tensor {
                    name: facts.name.clone(),
                    kind: facts.format.clone(),
                    shape: [facts.rows.get(), facts.cols.get()],
                    sha256: Some(facts.sha256.to_string()),
                    decoded_sha256: facts.decoded_sha256.as_ref().map(ToString::to_string),
                    ..stored(tensor)
                });
                sound.push(facts);
            }
            Err(error) => {
                output.problems.push(error.to_string());
                output.tensors.push(stored(tensor));
            }
        }
    }
    sound
}

fn stored(tensor: &TensorInfo<'_>) -> Tensor {
    Tensor {
        name: tensor.name.to_owned(),
        kind: tensor.kind.name().to_owned(),
        shape: [tensor.rows(), tensor.cols()],
        offset: tensor.offset,
        bytes: tensor.bytes,
        sha256: None,
        decoded_sha256: None,
    }
}

fn describe_model(gguf: &Gguf<'_>, output: &mut Output) {
    if matches!(gguf.opt_str("general.architecture"), Ok(None | Some(TENSORS_ONLY))) {
        output.notes.push("a file of tensors, not a model".to_owned());
        return;
    }
    match Model::load(gguf, None) {
        Ok(model) => {
            let c = &model.config;
            output.model = Some(format!(
                "{}: {} layers, embedding {}, feed-forward {}, {} heads of {} ({} for keys and values), vocabulary {}, context {}; one decoded token reads {}",
                c.arch.name,
                c.layers,
                c.embedding,
                c.feed_forward,
                c.heads,
                c.head_dim,
                c.heads_kv,
                c.vocab,
                c.context,
                output::bytes(model.bytes_per_token()),
            ));
        }
        // A damaged tensor has been named already.
        Err(error) => {
            let text = error.to_string();
            if !output.problems.contains(&text) {
                output.problems.push(text);
            }
        }
    }
    match Tokenizer::read(gguf) {
        Ok(Some(tokenizer)) => output.notes.extend(tokenizer.warning().map(str::to_owned)),
        Ok(None) => output.notes.push("no tokenizer: run it with --tokens".to_owned()),
        Err(error) => output.notes.push(error.to_string()),
    }
}

fn plain(output: &Output) -> String {
    let Output { gguf_version, alignment, .. } = output;
    let mut lines = vec![
        format!(
            "{}: GGUF v{gguf_version}, alignment {alignment}, {}",
            output.file,
            output::bytes(output.bytes)
        ),
        format!("SHA-256 {}", output.sha256),
    ];
    lines.extend(output.model.clone());
    if let Some(digest) = &output.decoded_weights_sha256 {
        lines.push(format!("decoded weights {digest}"));
    }
    let rows: Vec<Vec<String>> =
        output.metadata.iter().map(|e| vec![e.key.clone(), e.kind.clone(), shorten(&e.value)]).collect();
    lines.push(format!("\n{}", output::table(&["metadata", "type", "value"], &rows, &[])));
    let short =
        |digest: &Option<String>| digest.as_ref().map_or("-".to_owned(), |digest| digest[..12].to_owned());
    let rows: Vec<Vec<String>> = output
        .tensors
        .iter()
        .map(|t| {
            let [r, c] = t.shape;
            let decoded = short(&t.decoded_sha256);
            vec![
                t.name.clone(),
                t.kind.clone(),
                format!("{r} x {c}"),
                t.bytes.to_string(),
                short(&t.sha256),
                decoded,
            ]
        })
        .collect();
    let head = ["tensor", "format", "rows x cols", "bytes", "SHA-256", "decoded"];
    lines.push(format!("\n{}\n", output::table(&head, &rows, &[2, 3])));
    lines.extend(output.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(output.problems.iter().map(|problem| format!("PROBLEM: {problem}")));
    if output.problems.is_empty() {
        lines.push("no problems found".to_owned());
    }
    lines.join("\n")
}

fn shorten(value: &str) -> String {
    const WIDTH: usize = 60;
    let value = value.replace('\n', " ");
    if value.chars().count() <= WIDTH {
        value
    } else {
        value.chars().take(WIDTH - 1).collect::<String>() + "…"
    }
}
