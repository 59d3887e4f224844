//! The two type tables of the format: metadata values and tensors.

use super::MAX_DIMS;

/// Type of a metadata value, with the format's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValueType {
    /// 0: unsigned, 8 bits.
    U8,
    /// 1: signed, 8 bits.
    I8,
    /// 2: unsigned, 16 bits.
    U16,
    /// 3: signed, 16 bits.
    I16,
    /// 4: unsigned, 32 bits.
    U32,
    /// 5: signed, 32 bits.
    I32,
    /// 6: IEEE 754 binary32.
    F32,
    /// 7: one byte, 0 or 1.
    Bool,
    /// 8: length in 64 bits, then UTF-8.
    Str,
    /// 9: element type in 32 bits, length in 64, then the elements.
    Array,
    /// 10: unsigned, 64 bits.
    U64,
    /// 11: signed, 64 bits.
    I64,
    /// 12: IEEE 754 binary64.
    F64,
}

impl ValueType {
    /// Every type; the position is the id.
    pub const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64]
    };

    /// The type with this id in a file.
    pub fn from_id(id: u32) -> Option<ValueType> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The id in a file.
    pub const fn id(self) -> u32 {
        match self {
            ValueType::U8 => 0,
            ValueType::I8 => 1,
            ValueType::U16 => 2,
            ValueType::I16 => 3,
            ValueType::U32 => 4,
            ValueType::I32 => 5,
            ValueType::F32 => 6,
            ValueType::Bool => 7,
            ValueType::Str => 8,
            ValueType::Array => 9,
            ValueType::U64 => 10,
            ValueType::I64 => 11,
            ValueType::F64 => 12,
        }
    }

    /// Name used in messages and listings.
    pub const fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::Str => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }

    /// Bytes of a value; `None` for strings and arrays.
    pub const fn fixed_bytes(self) -> Option<u64> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::Str | ValueType::Array => None,
        }
    }

    /// Fewest bytes a value can take: an empty string is its length, an empty array its element type and
    /// length.
    pub(super) const fn least_bytes(self) -> u64 {
        match (self.fixed_bytes(), self) {
            (Some(bytes), _) => bytes,
            (None, ValueType::Str) => 8,
            (None, _) => 12,
        }
    }
}

/// What can be done with tensors of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Support {
    /// The engine has a decoder: models may use it. I8 counts, as the carrier of layouts that metadata name.
    Decoded,
    /// The size is known, so that files with it can be listed; a model that needs it is refused.
    Listed,
    /// Only the name is known, and what to do: a file with it is refused.
    Named {
        /// What the user can do about it.
        advice: &'static str,
    },
}

/// One row of the tensor type table. Data of `rows` rows of `cols` elements take
/// `rows * (cols / block) * block_bytes + tail_bytes` bytes, and `cols` must be a multiple of `block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeInfo {
    /// Id in the file.
    pub id: u32,
    /// ggml's name.
    pub name: &'static str,
    /// Elements in a block; 0 when not known here.
    pub block: u64,
    /// Bytes in a block; 0 when not known here.
    pub block_bytes: u64,
    /// Bytes once per tensor, after all blocks: 32 for I2_S (f32 scale, 28 bytes of padding), else 0.
    pub tail_bytes: u64,
    /// What can be done with it.
    pub support: Support,
}

/// Writes the enum, its rows and the way from id to type from one table.
macro_rules! ggml_types {
    ($(
        $name:ident = $id:literal:
            $block:literal elements, $bytes:literal + $tail:literal bytes, $support:ident;
    )*) => {
        /// Type of a tensor whose size is known, under ggml's own name.
        ///
        /// Ids are not quite unique in the field. 36 was once IQ4_NL_4_4 and is read as I2_S; 42 is Q2_0 in
        /// current llama.cpp but was TL2 in one bitnet.cpp release, and is read as Q2_0. 39 is TL2 in
        /// bitnet.cpp and MXFP4 in llama.cpp: a file does not tell which, so it is refused.
        /// [`GgmlType::info`] knows those names too.
        ///
        /// Source: `enum ggml_type` and the block structs of llama.cpp's `ggml.h` and `ggml-common.h`; for
        /// I2_S, bitnet.cpp's `ggml_nbytes`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(non_camel_case_types, reason = "ggml's own names: one word finds a type here and there")]
        pub enum GgmlType {
            $(#[doc = concat!(
                "Id ", $id, ": ", $bytes, " bytes for ", $block, " elements, and ", $tail, " per tensor."
            )] $name = $id,)*
        }

        impl GgmlType {
            /// Every type with a known size, by rising id.
            pub const ALL: &[GgmlType] = &[$(GgmlType::$name,)*];

            /// The type with this id, when its size is known.
            pub const fn from_id(id: u32) -> Option<GgmlType> {
                match id { $($id => Some(GgmlType::$name),)* _ => None }
            }

            /// The id in a file.
            pub const fn id(self) -> u32 {
                self.row().id
            }

            /// This type's row.
            pub const fn row(self) -> &'static TypeInfo {
                match self { $(GgmlType::$name => &TypeInfo {
                    id: $id,
                    name: stringify!($name),
                    block: $block,
                    block_bytes: $bytes,
                    tail_bytes: $tail,
                    support: Support::$support,
                },)* }
            }
        }
    };
}

