//! An If whose condition is known becomes the nodes of its branch.

use crate::error::Result;
use crate::ir::{Dim, Graph, NodeId, Tensor};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = If(c) { then } { else }`. After: the nodes of the branch that `c` selects, in the graph around it.
///
/// When: `c` is a constant, or inference knows it. Values of the branch whose names are taken get others.
/// Why it is equal: only that branch is ever executed, and what it captures is there.
pub struct InlineIf;

impl Rewrite for InlineIf {
    fn name(&self) -> &'static str {
        "inline_if"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("If")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        let Some(condition) = condition(graph, id, cx) else { return Ok(None) };
        let branch = if condition { "then_branch" } else { "else_branch" };
        let outputs = graph.node_outputs(id).len();
        let fits = graph.node(id).body(branch).is_some_and(|b| b.inputs().is_empty() && b.outputs().len() == outputs);
        if !fits {
            return Ok(None);
        }
        let mut patch = Patch::default();
        patch.inline(id, branch);
        Ok(Some(patch))
    }
}

fn condition(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<bool> {
    let c = graph.input(id, 0)?;
    let first = |t: &Tensor| t.bytes().ok().filter(|b| b.len() == 1).map(|b| b[0] != 0);
    let known = cx.data.get(&c).map(Vec::as_slice);
    match (cx.constant(graph, c), known) {
        (Some(t), _) => first(t),
        (_, Some([Dim::Known(n)])) => Some(*n != 0),
        _ => None,
    }
}
