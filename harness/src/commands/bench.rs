//! `assay kernels bench`: kernels timed beside each other.

use crate::args;
use crate::output;
use anyhow::{bail, ensure};
use assay_engine::kernels::plugin::Loaded;
use assay_engine::kernels::{self, Isa};
use assay_engine::quant::Format;
use assay_harness::bench::{BenchError, Line, Setting, Spread, contest};
use assay_harness::exit::Exit;
use assay_harness::plugins::peers::{self, Found, Source};
use serde::Serialize;
use std::time::Duration;

/// Bytes of weights of the settings whose weights stay in the second-level cache.
const CACHED: usize = 160 << 10;

/// Weight formats that are timed where none is named: these, then those of a library or else [`USUAL`].
const OWN: [&str; 3] = ["I2_S", "I2_R4", "T5"];
/// See [`OWN`].
const USUAL: [&str; 4] = ["TQ2_0", "TQ1_0", "Q8_0", "Q6_K"];

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
    let isas = if args.isa.is_empty() {
        kernels::available().into_iter().map(|table| table.isa).filter(|isa| *isa != Isa::Scalar).collect()
    } else {
        args.isa.clone()
    };
    for isa in &isas {
        kernels::get(*isa)?;
    }
    let settings: Vec<Setting> =
        args.setting.iter().map(|name| setting(args, name)).collect::<anyhow::Result<_>>()?;
    let other = match other(args)? {
        Some(Other::Here(loaded)) => Some(loaded),
        Some(Other::Absent(why)) => {
            output::note(&format!("skipped: {why}"));
            return Ok(Exit::Inconclusive);
        }
        None => None,
    };
    let theirs = other.as_ref().map_or_else(Vec::new, multiplied_by);
    let mut names = args.format.clone();
    if names.is_empty() {
        names = OWN.map(str::to_owned).to_vec();
        let others = if theirs.is_empty() { USUAL.map(str::to_owned).to_vec() } else { theirs.clone() };
        names.extend(others.into_iter().filter(|name| !OWN.contains(&name.as_str())));
    }
    let formats = formats(&names, args.cols as usize)?;
    if let Some(loaded) = &other {
        ensure!(
            formats.iter().any(|format| theirs.iter().any(|name| name == format.name())),
            "{} multiplies {}, and --format names {}: nothing to compare",
            loaded.name,
            theirs.join(", "),
            names.join(", ")
        );
    }
    let mut results = Vec::new();
    for setting in settings {
        let mut progress = |what: &str| output::note(&format!("{}: {what}", setting.name));
        let lines = match contest(&setting, &formats, &isas, other.as_ref(), &mut progress) {
            Ok(lines) => lines,
            Err(wrong @ BenchError::Wrong { .. }) => {
                output::note(&format!("{wrong}; `assay kernels check` says more"));
                return Ok(Exit::Mismatch);
            }
            Err(error) => return Err(error.into()),
        };
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
    let of_other =
        |line: &Line| other.iter().flat_map(Loaded::kernels).any(|k| k.declared().name == line.name);
    if other.is_some() && !results.iter().flat_map(|result| &result.lines).any(of_other) {
        output::note("no kernel from outside was timed: each declines these shapes");
        return Ok(Exit::Inconclusive);
    }
    Ok(Exit::Held)
}

/// The formats of these names, which all hold rows of `cols`; all that do for `all`.
fn formats(names: &[String], cols: usize) -> anyhow::Result<Vec<Format>> {
    let known = || Format::ALL.map(Format::name).join(", ");
    let holds = |format: &Format| cols.is_multiple_of(format.info().cols_multiple);
    if names == ["all"] {
        return Ok(Format::ALL.into_iter().filter(holds).collect());
    }
    let parse = |name: &String| {
        let Some(format) = Format::parse(name) else {
            bail!("no weight format '{name}'; there are {}, or all", known());
        };
        let multiple = format.info().cols_multiple;
        ensure!(
            holds(&format),
            "--cols: expected a multiple of {multiple} for {}, got {cols}",
            format.name()
        );
        Ok(format)
    };
    names.iter().map(parse).collect()
}

/// The weight formats of a library's kernels, in its order.
fn multiplied_by(loaded: &Loaded) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in loaded.kernels().iter().map(|kernel| &kernel.declared().weights) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn setting(args: &args::BenchKernels, name: &str) -> anyhow::Result<Setting> {
    let turn = Duration::from_millis(u64::from(args.turn));
    let cached = Setting {
        name: "cache",
        cols: args.cols as usize,
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

/// What `--plugin` or `--peer` asks for.
enum Other {
    Here(Loaded),
    /// A peer that is not here, and what to do about it.
    Absent(String),
}

fn other(args: &args::BenchKernels) -> anyhow::Result<Option<Other>> {
    let source = match (&args.plugin, &args.peer) {
        (Some(path), _) => Source::Plugin(path.clone()),
        (None, Some(peer)) => match peers::find(peer, &peers::folder())? {
            Found::Here(source) => source,
            Found::Absent(why) => return Ok(Some(Other::Absent(why))),
        },
        (None, None) => return Ok(None),
    };
    #[expect(unsafe_code, reason = "the user asked to run this library in this process")]
    // SAFETY: not ours to give: the user names the library, and the help says that it runs in this process.
    let (loaded, _) = unsafe { source.load() }?;
    Ok(Some(Other::Here(loaded)))
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
    let mut rows: Vec<Vec<String>> = result.lines.iter().map(row).collect();
    let mut head = vec!["median (min-max)", "GMAC/s", "GB/s", "of int8 peak", "of reading", "x peer"];
    // Columns that say nothing in this setting.
    for column in (1..head.len()).rev() {
        if rows.iter().all(|row| row[column].is_empty()) {
            head.remove(column);
            rows.iter_mut().for_each(|row| drop(row.remove(column)));
        }
    }
    let numbers: Vec<usize> = (1..head.len()).collect();
    let Result { setting, cols, tokens, bytes, rounds, .. } = result;
    let count = |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
    format!(
        "{setting}: {cols} columns, about {} of weights, {}, {}, one thread\n{}\n",
        output::bytes(*bytes),
        count(*tokens, "token"),
        count(*rounds, "round"),
        output::table(&head, &rows, &numbers)
    )
}
