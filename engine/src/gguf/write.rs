//! Directory → bytes, under the reader's own rules.

use std::borrow::Cow;
use std::io;

use super::cursor::wide;
use super::read::Head;
use super::value::Element;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, GgmlType, Gguf, MAGIC, OwnedValue};
use crate::error::shown;
use crate::{Error, Result};

/// Collects metadata and tensors, then writes a GGUF file; equal calls give equal bytes.
///
/// Metadata come in the order of the calls, tensors too, and so do their data. All padding is zero, and the
/// last tensor is padded as well, as llama.cpp does. Nothing is checked before the file is written; then the
/// new head is given to the reader, so that whatever is written can be read again.
///
/// A file parsed and handed to [`Writer::from`] comes out with the same bytes when its data follow the order
/// of its list and its padding is zero and complete.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    version: u32,
    metadata: Vec<(String, OwnedValue)>,
    tensors: Vec<Tensor<'a>>,
}

#[derive(Debug, Clone)]
struct Tensor<'a> {
    name: String,
    dims: Vec<u64>,
    kind: GgmlType,
    data: Data<'a>,
}

#[derive(Debug, Clone)]
enum Data<'a> {
    Here(Cow<'a, [u8]>),
    /// So many bytes, made while the file is written.
    Later(usize),
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Data::Here(bytes) => bytes.len(),
            Data::Later(len) => *len,
        }
    }
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Writer<'a> {
    /// An empty file of version 3 with the default alignment of 32 bytes.
    pub fn new() -> Writer<'a> {
        Writer { version: 3, metadata: Vec::new(), tensors: Vec::new() }
    }

    /// Sets the version: 2 or 3.
    pub fn version(&mut self, version: u32) -> &mut Self {
        self.version = version;
        self
    }

    /// Sets the alignment of tensor data in bytes: replaces the value of `general.alignment`, or appends it.
    pub fn alignment(&mut self, alignment: u32) -> &mut Self {
        match self.metadata.iter_mut().find(|(key, _)| key == ALIGNMENT_KEY) {
            Some((_, value)) => *value = alignment.into(),
            None => return self.put(ALIGNMENT_KEY, alignment),
        }
        self
    }

    /// Appends a metadata entry.
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<OwnedValue>) -> &mut Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Appends a tensor; `dims` are `ne`, contiguous dimension first.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        dims: &[u64],
        kind: GgmlType,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> &mut Self {
        let data = Data::Here(data.into());
        self.tensors.push(Tensor { name: name.into(), dims: dims.to_vec(), kind, data });
        self
    }

    /// Appends a tensor whose `bytes` are made by [`Writer::write_with`], so that they need not be in memory together.
    pub fn later(
        &mut self,
        name: impl Into<String>,
        dims: &[u64],
        kind: GgmlType,
        bytes: usize,
    ) -> &mut Self {
        let data = Data::Later(bytes);
        self.tensors.push(Tensor { name: name.into(), dims: dims.to_vec(), kind, data });
        self
    }

    /// The file as bytes.
    ///
    /// # Errors
    ///
    /// - Every error of [`Gguf::parse`] that the metadata or tensors would give when read; places and offsets
    ///   are those in the file that was to be.
    /// - [`Error::GgufTensorBytes`]: a tensor's data do not have the size of its type and shape.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the file; nothing is written when something is wrong with it. Flushing is left to the caller.
    ///
    /// # Errors
    ///
    /// - As [`Writer::to_bytes`].
    /// - [`Error::GgufOutput`]: `out` failed.
    /// - [`Error::GgufTensorBytes`]: a tensor's data are to come [`later`](Writer::later).
    pub fn write(&self, out: &mut impl io::Write) -> Result<()> {
        self.write_with(out, |_, _| Ok(()))
    }

    /// Writes the file; `make` is given the place in the list of each tensor whose data come [`later`](Writer::later), in order, and writes
    /// them. Flushing is left to the caller.
    ///
    /// # Errors
    ///
    /// - As [`Writer::to_bytes`].
    /// - [`Error::GgufOutput`]: `out` failed.
    /// - [`Error::GgufTensorBytes`]: `make` wrote more or fewer bytes than were announced.
    pub fn write_with<W: io::Write>(
        &self,
        out: &mut W,
        mut make: impl FnMut(usize, &mut Counted<'_, W>) -> io::Result<()>,
    ) -> Result<()> {
        let head = self.checked_head()?;
        let failed = |error: io::Error| Error::GgufOutput { problem: error.to_string() };
        out.write_all(&head).map_err(failed)?;
        for (i, tensor) in self.tensors.iter().enumerate() {
            match &tensor.data {
                Data::Here(bytes) => out.write_all(bytes).map_err(failed)?,
                Data::Later(expected) => {
                    let mut counted = Counted { out, bytes: 0 };
                    make(i, &mut counted).map_err(failed)?;
                    let (expected, got) = (*expected, counted.bytes);
                    if got != expected {
                        return Err(Error::GgufTensorBytes { tensor: shown(&tensor.name), expected, got });
                    }
                }
            }
            out.write_all(&vec![0; padding(tensor.data.len(), self.padding_unit())]).map_err(failed)?;
        }
        Ok(())
    }

    /// Everything up to the tensor data, padded, after the reader has agreed to it.
    fn checked_head(&self) -> Result<Vec<u8>> {
        let mut bytes = self.head();
        bytes.resize(bytes.len() + padding(bytes.len(), self.padding_unit()), 0);
        let head = Head::parse(&bytes)?;
        for (info, tensor) in head.tensors().iter().zip(&self.tensors) {
            if info.bytes != tensor.data.len() {
                let (expected, got) = (info.bytes, tensor.data.len());
                return Err(Error::GgufTensorBytes { tensor: shown(info.name), expected, got });
            }
        }
        Ok(bytes)
    }

    fn head(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        self.version.encode(&mut out);
        wide(self.tensors.len()).encode(&mut out);
        wide(self.metadata.len()).encode(&mut out);
        for (key, value) in &self.metadata {
            key.as_str().encode(&mut out);
            value.encode(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            tensor.info(offset, &mut out);
            offset += wide(tensor.data.len() + padding(tensor.data.len(), self.padding_unit()));
        }
        out
    }

    /// The alignment to lay data out by. One that is not allowed is left to the reader to refuse.
    fn padding_unit(&self) -> usize {
        let unit = self.metadata.iter().find_map(|(key, value)| match value {
            OwnedValue::U32(n) if key == ALIGNMENT_KEY => Some(u64::from(*n)),
            _ => None,
        });
        let unit = unit.filter(|&n| super::read::allowed_alignment(n)).unwrap_or(DEFAULT_ALIGNMENT);
        usize::try_from(unit).unwrap_or(1)
    }
}

/// Where the data of one tensor go; it counts them.
#[derive(Debug)]
pub struct Counted<'w, W> {
    out: &'w mut W,
    bytes: usize,
}

impl<W: io::Write> io::Write for Counted<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.out.write(data)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Tensor<'_> {
    fn info(&self, offset: u64, out: &mut Vec<u8>) {
        self.name.as_str().encode(out);
        // A count past 32 bits is refused like any other past 4.
        u32::try_from(self.dims.len()).unwrap_or(u32::MAX).encode(out);
        self.dims.iter().for_each(|size| size.encode(out));
        self.kind.id().encode(out);
        offset.encode(out);
    }
}

/// Bytes from `len` to the next multiple of `unit`.
fn padding(len: usize, unit: usize) -> usize {
    len.next_multiple_of(unit) - len
}

/// Takes everything over: version, metadata and tensors, both in file order.
impl<'a> From<&Gguf<'a>> for Writer<'a> {
    fn from(file: &Gguf<'a>) -> Writer<'a> {
        let mut writer = Writer::new();
        writer.version(file.version());
        for (key, value) in file.metadata() {
            writer.put(*key, *value);
        }
        for tensor in file.tensors() {
            writer.tensor(tensor.name, tensor.dims.as_slice(), tensor.kind, file.data(tensor));
        }
        writer
    }
}
