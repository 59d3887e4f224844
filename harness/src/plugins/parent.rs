//! The parent: starts children, reads their lines, kills what hangs, goes on past what dies.

use super::child::{Death, Line, Request};
use super::fault::{Victim, signal_name};
use super::groups::Group;
use super::peers::Source;
use super::report::{Failure, Finding, GroupResult, KernelFacts, KernelReport, Report};
use assay_engine::Error;
use assay_variables::SIGNING_KEY;
use sha2::{Digest as _, Sha256};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Times that a kernel may take its child down before the rest of its groups is left out.
const DEATHS: u32 = 2;
/// Longest line that a child has a reason to write.
const LINE_MAX: u64 = 1 << 20;

type Result<T> = std::result::Result<T, Failure>;

/// How to check.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that has the hidden subcommand: this one.
    pub program: PathBuf,
    /// Its arguments before the request.
    pub arguments: Vec<String>,
    /// What to load.
    pub source: Source,
    /// Only this kernel.
    pub kernel: Option<String>,
    /// Seed of the cases.
    pub seed: u64,
    /// How long a group may take.
    pub timeout: Duration,
}

/// Checks a library in children.
///
/// # Errors
/// - [`Failure::Refused`]: it cannot be loaded (no shared library, no symbol, another version of the ABI), or the kernel that
///   was asked for is not in it. What is wrong with its kernels is in the report, not an error.
/// - [`Failure::Child`]: children cannot be started.
pub fn check(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut state = State::default();
    let mut source = options.source.clone();
    let mut start = 0;
    loop {
        let request =
            Request { source: source.clone(), kernel: options.kernel.clone(), seed: options.seed, start };
        let end = state.child(options, &request, progress)?;
        // A peer that was chosen stays the same in later children.
        if let (Source::Llama(folder, None), Some(library)) = (&source, &state.library) {
            let name = library.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let backend = name.and_then(|name| Some(name.strip_prefix("libggml-cpu-")?.to_owned()));
            source = Source::Llama(folder.clone(), backend);
        }
        match end {
            End::Finished => break,
            End::Loading(finding) => {
                state.finding = Some(finding);
                break;
            }
            End::Spent(next) if next >= state.tasks.len() => break,
            End::Spent(next) => start = next,
            End::Task(task, finding) => {
                let (kernel, group) = state.tasks[task];
                state.results[task] = Some(GroupResult { finding: Some(finding), ..GroupResult::new(group) });
                state.deaths[kernel] += 1;
                start = task + 1;
                if state.deaths[kernel] >= DEATHS {
                    while state.tasks.get(start).is_some_and(|(of, _)| *of == kernel) {
                        start += 1;
                    }
                }
                if start == state.tasks.len() {
                    break;
                }
            }
        }
    }
    state.report(options)
}

/// How a child ended.
enum End {
    Finished,
    /// With nothing wrong but the process itself.
    Spent(usize),
    /// Before a kernel ran.
    Loading(Finding),
    /// In this task.
    Task(usize, Finding),
}

#[derive(Default)]
struct State {
    name: String,
    version: String,
    library: Option<PathBuf>,
    kernels: Vec<KernelFacts>,
    tasks: Vec<(usize, Group)>,
    results: Vec<Option<GroupResult>>,
    deaths: Vec<u32>,
    finding: Option<Finding>,
}

impl State {
    /// Runs one child to its end.
    fn child(&mut self, options: &Options, request: &Request, progress: &mut dyn FnMut(&str)) -> Result<End> {
        let mut running = Running::start(options, request)?;
        let (mut current, mut death, mut timed_out) = (None, None, false);
        loop {
            match running.next(options.timeout) {
                Next::Line(Line::Loaded { name, version, library, kernels, tasks }) => {
                    if self.library.is_none() {
                        self.results = vec![None; tasks.len()];
                        self.deaths = vec![0; kernels.len()];
                        (self.name, self.version, self.kernels, self.tasks) = (name, version, kernels, tasks);
                        self.library = Some(library);
                    }
                }
                Next::Line(Line::Refused { message }) => return Err(Failure::Refused(message)),
                Next::Line(Line::Begin { task }) => {
                    if let Some((kernel, group)) = self.tasks.get(task) {
                        progress(&format!("{} {}", self.kernels[*kernel].name, group.name()));
                        current = Some(task);
                    }
                }
                Next::Line(Line::Done { task, result }) => {
                    if let Some(place) = self.results.get_mut(task) {
                        *place = Some(result);
                    }
                    current = None;
                }
                Next::Line(Line::Died(last)) => death = Some(last),
                Next::Line(Line::Spent { next }) => return Ok(End::Spent(next)),
                Next::Line(Line::End) => return Ok(End::Finished),
                Next::Silence if timed_out => running.kill(),
                Next::Silence => {
                    timed_out = true;
                    running.victim.alarm();
                }
                Next::Closed => break,
                Next::Nonsense(line) => {
                    running.kill();
                    return Err(Failure::Child(format!("wrote what is no line of the protocol: {line}")));
                }
            }
        }
        let status = running.wait()?;
        let finding = obituary(death.as_ref(), timed_out, status, options.timeout);
        Ok(match current {
            Some(task) => End::Task(task, finding),
            None => End::Loading(finding),
        })
    }

