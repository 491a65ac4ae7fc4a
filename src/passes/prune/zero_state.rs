//! Recurrent layers that start from zero need not be told so.

use crate::error::Result;
use crate::ir::{Graph, NodeId, Tensor, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `LSTM(x, w, r, b, , h, c)`, `h` and `c` full of zeros. After: `LSTM(x, w, r, b)`.
///
/// When: the state is a constant of zeros, or a zero of `ConstantOfShape`, whose computed shape would name the hidden size.
/// Why it is equal: a state that is absent is zero (specification: LSTM, GRU, RNN).
pub struct EliminateZeroState;

impl Rewrite for EliminateZeroState {
    fn name(&self) -> &'static str {
        "eliminate_zero_state"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("LSTM"), onnx("GRU"), onnx("RNN")] }
    }

    fn rewrite(&self, graph: &Graph, node: NodeId, _: &RuleContext) -> Result<Option<Patch>> {
        let mut patch = Patch::default();
        for slot in [5, 6] {
            if graph.input(node, slot).is_some_and(|v| is_zero(graph, v)) {
                patch.set_input(node, slot, None);
            }
        }
        Ok(Some(patch))
    }
}

fn is_zero(graph: &Graph, v: ValueId) -> bool {
    let zeros = |t: &Tensor| t.bytes().is_ok_and(|b| b.iter().all(|&x| x == 0));
    if let Some(t) = graph.constant(v) {
        return zeros(t);
    }
    let Some((producer, _)) = graph.producer(v) else { return false };
    let node = graph.node(producer);
    match &*node.op.op_type {
        _ if !node.op.domain.is_empty() => false,
        "ConstantOfShape" => node.attribute("value").is_none() || node.tensor("value").is_some_and(zeros),
        "Expand" => graph.input(producer, 0).is_some_and(|x| is_zero(graph, x)),
        _ => false,
    }
}
