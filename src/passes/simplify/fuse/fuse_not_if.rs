//! Not before an If changes places with the branches.

use super::matching::Look;
use crate::error::Result;
use crate::ir::{Graph, NodeId, Port};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `n = Not(c)`, `y = If(n) { a } else { b }`. After: `y = If(c) { b } else { a }`.
///
/// When: only nodes If, as their condition, use `n`, at most 64 of them, and it is no graph output: so the Not disappears.
/// Why it is equal: If takes the other branch.
pub struct FuseNotIf;

impl Rewrite for FuseNotIf {
    fn name(&self) -> &'static str {
        "fuse_not_if"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("If")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

/// More users are not looked at, once for each of them.
const MOST_USERS: usize = 64;

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    let n = graph.input(id, 0)?;
    let not = look.made_by(n, "Not")?;
    if graph.is_output(n) || graph.count_uses(n, MOST_USERS + 1) > MOST_USERS {
        return None;
    }
    let conditions_only = graph.uses(n).iter().all(|u| look.is_op(u.node, "If") && u.port == Port::In(0));
    let c = graph.input(not, 0).filter(|_| conditions_only)?;
    let mut node = graph.node(id).clone();
    for attribute in &mut node.attributes {
        attribute.name = match &*attribute.name {
            "then_branch" => "else_branch".into(),
            "else_branch" => "then_branch".into(),
            _ => continue,
        };
    }
    let outputs: Vec<_> = graph.node_outputs(id);
    let made = outputs.iter().map(|v| v.map(|v| (graph.name(v).to_string(), graph.ty(v).cloned()))).collect();
    let mut patch = Patch::default();
    let new = patch.node_with(node, &[Some(c.into())], made);
    for (old, new) in outputs.into_iter().zip(new) {
        if let (Some(old), Some(new)) = (old, new) {
            patch.replace(old, new);
        }
    }
    Some(patch)
}
