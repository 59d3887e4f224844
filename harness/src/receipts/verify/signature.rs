//! The rule on signatures: made with the keys that the caller gives.

use super::{Broken, Finding, Held, Missing, Options, Skipped, require};
use crate::receipts::envelope::{Envelope, pre_authentication_encoding};
use crate::receipts::keys::PublicKey;
use crate::receipts::text::Sha256Hex;
use std::collections::BTreeSet;

/// What the signatures say, and the ids of the caller's keys that signed.
pub(super) fn signature(envelope: Option<&Envelope>, options: &Options) -> (Finding, Vec<Sha256Hex>) {
    let mut signed_by = Vec::new();
    let finding = examine(envelope, options, &mut signed_by);
    (finding, signed_by)
}

fn examine(envelope: Option<&Envelope>, options: &Options, signed_by: &mut Vec<Sha256Hex>) -> Finding {
    let Some(envelope) = envelope else {
        require!(options.keys.is_empty(), "not signed, but a key was given to hold it to");
        return Skipped("not signed".into());
    };
    if options.keys.is_empty() {
        let by: Vec<String> = envelope.signatures.iter().map(keyid).collect();
        return Missing(format!("signed by {}, but no key was given: --key", by.join(", ")));
    }
    let message = pre_authentication_encoding(&envelope.payload);
    let mut others = 0;
    for (index, signature) in envelope.signatures.iter().enumerate() {
        let said = signature.keyid.as_deref().filter(|keyid| !keyid.is_empty());
        let maker = options.keys.iter().find(|key| key.verifies(&message, &signature.sig));
        let Some(maker) = maker else {
            let claims = |key: &&PublicKey| said == Some(key.id().as_str());
            if let Some(key) = options.keys.iter().find(claims) {
                return Broken(format!("signature {index} is not of its key {}…", key.id().short()));
            }
            others += 1;
            continue;
        };
        let id = maker.id();
        if said.is_some_and(|said| said != id.as_str()) {
            return Broken(format!("signature {index} is of {}…, but names another key", id.short()));
        }
        if !signed_by.contains(&id) {
            signed_by.push(id);
        }
    }
    let given = options.keys.iter().map(PublicKey::id).collect::<BTreeSet<_>>().len();
    let (asked, seen) = (options.signatures.unwrap_or(given), signed_by.len());
    require!(seen >= asked, "signed with {seen} of the {given} keys given, {asked} asked for");
    let by: Vec<_> = signed_by.iter().map(|id| format!("{}…", id.short())).collect();
    let more = if others == 0 { String::new() } else { format!("; {others} by keys that were not given") };
    Held(format!("by {}{more}", by.join(", ")))
}

fn keyid(signature: &crate::receipts::envelope::Signature) -> String {
    match signature.keyid.as_deref() {
        Some(id) if !id.is_empty() => id.chars().take(12).collect(),
        _ => "a key without a name".to_owned(),
    }
}
