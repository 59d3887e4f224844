//! A receipt's claim run again, on another backend unless told otherwise; and where it parts, if it does.

use super::record;
use super::text::Sha256Hex;
use super::types::{
    Claim, KernelCheckClaim, ModelFacts, ModelRunClaim, OperationDigest, Sampling, Statement,
};
use super::verify::{self, Files, Report, Verdict, verify};
use crate::runs::builtin;
use crate::runs::engine::{self, Backend, Run};
use crate::runs::file::ModelFile;
use assay_engine::gguf::Gguf;
use assay_engine::kernels::check::{CASES_VERSION, OperationReport, Plan, check_tables};
use assay_engine::kernels::{self, Isa, scalar};
use assay_engine::model::{Activation, Model};
use assay_engine::quant::i2s::Packing;
use serde::Serialize;

/// How to run it again.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the receipt is verified with first. Its `files` say where the model lies; without any, models that are part of the program are
    /// known by their digest.
    pub verify: verify::Options,
    /// The instruction set; by default scalar, or for a scalar receipt the best of this machine.
    pub isa: Option<Isa>,
    /// Threads.
    pub threads: usize,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Replayed {
    /// The worst of what verifying and running say.
    pub verdict: Verdict,
    /// What was seen, in a sentence.
    pub message: String,
    /// What it ran on; `None` if it did not run.
    pub isa: Option<&'static str>,
    /// Where it parts from the receipt.
    pub divergence: Option<Divergence>,
    /// What the rules say of the receipt.
    pub report: Report,
    /// The receipt of the replay: that of a model run or a kernel check.
    #[serde(skip)]
    pub statement: Option<Statement>,
}

/// Where a replay parts from a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Divergence {
    /// What differs first: `model`, `rope tables`, `layer`, `logits`, `tokens`, `operation`.
    pub what: String,
    /// The first layer whose residual stream differs.
    pub layer: Option<usize>,
    /// The first operation that gives something else, where it can be told.
    pub operation: Option<String>,
    /// The first generated token that differs, from 0.
    pub step: Option<usize>,
    /// How the operation was found, or why it was not.
    pub how: String,
}

/// What running it said: a verdict, a sentence, and more where there is more.
struct Outcome {
    verdict: Verdict,
    message: String,
    isa: Option<Isa>,
    divergence: Option<Divergence>,
    statement: Option<Statement>,
}

impl Outcome {
    fn inconclusive(message: impl Into<String>) -> Outcome {
        let message = message.into();
        Outcome { verdict: Verdict::Inconclusive, message, isa: None, divergence: None, statement: None }
    }

    fn diverged(isa: Isa, message: impl Into<String>, divergence: Divergence) -> Outcome {
        Outcome {
            verdict: Verdict::Diverged,
            message: message.into(),
            isa: Some(isa),
            divergence: Some(divergence),
            statement: None,
        }
    }
}

impl Divergence {
    fn of(what: &str, how: impl Into<String>) -> Divergence {
        Divergence { what: what.to_owned(), layer: None, operation: None, step: None, how: how.into() }
    }
}

/// Verifies the bytes of a receipt, or of an envelope around one, and runs its claim again.
pub fn replay(bytes: &[u8], options: &Options) -> Replayed {
    let report = verify(bytes, &options.verify);
    let outcome = match &report.statement {
        _ if report.verdict == Verdict::Tampered => {
            let why = report.decided_by().map_or(String::new(), |rule| format!(": {}", rule.message));
            Outcome { verdict: Verdict::Tampered, ..Outcome::inconclusive(format!("not run again{why}")) }
        }
        None => Outcome::inconclusive("not run again: it cannot be read"),
        Some(statement) => again(statement, options),
    };
    Replayed {
        // A receipt that cannot be checked is not reproduced, whatever it claims.
        verdict: outcome.verdict.max(report.verdict),
        message: outcome.message,
        isa: outcome.isa.map(Isa::name),
        divergence: outcome.divergence,
        statement: outcome.statement,
        report,
    }
}

fn again(statement: &Statement, options: &Options) -> Outcome {
    match &statement.predicate.claim {
        Claim::ModelRun(claim) => model_run(statement, claim, options),
        Claim::KernelCheck(claim) => kernel_check(statement, claim, options),
        Claim::PluginCheck(_) => Outcome::inconclusive(
            "a check of kernels from outside runs a stranger's code: run `assay kernels check --plugin` on the library and compare the claim ids",
        ),
    }
}

/// The instruction set to run on: another one, unless told otherwise.
fn other_isa(statement: &Statement, options: &Options) -> Isa {
    let receipt_is_scalar = statement.predicate.execution.isa.as_str() == Isa::Scalar.name();
    options.isa.unwrap_or(if receipt_is_scalar { kernels::best().isa } else { Isa::Scalar })
}

