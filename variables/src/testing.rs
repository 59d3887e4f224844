//! For tests alone: variables that are set for a while, and slow tests that are left out.
#![expect(unsafe_code, reason = "std::env::set_var is unsafe; no other file sets a variable")]

use crate::table::SKIP_SLOW;
use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// Whether a slow test is to be left out; if so, says so on stderr, also where the test's own output is captured.
///
/// # Panics
/// - `ASSAY_SKIP_SLOW` is neither 0 nor 1.
pub fn skip_slow(what: &str) -> bool {
    let skip = SKIP_SLOW.read().unwrap_or_else(|error| panic!("{error}"));
    if skip {
        // If stderr is gone there is nobody to tell.
        drop(writeln!(io::stderr(), "skipped: {what} ({})", SKIP_SLOW.name()));
    }
    skip
}

/// Whose turn it is to set variables, and what they were before.
struct Turn {
    owner: Option<ThreadId>,
    layers: Vec<Layer>,
    made: u64,
}

/// What one guard changed: the values before, in the order of the changes.
struct Layer {
    number: u64,
    before: Vec<(String, Option<OsString>)>,
    dropped: bool,
}

static TURN: Mutex<Turn> = Mutex::new(Turn { owner: None, layers: Vec::new(), made: 0 });
static FREE: Condvar = Condvar::new();

/// Nothing panics while the lock is held and its state is half-changed, so a poisoned lock is as good as another.
fn turn() -> MutexGuard<'static, Turn> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Variables of the process that are set or removed as long as this lives, and then are what they were, also after a panic.
///
/// One thread at a time has guards; others wait for it. On one thread guards nest: values come back in the reverse order
/// of the changes, whatever order the guards are dropped in. A guard whose turn has not come is undone with the one above it.
///
/// A test that needs a variable to be absent, while others of its process set it, removes it with a guard. A thread that the
/// owner of a guard waits for must not ask for one.
///
/// ```
/// use assay_variables::{Guard, SEED, STRICT};
///
/// let _guard = Guard::new(&[(SEED.name(), Some("7")), (STRICT.name(), None)]);
/// assert_eq!(SEED.read(), Ok(Some(7)));
/// ```
///
/// It stays on its thread:
///
/// ```compile_fail
/// let guard = assay_variables::Guard::new(&[]);
/// std::thread::spawn(move || drop(guard));
/// ```
#[derive(Debug)]
#[must_use = "variables are restored when it is dropped"]
pub struct Guard {
    number: u64,
    not_send: PhantomData<*const ()>,
}

impl Guard {
    /// Waits until no other thread has a guard, then sets (`Some`) and removes (`None`) variables.
    ///
    /// # Panics
    /// - a name is empty or has `=` in it, or there is a NUL somewhere: nothing is changed then.
    pub fn new(changes: &[(&str, Option<&str>)]) -> Guard {
        for (name, value) in changes {
            let good = !name.is_empty() && !name.contains(['=', '\0']);
            assert!(good && !value.is_some_and(|value| value.contains('\0')), "{name:?} cannot be set so");
        }
        let me = thread::current().id();
        let others = |turn: &mut Turn| turn.owner.is_some_and(|owner| owner != me);
        let mut turn = FREE.wait_while(turn(), others).unwrap_or_else(PoisonError::into_inner);
        turn.owner = Some(me);
        turn.made += 1;
        let number = turn.made;
        let mut before = Vec::new();
        for (name, value) in changes {
            before.push(((*name).to_owned(), env::var_os(name)));
            change(name, value.map(OsString::from));
        }
        turn.layers.push(Layer { number, before, dropped: false });
        Guard { number, not_send: PhantomData }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut turn = turn();
        turn.layers
            .iter_mut()
            .filter(|layer| layer.number == self.number)
            .for_each(|layer| layer.dropped = true);
        while let Some(layer) = turn.layers.pop_if(|layer| layer.dropped) {
            layer.before.into_iter().rev().for_each(|(name, value)| change(&name, value));
        }
        if turn.layers.is_empty() {
            turn.owner = None;
            FREE.notify_one();
        }
    }
}

fn change(name: &str, value: Option<OsString>) {
    match value {
        // SAFETY: readers and writers in Rust take the lock of `std`. No C code reads the environment beside them: this is
        // called by tests only, and what they call of C (allocation, files, threads) reads it at the start of a process at most.
        Some(value) => unsafe { env::set_var(name, value) },
        // SAFETY: as above.
        None => unsafe { env::remove_var(name) },
    }
}
