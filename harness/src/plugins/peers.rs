//! Where libraries are: a plug-in's file, or another program's libraries behind the same interface.

use crate::files;
use assay_engine::kernels::plugin::{Loaded, bitnet, llama, open};
use assay_engine::{Error, Result};
use assay_variables::PEERS;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// The release of llama.cpp's libraries that the adapter knows: an npm package with prebuilt CPU backends.
pub const PACKAGE: &str = "@node-llama-cpp/linux-x64";
/// Its version.
pub const PACKAGE_VERSION: &str = "3.22.1";
/// The llama.cpp in it.
pub const LLAMA_VERSION: &str = "v0.5.0";
/// The file that `npm pack` makes of it.
pub const TARBALL: &str = "node-llama-cpp-linux-x64-3.22.1.tgz";
/// SHA-256 of that file.
pub const TARBALL_SHA256: &str = "0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0";

/// Where the libraries lie in the folder of peers.
const LIBRARIES: &str = "node-llama-cpp-linux-x64-3.22.1/package/bins/linux-x64";
/// Largest tarball that is read: it has 9 MB.
const TARBALL_LIMIT: usize = 64 << 20;

/// What is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A plug-in with the C ABI.
    Plugin(PathBuf),
    /// A CPU backend of llama.cpp: the folder, and the backend; `None` for the one that fits this processor best.
    Llama(PathBuf, Option<String>),
    /// A libggml of bitnet.cpp.
    Bitnet(PathBuf),
}

/// What `--peer` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is here.
    Here(Source),
    /// It is not, and this says what to run.
    Absent(String),
}

/// The folder of peers: `ASSAY_PEERS`, or `target/peers`.
pub fn folder() -> PathBuf {
    PEERS.read().unwrap_or_else(|| "target/peers".into())
}

/// Finds a peer by what the command line says: `llama.cpp`, `llama.cpp:haswell`, `bitnet.cpp:/path/to/libggml.so`.
///
/// # Errors
/// - a peer that there is no adapter for; a tarball other than the one that is pinned.
pub fn find(peer: &str, folder: &Path) -> Result<Found> {
    let (name, rest) = peer.split_once(':').map_or((peer, None), |(name, rest)| (name, Some(rest)));
    match (name, rest) {
        ("llama.cpp", backend) => find_llama(backend, folder),
        ("bitnet.cpp", Some(path)) if !path.is_empty() => Ok(Found::Here(Source::Bitnet(path.into()))),
        _ => Err(Error::Input {
            what: "--peer",
            expected: "llama.cpp, llama.cpp:BACKEND or bitnet.cpp:PATH-OF-LIBGGML".to_owned(),
            got: peer.to_owned(),
        }),
    }
}

fn find_llama(backend: Option<&str>, folder: &Path) -> Result<Found> {
    let (tarball, libraries) = (folder.join(TARBALL), folder.join(LIBRARIES));
    if !tarball.is_file() || !libraries.is_dir() {
        let place = libraries.display();
        let text = format!(
            "llama.cpp's libraries are not in {place}; get {PACKAGE} {PACKAGE_VERSION} with: assay reference install llama.cpp"
        );
        return Ok(Found::Absent(text));
    }
    verify(&tarball)?;
    let backends = llama::backends(&libraries)?;
    match backend {
        Some(backend) if !backends.iter().any(|known| known == backend) => Err(Error::Input {
            what: "backend of llama.cpp",
            expected: backends.join(", "),
            got: backend.to_owned(),
        }),
        backend => Ok(Found::Here(Source::Llama(libraries, backend.map(str::to_owned)))),
    }
}

/// Holds a tarball to the one that is pinned.
pub(crate) fn verify(tarball: &Path) -> Result<()> {
    let digest = hex::encode(Sha256::digest(files::read(tarball, TARBALL_LIMIT)?));
    if digest == TARBALL_SHA256 {
        return Ok(());
    }
    Err(Error::Plugin {
        path: tarball.display().to_string(),
        problem: format!("has the SHA-256 {digest}, expected {TARBALL_SHA256}"),
        advice: "remove it and run: assay reference install llama.cpp",
    })
}

impl Source {
    /// Whether it is another program's library, not a plug-in.
    pub fn is_peer(&self) -> bool {
        !matches!(self, Source::Plugin(_))
    }

    /// What the user called it.
    pub fn path(&self) -> &Path {
        match self {
            Source::Plugin(path) | Source::Llama(path, _) | Source::Bitnet(path) => path,
        }
    }

    /// Loads it into this process. Returns the file that the kernels lie in too.
    ///
    /// # Errors
    /// - it cannot be loaded, or is not what it should be.
    ///
    /// # Safety
    /// - As [`open`]: code of strangers runs in this process from now on.
    #[expect(unsafe_code, reason = "loads a shared library for a caller who has promised to bear it")]
    pub unsafe fn load(&self) -> Result<(Loaded, PathBuf)> {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            match self {
                Source::Plugin(path) => Ok((open(path)?, path.clone())),
                Source::Bitnet(path) => Ok((bitnet::open(path)?, path.clone())),
                Source::Llama(folder, backend) => {
                    let backend = match backend {
                        Some(backend) => backend.clone(),
                        None => best(folder)?,
                    };
                    Ok((llama::open(folder, &backend, LLAMA_VERSION)?, llama::path_of(folder, &backend)))
                }
            }
        }
    }
}

/// The backend with the highest score on this processor.
///
/// # Safety
/// - As [`open`].
#[expect(unsafe_code, reason = "as Source::load")]
pub(crate) unsafe fn best(folder: &Path) -> Result<String> {
    let mut best = (0, None);
    for backend in llama::backends(folder)? {
        // SAFETY: the caller's promise, passed on.
        let score = unsafe { llama::score(folder, &backend) }?;
        if score > best.0 {
            best = (score, Some(backend));
        }
    }
    best.1.ok_or_else(|| Error::Plugin {
        path: folder.display().to_string(),
        problem: "no backend runs on this processor".to_owned(),
        advice: "this package is for x86-64 Linux",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_by_name() {
        let nowhere = Path::new("/nonexistent");
        let Ok(Found::Absent(text)) = find("llama.cpp", nowhere) else { panic!("it is not there") };
        assert!(text.contains("assay reference install llama.cpp"), "{text}");
        let found = find("bitnet.cpp:/a/libggml.so", nowhere);
        assert_eq!(found, Ok(Found::Here(Source::Bitnet("/a/libggml.so".into()))));
        for bad in ["bitnet.cpp", "bitnet.cpp:", "whisper.cpp", ""] {
            assert!(find(bad, nowhere).is_err(), "{bad}");
        }
    }
}
