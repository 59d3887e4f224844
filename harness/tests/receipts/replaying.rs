//! Claims run again: the same on every backend, and where they part if they are not.

use crate::made_up;
use assay_engine::kernels::{self, Isa, Kernels, scalar};
use assay_engine::model::Model;
use assay_harness::receipts::replay::{Options, Replayed, replay};
use assay_harness::receipts::text::Sha256Hex;
use assay_harness::receipts::types::{Claim, ComputePath, ModelRunClaim, Statement, Status};
use assay_harness::receipts::verify::{self, Files, Verdict};
use assay_harness::receipts::{canonical, record};
use assay_harness::runs::engine::{Backend, run};
use assay_harness::runs::golden::Golden;

/// The receipt of a run of a golden model on `kernels`.
fn receipt(kernels: &'static Kernels, trace: bool) -> Statement {
    let golden = Golden::embedded().unwrap();
    let entry = &golden.index.models["b158-stable"];
    let file = golden.model(entry).unwrap();
    let gguf = file.gguf().unwrap();
    let model = Model::load(&gguf, None).unwrap();
    let facts = record::model_facts(&file, &gguf, &model).unwrap();
    let backend = Backend { kernels, threads: 2, batch: 3 };
    let mut run = run(&model, backend, &entry.prompt_token_ids, 4, &mut |_, _| Ok(())).unwrap();
    if trace {
        run.record_trace(&model).unwrap();
    }
    record::model_run(file.name(), facts, &run).unwrap()
}

fn again(statement: &Statement, isa: Option<Isa>) -> Replayed {
    with_files(statement, isa, Files::NotAsked)
}

fn with_files(statement: &Statement, isa: Option<Isa>, files: Files) -> Replayed {
    let mut sealed = statement.clone();
    canonical::seal(&mut sealed).unwrap();
    let bytes = canonical::to_bytes(&sealed).unwrap();
    let verify =
        verify::Options { expected_id: Some(Sha256Hex::of(&bytes)), files, ..verify::Options::default() };
    replay(&bytes, &Options { verify, isa, threads: 1 })
}

