//! Optional outputs that nobody reads go.

use super::support::{exact_rule, is_used};
use crate::ir::{Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y, mask = Dropout(x)`, where nobody uses `mask`. After: `y = Dropout(x)`. The same for the optional outputs of
/// LayerNormalization, LSTM, GRU, RNN and Unique, last ones first.
///
/// When: the output is the node's last, is not the first, and is neither used nor a graph output.
/// Why it is equal: an optional output is something that the operator says besides. (Not among these:
/// BatchNormalization and Split, where the number of outputs says what the node does, and MaxPool, for which ONNX Runtime has
/// another kernel with positions than without, and the two treat NaN differently.)
pub struct EliminateUnusedOutput;

exact_rule!(
    EliminateUnusedOutput,
    "eliminate_unused_output",
    ["Dropout", "LayerNormalization", "LSTM", "GRU", "RNN", "Unique"],
    apply
);

fn apply(graph: &Graph, id: NodeId, _: &RuleContext) -> Option<Patch> {
    let outputs = graph.node_outputs(id);
    let used = outputs.iter().rposition(|v| v.is_some_and(|v| is_used(graph, v)))?;
    let kept = outputs.get(..=used)?;
    if kept.len() == outputs.len() {
        return None;
    }
    let slots = kept.iter().map(|v| v.map(|v| (graph.name(v).to_string(), graph.ty(v).cloned()))).collect();
    let mut patch = Patch::default();
    let inputs: Vec<_> = graph.node_inputs(id).into_iter().map(|v| v.map(Into::into)).collect();
    let new = patch.node_with(graph.node(id).clone(), &inputs, slots);
    for (old, new) in kept.iter().zip(new) {
        if let (Some(old), Some(new)) = (old, new) {
            patch.replace(*old, new);
        }
    }
    Some(patch)
}
