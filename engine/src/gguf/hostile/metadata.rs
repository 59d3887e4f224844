//! Broken metadata.

use super::draft::{Draft, array, entry, raw_entry, string, strings, without_last};
use super::{Hostile, parse};
use crate::gguf::ValueType;

const WHOLE: &str = "the file has all its bytes";
const COUNTS: &str = "counts fit the bytes left";
const KEY: &str = "keys have 1 to 65535 bytes";
const UTF8: &str = "keys, names and strings are UTF-8";
const TYPE: &str = "value types are 0 to 12";
const BOOL: &str = "a bool is 0 or 1";
const ALIGNMENT: &str = "the alignment is a u32, a power of two from 8 to 2097152";
const SPLIT: &str = "a model is one file";

/// Keys, values, arrays, and the two keys with a meaning for the container.
pub(super) fn cases() -> Vec<Hostile> {
    [keys(), values(), arrays(), container_keys()].concat()
}

/// The valid file up to and with `last` as one more metadata entry.
fn ends_with(last: Vec<u8>) -> Vec<u8> {
    let mut draft = Draft::valid();
    draft.entries.push(last);
    draft.entry_count += 1;
    draft.tensor_count = 0;
    draft.infos.clear();
    draft.head()
}

fn keys() -> Vec<Hostile> {
    let with_key = |key: &[u8]| Draft::with_entry(entry(key, ValueType::U8, &[7]));
    let huge = [&(1_u64 << 60).to_le_bytes()[..], b"key"].concat();
    let long = [&60_000_u64.to_le_bytes()[..], b"key of less than that"].concat();
    vec![
        parse(
            "key length cut",
            WHOLE,
            ends_with(b"12345\0".to_vec()),
            "GGUF metadata key 7 at byte 345: bytes needed 8, left 6; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "key cut",
            WHOLE,
            ends_with(long),
            "GGUF metadata key 7 at byte 353: bytes needed 60000, left 21; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "key empty",
            KEY,
            with_key(b""),
            "GGUF metadata key 7 at byte 345: length 0, expected 1 to 65535 bytes; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "key of 65536 bytes",
            KEY,
            with_key(&vec![b'k'; 65_536]),
            "GGUF metadata key 7 at byte 345: length 65536, expected 1 to 65535 bytes; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "key of 2^60 bytes",
            KEY,
            Draft::with_entry(huge),
            "GGUF metadata key 7 at byte 345: length 1152921504606846976, expected 1 to 65535 bytes; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "key not UTF-8",
            UTF8,
            with_key(b"assay.\xff"),
            "GGUF metadata key 7: not UTF-8 at byte 359; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "key twice",
            "metadata keys are unique",
            with_key(b"assay.flags"),
            "GGUF metadata key 'assay.flags' is there twice, as number 4 and 7 from 0; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "key with a line break twice",
            "metadata keys are unique",
            Draft::with(|draft| {
                draft.entries[0] = entry(b"a\nb", ValueType::U8, &[7]);
                draft.entries[2] = draft.entries[0].clone();
            }),
            "GGUF metadata key 'a\\nb' is there twice, as number 0 and 2 from 0; \
             the file is damaged or its converter is at fault",
        ),
    ]
}

