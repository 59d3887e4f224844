//! Holds ternary kernels and models to exact arithmetic, and writes down what happened.
//!
//! ```text
//! fixtures → runs → convert → plugins → peers → references → parity → bench → receipts → reports
//! chat: a conversation as a model's template writes it
//! faults: published bugs for the checks;   check: all of them, on embedded data
//! ```
//!
//! Modules use only what stands to their left.

pub mod exit;

pub mod files;

pub mod chat;

pub mod fixtures;

pub mod runs;

pub mod convert;

pub mod plugins;

#[cfg(unix)]
pub mod peers;

#[cfg(unix)]
pub mod references;

#[cfg(unix)]
pub mod parity;

#[cfg(unix)]
pub mod bench;

pub mod receipts;

#[cfg(feature = "report")]
pub mod reports;

pub mod faults;

pub mod check;
