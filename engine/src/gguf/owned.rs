//! Metadata values that own what they hold, for writing.

use super::value::Element;
use super::{Array, Value, ValueType};

/// One metadata value to be written; [`Value`] is the borrowed form that is read.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedValue {
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
    Str(String),
    /// Values of one type.
    Array(OwnedArray),
    /// Unsigned, 64 bits.
    U64(u64),
    /// Signed, 64 bits.
    I64(i64),
    /// IEEE 754 binary64.
    F64(f64),
}

impl OwnedValue {
    /// The same value, borrowed.
    pub fn as_value(&self) -> Value<'_> {
        match self {
            OwnedValue::U8(n) => Value::U8(*n),
            OwnedValue::I8(n) => Value::I8(*n),
            OwnedValue::U16(n) => Value::U16(*n),
            OwnedValue::I16(n) => Value::I16(*n),
            OwnedValue::U32(n) => Value::U32(*n),
            OwnedValue::I32(n) => Value::I32(*n),
            OwnedValue::F32(x) => Value::F32(*x),
            OwnedValue::Bool(b) => Value::Bool(*b),
            OwnedValue::Str(text) => Value::Str(text),
            OwnedValue::Array(array) => Value::Array(array.as_array()),
            OwnedValue::U64(n) => Value::U64(*n),
            OwnedValue::I64(n) => Value::I64(*n),
            OwnedValue::F64(x) => Value::F64(*x),
        }
    }

    /// Appends type id and value as the file has them.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let value = self.as_value();
        value.kind().id().encode(out);
        match value {
            Value::U8(n) => n.encode(out),
            Value::I8(n) => n.encode(out),
            Value::U16(n) => n.encode(out),
            Value::I16(n) => n.encode(out),
            Value::U32(n) => n.encode(out),
            Value::I32(n) => n.encode(out),
            Value::F32(x) => x.encode(out),
            Value::Bool(b) => b.encode(out),
            Value::Str(text) => text.encode(out),
            Value::Array(array) => array.encode(out),
            Value::U64(n) => n.encode(out),
            Value::I64(n) => n.encode(out),
            Value::F64(x) => x.encode(out),
        }
    }
}

/// Copies what the value borrows.
impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> OwnedValue {
        match value {
            Value::U8(n) => OwnedValue::U8(n),
            Value::I8(n) => OwnedValue::I8(n),
            Value::U16(n) => OwnedValue::U16(n),
            Value::I16(n) => OwnedValue::I16(n),
            Value::U32(n) => OwnedValue::U32(n),
            Value::I32(n) => OwnedValue::I32(n),
            Value::F32(x) => OwnedValue::F32(x),
            Value::Bool(b) => OwnedValue::Bool(b),
            Value::Str(text) => OwnedValue::Str(text.to_owned()),
            Value::Array(array) => OwnedValue::Array(array.into()),
            Value::U64(n) => OwnedValue::U64(n),
            Value::I64(n) => OwnedValue::I64(n),
            Value::F64(x) => OwnedValue::F64(x),
        }
    }
}

/// Implements the conversion from what one variant holds.
macro_rules! from_inner {
    ($($variant:ident $type:ty;)*) => {$(
        impl From<$type> for OwnedValue {
            fn from(inner: $type) -> OwnedValue {
                OwnedValue::$variant(inner)
            }
        }
    )*};
}

from_inner! {
    U8 u8; I8 i8; U16 u16; I16 i16; U32 u32; I32 i32; U64 u64; I64 i64; F32 f32; F64 f64; Bool bool;
    Str String; Array OwnedArray;
}

impl From<&str> for OwnedValue {
    fn from(text: &str) -> OwnedValue {
        OwnedValue::Str(text.to_owned())
    }
}

/// An array to be written, kept as the file encodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedArray {
    kind: ValueType,
    len: u64,
    bytes: Vec<u8>,
}

impl OwnedArray {
    /// The array of these numbers, truth values, `&str` or (nested) [`Array`]s.
    ///
    /// ```
    /// use assay_engine::gguf::OwnedArray;
    ///
    /// let words = OwnedArray::of(["to", "be"]);
    /// let nested = OwnedArray::of([words.as_array(), OwnedArray::of([1_u32, 2]).as_array()]);
    /// assert_eq!((words.as_array().len(), nested.as_array().len()), (2, 2));
    /// ```
    pub fn of<'a, T: Element<'a>>(items: impl IntoIterator<Item = T>) -> OwnedArray {
        let mut array = OwnedArray { kind: T::KIND, len: 0, bytes: Vec::new() };
        for item in items {
            item.encode(&mut array.bytes);
            array.len += 1;
        }
        array
    }

    /// The same array, borrowed.
    pub fn as_array(&self) -> Array<'_> {
        Array::new(self.kind, self.len, &self.bytes)
    }
}

impl From<Array<'_>> for OwnedArray {
    fn from(array: Array<'_>) -> OwnedArray {
        OwnedArray { kind: array.kind(), len: array.len(), bytes: array.bytes().to_vec() }
    }
}
