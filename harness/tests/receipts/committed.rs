//! What is committed: the schema, the positive examples (from real runs), the negative ones (made from them).

use crate::negatives::check;
use crate::{made_up, root, updating};
use assay_harness::receipts::canonical;
use assay_harness::receipts::envelope::Envelope;
use assay_harness::receipts::examples::{Negative, TestKey, alice, bob, negatives};
use assay_harness::receipts::ledger::{Line, LineType, origin};
use assay_harness::receipts::schema;
use assay_harness::receipts::text::{DateTime, FileName, Sha256Hex};
use assay_harness::receipts::types::{Kind, Statement};
use assay_harness::receipts::verify::{Options, Rule, Verdict, verify};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const HOW: &str = "run: ASSAY_UPDATE=1 cargo test -p assay-harness --test receipts";

#[test]
fn the_schema_is_fresh() {
    let (path, text) = (root().join(schema::PATH), schema::receipt_schema_text());
    if updating() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{} is stale; {HOW}", schema::PATH);
}

#[test]
fn the_schema_is_closed_outside_extensions() {
    fn open_objects(value: &Value, path: &str, found: &mut Vec<String>) {
        if let Value::Object(map) = value {
            if map.contains_key("properties") && map.get("additionalProperties") != Some(&false.into()) {
                found.push(path.to_owned());
            }
            for (key, inner) in map {
                open_objects(inner, &format!("{path}/{key}"), found);
            }
        } else if let Value::Array(items) = value {
            for (index, inner) in items.iter().enumerate() {
                open_objects(inner, &format!("{path}/{index}"), found);
            }
        }
    }
    let mut found = Vec::new();
    open_objects(&schema::receipt_schema(), "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_key_left_out_does_not_fit_the_schema() {
    let validator = jsonschema::validator_for(&schema::receipt_schema()).unwrap();
    for statement in made_up::all() {
        let value = serde_json::to_value(&statement).unwrap();
        assert!(validator.is_valid(&value));
        for key in value["predicate"].as_object().unwrap().keys() {
            let mut without = value.clone();
            without["predicate"].as_object_mut().unwrap().remove(key);
            if ["plugin_results", "audit"].contains(&key.as_str()) {
                continue; // older receipts do not have them
            }
            assert!(!validator.is_valid(&without), "{key}");
        }
    }
}

/// Every `.json` below a folder, sorted.
fn json_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let inner = |path: PathBuf| if path.is_dir() { json_files(&path) } else { vec![path] };
    let files = paths.into_iter().flat_map(inner);
    files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The positive examples, verified.
fn positives() -> Vec<(PathBuf, Statement)> {
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let created = DateTime::parse(value["predicate"]["created"].as_str().unwrap()).unwrap();
        let options =
            Options { file_name: Some(name_of(&path)), now: created.to_unix(), ..Options::default() };
        let report = verify(&bytes, &options);
        assert_eq!(report.decided_by(), None, "{}", path.display());
        assert_eq!(report.verdict, Verdict::Valid, "{}", path.display());
        (path, report.statement.unwrap())
    };
    json_files(&root().join("receipts/examples/positive")).into_iter().map(read).collect()
}

#[test]
fn positive_examples_are_valid_and_fit_the_schema() {
    let text = schema::receipt_schema_text(); // the committed text: `the_schema_is_fresh`
    let validator = jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap();
    let mut kinds = BTreeSet::new();
    for (path, statement) in positives() {
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(validator.is_valid(&value), "{}", path.display());
        let kind = statement.predicate.kind;
        assert_eq!(
            name_of(path.parent().unwrap()),
            kind.as_str(),
            "{} is in another kind's folder",
            path.display()
        );
        kinds.insert(kind);
    }
    let all = BTreeSet::from([Kind::ModelRun, Kind::Parity, Kind::KernelCheck, Kind::PluginCheck]);
    assert!(kinds.is_empty() || kinds == all, "an example of each kind, or none: {kinds:?}");
}

/// Receipts that earlier builds of this version wrote, and their number: none may go, and each must be read for ever.
const COMPATIBLE: usize = 9;

#[test]
fn receipts_of_earlier_builds_are_read_and_are_what_they_were() {
    let paths = json_files(&root().join("receipts/compat/v1"));
    assert_eq!(paths.len(), COMPATIBLE, "receipts are added here, never changed or taken away");
    for path in paths {
        let options = Options { file_name: Some(name_of(&path)), ..Options::default() };
        let report = verify(&std::fs::read(&path).unwrap(), &options);
        assert!(report.statement.is_some(), "{}", path.display());
        // A list of cases may have a new version since; nothing may come to be called tampered with.
        let new_list = report.decided_by().is_some_and(|rule| rule.rule == Rule::KernelResults);
        let expected = if new_list { Verdict::Inconclusive } else { Verdict::Valid };
        assert_eq!(report.verdict, expected, "{}: {:?}", path.display(), report.decided_by());
    }
}

