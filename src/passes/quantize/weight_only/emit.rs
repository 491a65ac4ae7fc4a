//! Writes a plan into the graph.

use super::super::options::QuantizeOptions;
use super::plan::{PlannedWeight, WeightPlan};
use super::{product, table};
use crate::error::{Context, Error, Result};
use crate::ir::{Graph, Node, OpId};
use crate::passes::{Patch, Ref};

/// The changes that spell the plan.
///
/// # Errors
/// A weight that is not rounded.
pub(super) fn emit(graph: &Graph, plan: &WeightPlan) -> Result<Patch> {
    let mut e = Emitter { graph, options: &plan.options, patch: Patch::default() };
    for w in &plan.weights {
        let rounded = w.rounded.as_ref().ok_or_else(|| Error::internal("a weight that is not rounded"));
        let written =
            rounded.and_then(|r| if w.is_table() { table::write(&mut e, w, r) } else { product::write(&mut e, w, r) });
        written.context(|| format!("weight \"{}\"", graph.name(w.value)))?;
    }
    Ok(e.patch)
}

/// State of the writing.
pub(super) struct Emitter<'a> {
    pub graph: &'a Graph,
    pub options: &'a QuantizeOptions,
    pub patch: Patch,
}

impl Emitter<'_> {
    /// A node of the standard at the place of the first use of a weight.
    pub fn node_for(&self, w: &PlannedWeight, op: &str) -> Node {
        let mut node = Node::new(OpId::onnx(op));
        node.rank = w.uses.first().map_or(0, |&id| self.graph.node(id).rank);
        node
    }

    /// Name of a constant that belongs to the weight.
    pub fn name(&self, w: &PlannedWeight, suffix: &str) -> String {
        format!("{}_{suffix}", self.graph.name(w.value))
    }

    /// The corrected bias of a layer, where it has one.
    pub fn bias(&mut self, w: &PlannedWeight) -> Option<Ref> {
        let (site, shift) = w.correction.as_ref()?;
        let tensor = site.corrected(self.graph, shift)?;
        let Some(old) = site.bias else {
            let hint = self.name(w, "bias");
            return Some(self.patch.constant(&hint, tensor));
        };
        let new = self.patch.constant(self.graph.name(old), tensor);
        self.patch.replace(old, new);
        Some(new)
    }
}
