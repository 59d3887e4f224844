//! What of another program's graph is read, and replaced, while it computes: ggml calls back before and after every node.
#![expect(unsafe_code, reason = "reads and writes tensors of a C library in its callback")]

use super::abi::Handle;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char, c_void};

/// The functions of the library that look at a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nodes {
    pub(super) name: unsafe extern "C" fn(Handle) -> *const c_char,
    pub(super) op: unsafe extern "C" fn(Handle) -> *const c_char,
    pub(super) elements: unsafe extern "C" fn(Handle) -> i64,
    pub(super) bytes: unsafe extern "C" fn(Handle) -> usize,
    pub(super) data: unsafe extern "C" fn(Handle) -> *mut f32,
}

/// What is read while tokens are fed one at a time, and what is replaced.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    wanted: BTreeSet<String>,
    /// Layers whose gated product becomes `max(gate, 0)² · up`: all of the model, or none.
    squared_relu: usize,
    /// Those in which it has become so since the last token.
    replaced: usize,
    nodes: Option<Nodes>,
    /// The last row of everything that is looked at.
    rows: BTreeMap<String, Vec<f32>>,
    problem: Option<String>,
}

impl Taps {
    /// Reads `wanted`, by the names of the reference protocol. In as many layers as `squared_relu` says, the product of gate and up, which the
    /// library computes with SiLU, is computed again with squared ReLU and put in its place.
    pub(crate) fn new(wanted: BTreeSet<String>, squared_relu: usize) -> Taps {
        Taps { wanted, squared_relu, ..Taps::default() }
    }

    /// Nothing is read or replaced.
    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.squared_relu == 0
    }

    /// Gives taps away as what a context is given beside [`watch`]; null where there are none.
    pub(super) fn given_away(taps: Option<Taps>, nodes: Nodes) -> *mut Taps {
        let over = |taps| Box::into_raw(Box::new(Taps { nodes: Some(nodes), ..taps }));
        taps.map_or(std::ptr::null_mut(), over)
    }

    /// The rows of the token that was fed last, by what [`Taps::given_away`] gave.
    ///
    /// # Safety
    /// - nothing is being computed: the callback has them while something is.
    pub(super) unsafe fn tapped(taps: *mut Taps) -> Result<BTreeMap<String, Vec<f32>>, String> {
        // SAFETY: the pointer is that of a box which lives for ever, or null.
        unsafe { taps.as_mut() }.map_or_else(|| Ok(BTreeMap::new()), Taps::take)
    }

    /// The rows of the token that was fed last.
    fn take(&mut self) -> Result<BTreeMap<String, Vec<f32>>, String> {
        let rows = std::mem::take(&mut self.rows);
        let replaced = std::mem::take(&mut self.replaced);
        if replaced != self.squared_relu && self.problem.is_none() {
            return Err(format!(
                "the gate was replaced in {replaced} of {} layers: the library's graph has other names",
                self.squared_relu
            ));
        }
        match self.problem.take() {
            Some(problem) => Err(problem),
            None => Ok(rows.into_iter().filter(|(name, _)| self.wanted.contains(name)).collect()),
        }
    }

    fn wants(&self, tensor: &str) -> bool {
        let of_gate = ["ffn_gate", "ffn_up", "ffn_gated"].iter().any(|of| tensor.ends_with(of));
        self.wanted.contains(tensor) || self.squared_relu > 0 && of_gate
    }

    /// Reads the values of a node, and replaces them where it is the gated product.
    fn look(&mut self, tensor: String, values: &mut [f32]) {
        if let Some(layer) = tensor.strip_suffix("ffn_gated").filter(|_| self.squared_relu > 0) {
            let of = |name: &str| self.rows.get(&format!("{layer}{name}"));
            match (of("ffn_gate"), of("ffn_up")) {
                (Some(gate), Some(up)) if gate.len() == values.len() && up.len() == values.len() => {
                    for ((value, gate), up) in values.iter_mut().zip(gate).zip(up) {
                        let m = gate.max(0.0);
                        *value = m * m * up;
                    }
                    self.replaced += 1;
                }
                _ => {
                    self.problem.get_or_insert(format!(
                        "llama.cpp's graph has no gate and up of {} values before {tensor}: squared ReLU cannot be put in place",
                        values.len()
                    ));
                }
            }
        }
        self.rows.insert(tensor, values.to_vec());
    }
}

