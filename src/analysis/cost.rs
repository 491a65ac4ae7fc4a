//! What a model costs: parameters, bytes, multiply-accumulate operations, operators.

use super::shapes::Contexts;
use crate::ir::{DType, Graph, Model, NodeId, Tensor, Type};
use crate::ops;
use std::collections::BTreeMap;

/// Cost of a whole model.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// Elements of all constants, those of bodies included.
    pub params: u64,
    /// Bytes of all constants in the file, by element type.
    pub bytes: BTreeMap<DType, u64>,
    /// Multiply-accumulate operations of the main graph for one run; a symbolic or unknown dimension counts as 1, and
    /// so a symbolic batch makes it the cost of one sample.
    pub macs: u64,
    /// Nodes of the main graph whose operations could not be counted: an opaque op, a body, or an unknown rank.
    pub uncounted: Vec<NodeId>,
    /// How often each operator occurs, bodies included.
    pub ops: BTreeMap<String, usize>,
}

impl Cost {
    /// Bytes of all constants.
    pub fn total_bytes(&self) -> u64 {
        self.bytes.values().fold(0, |n: u64, b| n.saturating_add(*b))
    }
}

/// Adds up the cost of a model; types should have been inferred ([`super::shapes::infer_types`]).
pub fn cost(model: &Model) -> Cost {
    let mut cost = Cost::default();
    let mut order: Vec<NodeId> = model.graph.nodes().collect();
    order.sort_by_key(|&id| (model.graph.node(id).rank, id));
    let contexts = Contexts::new(model, &model.graph);
    for id in order {
        match node_macs(&contexts, &model.graph, id) {
            Some(n) => cost.macs = cost.macs.saturating_add(n),
            None => cost.uncounted.push(id),
        }
    }
    add_constants(&model.graph, &mut cost);
    cost.ops = op_histogram(&model.graph);
    cost
}

/// Number of nodes by operator (`Conv`, `com.microsoft.Gelu`), those in bodies of If, Loop and Scan included.
pub fn op_histogram(graph: &Graph) -> BTreeMap<String, usize> {
    let mut histogram = BTreeMap::new();
    let mut pending = vec![graph];
    while let Some(graph) = pending.pop() {
        for node in graph.nodes().map(|id| graph.node(id)) {
            *histogram.entry(node.op.to_string()).or_insert(0) += 1;
            pending.extend(node.bodies());
        }
    }
    histogram
}

/// Multiply-accumulate operations of one node of `graph`, whose contexts these are; `None` where they are unknown.
pub fn node_macs(contexts: &Contexts, graph: &Graph, id: NodeId) -> Option<u64> {
    let node = graph.node(id);
    if node.bodies().next().is_some() {
        return None;
    }
    let outputs: Vec<Option<&Type>> = graph.node_outputs(id).into_iter().map(|v| graph.ty(v?)).collect();
    ops::spec(&node.op)?.macs(&contexts.of(id), &outputs)
}

fn add_constants(graph: &Graph, cost: &mut Cost) {
    for v in graph.values() {
        if let Some(t) = &graph.value(v).init {
            add_tensor(t, cost);
        }
    }
    for id in graph.nodes() {
        let node = graph.node(id);
        if let Some(t) = node.tensor("value").filter(|_| node.op.is("Constant")) {
            add_tensor(t, cost);
        }
        for body in node.bodies() {
            add_constants(body, cost);
        }
    }
}

fn add_tensor(t: &Tensor, cost: &mut Cost) {
    cost.params = cost.params.saturating_add(t.len() as u64);
    let bytes = cost.bytes.entry(t.dtype).or_default();
    *bytes = bytes.saturating_add(t.stored_bytes() as u64);
}

#[cfg(test)]
mod tests {
    use super::super::{shapes::infer_types, testing::Builder};
    use super::*;

    #[test]
    fn counts_a_grouped_convolution() {
        let w = Tensor::from_f32(&[8, 2, 3, 3], &[0.0; 144]);
        let b = Builder::default().input("x", &["batch", "4", "10", "10"]).constant("w", w);
        let b = b.node("Conv", &["x", "w"], &["c"], &[("group", 2.into()), ("strides", vec![2, 2].into())]);
        let mut model = b.node("Relu", &["c"], &["y"], &[]).model(13, &["y"]);
        infer_types(&mut model).unwrap();
        let cost = cost(&model);
        assert_eq!(cost.macs, 8 * 4 * 4 * 2 * 9);
        assert_eq!((cost.params, cost.total_bytes()), (144, 576));
        assert!(cost.uncounted.is_empty());
        assert_eq!(cost.ops.into_iter().collect::<Vec<_>>(), [("Conv".into(), 1), ("Relu".into(), 1)]);
    }

    #[test]
    fn counts_recurrent_layers_and_names_what_it_cannot_count() {
        let b = Builder::default().input("x", &["5", "1", "3"]);
        let b = b.constant("w", Tensor::from_f32(&[1, 21, 3], &[0.0; 63]));
        let b = b.constant("r", Tensor::from_f32(&[1, 21, 7], &[0.0; 147]));
        let b = b.node("GRU", &["x", "w", "r"], &["y"], &[]).node("Mystery", &["y"], &["z"], &[]);
        let mut model = b.model(14, &["z"]);
        infer_types(&mut model).unwrap();
        let cost = cost(&model);
        assert_eq!(cost.macs, 5 * 3 * 7 * (7 + 3));
        assert_eq!(cost.uncounted.len(), 1);
    }
}
