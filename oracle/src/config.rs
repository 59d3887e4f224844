//! Metadata of a file → the sizes of a model, and what the oracle does not compute refused.

use crate::error::{Error, Result, shown};
use crate::gguf::{File, Value};

/// What `general.architecture` may be.
pub(crate) const ARCHITECTURES: [&str; 4] = ["bitnet-b1.58", "bitnet-25", "bitnet", "llama"];

/// Keys (behind the architecture's name) that would change the graph unless they are absent or zero.
const MUST_BE_ZERO: [&str; 6] = [
    "expert_count",
    "attention.sliding_window",
    "attention.scale",
    "logit_scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
];

/// Keys that multiply something; absent, 0 or 1 changes nothing.
const MUST_BE_ONE: [&str; 3] = ["rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor"];

/// Sizes and constants of a model, without its vocabulary, which is the number of rows of the embedding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) embedding: usize,
    pub(crate) layers: usize,
    pub(crate) feed_forward: usize,
    pub(crate) heads: usize,
    pub(crate) key_heads: usize,
    pub(crate) head_size: usize,
    /// `heads * head_size`.
    pub(crate) query_width: usize,
    /// `key_heads * head_size`.
    pub(crate) key_width: usize,
    /// Elements of a head that are rotated; even.
    pub(crate) rope_size: usize,
    pub(crate) rope_base: f64,
    /// Rotates `(2i, 2i + 1)`, as GGUF orders Llama's projections; otherwise `(i, i + rope_size / 2)`.
    pub(crate) rope_neighbours: bool,
    /// RMS norms before the output and down projections.
    pub(crate) sub_norms: bool,
    /// The file may have its own `output.weight`.
    pub(crate) own_head: bool,
    pub(crate) epsilon: f64,
}

impl Config {
    /// # Errors
    ///
    /// - [`Error::Refused`] for an architecture or a setting outside of what `forward.rs` computes
    /// - [`Error::Missing`] and [`Error::Malformed`] for keys that are owed, or do not fit together
    pub(crate) fn read(file: &File) -> Result<Config> {
        let Some(Value::Text(architecture)) = file.metadata.get("general.architecture") else {
            return Err(Error::Missing("key 'general.architecture'".into()));
        };
        if !ARCHITECTURES.contains(&architecture.as_str()) {
            let known = ARCHITECTURES.join(", ");
            return Err(Error::Refused(format!("architecture {}; it has {known}", shown(architecture))));
        }
        let keys = Keys { file, architecture };
        keys.refuse_other_graphs()?;

        let embedding = keys.size("embedding_length", None)?;
        let heads = keys.size("attention.head_count", None)?;
        let key_heads = keys.size("attention.head_count_kv", Some(heads))?;
        let head_size = keys.size("attention.key_length", Some(embedding / heads))?;
        let rope_size = keys.size("rope.dimension_count", Some(head_size))?;
        let rope_base = keys.number("rope.freq_base")?.unwrap_or(10000.0);
        let epsilon = keys.number("attention.layer_norm_rms_epsilon")?;
        let epsilon =
            epsilon.ok_or_else(|| Error::Missing(keys.shown("attention.layer_norm_rms_epsilon")))?;

        keys.hold(
            heads.is_multiple_of(key_heads),
            "attention.head_count_kv",
            "it does not divide the heads",
        )?;
        keys.hold(head_size > 0, "attention.key_length", "a head has no elements")?;
        keys.hold(
            rope_size.is_multiple_of(2) && rope_size <= head_size,
            "rope.dimension_count",
            "odd or too large",
        )?;
        keys.hold(rope_base.is_finite() && rope_base > 0.0, "rope.freq_base", "expected a positive number")?;
        keys.hold(
            epsilon.is_finite() && epsilon >= 0.0,
            "attention.layer_norm_rms_epsilon",
            "negative or NaN",
        )?;
        if keys.size("attention.value_length", Some(head_size))? != head_size {
            return Err(Error::Refused("values of another length than keys".into()));
        }
        let width = |count: usize| {
            let too_large =
                || Error::malformed(keys.shown("attention.key_length"), "the heads are too large");
            count.checked_mul(head_size).ok_or_else(too_large)
        };
        Ok(Config {
            embedding,
            layers: keys.size("block_count", None)?,
            feed_forward: keys.size("feed_forward_length", None)?,
            heads,
            key_heads,
            head_size,
            query_width: width(heads)?,
            key_width: width(key_heads)?,
            rope_size,
            rope_base,
            rope_neighbours: architecture == "llama",
            sub_norms: architecture != "llama",
            own_head: architecture == "llama",
            epsilon,
        })
    }
}

