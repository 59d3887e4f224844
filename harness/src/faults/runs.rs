//! A wrong float environment, and receipts that say what did not happen.

use super::{Fault, Plant};
use crate::receipts::text::KernelName;
use crate::receipts::types::{ComputePath, Statement};
use crate::receipts::verify::{Options, Verdict, verify};
use crate::receipts::{canonical, record};
use crate::runs::engine::{Backend, run};
use crate::runs::golden::Golden;
use anyhow::ensure;
use assay_engine::exact::environment;
use assay_engine::kernels::scalar;
use assay_engine::kind::Kind;
use assay_engine::model::Model;

/// What the rules say of a receipt of a real run, after `forge`.
pub(super) fn verified(forge: fn(&mut Statement)) -> anyhow::Result<Option<String>> {
    let golden = Golden::embedded()?;
    let entry = &golden.index.models["b25-varied"];
    let file = golden.model(entry)?;
    let gguf = file.gguf()?;
    let model = Model::load(&gguf, None)?;
    let facts = record::model_facts(&file, &gguf, &model)?;
    let backend = Backend { kernels: &scalar::KERNELS, threads: 1, batch: 1 };
    let run = run(&model, backend, &entry.prompt_token_ids[..2], 1, &mut |_, _| Ok(()))?;
    let mut statement = record::model_run(file.name(), facts, &run)?;
    let said = said_of(&mut statement)?;
    ensure!(said.is_none(), "the receipt of a real run is refused: {}", said.unwrap_or_default());
    forge(&mut statement);
    said_of(&mut statement)
}

/// The rule that decides against a receipt, and what it says.
fn said_of(statement: &mut Statement) -> anyhow::Result<Option<String>> {
    canonical::seal(statement)?;
    let bytes = canonical::to_bytes(statement)?;
    let id = canonical::receipt_id(statement)?;
    let report = verify(&bytes, &Options { expected_id: Some(id), ..Options::default() });
    let decided = report.decided_by().filter(|_| report.verdict != Verdict::Valid);
    Ok(decided.map(|result| {
        let named = result.rule.kind().map_or(String::new(), |kind| format!("; the error is that {kind}"));
        format!("{} by the rule {}: {}{named}", report.verdict.name(), result.rule.name(), result.message)
    }))
}

const fn receipt(what: &'static str, forge: fn(&mut Statement)) -> Fault {
    Fault {
        kind: Kind::ReportedNotRun,
        what,
        source: "EffortlessMetrics/BitNet-rs receipts",
        plant: Plant::Receipt(forge),
    }
}

pub(super) const FAULTS: &[Fault] = &[
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Fault {
        kind: Kind::FtzOn,
        what: "another library has left flush-to-zero on",
        source: "llvm/llvm-project#57589",
        plant: Plant::Environment(|| {
            let checked = std::thread::scope(|scope| {
                scope.spawn(|| flush::with_flush_to_zero(environment::check)).join()
            });
            checked.ok()?.err().map(|error| error.to_string())
        }),
    },
    receipt("names kernels of an instruction set that did not run", |statement| {
        for row in &mut statement.predicate.execution.work {
            if let Ok(other) = KernelName::parse(&format!("{}/avx512vnni", row.kernel.name())) {
                row.kernel = other;
            }
        }
    }),
    receipt("a placeholder token was timed: no kernel ran", |statement| {
        statement.predicate.execution.work.clear();
    }),
    receipt("a mock computed nothing", |statement| {
        statement.predicate.execution.compute_path = ComputePath::Mock;
    }),
    receipt("one operation was left out", |statement| {
        statement.predicate.execution.work.remove(0);
    }),
];

/// The float control register of this thread, set wrong and put back.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod flush {
    #![expect(unsafe_code, reason = "setting the float control register takes one instruction of assembly")]

    /// Runs `body` with subnormals flushed to zero on this thread. `body` decides nothing but what it is asked.
    pub(super) fn with_flush_to_zero<T>(body: impl FnOnce() -> T) -> T {
        let before = get();
        set(before | FLUSH);
        let result = body();
        set(before);
        result
    }

    /// MXCSR: flush to zero (15), denormals are zero (6).
    #[cfg(target_arch = "x86_64")]
    const FLUSH: u64 = 1 << 15 | 1 << 6;
    /// FPCR: flush to zero (24).
    #[cfg(target_arch = "aarch64")]
    const FLUSH: u64 = 1 << 24;

    #[cfg(target_arch = "x86_64")]
    fn get() -> u64 {
        let mut value = 0_u32;
        // SAFETY: `stmxcsr` stores 32 bits to the address given, which is that of a live u32.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        u64::from(value)
    }

    #[cfg(target_arch = "x86_64")]
    fn set(value: u64) {
        let value = value as u32;
        // SAFETY: `ldmxcsr` loads 32 bits from a live u32; only float control changes, and the caller puts it back.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack)) };
    }

    #[cfg(target_arch = "aarch64")]
    fn get() -> u64 {
        let value: u64;
        // SAFETY: reading FPCR has no side effect and is allowed in user mode.
        unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    #[cfg(target_arch = "aarch64")]
    fn set(value: u64) {
        // SAFETY: only float control changes, and the caller puts it back.
        unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nostack)) };
    }
}
