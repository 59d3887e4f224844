//! Hyper-parameters of a model, from GGUF metadata.

use super::arch::{self, Arch};
use crate::error::{Error, Result, shown};
use crate::gguf::Gguf;

/// Largest number that any hyper-parameter, and any row of a matrix, may have: a file that asks for more is damaged or
/// hostile. It keeps every integer dot product in i32: |code| ≤ 3, |q| ≤ 128, and 3 · 128 · 2^22 < 2^31.
pub const LIMIT: u32 = 1 << 22;
const _: () = assert!((LIMIT as u64) * 128 * 3 < 1 << 31);

/// Hyper-parameters, all positive.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What the architecture fixes.
    pub arch: &'static Arch,
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub embedding: usize,
    /// Width of the feed-forward block.
    pub feed_forward: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub heads_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of a head that RoPE turns; even.
    pub rope_dim: usize,
    /// RoPE base, as the file's f32.
    pub rope_base: f32,
    /// Added to the mean square in RMSNorm.
    pub rms_eps: f32,
    /// Tokens in the vocabulary: rows of the embedding.
    pub vocab: usize,
    /// Positions the model was made for.
    pub context: usize,
}

impl Config {
    /// Reads and checks the hyper-parameters of `gguf`.
    ///
    /// # Errors
    /// - [`Error::Metadata`] or a missing key, for anything that cannot be run exactly: an unknown architecture, a number
    ///   out of range, heads that do not divide, RoPE scaling, experts.
    pub fn read(gguf: &Gguf<'_>) -> Result<Config> {
        let arch = arch::find(gguf.str("general.architecture")?)?;
        let key = |name: &str| format!("{}.{name}", arch.name);
        let size = |name: &str| positive(gguf, &key(name));
        let optional = |name: &str, default: usize| match gguf.opt_u32(&key(name))? {
            Some(_) => size(name),
            None => Ok(default),
        };
        refuse_what_is_not_in_the_contract(gguf, arch)?;
        let (embedding, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let heads_kv = optional("attention.head_count_kv", heads)?;
        let head_dim = optional("attention.key_length", embedding / heads)?;
        let config = Config {
            arch,
            layers: size("block_count")?,
            embedding,
            feed_forward: size("feed_forward_length")?,
            heads,
            heads_kv,
            head_dim,
            rope_dim: optional("rope.dimension_count", head_dim)?,
            rope_base: gguf.opt_f32(&key("rope.freq_base"))?.unwrap_or(10_000.0),
            rms_eps: gguf.f32(&key("attention.layer_norm_rms_epsilon"))?,
            vocab: vocab(gguf, &key("vocab_size"))?,
            context: size("context_length")?,
        };
        config.check(optional("attention.value_length", head_dim)?)?;
        Ok(config)
    }

    fn check(&self, value_dim: usize) -> Result<()> {
        let name = self.arch.name;
        let bad = |key: &str, problem, expected: String, got: String| {
            Err(Error::Metadata { key: format!("{name}.{key}"), problem, expected, got })
        };
        let divides = |n: usize, of: usize| of.is_multiple_of(n);
        if !divides(self.heads_kv, self.heads) {
            let expected = format!("a divisor of {} query heads", self.heads);
            return bad(
                "attention.head_count_kv",
                "heads do not divide",
                expected,
                self.heads_kv.to_string(),
            );
        }
        if self.head_dim == 0 || value_dim != self.head_dim {
            let expected = format!("{} (the key length)", self.head_dim.max(1));
            return bad("attention.value_length", "keys and values differ", expected, value_dim.to_string());
        }
        if self.query_width() > LIMIT as usize {
            let expected = format!("heads x key length up to {LIMIT}");
            return bad(
                "attention.head_count",
                "the heads are too wide",
                expected,
                self.query_width().to_string(),
            );
        }
        if self.rope_dim > self.head_dim || !divides(2, self.rope_dim) {
            let expected = format!("an even number up to {}", self.head_dim);
            return bad("rope.dimension_count", "cannot be rotated", expected, self.rope_dim.to_string());
        }
        if !(self.rope_base.is_finite() && self.rope_base > 0.0) {
            return bad(
                "rope.freq_base",
                "not a base",
                "a positive number".into(),
                self.rope_base.to_string(),
            );
        }
        if !(self.rms_eps.is_finite() && self.rms_eps >= 0.0) {
            let expected = "a number from 0".to_owned();
            let got = self.rms_eps.to_string();
            return bad("attention.layer_norm_rms_epsilon", "not an epsilon", expected, got);
        }
        Ok(())
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads (or value heads) together.
    pub fn kv_width(&self) -> usize {
        self.heads_kv * self.head_dim
    }
}

fn positive(gguf: &Gguf<'_>, key: &str) -> Result<usize> {
    let value = gguf.u32(key)?;
    if !(1..=LIMIT).contains(&value) {
        return Err(Error::Metadata {
            key: key.to_owned(),
            problem: "out of range",
            expected: format!("1 to {LIMIT}"),
            got: value.to_string(),
        });
    }
    Ok(value as usize)
}

/// Rows of the embedding; `vocab_size`, where the metadata have it, must say the same.
fn vocab(gguf: &Gguf<'_>, key: &str) -> Result<usize> {
    let tensor = gguf.tensor("token_embd.weight").ok_or_else(|| Error::MissingTensor {
        tensor: "token_embd.weight".to_owned(),
        architecture: "every model".to_owned(),
    })?;
    let rows = tensor.rows();
    if rows > u64::from(LIMIT) {
        return Err(Error::Shape {
            name: "tensor 'token_embd.weight'".to_owned(),
            problem: "absurd vocabulary".to_owned(),
            expected: format!("up to {LIMIT} rows"),
            got: rows.to_string(),
        });
    }
    match gguf.opt_u32(key)? {
        Some(said) if u64::from(said) != rows => Err(Error::Metadata {
            key: key.to_owned(),
            problem: "not the rows of 'token_embd.weight'",
            expected: rows.to_string(),
            got: said.to_string(),
        }),
        _ => Ok(rows as usize),
    }
}

/// Keys that change the arithmetic in ways that the contract does not describe: ignoring one would give wrong logits
/// silently. A value that changes nothing is accepted: files of the official 2B-4T model say "linear scaling by 1".
fn refuse_what_is_not_in_the_contract(gguf: &Gguf<'_>, arch: &Arch) -> Result<()> {
    let key = |name: &str| format!("{}.{name}", arch.name);
    let refuse = |name: &str, expected: &str, got: String| {
        let problem = "this changes the graph in a way that exact-v1 does not describe";
        Err(Error::Metadata { key: key(name), problem, expected: expected.to_owned(), got })
    };
    let scaling = gguf.opt_str(&key("rope.scaling.type"))?;
    if let Some(kind) = scaling
        && !["none", "linear"].contains(&kind)
    {
        return refuse("rope.scaling.type", "none, linear or absent", shown(kind));
    }
    for (name, neutral) in NEUTRAL {
        let without_scaling = scaling == Some("none") && name.starts_with("rope.");
        if let Some(value) = gguf.opt_f32(&key(name))?
            && value != neutral
            && !without_scaling
            && !(value == 0.0 && ["rope.scaling.factor", "rope.scale_linear"].contains(&name))
        {
            return refuse(name, &format!("{neutral} or absent"), value.to_string());
        }
    }
    for name in ["expert_count", "attention.sliding_window"] {
        if let Some(n) = gguf.opt_u32(&key(name))?
            && n != 0
        {
            return refuse(name, "0 or absent", n.to_string());
        }
    }
    match gguf.opt_bool(&key("attention.causal"))? {
        Some(false) => refuse("attention.causal", "true or absent", "false".to_owned()),
        _ => Ok(()),
    }
}

/// Factors, and the value of each that changes nothing.
const NEUTRAL: [(&str, f32); 7] = [
    ("rope.scaling.factor", 1.0),
    ("rope.scale_linear", 1.0),
    ("rope.scaling.attn_factor", 1.0),
    ("attention.scale", 0.0),
    ("logit_scale", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
];