/// The metadata that begin with the architecture's name.
struct Keys<'a> {
    file: &'a File<'a>,
    architecture: &'a str,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.file.metadata.get(&format!("{}.{key}", self.architecture))
    }

    fn shown(&self, key: &str) -> String {
        format!("key '{}.{key}'", self.architecture)
    }

    fn hold(&self, holds: bool, key: &str, problem: &str) -> Result<()> {
        if holds { Ok(()) } else { Err(Error::malformed(self.shown(key), problem)) }
    }

    /// A size, at least 1 if it is in the file.
    fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        match self.get(key) {
            None => default.ok_or_else(|| Error::Missing(self.shown(key))),
            Some(Value::Integer(n)) if (1..=i128::from(u32::MAX)).contains(n) => Ok(*n as usize),
            // A list of sizes, layer by layer, is another graph than the one here, unless all are equal.
            Some(Value::Array(_)) => Err(Error::Refused(format!("{} for each layer", self.shown(key)))),
            Some(_) => Err(Error::malformed(self.shown(key), "expected a number from 1 to 2^32 - 1")),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x)),
            Some(Value::Integer(n)) => Ok(Some(*n as f64)),
            Some(_) => Err(Error::malformed(self.shown(key), "expected a number")),
        }
    }

    fn refuse_other_graphs(&self) -> Result<()> {
        let refused = |key: &str| Error::Refused(format!("{} is set", self.shown(key)));
        for key in MUST_BE_ZERO {
            if self.number(key)?.is_some_and(|x| x != 0.0) {
                return Err(refused(key));
            }
        }
        let scaling = match self.get("rope.scaling.type") {
            Some(Value::Text(name)) => name.as_str(),
            _ => "absent",
        };
        if !matches!(scaling, "absent" | "none" | "linear") {
            return Err(Error::Refused(format!("RoPE scaling {}", shown(scaling))));
        }
        for key in MUST_BE_ONE {
            // The type `none` switches the factor off.
            let ignored = scaling == "none" && key != "rope.scaling.attn_factor";
            if !ignored && self.number(key)?.is_some_and(|x| x != 0.0 && x != 1.0) {
                return Err(refused(key));
            }
        }
        match self.get("attention.causal") {
            None | Some(Value::Bool(true)) => Ok(()),
            Some(_) => Err(Error::Refused("attention that is not causal".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Gguf, small_model};

    fn read(file: &Gguf) -> Result<Config> {
        Config::read(&File::parse(&file.bytes()).unwrap())
    }

    #[test]
    fn sizes_and_defaults() {
        let config = read(&small_model("bitnet")).unwrap();
        assert_eq!((config.query_width, config.key_width, config.rope_size), (4, 2, 2));
        assert_eq!((config.rope_base, config.rope_neighbours, config.sub_norms), (10000.0, false, true));
        let config = read(&small_model("llama")).unwrap();
        assert_eq!((config.rope_neighbours, config.sub_norms, config.own_head), (true, false, true));
    }

    #[test]
    fn other_graphs_are_refused() {
        let model = small_model("bitnet");
        let refused = [
            model.clone().u32("bitnet.expert_count", 8),
            model.clone().u32("bitnet.attention.sliding_window", 4096),
            model.clone().text("bitnet.rope.scaling.type", "yarn"),
            model.clone().f32("bitnet.rope.scaling.factor", 2.0),
            model.clone().raw("bitnet.attention.causal", 7, &[0]),
            model.clone().u32("bitnet.attention.value_length", 4),
            small_model("gpt2"),
        ];
        for file in refused {
            assert_eq!(read(&file).unwrap_err().exit_code(), 3);
        }
        let linear = model.text("bitnet.rope.scaling.type", "linear").f32("bitnet.rope.scaling.factor", 1.0);
        assert!(read(&linear).is_ok());
    }

    #[test]
    fn sizes_that_do_not_fit_together_are_errors() {
        let broken = [
            ("rope.dimension_count", 3),
            ("rope.dimension_count", 4),
            ("attention.key_length", 0),
            ("rope.dimension_count", 0),
        ];
        for (key, value) in broken {
            let file = small_model("bitnet").u32(&format!("bitnet.{key}"), value);
            assert_eq!(read(&file).unwrap_err().exit_code(), 2, "{key} {value}");
        }
        assert!(matches!(read(&Gguf::new()), Err(Error::Missing(_))));
    }
}
