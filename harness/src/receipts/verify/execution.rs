//! Rules on what ran: counters, kernels, fallbacks, rounding, device, samples.

use super::{Broken, Finding, Held, Options, Skipped, require};
use crate::receipts::types::{ComputePath, Execution, FloatRegister, Kind, Phase, Statement, Work};
use std::collections::BTreeSet;

/// MXCSR: flush to zero (15), rounding control (14, 13), denormals are zero (6).
const MXCSR_ROUNDING: u64 = 3 << 13;
const MXCSR_SUBNORMALS: u64 = 1 << 15 | 1 << 6;
/// FPCR: rounding mode (23, 22), flush to zero (24), the same for f16 (19).
const FPCR_ROUNDING: u64 = 3 << 22;
const FPCR_SUBNORMALS: u64 = 1 << 24 | 1 << 19;

const CUDA: &str = "cuda";

pub(super) fn float_environment(statement: &Statement, _: &Options) -> Finding {
    let environment = &statement.predicate.execution.float_environment;
    let (rounding, subnormals) = match environment.register {
        FloatRegister::Mxcsr => (MXCSR_ROUNDING, MXCSR_SUBNORMALS),
        FloatRegister::Fpcr => (FPCR_ROUNDING, FPCR_SUBNORMALS),
    };
    let bits = environment.value.get();
    let (nearest, kept) = (bits & rounding == 0, bits & subnormals == 0);
    require!(
        (nearest, kept) == (environment.nearest, environment.subnormals_kept),
        "{} says nearest: {nearest}, subnormals kept: {kept}; the receipt says otherwise",
        environment.value
    );
    require!(nearest && kept, "{} is not the rounding that exact-v1 demands", environment.value);
    Held(format!("{}: to nearest, subnormals kept", environment.value))
}

pub(super) fn compute_path(statement: &Statement, _: &Options) -> Finding {
    let predicate = &statement.predicate;
    let is_real = predicate.execution.compute_path == ComputePath::Real;
    require!(is_real, "mock: nothing was computed, so nothing is shown");
    let counted = match predicate.kind {
        Kind::ModelRun | Kind::Parity => !predicate.execution.work.is_empty(),
        Kind::KernelCheck => predicate.kernel_results.as_ref().is_some_and(|results| !results.is_empty()),
    };
    require!(counted, "real, but nothing was counted");
    Held("real".into())
}

pub(super) fn work_rows(statement: &Statement, _: &Options) -> Finding {
    let work = &statement.predicate.execution.work;
    let mut seen = BTreeSet::new();
    for row in work {
        let name = format!("{} on {}, {} columns", row.operation, row.kernel, row.columns);
        let [columns, calls, rows, macs] =
            [&row.columns, &row.calls, &row.rows, &row.macs].map(|value| value.get());
        require!(seen.insert((&row.operation, &row.kernel, columns)), "{name}: counted twice");
        require!(columns > 0 && rows > 0 && calls > 0, "{name}: {rows} rows in {calls} calls");
        let product = u128::from(rows) * u128::from(columns);
        require!(u128::from(macs) == product, "{name}: {rows} rows make {product} multiply-adds, not {macs}");
    }
    Held(format!("{} counters", work.len()))
}

pub(super) fn kernels(statement: &Statement, _: &Options) -> Finding {
    let execution = &statement.predicate.execution;
    for row in &execution.work {
        let isa = row.kernel.isa();
        require!(
            isa == execution.isa.as_str() || explained(row, execution),
            "{} ran on {}, but {} was asked for and no fallback explains it",
            row.operation,
            row.kernel,
            execution.isa
        );
    }
    Held(format!("all of {}, or explained", execution.isa))
}

fn explained(row: &Work, execution: &Execution) -> bool {
    execution
        .fallbacks
        .iter()
        .any(|fallback| fallback.operation == row.operation && fallback.used == row.kernel)
}

pub(super) fn fallbacks(statement: &Statement, _: &Options) -> Finding {
    let execution = &statement.predicate.execution;
    for fallback in &execution.fallbacks {
        let (operation, wanted, used) = (&fallback.operation, &fallback.wanted, &fallback.used);
        let ran = execution.work.iter().any(|row| row.operation == *operation && row.kernel == *used);
        require!(ran, "{operation}: {used} stood in, but no counter shows it");
        require!(wanted != used, "{operation}: {used} stood in for itself");
        require!(wanted.isa() == execution.isa.as_str(), "{operation}: {wanted} was not asked for");
        require!(!fallback.reason.trim().is_empty(), "{operation}: no reason");
    }
    Held(format!("{} fallbacks", execution.fallbacks.len()))
}

pub(super) fn device(statement: &Statement, _: &Options) -> Finding {
    let execution = &statement.predicate.execution;
    let results = statement.predicate.kernel_results.iter().flatten().map(|result| &result.kernel);
    let on_device =
        execution.work.iter().map(|row| &row.kernel).chain(results).any(|kernel| kernel.isa() == CUDA);
    match (execution.isa.as_str() == CUDA, &execution.device) {
        (true, None) => Broken("cuda without a device".into()),
        (true, Some(_)) if !on_device => Broken("cuda, but every kernel ran on the processor".into()),
        (false, Some(device)) => Broken(format!("the device {:?}, but {}", device.name, execution.isa)),
        (false, None) if on_device => Broken("kernels of cuda without a device".into()),
        (true, Some(device)) => Held(device.name.clone()),
        (false, None) => Held("no device".into()),
    }
}

pub(super) fn measurement(statement: &Statement, _: &Options) -> Finding {
    let Some(measurement) = &statement.predicate.measurement else {
        return Skipped("nothing was timed".into());
    };
    let samples = &measurement.samples;
    for (index, sample) in samples.iter().enumerate() {
        require!(sample.ns.get() > 0, "sample {index} took no time");
        require!(
            (sample.tokens == 0) == (sample.phase == Phase::Load),
            "sample {index} of {} tokens",
            sample.tokens
        );
    }
    let mut seen = BTreeSet::new();
    for discarded in &measurement.discarded {
        let index = discarded.index;
        require!((index as usize) < samples.len(), "sample {index} of {} is discarded", samples.len());
        require!(seen.insert(index), "sample {index} is discarded twice");
    }
    Held(format!("{} samples, {} discarded", samples.len(), seen.len()))
}
