//! Bytes → directory. One pass over the file's head; tensor data are only measured.

use super::cursor::{Cursor, wide};
use super::value::{Element, FromValue};
use super::{
    ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, Dims, GgmlType, Items, MAGIC, MAX_ALIGNMENT, MAX_ARRAY_DEPTH,
    MAX_DIMS, MAX_KEY_BYTES, MAX_NAME_BYTES, MIN_ALIGNMENT, Support, TensorInfo, Value, ValueType, layout,
};
use crate::error::shown;
use crate::quant::i2s::Packing;
use crate::{Error, Result};

/// Fewest bytes of a metadata entry: length and 1 byte of key, type, 1 byte of value.
const LEAST_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;

/// Fewest bytes of a tensor info: length and 1 byte of name, one dimension with its count, type, offset.
const LEAST_INFO_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// A parsed file: metadata and tensors in file order, everything borrowed from the bytes.
#[derive(Debug, Clone)]
pub struct Gguf<'a> {
    head: Head<'a>,
    data: &'a [u8],
    pub(super) packing: Packing,
}

/// Everything before the tensor data. The writer parses its own head, so that both sides hold the same rules.
#[derive(Debug, Clone)]
pub(super) struct Head<'a> {
    version: u32,
    alignment: u64,
    metadata: Vec<(&'a str, Value<'a>)>,
    /// Positions in `metadata`, sorted by key.
    by_key: Vec<usize>,
    tensors: Vec<TensorInfo<'a>>,
    /// Positions in `tensors`, sorted by name.
    by_name: Vec<usize>,
    /// Where the tensor data start in the file.
    data_start: usize,
}

impl<'a> Gguf<'a> {
    /// Reads the directory of a GGUF file, version 2 or 3, and checks it against every rule of the format.
    ///
    /// Space and time are linear in the size of the head (but for sorting names); tensor data are not
    /// touched.
    ///
    /// # Errors
    ///
    /// Every `Error::Gguf…` that names a place in a file; [`super::hostile`] has an example of each.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>> {
        let head = Head::parse(bytes)?;
        let data = bytes.get(head.data_start..).unwrap_or_default();
        layout::check(&head.tensors, head.alignment, data, wide(head.data_start))?;
        Ok(Gguf { head, data, packing: Packing::default() })
    }

    /// Version of the format: 2 or 3. They differ only in that 3 may be big-endian, which is refused.
    pub fn version(&self) -> u32 {
        self.head.version
    }

    /// Alignment of tensor data in bytes, a power of two.
    pub fn alignment(&self) -> u64 {
        self.head.alignment
    }

    /// Where the tensor data start, in bytes from the start of the file.
    pub fn data_start(&self) -> usize {
        self.head.data_start
    }

    /// All metadata, in file order.
    pub fn metadata(&self) -> &[(&'a str, Value<'a>)] {
        &self.head.metadata
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.head.get(key)
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.head.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo<'a>> {
        let found = self.head.by_name.binary_search_by(|&i| self.head.tensors[i].name.cmp(name)).ok()?;
        self.head.tensors.get(self.head.by_name[found])
    }

    /// The data of a tensor of this file, `tensor.bytes` bytes; empty for one that does not lie in this file.
    pub fn data(&self, tensor: &TensorInfo<'a>) -> &'a [u8] {
        let range = usize::try_from(tensor.offset).ok().and_then(|start| {
            let end = start.checked_add(tensor.bytes)?;
            self.data.get(start..end)
        });
        range.unwrap_or_default()
    }

    /// The value of `key` as `T`, or `None` when the file has no such key.
    ///
    /// # Errors
    ///
    /// - [`Error::GgufWrongType`]: the value has another type.
    pub fn optional<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        T::from_value(value).map(Some).ok_or_else(|| Error::GgufWrongType {
            key: shown(key),
            expected: T::EXPECTED,
            got: value.type_name(),
        })
    }

    /// The value of `key` as `T`.
    ///
    /// # Errors
    ///
    /// - [`Error::GgufMissing`]: the file has no such key.
    /// - [`Error::GgufWrongType`]: the value has another type.
    pub fn require<T: FromValue<'a>>(&self, key: &str) -> Result<T> {
        let missing = || Error::GgufMissing { key: shown(key), expected: T::EXPECTED };
        self.optional(key)?.ok_or_else(missing)
    }
}