    fn report(self, options: &Options) -> Result<Report> {
        let library = self.library.unwrap_or_else(|| options.source.path().to_owned());
        let sha256 =
            hex::encode(Sha256::digest(std::fs::read(&library).map_err(|e| Error::file(&library, &e))?));
        let tasks: Vec<_> = self.tasks.into_iter().zip(self.results).collect();
        let mut kernels = Vec::new();
        for (index, kernel) in self.kernels.into_iter().enumerate() {
            let of_kernel: Vec<_> = tasks.iter().filter(|((of, _), _)| *of == index).collect();
            if of_kernel.is_empty() {
                continue;
            }
            let groups: Vec<_> = of_kernel.iter().filter_map(|(_, result)| result.clone()).collect();
            let not_run: Vec<_> = of_kernel
                .iter()
                .filter(|(_, result)| result.is_none())
                .map(|((_, group), _)| *group)
                .collect();
            let held = not_run.is_empty() && groups.iter().all(|result| result.finding.is_none());
            kernels.push(KernelReport { kernel, held, groups, not_run });
        }
        let file = library.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let (name, version) = (self.name, self.version);
        Ok(Report { name, version, file, sha256, seed: options.seed, kernels, finding: self.finding })
    }
}

/// A child, and the thread that reads it.
struct Running {
    child: Child,
    victim: Victim,
    lines: Receiver<std::io::Result<String>>,
}

enum Next {
    Line(Line),
    Nonsense(String),
    Silence,
    Closed,
}

impl Running {
    fn start(options: &Options, request: &Request) -> Result<Running> {
        let program = options.program.display();
        let request = serde_json::to_string(request).map_err(|e| Failure::Child(e.to_string()))?;
        let mut child = Command::new(&options.program)
            .args(&options.arguments)
            .arg(request)
            .env_remove(SIGNING_KEY.name())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| Failure::Child(format!("{program} cannot be started: {e}")))?;
        let victim = Victim::new(child.id());
        let lines = lines_of(child.stdout.take(), LINE_MAX);
        Ok(Running { child, victim, lines })
    }

    fn next(&self, timeout: Duration) -> Next {
        match self.lines.recv_timeout(timeout) {
            Ok(Ok(line)) => match serde_json::from_str(&line) {
                Ok(line) => Next::Line(line),
                Err(_) => Next::Nonsense(line.trim_end().chars().take(80).collect()),
            },
            Err(RecvTimeoutError::Timeout) => Next::Silence,
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Next::Closed,
        }
    }

    fn kill(&mut self) {
        self.victim.kill_group();
    }

    /// The child has closed its lines: it is dead, or about to be.
    fn wait(&mut self) -> Result<ExitStatus> {
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            let failed = |e: std::io::Error| Failure::Child(e.to_string());
            match self.child.try_wait().map_err(failed)? {
                Some(status) => return Ok(status),
                None if Instant::now() > end => {
                    self.kill();
                    return self.child.wait().map_err(failed);
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

/// The lines of a child, each up to `longest` bytes, read by a thread of their own.
pub(crate) fn lines_of(stdout: Option<ChildStdout>, longest: u64) -> Receiver<std::io::Result<String>> {
    let (send, lines) = channel();
    if let Some(stdout) = stdout {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            loop {
                let mut line = String::new();
                match (&mut reader).take(longest).read_line(&mut line) {
                    Ok(0) => return,
                    result => {
                        if send.send(result.map(|_| line)).is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
    lines
}

impl Drop for Running {
    fn drop(&mut self) {
        // Also what the plug-in may have started.
        self.kill();
        drop(self.child.wait());
    }
}

/// What a death means.
fn obituary(death: Option<&Death>, timed_out: bool, status: ExitStatus, timeout: Duration) -> Finding {
    let seconds = timeout.as_secs_f64();
    let Some(death) = death else {
        let (kind, message) = match (timed_out, status.signal(), status.code()) {
            (true, ..) => ("hang", format!("did not return within {seconds} s, and took no signal")),
            (_, Some(signal), _) => ("crash", format!("ended by {}", signal_name(signal))),
            (_, _, code) => ("exit", format!("ended the process with the exit code {}", code.unwrap_or(-1))),
        };
        return Finding::new(kind, message, String::new());
    };
    let signal = signal_name(death.signal);
    let does = match death.write {
        Some(true) => "writes",
        Some(false) => "reads",
        None => "touches",
    };
    let out_of_bounds = if death.write == Some(true) { "out-of-bounds-write" } else { "out-of-bounds-read" };
    let distance = death.distance;
    let (kind, message) = match (&death.buffer, death.side.as_str()) {
        _ if timed_out => ("hang", format!("did not return within {seconds} s")),
        (Some(buffer), "behind") => (
            out_of_bounds,
            format!("{does} past the end of the {buffer} (byte {distance} behind them): {signal}"),
        ),
        (Some(buffer), "before") => {
            (out_of_bounds, format!("{does} before the start of the {buffer} ({distance} bytes): {signal}"))
        }
        (Some(buffer), _) if buffer != "outputs" && death.write != Some(false) => (
            "writes-its-input",
            format!("writes into the {buffer}, which are read-only (byte {distance}): {signal}"),
        ),
        (Some(buffer), _) => ("crash", format!("{signal} in the {buffer}")),
        (None, _) if death.null => ("crash", format!("{signal}: {does} through a null or wild pointer")),
        (None, _) => ("crash", format!("ended by {signal}")),
    };
    Finding::new(kind, message, death.case.clone())
}
