//! A GGUF file in parts, each of which can be wrong.

use crate::gguf::cursor::wide;
use crate::gguf::{GgmlType, MAGIC, ValueType};

/// Position of each tensor in the list of the valid file.
pub(super) const NORM: usize = 0;
pub(super) const W: usize = 1;
pub(super) const HALF: usize = 2;
pub(super) const TILE: usize = 3;

/// What a file is written from. Nothing is checked.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) magic: [u8; 4],
    pub(super) version: u32,
    pub(super) tensor_count: u64,
    pub(super) entry_count: u64,
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) infos: Vec<Info>,
    pub(super) data: Vec<u8>,
}

/// One tensor info.
#[derive(Debug, Clone)]
pub(super) struct Info {
    pub(super) name: Vec<u8>,
    pub(super) dim_count: u32,
    pub(super) dims: Vec<u64>,
    pub(super) kind: u32,
    pub(super) offset: u64,
}

impl Draft {
    /// The valid file: see [`super::valid`].
    pub(super) fn valid() -> Draft {
        let entries = vec![
            entry(b"general.architecture", ValueType::Str, &string(b"bitnet-b1.58")),
            entry(b"general.alignment", ValueType::U32, &32_u32.to_le_bytes()),
            entry(b"tokenizer.ggml.add_bos_token", ValueType::Bool, &[1]),
            entry(b"tokenizer.ggml.tokens", ValueType::Array, &strings(&[b"to", b"be"])),
            entry(b"assay.flags", ValueType::Array, &array(ValueType::Bool, 2, &[0, 1])),
            layout(b"qk256"),
            shape_of_tile(200),
        ];
        let infos = vec![
            info(b"norm", &[32], GgmlType::F32, 0),
            info(b"w", &[128, 2], GgmlType::I2_S, 128),
            info(b"half", &[8], GgmlType::F16, 224),
            info(b"tile", &[68], GgmlType::I8, 256),
        ];
        let data = [norm(), w(), half(), tile()].concat();
        Draft { magic: MAGIC, version: 3, tensor_count: 4, entry_count: 7, entries, infos, data }
    }

    /// The valid file after `change`.
    pub(super) fn with(change: impl FnOnce(&mut Draft)) -> Vec<u8> {
        let mut draft = Draft::valid();
        change(&mut draft);
        draft.bytes()
    }

    /// The valid file with one more metadata entry.
    pub(super) fn with_entry(entry: Vec<u8>) -> Vec<u8> {
        Draft::with(|draft| {
            draft.entries.push(entry);
            draft.entry_count += 1;
        })
    }

    /// The valid file with its alignment entry replaced.
    pub(super) fn with_alignment(kind: ValueType, value: &[u8]) -> Vec<u8> {
        Draft::with(|draft| draft.entries[1] = entry(b"general.alignment", kind, value))
    }

    /// The valid file with the tensor info at `index` changed.
    pub(super) fn with_info(index: usize, change: impl FnOnce(&mut Info)) -> Vec<u8> {
        Draft::with(|draft| change(&mut draft.infos[index]))
    }

    /// The file, tensor data padded to the default alignment whatever the metadata say.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = self.head();
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }

    /// The file up to the alignment padding.
    pub(super) fn head(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.to_le_bytes());
        out.extend(self.entry_count.to_le_bytes());
        out.extend(self.entries.concat());
        out.extend(self.infos.iter().flat_map(Info::bytes));
        out
    }
}

/// `bytes` without the last `n`.
pub(super) fn without_last(n: usize, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(n));
    bytes
}

impl Info {
    fn bytes(&self) -> Vec<u8> {
        let mut out = string(&self.name);
        out.extend(self.dim_count.to_le_bytes());
        out.extend(self.dims.iter().flat_map(|size| size.to_le_bytes()));
        out.extend(self.kind.to_le_bytes());
        out.extend(self.offset.to_le_bytes());
        out
    }

    /// Sets the dimensions and their number.
    pub(super) fn shape(&mut self, dims: &[u64]) {
        self.dims = dims.to_vec();
        self.dim_count = u32::try_from(dims.len()).unwrap_or(u32::MAX);
    }
}

fn info(name: &[u8], dims: &[u64], kind: GgmlType, offset: u64) -> Info {
    let mut info = Info { name: name.to_vec(), dim_count: 0, dims: Vec::new(), kind: kind.id(), offset };
    info.shape(dims);
    info
}

/// A string as the file has it, UTF-8 or not.
pub(super) fn string(text: &[u8]) -> Vec<u8> {
    [&wide(text.len()).to_le_bytes(), text].concat()
}

/// A metadata entry.
pub(super) fn entry(key: &[u8], kind: ValueType, value: &[u8]) -> Vec<u8> {
    raw_entry(key, kind.id(), value)
}

/// A metadata entry with any type id.
pub(super) fn raw_entry(key: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key), &kind.to_le_bytes()[..], value].concat()
}

/// An array that says it has `len` elements.
pub(super) fn array(kind: ValueType, len: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.id().to_le_bytes()[..], &len.to_le_bytes(), elements].concat()
}

/// An array of strings.
pub(super) fn strings(texts: &[&[u8]]) -> Vec<u8> {
    let elements: Vec<u8> = texts.iter().flat_map(|text| string(text)).collect();
    array(ValueType::Str, wide(texts.len()), &elements)
}

/// What the bytes of I8 tensors are.
pub(super) fn layout(name: &[u8]) -> Vec<u8> {
    entry(b"assay.layout", ValueType::Str, &string(name))
}

/// The shape of the matrix in `tile`: one row of `cols`.
pub(super) fn shape_of_tile(cols: u64) -> Vec<u8> {
    let shape = [cols.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    entry(b"assay.shape.tile", ValueType::Array, &array(ValueType::U64, 2, &shape))
}

/// 32 × 1.0 in F32: 128 bytes.
fn norm() -> Vec<u8> {
    1.0_f32.to_le_bytes().repeat(32)
}

/// Two rows of 128 codes (1, 0, 2, 1 down the bit pairs of each byte), scale 0.5, padding: 96 bytes.
fn w() -> Vec<u8> {
    let mut out = vec![0b01_00_10_01; 64];
    out.extend(0.5_f32.to_le_bytes());
    out.resize(96, 0);
    out
}

/// 8 × 1.0 in F16, then padding: 32 bytes.
fn half() -> Vec<u8> {
    let mut out = 0x3c00_u16.to_le_bytes().repeat(8);
    out.resize(32, 0);
    out
}

/// One QK256 row of 200 codes 1 (zero) padded with 56, scale 1.0, padding: 96 bytes.
fn tile() -> Vec<u8> {
    let mut out = vec![0b01_01_01_01; 64];
    out.extend(1.0_f32.to_le_bytes());
    out.resize(96, 0);
    out
}
