//! A pool of a given number of threads, each with a checked float environment.

use crate::error::{Error, Result};
use crate::exact::environment;

/// Most threads a pool may have: beyond it a request is a mistake.
pub const MAX_THREADS: usize = 1024;

/// Worker threads on which the contract's float environment holds.
#[derive(Debug)]
pub struct Pool(rayon::ThreadPool);

impl Pool {
    /// Starts `threads` workers.
    ///
    /// # Errors
    /// - [`Error::Threads`] if the number is 0 or too large, or the operating system refuses;
    /// - [`Error::FloatEnvironment`] if a worker does not round to nearest or flushes subnormals.
    pub fn new(threads: usize) -> Result<Pool> {
        let failed = |problem: String| Error::Threads { threads, problem };
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(failed(format!("a number from 1 to {MAX_THREADS} is needed")));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("assay-{i}"))
            .build()
            .map_err(|e| failed(format!("{e}; ask for fewer")))?;
        for checked in pool.broadcast(|_| environment::check()) {
            checked?;
        }
        Ok(Pool(pool))
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    /// Runs `body` in the pool; what it does in parallel stays in the pool.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        self.0.install(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_the_threads_asked_for_or_says_why_not() {
        assert_eq!(Pool::new(3).expect("three threads").threads(), 3);
        assert!(matches!(Pool::new(0), Err(Error::Threads { threads: 0, .. })));
        assert!(Pool::new(MAX_THREADS + 1).is_err());
    }
}
