//! Reshape, Flatten, Squeeze and Unsqueeze to the shape that is there go.

use super::support::{Listed, bypass, equal, exact_rule, int_or, shape};
use crate::ir::{Dim, Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Reshape(x, s)`, where `s` asks for the shape of `x`. After: uses of `y` use `x`. The same for Flatten of
/// a matrix at axis 1, and for Squeeze and Unsqueeze of no axis.
///
/// When: Reshape: `s` has an element per axis of `x`, each the size of its axis (a symbol for a symbol will do), 0
/// where that copies the size, and at most one -1. Squeeze without axes: no axis has size 1.
/// Why it is equal: the number of elements does not change, so if all sizes but one are kept, that one is kept too. Where
/// the others hold no elements, -1 cannot be worked out and execution fails, so there is no result to keep.
pub struct EliminateReshape;

exact_rule!(EliminateReshape, "eliminate_reshape", ["Reshape", "Flatten", "Squeeze", "Unsqueeze"], apply);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let x = graph.input(id, 0)?;
    let shape = shape(graph, x)?;
    let kept = match &*graph.node(id).op.op_type {
        "Reshape" => match Listed::of(graph, cx, id, ("shape", 1, 5)) {
            Listed::Given(requested) => asks_for(&requested, shape, copies_zero(graph, cx, id)?),
            _ => false,
        },
        "Flatten" => shape.len() == 2 && matches!(int_or(graph, id, "axis", 1)?, 1 | -1),
        "Squeeze" => match Listed::of(graph, cx, id, ("axes", 1, 13)) {
            Listed::Absent => shape.iter().all(|d| d.known().is_some_and(|n| n != 1)),
            _ => false,
        },
        _ => Listed::of(graph, cx, id, ("axes", 1, 13)).ints()?.is_empty(),
    };
    kept.then(|| bypass(graph, id, x))?
}

/// Whether 0 in the requested shape of a Reshape means the input's size at that axis.
pub(super) fn copies_zero(graph: &Graph, cx: &RuleContext, id: NodeId) -> Option<bool> {
    Some(cx.opset < 14 || int_or(graph, id, "allowzero", 0)? == 0)
}

fn asks_for(requested: &[Dim], shape: &[Dim], copies: bool) -> bool {
    if requested.len() != shape.len() {
        return false;
    }
    let open = requested.iter().zip(shape).filter(|(r, d)| match r {
        Dim::Known(0) if copies => false,
        // A symbol stands for a size; should that be 0, it copies the same size.
        r => !equal(r, d),
    });
    let open: Vec<_> = open.map(|(r, _)| r).collect();
    open.is_empty() || open == [&Dim::Known(-1)]
}
