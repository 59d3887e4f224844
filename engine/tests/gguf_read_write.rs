//! What the writer writes the reader reads, and no bytes make the reader panic.

use assay_engine::Error;
use assay_engine::gguf::hostile::valid;
use assay_engine::gguf::{Array, Dims, GgmlType, Gguf, OwnedArray, OwnedValue, Value, ValueType, Writer};
use proptest::prelude::*;

/// A golden model, made by the C++ programs.
fn golden(name: &str) -> Vec<u8> {
    let path = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/golden/{}.gguf"), name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const GOLDEN: [&str; 6] =
    ["b158-stable", "b158-chaotic", "b158-long", "b25-varied", "bitnet-stable", "llama-stable"];

#[test]
fn golden_models_come_back_byte_for_byte() {
    for name in GOLDEN {
        let bytes = golden(name);
        let file = Gguf::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(Writer::from(&file).to_bytes().unwrap() == bytes, "{name}");
    }
}

#[test]
fn a_golden_model_says_what_it_holds() {
    let bytes = golden("b158-stable");
    let file = Gguf::parse(&bytes).unwrap();
    assert_eq!((file.version(), file.alignment(), file.data_start()), (3, 32, 29952));
    assert_eq!(file.str("general.architecture"), Ok("bitnet-b1.58"));
    assert_eq!(file.u32("bitnet-b1.58.embedding_length"), Ok(256));
    assert_eq!(file.f32("bitnet-b1.58.rope.freq_base"), Ok(500_000.0));
    assert_eq!(file.bool("tokenizer.ggml.add_bos_token"), Ok(true));
    let tokens = file.strs("tokenizer.ggml.tokens").unwrap();
    assert_eq!((tokens.len(), tokens.count()), (1024, 1024));
    assert_eq!(file.i32s("tokenizer.ggml.token_type").unwrap().next(), Some(1));
    let down = file.tensor("blk.0.ffn_down.weight").unwrap();
    assert_eq!((down.kind, down.rows(), down.cols()), (GgmlType::I2_S, 256, 640));
    assert_eq!(file.data(down).len(), 256 * 640 / 4 + 32);
    assert_eq!(file.tensor("blk.0.ffn_down"), None);
}

#[test]
fn getters_say_what_is_missing_or_of_another_type() {
    let bytes = valid();
    let file = Gguf::parse(&bytes).unwrap();
    assert_eq!(file.opt_f32("assay.none"), Ok(None));
    assert_eq!(file.opt_bool("tokenizer.ggml.add_bos_token"), Ok(Some(true)));
    assert_eq!(
        file.u32("assay.none").unwrap_err().to_string(),
        "GGUF metadata key 'assay.none' is missing, expected a value of type u32; convert the model again"
    );
    assert_eq!(
        file.opt_u32("general.architecture").unwrap_err().to_string(),
        "GGUF metadata value 'general.architecture' has type string, expected u32; convert the model again"
    );
    assert_eq!(
        file.f32s("tokenizer.ggml.tokens").unwrap_err().to_string(),
        "GGUF metadata value 'tokenizer.ggml.tokens' has type array of string, expected array of f32; \
         convert the model again"
    );
}

#[test]
fn version_2_and_other_alignments_are_read() {
    for (version, alignment) in [(2, 32), (3, 8), (3, 64), (2, 4096)] {
        let mut writer = Writer::new();
        writer.version(version).alignment(alignment);
        writer.tensor("a", &[3], GgmlType::F32, vec![1; 12]).tensor("b", &[1], GgmlType::I8, vec![2]);
        let bytes = writer.to_bytes().unwrap();
        let file = Gguf::parse(&bytes).unwrap();
        assert_eq!((file.version(), file.alignment()), (version, u64::from(alignment)));
        assert_eq!(file.data_start() % usize::try_from(alignment).unwrap(), 0);
        assert_eq!(
            file.tensor("b").map(|b| (b.offset, file.data(b))),
            Some((alignment.max(16).into(), &[2][..]))
        );
    }
}

/// Tensors `a` (8 bytes) and `b` (40 bytes) listed in this order, at these data offsets.
fn listed(a: u64, b: u64) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.tensor("a", &[2], GgmlType::F32, vec![1; 8]).tensor("b", &[10], GgmlType::F32, vec![2; 40]);
    let mut bytes = writer.to_bytes().unwrap();
    let info = 24 + 8 + 1 + 4 + 8 + 4;
    bytes[info..info + 8].copy_from_slice(&a.to_le_bytes());
    bytes[info + 33..info + 41].copy_from_slice(&b.to_le_bytes());
    bytes
}

