//! `assay kernels bench`: kernels timed beside each other.

use crate::args;
use crate::exit::Exit;
use crate::output;
use anyhow::bail;
use assay_engine::kernels::plugin::Loaded;
use assay_engine::kernels::{self, Isa};
use assay_engine::quant::Format;
use assay_harness::bench::{Line, Setting, Spread, contest};
use assay_harness::plugins::peers::{self, Found, Source};
use serde::Serialize;
use std::time::Duration;

/// Bytes of weights of the settings whose weights stay in the second-level cache.
const CACHED: usize = 160 << 10;

#[derive(Serialize)]
struct Result {
    setting: &'static str,
    cols: usize,
    tokens: usize,
    bytes: usize,
    rounds: usize,
    lines: Vec<Line>,
}

pub(super) fn run(args: &args::BenchKernels) -> anyhow::Result<Exit> {
    let formats = formats(&args.format)?;
    let isas = if args.isa.is_empty() {
        kernels::available().into_iter().map(|table| table.isa).filter(|isa| *isa != Isa::Scalar).collect()
    } else {
        args.isa.clone()
    };
    let other = other(args)?;
    let mut results = Vec::new();
    for name in &args.setting {
        let setting = setting(args, name)?;
        let mut progress = |what: &str| output::note(&format!("{name}: {what}"));
        let lines = contest(&setting, &formats, &isas, other.as_ref(), &mut progress)?;
        let Setting { name, cols, tokens, bytes, rounds, .. } = setting;
        let result = Result { setting: name, cols, tokens, bytes, rounds, lines };
        if !args.json {
            output::line(&plain(&result))?;
        }
        results.push(result);
    }
    if args.json {
        output::json(&results)?;
    }
    Ok(Exit::Held)
}

fn formats(names: &[String]) -> anyhow::Result<Vec<Format>> {
    if names == ["all"] {
        return Ok(Format::ALL.to_vec());
    }
    let known = || Format::ALL.map(Format::name).join(", ");
    let parse = |name: &String| {
        Format::parse(name).ok_or_else(|| anyhow::anyhow!("no weight format '{name}'; there are {}", known()))
    };
    names.iter().map(parse).collect()
}

fn setting(args: &args::BenchKernels, name: &str) -> anyhow::Result<Setting> {
    let turn = Duration::from_millis(u64::from(args.turn));
    let cached = Setting {
        name: "cache",
        cols: args.cols,
        bytes: CACHED,
        tokens: 1,
        readers: false,
        rounds: args.rounds as usize,
        turn,
    };
    match name {
        "cache" => Ok(cached),
        "stream" => Ok(Setting {
            name: "stream",
            bytes: 1_000_000 * args.megabytes as usize,
            readers: true,
            ..cached
        }),
        "gemm" => Ok(Setting { name: "gemm", tokens: args.tokens as usize, ..cached }),
        other => bail!("no setting '{other}'; there are cache, stream and gemm"),
    }
}

/// The plug-in or peer that is to be timed too; a peer that is not here is named, and left out.
fn other(args: &args::BenchKernels) -> anyhow::Result<Option<Loaded>> {
    let source = match (&args.plugin, &args.peer) {
        (Some(path), _) => Source::Plugin(path.clone()),
        (None, Some(peer)) => match peers::find(peer, &peers::folder())? {
            Found::Here(source) => source,
            Found::Absent(why) => {
                output::note(&format!("SKIPPED {peer}: {why}"));
                return Ok(None);
            }
        },
        (None, None) => return Ok(None),
    };
    #[expect(unsafe_code, reason = "the user asked to run this library in this process")]
    // SAFETY: not ours to give: the user names the library, and the help says that it runs in this process.
    let (loaded, _) = unsafe { source.load() }?;
    Ok(Some(loaded))
}

fn plain(result: &Result) -> String {
    let spread = |spread: Option<Spread>, digits: usize| {
        spread.map_or_else(String::new, |Spread { median, min, max }| {
            format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
        })
    };
    let row = |line: &Line| {
        vec![
            line.name.clone(),
            spread(line.gmacs, 1),
            spread(line.gbytes, 2),
            spread(line.of_peak, 2),
            spread(line.of_reading, 2),
            spread(line.of_peer, 2),
        ]
    };
    let rows: Vec<Vec<String>> = result.lines.iter().map(row).collect();
    let head = ["median (min-max)", "GMAC/s", "GB/s", "of int8 peak", "of reading", "x peer"];
    let Result { setting, cols, tokens, bytes, rounds, .. } = result;
    let bytes = output::bytes(*bytes);
    format!(
        "{setting}: {cols} columns, {bytes} of weights, {tokens} tokens, {rounds} rounds, one thread\n{}\n",
        output::table(&head, &rows, &[1, 2, 3, 4, 5])
    )
}