/// Writes the getters that [`Gguf::require`] and [`Gguf::optional`] are called through most.
macro_rules! getters {
    ($($name:ident, $optional:ident -> $type:ty;)*) => {
        /// Metadata by key and type. Each getter errs as [`Gguf::require`] does, each `opt_…` as
        /// [`Gguf::optional`].
        impl<'a> Gguf<'a> {$(
            #[doc = concat!("`key` as `", stringify!($type), "`; see [`Gguf::require`].")]
            pub fn $name(&self, key: &str) -> Result<$type> {
                self.require(key)
            }

            #[doc = concat!("`key` as `", stringify!($type), "`, or `None`; see [`Gguf::optional`].")]
            pub fn $optional(&self, key: &str) -> Result<Option<$type>> {
                self.optional(key)
            }
        )*}
    };
}

getters! {
    str, opt_str -> &'a str;
    bool, opt_bool -> bool;
    u32, opt_u32 -> u32;
    i32, opt_i32 -> i32;
    u64, opt_u64 -> u64;
    f32, opt_f32 -> f32;
    array, opt_array -> Array<'a>;
    strs, opt_strs -> Items<'a, &'a str>;
    u32s, opt_u32s -> Items<'a, u32>;
    i32s, opt_i32s -> Items<'a, i32>;
    f32s, opt_f32s -> Items<'a, f32>;
}

impl<'a> Head<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Head<'a>> {
        let mut cursor = Cursor::new(bytes);
        let (version, tensor_count, entry_count) = header(&mut cursor)?;
        let mut head = Head {
            version,
            alignment: DEFAULT_ALIGNMENT,
            metadata: Vec::new(),
            by_key: Vec::new(),
            tensors: Vec::new(),
            by_name: Vec::new(),
            data_start: 0,
        };
        for index in 0..entry_count {
            head.metadata.push(entry(&mut cursor, index)?);
        }
        head.by_key = sorted_unique("metadata key", head.metadata.len(), |i| head.metadata[i].0)?;
        head.alignment = head.checked_alignment()?;
        head.refuse_split()?;
        for index in 0..tensor_count {
            head.tensors.push(tensor_info(&mut cursor, index, head.alignment)?);
        }
        head.by_name = sorted_unique("tensor name", head.tensors.len(), |i| head.tensors[i].name)?;
        head.data_start = head.padded_end(&mut cursor)?;
        Ok(head)
    }

    pub(super) fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.tensors
    }

    fn get(&self, key: &str) -> Option<&Value<'a>> {
        let found = self.by_key.binary_search_by(|&i| self.metadata[i].0.cmp(key)).ok()?;
        self.metadata.get(self.by_key[found]).map(|(_, value)| value)
    }

    fn checked_alignment(&self) -> Result<u64> {
        let Some(value) = self.get(ALIGNMENT_KEY) else { return Ok(DEFAULT_ALIGNMENT) };
        match *value {
            Value::U32(n) if allowed_alignment(n.into()) => Ok(n.into()),
            _ => Err(Error::GgufAlignment { found: format!("{} {value}", value.type_name()) }),
        }
    }

    /// One file of several has only some of the tensors.
    fn refuse_split(&self) -> Result<()> {
        let number = |key| self.get(key).and_then(Value::as_unsigned);
        match number("split.count") {
            Some(count) if count > 1 => {
                Err(Error::GgufSplit { number: number("split.no").unwrap_or(0).saturating_add(1), count })
            }
            _ => Ok(()),
        }
    }

    /// Where tensor data start. A file without tensors may end before the padding.
    fn padded_end(&self, cursor: &mut Cursor<'a>) -> Result<usize> {
        cursor.enter("alignment padding", None, None);
        let padded = cursor.offset().checked_next_multiple_of(self.alignment).unwrap_or(u64::MAX);
        let padding = padded - cursor.offset();
        if self.tensors.is_empty() && wide(cursor.rest().len()) < padding {
            return Ok(cursor.at() + cursor.rest().len());
        }
        cursor.take(padding)?;
        Ok(cursor.at())
    }
}

