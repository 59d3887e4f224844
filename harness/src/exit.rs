//! Exit codes of the whole program, in one table (README and `docs/receipts.md` repeat it).

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was checked held.
    Held = 0,
    /// A check, parity or a gate found a mismatch.
    Mismatch = 1,
    /// Bad usage or bad input: nothing was decided.
    CouldNotRun = 2,
    /// A receipt was changed after it was written, or contradicts itself.
    Tampered = 5,
    /// A receipt's claim came out otherwise when it was run again.
    Diverged = 6,
    /// What had to be checked could not be checked here.
    Inconclusive = 7,
}

impl Exit {
    /// The gravest of several: tampered, diverged, could not run, mismatch, inconclusive, held.
    pub fn gravest(exits: impl IntoIterator<Item = Exit>) -> Exit {
        const ORDER: [Exit; 6] = [
            Exit::Held,
            Exit::Inconclusive,
            Exit::Mismatch,
            Exit::CouldNotRun,
            Exit::Diverged,
            Exit::Tampered,
        ];
        let grave = |exit: &Exit| ORDER.iter().position(|known| known == exit);
        exits.into_iter().max_by_key(grave).unwrap_or(Exit::Held)
    }

    /// `Held` or `Mismatch`.
    pub fn of(held: bool) -> Exit {
        if held { Exit::Held } else { Exit::Mismatch }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
