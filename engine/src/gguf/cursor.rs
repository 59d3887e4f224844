//! A position in the input that knows which part of the file it is in, so that every error can say so.

use std::fmt;

use crate::error::shown;
use crate::{Error, Result};

/// `usize` as the file's number type: on every machine that Rust runs on this is exact.
pub(super) fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Where in the file: section, then whose part of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// `header`, `metadata key`, `metadata value`, `array`, `tensor info`, `alignment padding` or `tensor
    /// data`.
    pub(super) section: &'static str,
    /// The key or tensor name, once it has been read.
    pub(super) name: Option<&'a str>,
    /// The position in the list, or of the element in its array.
    pub(super) index: Option<u64>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section)?;
        match (self.name, self.index) {
            (Some(name), Some(index)) => write!(f, " '{}' element {index}", shown(name)),
            (Some(name), None) => write!(f, " '{}'", shown(name)),
            (None, Some(index)) => write!(f, " {index}"),
            (None, None) => Ok(()),
        }
    }
}

/// Reads little-endian numbers and strings, checking each against the bytes left.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// What is being read.
    pub(super) place: Place<'a>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0, place: Place { section: "header", name: None, index: None } }
    }

    /// Says what is read from here on.
    pub(super) fn enter(&mut self, section: &'static str, name: Option<&'a str>, index: Option<u64>) {
        self.place = Place { section, name, index };
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes read so far, as messages count them.
    pub(super) fn offset(&self) -> u64 {
        wide(self.at)
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// What has been read since `start`.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let part = usize::try_from(n).ok().and_then(|n| self.rest().get(..n));
        let part = part.ok_or_else(|| self.truncated(n))?;
        self.at += part.len();
        Ok(part)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N]> {
        let chunk = *self.rest().first_chunk().ok_or_else(|| self.truncated(wide(N)))?;
        self.at += N;
        Ok(chunk)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    /// A string of any length that the file has room for.
    pub(super) fn string(&mut self) -> Result<&'a str> {
        let length = self.u64()?;
        self.utf8(length)
    }

    /// A string of 1 to `max` bytes: a metadata key or a tensor name.
    pub(super) fn name(&mut self, max: u64) -> Result<&'a str> {
        let offset = self.offset();
        let length = self.u64()?;
        if length == 0 || length > max {
            return Err(Error::GgufNameLength { place: self.place.to_string(), offset, length, max });
        }
        self.utf8(length)
    }

    fn utf8(&mut self, length: u64) -> Result<&'a str> {
        let start = self.offset();
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|error| Error::GgufUtf8 {
            place: self.place.to_string(),
            offset: start.saturating_add(wide(error.valid_up_to())),
        })
    }

    /// Refuses a count of things that cannot fit the bytes left, before anything is allocated or looped over.
    pub(super) fn check_count(&self, offset: u64, what: &'static str, count: u64, each: u64) -> Result<()> {
        let left = wide(self.rest().len());
        if count.checked_mul(each).is_some_and(|needed| needed <= left) {
            return Ok(());
        }
        Err(Error::GgufCount { place: self.place.to_string(), offset, what, count, each, left })
    }

    /// The error that `needed` bytes are not there.
    pub(super) fn truncated(&self, needed: u64) -> Error {
        let left = wide(self.rest().len());
        Error::GgufTruncated { place: self.place.to_string(), offset: self.offset(), needed, left }
    }
}
