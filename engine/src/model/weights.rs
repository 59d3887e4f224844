//! Names and shapes of every tensor, in one table, and the weights of a model in file order.

use super::config::Config;
use crate::error::{Error, Result, shown};
use crate::gguf::Gguf;
use crate::quant::Format;
use crate::tensor::Matrix;
use std::collections::BTreeSet;

/// A linear layer: `y = W x`, times `extra_scale` where the file has a `.scale` tensor.
#[derive(Debug, Clone)]
pub struct Linear<'a> {
    /// The weights, `(outputs, inputs)`.
    pub w: Matrix<'a>,
    /// One further multiplication of `y`.
    pub extra_scale: Option<f32>,
}

/// The weights of one transformer block.
#[derive(Debug, Clone)]
pub struct Layer<'a> {
    /// Before attention, `(embedding)`.
    pub attn_norm: Vec<f32>,
    /// Queries, `(heads · head_dim, embedding)`.
    pub attn_q: Linear<'a>,
    /// Keys, `(heads_kv · head_dim, embedding)`.
    pub attn_k: Linear<'a>,
    /// Values, `(heads_kv · head_dim, embedding)`.
    pub attn_v: Linear<'a>,
    /// Before `attn_output`, `(heads · head_dim)`, where the architecture has sub-norms.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// Back to the residual stream, `(embedding, heads · head_dim)`.
    pub attn_output: Linear<'a>,
    /// Before the feed-forward block, `(embedding)`.
    pub ffn_norm: Vec<f32>,
    /// Up, `(feed_forward, embedding)`.
    pub ffn_up: Linear<'a>,
    /// Gate, `(feed_forward, embedding)`.
    pub ffn_gate: Linear<'a>,
    /// Before `ffn_down`, `(feed_forward)`, where the architecture has sub-norms.
    pub ffn_sub_norm: Option<Vec<f32>>,
    /// Down, `(embedding, feed_forward)`.
    pub ffn_down: Linear<'a>,
}

impl<'a> Layer<'a> {
    /// The linear layers, in the order in which a token meets them.
    pub fn linears(&self) -> [&Linear<'a>; 7] {
        [
            &self.attn_q,
            &self.attn_k,
            &self.attn_v,
            &self.attn_output,
            &self.ffn_up,
            &self.ffn_gate,
            &self.ffn_down,
        ]
    }
}

/// All weights.
#[derive(Debug, Clone)]
pub struct Weights<'a> {
    /// `(vocab, embedding)`, dense.
    pub embedding: Matrix<'a>,
    /// The blocks.
    pub layers: Vec<Layer<'a>>,
    /// Before the head, `(embedding)`.
    pub output_norm: Vec<f32>,
    /// `(vocab, embedding)`; the embedding where the file or the architecture has no `output.weight`.
    pub head: Linear<'a>,
    /// Divisors of the RoPE angles, `(rope_dim / 2)`.
    pub rope_freqs: Option<Vec<f32>>,
}

