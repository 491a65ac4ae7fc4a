//! The runtime's own copy of a model, in the form that the rest of the runtime expects.

use super::fold;
use crate::error::{Context, Result};
use crate::ir::{Graph, Model, NodeId, ValueId};
use crate::passes::inline_functions;

/// A copy without model-local functions, whose bodies hold the constants that they capture, and whose If nodes with a
/// constant condition have lost the other branch. Values of the main graph keep their names.
///
/// # Errors
/// Functions that cannot be inlined; a cycle.
pub(in crate::runtime) fn prepared(model: &Model) -> Result<Model> {
    let mut copy = model.clone();
    inline_functions(&mut copy)?;
    prepare(&mut copy.graph)?;
    copy.graph.eliminate_dead()?;
    Ok(copy)
}

fn prepare(graph: &mut Graph) -> Result<()> {
    fold::constants(graph)?;
    let with_bodies: Vec<NodeId> = graph.nodes().filter(|&id| graph.node(id).bodies().next().is_some()).collect();
    for id in with_bodies {
        let label = graph.node(id).label();
        choose(graph, id);
        give(graph, id);
        for body in graph.node_mut(id).bodies_mut() {
            prepare(body).context(|| &label)?;
        }
        graph.refresh_captures(id)?;
    }
    Ok(())
}

/// Drops the branch that a constant condition never takes: nobody needs to be able to run it.
fn choose(graph: &mut Graph, id: NodeId) {
    if !graph.node(id).op.is("If") {
        return;
    }
    let condition = graph.input(id, 0).and_then(|v| graph.constant(v)).and_then(|t| t.to_i64().ok());
    let Some(&[condition]) = condition.as_deref() else { return };
    let never = if condition != 0 { "else_branch" } else { "then_branch" };
    graph.node_mut(id).attributes.retain(|a| &*a.name != never);
}

/// Copies into the node's bodies the constants that they capture, and the types of what else they capture.
fn give(graph: &mut Graph, id: NodeId) {
    for v in graph.captures(id) {
        let (name, ty, init) = {
            let value = graph.value(v);
            (value.name.clone(), value.ty.clone(), graph.constant(v).cloned())
        };
        for body in graph.node_mut(id).bodies_mut() {
            let Some(inner) = body.find(&name).filter(|&inner| body.is_outer(inner)) else { continue };
            let value = body.value_mut(inner);
            value.ty = ty.clone();
            value.init = init.clone();
        }
    }
    for body in graph.node_mut(id).bodies_mut() {
        // A body's inputs are always given; what the file says in addition is no constant.
        let inputs: Vec<ValueId> = body.inputs().to_vec();
        inputs.into_iter().for_each(|v| body.value_mut(v).init = None);
    }
}
