//! The tensors of a model, by name and shape; anything else in the file is refused.

use crate::config::Config;
use crate::error::{Error, Result, shown};
use crate::format::Stored;
use crate::gguf::File;
use crate::matrix::Matrix;

/// Matrices of a layer; each may have a `.scale`.
const LAYER_MATRICES: [&str; 7] =
    ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down"];

/// Vectors of a layer; those of `SUB_NORMS` come with the architectures that have them.
const NORMS: [&str; 2] = ["attn_norm", "ffn_norm"];
const SUB_NORMS: [&str; 2] = ["attn_sub_norm", "ffn_sub_norm"];

/// One layer. Shapes are `(rows, cols)`, outputs × inputs.
#[derive(Debug)]
pub(crate) struct Layer {
    /// `(embedding)`
    pub(crate) attn_norm: Vec<f64>,
    /// `(query_width, embedding)`
    pub(crate) q: Matrix,
    /// `(key_width, embedding)`
    pub(crate) k: Matrix,
    /// `(key_width, embedding)`
    pub(crate) v: Matrix,
    /// `(query_width)`
    pub(crate) attn_sub_norm: Option<Vec<f64>>,
    /// `(embedding, query_width)`
    pub(crate) attn_output: Matrix,
    /// `(embedding)`
    pub(crate) ffn_norm: Vec<f64>,
    /// `(feed_forward, embedding)`
    pub(crate) up: Matrix,
    /// `(feed_forward, embedding)`
    pub(crate) gate: Matrix,
    /// `(feed_forward)`
    pub(crate) ffn_sub_norm: Option<Vec<f64>>,
    /// `(embedding, feed_forward)`
    pub(crate) down: Matrix,
}

/// A model in memory.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) config: Config,
    /// `(vocab, embedding)`; the head too, if there is no other.
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    /// `(embedding)`
    pub(crate) output_norm: Vec<f64>,
    /// `output.weight`, `(vocab, embedding)`
    pub(crate) own_head: Option<Matrix>,
    /// What divides each angle of RoPE, `(rope_size / 2)`.
    pub(crate) rope_divisors: Vec<f64>,
}

impl Model {
    /// Reads a whole GGUF file.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] for another architecture, a setting or tensor that the graph does not have, an unknown format
    /// - [`Error::Truncated`], [`Error::Malformed`], [`Error::Missing`] for a broken file
    pub(crate) fn read(bytes: &[u8]) -> Result<Model> {
        let file = File::parse(bytes)?;
        let config = Config::read(&file)?;
        if let Some(name) = file.tensors.keys().find(|name| !is_used(name, &config)) {
            return Err(Error::Refused(format!("tensor {}: the graph has no place for it", shown(name))));
        }
        let tensors = Tensors { file: &file };
        let embedding = tensors.stored("token_embd.weight")?;
        let vocab = embedding.rows;
        if u32::try_from(vocab).is_err() {
            return Err(Error::malformed("tensor 'token_embd.weight'", "token ids have 32 bits"));
        }
        let embedding = tensors.matrix("token_embd", vocab, config.embedding)?;
        let own_head = match file.tensors.contains_key("output.weight") {
            true => Some(tensors.matrix("output", vocab, config.embedding)?),
            false => None,
        };
        let pairs = config.rope_size / 2;
        let rope_divisors = match file.tensors.contains_key("rope_freqs.weight") {
            true => tensors.vector("rope_freqs.weight", pairs)?,
            false => vec![1.0; pairs],
        };
        let output_norm = tensors.vector("output_norm.weight", config.embedding)?;
        let mut layers = Vec::new();
        for index in 0..config.layers {
            layers.push(tensors.layer(index, &config)?);
        }
        Ok(Model { config, embedding, layers, output_norm, own_head, rope_divisors })
    }