fn model_run(statement: &Statement, claim: &ModelRunClaim, options: &Options) -> Outcome {
    let predicate = &statement.predicate;
    let (Some(facts), Some(input)) = (&predicate.model, &predicate.input) else {
        return Outcome::inconclusive("it names no model");
    };
    let Sampling::Greedy {} = input.sampling else {
        return Outcome::inconclusive("seeded sampling is not known to this version");
    };
    let isa = other_isa(statement, options);
    let backend =
        Backend { threads: options.threads, batch: predicate.execution.batch as usize, ..Backend::best() };
    let backend = match backend.with_isa(isa) {
        Ok(backend) => backend,
        Err(error) => return Outcome::inconclusive(error.to_string()),
    };
    let file = match model_file(facts, statement, options) {
        Ok(file) => file,
        Err(why) => return Outcome::inconclusive(why),
    };
    let mut gguf = match file.gguf() {
        Ok(gguf) => gguf,
        Err(error) => return Outcome::inconclusive(format!("{}: {error}", file.name())),
    };
    let model = match load(&file, &mut gguf, facts) {
        Ok(model) => model,
        Err(Misfit::Unreadable(why)) => return Outcome::inconclusive(format!("{}: {why}", file.name())),
        Err(Misfit::OtherFacts(what)) => {
            let message = format!("the file is not what the receipt says of it: {what}");
            return Outcome::diverged(isa, message, Divergence::of("model", "read from the file"));
        }
    };
    let run = engine::run(&model, backend, &input.prompt_token_ids, input.steps as usize, &mut |_, _| Ok(()));
    let run = match run {
        Ok(run) => run,
        // What the contract forbids, it forbids everywhere, and the context is the model's: the claim cannot have come out.
        Err(crate::runs::Error::Engine(error)) if is_the_same_everywhere(&error) => {
            let message = format!("the claim cannot come out: {error}");
            return Outcome::diverged(isa, message, Divergence::of("run", "the engine refuses it"));
        }
        Err(error) => return Outcome::inconclusive(error.to_string()),
    };
    let ours = match record::model_run(file.name(), facts.clone(), &run) {
        Ok(ours) => ours,
        Err(error) => return Outcome::inconclusive(error.to_string()),
    };
    if ours.predicate.claim_id == predicate.claim_id {
        if let Some(forged) = other_trace(statement, &run, &model) {
            let message = format!("the claim comes out on {isa}, but not its trace: {}", said(&forged));
            return Outcome { statement: Some(ours), ..Outcome::diverged(isa, message, forged) };
        }
        let (layers, rows) = (claim.layer_chain.len(), claim.logits.rows);
        let message = format!(
            "{rows} rows of logits, {layers} layers and {} tokens came out the same on {isa}",
            claim.generated_token_ids.len()
        );
        return Outcome {
            verdict: Verdict::Reproduced,
            message,
            isa: Some(isa),
            divergence: None,
            statement: Some(ours),
        };
    }
    let Claim::ModelRun(ours_claim) = &ours.predicate.claim else {
        return Outcome::inconclusive("not a model run");
    };
    let divergence = locate(statement, claim, (ours_claim, &run), &model);
    let message = format!("on {isa} the claim comes out otherwise: {}", said(&divergence));
    Outcome { statement: Some(ours), ..Outcome::diverged(isa, message, divergence) }
}

/// Whether the engine says so of this run on any machine.
fn is_the_same_everywhere(error: &assay_engine::Error) -> bool {
    use assay_engine::Error;
    matches!(
        error,
        Error::Arithmetic { .. }
            | Error::Input { what: "token id" | "prompt and steps together" | "sequence length", .. }
    )
}

/// A divergence in words.
fn said(divergence: &Divergence) -> String {
    let layer = divergence.layer.map_or(String::new(), |layer| format!(" after layer {layer}"));
    let operation = divergence.operation.as_ref().map_or(String::new(), |name| format!(", first in {name}"));
    let step = divergence.step.map_or(String::new(), |step| format!(" from step {step} on"));
    format!("{}{layer}{step}{operation} ({})", divergence.what, divergence.how)
}

/// The model, from where the caller says, or from the program.
fn model_file(facts: &ModelFacts, statement: &Statement, options: &Options) -> Result<ModelFile, String> {
    let open = |path: &std::path::Path| ModelFile::open(path).map_err(|error| error.to_string());
    match &options.verify.files {
        Files::Model(path) => open(path),
        Files::Directory(folder) => {
            let name = statement.subject.first().map(|subject| subject.name.as_str()).unwrap_or_default();
            open(&verify::inside(folder, name)?)
        }
        Files::NotAsked => {
            let fixture =
                facts.fixture.as_ref().map(|fixture| (fixture.name.as_str(), fixture.generator_version));
            let found = builtin::find(facts.sha256.as_str(), fixture).map_err(|error| error.to_string())?;
            found.ok_or_else(|| {
                format!(
                    "the model {}… is not part of this program: name it with --model",
                    facts.sha256.short()
                )
            })
        }
    }
}

