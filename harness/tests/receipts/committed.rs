//! What is committed: the schema, the positive examples (from real runs), the negative ones (made from them).

use crate::negatives::check;
use crate::{made_up, root, updating};
use assay_harness::receipts::examples::{Negative, negatives};
use assay_harness::receipts::schema;
use assay_harness::receipts::text::DateTime;
use assay_harness::receipts::types::{Kind, Statement};
use assay_harness::receipts::verify::{Options, Verdict, verify};
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
            if key == "plugin_results" {
                continue; // older receipts do not have it: the rule on kinds looks for it
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

/// The files to commit below `negative/`: made from the first positive example of each kind, stored and live parity being two.
fn negative_files() -> (Vec<Negative>, BTreeMap<PathBuf, Vec<u8>>) {
    let (mut examples, mut names, mut kinds) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut positives = positives();
    let kind = |statement: &Statement| {
        let live = statement.predicate.parity.as_ref().is_some_and(|parity| parity.live.is_some());
        (statement.predicate.kind, live)
    };
    positives.sort_by_key(|(_, statement)| kind(statement));
    for (_, positive) in positives {
        if kinds.insert(kind(&positive)) {
            let of_kind = negatives(&positive).unwrap().into_iter();
            examples
                .extend(of_kind.filter(|negative| negative.is_committed() && names.insert(negative.name)));
        }
    }
    let folder = root().join("receipts/examples/negative");
    let path = |negative: &Negative| folder.join(negative.name).join(&negative.file_name);
    let mut files: BTreeMap<_, _> =
        examples.iter().map(|example| (path(example), example.bytes.clone())).collect();
    files.insert(folder.join("index.json"), index(&examples));
    (examples, files)
}

/// What a reader of the folder, in any language, needs to check its own verifier.
fn index(examples: &[Negative]) -> Vec<u8> {
    let entry = |example: &Negative| {
        json!({
            "exit_code": example.verdict.exit_code(),
            "file": format!("{}/{}", example.name, example.file_name),
            "max_age_s": example.max_age,
            "rule": example.rule.name(),
            "verdict": example.verdict.name(),
        })
    };
    let mut text = format!("{:#}", Value::Array(examples.iter().map(entry).collect()));
    text.push('\n');
    text.into_bytes()
}

#[test]
fn negative_examples_are_fresh_and_each_is_caught_by_its_rule() {
    let (examples, files) = negative_files();
    let folder = root().join("receipts/examples/negative");
    if updating() {
        for stale in json_files(&folder) {
            std::fs::remove_file(stale).unwrap();
        }
        for (path, bytes) in &files {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    examples.iter().for_each(check);
    let committed: BTreeMap<_, _> =
        json_files(&folder).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let differing =
        files.keys().chain(committed.keys()).find(|path| files.get(*path) != committed.get(*path));
    assert_eq!(differing, None, "stale; {HOW}");
}