/// The positive examples to make others of: the first of each kind, of parity one with stored logits and one with a live reference, of model
/// runs one that was audited and one that was not.
fn first_of_each_kind() -> Vec<Statement> {
    let kind = |statement: &Statement| {
        let predicate = &statement.predicate;
        let live = predicate.parity.as_ref().is_some_and(|parity| parity.live.is_some());
        (predicate.kind, live, predicate.audit.is_some())
    };
    let mut statements: Vec<_> = positives().into_iter().map(|(_, statement)| statement).collect();
    statements.sort_by_key(kind);
    statements.dedup_by_key(|statement| kind(statement));
    statements
}

/// The files to commit below `receipts/examples`, beside the positive examples that they are made from.
fn made_files() -> (Vec<Negative>, BTreeMap<PathBuf, Vec<u8>>) {
    let (mut examples, mut names) = (Vec::new(), BTreeSet::new());
    for positive in first_of_each_kind() {
        let of_kind = negatives(&positive).unwrap().into_iter();
        examples.extend(of_kind.filter(|negative| negative.is_committed() && names.insert(negative.name)));
    }
    let folder = Path::new("negative");
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for example in &examples {
        files.insert(folder.join(example.name).join(&example.file_name), example.bytes.clone());
        if let Some(ledger) = &example.ledger {
            files.insert(folder.join(example.name).join("ledger.jsonl"), ledger.clone());
        }
    }
    files.insert(folder.join("index.json"), index(&examples));
    for (name, key) in KEYS {
        files.insert(Path::new("keys").join(name), key().public().to_pem().unwrap().into_bytes());
    }
    for statement in first_of_each_kind() {
        let mut envelope = Envelope::around(canonical::to_bytes(&statement).unwrap());
        KEYS.iter().for_each(|(_, key)| envelope.sign(&key()).unwrap());
        let name = canonical::envelope_name(&statement, &canonical::receipt_id(&statement).unwrap());
        files.insert(Path::new("signed").join(name), envelope.to_bytes().unwrap());
    }
    files.insert("ledger.jsonl".into(), ledger());
    (examples, files)
}

/// The keys of the examples, by the files of their public halves.
const KEYS: [(&str, TestKey); 2] = [("alice.pub", alice), ("bob.pub", bob)];

/// A ledger of all positive examples.
fn ledger() -> Vec<u8> {
    let (mut bytes, mut previous) = (Vec::new(), origin());
    for (index, (path, statement)) in positives().into_iter().enumerate() {
        let line = canonical::to_bytes(&Line {
            appended: statement.predicate.created.clone(),
            claim_id: statement.predicate.claim_id.clone(),
            file: FileName::parse(&name_of(&path)).unwrap(),
            index: index as u64,
            kind: statement.predicate.kind,
            previous: previous.clone(),
            receipt_id: canonical::receipt_id(&statement).unwrap(),
            line_type: LineType::V1,
        });
        let line = line.unwrap();
        previous = Sha256Hex::of(&line);
        bytes.extend([&line[..], b"\n"].concat());
    }
    bytes
}

/// What a reader of the folder, in any language, needs to check its own verifier.
fn index(examples: &[Negative]) -> Vec<u8> {
    let entry = |example: &Negative| {
        let key =
            |key: &TestKey| KEYS.iter().find(|(_, known)| known().public() == key().public()).unwrap().0;
        json!({
            "exit_code": example.verdict.exit() as u8,
            "file": format!("{}/{}", example.name, example.file_name),
            "keys": example.keys.iter().map(|of| format!("../keys/{}", key(of))).collect::<Vec<_>>(),
            "ledger": example.ledger.as_ref().map(|_| format!("{}/ledger.jsonl", example.name)),
            "max_age_s": example.max_age,
            "now": example.now,
            "rule": example.rule.name(),
            "strict": example.strict,
            "verdict": example.verdict.name(),
        })
    };
    let mut text = format!("{:#}", Value::Array(examples.iter().map(entry).collect()));
    text.push('\n');
    text.into_bytes()
}

/// Every file below a folder, by its path in it.
fn files_in(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(files_in(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn examples_are_fresh_and_each_negative_one_is_caught_by_its_rule() {
    let (examples, files) = made_files();
    let folder = root().join("receipts/examples");
    let is_made =
        |path: &Path| !["positive", "baseline", "README.md"].into_iter().any(|own| path.starts_with(own));
    if updating() {
        for stale in files_in(&folder).keys().filter(|path| is_made(path)) {
            std::fs::remove_file(folder.join(stale)).unwrap();
        }
        for (path, bytes) in &files {
            std::fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
            std::fs::write(folder.join(path), bytes).unwrap();
        }
    }
    examples.iter().for_each(check);
    let committed: BTreeMap<_, _> = files_in(&folder).into_iter().filter(|(path, _)| is_made(path)).collect();
    let differing =
        files.keys().chain(committed.keys()).find(|path| files.get(*path) != committed.get(*path));
    assert_eq!(differing, None, "stale; {HOW}");
}
