//! The JSON Schema (2020-12) of a receipt, generated from the types and committed in `schemas/`.

use super::types::Statement;
use schemars::Schema;
use serde_json::Value;
use std::sync::LazyLock;

/// The committed file, from the root of the repository.
pub const PATH: &str = "schemas/receipt-v1.schema.json";

/// Keys that came after the first receipts of this version: absent, never `null`, where they do not apply.
const OPTIONAL: [&str; 7] =
    ["plugin_results", "live", "trace", "audit", "compiled_features", "rustc_verbose", "accelerator"];

static VALIDATOR: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    jsonschema::draft202012::new(&receipt_schema())
        .expect("a schema generated from our own types is a valid schema")
});

/// The schema of [`Statement`]. Stricter than what schemars makes of the types in two ways: every key is
/// required (what is absent is `null`, so there is one form) but those of `OPTIONAL`, and u32 has its maximum.
pub fn receipt_schema() -> Value {
    let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<Statement>();
    strict(&mut schema);
    schema.insert("title".into(), "Assay receipt, version 1".into());
    schema.into()
}

fn strict(schema: &mut Schema) {
    schemars::transform::transform_subschemas(&mut strict, schema);
    let keys = schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|map| map.keys().cloned().collect::<Vec<_>>());
    if let Some(mut keys) = keys {
        keys.retain(|key| !OPTIONAL.contains(&key.as_str()));
        keys.sort();
        schema.insert("required".into(), keys.into());
    }
    if schema.get("format").is_some_and(|format| format == "uint32") {
        schema.remove("format");
        schema.insert("maximum".into(), u32::MAX.into());
    }
}

/// The schema as it is committed: keys sorted, indented, one line feed at the end.
pub fn receipt_schema_text() -> String {
    let mut text = format!("{:#}", sorted(&receipt_schema()));
    text.push('\n');
    text
}

/// The first place where `value` does not fit the schema: a JSON pointer and what is wrong there.
pub(super) fn first_misfit(value: &Value) -> Option<String> {
    let error = VALIDATOR.iter_errors(value).next()?;
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "the top" } else { &place };
    Some(format!("at {}: {}", cut(place, 100), cut(&error.masked().to_string(), 200)))
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The same value with every object's keys in order: serde_json keeps the order of insertion or sorts, as
/// another crate of the build pleases (its feature `preserve_order`).
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            Value::Object(entries.into_iter().map(|(key, inner)| (key.clone(), sorted(inner))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
