//! Holds ternary kernels and models to exact arithmetic, and writes down what happened.
//!
//! ```text
//! fixtures → runs → plugins → receipts → reports          check: all of them, on embedded data
//! ```
//!
//! Modules use only what stands to their left.

pub mod files;

pub mod fixtures;

pub mod runs;

pub mod plugins;

pub mod receipts;

#[cfg(feature = "report")]
pub mod reports;

pub mod check;
