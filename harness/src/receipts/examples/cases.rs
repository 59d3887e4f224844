//! What is done to a good receipt to break one rule.

use super::Without;
use crate::receipts::canonical;
use crate::receipts::envelope::Envelope;
use crate::receipts::text::{
    DateTime, Decimal, FileName, KernelName, Label, RegisterBits, Sha256Hex, U64, Word,
};
use crate::receipts::types::{
    Claim, ComputePath, Correction, Device, DifferenceClass, DiscardReason, Discarded, Divergence, Fallback,
    FloatRegister, Greedy, Input, KernelCheckClaim, Kind, LiveParity, Measurement, ModelRunClaim,
    OperationsAlone, Phase, PluginCheckClaim, PluginFinding, PluginResult, RowDifference, Sample, Sampling,
    Statement, Status, Subject, TensorFacts, Work, operation,
};
use crate::receipts::verify::{MAX_BYTES, MAX_DEPTH, Rule, Verdict, operations_of};
use Without::{CaughtBy, Passes, Unreadable};
use serde_json::{Value, json};

/// One way to break a rule.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    pub(super) without: Without,
    pub(super) verdict: Verdict,
    pub(super) make: Make,
    pub(super) with: With,
}

/// What the caller of the verifier has beside the receipt.
#[derive(Clone, Copy)]
pub(super) enum With {
    Nothing,
    /// Keys to hold signatures to.
    Keys(&'static [super::TestKey]),
    /// The strict policy.
    Strict,
    /// A ledger, made of the lines of a good one, of another receipt and this.
    Ledger(fn(&[Vec<u8>]) -> Vec<Vec<u8>>),
}

/// How. An edit gives `None` where it does not apply to the kind of receipt.
pub(super) enum Make {
    /// Claim id and file name are made again.
    Statement(fn(&mut Statement) -> Option<()>),
    /// The file name is made again.
    Value(fn(&mut Value) -> Option<()>),
    /// The file name is made again.
    Bytes(fn(&[u8]) -> Option<Vec<u8>>),
    /// The file name stays.
    Unsealed(fn(&[u8]) -> Option<Vec<u8>>),
    /// Only the file name changes.
    Renamed(fn(&str) -> String),
    /// The receipt in an envelope that `alice` signed. The file name is that of the receipt inside.
    Envelope(fn(Envelope) -> Option<Vec<u8>>),
}

pub(super) const fn case(name: &'static str, rule: Rule, without: Without, make: Make) -> Case {
    Case { name, rule, without, verdict: rule.verdict(), make, with: With::Nothing }
}

pub(super) const CASES: &[Case] = &[
    case("too-large", Rule::Size, Passes, Make::Statement(too_large)),
    case("too-deep", Rule::Depth, Passes, Make::Statement(too_deep)),
    case("truncated", Rule::Json, Unreadable, Make::Bytes(|bytes| Some(bytes[..bytes.len() / 2].to_vec()))),
    case("not-a-number", Rule::Json, Unreadable, Make::Bytes(not_a_number)),
    case("duplicate-key", Rule::DuplicateKeys, CaughtBy(Rule::CanonicalForm), Make::Bytes(duplicate_key)),
    case("unknown-major", Rule::Version, CaughtBy(Rule::Schema), Make::Value(unknown_major)),
    case(
        "unknown-statement-major",
        Rule::Version,
        CaughtBy(Rule::Schema),
        Make::Value(unknown_statement_major),
    ),
    case("unknown-field", Rule::Schema, Unreadable, Make::Value(unknown_field)),
    case("float", Rule::Numbers, Passes, Make::Statement(|s| extend(s, json!(1.5)))),
    case("number-past-2-53", Rule::Numbers, Passes, Make::Statement(|s| extend(s, json!((1u64 << 53) + 2)))),
    case("reordered-keys", Rule::CanonicalForm, Passes, Make::Bytes(reordered_keys)),
    case("whitespace", Rule::CanonicalForm, Passes, Make::Bytes(|bytes| Some([bytes, b"\n"].concat()))),
    case("wrong-claim-id", Rule::ClaimId, Passes, Make::Value(wrong_claim_id)),
    case("flipped-bit", Rule::ReceiptId, Passes, Make::Unsealed(flipped_bit)),
    case("wrong-id-in-file-name", Rule::ReceiptId, Passes, Make::Renamed(wrong_id_in_file_name)),
    Case {
        verdict: Verdict::Inconclusive, // nothing is wrong with it, but it cannot be held to anything
        ..case("no-id", Rule::ReceiptId, Passes, Make::Renamed(|_| "renamed.json".into()))
    },
    case("wrong-date-in-file-name", Rule::FileName, Passes, Make::Renamed(wrong_date_in_file_name)),
    case("part-of-another-kind", Rule::Kind, Passes, Make::Statement(part_of_another_kind)),
    case("swapped-model", Rule::Subject, Passes, Make::Statement(swapped_model)),
    case("swapped-tensors", Rule::Tensors, Passes, Make::Statement(swapped_tensors)),
    case("transposed-tensor", Rule::Tensors, Passes, Make::Statement(transposed_tensor)),
    case("tensor-missing", Rule::Tensors, Passes, Make::Statement(tensor_missing)),
    case("tensor-past-the-layers", Rule::Tensors, Passes, Make::Statement(tensor_past_the_layers)),
    case("unknown-format", Rule::Tensors, Passes, Make::Statement(unknown_format)),
    case("ternary-norm", Rule::Tensors, Passes, Make::Statement(ternary_norm)),
    case("dense-tensor-decoded", Rule::Tensors, Passes, Make::Statement(dense_tensor_decoded)),
    case("decoded-weights-missing", Rule::Tensors, Passes, Make::Statement(decoded_weights_missing)),
    case("file-smaller-than-tensors", Rule::Tensors, Passes, Make::Statement(file_smaller_than_tensors)),
    case("unknown-architecture", Rule::Tensors, Passes, Make::Statement(unknown_architecture)),
    case("unknown-activation", Rule::Tensors, Passes, Make::Statement(unknown_activation)),
    case("seeded-sampling", Rule::Sampling, Passes, Make::Statement(seeded_sampling)),
    case("generated-token-missing", Rule::TokenCounts, Passes, Make::Statement(generated_token_missing)),
    case("token-past-vocabulary", Rule::TokenCounts, Passes, Make::Statement(token_past_vocabulary)),
    case("logits-row-missing", Rule::TokenCounts, Passes, Make::Statement(logits_row_missing)),
    case("layer-missing", Rule::LayerChain, Passes, Make::Statement(layer_missing)),
    case("flush-to-zero", Rule::FloatEnvironment, Passes, Make::Statement(flush_to_zero)),
    case(
        "register-of-other-digits",
        Rule::FloatEnvironment,
        Passes,
        Make::Statement(register_of_other_digits),
    ),
    case("flush-to-zero-hidden", Rule::FloatEnvironment, Passes, Make::Statement(flush_to_zero_hidden)),
    case("unknown-isa", Rule::Execution, Passes, Make::Statement(unknown_isa)),
    case("isa-without-its-features", Rule::Execution, Passes, Make::Statement(isa_without_its_features)),
    case(
        "register-of-another-processor",
        Rule::Execution,
        Passes,
        Make::Statement(register_of_another_processor),
    ),
    case("too-many-threads", Rule::Execution, Passes, Make::Statement(too_many_threads)),
    case("batch-past-the-prompt", Rule::Execution, Passes, Make::Statement(batch_past_the_prompt)),
    case("mock-path", Rule::ComputePath, Passes, Make::Statement(mock_path)),
    case("impossible-counter", Rule::WorkRows, CaughtBy(Rule::Work), Make::Statement(impossible_counter)),
    case("counter-in-two-rows", Rule::WorkRows, Passes, Make::Statement(counter_in_two_rows)),
    case("more-calls-than-rows", Rule::WorkRows, Passes, Make::Statement(more_calls_than_rows)),
    case("counters-do-not-add-up", Rule::Work, Passes, Make::Statement(one_row_more)),
    case("counters-of-another-shape", Rule::Work, Passes, Make::Statement(other_columns)),
    case(
        "weight-bytes-of-another-format",
        Rule::WeightBytes,
        Passes,
        Make::Statement(weight_bytes_of_another_format),
    ),
    case("keys-not-read", Rule::WeightBytes, Passes, Make::Statement(keys_not_read)),
    case("kernel-of-another-format", Rule::WeightBytes, Passes, Make::Statement(kernel_of_another_format)),
    case("kernels-of-another-isa", Rule::Kernels, Passes, Make::Statement(kernels_of_another_isa)),
    case("missing-fallback", Rule::Kernels, Passes, Make::Statement(missing_fallback)),
    case("kernel-of-another-operation", Rule::Kernels, Passes, Make::Statement(kernel_of_another_operation)),
    case("fallback-that-did-not-run", Rule::Fallbacks, Passes, Make::Statement(idle_fallback)),
    case("gpu-claimed-with-cpu-kernels", Rule::Device, Passes, Make::Statement(gpu_without_kernels)),
    case("device-without-its-kernels", Rule::Device, Passes, Make::Statement(device_on_cpu)),
    case("discarded-sample-missing", Rule::Measurement, Passes, Make::Statement(discarded_sample_missing)),
    case("prefill-of-fewer-tokens", Rule::Measurement, Passes, Make::Statement(prefill_of_fewer_tokens)),
    case("decode-of-several-tokens", Rule::Measurement, Passes, Make::Statement(decode_of_several_tokens)),
    case("decode-sample-missing", Rule::Measurement, Passes, Make::Statement(decode_sample_missing)),
    case("timed-without-a-model", Rule::Measurement, Passes, Make::Statement(timed_without_a_model)),
    case("impossible-metrics", Rule::ParityMetrics, Passes, Make::Statement(impossible_metrics)),
    case("tie-that-is-none", Rule::ParityMetrics, Passes, Make::Statement(tie_that_is_none)),
    case("difference-left-out", Rule::ParityMetrics, Passes, Make::Statement(difference_left_out)),
    case("another-token-of-ours", Rule::ParityMetrics, Passes, Make::Statement(another_token_of_ours)),
    case(
        "more-steps-than-positions",
        Rule::ParityMetrics,
        CaughtBy(Rule::Status),
        Make::Statement(more_steps_than_positions),
    ),
    case("operations-without-need", Rule::ParityMetrics, Passes, Make::Statement(operations_without_need)),
    case("lowered-threshold", Rule::ParityMetrics, Passes, Make::Statement(lowered_threshold)),
    case("lowered-steps", Rule::ParityMetrics, Passes, Make::Statement(lowered_steps)),
    case("no-greedy-steps", Rule::ParityMetrics, Passes, Make::Statement(no_greedy_steps)),
    case("one-position-less", Rule::ParityMetrics, Passes, Make::Statement(one_position_less)),
    case(
        "equal-steps-that-disagree",
        Rule::ParityMetrics,
        Passes,
        Make::Statement(equal_steps_that_disagree),
    ),
    case("negative-divergence", Rule::ParityMetrics, Passes, Make::Statement(negative_divergence)),
    case(
        "equal-logits-that-diverge",
        Rule::ParityMetrics,
        Passes,
        Make::Statement(equal_logits_that_diverge),
    ),
    case(
        "divergence-past-the-vocabulary",
        Rule::ParityMetrics,
        Passes,
        Make::Statement(divergence_past_the_vocabulary),
    ),
    case("checked-on-another-isa", Rule::KernelResults, Passes, Make::Statement(checked_on_another_isa)),
    case("operation-not-checked", Rule::KernelResults, Passes, Make::Statement(operation_not_checked)),
    case("operation-left-out", Rule::KernelResults, Passes, Make::Statement(operation_left_out)),
    case(
        "checked-on-another-kernel",
        Rule::KernelResults,
        Passes,
        Make::Statement(checked_on_another_kernel),
    ),
    Case {
        verdict: Verdict::Inconclusive, // a later version may know it
        ..case(
            "plug-in-of-an-unknown-case-list",
            Rule::KernelResults,
            Passes,
            Make::Statement(plugin_of_an_unknown_case_list),
        )
    },
    case("plug-in-group-left-out", Rule::KernelResults, Passes, Make::Statement(plugin_group_left_out)),
    case(
        "plug-in-kernel-not-claimed",
        Rule::KernelResults,
        Passes,
        Make::Statement(plugin_kernel_not_claimed),
    ),
    case(
        "plug-in-group-held-without-cases",
        Rule::KernelResults,
        Passes,
        Make::Statement(plugin_group_held_without_cases),
    ),
    case("another-plug-in", Rule::Subject, Passes, Make::Statement(another_plugin)),
    Case {
        verdict: Verdict::Inconclusive, // a later version may know it
        ..case("unknown-case-list", Rule::KernelResults, Passes, Make::Statement(unknown_case_list))
    },
    case("held-with-other-logits", Rule::Status, Passes, Make::Statement(held_with_other_logits)),
    case("held-with-metrics-missed", Rule::Status, Passes, Make::Statement(held_with_metrics_missed)),
    case(
        "written-in-the-future",
        Rule::Created,
        Passes,
        Make::Statement(|s| created(s, "2999-01-01T00:00:00Z")),
    ),
    case("corrected-in-the-future", Rule::Corrections, Passes, Make::Statement(corrected_in_the_future)),
    case("old-receipt", Rule::Age, Passes, Make::Statement(|s| created(s, "2020-01-01T00:00:00Z"))),
];

fn extend(statement: &mut Statement, value: Value) -> Option<()> {
    statement.predicate.extensions.insert("example".into(), value);
    Some(())
}

fn too_large(statement: &mut Statement) -> Option<()> {
    extend(statement, Value::String("x".repeat(MAX_BYTES)))
}

fn too_deep(statement: &mut Statement) -> Option<()> {
    extend(statement, (0..MAX_DEPTH).fold(json!([]), |inner, _| json!([inner])))
}

/// The bytes with the first `from` replaced.
fn replace(bytes: &[u8], from: &str, to: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.contains(from).then(|| text.replacen(from, to, 1).into_bytes())
}

fn not_a_number(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (before, after) = text.split_once("\"threads\":")?;
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    Some(format!("{before}\"threads\":NaN{rest}").into_bytes())
}

fn duplicate_key(bytes: &[u8]) -> Option<Vec<u8>> {
    replace(bytes, "\"status\":", "\"status\":\"failed\",\"status\":")
}

fn unknown_major(value: &mut Value) -> Option<()> {
    value["predicateType"] = value["predicateType"].as_str()?.replace("/v1", "/v2").into();
    Some(())
}

fn unknown_statement_major(value: &mut Value) -> Option<()> {
    value["_type"] = value["_type"].as_str()?.replace("/v1", "/v2").into();
    Some(())
}

fn unknown_field(value: &mut Value) -> Option<()> {
    value["predicate"]["execution"]["speed"] = "great".into();
    Some(())
}

/// `_type` last instead of first.
fn reordered_keys(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (first, rest) = text.strip_prefix('{')?.split_once(',')?;
    Some(format!("{{{},{first}}}", rest.strip_suffix('}')?).into_bytes())
}

fn wrong_claim_id(value: &mut Value) -> Option<()> {
    value["predicate"]["claim_id"] = Sha256Hex::of(b"another claim").as_str().into();
    Some(())
}

fn flipped_bit(bytes: &[u8]) -> Option<Vec<u8>> {
    replace(bytes, "\"name\":\"assay\"", "\"name\":\"assax\"")
}

fn wrong_id_in_file_name(name: &str) -> String {
    let (date, id) = name.rsplit_once('-').unwrap_or((name, ""));
    format!("{date}-{}{}", if id.starts_with('0') { '1' } else { '0' }, &id[1..])
}

fn wrong_date_in_file_name(name: &str) -> String {
    format!("2020-01-01{}", &name[10..])
}

fn part_of_another_kind(statement: &mut Statement) -> Option<()> {
    let predicate = &mut statement.predicate;
    match predicate.kind {
        Kind::ModelRun | Kind::Parity | Kind::PluginCheck => predicate.kernel_results = Some(Vec::new()),
        Kind::KernelCheck => {
            predicate.input =
                Some(Input { prompt_token_ids: vec![1], steps: 1, sampling: Sampling::Greedy {} });
        }
    }
    Some(())
}

fn swapped_model(statement: &mut Statement) -> Option<()> {
    statement.subject[0].digest.sha256 = Sha256Hex::of(b"another model");
    statement.subject[0].name = FileName::parse("another-model.gguf").ok()?;
    Some(())
}

fn swapped_tensors(statement: &mut Statement) -> Option<()> {
    let model = statement.predicate.model.as_mut()?;
    model.decoded_weights_sha256.as_ref()?;
    let first = model.tensors.iter().position(|tensor| tensor.decoded_sha256.is_some())?;
    let decoded = model.tensors[first].decoded_sha256.clone();
    let other = |decoded_sha256: &Option<Sha256Hex>| decoded_sha256.is_some() && *decoded_sha256 != decoded;
    let second = model.tensors.iter().position(|tensor| other(&tensor.decoded_sha256))?;
    model.tensors[first].decoded_sha256 = model.tensors[second].decoded_sha256.clone();
    model.tensors[second].decoded_sha256 = decoded;
    Some(())
}

fn transposed_tensor(statement: &mut Statement) -> Option<()> {
    let tensors = &mut statement.predicate.model.as_mut()?.tensors;
    let tensor = tensors.iter_mut().find(|tensor| tensor.name.ends_with("ffn_down.weight"))?;
    std::mem::swap(&mut tensor.rows, &mut tensor.cols);
    (tensor.rows != tensor.cols).then_some(())
}

fn claim_of_run(statement: &mut Statement) -> Option<&mut ModelRunClaim> {
    match &mut statement.predicate.claim {
        Claim::ModelRun(claim) => Some(claim),
        Claim::KernelCheck(_) | Claim::PluginCheck(_) => None,
    }
}

fn generated_token_missing(statement: &mut Statement) -> Option<()> {
    let alone = statement.predicate.kind == Kind::ModelRun; // in a parity receipt the metrics miss it too
    claim_of_run(statement)?.generated_token_ids.pop()?;
    alone.then_some(())
}

fn token_past_vocabulary(statement: &mut Statement) -> Option<()> {
    let vocab = statement.predicate.model.as_ref()?.shape.vocab;
    *statement.predicate.input.as_mut()?.prompt_token_ids.first_mut()? = vocab;
    Some(())
}

fn logits_row_missing(statement: &mut Statement) -> Option<()> {
    claim_of_run(statement)?.logits.rows -= 1;
    Some(())
}

fn layer_missing(statement: &mut Statement) -> Option<()> {
    claim_of_run(statement)?.layer_chain.pop().map(|_| ())
}

/// The register with flush to zero on.
fn flushing(statement: &Statement) -> RegisterBits {
    let environment = &statement.predicate.execution.float_environment;
    match environment.register {
        FloatRegister::Mxcsr => RegisterBits::from_u32(environment.value.get() as u32 | 1 << 15),
        FloatRegister::Fpcr => RegisterBits::from_u64(environment.value.get() | 1 << 24),
    }
}

fn flush_to_zero(statement: &mut Statement) -> Option<()> {
    flush_to_zero_hidden(statement)?;
    statement.predicate.execution.float_environment.subnormals_kept = false;
    Some(())
}

fn flush_to_zero_hidden(statement: &mut Statement) -> Option<()> {
    statement.predicate.execution.float_environment.value = flushing(statement);
    Some(())
}

/// Bits that the register does not have.
fn register_of_other_digits(statement: &mut Statement) -> Option<()> {
    let environment = &mut statement.predicate.execution.float_environment;
    (environment.register == FloatRegister::Mxcsr).then_some(())?;
    environment.value = RegisterBits::from_u64(1 << 40 | environment.value.get());
    Some(())
}

fn mock_path(statement: &mut Statement) -> Option<()> {
    statement.predicate.execution.compute_path = ComputePath::Mock;
    Some(())
}

fn add(value: &mut U64, more: u64) {
    *value = U64::from(value.get() + more);
}

/// A counter, of `operation` if the receipt has one.
pub(super) fn counter<'a>(statement: &'a mut Statement, operation: &str) -> Option<&'a mut Work> {
    let work = &mut statement.predicate.execution.work;
    let place = work.iter().position(|row| row.operation.as_str() == operation).unwrap_or(0);
    work.get_mut(place)
}

