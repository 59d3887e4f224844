//! Ed25519 keys: read from files, named by their digest, never printed.

use super::error::{Error, Result};
use super::text::Sha256Hex;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, KeypairBytes,
};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A key file is smaller than this, bytes.
const MAX_BYTES: usize = 16 << 10;

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// A private key. Nothing here prints it.
pub struct PrivateKey(ed25519_dalek::SigningKey);

impl PublicKey {
    /// Reads SPKI PEM, 32 bytes as they are, or a line of them in hexadecimal or base64.
    ///
    /// # Errors
    /// - what is wrong with it, for [`PublicKey::open`] to put a path before.
    pub fn parse(bytes: &[u8]) -> Result<PublicKey, String> {
        let weak = |key: VerifyingKey| match key.is_weak() {
            true => Err("a key of small order, with which anything verifies".to_owned()),
            false => Ok(PublicKey(key)),
        };
        if let Some(text) = pem(bytes) {
            if text.contains("PRIVATE KEY") {
                return Err("a private key; name the public one".to_owned());
            }
            let key = VerifyingKey::from_public_key_pem(text);
            return weak(key.map_err(|_| "not an Ed25519 public key in PEM (SPKI)".to_owned())?);
        }
        let raw = raw(bytes).ok_or("neither PEM nor 32 bytes, raw, in hexadecimal or in base64")?;
        weak(
            VerifyingKey::from_bytes(&raw)
                .map_err(|_| "32 bytes that are no Ed25519 public key".to_owned())?,
        )
    }

    /// Reads a file.
    ///
    /// # Errors
    /// - [`Error::Key`] if it cannot be read or holds no public key.
    pub fn open(path: &Path) -> Result<PublicKey> {
        let bytes = read(path, false)?;
        PublicKey::parse(&bytes).map_err(|problem| {
            Error::key(path, &problem, "give the .pub file that `assay receipt keygen` writes beside the key")
        })
    }

    /// Its name: SHA-256 of its SPKI DER.
    pub fn id(&self) -> Sha256Hex {
        // An algorithm identifier of fixed length and the 32 bytes: RFC 8410, section 4.
        const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        Sha256Hex::of(&[&SPKI[..], self.0.as_bytes()].concat())
    }

    /// Whether it made `signature` of `message`; no second spelling of a signature passes.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }

    /// SPKI PEM.
    ///
    /// # Errors
    /// - [`Error::Json`] never in practice: a public key has an encoding.
    pub fn to_pem(&self) -> Result<String> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|error| Error::Json(error.to_string()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}…)", self.id().short())
    }
}

impl PrivateKey {
    /// A new one, from the operating system's randomness.
    ///
    /// # Errors
    /// - [`Error::Key`] if the system has none to give.
    pub fn generate() -> Result<PrivateKey> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|error| {
            Error::key(Path::new("a new key"), &error.to_string(), "the system gives no random numbers")
        })?;
        Ok(PrivateKey::from_seed(&seed))
    }

    /// The key of a seed of RFC 8032: for test vectors.
    pub fn from_seed(seed: &[u8; 32]) -> PrivateKey {
        PrivateKey(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Reads PKCS#8 PEM, 32 bytes as they are, or a line of them in hexadecimal or base64.
    ///
    /// # Errors
    /// - what is wrong with it; no part of it is in the message.
    pub fn parse(bytes: &[u8]) -> Result<PrivateKey, String> {
        if let Some(text) = pem(bytes) {
            let key = ed25519_dalek::SigningKey::from_pkcs8_pem(text);
            return key
                .map(PrivateKey)
                .map_err(|_| "not an Ed25519 private key in PEM (PKCS#8, without a password)".to_owned());
        }
        let seed = raw(bytes).ok_or("neither PEM nor 32 bytes, raw, in hexadecimal or in base64")?;
        Ok(PrivateKey::from_seed(&Zeroizing::new(seed)))
    }

    /// Reads a file that only its owner may read.
    ///
    /// # Errors
    /// - [`Error::Key`] if it cannot be read, others may read it, or it holds no private key.
    pub fn open(path: &Path) -> Result<PrivateKey> {
        let bytes = read(path, true)?;
        PrivateKey::parse(&bytes)
            .map_err(|problem| Error::key(path, &problem, "make one with `assay receipt keygen`"))
    }

    /// Writes PKCS#8 PEM to `path`, which only its owner may read, and the public key in SPKI PEM to `path.pub`. Nothing is
    /// overwritten.
    ///
    /// # Errors
    /// - [`Error::File`] if either is there already or cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<PathBuf> {
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        let public = PathBuf::from(public);
        let exists = |path: &Path| Error::File {
            path: path.display().to_string(),
            problem: "is there already; it was left as it is (name another file)".to_owned(),
        };
        if let Some(there) = [path, &public].into_iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(exists(there));
        }
        // Version 1 of PKCS#8, without the public half: what every other program reads.
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let text = bytes.to_pkcs8_pem(LineEnding::LF).map_err(|error| Error::Json(error.to_string()))?;
        new_file(path, text.as_bytes(), true)?;
        new_file(&public, self.public().to_pem()?.as_bytes(), false)?;
        Ok(public)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The signature of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}…)", self.public().id().short())
    }
}