#[test]
fn tensors_may_be_listed_in_any_order() {
    let mut bytes = listed(64, 0);
    let data = bytes.len() - 96;
    bytes[data..].fill(0);
    bytes[data..data + 40].fill(2);
    bytes[data + 64..data + 72].fill(1);
    let file = Gguf::parse(&bytes).unwrap();
    assert_eq!(file.data(&file.tensors()[0]), &[1; 8]);
    assert_eq!(file.data(&file.tensors()[1]), &[2; 40]);
    assert!(matches!(Gguf::parse(&listed(32, 0)), Err(Error::GgufOverlap { end: 40, offset: 32, .. })));
}

#[test]
fn the_last_padding_may_be_missing() {
    let bytes = valid();
    for missing in 0..=28 {
        assert_eq!(Gguf::parse(&bytes[..bytes.len() - missing]).err(), None, "{missing}");
    }
    assert!(Gguf::parse(&bytes[..bytes.len() - 29]).is_err());
}

#[test]
fn a_file_without_tensors_may_end_before_its_padding() {
    let mut writer = Writer::new();
    writer.put("general.type", "vocab");
    let bytes = writer.to_bytes().unwrap();
    let head = 24 + 8 + 12 + 4 + 8 + 5;
    for length in head..=bytes.len() {
        assert_eq!(Gguf::parse(&bytes[..length]).err(), None, "{length}");
    }
}

#[test]
fn every_shorter_file_is_refused() {
    let bytes = valid();
    for length in 0..bytes.len() - 28 {
        let error = Gguf::parse(&bytes[..length]).expect_err("a part of a file");
        assert!(matches!(error, Error::GgufTruncated { .. } | Error::GgufCount { .. }), "{length}: {error}");
    }
}

#[test]
fn every_bit_flip_is_read_or_refused() {
    let bytes = valid();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        walk(&flipped);
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let refused = |writer: &Writer<'_>| writer.to_bytes().unwrap_err();
    let norm = |writer: &mut Writer<'_>, dims: &[u64], bytes| {
        writer.tensor("norm", dims, GgmlType::F32, vec![0; bytes]);
    };
    let mut writer = Writer::new();
    norm(&mut writer, &[2], 7);
    assert_eq!(
        refused(&writer),
        Error::GgufTensorBytes { tensor: "norm".into(), expected: 8, got: 7 },
        "size of the data"
    );
    let mut writer = Writer::new();
    norm(&mut writer, &[2], 8);
    norm(&mut writer, &[2], 8);
    assert!(matches!(refused(&writer), Error::GgufDuplicate { first: 0, second: 1, .. }));
    let mut writer = Writer::new();
    norm(&mut writer, &[1; 5], 4);
    assert!(matches!(refused(&writer), Error::GgufDims { found: 5, .. }));
    assert!(matches!(refused(Writer::new().put("k", 1_u8).put("k", 2_u8)), Error::GgufDuplicate { .. }));
    assert!(matches!(refused(Writer::new().version(1)), Error::GgufVersion { found: 1 }));
    assert!(matches!(refused(Writer::new().alignment(0)), Error::GgufAlignment { .. }));
    assert!(matches!(refused(Writer::new().put("", "no key")), Error::GgufNameLength { length: 0, .. }));
}

#[test]
fn a_failing_output_is_an_error() {
    let mut short = [0; 30];
    let error = Writer::new().put("k", 1_u8).write(&mut &mut short[..]).unwrap_err();
    assert!(matches!(error, Error::GgufOutput { .. }), "{error}");
}

#[test]
fn a_tensor_of_another_file_has_no_data_here() {
    let (bytes, mut writer) = (valid(), Writer::new());
    let small = writer.tensor("x", &[1], GgmlType::I8, vec![7]).to_bytes().unwrap();
    let (file, small) = (Gguf::parse(&bytes).unwrap(), Gguf::parse(&small).unwrap());
    assert_eq!(small.data(&file.tensors()[3]), &[0; 0]);
}

/// Reads everything that can be read from `bytes`.
fn walk(bytes: &[u8]) {
    let Ok(file) = Gguf::parse(bytes) else { return };
    for (key, value) in file.metadata() {
        assert_eq!(file.get(key).map(Value::kind), Some(value.kind()));
        assert!(!value.to_string().contains('\n'));
        if let Value::Array(array) = value {
            assert_eq!(count(array), array.len());
        }
    }
    for tensor in file.tensors() {
        assert_eq!(file.data(tensor).len(), tensor.bytes);
        assert_eq!(file.tensor(tensor.name), Some(tensor));
    }
    Writer::from(&file).to_bytes().expect("what was read can be written");
}