ggml_types! {
    F32     =  0:   1 elements,   4 +  0 bytes, Decoded;
    F16     =  1:   1 elements,   2 +  0 bytes, Decoded;
    Q4_0    =  2:  32 elements,  18 +  0 bytes, Decoded;
    Q4_1    =  3:  32 elements,  20 +  0 bytes, Decoded;
    Q5_0    =  6:  32 elements,  22 +  0 bytes, Listed;
    Q5_1    =  7:  32 elements,  24 +  0 bytes, Listed;
    Q8_0    =  8:  32 elements,  34 +  0 bytes, Decoded;
    Q8_1    =  9:  32 elements,  36 +  0 bytes, Listed;
    Q2_K    = 10: 256 elements,  84 +  0 bytes, Listed;
    Q3_K    = 11: 256 elements, 110 +  0 bytes, Listed;
    Q4_K    = 12: 256 elements, 144 +  0 bytes, Listed;
    Q5_K    = 13: 256 elements, 176 +  0 bytes, Listed;
    Q6_K    = 14: 256 elements, 210 +  0 bytes, Decoded;
    Q8_K    = 15: 256 elements, 292 +  0 bytes, Listed;
    IQ2_XXS = 16: 256 elements,  66 +  0 bytes, Listed;
    IQ2_XS  = 17: 256 elements,  74 +  0 bytes, Listed;
    IQ3_XXS = 18: 256 elements,  98 +  0 bytes, Listed;
    IQ1_S   = 19: 256 elements,  50 +  0 bytes, Listed;
    IQ4_NL  = 20:  32 elements,  18 +  0 bytes, Listed;
    IQ3_S   = 21: 256 elements, 110 +  0 bytes, Listed;
    IQ2_S   = 22: 256 elements,  82 +  0 bytes, Listed;
    IQ4_XS  = 23: 256 elements, 136 +  0 bytes, Listed;
    I8      = 24:   1 elements,   1 +  0 bytes, Decoded;
    I16     = 25:   1 elements,   2 +  0 bytes, Listed;
    I32     = 26:   1 elements,   4 +  0 bytes, Listed;
    I64     = 27:   1 elements,   8 +  0 bytes, Listed;
    F64     = 28:   1 elements,   8 +  0 bytes, Listed;
    IQ1_M   = 29: 256 elements,  56 +  0 bytes, Listed;
    BF16    = 30:   1 elements,   2 +  0 bytes, Decoded;
    TQ1_0   = 34: 256 elements,  54 +  0 bytes, Decoded;
    TQ2_0   = 35: 256 elements,  66 +  0 bytes, Decoded;
    I2_S    = 36: 128 elements,  32 + 32 bytes, Decoded;
    NVFP4   = 40:  64 elements,  36 +  0 bytes, Listed;
    Q1_0    = 41: 128 elements,  18 +  0 bytes, Listed;
    Q2_0    = 42:  64 elements,  18 +  0 bytes, Decoded;
}

/// What to do about a type that ggml itself has dropped.
const REMOVED: &str = "ggml has removed it; quantise the original model again";
/// What to do about a type of bitnet.cpp's that depends on the machine that made it.
const BITNET: &str = "convert the model to I2_S with bitnet.cpp or to TQ2_0 with llama.cpp";
/// What to do about a type of ik_llama.cpp's.
const IK: &str = "convert the model to I2_S or TQ2_0 with ik_llama.cpp's tools";

