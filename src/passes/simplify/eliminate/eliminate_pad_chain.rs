//! Of two Pads, the first goes.

use super::support::{exact_rule, ints, maker};
use crate::ir::{Graph, NodeId, Tensor};
use crate::passes::{Patch, RuleContext};

/// Before: `p = Pad(x, a, value)`, `y = Pad(p, b, value)`. After: `y = Pad(x, a + b, value)`.
///
/// When: operator set 11 or newer; both in constant mode with the same value, known amounts for all axes that are not
/// negative, and no list of axes; `p` has no other use.
/// Why it is equal: what is added is the same constant, inside and outside.
pub struct EliminatePadChain;

exact_rule!(EliminatePadChain, "eliminate_pad_chain", ["Pad"], apply);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let padded = graph.input(id, 0)?;
    let first = maker(graph, padded, &["Pad"])?;
    if cx.opset < 11 || graph.only_use(padded)?.node != id {
        return None;
    }
    let value = |node| match graph.input(node, 2) {
        None => Some(None),
        Some(v) => cx.constant(graph, v).map(Some),
    };
    if value(first)? != value(id)? {
        return None;
    }
    let (a, b) = (amounts(graph, cx, first)?, amounts(graph, cx, id)?);
    if a.len() != b.len() {
        return None;
    }
    let sum: Vec<i64> = a.iter().zip(&b).map(|(a, b)| a.checked_add(*b)).collect::<Option<_>>()?;
    let y = graph.output(id, 0)?;
    let mut patch = Patch::default();
    let pads = patch.constant(&format!("{}_pads", graph.name(y)), Tensor::from_i64(&[sum.len()], &sum));
    let mut inputs = vec![graph.input(first, 0).map(Into::into), Some(pads)];
    inputs.extend(graph.input(id, 2).map(|v| Some(v.into())));
    let new = patch.node(graph.node(id).clone(), &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, new);
    Some(patch)
}

/// The amounts of a Pad in constant mode over all axes, none of them negative.
fn amounts(graph: &Graph, cx: &RuleContext, id: NodeId) -> Option<Vec<i64>> {
    let node = graph.node(id);
    let constant = node.attribute("mode").is_none() || node.string("mode") == Some("constant");
    if !constant || graph.input(id, 3).is_some() {
        return None;
    }
    ints(graph, cx, graph.input(id, 1)?).filter(|pads| pads.iter().all(|&n| n >= 0))
}
