//! Split into a single piece goes.

use super::support::{bypass, exact_rule};
use crate::ir::{Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Split(x)` with one output. After: uses of `y` use `x`.
///
/// When: always, where `x` can stand for `y`.
/// Why it is equal: the sizes of the pieces add up to the size of the axis, so the only piece is all of it.
pub struct EliminateSplit;

exact_rule!(EliminateSplit, "eliminate_split", ["Split"], apply);

fn apply(graph: &Graph, id: NodeId, _: &RuleContext) -> Option<Patch> {
    if graph.node(id).output_slots != 1 {
        return None;
    }
    bypass(graph, id, graph.input(id, 0)?)
}
