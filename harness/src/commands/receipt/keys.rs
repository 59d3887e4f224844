//! `assay receipt keygen` and `assay receipt sign`.

use super::{read, under_its_name, unwrap};
use crate::args::{Keygen, SignReceipts};
use crate::output;
use anyhow::{Context as _, bail, ensure};
use assay_harness::exit::Exit;
use assay_harness::files;
use assay_harness::receipts::canonical;
use assay_harness::receipts::envelope::Envelope;
use assay_harness::receipts::keys::PrivateKey;
use assay_harness::receipts::verify::{Options, Verdict, verify};
use assay_variables::SIGNING_KEY;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct NewKey {
    private: PathBuf,
    public: PathBuf,
    keyid: String,
}

pub(super) fn keygen(args: &Keygen) -> anyhow::Result<Exit> {
    let key = PrivateKey::generate()?;
    let public = key.write_new(&args.file)?;
    let made = NewKey { private: args.file.clone(), public, keyid: key.public().id().as_str().to_owned() };
    if args.json {
        output::json(&made)?;
    } else {
        let NewKey { private, public, keyid } = &made;
        output::line(&format!(
            "private  {} (keep it; only you can read it)\npublic   {} (give it to those who verify)\nkey id   {keyid}",
            private.display(),
            public.display()
        ))?;
    }
    Ok(Exit::Held)
}

#[derive(Serialize)]
struct Signed {
    receipt: PathBuf,
    envelope: PathBuf,
    keyids: Vec<String>,
}

/// Signs receipts that nothing is wrong with; others are left as they are, and end the command with the code that verifying them would.
pub(super) fn sign(args: &SignReceipts) -> anyhow::Result<Exit> {
    let keys = keys(&args.key)?;
    args.out.as_deref().map(files::output_folder).transpose()?;
    let (mut signed, mut exits) = (Vec::new(), vec![Exit::Held]);
    for path in &args.receipts {
        match sign_one(path, &keys, args.out.as_deref()).with_context(|| path.display().to_string())? {
            Ok(one) => {
                if !args.json {
                    output::line(&format!("signed   {}", one.envelope.display()))?;
                }
                signed.push(one);
            }
            Err(verdict) => exits.push(verdict.exit()),
        }
    }
    if args.json {
        output::json(&signed)?;
    }
    Ok(Exit::gravest(exits))
}

fn keys(paths: &[PathBuf]) -> anyhow::Result<Vec<PrivateKey>> {
    if !paths.is_empty() {
        return Ok(paths.iter().map(|path| PrivateKey::open(path)).collect::<Result<_, _>>()?);
    }
    match SIGNING_KEY.read()? {
        Some(text) => match PrivateKey::parse(text.reveal().as_bytes()) {
            Ok(key) => Ok(vec![key]),
            Err(problem) => bail!("the variable {}: {problem}", SIGNING_KEY.name()),
        },
        None => bail!("no key to sign with; name one with --key, or make one with `assay receipt keygen`"),
    }
}

/// One receipt into its envelope; or why it is not signed, which was said.
fn sign_one(path: &Path, keys: &[PrivateKey], out: Option<&Path>) -> anyhow::Result<Result<Signed, Verdict>> {
    let folder = out.unwrap_or(files::folder_of(path));
    // Two that sign the same receipt take turns, or one signature would be lost. (Where folders cannot be locked, they do not.)
    let turn = std::fs::File::open(folder).ok();
    turn.as_ref().and_then(|folder| folder.lock().ok());
    let bytes = read(path)?;
    // Its signatures are for those who have the keys to check; the receipt itself must be in order, under its own name.
    let report = verify(&bytes, &under_its_name(&Options::default(), path));
    let (payload, there) = unwrap(bytes)?;
    if report.verdict == Verdict::Tampered {
        let why = report
            .decided_by()
            .map_or(String::new(), |rule| format!("{}: {}", rule.rule.name(), rule.message));
        output::note(&format!("not signed: {}: {}: {why}", path.display(), report.verdict.name()));
        return Ok(Err(report.verdict));
    }
    let statement = report.statement.context("it cannot be read")?;
    let mut envelope = there.unwrap_or_else(|| Envelope::around(payload));
    let target = folder.join(canonical::envelope_name(&statement, &report.receipt_id));
    // Signatures may be added to an envelope; nothing else is ever replaced.
    if target.symlink_metadata().is_ok() {
        let (payload, older) = unwrap(read(&target)?).with_context(|| target.display().to_string())?;
        let older = older.filter(|_| payload == envelope.payload);
        ensure!(older.is_some(), "{} is there already and holds something else", target.display());
        for signature in older.into_iter().flat_map(|older| older.signatures) {
            if !envelope.signatures.contains(&signature) {
                envelope.add(signature)?;
            }
        }
    }
    for key in keys {
        envelope.drop_forged(&key.public());
        envelope.sign(key)?;
    }
    let bytes = envelope.to_bytes()?;
    let ours = Options { keys: keys.iter().map(PrivateKey::public).collect(), ..Options::default() };
    let signed = verify(&bytes, &under_its_name(&ours, &target));
    let holds = |key: &PrivateKey| signed.signed_by.contains(&key.public().id());
    ensure!(keys.iter().all(holds), "its envelope would not hold the signatures of all keys");
    files::write(&target, &bytes)?;
    let keyids = envelope.signatures.iter().filter_map(|signature| signature.keyid.clone()).collect();
    Ok(Ok(Signed { receipt: path.to_owned(), envelope: target, keyids }))
}
