//! How much of a model a plan for weights reaches.

use super::super::coverage::{Coverage, FloatNode};
use super::super::selection::Selection;
use super::plan::{SMALL, WeightPlan};
use crate::analysis::cost;
use crate::analysis::shapes::Contexts;
use crate::error::Result;
use crate::ir::{Graph, Model, NodeId, ValueId};
use crate::ops;
use crate::ops::spec::Purpose;
use std::collections::HashSet;

impl WeightPlan {
    /// The coverage on the model that the plan was made for: nodes that have weights, and bytes of float constants.
    ///
    /// # Errors
    /// An invalid pattern in the options.
    pub fn coverage(&self, model: &Model) -> Result<Coverage> {
        let graph = &model.graph;
        let contexts = Contexts::new(model, graph);
        let selection = Selection::new(&self.options)?;
        let mut coverage = Coverage::default();
        let macs = |id: NodeId| cost::node_macs(&contexts, graph, id);
        for &id in self.weights.iter().flat_map(|w| &w.uses) {
            coverage.nodes.add(1, true);
            coverage.macs.add(macs(id).unwrap_or(0), true);
        }
        for (id, reason) in &self.skipped {
            let (node, macs) = (graph.node(*id), macs(*id));
            coverage.nodes.add(1, false);
            coverage.macs.add(macs.unwrap_or(0), false);
            let (name, op) = (node.name.to_string(), node.op.to_string());
            let linear = !matches!(
                ops::spec(&node.op).and_then(|s| s.weight(&contexts.of(*id))).map(|r| r.purpose),
                Some(Purpose::Table { .. })
            );
            let skipped = linear && selection.refuses(node).is_none() && !reason.starts_with(SMALL);
            coverage.float.push(FloatNode { name, op, reason: reason.clone(), macs, skipped });
        }
        for (v, bytes) in float_constants(graph) {
            coverage.weight_bytes.add(bytes, self.weights.iter().any(|w| w.value == v));
        }
        let uses = self.weights.iter().flat_map(|w| &w.uses).copied();
        let known: HashSet<NodeId> = uses.chain(self.skipped.iter().map(|(id, _)| *id)).collect();
        coverage.add_stored(model, &self.options, &known)?;
        Ok(coverage)
    }

    /// Adds the tables that the plan stores in few bits to the coverage of the rest of the model.
    pub fn add_to(&self, model: &Model, coverage: &mut Coverage) {
        let graph = &model.graph;
        let label = |id: NodeId| (graph.node(id).name.to_string(), graph.node(id).op.to_string());
        let reached: HashSet<(String, String)> =
            self.weights.iter().flat_map(|w| &w.uses).map(|&id| label(id)).collect();
        coverage.nodes.quantized += self.weights.iter().map(|w| w.uses.len() as u64).sum::<u64>();
        coverage.float.retain(|node| !reached.contains(&(node.name.clone(), node.op.clone())));
        let bytes = float_constants(graph).filter(|(v, _)| self.weights.iter().any(|w| w.value == *v));
        coverage.weight_bytes.quantized += bytes.map(|(_, bytes)| bytes).sum::<u64>();
    }
}

fn float_constants(graph: &Graph) -> impl Iterator<Item = (ValueId, u64)> + '_ {
    graph.values().filter_map(|v| {
        let tensor = graph.constant(v).filter(|t| t.dtype.is_float())?;
        Some((v, tensor.stored_bytes() as u64))
    })
}
