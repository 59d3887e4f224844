//! Kernels from outside, held to exact arithmetic without being trusted: a child process loads the library and runs the
//! cases; this process only reads lines.
//!
//! ```text
//! report      what was found
//! formats     weights and activations as bytes, a row per format
//! problem     one multiplication: data, bytes, what must come out
//! groups      the cases
//! name        from a wrong number to the kind of mistake
//! memory      pages with walls around them
//! fault       last words of a dying child
//! check       runs the cases of a kernel
//! child       the hidden subcommand: loads, checks, writes a line for each group
//! parent      starts children, kills those that hang, goes on past those that die
//! peers       where other programs' libraries are
//! ```
//!
//! A module uses only those above it. See `docs/plugins.md`.

#[cfg(unix)]
mod check;
#[cfg(unix)]
mod child;
#[cfg(unix)]
pub(crate) mod fault;
mod formats;
mod groups;
#[cfg(unix)]
mod memory;
mod name;
#[cfg(unix)]
pub(crate) mod parent;
pub mod peers;
mod problem;
mod report;

#[cfg(unix)]
pub use child::{Request, run_child};
pub use groups::{Group, PLUGIN_CASES_VERSION};
#[cfg(unix)]
pub use parent::{Options, check};
pub use peers::Source;
pub use report::{Failure, Finding, GroupResult, KernelFacts, KernelReport, Report};
