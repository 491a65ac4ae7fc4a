//! Of two Slices along different axes, the first goes.

use super::support::{axes, exact_rule, ints, maker, shape};
use crate::ir::{Graph, NodeId, Tensor};
use crate::passes::{Patch, RuleContext};

/// Before: `s = Slice(x)` along axes A, `y = Slice(s)` along other axes B. After: `y = Slice(x)` along A and B.
///
/// When: operator set 10 or newer; all bounds are known, no axis is in both lists, and `s` has no other use.
/// Why it is equal: what is selected along one axis does not depend on what is selected along another.
pub struct EliminateSliceChain;

exact_rule!(EliminateSliceChain, "eliminate_slice_chain", ["Slice"], apply);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let sliced = graph.input(id, 0)?;
    let first = maker(graph, sliced, &["Slice"])?;
    if cx.opset < 10 || graph.only_use(sliced)?.node != id {
        return None;
    }
    let x = graph.input(first, 0)?;
    let (a, b) = (lists(graph, cx, first)?, lists(graph, cx, id)?);
    let joined: Vec<Vec<i64>> = a.into_iter().zip(b).map(|(a, b)| [a, b].concat()).collect();
    // Counted from the front, so that an axis cannot hide behind its negative.
    axes(joined.get(2)?, shape(graph, x)?.len())?;
    let y = graph.output(id, 0)?;
    let mut patch = Patch::default();
    let mut inputs = vec![Some(x.into())];
    for (name, list) in ["starts", "ends", "axes", "steps"].iter().zip(&joined) {
        inputs.push(Some(patch.constant(&format!("{}_{name}", graph.name(y)), Tensor::from_i64(&[list.len()], list))));
    }
    let new = patch.node(graph.node(id).clone(), &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, new);
    Some(patch)
}

/// Starts, ends, axes and steps, all of one length.
fn lists(graph: &Graph, cx: &RuleContext, id: NodeId) -> Option<[Vec<i64>; 4]> {
    let starts = ints(graph, cx, graph.input(id, 1)?)?;
    let ends = ints(graph, cx, graph.input(id, 2)?)?;
    let n = starts.len();
    let or = |slot, default: Vec<i64>| graph.input(id, slot).map_or(Some(default), |v| ints(graph, cx, v));
    let (axes, steps) = (or(3, (0..n as i64).collect())?, or(4, vec![1; n])?);
    (ends.len() == n && axes.len() == n && steps.len() == n).then_some([starts, ends, axes, steps])
}
