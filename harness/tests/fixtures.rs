//! Fixtures are what the manifest says, on every machine, and the engine runs them.
//!
//! `ASSAY_UPDATE=1 cargo test -p assay-harness --test fixtures` writes the manifest and the committed files again.

use assay_engine::decode::{Request, generate as run};
use assay_engine::gguf::{GgmlType, Gguf};
use assay_engine::kernels::{self, Isa};
use assay_engine::model::Model;
use assay_engine::quant::{Format, Scale};
use assay_engine::tensor::Matrix;
use assay_engine::threads::Pool;
use assay_engine::tokenizer::{Special, Tokenizer};
use assay_harness::fixtures::{self, Fixture, GENERATOR_VERSION, Kind, Manifest, Status, Temperament};
use assay_variables::UPDATE;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn updating() -> bool {
    UPDATE.read().expect("a flag")
}

/// What this build makes; with `ASSAY_UPDATE` it is written down first.
fn measured() -> &'static Manifest {
    static MEASURED: OnceLock<Manifest> = OnceLock::new();
    MEASURED.get_or_init(|| {
        let manifest = Manifest::measure_all().expect("every fixture can be made and run");
        if updating() {
            let json = manifest.to_json().expect("JSON");
            std::fs::write(directory().join("manifest.json"), json).expect("manifest");
            for fixture in committed() {
                std::fs::write(directory().join(fixture.file_name()), bytes_of(fixture)).expect("file");
            }
        }
        manifest
    })
}

/// Tensor files are committed; models are made when they are needed.
fn committed() -> impl Iterator<Item = &'static Fixture> {
    fixtures::all().iter().filter(|fixture| fixture.model().is_none())
}

fn models() -> impl Iterator<Item = &'static Fixture> {
    fixtures::all().iter().filter(|fixture| fixture.model().is_some())
}

fn bytes_of(fixture: &Fixture) -> Vec<u8> {
    fixtures::generate(fixture).expect("a fixture can be made")
}

/// Logits of the last token of the prompt.
fn last_logits(bytes: &[u8], prompt: &[u32]) -> Vec<f32> {
    let gguf = Gguf::parse(bytes).expect("GGUF");
    let model = Model::load(&gguf, None).expect("model");
    let request = Request { prompt: prompt.to_vec(), ..Request::default() };
    let kernels = kernels::get(Isa::Scalar).expect("scalar kernels");
    let mut last = Vec::new();
    let mut keep = |_, row: &[f32]| {
        last = row.to_vec();
        Ok(())
    };
    run(&model, kernels, &Pool::new(1).expect("thread"), &request, &mut keep).expect("run");
    last
}

#[test]
fn what_this_build_makes_and_computes_is_in_the_manifest() {
    let text = std::fs::read_to_string(directory().join("manifest.json")).expect("manifest");
    let measured = measured();
    if updating() {
        return;
    }
    assert_eq!(Manifest::from_json(&text).expect("manifest"), *measured);
    assert_eq!(measured.to_json().expect("JSON"), text, "the manifest is written in one way");
    assert_eq!(fixtures::manifest().expect("manifest"), measured, "the manifest compiled in");
}

#[test]
fn committed_files_are_those_that_are_made() {
    measured();
    for fixture in committed() {
        let file = std::fs::read(directory().join(fixture.file_name())).expect("a committed file");
        assert!(file == bytes_of(fixture), "{}", fixture.name);
    }
}

#[test]
fn files_name_their_origin_and_are_small() {
    for fixture in fixtures::all() {
        let bytes = bytes_of(fixture);
        assert!(bytes.len() < 700_000, "{}: {} bytes", fixture.name, bytes.len());
        let gguf = Gguf::parse(&bytes).expect("GGUF");
        assert_eq!(gguf.str("assay.fixture.name"), Ok(fixture.name));
        assert_eq!(gguf.u32("assay.fixture.generator_version"), Ok(GENERATOR_VERSION));
        assert_eq!(gguf.get("assay.fixture.seed").and_then(|v| v.as_unsigned()), Some(fixture.seed));
    }
}

/// Decoded values and the scales of a tensor file.
fn decoded(w: &Matrix<'_>) -> (Vec<i8>, Vec<f32>) {
    let info = w.format.info();
    if info.scale != Scale::Block {
        let whole = w.ternary().expect("one scale");
        return (whole.values, vec![whole.scale]);
    }
    assert!(w.ternary().is_none(), "its blocks have no scale in common");
    let block = |bytes| w.format.decode_ternary(bytes, 1, info.block).expect("one block");
    let blocks = w.bytes.chunks(info.block_bytes).map(block).map(|block| (block.values, block.scale));
    let (values, scales): (Vec<_>, Vec<_>) = blocks.unzip();
    (values.concat(), scales)
}

