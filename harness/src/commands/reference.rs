//! `assay reference`: the other implementations that parity is asked of.

use crate::args;
use crate::output;
use anyhow::{Context as _, bail};
use assay_harness::exit::Exit;
use assay_harness::plugins::peers;
use assay_harness::references::{self, Failure, Found, LIST, LlamaOptions, Reference};
use serde::Serialize;
use std::time::Duration;

/// How long a description may take: a script may load much before it answers.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(args: &args::Reference) -> anyhow::Result<Exit> {
    match args {
        args::Reference::List { json } => list(*json),
        args::Reference::Describe { name, json } => describe(name, *json),
        args::Reference::Install { name } => install(name),
    }
}

/// A reference of our own, as a program: `describe`, or `run REQUEST OUT`.
pub(super) fn child(words: &[String]) -> anyhow::Result<Exit> {
    references::bear();
    let code = match words.split_first() {
        Some((name, rest)) if name == "llama.cpp" => {
            let (options, rest) = rest.split_first().context("options of llama.cpp")?;
            let options: LlamaOptions = serde_json::from_str(options).context("options of llama.cpp")?;
            references::llama_main(&options, rest)
        }
        Some((name, rest)) if name == "oracle" => {
            assay_oracle::main(rest, &mut std::io::stdout().lock(), &mut std::io::stderr().lock())
        }
        _ => bail!("expected llama.cpp or oracle; this command is for `assay parity`"),
    };
    // The protocol's codes are not those of a command.
    #[expect(
        clippy::exit,
        reason = "this process is a program of the reference protocol, with its exit codes"
    )]
    std::process::exit(code)
}

/// Finds a reference; a note says what to do where it is not here.
pub(super) fn find(name: &str, abi: Option<&str>, unmodified: bool) -> anyhow::Result<Option<Reference>> {
    let found = references::find(name, abi, &std::env::current_exe()?, &peers::folder(), unmodified)?;
    Ok(match found {
        Found::Here(reference) => Some(reference),
        Found::Absent(why) => {
            output::note(&format!("skipped: {why}"));
            None
        }
    })
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    what: &'static str,
    here: bool,
    missing: Option<String>,
}

fn list(json: bool) -> anyhow::Result<Exit> {
    let folder = peers::folder();
    let mut lines = Vec::new();
    for listed in LIST {
        let missing = match listed.name.contains(':') {
            true => Some("yours to build".to_owned()),
            false => match references::find(listed.name, None, &std::env::current_exe()?, &folder, false) {
                Ok(Found::Here(_)) => None,
                Ok(Found::Absent(why)) => Some(why),
                Err(error) => Some(error.to_string()),
            },
        };
        lines.push(Line { name: listed.name, what: listed.what, here: missing.is_none(), missing });
    }
    if json {
        output::json(&lines)?;
        return Ok(Exit::Held);
    }
    let cells = |line: &Line| {
        vec![
            line.name.to_owned(),
            line.missing.clone().unwrap_or_else(|| "here".to_owned()),
            line.what.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = lines.iter().map(cells).collect();
    output::line(&output::table(&["reference", "state", "what"], &rows, &[]))?;
    output::line(
        "\nAny program that speaks docs/reference-protocol.md is a reference: assay parity MODEL --reference ./program",
    )?;
    Ok(Exit::Held)
}

fn describe(name: &str, json: bool) -> anyhow::Result<Exit> {
    let Some(reference) = find(name, None, false)? else { return Ok(Exit::Inconclusive) };
    let description = match reference.program.describe(PATIENCE) {
        Ok(description) => description,
        Err(failure @ Failure::Refused(_)) => {
            output::error(&anyhow::anyhow!("{name}: {failure}"));
            return Ok(Exit::Inconclusive);
        }
        Err(failure) => bail!("{name}: {failure}"),
    };
    if json {
        output::json(&description)?;
        return Ok(Exit::Held);
    }
    let identity = &description.reference;
    let list = |names: &[String]| if names.is_empty() { "not said".to_owned() } else { names.join(", ") };
    output::line(
        &[
            format!("reference      {} {}", identity.name, identity.version),
            format!("build          {}", identity.build.as_deref().unwrap_or("not said")),
            format!("architectures  {}", list(&description.architectures)),
            format!("tensors        {}", list(&description.tensors)),
        ]
        .join("\n"),
    )?;
    Ok(Exit::Held)
}

fn install(name: &str) -> anyhow::Result<Exit> {
    let progress = output::Progress::new();
    let done = references::install(name, &peers::folder(), &mut |doing| progress.say(doing));
    progress.clear();
    output::line(&done?)?;
    Ok(Exit::Held)
}
