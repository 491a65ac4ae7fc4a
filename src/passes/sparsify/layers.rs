//! The weights that products are made with.

use super::options::SparsifyOptions;
use crate::analysis::cost::node_macs;
use crate::analysis::shapes::Contexts;
use crate::error::Result;
use crate::ir::{Graph, Model, NodeId, ValueId};
use crate::ops;
use crate::ops::spec::QuantRole;
use crate::passes::Selection;

/// A weight that may become sparse.
#[derive(Clone, Copy, Debug)]
pub struct SparseLayer {
    /// The node that multiplies with it; the first one, where there are several.
    pub node: NodeId,
    /// The weight.
    pub weight: ValueId,
    /// Axis of the weight along which products are summed.
    pub input_axis: usize,
    /// Axis of the weight over outputs.
    pub output_axis: usize,
}

/// Float constants of rank 2 and more that some node multiplies with, in execution order, as far as the options select
/// their nodes.
///
/// # Errors
/// Patterns that are wrong or match nothing.
pub fn layers(model: &Model, options: &SparsifyOptions) -> Result<Vec<SparseLayer>> {
    let graph = &model.graph;
    let selection = Selection::of(&options.include, &options.exclude)?;
    selection.check(graph)?;
    let contexts = Contexts::new(model, graph);
    let mut found: Vec<SparseLayer> = vec![];
    for id in graph.order()? {
        if selection.refuses(graph.node(id)).is_some() || node_macs(&contexts, graph, id).unwrap_or(0) == 0 {
            continue;
        }
        for (slot, value) in graph.node_inputs(id).into_iter().enumerate() {
            let Some(weight) = value.filter(|&v| is_weight(graph, v)) else { continue };
            if found.iter().all(|l| l.weight != weight) {
                let (input_axis, output_axis) = axes(&contexts, graph, id, slot, weight);
                found.push(SparseLayer { node: id, weight, input_axis, output_axis });
            }
        }
    }
    Ok(found)
}

fn is_weight(graph: &Graph, v: ValueId) -> bool {
    graph.constant(v).is_some_and(|t| t.dtype.is_float() && t.rank() > 1 && t.dims.iter().product::<usize>() > 1)
}

/// Axes over inputs and outputs: the first two where the operator says which one runs over outputs; else the last two.
fn axes(contexts: &Contexts, graph: &Graph, id: NodeId, slot: usize, weight: ValueId) -> (usize, usize) {
    let role = ops::spec(&graph.node(id).op).map(|spec| spec.quant(&contexts.of(id)));
    match role {
        Some(QuantRole::Compute(role)) if role.weight == slot && role.weight_axis < 2 => {
            (1 - role.weight_axis, role.weight_axis)
        }
        _ => graph.constant(weight).map_or((0, 1), |t| (t.rank() - 1, t.rank() - 2)),
    }
}
