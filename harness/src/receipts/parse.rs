//! Bytes of strangers → JSON value, with nothing lost on the way: what serde_json would pass over (a key given
//! twice, a float, an integer that a float cannot hold) is reported beside the value.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// The largest integer that every JSON reader holds exactly: 2^53 − 1.
pub(super) const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// What was read, and what was odd about it.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// The value; of a key given twice, the last.
    pub(super) value: Value,
    /// The first key given twice in one object.
    pub(super) duplicate: Option<String>,
    /// The first number that is not an integer of at most 2^53 − 1 in magnitude.
    pub(super) number: Option<String>,
}

/// Reads strict JSON.
///
/// # Errors
/// - What is wrong and where, if the bytes are not UTF-8, not JSON, or more than one value.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    let mut parsed = Parsed::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Seed(&mut parsed).deserialize(&mut reader).map_err(|error| format!("not JSON: {error}"))?;
    reader.end().map_err(|error| format!("not one JSON value: {error}"))?;
    parsed.value = value;
    Ok(parsed)
}

/// How deep arrays and objects are nested, without recursion, in bytes that need not be JSON; stops counting
/// one past `limit`.
pub(super) fn depth(bytes: &[u8], limit: usize) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        if deepest > limit {
            break;
        }
    }
    deepest
}

struct Seed<'a>(&'a mut Parsed);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        if value > MAX_SAFE_INTEGER {
            self.0.number.get_or_insert_with(|| format!("{value} is past 2^53 - 1"));
        }
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > MAX_SAFE_INTEGER {
            self.0.number.get_or_insert_with(|| format!("{value} is past -(2^53 - 1)"));
        }
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        self.0.number.get_or_insert_with(|| format!("{value:?} is a float or past 64 bits"));
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Seed(self.0))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(Key(key)) = entries.next_key()? {
            let value = entries.next_value_seed(Seed(self.0))?;
            if map.contains_key(&key) {
                self.0.duplicate.get_or_insert_with(|| key.chars().take(80).collect());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// An object's key; a string and nothing else.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        String::deserialize(deserializer).map(Key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_json_passes_over_is_reported() {
        let odd = |text: &str| {
            let parsed = parse(text.as_bytes()).unwrap();
            (parsed.duplicate.is_some(), parsed.number.is_some())
        };
        assert_eq!(odd(r#"{"a":[1,{"b":9007199254740991}],"c":"1.5"}"#), (false, false));
        assert_eq!(odd(r#"[{"a":1},{"a":1}]"#), (false, false));
        assert_eq!(odd(r#"{"a":1,"b":{"c":1,"c":1}}"#), (true, false));
        assert_eq!(odd(r#"{"a":1,"\u0061":1}"#), (true, false));
        for number in ["1.0", "1e0", "-0", "9007199254740992", "-9007199254740992", "18446744073709551616"] {
            assert_eq!(odd(number), (false, true), "{number}");
        }
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for text in ["", "{", "{}{}", "NaN", "{\"a\":NaN}", "[1,]", "01", "'a'", "1e999", "\u{feff}{}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert_eq!(depth(br#"{"a]]\"[[[":[[1],[2]]}"#, 100), 3);
        assert_eq!(depth(&[b'['; 1000], 10), 11);
        assert_eq!(depth(b"]]]][", 10), 1);
    }
}