/// The elements that an array's iterator gives, all arrays in it read as well.
fn count(array: &Array<'_>) -> u64 {
    let n = match array.kind() {
        ValueType::U8 => array.items::<u8>().unwrap().count(),
        ValueType::I8 => array.items::<i8>().unwrap().count(),
        ValueType::U16 => array.items::<u16>().unwrap().count(),
        ValueType::I16 => array.items::<i16>().unwrap().count(),
        ValueType::U32 => array.u32s().unwrap().count(),
        ValueType::I32 => array.i32s().unwrap().count(),
        ValueType::U64 => array.items::<u64>().unwrap().count(),
        ValueType::I64 => array.items::<i64>().unwrap().count(),
        ValueType::F32 => array.f32s().unwrap().count(),
        ValueType::F64 => array.items::<f64>().unwrap().count(),
        ValueType::Bool => array.items::<bool>().unwrap().count(),
        ValueType::Str => array.strs().unwrap().count(),
        ValueType::Array => {
            array.arrays().unwrap().inspect(|inner| assert_eq!(count(inner), inner.len())).count()
        }
    };
    u64::try_from(n).unwrap()
}

/// Arrays of every type, nested as deep as the format's reader allows.
fn arrays() -> impl Strategy<Value = OwnedArray> {
    let flat = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<i8>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<u16>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<i16>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<u32>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<i32>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<u64>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<i64>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<f32>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<f64>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(OwnedArray::of),
        prop::collection::vec(any::<String>(), 0..9)
            .prop_map(|texts| OwnedArray::of(texts.iter().map(String::as_str))),
    ];
    flat.prop_recursive(3, 32, 4, |inner| {
        prop::collection::vec(inner, 0..4)
            .prop_map(|arrays| OwnedArray::of(arrays.iter().map(OwnedArray::as_array)))
    })
}

fn values() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        any::<u8>().prop_map(OwnedValue::from),
        any::<i8>().prop_map(OwnedValue::from),
        any::<u16>().prop_map(OwnedValue::from),
        any::<i16>().prop_map(OwnedValue::from),
        any::<u32>().prop_map(OwnedValue::from),
        any::<i32>().prop_map(OwnedValue::from),
        any::<u64>().prop_map(OwnedValue::from),
        any::<i64>().prop_map(OwnedValue::from),
        any::<f32>().prop_map(OwnedValue::from),
        any::<f64>().prop_map(OwnedValue::from),
        any::<bool>().prop_map(OwnedValue::from),
        any::<String>().prop_map(OwnedValue::from),
        arrays().prop_map(OwnedValue::from),
    ]
}

/// A type, a shape of whole blocks, and data of the right size.
fn tensors() -> impl Strategy<Value = (Vec<u64>, GgmlType, Vec<u8>)> {
    let shape = (1..3_u64, prop::collection::vec(1..4_u64, 0..4));
    (prop::sample::select(GgmlType::ALL), shape, any::<u8>()).prop_map(|(kind, (blocks, rest), fill)| {
        let mut dims = vec![blocks * kind.row().block];
        dims.extend(rest);
        let bytes = kind.data_bytes("t", &Dims::new(&dims).unwrap()).unwrap();
        let data = (0..bytes).map(|i| fill.wrapping_add(u8::try_from(i % 251).unwrap())).collect();
        (dims, kind, data)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        metadata in prop::collection::btree_map("[a-z_.\u{e9}]{1,12}", values(), 0..8),
        tensors in prop::collection::vec(tensors(), 0..6),
        alignment in prop::sample::select(vec![None, Some(8_u32), Some(32), Some(256)]),
        version in 2..=3_u32,
    ) {
        let mut writer = Writer::new();
        writer.version(version);
        metadata.iter().for_each(|(key, value)| { writer.put(key, value.clone()); });
        alignment.map(|alignment| writer.alignment(alignment));
        for (index, (dims, kind, data)) in tensors.iter().enumerate() {
            writer.tensor(format!("tensor {index}"), dims, *kind, data);
        }
        let bytes = writer.to_bytes().unwrap();
        walk(&bytes);
        let file = Gguf::parse(&bytes).unwrap();
        for (&(key, value), (put_key, put)) in file.metadata().iter().zip(&metadata) {
            prop_assert_eq!(key, put_key);
            // By text: a NaN is not equal to itself.
            prop_assert_eq!(format!("{:?}", OwnedValue::from(value)), format!("{put:?}"));
        }
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (tensor, (dims, kind, data)) in file.tensors().iter().zip(&tensors) {
            prop_assert_eq!(tensor.dims.as_slice(), dims);
            prop_assert_eq!((tensor.kind, file.data(tensor)), (*kind, &data[..]));
        }
        prop_assert_eq!(Writer::from(&file).to_bytes().unwrap(), bytes);
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        walk(&bytes);
    }

    #[test]
    fn random_bytes_after_a_header_do_not_panic(
        (tensors, entries) in (0..4_u64, 0..4_u64),
        rest in prop::collection::vec(prop_oneof![4 => Just(0_u8), 2 => 0..40_u8, 1 => any::<u8>()], 0..400),
    ) {
        walk(&[b"GGUF\x03\0\0\0", &tensors.to_le_bytes()[..], &entries.to_le_bytes(), &rest].concat());
    }

    #[test]
    fn changed_files_do_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = valid();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        walk(&bytes);
        walk(&bytes[..length.index(bytes.len())]);
    }
}