fn values() -> Vec<Hostile> {
    let with = |kind, value: &[u8]| Draft::with_entry(entry(b"assay.x", kind, value));
    let cut = |kind, value: &[u8]| ends_with(entry(b"assay.x", kind, value));
    vec![
        parse(
            "value type cut",
            WHOLE,
            without_last(2, cut(ValueType::Str, &[])),
            "GGUF metadata value 'assay.x' at byte 360: bytes needed 4, left 2; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "value type 13",
            TYPE,
            Draft::with_entry(raw_entry(b"assay.x", 13, &[0; 8])),
            "GGUF metadata value 'assay.x' at byte 360: value type 13, expected 0 to 12; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "value type 2^32 - 1",
            TYPE,
            Draft::with_entry(raw_entry(b"assay.x", u32::MAX, &[0; 8])),
            "GGUF metadata value 'assay.x' at byte 360: value type 4294967295, expected 0 to 12; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "u8 cut",
            WHOLE,
            cut(ValueType::U8, &[]),
            "GGUF metadata value 'assay.x' at byte 364: bytes needed 1, left 0; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "i16 cut",
            WHOLE,
            cut(ValueType::I16, &[1]),
            "GGUF metadata value 'assay.x' at byte 364: bytes needed 2, left 1; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "f32 cut",
            WHOLE,
            cut(ValueType::F32, &[1; 3]),
            "GGUF metadata value 'assay.x' at byte 364: bytes needed 4, left 3; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "u64 cut",
            WHOLE,
            cut(ValueType::U64, &[1; 7]),
            "GGUF metadata value 'assay.x' at byte 364: bytes needed 8, left 7; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "bool cut",
            WHOLE,
            cut(ValueType::Bool, &[]),
            "GGUF metadata value 'assay.x' at byte 364: bytes needed 1, left 0; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "bool of 2",
            BOOL,
            with(ValueType::Bool, &[2]),
            "GGUF metadata value 'assay.x' at byte 364: bool 2, expected 0 or 1; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "string length cut",
            WHOLE,
            cut(ValueType::Str, &[3, 0, 0, 0, 0, 0, 0]),
            "GGUF metadata value 'assay.x' at byte 364: bytes needed 8, left 7; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "string cut",
            WHOLE,
            without_last(1, cut(ValueType::Str, &string(b"text"))),
            "GGUF metadata value 'assay.x' at byte 372: bytes needed 4, left 3; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "string of 2^64 - 1 bytes",
            WHOLE,
            with(ValueType::Str, &u64::MAX.to_le_bytes()),
            "GGUF metadata value 'assay.x' at byte 372: bytes needed 18446744073709551615, left 524; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "string not UTF-8",
            UTF8,
            with(ValueType::Str, &string(b"caf\xe9")),
            "GGUF metadata value 'assay.x': not UTF-8 at byte 375; \
             the file is damaged or its converter is at fault",
        ),
    ]
}

fn arrays() -> Vec<Hostile> {
    let with = |value: &[u8]| Draft::with_entry(entry(b"assay.x", ValueType::Array, value));
    let cut = |value: &[u8]| ends_with(entry(b"assay.x", ValueType::Array, value));
    let deep = (0..5).fold(Vec::new(), |inner, depth| match depth {
        0 => array(ValueType::U8, 1, &[7]),
        _ => array(ValueType::Array, 1, &inner),
    });
    let lying = array(ValueType::Array, 1, &array(ValueType::F64, 1 << 50, &[0; 8]));
    vec![
        parse(
            "array element type cut",
            WHOLE,
            cut(&[8, 0]),
            "GGUF array 'assay.x' at byte 364: bytes needed 4, left 2; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "array element type 99",
            TYPE,
            with(&[&99_u32.to_le_bytes()[..], &[0; 8]].concat()),
            "GGUF array 'assay.x' at byte 364: value type 99, expected 0 to 12; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "array length cut",
            WHOLE,
            cut(&array(ValueType::I8, 1, &[])[..10]),
            "GGUF array 'assay.x' at byte 368: bytes needed 8, left 6; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "array of 2^64 - 1 numbers",
            COUNTS,
            with(&array(ValueType::U64, u64::MAX, &[0; 8])),
            "GGUF array 'assay.x' at byte 368: bytes needed for 18446744073709551615 elements at \
             least 8 each, left 520; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "array of 2^61 strings",
            COUNTS,
            with(&array(ValueType::Str, 1 << 61, &string(b"a"))),
            "GGUF array 'assay.x' at byte 368: bytes needed for 2305843009213693952 elements at \
             least 8 each, left 520; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "array one number short",
            COUNTS,
            cut(&array(ValueType::I32, 3, &[0; 11])),
            "GGUF array 'assay.x' at byte 368: bytes needed for 3 elements at least 4 each, left 11; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "array in an array of 2^50 numbers",
            COUNTS,
            with(&lying),
            "GGUF array 'assay.x' element 0 at byte 380: bytes needed for 1125899906842624 elements \
             at least 8 each, left 540; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "array string cut",
            WHOLE,
            without_last(1, cut(&strings(&[b"to", b"be", b"or"]))),
            "GGUF array 'assay.x' element 2 at byte 404: bytes needed 2, left 1; \
             the file is cut short or damaged, fetch or convert it again",
        ),
        parse(
            "array string not UTF-8",
            UTF8,
            with(&strings(&[b"to", b"\xc3("])),
            "GGUF array 'assay.x' element 1: not UTF-8 at byte 394; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "array bool of 255",
            BOOL,
            with(&array(ValueType::Bool, 3, &[0, 1, 255])),
            "GGUF array 'assay.x' element 2 at byte 378: bool 255, expected 0 or 1; \
             the file is damaged or its converter is at fault",
        ),
        parse(
            "arrays five deep",
            "arrays nest at most 4 deep",
            with(&deep),
            "GGUF array 'assay.x' element 0 at byte 412: arrays nested more than 4 deep; \
             the file is damaged or hostile",
        ),
    ]
}

