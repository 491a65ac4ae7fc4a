//! Two operations that undo each other go.

use super::support::{bypass, exact_rule, maker};
use crate::ir::{Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `n = Neg(x)`, `y = Neg(n)`. After: uses of `y` use `x`. The same for Not and BitwiseNot.
///
/// When: always, where `x` can stand for `y`.
/// Why it is equal: each flips bits: the sign, the truth value, all of them. The smallest integer is its own negative,
/// twice.
pub struct EliminateInvolution;

exact_rule!(EliminateInvolution, "eliminate_involution", ["Neg", "Not", "BitwiseNot"], apply);

fn apply(graph: &Graph, id: NodeId, _: &RuleContext) -> Option<Patch> {
    let inner = maker(graph, graph.input(id, 0)?, &[&graph.node(id).op.op_type])?;
    bypass(graph, id, graph.input(inner, 0)?)
}
