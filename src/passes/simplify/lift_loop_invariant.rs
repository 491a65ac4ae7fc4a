//! What every iteration of a loop computes anew becomes computed once, before it.

use crate::error::Result;
use crate::ir::{Dim, Graph, NodeId, Tensor, ValueId};
use crate::ops;
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};
use std::collections::HashSet;

/// Before: `y = Loop(n, c, x) { t = op(captured, w) ... }`. After: `t = op(captured, w)`, `y = Loop(n, c, x) { ... }`, where
/// the body captures `t`. The same for Scan.
///
/// When: the inputs of `op` are captured, initializers of the body, or lifted themselves; the operator is known,
/// deterministic and has no body; `t` is no output of the body; and the body is certain to run: a trip count of at least 1
/// and a condition that holds (Loop), a scanned axis that is known not to be empty (Scan, as of operator set 9).
/// Why it is equal: each iteration computes the same from the same; and the first one computes it in any case, so that an
/// operator that fails on its input fails before and after.
pub struct LiftLoopInvariant;

impl Rewrite for LiftLoopInvariant {
    fn name(&self) -> &'static str {
        "lift_loop_invariant"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Loop"), onnx("Scan")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        let Some(body) = graph.node(id).body(BODY) else { return Ok(None) };
        let runs = if graph.node(id).op.is("Loop") { loop_runs(graph, id, cx) } else { scan_runs(graph, id, cx) };
        let nodes = if runs { invariant(body)? } else { vec![] };
        if nodes.is_empty() {
            return Ok(None);
        }
        let mut patch = Patch::default();
        patch.lift(id, BODY, nodes);
        Ok(Some(patch))
    }
}

/// The attribute that holds the body of a Loop or Scan.
const BODY: &str = "body";

/// Nodes that compute the same in each iteration, in execution order.
fn invariant(body: &Graph) -> Result<Vec<NodeId>> {
    let mut fixed: HashSet<ValueId> = HashSet::new();
    let mut nodes = vec![];
    for id in body.order()? {
        let node = body.node(id);
        let known = ops::spec(&node.op).is_some_and(|s| s.deterministic()) && node.bodies().next().is_none();
        let inputs: Vec<ValueId> = body.node_inputs(id).into_iter().flatten().collect();
        let outputs: Vec<ValueId> = body.node_outputs(id).into_iter().flatten().collect();
        let same = |v: &ValueId| body.is_outer(*v) || body.constant(*v).is_some() || fixed.contains(v);
        let needed = outputs.iter().any(|&v| body.has_uses(v)) && !outputs.iter().any(|&v| body.is_output(v));
        if known && needed && !inputs.is_empty() && inputs.iter().all(same) {
            fixed.extend(outputs);
            nodes.push(id);
        }
    }
    Ok(nodes)
}

fn loop_runs(graph: &Graph, id: NodeId, cx: &RuleContext) -> bool {
    let known = |v: ValueId| -> Option<i64> {
        match (cx.constant(graph, v), cx.data.get(&v).map(Vec::as_slice)) {
            (Some(t), _) => first(t),
            (_, Some([Dim::Known(n)])) => Some(*n),
            _ => None,
        }
    };
    // An absent trip count or condition sets no bound.
    let at_least_one = |slot| graph.input(id, slot).is_none_or(|v| known(v).is_some_and(|n| n >= 1));
    at_least_one(0) && at_least_one(1)
}

fn first(t: &Tensor) -> Option<i64> {
    if t.len() == 1 { t.to_i64().ok()?.first().copied() } else { None }
}

fn scan_runs(graph: &Graph, id: NodeId, cx: &RuleContext) -> bool {
    let node = graph.node(id);
    let inputs = graph.node_inputs(id);
    let scanned =
        node.int("num_scan_inputs").and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=inputs.len()).contains(n));
    let Some(scanned) = scanned.filter(|_| cx.opset >= 9) else { return false };
    let axis = node.ints("scan_input_axes").and_then(|a| a.first().copied()).unwrap_or(0);
    let shape = inputs[inputs.len() - scanned].and_then(|v| graph.ty(v)).and_then(|t| t.shape());
    let Some(shape) = shape else { return false };
    let at = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let length = usize::try_from(at).ok().and_then(|k| shape.get(k)).and_then(Dim::known);
    length.is_some_and(|n| n >= 1)
}
