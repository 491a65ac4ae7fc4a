//! Variadic operators of one input go.

use super::support::{bypass, exact_rule};
use crate::ir::{Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Concat(x)`, or `Sum`, `Mean`, `Max` or `Min` of one input. After: uses of `y` use `x`.
///
/// When: always, where `x` can stand for `y`.
/// Why it is equal: with one input all of them return it.
pub struct EliminateSingleInput;

exact_rule!(EliminateSingleInput, "eliminate_single_input", ["Concat", "Sum", "Mean", "Max", "Min"], apply);

fn apply(graph: &Graph, id: NodeId, _: &RuleContext) -> Option<Patch> {
    match graph.node_inputs(id)[..] {
        [Some(x)] => bypass(graph, id, x),
        _ => None,
    }
}
