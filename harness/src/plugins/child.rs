//! The child: loads the library, checks its kernels, and writes a line of JSON before and after each group.
#![expect(unsafe_code, reason = "loads a shared library of strangers: this process is there to bear it")]

use super::check::Checker;
use super::fault;
use super::groups::Group;
use super::peers::Source;
use super::report::{Finding, GroupResult, KernelFacts};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

/// What the parent asks for, as JSON on the child's command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What to load.
    pub source: Source,
    /// Only this kernel.
    pub kernel: Option<String>,
    /// Seed of the cases.
    pub seed: u64,
    /// The first task to run: see `tasks`.
    pub start: usize,
}

/// A line of the child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Line {
    /// It is loaded.
    Loaded {
        name: String,
        version: String,
        library: PathBuf,
        kernels: Vec<KernelFacts>,
        tasks: Vec<(usize, Group)>,
    },
    /// It cannot be: bad usage or input.
    Refused { message: String },
    /// A group begins.
    Begin { task: usize },
    /// It has ended.
    Done { task: usize, result: GroupResult },
    /// A signal ended this process.
    Died(Death),
    /// This process is of no use any more (its float environment is another): the next task needs a new one.
    Spent { next: usize },
    /// All is done.
    End,
}

/// Last words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Death {
    pub(super) signal: i32,
    pub(super) case: String,
    /// Whether the access that failed was a write, where the processor tells.
    pub(super) write: Option<bool>,
    #[serde(default)]
    pub(super) null: bool,
    #[serde(default)]
    pub(super) buffer: Option<String>,
    #[serde(default)]
    pub(super) side: String,
    #[serde(default)]
    pub(super) distance: u64,
}

/// Every group of every kernel, in order: (kernel, group).
fn tasks(kernels: &[assay_engine::kernels::plugin::Kernel], request: &Request) -> Vec<(usize, Group)> {
    let wanted = |name: &str| request.kernel.as_deref().is_none_or(|only| only == name);
    let peer = request.source.is_peer();
    let indices = (0..kernels.len()).filter(|&k| wanted(&kernels[k].declared().name));
    indices
        .flat_map(|k| Group::ALL.into_iter().map(move |group| (k, group)))
        .filter(|(k, group)| group.applies(kernels[*k].declared(), peer))
        .collect()
}

struct Lines(File);

impl Lines {
    fn say(&mut self, line: &Line) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.0.write_all(&text)
    }
}

/// Does what the parent asks for, and writes lines to what was stdout.
///
/// # Errors
/// - the parent is gone.
pub fn run_child(request: &Request) -> std::io::Result<()> {
    let mut lines = Lines(fault::take_stdout()?);
    fault::limit();
    fault::watch();
    fault::now("while it is loaded");
    // SAFETY: this process exists to bear what the library does; nothing in it is of value.
    let (loaded, library) = match unsafe { request.source.load() } {
        Ok(loaded) => loaded,
        Err(error) => return lines.say(&Line::Refused { message: error.to_string() }),
    };
    // Again: a constructor may have installed handlers of its own.
    fault::watch();
    let kernels = loaded.kernels();
    if let Some(name) = request.kernel.as_deref().filter(|name| loaded.kernel(name).is_none()) {
        let names: Vec<_> = kernels.iter().map(|kernel| kernel.declared().name.as_str()).collect();
        let message = format!("there is no kernel '{name}' in it: it has {}", names.join(", "));
        return lines.say(&Line::Refused { message });
    }
    let tasks = tasks(kernels, request);
    lines.say(&Line::Loaded {
        name: loaded.name.clone(),
        version: loaded.version.clone(),
        library,
        kernels: kernels.iter().map(|kernel| KernelFacts::of(kernel.declared())).collect(),
        tasks: tasks.clone(),
    })?;
    let mut checker: Option<(usize, Result<Checker<'_>, String>)> = None;
    for (task, (k, group)) in tasks.into_iter().enumerate().skip(request.start) {
        lines.say(&Line::Begin { task })?;
        if checker.as_ref().is_none_or(|(of, _)| *of != k) {
            checker = Some((k, Checker::new(&kernels[k], request.seed)));
        }
        let result = match checker.as_mut() {
            Some((_, Ok(checker))) => checker.group(group),
            Some((_, Err(message))) => {
                let finding = Finding::new("unknown-format", message.clone(), String::new());
                GroupResult { finding: Some(finding), ..GroupResult::new(group) }
            }
            None => continue,
        };
        let spent = result.finding.as_ref().is_some_and(|finding| finding.kind == "ftz-on");
        lines.say(&Line::Done { task, result })?;
        // What comes after is not read.
        if spent {
            lines.say(&Line::Spent { next: task + 1 })?;
            break;
        }
    }
    lines.say(&Line::End)?;
    // Unloading runs code of the library once more, and shows nothing.
    drop(checker);
    std::mem::forget(loaded);
    Ok(())
}