/// Whether tensor data may be aligned to `n` bytes.
pub(super) fn allowed_alignment(n: u64) -> bool {
    n.is_power_of_two() && (MIN_ALIGNMENT..=MAX_ALIGNMENT).contains(&n)
}

/// Version, tensor count and metadata count.
fn header(cursor: &mut Cursor<'_>) -> Result<(u32, u64, u64)> {
    let magic = cursor.take(4)?;
    if magic != MAGIC {
        return Err(Error::GgufMagic { found: magic.escape_ascii().to_string() });
    }
    let version = checked_version(cursor.u32()?)?;
    let tensors = cursor.u64()?;
    let entries = cursor.u64()?;
    cursor.check_count(8, "tensors", tensors, LEAST_INFO_BYTES)?;
    cursor.check_count(16, "metadata entries", entries, LEAST_ENTRY_BYTES)?;
    Ok((version, tensors, entries))
}

fn checked_version(version: u32) -> Result<u32> {
    match version {
        2 | 3 => Ok(version),
        // A small number in the other byte order has its two low bytes zero.
        1.. if version.trailing_zeros() >= 16 => Err(Error::GgufBigEndian),
        _ => Err(Error::GgufVersion { found: version }),
    }
}

fn entry<'a>(cursor: &mut Cursor<'a>, index: u64) -> Result<(&'a str, Value<'a>)> {
    cursor.enter("metadata key", None, Some(index));
    let key = cursor.name(MAX_KEY_BYTES)?;
    cursor.enter("metadata value", Some(key), None);
    let kind = value_type(cursor)?;
    Ok((key, value(cursor, key, kind)?))
}

fn value_type(cursor: &mut Cursor<'_>) -> Result<ValueType> {
    let offset = cursor.offset();
    let found = cursor.u32()?;
    let unknown = || Error::GgufValueType { place: cursor.place.to_string(), offset, found };
    ValueType::from_id(found).ok_or_else(unknown)
}

fn value<'a>(cursor: &mut Cursor<'a>, key: &'a str, kind: ValueType) -> Result<Value<'a>> {
    Ok(match kind {
        ValueType::U8 => Value::U8(number(cursor)?),
        ValueType::I8 => Value::I8(number(cursor)?),
        ValueType::U16 => Value::U16(number(cursor)?),
        ValueType::I16 => Value::I16(number(cursor)?),
        ValueType::U32 => Value::U32(number(cursor)?),
        ValueType::I32 => Value::I32(number(cursor)?),
        ValueType::F32 => Value::F32(number(cursor)?),
        ValueType::Bool => Value::Bool(boolean(cursor)?),
        ValueType::Str => Value::Str(cursor.string()?),
        ValueType::Array => {
            cursor.enter("array", Some(key), None);
            Value::Array(array(cursor, 1)?)
        }
        ValueType::U64 => Value::U64(number(cursor)?),
        ValueType::I64 => Value::I64(number(cursor)?),
        ValueType::F64 => Value::F64(number(cursor)?),
    })
}

fn number<'a, T: Element<'a>>(cursor: &mut Cursor<'a>) -> Result<T> {
    let size = T::KIND.least_bytes();
    T::decode(&mut cursor.take(size)?).ok_or_else(|| cursor.truncated(size))
}

fn boolean(cursor: &mut Cursor<'_>) -> Result<bool> {
    let offset = cursor.offset();
    match number::<u8>(cursor)? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(Error::GgufBool { place: cursor.place.to_string(), offset, found }),
    }
}