/// Why a file is not the model of a receipt.
enum Misfit {
    Unreadable(String),
    OtherFacts(&'static str),
}

/// Loads the model as the receipt says that it was read: its gate, and the packing of I2_S, which no file tells.
fn load<'f>(file: &'f ModelFile, gguf: &mut Gguf<'f>, facts: &ModelFacts) -> Result<Model<'f>, Misfit> {
    let gate = [Activation::Relu2, Activation::Silu]
        .into_iter()
        .find(|gate| gate.name() == facts.activation.as_str());
    let mut misfit = None;
    for packing in Packing::ALL {
        gguf.read_i2s_as(packing);
        let read = Model::load(gguf, gate).map_err(|error| error.to_string()).and_then(|model| {
            Ok((record::model_facts(file, gguf, &model).map_err(|error| error.to_string())?, model))
        });
        let other = match read {
            Ok((found, model)) if found == *facts => return Ok(model),
            Ok((found, _)) => Misfit::OtherFacts(other_fact(&found, facts)),
            Err(error) => Misfit::Unreadable(error),
        };
        misfit.get_or_insert(other); // that of the default packing says most
    }
    Err(misfit.unwrap_or(Misfit::Unreadable("no model".to_owned())))
}

fn other_fact(found: &ModelFacts, said: &ModelFacts) -> &'static str {
    let ModelFacts {
        sha256,
        bytes,
        architecture,
        activation,
        shape,
        tensors,
        decoded_weights_sha256,
        fixture,
        ..
    } = found;
    match () {
        () if (sha256, bytes) != (&said.sha256, &said.bytes) => "its bytes",
        () if architecture != &said.architecture || activation != &said.activation => "its architecture",
        () if shape != &said.shape => "its shape",
        () if tensors != &said.tensors => "its tensors",
        () if decoded_weights_sha256 != &said.decoded_weights_sha256 => "its decoded weights",
        () if fixture != &said.fixture => "how it was made",
        () => "its tokenizer",
    }
}

/// Where a receipt's trace differs from that of a run of its claim; `None` if it has none, or it is the same.
fn other_trace(statement: &Statement, run: &Run, model: &Model<'_>) -> Option<Divergence> {
    let trace = statement.predicate.execution.trace.as_ref()?;
    let (operation, how) = match engine::trace(model, run.backend, &run.tokens()) {
        Ok(ours) => (first_other(&ours, trace)?, "the claim itself is right"),
        Err(_) => return None, // too long to be held in memory: nothing rests on it
    };
    Some(Divergence { operation: Some(operation), ..Divergence::of("trace", how) })
}

/// The first place where two runs part: the layer from the chain of layers, then the operation in it, from the receipt's trace or from the
/// receipt's own instruction set, if this machine has it.
fn locate(
    statement: &Statement,
    theirs: &ModelRunClaim,
    (ours, run): (&ModelRunClaim, &Run),
    model: &Model<'_>,
) -> Divergence {
    let pairs = || ours.layer_chain.iter().zip(&theirs.layer_chain);
    let layer = pairs().position(|(ours, theirs)| ours != theirs);
    let tokens = ours.generated_token_ids.iter().zip(&theirs.generated_token_ids);
    let step = tokens.into_iter().position(|(ours, theirs)| ours != theirs);
    let what = match (&layer, &step) {
        _ if ours.rope_table_sha256 != theirs.rope_table_sha256 => "rope tables",
        (Some(_), _) => "layer",
        (None, _) if ours.logits != theirs.logits => "logits",
        _ => "tokens",
    };
    let (operation, how) = operation(statement, theirs, run, model);
    Divergence { layer, operation, step, ..Divergence::of(what, how) }
}

/// The first operation that differs, and how it was found.
fn operation(
    statement: &Statement,
    theirs: &ModelRunClaim,
    run: &Run,
    model: &Model<'_>,
) -> (Option<String>, String) {
    // The tokens of the receipt: after a first difference, ours are others.
    let tokens = [&run.request.prompt[..], &theirs.generated_token_ids].concat();
    if tokens.iter().any(|id| *id as usize >= model.config.vocab) {
        return (None, "its tokens are past the vocabulary".to_owned());
    }
    let ours = match engine::trace(model, run.backend, &tokens) {
        Ok(ours) => ours,
        Err(error) => return (None, format!("the operations cannot be run one by one: {error}")),
    };
    if let Some(trace) = &statement.predicate.execution.trace {
        return match first_other(&ours, trace) {
            Some(name) => (Some(name), "from the receipt's trace".to_owned()),
            None => (None, "the operations are those of the receipt's trace".to_owned()),
        };
    }
    let isa = statement.predicate.execution.isa.as_str();
    match Isa::parse(isa).and_then(kernels::get) {
        Ok(kernels) => on_theirs(&ours, model, Backend { kernels, ..run.backend }, &tokens),
        Err(_) => (None, format!("the receipt has no trace, and {isa} is not here to make one")),
    }
}

