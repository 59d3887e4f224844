//! The directory of a GGUF file, versions 2 and 3, little-endian.
//!
//! ```text
//! "GGUF", version u32, tensors u64, pairs u64
//! pairs:    key string, type u32, value
//! tensors:  name string, dimensions u32, each u64 (the first is the row), type u32, offset u64
//! padding to general.alignment (32 if absent), then the data; offsets count from there
//! string:   length u64, bytes
//! ```

use std::collections::BTreeMap;

use crate::error::{Error, Result, shown};

/// Arrays in arrays that are read; more can only be an attack on the stack.
const DEEPEST_ARRAY: usize = 4;

/// A metadata value. Integers of all widths are one variant, floats another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

/// Where a tensor lies, and what it says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `ne`: the row's length first.
    pub(crate) dimensions: Vec<u64>,
    /// ggml's number of the format.
    pub(crate) kind: u32,
    /// Bytes from the start of the data.
    offset: u64,
}

/// A parsed file.
#[derive(Debug)]
pub(crate) struct File<'a> {
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) tensors: BTreeMap<String, Entry>,
    bytes: &'a [u8],
    data_start: usize,
    alignment: u64,
}

impl<'a> File<'a> {
    /// Reads the directory; the data are looked at when a tensor is asked for.
    ///
    /// # Errors
    ///
    /// - [`Error::Truncated`] with the offset at which bytes are missing
    /// - [`Error::Malformed`] for everything that is not as drawn above
    /// - [`Error::Refused`] for a version that is not 2 or 3
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<File<'a>> {
        let mut cursor = Cursor { bytes, at: 0 };
        if cursor.take(4, "magic")? != b"GGUF" {
            return Err(Error::malformed("magic", "this is not a GGUF file"));
        }
        let version = cursor.u32("version")?;
        if !matches!(version, 2 | 3) {
            return Err(Error::Refused(format!("GGUF version {version}; it reads 2 and 3, little-endian")));
        }
        let tensor_count = cursor.u64("number of tensors")?;
        let pair_count = cursor.u64("number of metadata")?;

        let mut metadata = BTreeMap::new();
        for _ in 0..pair_count {
            let key = cursor.string("metadata key")?;
            let kind = cursor.u32(&key)?;
            let value = cursor.value(kind, &key, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(Error::malformed(format!("key {}", shown(&key)), "it is there twice"));
            }
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = cursor.string("tensor name")?;
            let entry = cursor.entry(&name)?;
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(Error::malformed(format!("tensor {}", shown(&name)), "it is there twice"));
            }
        }
        let alignment = alignment(&metadata)?;
        let data_start = (cursor.at as u64)
            .checked_next_multiple_of(alignment)
            .and_then(|start| usize::try_from(start).ok())
            .ok_or_else(|| Error::malformed("general.alignment", "no file is so long"))?;
        Ok(File { metadata, tensors, bytes, data_start, alignment })
    }

    /// The `size` bytes of the tensor `name`.
    pub(crate) fn data(&self, name: &str, entry: &Entry, size: u64) -> Result<&'a [u8]> {
        let what = format!("tensor {}", shown(name));
        if !entry.offset.is_multiple_of(self.alignment) {
            let problem = format!("offset {} is not a multiple of {}", entry.offset, self.alignment);
            return Err(Error::malformed(what, problem));
        }
        let start = usize::try_from(entry.offset).ok().and_then(|offset| offset.checked_add(self.data_start));
        let start = start.ok_or_else(|| Error::malformed(what.clone(), "its offset is beyond every file"))?;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        rest.get(..length).ok_or(Error::Truncated { what, offset: start, expected: size, got: rest.len() })
    }
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64> {
    match metadata.get("general.alignment") {
        None => Ok(32),
        Some(Value::Integer(n)) if u32::try_from(*n).is_ok_and(u32::is_power_of_two) => Ok(*n as u64),
        Some(_) => Err(Error::malformed("general.alignment", "expected a power of two")),
    }
}