/// An array and all that is in it; `depth` counts this one. Elements are checked here and decoded when asked
/// for.
fn array<'a>(cursor: &mut Cursor<'a>, depth: u32) -> Result<Array<'a>> {
    let offset = cursor.offset();
    if depth > MAX_ARRAY_DEPTH {
        return Err(Error::GgufDepth { place: cursor.place.to_string(), offset, max: MAX_ARRAY_DEPTH });
    }
    let kind = value_type(cursor)?;
    let offset = cursor.offset();
    let len = cursor.u64()?;
    cursor.check_count(offset, "elements", len, kind.least_bytes())?;
    let start = cursor.at();
    elements(cursor, kind, len, depth)?;
    Ok(Array::new(kind, len, cursor.since(start)))
}

fn elements(cursor: &mut Cursor<'_>, kind: ValueType, len: u64, depth: u32) -> Result<()> {
    let outer = cursor.place;
    // Numbers of any bit pattern are fine; `check_count` has seen that the product fits.
    if let (Some(each), false) = (kind.fixed_bytes(), kind == ValueType::Bool) {
        cursor.take(len.saturating_mul(each))?;
        return Ok(());
    }
    for index in 0..len {
        if depth == 1 {
            cursor.place.index = Some(index);
        }
        match kind {
            ValueType::Bool => drop(boolean(cursor)?),
            ValueType::Str => drop(cursor.string()?),
            _ => drop(array(cursor, depth + 1)?),
        }
    }
    cursor.place = outer;
    Ok(())
}

fn tensor_info<'a>(cursor: &mut Cursor<'a>, index: u64, alignment: u64) -> Result<TensorInfo<'a>> {
    cursor.enter("tensor info", None, Some(index));
    let name = cursor.name(MAX_NAME_BYTES)?;
    cursor.enter("tensor info", Some(name), None);
    let dims = dims(cursor, name)?;
    let kind = tensor_type(cursor, name)?;
    let bytes = kind.data_bytes(name, &dims)?;
    let offset = cursor.u64()?;
    if !offset.is_multiple_of(alignment) {
        return Err(Error::GgufMisaligned { tensor: shown(name), offset, alignment });
    }
    Ok(TensorInfo { name, dims, kind, offset, bytes })
}

fn dims(cursor: &mut Cursor<'_>, name: &str) -> Result<Dims> {
    let offset = cursor.offset();
    let found = cursor.u32()?;
    let mut sizes = [0; MAX_DIMS];
    let sizes = usize::try_from(found).ok().filter(|&n| n > 0).and_then(|n| sizes.get_mut(..n));
    let Some(sizes) = sizes else { return Err(Error::GgufDims { tensor: shown(name), offset, found }) };
    for (dim, size) in sizes.iter_mut().enumerate() {
        let offset = cursor.offset();
        *size = cursor.u64()?;
        if *size == 0 {
            return Err(Error::GgufZeroDim { tensor: shown(name), offset, dim });
        }
    }
    let overflow = || Error::GgufElements { tensor: shown(name), dims: format!("{sizes:?}") };
    Dims::new(sizes).ok_or_else(overflow)
}

fn tensor_type(cursor: &mut Cursor<'_>, name: &str) -> Result<GgmlType> {
    let offset = cursor.offset();
    let id = cursor.u32()?;
    if let Some(kind) = GgmlType::from_id(id) {
        return Ok(kind);
    }
    let tensor = shown(name);
    Err(match GgmlType::info(id) {
        Some(row) if let Support::Named { advice } = row.support => {
            Error::GgufTypeUnsupported { tensor, offset, id, kind: row.name, advice }
        }
        _ => Error::GgufTypeUnknown { tensor, offset, id },
    })
}

/// The positions `0..len` sorted by name, or the first name in file order that is there twice.
fn sorted_unique<'a>(what: &'static str, len: usize, name: impl Fn(usize) -> &'a str) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..len).collect();
    order.sort_by_key(|&i| name(i));
    let twice = order.windows(2).filter(|pair| name(pair[0]) == name(pair[1])).min_by_key(|pair| pair[1]);
    let Some(&[first, second]) = twice else { return Ok(order) };
    Err(Error::GgufDuplicate { what, name: shown(name(first)), first, second })
}
