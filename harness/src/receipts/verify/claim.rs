//! Rules on the claim: what it is about, and whether its parts fit each other.

use super::{Broken, Finding, Held, Missing, Options, Skipped, name_parts, require};
use crate::receipts::types::Subject;
use crate::receipts::types::{
    Claim, Input, KernelCheckClaim, Kind, ModelFacts, ModelRunClaim, PluginCheckClaim, Sampling, Statement,
};

/// How far a receipt's clock may be ahead of the reader's, seconds.
const CLOCK_SKEW: u64 = 86_400;

/// The parts of a receipt about a model, when it has them all.
pub(super) fn model_parts(statement: &Statement) -> Option<(&ModelFacts, &Input, &ModelRunClaim)> {
    let predicate = &statement.predicate;
    match (&predicate.model, &predicate.input, &predicate.claim) {
        (Some(model), Some(input), Claim::ModelRun(claim)) => Some((model, input, claim)),
        _ => None,
    }
}

/// The claim of a kernel check.
pub(super) fn kernel_check(statement: &Statement) -> Option<&KernelCheckClaim> {
    match &statement.predicate.claim {
        Claim::KernelCheck(claim) => Some(claim),
        Claim::ModelRun(_) | Claim::PluginCheck(_) => None,
    }
}

/// The claim of a check of kernels from outside.
pub(super) fn plugin_check(statement: &Statement) -> Option<&PluginCheckClaim> {
    match &statement.predicate.claim {
        Claim::PluginCheck(claim) => Some(claim),
        Claim::ModelRun(_) | Claim::KernelCheck(_) => None,
    }
}

/// What a rule on models says of a kernel check, and the other way round.
pub(super) fn does_not_apply() -> Finding {
    Skipped("does not apply to this kind".into())
}

pub(super) fn file_name(statement: &Statement, enveloped: bool, options: &Options) -> Finding {
    let Some((date, _)) = options.file_name.as_deref().and_then(name_parts) else {
        return Skipped("no file name of the form <date>-<12 hex>.json".into());
    };
    let says_envelope = options.file_name.as_deref().is_some_and(|name| name.ends_with(".dsse.json"));
    require!(enveloped || !says_envelope, "the name of an envelope, but none around it");
    let created = statement.predicate.created.date();
    require!(date == created, "the file name says {date}, the receipt was written on {created}");
    Held(format!("written on {date}"))
}

pub(super) fn kind(statement: &Statement, _: &Options) -> Finding {
    let predicate = &statement.predicate;
    let of_model = matches!(predicate.kind, Kind::ModelRun | Kind::Parity);
    let (of_kernels, of_plugin) = (predicate.kind == Kind::KernelCheck, predicate.kind == Kind::PluginCheck);
    let kind = predicate.kind.as_str();
    for (part, there, wanted) in [
        ("a model", predicate.model.is_some(), of_model),
        ("input", predicate.input.is_some(), of_model),
        ("the claim of a model run", matches!(predicate.claim, Claim::ModelRun(_)), of_model),
        ("parity", predicate.parity.is_some(), predicate.kind == Kind::Parity),
        ("the claim of a kernel check", matches!(predicate.claim, Claim::KernelCheck(_)), of_kernels),
        ("kernel results", predicate.kernel_results.is_some(), of_kernels),
        ("the claim of a plug-in check", matches!(predicate.claim, Claim::PluginCheck(_)), of_plugin),
        ("plug-in results", predicate.plugin_results.is_some(), of_plugin),
    ] {
        require!(there || !wanted, "{kind} without {part}");
        require!(!there || wanted, "{kind} with {part}");
    }
    Held(format!("{kind} with its parts"))
}

pub(super) fn subject(statement: &Statement, _: &Options) -> Finding {
    let [subject] = statement.subject.as_slice() else {
        return Broken(format!("{} subjects, expected 1", statement.subject.len()));
    };
    let expected = match (model_parts(statement), kernel_check(statement)) {
        (Some((model, ..)), _) => Ok(model.sha256.clone()),
        (_, Some(claim)) => Subject::case_list(&claim.case_list).map(|subject| subject.digest.sha256),
        (None, None) => match plugin_check(statement) {
            Some(claim) => Ok(claim.library_sha256.clone()),
            None => return Missing("neither a model nor a case list nor a plug-in".into()),
        },
    };
    match expected {
        Ok(expected) if expected == subject.digest.sha256 => Held(format!("{}…", expected.short())),
        Ok(expected) => Broken(format!(
            "subject has {}…, model, case list or plug-in {}…",
            subject.digest.sha256.short(),
            expected.short()
        )),
        Err(error) => Broken(error.to_string()),
    }
}

pub(super) fn sampling(statement: &Statement, _: &Options) -> Finding {
    let Some((_, input, _)) = model_parts(statement) else { return does_not_apply() };
    match &input.sampling {
        Sampling::Greedy {} => Held("greedy".into()),
        Sampling::Seeded { .. } => Broken("seeded sampling is not known to this version".into()),
    }
}

pub(super) fn token_counts(statement: &Statement, _: &Options) -> Finding {
    let Some((model, input, claim)) = model_parts(statement) else { return does_not_apply() };
    let (prompt, generated) = (&input.prompt_token_ids, &claim.generated_token_ids);
    let tokens = prompt.len() as u64 + u64::from(input.steps);
    require!(
        generated.len() as u64 == u64::from(input.steps),
        "{} generated tokens for {} steps",
        generated.len(),
        input.steps
    );
    require!(
        u64::from(claim.logits.rows) == tokens,
        "{} rows of logits for {tokens} tokens",
        claim.logits.rows
    );
    let vocab = model.shape.vocab;
    require!(claim.logits.vocab == vocab, "{} logits per row, vocabulary of {vocab}", claim.logits.vocab);
    for id in prompt.iter().chain(generated) {
        require!(*id < vocab, "token {id} in a vocabulary of {vocab}");
    }
    Held(format!("{tokens} tokens"))
}

pub(super) fn layer_chain(statement: &Statement, _: &Options) -> Finding {
    let Some((model, _, claim)) = model_parts(statement) else { return does_not_apply() };
    let (digests, layers) = (claim.layer_chain.len(), model.shape.layers);
    require!(digests as u64 == u64::from(layers), "{digests} digests for {layers} layers");
    Held(format!("{layers} layers"))
}

pub(super) fn created(statement: &Statement, options: &Options) -> Finding {
    let created = &statement.predicate.created;
    let latest = options.now.saturating_add(CLOCK_SKEW);
    require!(created.to_unix() <= latest, "written on {created}, more than a day in the future");
    Held(created.to_string())
}

pub(super) fn corrections(statement: &Statement, options: &Options) -> Finding {
    let corrections = &statement.predicate.corrections;
    let latest = options.now.saturating_add(CLOCK_SKEW);
    for correction in corrections {
        let (at, field) = (&correction.at, &correction.field);
        require!(at.to_unix() <= latest, "{field:?} corrected on {at}, more than a day in the future");
    }
    Held(format!("{} corrections", corrections.len()))
}

pub(super) fn age(statement: &Statement, options: &Options) -> Finding {
    let Some(max_age) = options.max_age else { return Skipped("any age will do".into()) };
    let age = options.now.saturating_sub(statement.predicate.created.to_unix());
    require!(age <= max_age, "{} days old, more than {}", age / 86_400, max_age / 86_400);
    Held(format!("{} days old", age / 86_400))
}
