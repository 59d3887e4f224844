//! Metadata values, borrowed from the file.

use std::fmt;
use std::marker::PhantomData;

use super::ValueType;

/// One metadata value. Strings and arrays borrow from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Unsigned, 8 bits.
    U8(u8),
    /// Signed, 8 bits.
    I8(i8),
    /// Unsigned, 16 bits.
    U16(u16),
    /// Signed, 16 bits.
    I16(i16),
    /// Unsigned, 32 bits.
    U32(u32),
    /// Signed, 32 bits.
    I32(i32),
    /// IEEE 754 binary32.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// UTF-8 text.
    Str(&'a str),
    /// Values of one type, decoded when they are asked for.
    Array(Array<'a>),
    /// Unsigned, 64 bits.
    U64(u64),
    /// Signed, 64 bits.
    I64(i64),
    /// IEEE 754 binary64.
    F64(f64),
}

impl Value<'_> {
    /// The value's type.
    pub const fn kind(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::Str(_) => ValueType::Str,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The type as messages say it: `u32`, `array of string`.
    pub fn type_name(&self) -> String {
        match self {
            Value::Array(array) => format!("array of {}", array.kind().name()),
            scalar => scalar.kind().name().to_owned(),
        }
    }

    /// The value of any integer type that is not negative; `None` for all others.
    pub fn as_unsigned(&self) -> Option<u64> {
        match *self {
            Value::U8(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::U64(n) => Some(n),
            Value::I8(n) => n.try_into().ok(),
            Value::I16(n) => n.try_into().ok(),
            Value::I32(n) => n.try_into().ok(),
            Value::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }
}

/// One line: strings quoted and escaped, arrays by type and length.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(n) => n.fmt(f),
            Value::I8(n) => n.fmt(f),
            Value::U16(n) => n.fmt(f),
            Value::I16(n) => n.fmt(f),
            Value::U32(n) => n.fmt(f),
            Value::I32(n) => n.fmt(f),
            Value::F32(x) => x.fmt(f),
            Value::Bool(b) => b.fmt(f),
            Value::Str(text) => write!(f, "{text:?}"),
            Value::Array(array) => write!(f, "{} × {}", array.len(), array.kind().name()),
            Value::U64(n) => n.fmt(f),
            Value::I64(n) => n.fmt(f),
            Value::F64(x) => x.fmt(f),
        }
    }
}

/// An array in the file: element type, length and the encoded elements, all checked when the file was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Array<'a> {
    kind: ValueType,
    len: u64,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    pub(super) fn new(kind: ValueType, len: u64, bytes: &'a [u8]) -> Array<'a> {
        Array { kind, len, bytes }
    }

    /// Type of the elements.
    pub const fn kind(&self) -> ValueType {
        self.kind
    }

    /// Number of elements.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as the file encodes them, one after the other.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements as `T`; `None` when they are of another type.
    pub fn items<T: Element<'a>>(&self) -> Option<Items<'a, T>> {
        (self.kind == T::KIND).then_some(Items { left: self.len, bytes: self.bytes, element: PhantomData })
    }

    /// The elements as text; `None` when they are of another type.
    pub fn strs(&self) -> Option<Items<'a, &'a str>> {
        self.items()
    }

    /// The elements as `u32`; `None` when they are of another type.
    pub fn u32s(&self) -> Option<Items<'a, u32>> {
        self.items()
    }

    /// The elements as `i32`; `None` when they are of another type.
    pub fn i32s(&self) -> Option<Items<'a, i32>> {
        self.items()
    }

    /// The elements as `f32`; `None` when they are of another type.
    pub fn f32s(&self) -> Option<Items<'a, f32>> {
        self.items()
    }

    /// The elements as arrays; `None` when they are of another type.
    pub fn arrays(&self) -> Option<Items<'a, Array<'a>>> {
        self.items()
    }
}

/// The elements of an [`Array`], decoded one at a time; its length is exact.
#[derive(Debug, Clone)]
pub struct Items<'a, T> {
    left: u64,
    bytes: &'a [u8],
    element: PhantomData<T>,
}

