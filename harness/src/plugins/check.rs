//! Runs the cases of one kernel, group by group. This runs in the child: it may die in any call of the kernel.
//!
//! ```text
//! trials.rs   groups that make more than one call of a case
//! threads.rs  calls on several threads at once
//! ```

mod threads;
mod trials;

use super::fault;
use super::formats::{Activations, Weights};
use super::groups::{Case, Group, Lists, Wall};
use super::memory::{Buffer, FILL, Role};
use super::name::{POISON, is, name};
use super::problem::{Expected, Problem};
use super::report::{Finding, GroupResult};
use assay_engine::exact::environment;
use assay_engine::kernels::check::data::Data;
use assay_engine::kernels::plugin::{Call, Declared, Kernel, ResultKind, Status};
use sha2::{Digest, Sha256};

/// The buffers of a call.
struct Buffers {
    weights: Buffer,
    activations: Buffer,
    scales: Buffer,
    out: Buffer,
}

impl Buffers {
    fn new(set: usize) -> std::io::Result<Buffers> {
        let new = |role| Buffer::new(role, set, 1 << 18);
        Ok(Buffers {
            weights: new(Role::Weights)?,
            activations: new(Role::Activations)?,
            scales: new(Role::Scales)?,
            out: new(Role::Outputs)?,
        })
    }
}

/// What one call gave.
enum Outcome {
    Outputs(Vec<u32>),
    Declined,
}

type Result<T> = std::result::Result<T, Finding>;

/// Sizes of a call in bytes (outputs in words).
struct Strides {
    weights: usize,
    activations: usize,
    out: usize,
}

impl Strides {
    fn of(declared: &Declared, problem: &Problem, gap: usize) -> Strides {
        let cols = problem.recipe.cols;
        let stride = |bytes: usize, align: usize| bytes.next_multiple_of(align) + gap * align;
        let out_bytes = stride(4 * problem.recipe.rows.max(1), declared.out_align);
        Strides {
            weights: stride(problem.weights.row_bytes(cols), declared.weights_align),
            activations: stride(problem.activations.row_bytes(cols), declared.activations_align),
            out: out_bytes / 4,
        }
    }
}

/// A kernel that is being checked.
pub(super) struct Checker<'a> {
    kernel: &'a Kernel,
    lists: Lists<'a>,
    buffers: Buffers,
    /// The case that runs, for the last words of this process.
    text: String,
    result: GroupResult,
    hash: Sha256,
}

