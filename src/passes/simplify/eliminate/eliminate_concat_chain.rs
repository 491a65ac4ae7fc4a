//! A Concat in a Concat goes.

use super::support::{axis, exact_rule, maker, shape};
use crate::ir::{Graph, NodeId, ValueId};
use crate::passes::{Patch, Ref, RuleContext};

/// Before: `c = Concat<axis = k>(a, b)`, `y = Concat<axis = k>(p, c, q)`. After: `y = Concat<axis = k>(p, a, b, q)`.
///
/// When: the axes are the same (counted from the front where the rank is known), `c` has no other use, and
/// the node gets at most 256 inputs.
/// Why it is equal: joining along one axis is associative.
pub struct EliminateConcatChain;

/// A longer list stays nested: flattening a long chain link by link would copy its list as often.
const MOST_INPUTS: usize = 256;

exact_rule!(EliminateConcatChain, "eliminate_concat_chain", ["Concat"], apply);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    if cx.opset < 4 {
        return None;
    }
    let inputs = graph.node_inputs(id);
    let nested = |v: &Option<ValueId>| v.and_then(|v| inner(graph, id, v));
    inputs.iter().find_map(nested)?;
    let mut flat: Vec<Option<Ref>> = Vec::with_capacity(inputs.len());
    for v in &inputs {
        match nested(v) {
            Some(inner) => flat.extend(graph.node_inputs(inner).into_iter().map(|v| v.map(Ref::Old))),
            None => flat.push(v.map(Ref::Old)),
        }
    }
    if flat.len() > MOST_INPUTS {
        return None;
    }
    let y = graph.output(id, 0)?;
    let mut patch = Patch::default();
    let new = patch.node(graph.node(id).clone(), &flat, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, new);
    Some(patch)
}

/// The Concat along the same axis that makes `v` for the node alone.
fn inner(graph: &Graph, id: NodeId, v: ValueId) -> Option<NodeId> {
    let inner = maker(graph, v, &["Concat"])?;
    if graph.only_use(v)?.node != id {
        return None;
    }
    let at = |node: NodeId| graph.node(node).int("axis");
    let (a, b) = (at(id)?, at(inner)?);
    let from_front = |a| axis(a, shape(graph, v)?.len());
    (a == b || from_front(a).is_some_and(|k| from_front(b) == Some(k))).then_some(inner)
}