    /// What turns the last norm into logits, `(vocab, embedding)`.
    pub(crate) fn head(&self) -> &Matrix {
        self.own_head.as_ref().unwrap_or(&self.embedding)
    }
}

/// Whether the graph reads a tensor of this name.
fn is_used(name: &str, config: &Config) -> bool {
    if matches!(name, "token_embd.weight" | "output_norm.weight" | "rope_freqs.weight") {
        return true;
    }
    if name == "output.weight" {
        return config.own_head;
    }
    let parts: Vec<&str> = name.split('.').collect();
    let &["blk", layer, tensor, kind] = parts.as_slice() else {
        return false;
    };
    let in_range = layer.parse::<usize>().is_ok_and(|n| n < config.layers && n.to_string() == layer);
    let known = match kind {
        "weight" => {
            LAYER_MATRICES.contains(&tensor)
                || NORMS.contains(&tensor)
                || (config.sub_norms && SUB_NORMS.contains(&tensor))
        }
        "scale" => LAYER_MATRICES.contains(&tensor),
        _ => false,
    };
    in_range && known
}

/// The tensors of a file, each asked for with the shape that it must have.
struct Tensors<'a> {
    file: &'a File<'a>,
}

impl<'a> Tensors<'a> {
    fn stored(&self, name: &str) -> Result<Stored<'a>> {
        let entry = self.file.tensors.get(name);
        let entry = entry.ok_or_else(|| Error::Missing(format!("tensor {}", shown(name))))?;
        Stored::find(self.file, name, entry)
    }

    fn shaped(&self, name: &str, rows: usize, cols: usize) -> Result<Stored<'a>> {
        let stored = self.stored(name)?;
        if (stored.rows, stored.cols) != (rows, cols) {
            let problem = format!("expected {rows} x {cols}, got {} x {}", stored.rows, stored.cols);
            return Err(Error::malformed(format!("tensor {}", shown(name)), problem));
        }
        Ok(stored)
    }

    fn vector(&self, name: &str, length: usize) -> Result<Vec<f64>> {
        let values = self.shaped(name, 1, length)?.values();
        let values =
            values.map_err(|problem| Error::malformed(format!("tensor {}", shown(name)), problem))?;
        Ok(values.into_iter().map(f64::from).collect())
    }

    /// `<name>.weight` with the factor `<name>.scale`.
    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let weight = format!("{name}.weight");
        let scale = format!("{name}.scale");
        let scale = match self.file.tensors.contains_key(&scale) {
            true => self.vector(&scale, 1)?[0],
            false => 1.0,
        };
        Matrix::decode(&weight, &self.shaped(&weight, rows, cols)?, scale)
    }

    fn layer(&self, index: usize, config: &Config) -> Result<Layer> {
        let Config { embedding, feed_forward, query_width, key_width, .. } = *config;
        let matrix = |name: &str, rows, cols| self.matrix(&format!("blk.{index}.{name}"), rows, cols);
        let norm = |name: &str, length| self.vector(&format!("blk.{index}.{name}.weight"), length);
        let sub_norm = |name: &str, length| config.sub_norms.then(|| norm(name, length)).transpose();
        Ok(Layer {
            attn_norm: norm("attn_norm", embedding)?,
            q: matrix("attn_q", query_width, embedding)?,
            k: matrix("attn_k", key_width, embedding)?,
            v: matrix("attn_v", key_width, embedding)?,
            attn_sub_norm: sub_norm("attn_sub_norm", query_width)?,
            attn_output: matrix("attn_output", embedding, query_width)?,
            ffn_norm: norm("ffn_norm", embedding)?,
            up: matrix("ffn_up", feed_forward, embedding)?,
            gate: matrix("ffn_gate", feed_forward, embedding)?,
            ffn_sub_norm: sub_norm("ffn_sub_norm", feed_forward)?,
            down: matrix("ffn_down", embedding, feed_forward)?,
        })
    }
}

#[cfg(test)]
mod tests;
