//! Expand and Tile that repeat nothing go.

use super::support::{bypass, dims, equal, exact_rule, ints, shape};
use crate::ir::{Dim, Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Expand(x, s)` or `y = Tile(x, repeats)`. After: uses of `y` use `x`.
///
/// When: Expand: `s` is no longer than the rank of `x`, and each element is 1 or the size of its axis (a symbol for a
/// symbol will do), or the axis has a known size other than 1. Tile: all repeats are 1.
/// Why it is equal: an axis is stretched only from 1 to something else.
pub struct EliminateExpand;

exact_rule!(EliminateExpand, "eliminate_expand", ["Expand", "Tile"], apply);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let (x, amounts) = (graph.input(id, 0)?, graph.input(id, 1)?);
    if graph.node(id).op.is("Tile") {
        let ones = cx.opset >= 6 && ints(graph, cx, amounts)?.iter().all(|&n| n == 1);
        return ones.then(|| bypass(graph, id, x))?;
    }
    let requested = dims(graph, cx, amounts)?;
    let shape = shape(graph, x)?;
    let stays = |(d, r): (&Dim, &Dim)| *r == Dim::Known(1) || equal(d, r) || d.known().is_some_and(|n| n != 1);
    let fits = requested.len() <= shape.len() && shape.iter().rev().zip(requested.iter().rev()).all(stays);
    fits.then(|| bypass(graph, id, x))?
}
