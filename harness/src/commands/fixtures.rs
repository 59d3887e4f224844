//! `assay fixtures`: seeded models and tensors.

use super::about;
use crate::args;
use crate::output;
use assay_harness::exit::Exit;
use assay_harness::fixtures;

pub(super) fn run(args: &args::Fixtures) -> anyhow::Result<Exit> {
    match args {
        args::Fixtures::Generate { out, only, shape, json } => {
            let written = match shape {
                Some(shape) => vec![about(out, fixtures::write_shape(out, shape))?],
                None => fixtures::write_all(out, only.as_deref())?,
            };
            if *json {
                output::json(&written)?;
            } else {
                let rows: Vec<Vec<String>> = written
                    .iter()
                    .map(|w| {
                        vec![
                            w.name.clone(),
                            w.bytes.to_string(),
                            w.sha256.clone(),
                            w.path.display().to_string(),
                        ]
                    })
                    .collect();
                output::line(&output::table(&["fixture", "bytes", "SHA-256", "file"], &rows, &[1]))?;
            }
            Ok(Exit::Held)
        }
        args::Fixtures::List { json } => {
            let manifest = fixtures::manifest()?;
            if *json {
                output::json(manifest)?;
            } else {
                let rows: Vec<Vec<String>> = manifest
                    .fixtures
                    .values()
                    .map(|f| vec![f.name.clone(), f.seed.to_string(), f.bytes.to_string(), f.sha256.clone()])
                    .collect();
                output::line(&output::table(&["fixture", "seed", "bytes", "SHA-256"], &rows, &[1, 2]))?;
            }
            Ok(Exit::Held)
        }
        args::Fixtures::Verify { dir, json } => {
            let verdicts = fixtures::verify_dir(dir)?;
            let held = verdicts.iter().all(|verdict| verdict.status == fixtures::Status::Ok);
            if *json {
                output::json(&verdicts)?;
            } else {
                let rows: Vec<Vec<String>> = verdicts
                    .iter()
                    .map(|v| {
                        vec![v.name.clone(), said(v.status).to_owned(), v.found.clone().unwrap_or_default()]
                    })
                    .collect();
                output::line(&output::table(&["fixture", "verdict", "SHA-256 found"], &rows, &[]))?;
            }
            Ok(Exit::of(held))
        }
    }
}

fn said(status: fixtures::Status) -> &'static str {
    match status {
        fixtures::Status::Ok => "ok",
        fixtures::Status::Missing => "MISSING",
        fixtures::Status::Differs => "DIFFERS",
    }
}