fn claim(statement: &mut Statement) -> &mut ModelRunClaim {
    match &mut statement.predicate.claim {
        Claim::ModelRun(claim) => claim,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_run_is_reproduced_on_every_backend_and_by_default_on_another() {
    for table in kernels::available() {
        let statement = receipt(table, false);
        for isa in kernels::available().iter().map(|table| Some(table.isa)).chain([None]) {
            let replayed = again(&statement, isa);
            assert_eq!(replayed.verdict, Verdict::Reproduced, "{}: {}", table.isa, replayed.message);
            assert_eq!(replayed.statement.unwrap().predicate.claim_id, statement.predicate.claim_id);
            let expected = isa.unwrap_or(match table.isa {
                Isa::Scalar => kernels::best().isa,
                _ => Isa::Scalar,
            });
            assert_eq!(replayed.isa, Some(expected.name()));
        }
    }
    let absent = Isa::ALL.into_iter().find(|isa| kernels::get(*isa).is_err()).unwrap();
    assert_eq!(again(&receipt(&scalar::KERNELS, false), Some(absent)).verdict, Verdict::Inconclusive);
}

#[test]
fn a_lie_is_found_and_placed() {
    let honest = receipt(kernels::best(), false);
    let lie = |edit: fn(&mut ModelRunClaim)| {
        let mut statement = honest.clone();
        edit(claim(&mut statement));
        let replayed = again(&statement, None);
        assert_eq!(replayed.verdict, Verdict::Diverged, "{}", replayed.message);
        let divergence = replayed.divergence.unwrap();
        (divergence.what, divergence.layer, divergence.step, divergence.operation)
    };
    let other = || Sha256Hex::of(b"another");
    assert_eq!(
        lie(|claim| claim.layer_chain[1] = Sha256Hex::of(b"another")),
        ("layer".into(), Some(1), None, None)
    );
    assert_eq!(
        lie(|claim| claim.logits.sha256 = Sha256Hex::of(b"another")),
        ("logits".into(), None, None, None)
    );
    assert_eq!(lie(|claim| claim.rope_table_sha256 = Sha256Hex::of(b"another")).0, "rope tables");
    assert_eq!(lie(|claim| claim.generated_token_ids[2] ^= 1), ("tokens".into(), None, Some(2), None));
    // Facts of the model that the file does not have.
    let mut statement = honest.clone();
    statement.predicate.model.as_mut().unwrap().tensors[0].sha256 = other();
    let replayed = again(&statement, None);
    assert_eq!((replayed.verdict, replayed.divergence.unwrap().what), (Verdict::Diverged, "model".into()));
    assert!(replayed.message.contains("its tensors"), "{}", replayed.message);
}

#[test]
fn a_wrong_kernel_is_named_from_the_trace() {
    // The gate of Llama where squared ReLU belongs: a published mistake.
    let wrong = Kernels { relu2_mul: scalar::KERNELS.silu_mul, ..scalar::KERNELS };
    let statement = receipt(Box::leak(Box::new(wrong)), true);
    let replayed = again(&statement, Some(Isa::Scalar));
    assert_eq!(replayed.verdict, Verdict::Diverged, "{}", replayed.message);
    let divergence = replayed.divergence.unwrap();
    assert_eq!((divergence.what.as_str(), divergence.layer), ("layer", Some(0)));
    assert_eq!(divergence.operation.as_deref(), Some("blk.0.ffn_gated"));
    assert!(divergence.how.contains("trace"), "{}", divergence.how);
}

#[test]
fn what_cannot_be_run_is_inconclusive_and_what_was_changed_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let statement = receipt(&scalar::KERNELS, false);
    let absent = Files::Model(folder.path().join("absent.gguf"));
    assert_eq!(with_files(&statement, None, absent).verdict, Verdict::Inconclusive);
    let other = folder.path().join("other.gguf");
    std::fs::write(&other, b"another model").unwrap();
    let replayed = with_files(&statement, None, Files::Model(other));
    assert_eq!((replayed.verdict, replayed.isa), (Verdict::Tampered, None), "{}", replayed.message);
    // A made-up model is not part of the program.
    let made_up = again(&made_up::model_run(), None);
    assert_eq!(made_up.verdict, Verdict::Inconclusive, "{}", made_up.message);
    assert!(made_up.message.contains("--model"), "{}", made_up.message);
    assert_eq!(again(&made_up::plugin_check(), None).verdict, Verdict::Inconclusive);
    // Nothing was computed, they say: a replay that agrees does not make it a pass.
    let mut mock = statement.clone();
    mock.predicate.execution.compute_path = ComputePath::Mock;
    assert_eq!(again(&mock, None).verdict, Verdict::Inconclusive);
}

#[test]
fn a_failed_run_is_reproduced_too() {
    let golden = Golden::embedded().unwrap();
    let entry = &golden.index.models["llama-stable"];
    let file = golden.model(entry).unwrap();
    let gguf = file.gguf().unwrap();
    let model = Model::load(&gguf, None).unwrap();
    let facts = record::model_facts(&file, &gguf, &model).unwrap();
    let backend = Backend { kernels: kernels::best(), threads: 1, batch: 0 };
    let found = assay_harness::runs::parity::against_golden(&golden, entry, &model, backend).unwrap();
    let mut statement = record::parity(file.name(), facts, &golden, &found).unwrap();
    let parity = statement.predicate.parity.as_mut().unwrap();
    parity.expected_logits_sha256 = Some(Sha256Hex::of(b"what somebody else computed"));
    statement.predicate.status = Status::Failed;
    let replayed = again(&statement, None);
    assert_eq!(replayed.verdict, Verdict::Reproduced, "{}", replayed.message);
}

#[test]
fn a_kernel_check_is_reproduced_and_a_lie_in_it_named() {
    use assay_engine::kernels::check::{Plan, check_tables};
    let plan = Plan { seed: 11, ..Plan::default() };
    let found = check_tables(&[&scalar::KERNELS, kernels::best()], &plan, &mut |_| ());
    let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
    let backend = Backend { kernels: kernels::best(), threads: 1, batch: 0 };
    let mut statement = record::kernel_check(backend, &plan, &found[0], &found[1]).unwrap();
    let replayed = again(&statement, None);
    assert_eq!(replayed.verdict, Verdict::Reproduced, "{}", replayed.message);
    let Claim::KernelCheck(claim) = &mut statement.predicate.claim else { panic!("a kernel check") };
    let (name, lie) = (claim.operations[3].operation.clone(), Sha256Hex::of(b"another"));
    claim.operations[3].outputs_sha256 = lie.clone();
    statement.predicate.kernel_results.as_mut().unwrap()[3].outputs_sha256 = lie;
    let replayed = again(&statement, None);
    assert_eq!(replayed.verdict, Verdict::Diverged, "{}", replayed.message);
    assert_eq!(replayed.divergence.unwrap().operation.as_deref(), Some(name.as_str()));
}

/// What this version computes is what the committed receipts say: other digests for the same cases need a new version of their list.
#[test]
fn committed_receipts_are_reproduced() {
    if assay_variables::skip_slow("replays of the committed receipts") {
        return;
    }
    let mut reproduced = 0;
    for kind in ["model-run", "parity", "kernel-check"] {
        let folder = crate::root().join("receipts/examples/positive").join(kind);
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let verify = verify::Options { file_name, ..verify::Options::default() };
            let options = Options { verify, isa: None, threads: 2 };
            let replayed = replay(&std::fs::read(&path).unwrap(), &options);
            assert_eq!(replayed.verdict, Verdict::Reproduced, "{}: {}", path.display(), replayed.message);
            reproduced += 1;
        }
    }
    assert!(reproduced >= 6, "{reproduced} receipts");
}

#[test]
fn a_made_up_trace_is_found_although_the_claim_is_right() {
    let mut statement = receipt(kernels::best(), true);
    let trace = statement.predicate.execution.trace.as_mut().unwrap();
    trace.iter_mut().find(|operation| operation.name == "blk.1.ffn_up").unwrap().sha256 =
        Sha256Hex::of(b"made up");
    let replayed = again(&statement, None);
    assert_eq!(replayed.verdict, Verdict::Diverged, "{}", replayed.message);
    let divergence = replayed.divergence.unwrap();
    assert_eq!((divergence.what.as_str(), divergence.operation.as_deref()), ("trace", Some("blk.1.ffn_up")));
}
