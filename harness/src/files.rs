//! Files that appear whole or not at all.

use std::io::{self, Write as _};
use std::path::Path;
use tempfile::NamedTempFile;

/// A temporary file in `folder`, to be renamed when it is complete; readable as the process's mask allows (not only by its
/// owner, as temporary files are).
///
/// # Errors
/// - the folder does not exist or cannot be written.
pub fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(".assay-").suffix(".tmp").tempfile_in(folder)
}

/// Writes `bytes` to `path` through a temporary file beside it; the folder is made if it is missing.
///
/// # Errors
/// - the folder or the file cannot be written; what was there stays.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = temporary_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}