#[test]
fn every_ternary_format_has_a_file() {
    let tensors: Vec<Format> = committed()
        .filter_map(|fixture| match fixture.kind {
            Kind::Matrix(spec) => Some(spec.format),
            Kind::Model(_) => None,
        })
        .collect();
    for format in Format::ALL.into_iter().filter(|format| format.info().ternary && *format != Format::I2S) {
        assert!(tensors.contains(&format), "{}: add a row to harness/src/fixtures/mod.rs", format.name());
    }
}

#[test]
fn no_permutation_of_a_tensor_file_goes_unseen() {
    for fixture in committed() {
        let Kind::Matrix(spec) = fixture.kind else { panic!("{} is no matrix", fixture.name) };
        let bytes = bytes_of(fixture);
        let gguf = Gguf::parse(&bytes).expect("GGUF");
        let w = Matrix::of(&gguf, &gguf.tensors()[0]).expect("matrix");
        w.validate().expect("valid weights");
        assert_eq!((w.rows, w.cols), (spec.rows as usize, spec.cols as usize));
        let (values, scales) = decoded(&w);
        // Sixteen elements, 1, 4 or 32 apart (bytes, shifts and groups of the layouts), are nowhere the same again.
        for stride in [1, 4, 32].into_iter().filter(|stride| 16 * stride < values.len()) {
            let groups = values.len() - 16 * stride;
            let group = |i: usize| (0..16).map(|j| values[i + j * stride]).collect::<Vec<_>>();
            let distinct = (0..groups).map(group).collect::<BTreeSet<_>>();
            assert_eq!(distinct.len(), groups, "{}, stride {stride}", fixture.name);
        }
        let distinct: BTreeSet<u32> = scales.iter().map(|scale| scale.to_bits()).collect();
        assert_eq!(distinct.len(), scales.len(), "{}", fixture.name);
    }
}

