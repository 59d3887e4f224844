//! Rules on what ran: counters, kernels, fallbacks, rounding, device, samples.

use super::claim::model_parts;
use super::{Broken, Finding, Held, Options, Skipped, require};
use crate::receipts::text::KernelName;
use crate::receipts::types::{
    ComputePath, Environment, Execution, FloatRegister, Kind, Phase, Statement, Work, operation,
};
use assay_engine::kernels::Isa;
use assay_engine::kernels::scalar::KERNELS;
use assay_engine::quant::Format;
use assay_engine::threads::MAX_THREADS;
use std::collections::BTreeSet;

/// MXCSR: flush to zero (15), rounding control (14, 13), denormals are zero (6).
const MXCSR_ROUNDING: u64 = 3 << 13;
const MXCSR_SUBNORMALS: u64 = 1 << 15 | 1 << 6;
/// FPCR: rounding mode (23, 22), flush to zero (24), the same for f16 (19), flush of inputs (0).
const FPCR_ROUNDING: u64 = 3 << 22;
const FPCR_SUBNORMALS: u64 = 1 << 24 | 1 << 19 | 1;
/// Another f16 (26).
const FPCR_HALVES: u64 = 1 << 26;

const CUDA: &str = "cuda";

/// The kernels that there are for an operation, without their instruction sets; none for an unknown operation.
fn is_kernel_of(kernel: &KernelName, operation: &str) -> bool {
    let name = kernel.name();
    let multiplies = |format| {
        let of_format = KERNELS.multiply(format);
        name == of_format.gemv || name == of_format.gemm
    };
    match operation {
        operation::LINEAR | operation::HEAD => Format::ALL.into_iter().any(multiplies),
        // Keys are f16.
        operation::ATTENTION_SCORES => multiplies(Format::F16),
        operation::ATTENTION_VALUES => name == "weigh_f16",
        _ => false,
    }
}

/// Whether a target triple is of a processor.
fn is_for(target: &str, processor: &str) -> bool {
    target.split('-').next() == Some(processor)
}

/// Why code for an instruction set cannot have run there.
fn isa_misfit(isa: &str, environment: &Environment) -> Option<String> {
    if isa == CUDA {
        return None; // held to a device by its own rule
    }
    let known = Isa::ALL.into_iter().find(|known| known.name() == isa);
    let (architecture, features): (_, &[&str]) = match known {
        Some(Isa::Scalar) => return None,
        Some(Isa::Avx2) => ("x86_64", &["avx2", "fma", "f16c"]),
        Some(Isa::Avx512Bw) => ("x86_64", &["avx512f", "avx512bw", "avx512vl", "avx512dq"]),
        Some(Isa::Avx512Vnni) => ("x86_64", &["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"]),
        Some(Isa::Neon) => ("aarch64", &["neon"]),
        Some(Isa::NeonDot) => ("aarch64", &["neon", "dotprod"]),
        _ => return Some(format!("the instruction set {isa} is not known")),
    };
    let target = &environment.build.target;
    if !is_for(target, architecture) {
        return Some(format!("{isa} in a program for {target:?}"));
    }
    let has = |feature: &&&str| environment.cpu.features.iter().any(|had| had == **feature);
    let lacking = features.iter().find(|feature| !has(feature));
    lacking.map(|feature| format!("{isa} on a processor without {feature}"))
}

pub(super) fn execution(statement: &Statement, _: &Options) -> Finding {
    let (execution, environment) = (&statement.predicate.execution, &statement.predicate.environment);
    let isa = execution.isa.as_str();
    if let Some(misfit) = isa_misfit(isa, environment) {
        return Broken(misfit);
    }
    let (register, target) = (execution.float_environment.register, &environment.build.target);
    let expected = match target {
        target if is_for(target, "x86_64") => FloatRegister::Mxcsr,
        target if is_for(target, "aarch64") => FloatRegister::Fpcr,
        _ => register,
    };
    require!(register == expected, "the register {register:?} in a program for {target:?}");
    let (threads, batch) = (execution.threads, execution.batch);
    require!((1..=MAX_THREADS).contains(&(threads as usize)), "{threads} threads");
    if let Some(input) = &statement.predicate.input {
        let prompt = input.prompt_token_ids.len();
        require!((1..=prompt as u64).contains(&u64::from(batch)), "batches of {batch}, a prompt of {prompt}");
    }
    Held(format!("{isa}, {threads} threads"))
}

