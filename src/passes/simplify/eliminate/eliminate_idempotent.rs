//! An operation on values that it does not change goes.

use super::support::{bypass, elem, exact_rule};
use crate::ir::{DType, Graph, NodeId, ValueId};
use crate::passes::{Patch, RuleContext};

/// Before: `r = Relu(x)`, `y = Relu(r)`. After: uses of `y` use `r`. The same for Abs and Sign after themselves, and for
/// Ceil, Floor and Round after any of the three, after Sign and after a Cast of integers or booleans.
///
/// When: always, where `r` can stand for `y`.
/// Why it is equal: the values of the first operation are fixed points of the second, NaN, infinities and zeros of
/// either sign included: whatever a runtime makes of them, it leaves alone the second time.
pub struct EliminateIdempotent;

exact_rule!(EliminateIdempotent, "eliminate_idempotent", ["Relu", "Abs", "Sign", "Ceil", "Floor", "Round"], apply);

fn apply(graph: &Graph, id: NodeId, _: &RuleContext) -> Option<Patch> {
    let r = graph.input(id, 0)?;
    let op = &*graph.node(id).op.op_type;
    let fixed = match op {
        "Relu" | "Abs" | "Sign" => graph.node(graph.producer(r)?.0).op.is(op),
        _ => has_integer_values(graph, r)?,
    };
    fixed.then(|| bypass(graph, id, r))?
}

fn has_integer_values(graph: &Graph, r: ValueId) -> Option<bool> {
    let (id, _) = graph.producer(r)?;
    let op = &graph.node(id).op;
    if op.is("Cast") || op.is("CastLike") {
        let from = elem(graph, graph.input(id, 0)?)?;
        return Some(from.is_int() || from == DType::Bool);
    }
    Some(["Ceil", "Floor", "Round", "Sign"].iter().any(|name| op.is(name)))
}