/// Types that are known by name only.
static NAMED: [TypeInfo; 13] = [
    named(4, "Q4_2", REMOVED),
    named(5, "Q4_3", REMOVED),
    named(31, "Q4_0_4_4", REMOVED),
    named(32, "Q4_0_4_8", REMOVED),
    named(33, "Q4_0_8_8", REMOVED),
    named(37, "I8_S", BITNET),
    named(38, "TL1", BITNET),
    named(39, "TL2 of bitnet.cpp or MXFP4 of llama.cpp", BITNET),
    named(133, "Q6_0", IK),
    named(134, "IQ1_BN", IK),
    named(135, "IQ2_BN", IK),
    named(136, "Q8_K64", IK),
    named(335, "IQ2_BN_R4", IK),
];

const fn named(id: u32, name: &'static str, advice: &'static str) -> TypeInfo {
    TypeInfo { id, name, block: 0, block_bytes: 0, tail_bytes: 0, support: Support::Named { advice } }
}

impl GgmlType {
    /// What is known about a type id, including ids whose size is not known here; `None` for an unknown id.
    pub fn info(id: u32) -> Option<&'static TypeInfo> {
        let named = || NAMED.iter().find(|row| row.id == id);
        GgmlType::from_id(id).map(GgmlType::row).or_else(named)
    }

    /// ggml's name.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Shape of a tensor: 1 to 4 sizes, none of them zero, whose product fits 64 bits; the first one is
/// contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dims {
    ne: [u64; MAX_DIMS],
    len: usize,
}

impl Dims {
    /// The shape with these sizes; `None` when they break a rule above.
    pub fn new(sizes: &[u64]) -> Option<Dims> {
        if sizes.is_empty() || sizes.contains(&0) {
            return None;
        }
        sizes.iter().try_fold(1_u64, |product, &size| product.checked_mul(size))?;
        let mut ne = [1; MAX_DIMS];
        ne.get_mut(..sizes.len())?.copy_from_slice(sizes);
        Some(Dims { ne, len: sizes.len() })
    }

    /// The sizes as the file lists them.
    pub fn as_slice(&self) -> &[u64] {
        &self.ne[..self.len]
    }

    /// Elements in a row: `ne[0]`.
    pub const fn cols(&self) -> u64 {
        self.ne[0]
    }

    /// Number of rows: the product of all sizes but the first.
    pub const fn rows(&self) -> u64 {
        self.ne[1] * self.ne[2] * self.ne[3]
    }

    /// Number of elements.
    pub const fn elements(&self) -> u64 {
        self.cols() * self.rows()
    }
}

/// `[K, N]`, contiguous dimension first.
impl std::fmt::Display for Dims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_slice())
    }
}

/// One entry of a file's list of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// Name, 1 to 64 bytes.
    pub name: &'a str,
    /// Shape.
    pub dims: Dims,
    /// Type of the elements.
    pub kind: GgmlType,
    /// Where the data start, in bytes from the start of the tensor data; a multiple of the alignment.
    pub offset: u64,
    /// Size of the data in bytes, computed from type and shape.
    pub bytes: usize,
}

impl TensorInfo<'_> {
    /// Elements in a row: `ne[0]`.
    pub const fn cols(&self) -> u64 {
        self.dims.cols()
    }

    /// Number of rows: the product of all dimensions but the first.
    pub const fn rows(&self) -> u64 {
        self.dims.rows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_type_ids_are_positions() {
        for (position, kind) in ValueType::ALL.into_iter().enumerate() {
            assert_eq!(u32::try_from(position), Ok(kind.id()));
            assert_eq!(ValueType::from_id(kind.id()), Some(kind));
        }
        assert_eq!(ValueType::from_id(13), None);
    }

    #[test]
    fn every_id_has_one_row() {
        let ids = || GgmlType::ALL.iter().map(|kind| kind.id()).chain(NAMED.iter().map(|row| row.id));
        for id in ids() {
            assert_eq!(ids().filter(|&other| other == id).count(), 1, "type id {id}");
            assert_eq!(GgmlType::info(id).map(|row| row.id), Some(id));
        }
        assert_eq!(GgmlType::info(43), None);
        assert_eq!(GgmlType::info(12).map(|row| row.name), Some("Q4_K"));
    }

    #[test]
    fn dims_refuse_what_a_tensor_cannot_have() {
        assert_eq!(Dims::new(&[]), None);
        assert_eq!(Dims::new(&[1; 5]), None);
        assert_eq!(Dims::new(&[3, 0]), None);
        assert_eq!(Dims::new(&[1 << 32, 1 << 32]), None);
        let dims = Dims::new(&[6, 5, 4]).unwrap();
        assert_eq!((dims.cols(), dims.rows(), dims.elements()), (6, 20, 120));
        assert_eq!(dims.to_string(), "[6, 5, 4]");
    }
}