/// The first operation that the receipt's own instruction set, run here, gives otherwise than `ours`.
fn on_theirs(
    ours: &[(String, [u8; 32])],
    model: &Model<'_>,
    backend: Backend,
    tokens: &[u32],
) -> (Option<String>, String) {
    let isa = backend.kernels.isa;
    match engine::trace(model, backend, tokens) {
        Ok(theirs) => match ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs) {
            Some(((name, _), _)) => (Some(name.clone()), format!("from a run on {isa}, here")),
            None => (
                None,
                format!("{isa} gives the same here: the receipt is of another model, program or machine"),
            ),
        },
        Err(error) => (None, format!("{isa} cannot run it here: {error}")),
    }
}

fn first_other(ours: &[(String, [u8; 32])], theirs: &[OperationDigest]) -> Option<String> {
    let differs = |((_, ours), theirs): &(&(String, [u8; 32]), &OperationDigest)| {
        Sha256Hex::from_digest(*ours) != theirs.sha256
    };
    ours.iter().zip(theirs).find(differs).map(|((name, _), _)| name.clone())
}

fn kernel_check(statement: &Statement, claim: &KernelCheckClaim, options: &Options) -> Outcome {
    if claim.case_list.version != CASES_VERSION {
        let version = claim.case_list.version;
        return Outcome::inconclusive(format!(
            "version {version} of the list of cases is not known to this version"
        ));
    }
    let isa = other_isa(statement, options);
    let table = match kernels::get(isa) {
        Ok(table) => table,
        Err(error) => return Outcome::inconclusive(error.to_string()),
    };
    let plan = Plan { seed: claim.case_list.seed.get(), ..Plan::default() };
    let found = check_tables(&[&scalar::KERNELS, table], &plan, &mut |_| ()).into_iter();
    let found: Vec<Vec<OperationReport>> = match found.collect::<Result<_, _>>() {
        Ok(found) => found,
        Err(mismatch) => {
            let divergence = Divergence::of("operation", "the kernels here are not equal to scalar");
            return Outcome::diverged(isa, format!("on {isa}: {mismatch}"), divergence);
        }
    };
    let backend = Backend { kernels: table, threads: 1, batch: 0 };
    let ours = match record::kernel_check(backend, &plan, &found[0], &found[1]) {
        Ok(ours) => ours,
        Err(error) => return Outcome::inconclusive(error.to_string()),
    };
    if ours.predicate.claim_id == statement.predicate.claim_id {
        let count = claim.operations.len();
        let message = format!("{count} operations gave the same outputs on {isa}");
        let verdict = Verdict::Reproduced;
        return Outcome { verdict, message, isa: Some(isa), divergence: None, statement: Some(ours) };
    }
    let Claim::KernelCheck(ours_claim) = &ours.predicate.claim else {
        return Outcome::inconclusive("not a kernel check");
    };
    let other = claim.operations.iter().find(|operation| !ours_claim.operations.contains(operation));
    let name = other.map(|operation| operation.operation.as_str().to_owned());
    let divergence = Divergence { operation: name, ..Divergence::of("operation", "the cases run again") };
    let message = format!("on {isa} the claim comes out otherwise: {}", said(&divergence));
    Outcome { statement: Some(ours), ..Outcome::diverged(isa, message, divergence) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::tiny;
    use assay_engine::kernels::Kernels;

    #[test]
    fn a_wrong_kernel_of_this_machine_is_named_by_running_it() {
        let file = tiny::model();
        let gguf = file.gguf().unwrap();
        let model = Model::load(&gguf, None).unwrap();
        let backend = Backend { kernels: &scalar::KERNELS, threads: 1, batch: 0 };
        let tokens = [75, 73, 78];
        let ours = engine::trace(&model, backend, &tokens).unwrap();
        let wrong = Kernels { relu2_mul: scalar::KERNELS.silu_mul, ..scalar::KERNELS };
        let theirs = Backend { kernels: Box::leak(Box::new(wrong)), ..backend };
        let (name, how) = on_theirs(&ours, &model, theirs, &tokens);
        assert_eq!(name.as_deref(), Some("blk.0.ffn_gated"), "{how}");
        assert_eq!(on_theirs(&ours, &model, backend, &tokens).0, None);
    }
}