/// The same work as two rows of the same kernel and length.
fn counter_in_two_rows(statement: &mut Statement) -> Option<()> {
    let row = counter(statement, operation::ATTENTION_SCORES)?;
    let (rows, columns, calls) = (row.rows.get(), row.columns.get(), row.calls.get());
    (rows > 1 && calls > 1).then_some(())?;
    let part = |rows: u64, calls: u64, row: &Work| Work {
        calls: U64::from(calls.min(rows)),
        rows: U64::from(rows),
        macs: U64::from(rows * columns),
        weight_bytes: U64::from(row.weight_bytes.get() / row.rows.get() * rows),
        ..row.clone()
    };
    let second = part(1, 1, row);
    *row = part(rows - 1, calls - 1, row);
    statement.predicate.execution.work.push(second);
    Some(())
}

/// A row more than its multiply-adds say.
fn impossible_counter(statement: &mut Statement) -> Option<()> {
    let row = counter(statement, operation::ATTENTION_SCORES)?;
    add(&mut row.rows, 1);
    row.weight_bytes = U64::from(row.rows.get() * row.columns.get() * 2);
    Some(())
}

fn one_row_more(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_ref()?;
    let row = counter(statement, operation::LINEAR)?;
    add(&mut row.rows, 1);
    add(&mut row.macs, row.columns.get());
    Some(())
}

