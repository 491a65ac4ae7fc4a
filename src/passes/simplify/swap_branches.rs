//! Not before If goes: the branches change places.

use crate::error::Result;
use crate::ir::{AttributeValue, Graph, NodeId, Port};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = If(Not(c)) { a } { b }`. After: `y = If(c) { b } { a }`.
///
/// When: whatever uses the result of Not is the condition of an If, so that Not goes with the last of them.
/// Why it is equal: exactly one branch is executed, and it is the same one.
pub struct SwapBranches;

impl Rewrite for SwapBranches {
    fn name(&self) -> &'static str {
        "swap_branches"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("If")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, _: &RuleContext) -> Result<Option<Patch>> {
        let Some(condition) = graph.input(id, 0).filter(|&c| !graph.is_output(c)) else { return Ok(None) };
        let not = graph.producer(condition).map(|(p, _)| p).filter(|&p| graph.node(p).op.is("Not"));
        let Some(c) = not.and_then(|p| graph.input(p, 0)) else { return Ok(None) };
        let decides = |u: &crate::ir::Use| graph.node(u.node).op.is("If") && u.port == Port::In(0);
        if !graph.uses(condition).iter().all(decides) {
            return Ok(None);
        }
        let mut node = graph.node(id).clone();
        let branches = ["then_branch", "else_branch"].map(|name| node.attribute(name).cloned());
        let [Some(AttributeValue::Graph(a)), Some(AttributeValue::Graph(b))] = branches else { return Ok(None) };
        node.set("then_branch", AttributeValue::Graph(b));
        node.set("else_branch", AttributeValue::Graph(a));
        let mut patch = Patch::default();
        patch.replace_node(graph, id, node, &[Some(c.into())]);
        Ok(Some(patch))
    }
}
