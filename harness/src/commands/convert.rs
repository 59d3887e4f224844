//! `assay convert`: the weights of a file in another format.

use crate::args;
use crate::output;
use anyhow::Context as _;
use assay_harness::convert::{self, Converted, Error, Renamed, Request, Row};
use assay_harness::exit::Exit;
use serde::Serialize;

#[derive(Serialize)]
struct Output {
    input: String,
    output: String,
    target: &'static str,
    head: Option<&'static str>,
    /// How tensors of type 36 in the input were read.
    layout: &'static str,
    arch: Option<Renamed>,
    bytes_before: usize,
    bytes_after: usize,
    tensors: Vec<Row>,
}

pub(super) fn run(args: &args::Convert) -> anyhow::Result<Exit> {
    let request = Request {
        target: args.target,
        fallback: args.fallback_type,
        head: args.head_type,
        packing: args.layout,
        arch: args.arch,
    };
    let Converted { rows, arch } = match convert::convert(&args.input, &args.output, request) {
        Ok(converted) => converted,
        Err(error @ Error::Mismatch { .. }) => {
            output::error(&error.into());
            return Ok(Exit::Mismatch);
        }
        Err(error) => return Err(error).with_context(|| args.input.display().to_string()),
    };
    let sum = |bytes: fn(&Row) -> usize| rows.iter().map(bytes).sum();
    let output = Output {
        input: args.input.display().to_string(),
        output: args.output.display().to_string(),
        target: request.target.name(),
        head: request.head.map(|head| head.name()),
        layout: request.packing.name(),
        arch,
        bytes_before: sum(|row| row.bytes_before),
        bytes_after: sum(|row| row.bytes_after),
        tensors: rows,
    };
    if args.json {
        output::json(&output)?
    } else {
        output::line(&plain(&output))?
    }
    Ok(Exit::Held)
}

fn plain(output: &Output) -> String {
    let cells = |row: &Row| {
        let [rows, cols] = row.shape;
        let digest = row.decoded_sha256.as_ref().map_or("-", |digest| &digest[..12]);
        let scale = if row.scale_moved { "in .scale" } else { "" };
        [
            &row.name,
            row.from,
            row.to,
            &format!("{rows} x {cols}"),
            &row.bytes_after.to_string(),
            digest,
            scale,
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let rows: Vec<Vec<String>> = output.tensors.iter().map(cells).collect();
    let head = ["tensor", "from", "to", "rows x cols", "bytes", "decoded", "scale"];
    let digests = output.tensors.iter().filter(|row| row.decoded_sha256.is_some()).count();
    let mut text = [
        output::table(&head, &rows, &[3, 4]),
        String::new(),
        format!("read     {}, type 36 as {}", output.input, output.layout),
        format!(
            "written  {}: weights of {} instead of {}",
            output.output,
            output::bytes(output.bytes_after),
            output::bytes(output.bytes_before)
        ),
        format!("verdict  held: {digests} tensors decode to the same weights before and after"),
    ]
    .join("\n");
    if let Some(arch) = &output.arch {
        text += &format!("\narch     {} instead of {}", arch.to, arch.from);
        if arch.gate_after != arch.gate_before {
            text += &format!(
                ": its gate is {}, not {}, so the file is another model. Use it to time programs and to compare \
                 them on it; `assay run --activation {}` gives it the old gate",
                arch.gate_after, arch.gate_before, arch.gate_before
            );
        }
    }
    text
}