/// As many multiply-adds, but of rows half as long and twice as many.
fn other_columns(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_ref()?;
    let row = counter(statement, operation::HEAD)?;
    let columns = row.columns.get();
    (columns % 2 == 0).then_some(())?;
    (row.columns, row.rows) = (U64::from(columns / 2), U64::from(row.rows.get() * 2));
    Some(())
}

fn with_isa(kernel: &KernelName, isa: &str) -> Option<KernelName> {
    let (name, _) = kernel.as_str().split_once('/')?;
    KernelName::parse(&format!("{name}/{isa}")).ok()
}

/// An instruction set that the receipt does not name.
fn another_isa(statement: &Statement) -> &'static str {
    if statement.predicate.execution.isa.as_str() == "scalar" { "avx2" } else { "scalar" }
}

fn kernels_of_another_isa(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_ref()?; // in a kernel check the results miss their kernels too
    let isa = another_isa(statement);
    let execution = &mut statement.predicate.execution;
    execution.fallbacks.is_empty().then_some(())?; // else two counters could come to have one name
    for row in &mut execution.work {
        row.kernel = with_isa(&row.kernel, isa)?;
    }
    Some(())
}

fn missing_fallback(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_ref()?;
    let isa = another_isa(statement);
    let row = counter(statement, operation::ATTENTION_VALUES)?;
    row.kernel = with_isa(&row.kernel, isa)?;
    let operation = row.operation.clone();
    statement.predicate.execution.fallbacks.retain(|fallback| fallback.operation != operation);
    Some(())
}

