//! Calls on several threads at once, each with its own data, held to what the same call gave alone.

use super::super::groups::{Group, Wall};
use super::super::memory::FILL;
use super::super::name::POISON;
use super::super::problem::Problem;
use super::{Buffers, Checker, Outcome, Result, Strides, run};
use assay_engine::kernels::plugin::Kernel;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Threads that call at once.
const THREADS: usize = 4;
/// How long they go on.
const THREADS_TIME: Duration = Duration::from_millis(250);

impl Checker<'_> {
    pub(super) fn threads(&mut self) -> Result<()> {
        let mut jobs = Vec::new();
        let cases = self.lists.cases(Group::Threads);
        for (set, job) in (1..=THREADS).zip(cases.chunks(cases.len().div_ceil(THREADS))) {
            let mut list = Vec::new();
            for (at, case) in job.iter().enumerate() {
                let problem = self.problem(Group::Threads, set * 100 + at, case);
                self.announce(case.text(self.lists.seed, (set * 100 + at) as u64));
                let outcome = self.call(case, &problem, FILL)?;
                self.hold(&problem, &problem.expected(), &outcome)?;
                if let Outcome::Outputs(outputs) = outcome {
                    list.push((problem, outputs));
                }
            }
            jobs.push((Buffers::new(set).map_err(|e| self.memory(&e))?, list));
        }
        self.announce(format!("seed {}, {THREADS} threads at once", self.lists.seed));
        let (kernel, barrier) = (self.kernel, Barrier::new(THREADS));
        let wrong = std::thread::scope(|scope| {
            let threads: Vec<_> = jobs
                .into_iter()
                .map(|(buffers, list)| scope.spawn(|| in_thread(kernel, &barrier, buffers, list)))
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).next()
        });
        match wrong {
            Some(message) => Err(self.finding("not-thread-safe", message)),
            None => Ok(()),
        }
    }
}

/// Calls again and again while the others do; what was wrong first.
fn in_thread(
    kernel: &Kernel,
    barrier: &Barrier,
    mut buffers: Buffers,
    list: Vec<(Problem, Vec<u32>)>,
) -> Option<String> {
    let end = Instant::now() + THREADS_TIME;
    barrier.wait();
    let mut wrong = None;
    while wrong.is_none() && Instant::now() < end {
        for (problem, serial) in &list {
            let declared = kernel.declared();
            let strides = Strides::of(declared, problem, 0);
            let scales: Vec<u8> = problem.s.iter().flat_map(|s| s.to_le_bytes()).collect();
            let poison: Vec<u8> = serial.iter().flat_map(|_| POISON.to_le_bytes()).collect();
            let weights = problem.weight_bytes(strides.weights, FILL);
            let activations = problem.activation_bytes(strides.activations, FILL);
            let put = (buffers.weights.put(&weights, Wall::Behind, declared.weights_align))
                .and_then(|()| {
                    buffers.activations.put(&activations, Wall::Behind, declared.activations_align)
                })
                .and_then(|()| buffers.scales.put(&scales, Wall::Behind, 4));
            if let Err(error) = put {
                return Some(format!("the check has no memory: {error}"));
            }
            // Many calls on the same data: the threads must meet inside the kernel.
            for _ in 0..20 {
                if let Err(error) = buffers.out.put(&poison, Wall::Behind, declared.out_align) {
                    return Some(format!("the check has no memory: {error}"));
                }
                run(kernel, &mut buffers, problem, &strides);
                if buffers.out.words() != serial.as_slice() {
                    let at =
                        (0..serial.len()).find(|at| buffers.out.words()[*at] != serial[*at]).unwrap_or(0);
                    let (rows, cols) = (problem.recipe.rows, problem.recipe.cols);
                    wrong = Some(format!(
                        "{rows} rows x {cols} columns beside other calls: row {at} has the bits {:#010x}, alone {:#010x}; \
                         a static buffer?",
                        buffers.out.words()[at],
                        serial[at]
                    ));
                    break;
                }
            }
        }
    }
    wrong
}