impl<'a> Checker<'a> {
    /// # Errors
    /// - a weight or activation format that the check does not know, or that do not go together; memory.
    pub(super) fn new(kernel: &'a Kernel, seed: u64) -> std::result::Result<Checker<'a>, String> {
        let declared = kernel.declared();
        let unknown = |what: &str, name: &str| {
            let known: Vec<_> = Weights::names().collect();
            format!("{what} '{name}' are not known to this version; it knows weights {}", known.join(", "))
        };
        let weights =
            Weights::find(&declared.weights).ok_or_else(|| unknown("weights", &declared.weights))?;
        let activations = Activations::find(&declared.activations)
            .ok_or_else(|| unknown("activations", &declared.activations))?;
        if !weights.activations.contains(&activations.name) {
            let right = weights.activations.join(" or ");
            return Err(format!(
                "weights {} go with activations {right}, not {}",
                weights.name, activations.name
            ));
        }
        if declared.result == ResultKind::I32 && weights.scales != super::formats::Scales::Tensor {
            return Err(format!("weights {} have scales inside: their result is no integer", weights.name));
        }
        let buffers = Buffers::new(0).map_err(|e| format!("no memory for buffers: {e}"))?;
        let lists = Lists { declared, weights, activations, seed };
        let result = GroupResult::new(Group::Revealing);
        Ok(Checker { kernel, lists, buffers, text: String::new(), result, hash: Sha256::new() })
    }

    /// Runs a group up to its first finding.
    pub(super) fn group(&mut self, group: Group) -> GroupResult {
        self.result = GroupResult::new(group);
        self.hash = Sha256::new();
        let outcome = match group {
            Group::Tokens => self.tokens(),
            Group::Padding => self.padding(),
            Group::Aliasing => self.aliasing(),
            Group::Repeatability => self.repeatability(),
            Group::Threads => self.threads(),
            Group::Quantiser => self.quantiser(),
            _ => self.plain(group),
        };
        if let Err(finding) = outcome {
            self.result.finding = Some(finding);
        } else if self.result.cases == 0 && self.result.declined > 0 {
            let message = format!("it declines all {} cases: nothing is shown", self.result.declined);
            self.result.finding = Some(Finding::new("declines-everything", message, String::new()));
        }
        self.result.outputs_sha256 = hex::encode(self.hash.clone().finalize());
        std::mem::replace(&mut self.result, GroupResult::new(group))
    }

    fn problem(&self, group: Group, number: usize, case: &Case) -> Problem {
        let mut data = Data::new(self.lists.seed, group.name(), number as u64);
        let mut problem = Problem::new(self.lists.weights, self.lists.activations, case.recipe, &mut data);
        problem.declared_bound = self.lists.declared.relative_bound;
        problem
    }

    /// The cases of a group with their data, each announced before it runs.
    fn each(
        &mut self,
        group: Group,
        mut run: impl FnMut(&mut Self, &Case, &Problem) -> Result<()>,
    ) -> Result<()> {
        for (number, case) in self.lists.cases(group).iter().enumerate() {
            let problem = self.problem(group, number, case);
            self.announce(case.text(self.lists.seed, number as u64));
            run(self, case, &problem)?;
        }
        Ok(())
    }

    fn announce(&mut self, text: String) {
        fault::now("");
        self.text = text;
        fault::now(&self.text);
    }

    fn finding(&self, kind: &str, message: impl Into<String>) -> Finding {
        Finding::new(kind, message.into(), self.text.clone())
    }

    /// Puts everything in its place, calls, and looks at what must not have changed.
    fn call(&mut self, case: &Case, problem: &Problem, gap: u8) -> Result<Outcome> {
        self.put_weights(case, problem, gap)?;
        self.call_on_weights(case, problem, gap)
    }

    fn put_weights(&mut self, case: &Case, problem: &Problem, gap: u8) -> Result<()> {
        let declared = self.kernel.declared();
        let bytes = problem.weight_bytes(Strides::of(declared, problem, case.gap).weights, gap);
        let wall = wall(case, 0);
        self.buffers.weights.put(&bytes, wall, declared.weights_align).map_err(|e| self.memory(&e))
    }

    fn memory(&self, error: &std::io::Error) -> Finding {
        self.finding("check-failed", format!("the check has no memory for its buffers: {error}"))
    }

    /// As [`Checker::call`], with weights that are in their place already.
    fn call_on_weights(&mut self, case: &Case, problem: &Problem, gap: u8) -> Result<Outcome> {
        let declared = self.kernel.declared();
        let strides = Strides::of(declared, problem, case.gap);
        let (rows, tokens) = (problem.recipe.rows, problem.recipe.tokens);
        let activations = problem.activation_bytes(strides.activations, gap);
        let scales: Vec<u8> = problem.s.iter().flat_map(|s| s.to_le_bytes()).collect();
        let words = if rows == 0 { 0 } else { (tokens - 1) * strides.out + rows };
        let poison: Vec<u8> = (0..words).flat_map(|_| POISON.to_le_bytes()).collect();
        let placed = (self.buffers.activations.put(&activations, wall(case, 1), declared.activations_align))
            .and_then(|()| {
                self.buffers.scales.put(
                    &scales,
                    if case.wall == Wall::Before { Wall::Before } else { Wall::Behind },
                    4,
                )
            })
            .and_then(|()| self.buffers.out.put(&poison, wall(case, 2), declared.out_align));
        placed.map_err(|e| self.memory(&e))?;
        let status = run(self.kernel, &mut self.buffers, problem, &strides);
        if let Some(at) = self.buffers.out.stray() {
            let side = if at < 0 { "before" } else { "behind" };
            let message = format!("writes {} bytes {side} its outputs", at.unsigned_abs());
            return Err(self.finding("out-of-bounds-write", message));
        }
        if let Err(error) = environment::check() {
            return Err(self.finding("ftz-on", format!("leaves another float environment behind: {error}")));
        }
        match status {
            Status::Failed(code) => return Err(self.finding("failed", format!("returns the error {code}"))),
            Status::Declined => {
                if self.buffers.out.words().iter().any(|word| *word != POISON) {
                    return Err(
                        self.finding("declined-but-written", "declines the case, but has written outputs")
                    );
                }
                return Ok(Outcome::Declined);
            }
            Status::Done => {}
        }
        let mut outputs = Vec::with_capacity(rows * tokens);
        let mut between = None;
        for (at, word) in self.buffers.out.words().iter().enumerate() {
            if at % strides.out < rows {
                outputs.push(*word);
            } else if *word != POISON && between.is_none() {
                between = Some((at / strides.out, at % strides.out));
            }
        }
        if let Some((token, word)) = between {
            let message = format!("writes word {word} behind the {rows} outputs of token {token}");
            return Err(self.finding("out-of-bounds-write", message));
        }
        Ok(Outcome::Outputs(outputs))
    }

    /// Holds outputs to what they must be; counts the case.
    fn hold(&mut self, problem: &Problem, expected: &[Expected], outcome: &Outcome) -> Result<()> {
        let Outcome::Outputs(got) = outcome else {
            self.result.declined += 1;
            return Ok(());
        };
        let kind = self.kernel.declared().result;
        let wrong = expected.iter().zip(got).position(|(e, got)| !is(problem, kind, e, *got));
        if let Some(at) = wrong {
            let named = name(problem, kind, expected, got);
            let (token, row) = (at / problem.recipe.rows, at % problem.recipe.rows);
            let count = expected.iter().zip(got).filter(|(e, got)| !is(problem, kind, e, **got)).count();
            let place = if problem.recipe.tokens > 1 {
                format!("token {token}, row {row}")
            } else {
                format!("row {row}")
            };
            let numbers = compared(problem, kind, &expected[at], got[at]);
            let message =
                format!("{}: {place} {numbers} ({count} of {} outputs are wrong)", named.means, got.len());
            return Err(self.finding(named.kind, message));
        }
        if kind == ResultKind::F32Close {
            for (e, got) in expected.iter().zip(got).filter(|(e, _)| e.magnitude > 0.0) {
                let error = (f64::from(f32::from_bits(*got)) - e.real).abs() / e.magnitude;
                self.result.worst = Some(self.result.worst.unwrap_or(0.0).max(error));
            }
        }
        got.iter().for_each(|word| self.hash.update(word.to_le_bytes()));
        self.result.cases += 1;
        Ok(())
    }

    fn plain(&mut self, group: Group) -> Result<()> {
        self.each(group, |checker, case, problem| {
            let outcome = checker.call(case, problem, FILL)?;
            checker.hold(problem, &problem.expected(), &outcome)
        })
    }
}

/// The wall of buffer `index` (weights, activations, outputs).
fn wall(case: &Case, index: usize) -> Wall {
    match case.wall {
        Wall::Offset(_) => Wall::Offset(case.offsets[index]),
        wall => wall,
    }
}

fn run(kernel: &Kernel, buffers: &mut Buffers, problem: &Problem, strides: &Strides) -> Status {
    let cols = problem.recipe.cols;
    kernel.run(&mut Call {
        weights: buffers.weights.bytes(),
        weights_row_bytes: problem.weights.row_bytes(cols),
        weights_stride: strides.weights,
        rows: problem.recipe.rows,
        cols,
        tensor_scale: problem.tensor_scale,
        activations: buffers.activations.bytes(),
        activations_row_bytes: problem.activations.row_bytes(cols),
        activations_stride: strides.activations,
        activation_scales: buffers.scales.floats(),
        out: buffers.out.words(),
        out_stride: strides.out,
    })
}

/// Expected and got, in numbers.
fn compared(problem: &Problem, kind: ResultKind, expected: &Expected, got: u32) -> String {
    let value = f32::from_bits(got);
    match kind {
        ResultKind::I32 => format!("should be {} and is {}", expected.sum, got.cast_signed()),
        ResultKind::F32Exact => {
            let bits = expected.exact.to_bits();
            format!("should be {:e} ({bits:#010x}) and is {value:e} ({got:#010x})", expected.exact)
        }
        ResultKind::F32Close if expected.any_order => {
            format!("should be {} in every order of operations and is {value}", expected.real)
        }
        ResultKind::F32Close => {
            let share = (f64::from(value) - expected.real).abs() / expected.magnitude;
            format!(
                "should be {:e} and is {value:e}: off by {share:.1e} of the terms, allowed are {:.1e}",
                expected.real,
                problem.bound()
            )
        }
    }
}
