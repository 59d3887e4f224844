//! A writer of GGUF files and a model small enough to be truncated at every byte; for tests only.

/// A GGUF file that is being put together; tensors lie in the order given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gguf {
    pairs: u64,
    metadata: Vec<u8>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
    alignment: usize,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Gguf {
    pub(crate) fn new() -> Gguf {
        Gguf { alignment: 32, ..Gguf::default() }
    }

    /// A pair whose value is already bytes.
    pub(crate) fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Gguf {
        self.pairs += 1;
        self.metadata.extend([string(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat());
        self
    }

    pub(crate) fn u32(mut self, key: &str, value: u32) -> Gguf {
        if key == "general.alignment" {
            self.alignment = value.max(1) as usize;
        }
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Gguf {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Gguf {
        self.raw(key, 8, &string(value))
    }

    pub(crate) fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, data: &[u8]) -> Gguf {
        self.tensors.push((name.into(), dimensions.into(), kind, data.into()));
        self
    }

    /// An F32 tensor whose elements are small and differ from each other.
    pub(crate) fn floats(self, name: &str, dimensions: &[u64]) -> Gguf {
        let count = dimensions.iter().product::<u64>() as usize;
        let seed = name.bytes().map(usize::from).sum::<usize>();
        let data: Vec<u8> =
            (0..count).flat_map(|i| ((((seed + i) * 37) % 101) as f32 / 50.0 - 1.0).to_le_bytes()).collect();
        self.tensor(name, dimensions, 0, &data)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend(self.pairs.to_le_bytes());
        out.extend(&self.metadata);
        let mut data = Vec::new();
        for (name, dimensions, kind, bytes) in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            out.extend(string(name));
            out.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }
}

/// A model of one layer: embedding 4, two query heads and one key head of 2, feed-forward 6, vocabulary 5.
pub(crate) fn small_model(architecture: &str) -> Gguf {
    let key = |name: &str| format!("{architecture}.{name}");
    let file = Gguf::new()
        .text("general.architecture", architecture)
        .u32(&key("embedding_length"), 4)
        .u32(&key("block_count"), 1)
        .u32(&key("feed_forward_length"), 6)
        .u32(&key("attention.head_count"), 2)
        .u32(&key("attention.head_count_kv"), 1)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .floats("token_embd.weight", &[4, 5])
        .floats("blk.0.attn_norm.weight", &[4])
        .floats("blk.0.attn_q.weight", &[4, 4])
        .floats("blk.0.attn_k.weight", &[4, 2])
        .floats("blk.0.attn_v.weight", &[4, 2])
        .floats("blk.0.attn_output.weight", &[4, 4])
        .floats("blk.0.ffn_norm.weight", &[4])
        .floats("blk.0.ffn_up.weight", &[4, 6])
        .floats("blk.0.ffn_gate.weight", &[4, 6])
        .floats("blk.0.ffn_down.weight", &[6, 4]);
    let file = if architecture == "llama" {
        file
    } else {
        file.floats("blk.0.attn_sub_norm.weight", &[4]).floats("blk.0.ffn_sub_norm.weight", &[6])
    };
    file.floats("output_norm.weight", &[4])
}