fn idle_fallback(statement: &mut Statement) -> Option<()> {
    let execution = &mut statement.predicate.execution;
    let row = execution.work.first()?;
    execution.fallbacks.push(Fallback {
        operation: row.operation.clone(),
        wanted: KernelName::parse(&format!("wanted/{}", execution.isa)).ok()?,
        used: KernelName::parse("never_run/scalar").ok()?,
        reason: "an example".into(),
    });
    Some(())
}

fn a_device() -> Device {
    Device {
        name: "Example".into(),
        compute_capability: "9.0".into(),
        driver: "1.0".into(),
        ptx_sha256: None,
        options: Vec::new(),
    }
}

/// Device there, every kernel on the processor, and every one of them excused.
fn gpu_without_kernels(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_ref()?;
    let execution = &mut statement.predicate.execution;
    execution.isa = Word::parse("cuda").ok()?;
    execution.device = Some(a_device());
    execution.fallbacks.clear();
    for row in &execution.work {
        let (operation, used) = (row.operation.clone(), row.kernel.clone());
        let wanted = with_isa(&used, "cuda")?;
        execution.fallbacks.push(Fallback { operation, wanted, used, reason: "an example".into() });
    }
    Some(())
}

fn device_on_cpu(statement: &mut Statement) -> Option<()> {
    let execution = &mut statement.predicate.execution;
    execution.device = Some(a_device());
    (execution.isa.as_str() != "cuda").then_some(())
}

