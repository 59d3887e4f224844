//! llama.cpp's whole models in a child process: the protocol with stand-ins, and the real one where it is fetched.
#![cfg(unix)]
#![expect(clippy::print_stderr, reason = "says what was skipped, or seen")]

use assay_engine::quant::Format;
use assay_engine::quant::i2s::Packing;
use assay_harness::convert::{self, Request};
use assay_harness::peers::{Error, Load, Options, Peer};
use assay_harness::plugins::Source;
use assay_harness::plugins::peers::{Found, find};
use assay_variables::PEERS;
use std::path::{Path, PathBuf};
use std::time::Duration;

const READY: &str =
    r#"echo '{"ready":{"name":"fake/sh","version":"1","model":"none","vocab":3,"context":8,"threads":1}}'; "#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn load(folder: &Path, model: &Path) -> Load {
    Load {
        folder: folder.to_owned(),
        backend: Some("haswell".to_owned()),
        model: model.to_owned(),
        threads: 1,
        context: 64,
    }
}

fn real(load: Load) -> Options {
    Options {
        program: env!("CARGO_BIN_EXE_assay").into(),
        arguments: vec!["peer-child".to_owned()],
        load,
        timeout: Duration::from_secs(60),
    }
}

/// A shell script in the place of the worker.
fn fake(script: &str) -> Result<Peer, Error> {
    let load = load(Path::new("libraries"), Path::new("model.gguf"));
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    Peer::start(&Options { program: "/bin/sh".into(), arguments, load, timeout: Duration::from_secs(2) })
}

#[test]
fn a_stand_in_that_answers_is_understood() {
    let answers = r#"
        read line; echo "$line" >&2; echo '{"prefilled":{"ns":1500}}'
        read line; echo '{"decoded":{"ns":[7,8]}}'
        read line; echo '{"logits":{"bits":[1065353216,2143289344,2147483648]}}'
        read line; echo '{"refused":{"message":"too much; ask for less"}}'
        read line; echo '{"prefilled":{"ns":2}}'
        read line"#;
    let mut peer = fake(&format!("{READY}{answers}")).expect("ready");
    assert_eq!((peer.facts().name.as_str(), peer.facts().vocab), ("fake/sh", 3));
    assert_eq!(peer.prefill(&[1, 2]), Ok(Duration::from_nanos(1500)));
    assert_eq!(peer.decode(&[1], 2), Ok(vec![Duration::from_nanos(7), Duration::from_nanos(8)]));
    let bits: Vec<u32> = peer.logits(&[1]).expect("a row").into_iter().map(f32::to_bits).collect();
    assert_eq!(bits, [1_065_353_216, 2_143_289_344, 2_147_483_648], "a NaN and a negative zero arrive whole");
    assert_eq!(peer.prefill(&[9; 99]), Err(Error::Refused("too much; ask for less".to_owned())));
    assert_eq!(peer.prefill(&[1]), Ok(Duration::from_nanos(2)), "a refusal does not end it");
}

