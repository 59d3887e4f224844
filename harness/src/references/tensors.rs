//! Names of intermediate tensors in the reference protocol: those of the engine's operations.

use assay_engine::model::nodes::nodes;
use assay_engine::model::{Config, NodeKind};

/// Names without `blk.N.`; logits have their own place in a result.
pub const NAMES: [&str; NodeKind::ALL.len() - 1] = {
    let mut names = [""; NodeKind::ALL.len() - 1];
    let mut i = 0;
    while i < names.len() {
        names[i] = NodeKind::ALL[i].name();
        i += 1;
    }
    names
};

/// The tensors of a model, in the order of the pass.
pub fn of_model(config: &Config) -> Vec<String> {
    let wanted = nodes(config).into_iter().filter(|node| node.kind != NodeKind::Logits);
    wanted.map(|node| node.name()).collect()
}