fn discarded_sample_missing(statement: &mut Statement) -> Option<()> {
    let measurement = statement.predicate.measurement.as_mut()?;
    let index = u32::try_from(measurement.samples.len()).ok()?;
    measurement.discarded.push(Discarded { index, reason: DiscardReason::OtherLoad });
    Some(())
}

fn sample_of(statement: &mut Statement, phase: Phase) -> Option<&mut Sample> {
    let samples = &mut statement.predicate.measurement.as_mut()?.samples;
    samples.iter_mut().rev().find(|sample| sample.phase == phase)
}

fn prefill_of_fewer_tokens(statement: &mut Statement) -> Option<()> {
    let sample = sample_of(statement, Phase::Prefill)?;
    sample.tokens = sample.tokens.checked_sub(1).filter(|tokens| *tokens > 0)?;
    Some(())
}

fn decode_of_several_tokens(statement: &mut Statement) -> Option<()> {
    sample_of(statement, Phase::Decode)?.tokens = 2;
    Some(())
}

/// One that nothing discarded points past.
fn decode_sample_missing(statement: &mut Statement) -> Option<()> {
    let measurement = statement.predicate.measurement.as_mut()?;
    let last = measurement.samples.pop()?;
    let kept = measurement.samples.len();
    measurement.discarded.retain(|discarded| (discarded.index as usize) < kept);
    (last.phase == Phase::Decode).then_some(())
}

fn timed_without_a_model(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.is_none().then_some(())?;
    statement.predicate.measurement = Some(Measurement {
        warm_up: 0,
        samples: vec![Sample { phase: Phase::Load, tokens: 0, ns: U64::from(1) }],
        discarded: Vec::new(),
        peak_memory_bytes: None,
        read_bandwidth_bytes_per_s: None,
    });
    Some(())
}

