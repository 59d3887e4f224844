//! What is read and written as JSON: version 1 of `docs/reference-protocol.md`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result, shown};
use crate::forward::{Activation, Attention};

/// The version that this program speaks.
pub(crate) const PROTOCOL: u64 = 1;

/// What is asked for. Fields that this program does not know are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) model: String,
    activation: String,
    pub(crate) threads: usize,
    pub(crate) sequences: Vec<Asked>,
}

/// A sequence of a [`Request`].
#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    pub(crate) id: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) steps: u32,
    pub(crate) tensors: BTreeSet<String>,
}

impl Request {
    /// # Errors
    ///
    /// - [`Error::Refused`] for another version of the protocol, or a gate that this program does not have
    /// - [`Error::Request`] for everything else that does not fit the protocol
    pub(crate) fn parse(text: &str) -> Result<Request> {
        let invalid = |error: serde_json::Error| Error::Request(error.to_string());
        // The version first: what else a request of another version holds, this program cannot know.
        let value: Value = serde_json::from_str(text).map_err(invalid)?;
        match value.get("protocol").map(Value::as_u64) {
            Some(Some(PROTOCOL)) => {}
            Some(Some(other)) => {
                return Err(Error::Refused(format!("protocol {other}; it speaks {PROTOCOL}")));
            }
            _ => return Err(Error::Request("'protocol' is not a version".into())),
        }
        let request: Request = serde_json::from_value(value).map_err(invalid)?;
        request.activation()?;
        let mut ids = BTreeSet::new();
        for asked in &request.sequences {
            asked.check()?;
            if !ids.insert(&asked.id) {
                return Err(Error::Request(format!("sequence {} is asked for twice", shown(&asked.id))));
            }
        }
        Ok(request)
    }

    /// The gate that is asked for.
    pub(crate) fn activation(&self) -> Result<Activation> {
        match self.activation.as_str() {
            "relu2" => Ok(Activation::Relu2),
            "silu" => Ok(Activation::Silu),
            other => Err(Error::Refused(format!("activation {}", shown(other)))),
        }
    }
}

impl Asked {
    /// The id becomes part of file names, so nothing but what the protocol allows is let through.
    fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.id.is_empty() || !self.id.chars().all(plain) {
            return Err(Error::Request(format!("{} is no id: letters, digits and '-'", shown(&self.id))));
        }
        if self.tokens.is_empty() {
            return Err(Error::Request(format!("sequence {} has no tokens", shown(&self.id))));
        }
        Ok(())
    }
}

/// Who computed a result.
#[derive(Debug, Serialize)]
pub(crate) struct Reference {
    name: &'static str,
    version: &'static str,
    build: &'static str,
}

impl Reference {
    /// This program, with attention as it was asked for.
    pub(crate) fn this(attention: Attention) -> Reference {
        let build = match attention {
            Attention::F64 => "f64, no code shared with the engine",
            Attention::F16 => "f64 with attention rounded to f16, no code shared with the engine",
        };
        Reference { name: "oracle", version: env!("CARGO_PKG_VERSION"), build }
    }
}

/// `result.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    pub(crate) protocol: u64,
    pub(crate) reference: Reference,
    pub(crate) feeding: &'static str,
    pub(crate) notes: Vec<String>,
    pub(crate) sequences: Vec<Answered>,
}

/// A sequence of an [`Answer`].
#[derive(Debug, Serialize)]
pub(crate) struct Answered {
    pub(crate) id: String,
    pub(crate) generated: Vec<u32>,
    /// File of the logits.
    pub(crate) logits: String,
    /// Names of tensors and their files.
    pub(crate) tensors: BTreeMap<String, String>,
}

/// What `describe` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Description {
    pub(crate) protocol: u64,
    pub(crate) reference: Reference,
    pub(crate) architectures: &'static [&'static str],
    pub(crate) tensors: &'static [&'static str],
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"protocol": 1, "model": "m", "activation": "silu", "threads": 1,
        "sequences": [{"id": "a-1", "tokens": [1], "steps": 0, "tensors": []}]}"#;

    fn code(from: &str, to: &str) -> i32 {
        assert!(GOOD.contains(from));
        Request::parse(&GOOD.replace(from, to)).unwrap_err().exit_code()
    }

    #[test]
    fn requests_outside_of_the_protocol() {
        let request = Request::parse(GOOD).unwrap();
        assert_eq!((request.activation().unwrap(), request.sequences.len()), (Activation::Silu, 1));
        assert_eq!(code("\"protocol\": 1", "\"protocol\": 2"), 3);
        assert_eq!(code("silu", "gelu"), 3);
        for (from, to) in [
            ("\"protocol\": 1", "\"protocol\": \"1\""),
            ("\"protocol\": 1,", ""),
            ("a-1", ""),
            ("a-1", "../a"),
            ("[1]", "[]"),
            ("[1]", "[-1]"),
            ("[1]", "[4294967296]"),
            ("\"steps\": 0", "\"steps\": 1e99"),
            ("\"threads\": 1", "\"threads\": -1"),
            ("}]}", "}"),
        ] {
            assert_eq!(code(from, to), 2, "{to}");
        }
        let one = r#"{"id": "a-1", "tokens": [1], "steps": 0, "tensors": []}"#;
        assert_eq!(code(one, &format!("{one}, {one}")), 2);
    }

    #[test]
    fn another_version_is_refused_whatever_else_it_holds() {
        assert_eq!(Request::parse(r#"{"protocol": 7, "new": true}"#).unwrap_err().exit_code(), 3);
    }
}
