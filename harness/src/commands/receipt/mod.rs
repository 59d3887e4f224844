//! `assay receipt`: what a receipt is worth.
//!
//! ```text
//! verify.rs   receipts held to the rules
//! replay.rs   a claim run again
//! show.rs     what is in a receipt
//! keys.rs     keys made, receipts signed
//! ledger.rs   the chain of receipts
//! ```

mod keys;
mod ledger;
mod replay;
mod show;
mod verify;

use crate::args;
use anyhow::Context as _;
use assay_harness::exit::Exit;
use assay_harness::files;
use assay_harness::receipts::envelope::{self, Envelope};
use assay_harness::receipts::keys::PublicKey;
use assay_harness::receipts::ledger::MAX_BYTES as LEDGER_MAX_BYTES;
use assay_harness::receipts::text::Sha256Hex;
use assay_harness::receipts::verify::{Chain, Files, Options};
use std::path::Path;

pub(super) fn run(args: &args::Receipt) -> anyhow::Result<Exit> {
    match args {
        args::Receipt::Verify(args) => verify::run(args),
        args::Receipt::Replay(args) => replay::run(args),
        args::Receipt::Show(args) => show::run(args),
        args::Receipt::Keygen(args) => keys::keygen(args),
        args::Receipt::Sign(args) => keys::sign(args),
        args::Receipt::Ledger(args) => ledger::run(args),
    }
}

/// Bytes of a receipt's file, as many as an envelope may have and one more.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(files::read(path, envelope::MAX_BYTES)?)
}

/// What the arguments hold receipts to, read once; each receipt adds its file name.
fn options(args: &args::Holding) -> anyhow::Result<Options> {
    let id = |flag: &'static str, hex: &Option<String>| {
        hex.as_deref().map(Sha256Hex::parse).transpose().context(flag)
    };
    let head = id("--head", &args.head)?;
    let keys = args.key.iter().map(|path| PublicKey::open(path)).collect::<Result<Vec<_>, _>>()?;
    let asked = args.signatures.map(usize::from);
    anyhow::ensure!(
        asked.is_none_or(|asked| asked <= keys.len()),
        "--signatures asks for more keys than --key gives"
    );
    Ok(Options {
        expected_id: id("--id", &args.id)?,
        files: match (&args.model, &args.models) {
            (Some(file), _) => Files::Model(file.clone()),
            (None, Some(folder)) => Files::Directory(folder.clone()),
            (None, None) => Files::NotAsked,
        },
        keys,
        signatures: asked,
        chain: match &args.ledger {
            None => Chain::NotAsked,
            Some(path) => match files::read(path, LEDGER_MAX_BYTES) {
                Ok(bytes) => Chain::read(&bytes, head.as_ref()),
                Err(error) => Chain::Unreadable(error.to_string()),
            },
        },
        strict: args.strict()?,
        max_age: args.max_age_days.map(|days| u64::from(days) * 86_400),
        ..Options::default()
    })
}

/// The same for one file.
fn under_its_name(options: &Options, path: &Path) -> Options {
    Options { file_name: path.file_name().map(|name| name.to_string_lossy().into_owned()), ..options.clone() }
}

/// What is inside: the receipt's bytes, and its envelope if it has one.
fn unwrap(bytes: Vec<u8>) -> anyhow::Result<(Vec<u8>, Option<Envelope>)> {
    match envelope::open(&bytes) {
        None => Ok((bytes, None)),
        Some(Ok(envelope)) => Ok((envelope.payload.clone(), Some(envelope))),
        Some(Err(problem)) => anyhow::bail!("the envelope: {problem}"),
    }
}
