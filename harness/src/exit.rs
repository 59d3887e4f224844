//! Exit codes of the whole program, in one table (README and `docs/receipts.md` repeat it).

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was checked held.
    Held = 0,
    /// A check, parity or a gate found a mismatch.
    Mismatch = 1,
    /// Bad usage or bad input: nothing was decided.
    CouldNotRun = 2,
    /// A receipt was changed after it was written, or contradicts itself.
    Tampered = 5,
    /// What had to be checked could not be checked here.
    Inconclusive = 7,
}

impl Exit {
    /// `Held` or `Mismatch`.
    pub(crate) fn of(held: bool) -> Exit {
        if held { Exit::Held } else { Exit::Mismatch }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