pub(super) fn float_environment(statement: &Statement, _: &Options) -> Finding {
    let environment = &statement.predicate.execution.float_environment;
    let (digits, rounding, subnormals, other) = match environment.register {
        FloatRegister::Mxcsr => (8, MXCSR_ROUNDING, MXCSR_SUBNORMALS, 0),
        FloatRegister::Fpcr => (16, FPCR_ROUNDING, FPCR_SUBNORMALS, FPCR_HALVES),
    };
    let value = environment.value.as_str();
    require!(value.len() == 2 + digits, "{value} is no {:?} of {digits} digits", environment.register);
    let bits = environment.value.get();
    let (nearest, kept) = (bits & rounding == 0, bits & subnormals == 0);
    require!(
        (nearest, kept) == (environment.nearest, environment.subnormals_kept),
        "{} says nearest: {nearest}, subnormals kept: {kept}; the receipt says otherwise",
        environment.value
    );
    require!(
        nearest && kept && bits & other == 0,
        "{} is not the rounding that exact-v1 demands",
        environment.value
    );
    Held(format!("{}: to nearest, subnormals kept", environment.value))
}

pub(super) fn compute_path(statement: &Statement, _: &Options) -> Finding {
    let predicate = &statement.predicate;
    let is_real = predicate.execution.compute_path == ComputePath::Real;
    require!(is_real, "mock: nothing was computed, so nothing is shown");
    let counted = match predicate.kind {
        Kind::ModelRun | Kind::Parity => !predicate.execution.work.is_empty(),
        Kind::KernelCheck => predicate.kernel_results.as_ref().is_some_and(|results| !results.is_empty()),
        Kind::PluginCheck => predicate.plugin_results.as_ref().is_some_and(|results| !results.is_empty()),
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
        require!(calls <= rows, "{name}: {calls} calls for {rows} rows");
        require!(u128::from(macs) == product, "{name}: {rows} rows make {product} multiply-adds, not {macs}");
    }
    Held(format!("{} counters", work.len()))
}

pub(super) fn kernels(statement: &Statement, _: &Options) -> Finding {
    let execution = &statement.predicate.execution;
    for row in &execution.work {
        let (isa, operation) = (row.kernel.isa(), &row.operation);
        require!(is_kernel_of(&row.kernel, operation.as_str()), "{} is no kernel of {operation}", row.kernel);
        require!(
            isa == execution.isa.as_str() || explained(row, execution),
            "{} ran on {}, but {} was asked for and no fallback explains it",
            row.operation,
            row.kernel,
            execution.isa
        );
        let stand_in = (isa != execution.isa.as_str()).then_some(isa);
        if let Some(misfit) = stand_in.and_then(|isa| isa_misfit(isa, &statement.predicate.environment)) {
            return Broken(format!("{operation}: {misfit}"));
        }
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
        require!(is_kernel_of(wanted, operation.as_str()), "{wanted} is no kernel of {operation}");
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
    let (mut prefill, mut decode) = (0u64, 0u64);
    let batch = statement.predicate.execution.batch;
    for (index, sample) in samples.iter().enumerate() {
        let tokens = sample.tokens;
        require!(sample.ns.get() > 0, "sample {index} took no time");
        let possible = match sample.phase {
            Phase::Load => tokens == 0,
            Phase::Prefill => (1..=batch).contains(&tokens),
            Phase::Decode => tokens == 1,
        };
        require!(possible, "sample {index} of {tokens} tokens, in batches of {batch}");
        match sample.phase {
            Phase::Load => {}
            Phase::Prefill => prefill += u64::from(tokens),
            Phase::Decode => decode += u64::from(tokens),
        }
    }
    let Some((_, input, _)) = model_parts(statement) else {
        return Broken("samples, but no model was run".into());
    };
    let (prompt, steps) = (input.prompt_token_ids.len() as u64, u64::from(input.steps));
    require!(prefill == prompt, "samples of {prefill} tokens of a prompt of {prompt}");
    require!(decode == steps, "samples of {decode} tokens after the prompt, for {steps} steps");
    let mut seen = BTreeSet::new();
    for discarded in &measurement.discarded {
        let index = discarded.index;
        require!((index as usize) < samples.len(), "sample {index} of {} is discarded", samples.len());
        require!(seen.insert(index), "sample {index} is discarded twice");
    }
    Held(format!("{} samples, {} discarded", samples.len(), seen.len()))
}