fn tensor<'a>(statement: &'a mut Statement, name: &str) -> Option<&'a mut TensorFacts> {
    let tensors = &mut statement.predicate.model.as_mut()?.tensors;
    tensors.iter_mut().find(|tensor| tensor.name == name)
}

fn tensor_missing(statement: &mut Statement) -> Option<()> {
    let tensors = &mut statement.predicate.model.as_mut()?.tensors;
    let before = tensors.len();
    tensors.retain(|tensor| tensor.name != "blk.0.attn_norm.weight");
    (tensors.len() < before).then_some(())
}

fn tensor_past_the_layers(statement: &mut Statement) -> Option<()> {
    let layers = statement.predicate.model.as_ref()?.shape.layers;
    tensor(statement, "blk.0.attn_norm.weight")?.name = format!("blk.{layers}.attn_norm.weight");
    Some(())
}

fn unknown_format(statement: &mut Statement) -> Option<()> {
    tensor(statement, "output_norm.weight")?.format = "F31".into();
    Some(())
}

fn ternary_norm(statement: &mut Statement) -> Option<()> {
    tensor(statement, "output_norm.weight")?.format = "QK256".into();
    Some(())
}

fn dense_tensor_decoded(statement: &mut Statement) -> Option<()> {
    tensor(statement, "output_norm.weight")?.decoded_sha256 = Some(Sha256Hex::of(b"decoded"));
    let model = statement.predicate.model.as_mut()?;
    model.decoded_weights_sha256 = canonical::decoded_weights_sha256(&model.tensors).ok()?;
    Some(())
}

fn decoded_weights_missing(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_mut()?.decoded_weights_sha256.take().map(|_| ())
}

fn file_smaller_than_tensors(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_mut()?.bytes = U64::from(10);
    Some(())
}

fn unknown_architecture(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_mut()?.architecture = "another".into();
    Some(())
}

fn unknown_activation(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_mut()?.activation = Word::parse("gelu").ok()?;
    Some(())
}

fn seeded_sampling(statement: &mut Statement) -> Option<()> {
    statement.predicate.input.as_mut()?.sampling = Sampling::Seeded {
        rng: Word::parse("chacha20").ok()?,
        seed: U64::from(1),
        temperature: Decimal::parse("0.7").ok()?,
        top_k: None,
        top_p: None,
    };
    Some(())
}

/// An instruction set and kernels of it that nobody has.
fn unknown_isa(statement: &mut Statement) -> Option<()> {
    let predicate = &mut statement.predicate;
    let execution = &mut predicate.execution;
    execution.fallbacks.is_empty().then_some(())?;
    execution.isa = Word::parse("mmx").ok()?;
    let results = predicate.kernel_results.iter_mut().flatten().map(|result| &mut result.kernel);
    for kernel in execution.work.iter_mut().map(|row| &mut row.kernel).chain(results) {
        *kernel = with_isa(kernel, "mmx")?;
    }
    Some(())
}

fn isa_without_its_features(statement: &mut Statement) -> Option<()> {
    statement.predicate.environment.cpu.features.clear();
    (statement.predicate.execution.isa.as_str() != "scalar").then_some(())
}

fn register_of_another_processor(statement: &mut Statement) -> Option<()> {
    let environment = &mut statement.predicate.execution.float_environment;
    (environment.register == FloatRegister::Mxcsr).then_some(())?;
    environment.register = FloatRegister::Fpcr;
    environment.value = RegisterBits::from_u64(0);
    Some(())
}

fn too_many_threads(statement: &mut Statement) -> Option<()> {
    statement.predicate.execution.threads = 1025;
    Some(())
}

fn batch_past_the_prompt(statement: &mut Statement) -> Option<()> {
    let prompt = statement.predicate.input.as_ref()?.prompt_token_ids.len();
    statement.predicate.execution.batch = u32::try_from(prompt).ok()? + 1;
    Some(())
}

fn more_calls_than_rows(statement: &mut Statement) -> Option<()> {
    let row = counter(statement, operation::LINEAR)?;
    row.calls = U64::from(row.rows.get() + 1);
    Some(())
}

fn weight_bytes_of_another_format(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_ref()?;
    let row = counter(statement, operation::LINEAR)?;
    row.weight_bytes = U64::from(row.weight_bytes.get() * 8);
    Some(())
}

fn keys_not_read(statement: &mut Statement) -> Option<()> {
    statement.predicate.model.as_ref()?;
    counter(statement, operation::ATTENTION_SCORES)?.weight_bytes = U64::from(0);
    Some(())
}

/// The embedding in f32, as its kernel, where the weights are in f16, or the other way round.
fn kernel_of_another_format(statement: &mut Statement) -> Option<()> {
    let row = counter(statement, operation::HEAD)?;
    let (name, isa) = row.kernel.as_str().split_once('/')?;
    let (verb, operands) = name.split_once('_')?;
    let other = format!("{verb}_{}", if operands == "f16_f32" { "f32_f32" } else { "f16_f32" });
    row.kernel = KernelName::parse(&format!("{other}/{isa}")).ok()?;
    statement.predicate.execution.fallbacks.is_empty().then_some(())
}