/// The tensor, by the names of the reference protocol, that a node of llama.cpp's graphs `bitnet` and `llama` holds.
/// Several nodes may hold one: the last has it after its scale.
fn tensor_of(node: &str, op: &str) -> Option<String> {
    match node {
        "embd" | "inp_embd" => return Some("embedding".to_owned()),
        "result_norm" => return Some("output_norm".to_owned()),
        _ => {}
    }
    let (name, layer) = node.rsplit_once('-')?;
    let layer: u32 = layer.parse().ok()?;
    let product = ["MUL_MAT", "MUL"].contains(&op);
    let tensor = match (name, op) {
        ("attn_norm" | "attn_sub_norm" | "ffn_norm" | "ffn_sub_norm", _) => name,
        ("Qcur", "ROPE") => "q_rope",
        ("Kcur", "ROPE") => "k_rope",
        ("Qcur", _) if product => "q",
        ("Kcur", _) if product => "k",
        ("Vcur", _) if product => "v",
        // Older releases name the output projection of `llama` so.
        ("kqv_out", _) if product => "attn_output",
        ("kqv_out" | "kqv_merged_cont", _) => "attention",
        ("attn_out" | "attn_o_out", _) => "attn_output",
        ("ffn_inp", _) => "attn_residual",
        ("ffn_up" | "ffn_up_s", _) => "ffn_up",
        ("ffn_gate" | "ffn_gate_s", _) => "ffn_gate",
        ("ffn_sub_out" | "ffn_swiglu" | "ffn_gate_par", _) => "ffn_gated",
        ("ffn_down", _) => "ffn_down",
        ("ffn_out", _) if product => "ffn_down",
        ("l_out", _) => "layer_output",
        _ => return None,
    };
    Some(format!("blk.{layer}.{tensor}"))
}

/// ggml's callback: before a node is computed it asks whether its data are wanted, after it they are there. Whatever
/// happens, the computation goes on; a problem is told when the rows are taken.
pub(super) extern "C" fn watch(node: Handle, ask: bool, taps: *mut c_void) -> bool {
    // SAFETY: the pointer is that of the taps, which live as long as the context; ggml calls back from the thread that feeds.
    let Some(taps) = (unsafe { taps.cast::<Taps>().as_mut() }) else { return !ask };
    let Some(nodes) = taps.nodes else { return !ask };
    // SAFETY: the node is alive during the call, and the names are C strings of the library.
    let (name, op) = unsafe { (CStr::from_ptr((nodes.name)(node)), CStr::from_ptr((nodes.op)(node))) };
    let tensor = tensor_of(&name.to_string_lossy(), &op.to_string_lossy());
    let tensor = tensor.filter(|tensor| taps.wants(tensor));
    if ask {
        return tensor.is_some();
    }
    let Some(tensor) = tensor else { return true };
    // SAFETY: as above; the data are looked at only if they are as many bytes as f32 values, in the memory of the processor.
    unsafe {
        let elements = usize::try_from((nodes.elements)(node)).unwrap_or(0);
        if (nodes.bytes)(node) != 4 * elements {
            taps.problem
                .get_or_insert(format!("the node {tensor} of llama.cpp's graph is not f32 without gaps"));
            return true;
        }
        let data = (nodes.data)(node);
        if data.is_null() {
            taps.problem.get_or_insert(format!("the node {tensor} of llama.cpp's graph is not in memory"));
        } else {
            taps.look(tensor, std::slice::from_raw_parts_mut(data, elements));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_the_names_of_the_protocol() {
        let named = |node, op| tensor_of(node, op);
        assert_eq!(named("Qcur-3", "MUL_MAT").as_deref(), Some("blk.3.q"));
        assert_eq!(named("Qcur-3", "ROPE").as_deref(), Some("blk.3.q_rope"));
        assert_eq!(named("Vcur-3", "RESHAPE"), None);
        assert_eq!(named("ffn_out-0", "ADD"), None);
        assert_eq!(named("Qcur-x", "ROPE"), None);
        assert_eq!(named("result_norm", "MUL").as_deref(), Some("output_norm"));
    }

    #[test]
    fn squared_relu_takes_the_place_of_what_was_computed() {
        let mut taps = Taps::new(BTreeSet::from(["blk.1.ffn_gated".to_owned()]), 1);
        taps.look("blk.1.ffn_gate".to_owned(), &mut [2.0, -1.0]);
        taps.look("blk.1.ffn_up".to_owned(), &mut [3.0, 3.0]);
        let mut gated = [9.0, 9.0];
        taps.look("blk.1.ffn_gated".to_owned(), &mut gated);
        assert_eq!(gated, [12.0, 0.0]);
        let rows = taps.take().expect("no problem");
        assert_eq!(rows.keys().collect::<Vec<_>>(), ["blk.1.ffn_gated"]);
        assert!(taps.take().expect_err("nothing was replaced").contains("0 of 1 layers"));
        taps.look("blk.0.ffn_gated".to_owned(), &mut gated);
        assert!(taps.take().expect_err("no gate before it").contains("squared ReLU"));
    }
}
