//! `assay parity`: a model beside another implementation: stored logits, one that runs now, or many of them.

use super::parity_golden;
use crate::args;
use anyhow::{bail, ensure};
use assay_harness::exit::Exit;

pub(super) fn run(args: &args::Parity) -> anyhow::Result<Exit> {
    if args.matrix {
        #[cfg(unix)]
        return super::parity_matrix::run(args);
        #[cfg(not(unix))]
        bail!("references run on Unix only; --reference golden works here");
    }
    let [model] = &args.models[..] else {
        bail!("one model is compared at a time; --matrix takes several");
    };
    let [reference] = &args.reference[..] else {
        bail!("one reference at a time; --matrix takes several");
    };
    if let Some(golden) = parity_golden::golden(reference)? {
        ensure!(!args.explain, "stored logits explain nothing; give a reference that runs, such as oracle");
        return parity_golden::run(args, model, &golden);
    }
    #[cfg(unix)]
    return super::parity_live::run(args, model, reference);
    #[cfg(not(unix))]
    bail!("'{reference}' runs on Unix only; --reference golden works here");
}