fn kernel_of_another_operation(statement: &mut Statement) -> Option<()> {
    let row = counter(statement, operation::ATTENTION_VALUES)?;
    row.kernel = KernelName::parse(&format!("gemv_i2s_i8/{}", row.kernel.isa())).ok()?;
    statement.predicate.execution.fallbacks.is_empty().then_some(())
}

/// Another token, far from ours, called a tie.
fn tie_that_is_none(statement: &mut Statement) -> Option<()> {
    let live = live_of(statement)?;
    live.differences.clear();
    live.rank_max = 2;
    live.differences.push(RowDifference {
        row: 0,
        ours: 0,
        theirs: 1,
        gap: Decimal::parse("5").ok()?,
        their_gap: Decimal::parse("5").ok()?,
        perturbation: Decimal::parse("0.5").ok()?,
        class: DifferenceClass::Tie,
    });
    let parity = statement.predicate.parity.as_mut()?;
    parity.top1_agree = parity.positions.checked_sub(1)?;
    agrees(statement)
}

/// One row less agrees, and none differs.
fn difference_left_out(statement: &mut Statement) -> Option<()> {
    let live = live_of(statement)?;
    live.differences.clear();
    live.rank_max = 1;
    let parity = statement.predicate.parity.as_mut()?;
    parity.top1_agree = parity.positions.checked_sub(1)?;
    agrees(statement)
}

/// The operations decide, though the logits of the model say enough.
fn operations_without_need(statement: &mut Statement) -> Option<()> {
    let all = operations_of(statement.predicate.model.as_ref()?);
    let live = live_of(statement)?;
    live.operations =
        Some(OperationsAlone { all, compared: all, asked: (3 * all).div_ceil(4), wrong: Vec::new() });
    agrees(statement)
}

/// What a live reference added, if the thresholds are those of the table.
fn live_of(statement: &mut Statement) -> Option<&mut LiveParity> {
    statement.predicate.parity.as_mut()?.live.as_mut().filter(|live| live.thresholds_sha256.is_none())
}

/// More steps than rows.
fn more_steps_than_positions(statement: &mut Statement) -> Option<()> {
    live_of(statement)?;
    let parity = statement.predicate.parity.as_mut()?;
    (parity.positions, parity.greedy.equal) = (1, parity.greedy.steps.checked_sub(1)?);
    Some(())
}

/// Another token than the claim's, far down the vocabulary.
fn another_token_of_ours(statement: &mut Statement) -> Option<()> {
    let vocab = statement.predicate.model.as_ref()?.shape.vocab;
    live_of(statement)?.differences.last_mut()?.ours = vocab;
    Some(())
}

/// It held, with all greedy steps equal: then nothing but what was done to it is wrong.
fn agrees(statement: &Statement) -> Option<()> {
    let parity = statement.predicate.parity.as_ref()?;
    let equal = parity.greedy.equal == parity.greedy.steps && parity.top1_agree >= parity.greedy.equal;
    (equal && statement.predicate.status == Status::Held).then_some(())
}

fn lowered_threshold(statement: &mut Statement) -> Option<()> {
    let predicate = &mut statement.predicate;
    predicate.parity.as_mut()?.thresholds.cosine_min = Decimal::parse("0.5").ok()?;
    // Of one that failed the status might not follow.
    (predicate.status == Status::Held).then_some(())
}

/// Fewer equal steps are asked for, and there are as many.
fn lowered_steps(statement: &mut Statement) -> Option<()> {
    let predicate = &mut statement.predicate;
    let thresholds = &mut predicate.parity.as_mut()?.thresholds;
    thresholds.greedy_equal = thresholds.greedy_equal.checked_sub(1)?;
    (predicate.status == Status::Held).then_some(())
}

/// Nothing was compared after the prompt, and it held.
fn no_greedy_steps(statement: &mut Statement) -> Option<()> {
    let predicate = &mut statement.predicate;
    let parity = predicate.parity.as_mut()?;
    parity.greedy = Greedy { steps: 0, equal: 0, first_divergence: None };
    parity.thresholds.greedy_equal = 0;
    (predicate.status == Status::Held).then_some(())
}

fn one_position_less(statement: &mut Statement) -> Option<()> {
    let parity = statement.predicate.parity.as_mut()?;
    parity.positions = parity.positions.checked_sub(1).filter(|positions| *positions > 0)?;
    parity.top1_agree = parity.top1_agree.min(parity.positions);
    Some(())
}

fn equal_steps_that_disagree(statement: &mut Statement) -> Option<()> {
    let parity = statement.predicate.parity.as_mut()?;
    parity.top1_agree = parity.greedy.equal.checked_sub(1)?;
    Some(())
}

fn negative_divergence(statement: &mut Statement) -> Option<()> {
    statement.predicate.parity.as_mut()?.kl_mean = Decimal::parse("-1").ok()?;
    Some(())
}

fn equal_logits_that_diverge(statement: &mut Statement) -> Option<()> {
    let parity = statement.predicate.parity.as_mut()?;
    (parity.max_abs, parity.kl_max) = (Decimal::parse("0").ok()?, Decimal::parse("1000").ok()?);
    Some(())
}