impl<'a> Weights<'a> {
    /// Finds, shapes and validates every tensor that the architecture needs, and refuses tensors it does not know.
    ///
    /// # Errors
    /// - a tensor is missing, misshaped, of a type the operation cannot take, damaged, or unknown.
    pub fn read(gguf: &Gguf<'a>, config: &Config) -> Result<Weights<'a>> {
        let mut reader = Reader { gguf, config, used: BTreeSet::new() };
        let embedding = reader.dense("token_embd.weight", config.vocab, config.embedding)?;
        let own_head = config.arch.own_head && gguf.tensor("output.weight").is_some();
        let weights = Weights {
            layers: (0..config.layers).map(|i| reader.layer(i)).collect::<Result<_>>()?,
            output_norm: reader.vector("output_norm.weight", config.embedding)?,
            head: if own_head {
                reader.linear("output", config.vocab, config.embedding)?
            } else {
                Linear { w: embedding.clone(), extra_scale: None }
            },
            rope_freqs: reader.rope_freqs()?,
            embedding,
        };
        reader.refuse_unknown()?;
        Ok(weights)
    }
}

struct Reader<'g, 'a> {
    gguf: &'g Gguf<'a>,
    config: &'g Config,
    used: BTreeSet<String>,
}

impl<'a> Reader<'_, 'a> {
    fn layer(&mut self, i: usize) -> Result<Layer<'a>> {
        let Config { embedding, feed_forward, arch, .. } = *self.config;
        let (query, kv) = (self.config.query_width(), self.config.kv_width());
        let name = |tensor: &str| format!("blk.{i}.{tensor}");
        let norm = |tensor: &str| format!("blk.{i}.{tensor}.weight");
        let sub_norm = |reader: &mut Self, tensor: &str, n| {
            arch.sub_norms.then(|| reader.vector(&norm(tensor), n)).transpose()
        };
        Ok(Layer {
            attn_norm: self.vector(&norm("attn_norm"), embedding)?,
            attn_q: self.linear(&name("attn_q"), query, embedding)?,
            attn_k: self.linear(&name("attn_k"), kv, embedding)?,
            attn_v: self.linear(&name("attn_v"), kv, embedding)?,
            attn_sub_norm: sub_norm(self, "attn_sub_norm", query)?,
            attn_output: self.linear(&name("attn_output"), embedding, query)?,
            ffn_norm: self.vector(&norm("ffn_norm"), embedding)?,
            ffn_up: self.linear(&name("ffn_up"), feed_forward, embedding)?,
            ffn_gate: self.linear(&name("ffn_gate"), feed_forward, embedding)?,
            ffn_sub_norm: sub_norm(self, "ffn_sub_norm", feed_forward)?,
            ffn_down: self.linear(&name("ffn_down"), embedding, feed_forward)?,
        })
    }

    /// `<name>.weight` of shape `(rows, cols)` and, if there is one, `<name>.scale`.
    fn linear(&mut self, name: &str, rows: usize, cols: usize) -> Result<Linear<'a>> {
        let w = self.matrix(&format!("{name}.weight"), rows, cols)?;
        let extra_scale = self.optional_vector(&format!("{name}.scale"), 1)?.map(|scale| scale[0]);
        Ok(Linear { w, extra_scale })
    }

    fn dense(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix<'a>> {
        let w = self.matrix(name, rows, cols)?;
        if w.format.info().ternary {
            return Err(wrong_type(
                w.name,
                "a dense one: F32, F16, BF16, Q8_0, Q4_0, Q4_1 or Q6_K",
                w.format,
            ));
        }
        Ok(w)
    }

    fn vector(&mut self, name: &str, n: usize) -> Result<Vec<f32>> {
        let w = self.dense(name, 1, n)?;
        Ok(w.dense().unwrap_or_default())
    }

    fn optional_vector(&mut self, name: &str, n: usize) -> Result<Option<Vec<f32>>> {
        self.gguf.tensor(name).is_some().then(|| self.vector(name, n)).transpose()
    }

    /// The divisors of the RoPE angles: each must be one that can be divided by.
    fn rope_freqs(&mut self) -> Result<Option<Vec<f32>>> {
        const NAME: &str = "rope_freqs.weight";
        let factors = self.optional_vector(NAME, self.config.rope_dim / 2)?;
        match factors.iter().flatten().position(|factor| *factor <= 0.0) {
            Some(at) => Err(Error::Weights {
                tensor: NAME.to_owned(),
                problem: format!("factor {at} is not positive; the angles would mean nothing"),
            }),
            None => Ok(factors),
        }
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix<'a>> {
        let missing = || Error::MissingTensor {
            tensor: name.to_owned(),
            architecture: self.config.arch.name.to_owned(),
        };
        let tensor = self.gguf.tensor(name).ok_or_else(missing)?;
        let w = Matrix::of(self.gguf, tensor)?;
        if (w.rows, w.cols) != (rows, cols) {
            return Err(Error::Shape {
                name: format!("tensor '{name}'"),
                problem: "wrong shape (rows x columns)".to_owned(),
                expected: format!("{rows} x {cols}"),
                got: format!("{} x {}", w.rows, w.cols),
            });
        }
        w.validate()?;
        self.used.insert(name.to_owned());
        Ok(w)
    }

    /// A tensor that nobody reads (a bias, a norm of another architecture) would be left out of the result silently.
    fn refuse_unknown(&self) -> Result<()> {
        let unknown = self.gguf.tensors().iter().find(|tensor| !self.used.contains(tensor.name));
        unknown.map_or(Ok(()), |tensor| {
            Err(Error::Shape {
                name: format!("tensor '{}'", shown(tensor.name)),
                problem: "the graph does not use it, so the result would be wrong without notice".to_owned(),
                expected: format!("only tensors of architecture '{}'", self.config.arch.name),
                got: format!("an unknown one of {} x {}", tensor.rows(), tensor.cols()),
            })
        })
    }
}

fn wrong_type(name: &str, expected: &str, got: Format) -> Error {
    Error::Shape {
        name: format!("tensor '{name}'"),
        problem: "its format does not fit its place".to_owned(),
        expected: expected.to_owned(),
        got: got.name().to_owned(),
    }
}
