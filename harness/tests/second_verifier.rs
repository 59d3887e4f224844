//! `scripts/verify_receipt.py` shares no code with the verifier, and must give the same outcome for every rule of every example.
#![expect(clippy::print_stderr, reason = "says what was skipped")]

use assay_harness::receipts::keys::PublicKey;
use assay_harness::receipts::types::Statement;
use assay_harness::receipts::verify::{Chain, Options, Rule, verify};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// One file, and what it is verified with.
#[derive(Debug, Clone, Default)]
struct Task {
    file: PathBuf,
    keys: Vec<PathBuf>,
    ledger: Option<PathBuf>,
    strict: bool,
    max_age: Option<u64>,
    now: u64,
}

impl Task {
    fn options(&self) -> Options {
        Options {
            file_name: Some(self.file.file_name().unwrap().to_str().unwrap().to_owned()),
            keys: self.keys.iter().map(|path| PublicKey::open(path).unwrap()).collect(),
            chain: self
                .ledger
                .as_ref()
                .map_or(Chain::NotAsked, |path| Chain::read(&fs::read(path).unwrap(), None)),
            strict: self.strict,
            max_age: self.max_age,
            now: self.now,
            ..Options::default()
        }
    }

    /// What the script is given beside the file.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--json".to_owned(), "--now".to_owned(), self.now.to_string()];
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        self.keys.iter().for_each(|key| add("--key", key.display().to_string()));
        self.ledger.iter().for_each(|path| add("--ledger", path.display().to_string()));
        self.max_age.iter().for_each(|age| add("--max-age-s", age.to_string()));
        arguments.extend(self.strict.then(|| "--strict".to_owned()));
        arguments
    }
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(json_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "json") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every example, and some in ways that no index names.
fn corpus() -> Vec<Task> {
    const LATER: u64 = 1_900_000_000;
    let examples = root().join("receipts/examples");
    let key = |name: &str| examples.join("keys").join(name);
    let plain = |file: PathBuf| Task { file, now: LATER, ..Task::default() };
    let mut tasks = Vec::new();
    for folder in [examples.join("positive"), examples.join("baseline"), root().join("receipts/compat")] {
        tasks.extend(json_files(&folder).into_iter().map(plain));
    }
    for file in json_files(&examples.join("positive")) {
        let ledger = Some(examples.join("ledger.jsonl"));
        tasks.push(Task { ledger, strict: true, max_age: Some(86_400), ..plain(file) });
    }
    for file in json_files(&examples.join("signed")) {
        for keys in [vec![], vec![key("alice.pub")], vec![key("alice.pub"), key("bob.pub")]] {
            tasks.push(Task { keys, ..plain(file.clone()) });
        }
    }
    let negative = examples.join("negative");
    let index: Value = serde_json::from_slice(&fs::read(negative.join("index.json")).unwrap()).unwrap();
    for entry in index.as_array().unwrap() {
        let path = |value: &Value| Some(negative.join(value.as_str()?));
        tasks.push(Task {
            file: path(&entry["file"]).unwrap(),
            keys: entry["keys"].as_array().unwrap().iter().filter_map(path).collect(),
            ledger: path(&entry["ledger"]),
            strict: entry["strict"] == true,
            max_age: entry["max_age_s"].as_u64(),
            now: entry["now"].as_u64().unwrap(),
        });
    }
    tasks
}

/// (verdict, rule and outcome and consequence of each) as both say it.
fn said(report: &Value) -> (String, Vec<[String; 3]>) {
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let rule = |rule: &Value| [text(&rule["rule"]), text(&rule["outcome"]), text(&rule["consequence"])];
    (text(&report["verdict"]), report["rules"].as_array().unwrap().iter().map(rule).collect())
}

/// What the script says of files that are verified with the same arguments.
fn python(arguments: &[String], tasks: &[Task]) -> Vec<Value> {
    let script = root().join("scripts/verify_receipt.py");
    let files = tasks.iter().map(|task| &task.file);
    let output = Command::new("python3").arg("-I").arg(script).args(arguments).args(files).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Tasks by what they are verified with: Python takes longer to start than to verify.
fn by_arguments(tasks: Vec<Task>) -> BTreeMap<Vec<String>, Vec<Task>> {
    let mut groups = BTreeMap::<_, Vec<Task>>::new();
    for task in tasks {
        groups.entry(task.arguments()).or_default().push(task);
    }
    groups
}

fn ours(task: &Task) -> (String, Vec<[String; 3]>) {
    let report = verify(&fs::read(&task.file).unwrap(), &task.options());
    said(&serde_json::to_value(&report).unwrap())
}

#[test]
fn both_verifiers_say_the_same_of_every_rule_of_every_example() {
    let has = |code: &str| {
        Command::new("python3").args(["-I", "-c", code]).output().is_ok_and(|o| o.status.success())
    };
    if !has("import sys; assert sys.version_info >= (3, 9)") {
        eprintln!("skipped: no Python 3.9 or later: the second verifier was not run");
        return;
    }
    let signatures = has("import cryptography");
    if !signatures {
        eprintln!("skipped: no Python package cryptography: signatures were not checked a second time");
    }
    let tasks = corpus();
    assert!(tasks.len() > 100, "{} examples", tasks.len());
    for (arguments, tasks) in by_arguments(tasks) {
        for (task, theirs) in tasks.iter().zip(python(&arguments, &tasks)) {
            let (ours, theirs) = (ours(task), said(&theirs));
            let is_signed = task.file.to_str().unwrap().ends_with(".dsse.json");
            if is_signed && !task.keys.is_empty() && !signatures {
                assert_ne!(theirs.0, "VALID", "{task:?}: a signature that could not be checked");
                continue;
            }
            assert_eq!(theirs, ours, "{task:?}");
            assert_eq!(ours.1.len(), Rule::ALL.len());
        }
    }
}

#[test]
fn both_verifiers_say_the_same_of_broken_bytes() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: no Python: the second verifier was not run");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let good = json_files(&root().join("receipts/examples/positive/model-run")).remove(0);
    let bytes = fs::read(&good).unwrap();
    let now = serde_json::from_slice::<Statement>(&bytes).unwrap().predicate.created.to_unix();
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut tasks = Vec::new();
    for n in 0..300 {
        let mut broken = bytes.clone();
        match random(3) {
            0 => broken[random(bytes.len())] ^= 1 << random(8),
            1 => broken.truncate(random(bytes.len())),
            _ => {
                let at = random(bytes.len());
                let patch =
                    [&b"\"\\ud800\""[..], b"1e999", b"[[[[", b"-0", b"NaN", b"\x01", b"9007199254740993"];
                let patch = patch[random(7)];
                broken.splice(at..at, patch.iter().copied());
            }
        }
        // Under the good one's name, each in a folder of its own.
        let file = folder.path().join(n.to_string()).join(good.file_name().unwrap());
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, &broken).unwrap();
        tasks.push(Task { file, now, ..Task::default() });
    }
    for (task, theirs) in tasks.iter().zip(python(&tasks[0].arguments(), &tasks)) {
        assert_eq!(said(&theirs), ours(task), "{}", task.file.display());
    }
}
