//! What a variable is, and how a value of each kind is read.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

/// Longest stretch of a value that a message shows, in characters.
const SHOWN_CHARS: usize = 40;

/// A variable has a value that its kind does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: expected {expected}, got {got}; correct it or unset it")]
pub struct Error {
    /// The variable.
    pub name: &'static str,
    /// What is allowed.
    pub expected: &'static str,
    /// What was found, on one line; of a secret, only that it is not shown.
    pub got: String,
}

/// What the value of a variable may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On or off.
    Flag,
    /// A number.
    Number,
    /// A file or folder.
    Path,
    /// Words with spaces between them.
    Words,
    /// Text that is never shown.
    Secret,
    /// Whatever the program that it belongs to makes of it.
    Foreign,
}

impl Kind {
    /// What is allowed, in words.
    pub const fn allowed(self) -> &'static str {
        match self {
            Kind::Flag => "0 or 1",
            Kind::Number => "a number from 0 to 2^64 - 1",
            Kind::Path => "a path",
            Kind::Words => "words",
            Kind::Secret => "a secret",
            Kind::Foreign => "any",
        }
    }
}

/// Who reads a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The `assay` command and its library.
    Program,
    /// `cargo test`.
    Tests,
    /// Files in `scripts/` and `examples/`.
    Scripts,
    /// Software that is not ours.
    Others,
}

impl Reader {
    /// Its name in the page.
    pub const fn name(self) -> &'static str {
        match self {
            Reader::Program => "program",
            Reader::Tests => "tests",
            Reader::Scripts => "scripts",
            Reader::Others => "others",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its name in the environment.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// What it does, in one sentence.
    pub what: &'static str,
    /// Who reads it.
    pub readers: &'static [Reader],
    /// Whether a receipt says what it was set to.
    pub recorded: bool,
}

impl Row {
    /// Its value, unless it is unset or empty.
    fn value(&self) -> Option<OsString> {
        env::var_os(self.name).filter(|value| !value.is_empty())
    }

    fn text(&self) -> Result<Option<String>, Error> {
        let text = self.value().map(OsString::into_string).transpose();
        text.map_err(|found| self.refused(&found.to_string_lossy()))
    }

    fn refused(&self, found: &str) -> Error {
        let mut got: String = found.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
        if found.chars().nth(SHOWN_CHARS).is_some() {
            got.push('…');
        }
        let got = match self.kind {
            Kind::Secret => "a value that is not UTF-8 and is not shown".to_owned(),
            _ => format!("'{got}'"),
        };
        Error { name: self.name, expected: self.kind.allowed(), got }
    }
}

/// A variable whose value is a `T`.
#[derive(Debug)]
pub struct Variable<T> {
    row: Row,
    value: PhantomData<fn() -> T>,
}

/// A variable that is on or off.
pub type Flag = Variable<bool>;
/// A variable that is a number.
pub type Number = Variable<u64>;
/// A variable that names a file or folder.
pub type Path = Variable<PathBuf>;
/// A variable that is a list of words.
pub type Words = Variable<Vec<String>>;
/// A variable that must not be shown.
pub type Secret = Variable<Hidden>;
/// A variable of other software: receipts record it, nothing here reads it.
pub type Foreign = Variable<()>;

impl<T> Variable<T> {
    pub(crate) const fn new(row: Row) -> Variable<T> {
        Variable { row, value: PhantomData }
    }

    /// Its row of the table.
    pub const fn row(&self) -> Row {
        self.row
    }

    /// Its name in the environment.
    pub const fn name(&self) -> &'static str {
        self.row.name
    }
}

impl Variable<bool> {
    /// Whether it is on.
    ///
    /// # Errors
    /// - it is neither `0` nor `1`.
    pub fn read(&self) -> Result<bool, Error> {
        match self.row.text()?.as_deref() {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(found) => Err(self.row.refused(found)),
        }
    }
}

impl Variable<u64> {
    /// The number, if one is set.
    ///
    /// # Errors
    /// - it is no number, or too large.
    pub fn read(&self) -> Result<Option<u64>, Error> {
        let number = |found: String| found.parse().map_err(|_| self.row.refused(&found));
        self.row.text()?.map(number).transpose()
    }
}

impl Variable<PathBuf> {
    /// The path, if one is set; any text is one.
    pub fn read(&self) -> Option<PathBuf> {
        self.row.value().map(PathBuf::from)
    }
}

impl Variable<Vec<String>> {
    /// The words; none if it is not set.
    ///
    /// # Errors
    /// - it is not UTF-8.
    pub fn read(&self) -> Result<Vec<String>, Error> {
        let text = self.row.text()?.unwrap_or_default();
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }
}

impl Variable<Hidden> {
    /// The secret, if one is set.
    ///
    /// # Errors
    /// - it is not UTF-8; the message does not show it.
    pub fn read(&self) -> Result<Option<Hidden>, Error> {
        Ok(self.row.text()?.map(Hidden))
    }
}

/// A secret, which cannot be printed by mistake.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}
