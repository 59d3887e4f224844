//! What is done to a good receipt to break one rule.

use super::Without;
use crate::receipts::text::{DateTime, Decimal, FileName, KernelName, RegisterBits, Sha256Hex, U64, Word};
use crate::receipts::types::{
    ComputePath, Device, DiscardReason, Discarded, Fallback, FloatRegister, Input, Kind, Measurement,
    Sampling, Statement, Status, Work, operation,
};
use crate::receipts::verify::{MAX_BYTES, MAX_DEPTH, Rule, Verdict};
use Without::{CaughtBy, Passes, Unreadable};
use serde_json::{Value, json};

/// One way to break a rule.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    pub(super) without: Without,
    pub(super) verdict: Verdict,
    pub(super) make: Make,
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
}

const fn case(name: &'static str, rule: Rule, without: Without, make: Make) -> Case {
    Case { name, rule, without, verdict: rule.verdict(), make }
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
    case("generated-token-missing", Rule::TokenCounts, Passes, Make::Statement(generated_token_missing)),
    case("token-past-vocabulary", Rule::TokenCounts, Passes, Make::Statement(token_past_vocabulary)),
    case("logits-row-missing", Rule::TokenCounts, Passes, Make::Statement(logits_row_missing)),
    case("layer-missing", Rule::LayerChain, Passes, Make::Statement(layer_missing)),
    case("flush-to-zero", Rule::FloatEnvironment, Passes, Make::Statement(flush_to_zero)),
    case("flush-to-zero-hidden", Rule::FloatEnvironment, Passes, Make::Statement(flush_to_zero_hidden)),
    case("mock-path", Rule::ComputePath, Passes, Make::Statement(mock_path)),
    case("impossible-counter", Rule::WorkRows, Passes, Make::Statement(impossible_counter)),
    case("counters-do-not-add-up", Rule::Work, Passes, Make::Statement(one_row_more)),
    case("counters-of-another-shape", Rule::Work, Passes, Make::Statement(other_columns)),
    case("kernels-of-another-isa", Rule::Kernels, Passes, Make::Statement(kernels_of_another_isa)),
    case("missing-fallback", Rule::Kernels, Passes, Make::Statement(missing_fallback)),
    case("fallback-that-did-not-run", Rule::Fallbacks, Passes, Make::Statement(idle_fallback)),
    case("gpu-claimed-with-cpu-kernels", Rule::Device, Passes, Make::Statement(gpu_without_kernels)),
    case("device-without-its-kernels", Rule::Device, Passes, Make::Statement(device_on_cpu)),
    case("discarded-sample-missing", Rule::Measurement, Passes, Make::Statement(discarded_sample_missing)),
    case("impossible-metrics", Rule::ParityMetrics, Passes, Make::Statement(impossible_metrics)),
    case("checked-on-another-isa", Rule::KernelResults, Passes, Make::Statement(checked_on_another_isa)),
    case("operation-not-checked", Rule::KernelResults, Passes, Make::Statement(operation_not_checked)),
    case("held-with-other-logits", Rule::Status, Passes, Make::Statement(held_with_other_logits)),
    case("held-with-metrics-missed", Rule::Status, Passes, Make::Statement(held_with_metrics_missed)),
    case(
        "written-in-the-future",
        Rule::Created,
        Passes,
        Make::Statement(|s| created(s, "2999-01-01T00:00:00Z")),
    ),
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
        Kind::ModelRun | Kind::Parity => predicate.kernel_results = Some(Vec::new()),
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

fn claim_of_run(statement: &mut Statement) -> Option<&mut crate::receipts::types::ModelRunClaim> {
    match &mut statement.predicate.claim {
        crate::receipts::types::Claim::ModelRun(claim) => Some(claim),
        crate::receipts::types::Claim::KernelCheck(_) => None,
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

fn mock_path(statement: &mut Statement) -> Option<()> {
    statement.predicate.execution.compute_path = ComputePath::Mock;
    Some(())
}

fn add(value: &mut U64, more: u64) {
    *value = U64::from(value.get() + more);
}

/// A counter, of `operation` if the receipt has one.
fn counter<'a>(statement: &'a mut Statement, operation: &str) -> Option<&'a mut Work> {
    let work = &mut statement.predicate.execution.work;
    let place = work.iter().position(|row| row.operation.as_str() == operation).unwrap_or(0);
    work.get_mut(place)
}

/// A row more than its multiply-adds say. (Of attention no rows are required, only multiply-adds.)
fn impossible_counter(statement: &mut Statement) -> Option<()> {
    add(&mut counter(statement, operation::ATTENTION_SCORES)?.rows, 1);
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
    if statement.predicate.execution.isa.as_str() == "neon" { "avx2" } else { "neon" }
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
    let nothing = Measurement {
        warm_up: 0,
        samples: Vec::new(),
        discarded: Vec::new(),
        peak_memory_bytes: None,
        read_bandwidth_bytes_per_s: None,
    };
    let measurement = statement.predicate.measurement.get_or_insert(nothing);
    let index = u32::try_from(measurement.samples.len()).ok()?;
    measurement.discarded.push(Discarded { index, reason: DiscardReason::OtherLoad });
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
        Kind::Parity => predicate.parity.as_mut()?.thresholds.cosine_min = Decimal::parse("2").ok()?,
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
