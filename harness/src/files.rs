//! Files in and out: regular files only, looked at before they are opened; output that appears whole or not at all.

use assay_engine::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

fn refused(path: &Path, problem: &str, advice: &'static str) -> Error {
    Error::File { path: path.display().to_string(), problem: problem.to_owned(), advice }
}

/// Reads a regular file, at most `limit` bytes and one more: a longer one can be told by its length.
///
/// # Errors
/// - [`Error::File`] if it is missing, unreadable, or a directory, pipe or device (which could block for ever).
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let fail = |e: io::Error| Error::file(path, &e);
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(refused(path, "is not a regular file", "name a file"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// Reads a text: a regular file, or standard input for `-`.
///
/// # Errors
/// - [`Error::File`] if it cannot be read, is longer than 1 GiB, or is not UTF-8 (and where).
pub fn read_text(path: &Path) -> Result<String> {
    const LIMIT: usize = 1 << 30;
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = io::stdin().lock().take(LIMIT as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::file(Path::new("standard input"), &e))?;
        bytes
    } else {
        read(path, LIMIT)?
    };
    if bytes.len() > LIMIT {
        return Err(refused(path, "is longer than 1 GiB", "give a part of it"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let problem = format!("is not UTF-8: byte {:#04x} at offset {at}", e.as_bytes()[at]);
        refused(path, &problem, "convert the text to UTF-8")
    })
}

/// The place that an output file will really have, asked before the work that makes it: links are followed, the folder must
/// exist, and what is there already must be a regular file and none of `inputs`.
///
/// # Errors
/// - [`Error::File`] if the file could not be put there, or would replace something that is no output.
pub fn output_file(path: &Path, inputs: &[&Path]) -> Result<PathBuf> {
    let real = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            writable_folder(folder_of(path))?;
            return Ok(path.to_owned());
        }
        Err(e) => return Err(Error::file(path, &e)),
        Ok(_) => fs::canonicalize(path).map_err(|e| Error::file(path, &e))?,
    };
    if !real.is_file() {
        let problem = if real.is_dir() { "is a directory" } else { "is not a regular file" };
        return Err(refused(path, problem, "name a file for the output"));
    }
    if inputs.iter().any(|input| fs::canonicalize(input).is_ok_and(|input| input == real)) {
        return Err(refused(path, "is an input of this command", "name another file for the output"));
    }
    writable_folder(folder_of(&real))?;
    Ok(real)
}

/// Makes a folder for output, asked before the work, and shows that files can be put there.
///
/// # Errors
/// - [`Error::File`] if it cannot be made or written.
pub fn output_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::file(path, &e))?;
    writable_folder(path)
}

/// The folder that `path` lies in: of a bare name, this one.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn writable_folder(folder: &Path) -> Result<()> {
    temporary_in(folder).map(drop)
}

/// A temporary file in `folder`, to be renamed when it is complete; readable as the process's mask allows (not only by its
/// owner, as temporary files are).
///
/// # Errors
/// - [`Error::File`] if the folder does not exist or cannot be written.
pub fn temporary_in(folder: &Path) -> Result<NamedTempFile> {
    let fail = |e: io::Error| Error::file(folder, &e);
    if !fs::metadata(folder).map_err(fail)?.is_dir() {
        return Err(refused(folder, "is not a folder", "name a directory"));
    }
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // The library's message names the temporary file; the kind says what matters about the folder.
    builder.prefix(".assay-").suffix(".tmp").tempfile_in(folder).map_err(|e| fail(e.kind().into()))
}

/// A temporary file beside `path`, to be renamed to it.
///
/// # Errors
/// - as [`temporary_in`].
pub fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    temporary_in(folder_of(path))
}

/// Writes `bytes` to `path` through a temporary file beside it; the folder is made if it is missing.
///
/// # Errors
/// - [`Error::File`] as [`output_file`], or if the disk is full; what was there stays.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(|e| Error::file(folder, &e))?;
    let mut file = NewFile::create(path, &[])?;
    file.put(|out| out.write_all(bytes))?;
    file.finish()
}

/// A file on its way: it gets its name when it is finished, so that it appears whole or not at all.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl NewFile {
    /// Asks for the place, which must hold none of `inputs`, before the work.
    ///
    /// # Errors
    /// - [`Error::File`] as [`output_file`].
    pub fn create(path: &Path, inputs: &[&Path]) -> Result<NewFile> {
        let path = output_file(path, inputs)?;
        Ok(NewFile { file: BufWriter::new(temporary_beside(&path)?), path })
    }

    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes with `write`; what goes wrong is said of this file.
    ///
    /// # Errors
    /// - [`Error::File`] with what `write` says.
    pub fn put(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<()> {
        write(self).map_err(|e| Error::file(&self.path, &e))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// - [`Error::File`] if what is left cannot be written or the name cannot be had.
    pub fn finish(mut self) -> Result<()> {
        self.put(Self::flush)?;
        let NewFile { path, file } = self;
        let file = file.into_inner().map_err(|e| Error::file(&path, e.error()))?;
        file.persist(&path).map_err(|e| Error::file(&path, &e.error))?;
        Ok(())
    }
}

/// Errors without the name of the temporary file, which the library would add.
impl io::Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|e| e.kind().into())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|e| e.kind().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_never_replaces_an_input_a_folder_or_a_device() {
        let folder = tempfile::tempdir().expect("folder");
        let (input, other) = (folder.path().join("input"), folder.path().join("other"));
        write(&input, b"kept").expect("written");
        assert!(output_file(&input, &[&input]).is_err());
        assert!(output_file(folder.path(), &[]).is_err());
        assert!(output_file(Path::new("/no/such/folder/file"), &[]).is_err());
        #[cfg(unix)]
        {
            assert!(output_file(Path::new("/dev/null"), &[]).is_err());
            std::os::unix::fs::symlink(&input, &other).expect("link");
            assert!(output_file(&other, &[&input]).is_err(), "a link to an input");
            write(&other, b"through").expect("written");
            assert_eq!(read(&input, 100), Ok(b"through".to_vec()), "a link is written through");
            assert!(fs::symlink_metadata(&other).expect("link").is_symlink());
        }
    }

    #[test]
    fn reading_stops_at_the_limit_and_refuses_what_is_no_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("long");
        write(&path, &[7; 100]).expect("written");
        assert_eq!(read(&path, 10).map(|bytes| bytes.len()), Ok(11));
        assert!(read(folder.path(), 10).is_err());
        #[cfg(unix)]
        assert!(read(Path::new("/dev/zero"), 10).is_err());
    }
}
