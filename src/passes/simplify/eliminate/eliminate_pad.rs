//! Pad by nothing goes.

use super::support::{Listed, bypass, exact_rule};
use crate::ir::{Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Pad(x, pads)` with every amount 0. After: uses of `y` use `x`.
///
/// When: the amounts are known; in any mode.
/// Why it is equal: nothing is added or removed.
pub struct EliminatePad;

exact_rule!(EliminatePad, "eliminate_pad", ["Pad"], apply);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let name = if cx.opset < 2 { "paddings" } else { "pads" };
    let pads = Listed::of(graph, cx, id, (name, 1, 11)).ints()?;
    pads.iter().all(|&n| n == 0).then(|| bypass(graph, id, graph.input(id, 0)?))?
}
