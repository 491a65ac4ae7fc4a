//! Weights that the graph computes from constants, as exporters write recurrent layers.

use crate::analysis::shapes::Contexts;
use crate::ir::{Graph, Model, NodeId, ValueId};
use crate::ops;
use std::collections::HashSet;
use std::sync::Arc;

/// Whether a layer, in a body too, has a weight that nodes compute from constants alone: then constant folding makes it
/// one.
pub fn has_computed_weights(model: &Model) -> bool {
    search(model, &model.graph, &HashSet::new())
}

fn search(model: &Model, graph: &Graph, outer: &HashSet<Arc<str>>) -> bool {
    let Ok(order) = graph.order() else { return false };
    let contexts = Contexts::new(model, graph);
    let mut fixed: HashSet<ValueId> = HashSet::new();
    for v in graph.values() {
        if graph.constant(v).is_some() || graph.is_outer(v) && outer.contains(graph.name(v)) {
            fixed.insert(v);
        }
    }
    let mut bodies: Vec<NodeId> = vec![];
    for id in order {
        let node = graph.node(id);
        if node.bodies().next().is_some() {
            bodies.push(id);
            continue;
        }
        let Some(spec) = ops::spec(&node.op) else { continue };
        let made_of = |v: ValueId| graph.producer(v).filter(|_| fixed.contains(&v)).map(|(p, _)| &graph.node(p).op);
        let is_computed = |v| made_of(v).is_some_and(|op| !op.is("Constant"));
        if spec.stored_weights(&contexts.of(id)).iter().filter_map(|r| graph.input(id, r.slot)).any(is_computed) {
            return true;
        }
        let inputs = graph.node_inputs(id);
        let kept = node.op.is("DequantizeLinear"); // folding leaves it
        if spec.deterministic() && !kept && inputs.iter().flatten().all(|v| fixed.contains(v)) {
            fixed.extend(graph.node_outputs(id).into_iter().flatten());
        }
    }
    let names: HashSet<Arc<str>> = fixed.iter().map(|&v| graph.value(v).name.clone()).collect();
    bodies.into_iter().any(|id| graph.node(id).bodies().any(|body| search(model, body, &names)))
}