fn container_keys() -> Vec<Hostile> {
    let alignment = |n: u32| Draft::with_alignment(ValueType::U32, &n.to_le_bytes());
    let part = entry(b"split.no", ValueType::U16, &1_u16.to_le_bytes());
    let parts = entry(b"split.count", ValueType::U16, &3_u16.to_le_bytes());
    vec![
        parse(
            "alignment 0",
            ALIGNMENT,
            alignment(0),
            "GGUF metadata value 'general.alignment' is u32 0: expected a u32 that is a power of two \
             from 8 to 2097152; convert the model again",
        ),
        parse(
            "alignment 48",
            ALIGNMENT,
            alignment(48),
            "GGUF metadata value 'general.alignment' is u32 48: expected a u32 that is a power of two \
             from 8 to 2097152; convert the model again",
        ),
        parse(
            "alignment 4",
            ALIGNMENT,
            alignment(4),
            "GGUF metadata value 'general.alignment' is u32 4: expected a u32 that is a power of two \
             from 8 to 2097152; convert the model again",
        ),
        parse(
            "alignment 2^31",
            ALIGNMENT,
            alignment(1 << 31),
            "GGUF metadata value 'general.alignment' is u32 2147483648: expected a u32 that is a \
             power of two from 8 to 2097152; convert the model again",
        ),
        parse(
            "alignment as u64",
            ALIGNMENT,
            Draft::with_alignment(ValueType::U64, &32_u64.to_le_bytes()),
            "GGUF metadata value 'general.alignment' is u64 32: expected a u32 that is a power of two \
             from 8 to 2097152; convert the model again",
        ),
        parse(
            "alignment as text",
            ALIGNMENT,
            Draft::with_alignment(ValueType::Str, &string(b"32")),
            "GGUF metadata value 'general.alignment' is string \"32\": expected a u32 that is a power \
             of two from 8 to 2097152; convert the model again",
        ),
        parse(
            "split file",
            SPLIT,
            Draft::with(|draft| {
                draft.entries.extend([part, parts.clone()]);
                draft.entry_count += 2;
            }),
            "split file 2 of 3: merge it first (llama-gguf-split --merge FIRST-FILE MERGED-FILE)",
        ),
        parse(
            "split file without its number",
            SPLIT,
            Draft::with_entry(parts),
            "split file 1 of 3: merge it first (llama-gguf-split --merge FIRST-FILE MERGED-FILE)",
        ),
    ]
}