#[test]
fn a_worker_that_dies_hangs_or_talks_nonsense_is_an_error_that_says_so() {
    let at_start = [
        (
            "echo no such thing >&2; exit 3",
            "ended with the exit code 3 while it was at loading model.gguf: no such thing;",
        ),
        ("kill -SEGV $$", "was ended by SIGSEGV while it was at loading model.gguf;"),
        ("sleep 60", "did not answer within 2 s while it was at loading model.gguf;"),
        ("echo llama_print_timings", "no answer to loading model.gguf but 'llama_print_timings'"),
        (r#"echo '{"prefilled":{"ns":1}}'; sleep 60"#, r#"but '{"prefilled":{"ns":1}}'"#),
        (r#"echo '{"refused":{"message":"it is not here; fetch it"}}'"#, "it is not here; fetch it"),
    ];
    for (script, expected) in at_start {
        let error = fake(script).expect_err(script).to_string();
        assert!(error.contains(expected), "{script}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let later = [
        ("read line; kill -ABRT $$", "was ended by SIGABRT while it was at a prompt of 2 tokens;"),
        ("read line; sleep 60", "did not answer within 2 s while it was at a prompt of 2 tokens;"),
        ("read line; echo '{\"decoded\":{\"ns\":[]}}'; sleep 60", "no answer to a prompt of 2 tokens but"),
        ("exec 1>&-; sleep 60", "closed its output while"),
    ];
    for (script, expected) in later {
        let mut peer = fake(&format!("{READY}{script}")).expect("ready");
        let error = peer.prefill(&[1, 2]).expect_err(script).to_string();
        assert!(error.contains(expected), "{script}: {error}");
        let again = peer.prefill(&[1, 2]).expect_err("it is gone").to_string();
        assert!(again.contains("start it again"), "{again}");
    }
    // As many times as tokens, and as many logits as the vocabulary has.
    let script = "read line; echo '{\"decoded\":{\"ns\":[1]}}'; sleep 60";
    assert!(matches!(
        fake(&format!("{READY}{script}")).expect("ready").decode(&[1], 2),
        Err(Error::Garbage { .. })
    ));
    let script = "read line; echo '{\"logits\":{\"bits\":[1]}}'; sleep 60";
    assert!(matches!(
        fake(&format!("{READY}{script}")).expect("ready").logits(&[1]),
        Err(Error::Garbage { .. })
    ));
    let load = load(Path::new("libraries"), Path::new("model.gguf"));
    let options = Options { program: "/nonexistent".into(), ..real(load) };
    assert!(matches!(Peer::start(&options), Err(Error::Start(_))));
}

#[test]
fn the_worker_names_libraries_that_are_not_there() {
    let folder = tempfile::tempdir().expect("folder");
    let model = root().join("fixtures/golden/bitnet-stable.gguf");
    let error = Peer::start(&real(load(folder.path(), &model))).expect_err("nothing to load").to_string();
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        assert!(
            error.contains("libggml-base.so") && error.contains("assay reference install llama.cpp"),
            "{error}"
        );
        // Text in the place of a library.
        std::fs::write(folder.path().join("libggml-base.so"), "no library").expect("written");
        let error = Peer::start(&real(load(folder.path(), &model))).expect_err("no library").to_string();
        assert!(
            error.contains("cannot be loaded") && error.contains("assay reference install llama.cpp"),
            "{error}"
        );
    } else {
        assert!(error.contains("x86-64 Linux"), "{error}");
    }
}

/// The folder of the libraries, if they are here.
fn fetched() -> Option<PathBuf> {
    let runs = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    let folders = PEERS.read().into_iter();
    let found =
        folders.chain([root().join("target/peers")]).find_map(|folder| match find("llama.cpp", &folder) {
            Ok(Found::Here(Source::Llama(folder, _))) if runs => Some(folder),
            _ => None,
        });
    if found.is_none() {
        eprintln!("skipped: llama.cpp's libraries are not here; run: assay reference install llama.cpp");
    }
    found
}

/// A golden model in a format, under the name that llama.cpp knows.
fn converted(folder: &Path, model: &str, target: Format) -> PathBuf {
    let out = folder.join(format!("{model}.gguf"));
    let input = root().join(format!("fixtures/golden/{model}.gguf"));
    let request =
        Request { target, fallback: None, head: None, packing: Packing::default(), arch: Some("bitnet") };
    convert::convert(&input, &out, request).expect("converted");
    out
}

/// Ticks of processor time that a process has used.
fn ticks(id: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
    let after_name: Vec<&str> = text[text.rfind(')').expect("a name") + 2..].split(' ').collect();
    [11, 12].map(|field: usize| after_name[field].parse::<u64>().expect("a number")).iter().sum()
}

#[test]
fn llama_cpp_computes_what_the_engine_does_on_a_converted_file() {
    use assay_engine::model::Model;
    use assay_harness::runs::engine::{Backend, run_with_logits};
    use assay_harness::runs::file::ModelFile;
    let Some(libraries) = fetched() else { return };
    let folder = tempfile::tempdir().expect("folder");
    let prompt = [1021, 104, 101, 108, 300, 301, 500, 32];
    for name in ["bitnet-stable", "b158-stable"] {
        let path = converted(folder.path(), name, Format::Q2_0);
        let mut peer = Peer::start(&real(Load { backend: None, ..load(&libraries, &path) })).expect("loaded");
        let theirs = peer.logits(&prompt).expect("logits");
        let file = ModelFile::open(&path).expect("file");
        let gguf = file.gguf().expect("GGUF");
        let model = Model::load(&gguf, None).expect("model");
        let (_, rows) = run_with_logits(&model, Backend::best(), &prompt, 0).expect("run");
        let ours = &rows[rows.len() - theirs.len()..];
        let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
        let cosine = dot(ours, &theirs) / (dot(ours, ours) * dot(&theirs, &theirs)).sqrt();
        assert!(cosine > 0.9999, "{name}: cosine {cosine}");
        eprintln!("{name}: {} {}, cosine {cosine:.7}", peer.facts().name, peer.facts().version);
    }
}

#[test]
fn llama_cpp_is_timed_refuses_what_does_not_fit_and_sleeps_between_requests() {
    let Some(libraries) = fetched() else { return };
    let folder = tempfile::tempdir().expect("folder");
    let path = converted(folder.path(), "b158-stable", Format::Q2_0);
    let load = Load { threads: 2, ..load(&libraries, &path) };
    let mut peer = Peer::start(&real(Load { backend: None, ..load.clone() })).expect("loaded");
    assert_eq!((peer.facts().vocab, peer.facts().threads), (1024, 2));
    assert!(peer.facts().model.contains("Q2_0"), "{:?}", peer.facts());
    let context = peer.facts().context;
    let prompt: Vec<u32> = (1..33).collect();
    let prefill = peer.prefill(&prompt).expect("timed");
    let first = peer.decode(&prompt, 4).expect("timed");
    let again = peer.decode(&prompt[..16], 4).expect("timed");
    for time in first.iter().chain(&again).chain([&prefill]) {
        assert!(*time > Duration::ZERO);
    }
    for (tokens, expected) in
        [(vec![], "no tokens"), (vec![1024], "not below 1024"), (vec![1; context as usize + 1], "do not fit")]
    {
        let error = peer.prefill(&tokens).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    peer.decode(&prompt, context).expect_err("too many steps");
    let one = peer.logits(&prompt).expect("logits");
    peer.decode(&[5, 6, 7], 3).expect("timed");
    assert_eq!(peer.logits(&prompt), Ok(one), "nothing of a request is left for the next");
    // Awake, two threads that poll would use 60 ticks in this time.
    let before = ticks(peer.id());
    std::thread::sleep(Duration::from_millis(300));
    assert!(ticks(peer.id()) - before <= 2, "its threads poll between requests");
    // What llama.cpp cannot load is refused in its words.
    let original = root().join("fixtures/golden/b158-stable.gguf");
    let error = Peer::start(&real(Load { model: original, ..load.clone() })).expect_err("I2_S").to_string();
    assert!(
        error.contains("b158-stable.gguf: llama.cpp cannot load it") && error.contains("--arch bitnet"),
        "{error}"
    );
    let error =
        Peer::start(&real(Load { model: "/nonexistent".into(), ..load })).expect_err("no file").to_string();
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn llama_cpp_loads_a_file_without_tokenizer_after_convert() {
    use assay_engine::gguf::{Gguf, Writer};
    use assay_engine::tokenizer::Tokenizer;
    let folder = tempfile::tempdir().expect("folder");
    let bytes = std::fs::read(root().join("fixtures/golden/b158-stable.gguf")).expect("file");
    let gguf = Gguf::parse(&bytes).expect("GGUF");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata() {
        if !key.starts_with("tokenizer.") && !key.ends_with(".vocab_size") {
            writer.put(*key, *value);
        }
    }
    for tensor in gguf.tensors() {
        writer.tensor(tensor.name, tensor.dims.as_slice(), tensor.kind, gguf.data(tensor));
    }
    let (bare, out) = (folder.path().join("bare.gguf"), folder.path().join("out.gguf"));
    std::fs::write(&bare, writer.to_bytes().expect("written")).expect("written");
    let request = Request {
        target: Format::Q2_0,
        fallback: None,
        head: None,
        packing: Packing::default(),
        arch: Some("bitnet"),
    };
    convert::convert(&bare, &out, request).expect("converted");
    let bytes = std::fs::read(&out).expect("file");
    let gguf = Gguf::parse(&bytes).expect("GGUF");
    assert_eq!(gguf.opt_str("tokenizer.ggml.model"), Ok(Some("no_vocab")));
    assert_eq!(gguf.opt_u32("bitnet.vocab_size"), Ok(Some(1024)));
    assert!(matches!(Tokenizer::read(&gguf), Ok(None)), "here too, it has none");
    let Some(libraries) = fetched() else { return };
    let peer = Peer::start(&real(Load { backend: None, ..load(&libraries, &out) })).expect("loaded");
    assert_eq!(peer.facts().vocab, 1024);
}