/// Other tokens at the last step, the reference's past the vocabulary.
fn divergence_past_the_vocabulary(statement: &mut Statement) -> Option<()> {
    let vocab = statement.predicate.model.as_ref()?.shape.vocab;
    let prompt = u32::try_from(statement.predicate.input.as_ref()?.prompt_token_ids.len()).ok()?;
    let generated = claim_of_run(statement)?.generated_token_ids.clone();
    let parity = statement.predicate.parity.as_mut()?;
    let step = parity.greedy.steps.checked_sub(1)?;
    let ours = *generated.get(step as usize)?;
    parity.greedy.equal = step;
    parity.greedy.first_divergence = Some(Divergence { step, ours, theirs: vocab });
    parity.positions = prompt + step;
    parity.top1_agree = parity.top1_agree.min(parity.positions);
    statement.predicate.status = Status::Failed;
    Some(())
}

fn check_claim(statement: &mut Statement) -> Option<&mut KernelCheckClaim> {
    match &mut statement.predicate.claim {
        Claim::KernelCheck(claim) => Some(claim),
        Claim::ModelRun(_) | Claim::PluginCheck(_) => None,
    }
}

fn plugin_claim(statement: &mut Statement) -> Option<&mut PluginCheckClaim> {
    match &mut statement.predicate.claim {
        Claim::PluginCheck(claim) => Some(claim),
        Claim::ModelRun(_) | Claim::KernelCheck(_) => None,
    }
}

fn plugin_group_left_out(statement: &mut Statement) -> Option<()> {
    statement.predicate.plugin_results.as_mut()?.pop().map(|_| ())
}

fn plugin_kernel_not_claimed(statement: &mut Statement) -> Option<()> {
    let result = statement.predicate.plugin_results.as_mut()?.first()?.clone();
    let stray = PluginResult { kernel: Label::parse("another").ok()?, ..result };
    statement.predicate.plugin_results.as_mut()?.push(stray);
    Some(())
}

fn plugin_group_held_without_cases(statement: &mut Statement) -> Option<()> {
    let held = |result: &&mut PluginResult| result.finding.is_none();
    statement.predicate.plugin_results.as_mut()?.iter_mut().find(held)?.cases = 0;
    Some(())
}

fn plugin_of_an_unknown_case_list(statement: &mut Statement) -> Option<()> {
    plugin_claim(statement)?.case_list.version += 1;
    Some(())
}

fn another_plugin(statement: &mut Statement) -> Option<()> {
    plugin_claim(statement)?.library_sha256 = Sha256Hex::of(b"another library");
    Some(())
}

fn operation_left_out(statement: &mut Statement) -> Option<()> {
    let left_out = check_claim(statement)?.operations.pop()?.operation;
    statement.predicate.kernel_results.as_mut()?.retain(|result| result.operation != left_out);
    Some(())
}

fn unknown_case_list(statement: &mut Statement) -> Option<()> {
    let case_list = &mut check_claim(statement)?.case_list;
    case_list.version += 1;
    let subject = Subject::case_list(case_list).ok()?;
    statement.subject = vec![subject];
    Some(())
}

fn checked_on_another_kernel(statement: &mut Statement) -> Option<()> {
    let result = statement.predicate.kernel_results.as_mut()?.first_mut()?;
    result.kernel = KernelName::parse(&format!("another/{}", result.kernel.isa())).ok()?;
    Some(())
}

fn corrected_in_the_future(statement: &mut Statement) -> Option<()> {
    statement.predicate.corrections.push(Correction {
        at: DateTime::parse("2999-01-01T00:00:00Z").ok()?,
        field: "/predicate/limits/0".into(),
        before: "one".into(),
        after: "another".into(),
        reason: "an example".into(),
    });
    Some(())
}

fn impossible_metrics(statement: &mut Statement) -> Option<()> {
    statement.predicate.parity.as_mut()?.kl_mean = Decimal::parse("1000000").ok()?;
    Some(())
}

fn checked_on_another_isa(statement: &mut Statement) -> Option<()> {
    let isa = another_isa(statement);
    let result = statement.predicate.kernel_results.as_mut()?.first_mut()?;
    result.kernel = with_isa(&result.kernel, isa)?;
    Some(())
}

fn operation_not_checked(statement: &mut Statement) -> Option<()> {
    let results = statement.predicate.kernel_results.as_mut()?;
    let operation = results.first()?.operation.clone();
    results.retain(|result| result.operation != operation);
    Some(())
}

fn held_with_metrics_missed(statement: &mut Statement) -> Option<()> {
    let predicate = &mut statement.predicate;
    predicate.status = Status::Held;
    match predicate.kind {
        Kind::ModelRun => predicate.status = Status::Failed, // a run has no metrics: failed follows from nothing
        Kind::Parity => predicate.parity.as_mut()?.cosine_min = Decimal::parse("0.5").ok()?,
        Kind::PluginCheck => {
            let result = predicate.plugin_results.as_mut()?.first_mut()?;
            let (kind, message, case) = (Label::parse("hang").ok()?, "did not return".into(), String::new());
            result.finding = Some(PluginFinding { kind, message, case });
        }
        Kind::KernelCheck => {
            predicate.kernel_results.as_mut()?.first_mut()?.outputs_sha256 = Sha256Hex::of(b"other outputs");
        }
    }
    Some(())
}

fn held_with_other_logits(statement: &mut Statement) -> Option<()> {
    statement.predicate.status = Status::Held;
    statement.predicate.parity.as_mut()?.expected_logits_sha256 = Some(Sha256Hex::of(b"other logits"));
    Some(())
}

fn created(statement: &mut Statement, text: &str) -> Option<()> {
    statement.predicate.created = DateTime::parse(text).ok()?;
    Some(())
}