impl<'a, T: Element<'a>> Iterator for Items<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        T::decode(&mut self.bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Every element takes at least a byte of a slice, so their number fits.
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

impl<'a, T: Element<'a>> ExactSizeIterator for Items<'a, T> {}

/// A type that array elements can be read as and written from.
pub trait Element<'a>: Sized + sealed::Sealed {
    /// Its type in the file.
    const KIND: ValueType;
    /// The type of an array of them, as messages say it.
    const ARRAY: &'static str;
    /// Takes one off the front; `None` when `bytes` do not start with one.
    fn decode(bytes: &mut &'a [u8]) -> Option<Self>;
    /// Appends one as the file has it.
    fn encode(self, out: &mut Vec<u8>);
}

/// A type that a metadata value can be asked for as.
pub trait FromValue<'a>: Sized {
    /// The type as messages say it.
    const EXPECTED: &'static str;
    /// The value, when it has exactly this type.
    fn from_value(value: &Value<'a>) -> Option<Self>;
}

impl<'a, T: Element<'a>> FromValue<'a> for Items<'a, T> {
    const EXPECTED: &'static str = T::ARRAY;

    fn from_value(value: &Value<'a>) -> Option<Self> {
        Array::from_value(value)?.items()
    }
}

/// Implements [`FromValue`] for the type of one variant.
macro_rules! from_value {
    ($($variant:ident $type:ty, $expected:literal;)*) => {$(
        impl<'a> FromValue<'a> for $type {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: &Value<'a>) -> Option<Self> {
                if let Value::$variant(inner) = *value { Some(inner) } else { None }
            }
        }
    )*};
}

from_value! {
    U8 u8, "u8"; I8 i8, "i8"; U16 u16, "u16"; I16 i16, "i16"; U32 u32, "u32"; I32 i32, "i32"; U64 u64, "u64";
    I64 i64, "i64"; F32 f32, "f32"; F64 f64, "f64"; Bool bool, "bool"; Str &'a str, "string";
    Array Array<'a>, "array";
}

/// Implements [`Element`] for numbers, which the file has as their little-endian bytes.
macro_rules! number_element {
    ($($variant:ident $type:ident, $array:literal;)*) => {$(
        impl sealed::Sealed for $type {}

        impl<'a> Element<'a> for $type {
            const KIND: ValueType = ValueType::$variant;
            const ARRAY: &'static str = $array;

            fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
                let (chunk, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_le_bytes(*chunk))
            }

            fn encode(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

number_element! {
    U8 u8, "array of u8"; I8 i8, "array of i8"; U16 u16, "array of u16"; I16 i16, "array of i16";
    U32 u32, "array of u32"; I32 i32, "array of i32"; U64 u64, "array of u64"; I64 i64, "array of i64";
    F32 f32, "array of f32"; F64 f64, "array of f64";
}

impl sealed::Sealed for bool {}

impl<'a> Element<'a> for bool {
    const KIND: ValueType = ValueType::Bool;
    const ARRAY: &'static str = "array of bool";

    fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
        u8::decode(bytes).map(|byte| byte != 0)
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
}

impl sealed::Sealed for &str {}

impl<'a> Element<'a> for &'a str {
    const KIND: ValueType = ValueType::Str;
    const ARRAY: &'static str = "array of string";

    fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
        let length = usize::try_from(u64::decode(bytes)?).ok()?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        std::str::from_utf8(text).ok()
    }

    fn encode(self, out: &mut Vec<u8>) {
        super::cursor::wide(self.len()).encode(out);
        out.extend_from_slice(self.as_bytes());
    }
}

impl sealed::Sealed for Array<'_> {}

impl<'a> Element<'a> for Array<'a> {
    const KIND: ValueType = ValueType::Array;
    const ARRAY: &'static str = "array of array";

    fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
        let kind = ValueType::from_id(u32::decode(bytes)?)?;
        let len = u64::decode(bytes)?;
        let start = *bytes;
        skip(kind, len, bytes)?;
        Some(Array { kind, len, bytes: start.get(..start.len() - bytes.len())? })
    }

    fn encode(self, out: &mut Vec<u8>) {
        self.kind.id().encode(out);
        self.len.encode(out);
        out.extend_from_slice(self.bytes);
    }
}

/// Takes `len` elements of type `kind` off the front. Recursion is as deep as the parser allowed.
fn skip(kind: ValueType, len: u64, bytes: &mut &[u8]) -> Option<()> {
    if let Some(each) = kind.fixed_bytes() {
        let size = usize::try_from(len.checked_mul(each)?).ok()?;
        *bytes = bytes.get(size..)?;
        return Some(());
    }
    for _ in 0..len {
        match kind {
            ValueType::Str => drop(<&str>::decode(bytes)?),
            _ => drop(Array::decode(bytes)?),
        }
    }
    Some(())
}

mod sealed {
    /// Keeps [`super::Element`] to the format's own types.
    pub trait Sealed {}
}