/// A file that appears whole, under a name that was free; `secret` ones can be read by their owner alone from the first
/// byte on.
fn new_file(path: &Path, bytes: &[u8], secret: bool) -> Result<()> {
    let fail = |error: std::io::Error| Error::file(path, &error);
    let folder = crate::files::folder_of(path);
    let mut file = match secret {
        true => tempfile::Builder::new().prefix(".assay-").tempfile_in(folder).map_err(fail)?,
        false => crate::files::temporary_in(folder)?,
    };
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    file.persist_noclobber(path).map_err(|failed| fail(failed.error)).map(drop)
}

/// The bytes of a key file; of a secret one only if nobody but its owner may use it, asked of the file that is read.
fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>> {
    let fail = |error: std::io::Error| Error::file(path, &error);
    // Asked before opening: opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(Error::key(path, "is not a regular file", "name a file that holds one key"));
    }
    let file = File::open(path).map_err(fail)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().map_err(fail)?.permissions().mode();
        if secret && mode & 0o077 != 0 {
            let problem = format!("others than its owner may use it (mode {:03o})", mode & 0o777);
            return Err(Error::key(path, &problem, "chmod 600, and think whether it was read already"));
        }
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > MAX_BYTES {
        return Err(Error::key(path, "is longer than 16 KiB", "name a file that holds one key"));
    }
    Ok(bytes)
}

fn pem(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.trim_start().starts_with("-----BEGIN"))
}

/// 32 bytes, raw, or one line of hexadecimal or base64.
fn raw(bytes: &[u8]) -> Option<[u8; 32]> {
    // 32 letters are a passphrase or half a key in hexadecimal, 32 equal bytes a disk's zeros; 32 random bytes are neither.
    let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let is_constant = bytes.windows(2).all(|pair| pair[0] == pair[1]);
    if let Some(raw) = bytes.try_into().ok().filter(|_| !is_text && !is_constant) {
        return Some(raw);
    }
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let decoded = Zeroizing::new(hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok())?);
    decoded[..].try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, 7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

    #[test]
    fn a_key_reads_the_same_in_every_form() {
        let private = PrivateKey::parse(SEED.as_bytes()).unwrap();
        let public = PublicKey::parse(format!("{PUBLIC}\n").as_bytes()).unwrap();
        assert_eq!(private.public(), public);
        let bytes = hex::decode(PUBLIC).unwrap();
        assert_eq!(PublicKey::parse(&bytes), Ok(public.clone()));
        assert_eq!(PublicKey::parse(STANDARD.encode(&bytes).as_bytes()), Ok(public.clone()));
        assert_eq!(PublicKey::parse(public.to_pem().unwrap().as_bytes()), Ok(public.clone()));
        assert_eq!(
            hex::encode(private.sign(&[0x72])),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(public.verifies(&[0x72], &private.sign(&[0x72])));
        assert!(!public.verifies(&[0x73], &private.sign(&[0x72])));
    }

    #[test]
    fn a_new_key_is_its_owners_and_is_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = PrivateKey::generate().unwrap();
        let public = key.write_new(&path).unwrap();
        let read = PrivateKey::open(&path).unwrap();
        assert_eq!(read.public(), PublicKey::open(&public).unwrap());
        assert!(matches!(key.write_new(&path), Err(Error::File { .. })), "nothing is overwritten");
        let secret = hex::encode(read.0.to_bytes());
        assert!(!format!("{read:?}").contains(&secret[..16]));
        let wrong = PrivateKey::parse(&secret.as_bytes()[..63]).unwrap_err();
        assert!(!wrong.contains(&secret[..8]), "{wrong}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
            assert!(matches!(PrivateKey::open(&path), Err(Error::Key { .. })));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let weak = format!("01{}", "00".repeat(31));
        for text in [
            "",
            "abc",
            &weak,
            "correct horse battery staple 123",
            &"00".repeat(16),
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert!(PublicKey::parse(text.as_bytes()).is_err(), "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        PrivateKey::from_seed(&[7; 32]).write_new(&path).unwrap();
        let refused = PublicKey::open(&path).unwrap_err().to_string();
        assert!(refused.contains("name the public one"), "{refused}");
    }
}
