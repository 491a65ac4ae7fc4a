//! Reductions of single elements go.

use super::support::{Listed, axes, bypass, elem, exact_rule, int_or, shape};
use crate::ir::{DType, Dim, Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = ReduceMax<keepdims = 1>(x, axes)` with every reduced axis of size 1. After: uses of `y` use `x`. The same
/// for ReduceMin and ReduceProd, and for ReduceSum and ReduceMean of integers.
///
/// When: the axes and their sizes are known, or the node says that it reduces none.
/// Why it is equal: each group has one element, which is its own maximum, minimum, product, sum and mean. A float sum may
/// start from 0, which makes -0 into 0, so float sums and means stay; the other reductions are functions of the element.
pub struct EliminateReduce;

exact_rule!(
    EliminateReduce,
    "eliminate_reduce",
    ["ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceMean"],
    apply
);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let x = graph.input(id, 0)?;
    let op = &graph.node(id).op;
    let adds = op.is("ReduceSum") || op.is("ReduceMean");
    if adds && !elem(graph, x).is_some_and(DType::is_int) {
        return None;
    }
    let since = if op.is("ReduceSum") { 13 } else { 18 };
    let nothing = int_or(graph, id, "noop_with_empty_axes", 0)? != 0;
    let reduced = match Listed::of(graph, cx, id, ("axes", 1, since)) {
        Listed::Unknown => return None,
        Listed::Absent => vec![],
        given => given.ints()?,
    };
    if reduced.is_empty() && nothing && cx.opset >= since {
        return bypass(graph, id, x);
    }
    let shape = shape(graph, x)?;
    let all_axes: Vec<usize> =
        if reduced.is_empty() { (0..shape.len()).collect() } else { axes(&reduced, shape.len())? };
    // Without axes kept, the shape stays only if there is nothing to remove.
    let keeps = int_or(graph, id, "keepdims", 1)? != 0 || all_axes.is_empty();
    (keeps && all_axes.iter().all(|&a| shape[a] == Dim::Known(1))).then(|| bypass(graph, id, x))?
}
