//! What parity asks for: one table, with reasons. A file may ask for something else; the receipt says which it was.

use super::{Error, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// Longest file of thresholds.
const FILE_MAX: usize = 1 << 16;

/// The table. Every field may stand in a file; those that do not keep these values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Smallest cosine of two rows of logits. Two float implementations of one graph agree to the last digits until one int8 rounding flips;
    /// 0.9999 is what that costs at worst on models that behave like trained ones.
    pub cosine_min: f64,
    /// The same for a chaotic model: one whose own logits fall below `cosine_min` of themselves when only roundings change.
    pub cosine_min_chaotic: f64,
    /// A difference of tokens is a tie if the gap between the two candidates, in the engine's logits, is at most this many times the largest
    /// change of a logit of that row when only roundings change. 2: both candidates may move, in opposite directions.
    pub tie_factor: f64,
    /// Part of a model's operations that must have been compared, each on the reference's own input, where the logits of a model say nothing: its
    /// own fall below `cosine_min_chaotic` of themselves when only roundings change.
    pub operations_min: f64,
    /// Largest normalised mean squared error of one operation on the reference's own input, where only roundings may differ: norms, rotation, gate,
    /// sums, the embedding.
    pub nmse_exact: f64,
    /// The same for a matrix product: an activation that is rounded the other way to int8 is 1/127 of the largest in its block.
    pub nmse_product: f64,
    /// The same for attention: keys, values and weights that are kept in f16, or not.
    pub nmse_attention: f64,
    /// A known mistake explains a reference if its distance from the engine with that mistake, `1 − cosine`, is at most this part of the
    /// distance from the correct engine.
    pub explains: f64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds {
            cosine_min: 0.9999,
            cosine_min_chaotic: 0.999,
            tie_factor: 2.0,
            operations_min: 0.75,
            nmse_exact: 1e-9,
            nmse_product: 1e-4,
            nmse_attention: 1e-6,
            explains: 0.1,
        }
    }
}

impl Thresholds {
    /// The smallest cosine that is asked for of a model whose own logits, when only roundings change, have `own` with themselves.
    pub fn cosine_of(&self, own: f64) -> f64 {
        if own < self.cosine_min { self.cosine_min_chaotic } else { self.cosine_min }
    }

    /// The logits of such a model say nothing: roundings alone take them further than is allowed of any.
    pub fn unstable(&self, own: f64) -> bool {
        own < self.cosine_min_chaotic
    }
}

/// Thresholds, and where they come from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Asked {
    /// The values.
    pub values: Thresholds,
    /// SHA-256 of the file that they come from; `None` for the table.
    pub file_sha256: Option<String>,
}

impl Asked {
    /// Reads a file.
    ///
    /// # Errors
    /// - [`Error::Thresholds`] if it is missing, no such JSON, or holds a value that is no bound.
    pub fn read(path: &Path) -> Result<Asked> {
        let bad = |problem: String| Error::Thresholds { path: path.display().to_string(), problem };
        let text = files::read(path, FILE_MAX)?;
        let values: Thresholds = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        let Thresholds { cosine_min, cosine_min_chaotic, tie_factor, .. } = values;
        let Thresholds { nmse_exact, nmse_product, nmse_attention, explains, .. } = values;
        if !(0.0..=1.0).contains(&values.operations_min) {
            return Err(bad(format!("operations_min is {}, a part is 0 to 1", values.operations_min)));
        }
        for (name, value) in [("cosine_min", cosine_min), ("cosine_min_chaotic", cosine_min_chaotic)] {
            if !(-1.0..=1.0).contains(&value) {
                return Err(bad(format!("{name} is {value}, a cosine is -1 to 1")));
            }
        }
        if cosine_min_chaotic > cosine_min {
            return Err(bad(format!(
                "cosine_min_chaotic is {cosine_min_chaotic}, expected at most cosine_min ({cosine_min})"
            )));
        }
        let others = [
            ("tie_factor", tie_factor),
            ("nmse_exact", nmse_exact),
            ("nmse_product", nmse_product),
            ("nmse_attention", nmse_attention),
            ("explains", explains),
        ];
        for (name, value) in others {
            if !(value.is_finite() && value >= 0.0) {
                return Err(bad(format!("{name} is {value}, expected a number from 0")));
            }
        }
        Ok(Asked { values, file_sha256: Some(hex::encode(Sha256::digest(&text))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("thresholds.json");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("write");
            Asked::read(&path)
        };
        let asked = read(r#"{"cosine_min": 0.9995}"#).expect("thresholds");
        assert_eq!(asked.values, Thresholds { cosine_min: 0.9995, ..Thresholds::default() });
        assert_eq!(asked.file_sha256.expect("a digest").len(), 64);
        for (text, expected) in [
            ("{", "EOF"),
            (r#"{"cosine": 1}"#, "unknown field"),
            (r#"{"cosine_min": 2}"#, "a cosine is -1 to 1"),
            (r#"{"cosine_min": 0.5}"#, "at most cosine_min (0.5)"),
            (r#"{"tie_factor": -1}"#, "expected a number from 0"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(expected) && error.contains("thresholds.json"), "{error}");
        }
        assert!(Asked::read(Path::new("/nonexistent")).is_err());
    }
}