#[test]
fn models_meet_every_rule_of_the_graph() {
    let files: Vec<Vec<u8>> = models().map(bytes_of).collect();
    let ggufs: Vec<Gguf<'_>> = files.iter().map(|bytes| Gguf::parse(bytes).expect("GGUF")).collect();
    let loaded: Vec<Model<'_>> = ggufs.iter().map(|gguf| Model::load(gguf, None).expect("model")).collect();
    let some = |what: &dyn Fn(&Model<'_>) -> bool| loaded.iter().any(what);
    for arch in ["bitnet-b1.58", "bitnet-25", "bitnet", "llama"] {
        assert_eq!(loaded.iter().filter(|m| m.config.arch.name == arch).count(), 2, "{arch}");
    }
    for group in [1, 2, 4] {
        assert!(some(&|m| m.config.heads / m.config.heads_kv == group), "{group} query heads on a key head");
    }
    for head_dim in [32, 48, 64, 128] {
        assert!(some(&|m| m.config.head_dim == head_dim), "head dimension {head_dim}");
    }
    assert!(some(&|m| m.config.feed_forward % 256 == 128), "half a tile");
    assert!(some(&|m| m.config.rope_dim < m.config.head_dim), "part of a head rotated");
    assert!(some(&|m| m.weights.rope_freqs.is_some()), "rope_freqs");
    assert!(some(&|m| m.weights.layers[0].ffn_down.extra_scale.is_some()), "extra scales");
    assert!(some(&|m| m.weights.head.w.name == "output.weight"), "own head");
    assert!(
        models().any(|f| f.prompt().len() > assay_engine::exact::ATTENTION_CHUNK),
        "two attention chunks"
    );
}

#[test]
fn stable_scales_fit_f16_and_chaotic_ones_do_not() {
    for fixture in models() {
        let bytes = bytes_of(fixture);
        let gguf = Gguf::parse(&bytes).expect("GGUF");
        let linear = gguf.tensors().iter().filter(|tensor| tensor.kind == GgmlType::I2_S);
        let scales: Vec<f32> =
            linear.map(|tensor| Matrix::of(&gguf, tensor).expect("matrix").scale()).collect();
        let fits = |scale: &f32| half::f16::from_f32(*scale).to_f32() == *scale;
        let stable = fixture.model().is_some_and(|model| model.temperament == Temperament::Stable);
        assert_eq!(scales.iter().all(fits), stable, "{}", fixture.name);
        assert_eq!(scales.iter().any(fits), stable, "{}", fixture.name);
    }
}

#[test]
fn stable_models_say_many_things() {
    for fixture in models() {
        let model = fixture.model().expect("a model");
        if model.temperament == Temperament::Stable {
            let said = &measured().entry(fixture).expect("entry").run.as_ref().expect("run").greedy_token_ids;
            let distinct: BTreeSet<&u32> = said.iter().collect();
            assert!(distinct.len() >= said.len() / 4, "{}: {said:?}", fixture.name);
        }
    }
}

/// Moves one element of the last prompt token's embedding by 3/1024, about one step of its int8 form (the largest of a
/// row are near 0.4, and 0.4 / 127 = 3.2 / 1024), and gives the distance of the last logits relative to their size, as
/// the root mean square over four elements.
fn sensitivity(fixture: &Fixture) -> f64 {
    let (mut bytes, mut prompt) = (bytes_of(fixture), fixture.prompt());
    prompt.truncate(12);
    let row = {
        let gguf = Gguf::parse(&bytes).expect("GGUF");
        let table = gguf.tensor("token_embd.weight").expect("embedding");
        let offset = gguf.data(table).as_ptr() as usize - bytes.as_ptr() as usize;
        offset + 2 * (prompt[prompt.len() - 1] * fixture.model().expect("a model").embedding) as usize
    };
    let before = last_logits(&bytes, &prompt);
    let elements = [0, 7, 31, 100];
    let moved = elements.map(|element| {
        let at = row + 2 * element;
        let kept = [bytes[at], bytes[at + 1]];
        let value = half::f16::from_le_bytes(kept).to_f32() + 3.0 / 1024.0;
        bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
        let after = last_logits(&bytes, &prompt);
        bytes[at..at + 2].copy_from_slice(&kept);
        before.iter().zip(&after).map(|(a, b)| square(a - b)).sum::<f64>()
    });
    let size: f64 = before.iter().map(|x| square(*x)).sum();
    (moved.iter().sum::<f64>() / elements.len() as f64 / size).sqrt()
}

fn square(x: f32) -> f64 {
    f64::from(x) * f64::from(x)
}

#[test]
fn stable_models_damp_a_rounding_and_chaotic_ones_amplify_it() {
    for fixture in models() {
        let (moved, model) = (sensitivity(fixture), fixture.model().expect("a model"));
        // Rounding every activation to int8 already moves logits by about 0.01.
        match model.temperament {
            Temperament::Stable => assert!(moved < 0.03, "{}: {moved}", fixture.name),
            Temperament::Chaotic => assert!(moved > 0.1, "{}: {moved}", fixture.name),
        }
    }
}

#[test]
fn text_survives_the_tokenizer() {
    for fixture in models() {
        let bytes = bytes_of(fixture);
        let gguf = Gguf::parse(&bytes).expect("GGUF");
        let tokenizer = Tokenizer::read(&gguf).expect("tokenizer").expect("a vocabulary");
        assert_eq!(tokenizer.warning(), None, "{}", fixture.name);
        let vocab = fixture.model().expect("a model").vocab;
        for text in [
            "The other thing is: don't 'quote' 42 of them!\n\tOK?",
            "naïve café, größer; 中文 costs 3 €  🦀",
            "",
        ] {
            let ids = tokenizer.encode(text, Special::Plain).expect("ids");
            assert_eq!(ids[0], vocab - 3, "{}: begin token", fixture.name);
            assert!(ids.len() - 1 < text.len().max(1), "{}: nothing was merged", fixture.name);
            assert_eq!(tokenizer.decode(&ids[1..]).expect("text"), text, "{}", fixture.name);
        }
    }
}

#[test]
fn written_files_are_verified_and_damage_is_found() {
    if updating() {
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let out = dir.path().join("new");
    let written = fixtures::write_all(&out, None).expect("files");
    assert_eq!(written.len(), fixtures::all().len());
    assert_eq!(
        std::fs::read_dir(&out).expect("directory").count(),
        written.len(),
        "no temporary file is left"
    );
    assert!(fixtures::verify_dir(&out).expect("verdicts").iter().all(|v| v.status == Status::Ok));

    std::fs::write(&written[0].path, b"damage").expect("file");
    std::fs::remove_file(&written[1].path).expect("file");
    let verdicts = fixtures::verify_dir(&out).expect("verdicts");
    assert_eq!(
        [verdicts[0].status, verdicts[1].status, verdicts[2].status],
        [Status::Differs, Status::Missing, Status::Ok]
    );
    assert_eq!((&verdicts[0].expected, &verdicts[1].found), (&written[0].sha256, &None));

    let only = fixtures::write_all(&out, Some(&written[1].name)).expect("one file");
    assert_eq!((only.len(), &only[0].name), (1, &written[1].name));
    assert!(fixtures::write_all(&out, Some("no-such")).is_err());
}

#[test]
fn a_place_that_is_no_directory_is_named() {
    let file = tempfile::NamedTempFile::new().expect("file");
    let name = file.path().display().to_string();
    for said in [
        fixtures::write_all(file.path(), None).expect_err("a file").to_string(),
        fixtures::verify_dir(file.path()).expect_err("a file").to_string(),
        fixtures::write_all(&file.path().join("below"), None).expect_err("below a file").to_string(),
    ] {
        assert!(said.starts_with(&name) && said.ends_with("name a directory"), "{said}");
    }
}
