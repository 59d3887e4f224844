//! The parent: starts the worker, asks, waits no longer than it must.

use super::{Error, Facts, Load, Reply, Request};
use crate::plugins::fault::{Victim, signal_name};
use crate::plugins::parent::lines_of;
use assay_variables::SIGNING_KEY;
use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Longest line that a worker has a reason to write: a row of logits.
const LINE_MAX: u64 = 64 << 20;
/// As much of its last words is kept.
const SAID_MAX: usize = 4096;

type Result<T> = std::result::Result<T, Error>;

/// How to start a worker.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that has the hidden subcommand: this one.
    pub program: PathBuf,
    /// Its arguments before what is to be loaded.
    pub arguments: Vec<String>,
    /// What to load.
    pub load: Load,
    /// How long loading, and each request, may take.
    pub timeout: Duration,
}

/// llama.cpp with a model, in a child process that ends with this value, or with the thread that started it.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    requests: Option<ChildStdin>,
    replies: Receiver<std::io::Result<String>>,
    said: Receiver<String>,
    timeout: Duration,
    facts: Facts,
}

impl Peer {
    /// Starts the worker and waits until the model is loaded.
    ///
    /// # Errors
    /// - [`Error::Refused`] if libraries or model cannot be loaded; the others as they say.
    pub fn start(options: &Options) -> Result<Peer> {
        let load = serde_json::to_string(&options.load).map_err(|e| Error::Start(e.to_string()))?;
        let mut child = Command::new(&options.program)
            .args(&options.arguments)
            .arg(load)
            .env("GGML_NO_BACKTRACE", "1")
            .env_remove(SIGNING_KEY.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|e| Error::Start(format!("{}: {e}", options.program.display())))?;
        let mut peer = Peer {
            requests: child.stdin.take(),
            replies: lines_of(child.stdout.take(), LINE_MAX),
            said: last_words_of(child.stderr.take()),
            child,
            timeout: options.timeout,
            facts: Facts::default(),
        };
        let doing = format!("loading {}", options.load.model.display());
        match peer.reply(&doing)? {
            Reply::Ready(facts) => peer.facts = facts,
            other => return Err(peer.garbage(&doing, &other)),
        }
        Ok(peer)
    }

    /// What was loaded.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How long it takes to feed `tokens` at once to an empty context, until the logits of the last are there.
    ///
    /// # Errors
    /// - [`Error::Refused`] for no tokens, one that the model does not know, or too many; the others as they say.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<Duration> {
        let request = Request::Prefill { tokens: tokens.to_vec() };
        match self.ask(&request)? {
            Reply::Prefilled { ns } => Ok(Duration::from_nanos(ns)),
            other => Err(self.garbage(&request, &other)),
        }
    }

    /// How long each of `steps` tokens takes after `prompt`, one at a time, until its logits are there. Each token is the one
    /// with the largest logit; finding it is not timed, and neither is the prompt, whose beginning is kept from request to
    /// request.
    ///
    /// # Errors
    /// - as [`Peer::prefill`].
    pub fn decode(&mut self, prompt: &[u32], steps: u32) -> Result<Vec<Duration>> {
        let request = Request::Decode { prompt: prompt.to_vec(), steps };
        match self.ask(&request)? {
            Reply::Decoded { ns } if ns.len() == steps as usize => {
                Ok(ns.into_iter().map(Duration::from_nanos).collect())
            }
            other => Err(self.garbage(&request, &other)),
        }
    }

    /// The logits after `tokens`, fed at once to an empty context.
    ///
    /// # Errors
    /// - as [`Peer::prefill`].
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let request = Request::Logits { tokens: tokens.to_vec() };
        match self.ask(&request)? {
            Reply::Logits { bits } if bits.len() == self.facts.vocab as usize => {
                Ok(bits.into_iter().map(f32::from_bits).collect())
            }
            other => Err(self.garbage(&request, &other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        let mut line = serde_json::to_vec(request).map_err(|e| Error::Start(e.to_string()))?;
        line.push(b'\n');
        // A worker that is gone is noticed by the reply that does not come.
        if let Some(requests) = &mut self.requests {
            drop(requests.write_all(&line).and_then(|()| requests.flush()));
        }
        self.reply(request)
    }

    fn reply(&mut self, doing: &dyn std::fmt::Display) -> Result<Reply> {
        match self.replies.recv_timeout(self.timeout) {
            Ok(Ok(line)) => match serde_json::from_str(&line) {
                Ok(Reply::Refused { message }) => Err(Error::Refused(message)),
                Ok(reply) => Ok(reply),
                Err(_) => {
                    self.end();
                    Err(Error::Garbage { doing: doing.to_string(), line: beginning(&line) })
                }
            },
            Err(RecvTimeoutError::Timeout) => {
                self.end();
                Err(Error::Hung { doing: doing.to_string(), seconds: self.timeout.as_secs() })
            }
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(self.obituary(doing)),
        }
    }

    fn garbage(&mut self, doing: &dyn std::fmt::Display, reply: &Reply) -> Error {
        self.end();
        let line = serde_json::to_string(reply).unwrap_or_default();
        Error::Garbage { doing: doing.to_string(), line: beginning(&line) }
    }

    /// It has closed its lines: it is dead, or about to be.
    fn obituary(&mut self, doing: &dyn std::fmt::Display) -> Error {
        self.requests = None;
        let end = Instant::now() + Duration::from_secs(2);
        let how = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break ending(status),
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                _ => break "closed its output".to_owned(),
            }
        };
        self.end();
        let said = self.said.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
        let said = last.map_or_else(String::new, |line| format!(": {}", beginning(line)));
        Error::Died { doing: doing.to_string(), how, said }
    }

    /// Ends the process and what it may have started.
    fn end(&mut self) {
        self.requests = None;
        if matches!(self.child.try_wait(), Ok(None)) {
            Victim::new(self.child.id()).kill_group();
            drop(self.child.wait());
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The end of what a worker says beside its lines, once it is dead.
pub(crate) fn last_words_of(stderr: Option<ChildStderr>) -> Receiver<String> {
    let (send, said) = channel();
    if let Some(mut stderr) = stderr {
        std::thread::spawn(move || {
            let (mut kept, mut read) = (Vec::new(), [0; SAID_MAX]);
            while let Ok(n @ 1..) = stderr.read(&mut read) {
                kept.extend_from_slice(&read[..n]);
                kept.drain(..kept.len().saturating_sub(SAID_MAX));
            }
            drop(send.send(String::from_utf8_lossy(&kept).into_owned()));
        });
    }
    said
}

pub(crate) fn beginning(line: &str) -> String {
    line.trim_end().chars().take(200).collect()
}

pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by {}", signal_name(signal)),
        (None, code) => format!("ended with the exit code {}", code.unwrap_or(-1)),
    }
}