/// A place in the bytes; every read moves it, or fails with `what` was to be read.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or_else(|| Error::Truncated {
            what: shown(what),
            offset: self.at,
            expected: count,
            got: rest.len(),
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Error::malformed(shown(what), "it is not UTF-8"))
    }

    fn value(&mut self, kind: u32, key: &str, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.array(key)?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array(key)?).into()),
            4 => Value::Integer(self.u32(key)?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array(key)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            7 => Value::Bool(self.take(1, key)? != [0]),
            8 => Value::Text(self.string(key)?),
            9 if depth < DEEPEST_ARRAY => self.values(key, depth)?,
            9 => return Err(Error::malformed(format!("key {}", shown(key)), "arrays are nested too deep")),
            10 => Value::Integer(self.u64(key)?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.array(key)?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            _ => {
                let problem = format!("value type {kind} does not exist");
                return Err(Error::malformed(format!("key {}", shown(key)), problem));
            }
        })
    }

    fn values(&mut self, key: &str, depth: usize) -> Result<Value> {
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        // No room is made ahead of what is there: the count may be a lie.
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(kind, key, depth + 1)?);
        }
        Ok(Value::Array(values))
    }

    fn entry(&mut self, name: &str) -> Result<Entry> {
        let rank = self.u32(name)?;
        if !(1..=4).contains(&rank) {
            let problem = format!("expected 1 to 4 dimensions, got {rank}");
            return Err(Error::malformed(format!("tensor {}", shown(name)), problem));
        }
        let mut dimensions = Vec::new();
        for _ in 0..rank {
            dimensions.push(self.u64(name)?);
        }
        Ok(Entry { dimensions, kind: self.u32(name)?, offset: self.u64(name)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Gguf;

    #[test]
    fn a_directory_is_read() {
        let bytes = Gguf::new()
            .u32("general.alignment", 64)
            .text("general.architecture", "bitnet")
            .f32("epsilon", 0.5)
            .tensor("a", &[3], 0, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
            .tensor("b", &[1, 2], 0, &[9; 8])
            .bytes();
        let file = File::parse(&bytes).unwrap();
        assert_eq!(file.metadata["general.architecture"], Value::Text("bitnet".into()));
        assert_eq!(file.metadata["epsilon"], Value::Float(0.5));
        assert_eq!(file.tensors["b"], Entry { dimensions: vec![1, 2], kind: 0, offset: 64 });
        assert_eq!(file.data("a", &file.tensors["a"], 12).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(file.data("b", &file.tensors["b"], 8).unwrap(), [9; 8]);
        assert!(matches!(file.data("b", &file.tensors["b"], 9), Err(Error::Truncated { expected: 9, .. })));
        assert!(file.data("b", &file.tensors["b"], u64::MAX).is_err());
    }

    #[test]
    fn what_is_not_gguf_is_refused_by_name() {
        assert_eq!(
            File::parse(b"GGML").unwrap_err().to_string(),
            "magic: this is not a GGUF file",
            "another magic"
        );
        let mut bytes = Gguf::new().bytes();
        bytes[4] = 1;
        assert_eq!(File::parse(&bytes).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn hostile_directories_give_errors() {
        let twice = Gguf::new().u32("k", 1).u32("k", 2).bytes();
        let odd = Gguf::new().u32("general.alignment", 24).bytes();
        let none = Gguf::new().u32("general.alignment", 0).bytes();
        let unknown = Gguf::new().raw("k", 13, &[0; 16]).bytes();
        let flat = Gguf::new().tensor("t", &[], 0, &[]).bytes();
        let long = Gguf::new().raw("k", 8, &u64::MAX.to_le_bytes()).bytes();
        let many = Gguf::new().raw("k", 9, &[[0; 4].as_slice(), &[255; 8]].concat()).bytes();
        let level = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
        let deep = Gguf::new().raw("k", 9, &level.repeat(1000)).bytes();
        for bytes in [twice, odd, none, unknown, flat, long, many, deep] {
            assert_eq!(File::parse(&bytes).unwrap_err().exit_code(), 2);
        }
    }
}
