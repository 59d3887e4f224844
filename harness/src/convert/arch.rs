//! Another architecture's name over the same weights, for programs that know the graph by that name only.

use assay_engine::gguf::{Gguf, OwnedValue};
use assay_engine::model::{Arch, Config, arch};
use assay_engine::{Error, Result};
use serde::Serialize;

const ARCHITECTURE: &str = "general.architecture";
const TOKENIZER: &str = "tokenizer.ggml.model";

/// The architectures before and after, and what differs between them: the gate of the feed-forward block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Renamed {
    /// Name before.
    pub from: &'static str,
    /// Name after.
    pub to: &'static str,
    /// Gate before.
    pub gate_before: &'static str,
    /// Gate that the new name stands for.
    pub gate_after: &'static str,
    #[serde(skip)]
    vocab: usize,
}

impl Renamed {
    /// Asks whether the graph of `gguf` is that of `name`, save for the gate.
    pub(super) fn new(gguf: &Gguf<'_>, name: &str) -> Result<Renamed> {
        let (config, to) = (Config::read(gguf)?, arch::find(name)?);
        let from = config.arch;
        if (Arch { name: to.name, activation: to.activation, ..*from }) != *to {
            return Err(Error::Metadata {
                key: ARCHITECTURE.to_owned(),
                problem: "its graph differs in more than the gate from the one of --arch",
                expected: format!("one like '{name}'"),
                got: from.name.to_owned(),
            });
        }
        if config.query_width() != config.embedding {
            return Err(Error::Metadata {
                key: format!("{}.attention.key_length", from.name),
                problem: "programs that run the architecture of --arch have no heads of this width",
                expected: format!("{} in all heads together", config.embedding),
                got: config.query_width().to_string(),
            });
        }
        Ok(Renamed {
            from: from.name,
            to: to.name,
            gate_before: from.activation.name(),
            gate_after: to.activation.name(),
            vocab: config.vocab,
        })
    }

    /// A metadata entry under the new name.
    pub(super) fn entry(&self, key: String, value: OwnedValue) -> (String, OwnedValue) {
        let own = key.strip_prefix(self.from).filter(|rest| rest.starts_with('.'));
        match (key.as_str(), own) {
            (ARCHITECTURE, _) => (key, self.to.into()),
            (_, Some(rest)) => (format!("{}{rest}", self.to), value),
            _ => (key, value),
        }
    }

    /// What llama.cpp needs of a file without a tokenizer: that there is none, and how many tokens there are.
    pub(super) fn missing(&self, gguf: &Gguf<'_>) -> Vec<(String, OwnedValue)> {
        if gguf.get(TOKENIZER).is_some() {
            return Vec::new();
        }
        let vocab = u32::try_from(self.vocab).unwrap_or(u32::MAX);
        let size = gguf.get(&format!("{}.vocab_size", self.from)).is_none();
        let size = size.then(|| (format!("{}.vocab_size", self.to), vocab.into()));
        size.into_iter().chain([(TOKENIZER.to_owned(), "no_vocab".into())]).collect()
    }
}
