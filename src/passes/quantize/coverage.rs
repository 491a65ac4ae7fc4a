//! How much of a model a plan reaches, and why not more.

use super::plan::Plan;
use super::structure::{Decision, Kind};
use crate::analysis::cost;
use crate::analysis::shapes::Contexts;
use crate::ir::{Graph, Model, NodeId, Port};
use serde::Serialize;
use std::collections::BTreeMap;

/// Shares of the original that compute in integers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// Nodes that compute in float or integers, and how many of them in integers (absorbed activations count).
    pub nodes: Share,
    /// Multiply-accumulates of one sample.
    pub macs: Share,
    /// Bytes of float constants.
    pub weight_bytes: Share,
    /// Every float node that stays, in execution order.
    pub float: Vec<FloatNode>,
}

/// A part and the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// In integers.
    pub quantized: u64,
    /// All.
    pub total: u64,
}

impl Share {
    pub(super) fn add(&mut self, amount: u64, quantized: bool) {
        self.total += amount;
        self.quantized += if quantized { amount } else { 0 };
    }
}

/// A node that stays in float.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FloatNode {
    /// Name; may be empty.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Why.
    pub reason: String,
    /// Multiply-accumulates; `None` where unknown.
    pub macs: Option<u64>,
}

impl Coverage {
    /// The coverage of `plan` on the model that it was made for.
    pub fn of(model: &Model, plan: &Plan) -> Self {
        let graph = &model.graph;
        let contexts = Contexts::new(model, graph);
        let mut coverage = Self::default();
        for &id in &plan.structure.order {
            let decision = plan.structure.decision(id);
            let quantized = matches!(decision, Decision::Integer(_) | Decision::Absorbed);
            if decision == &Decision::NotFloat {
                continue;
            }
            let macs = cost::node_macs(&contexts, graph, id);
            coverage.nodes.add(1, quantized);
            coverage.macs.add(macs.unwrap_or(0), quantized);
            if let Decision::Float(reason) = decision {
                let node = graph.node(id);
                let (name, op) = (node.name.to_string(), node.op.to_string());
                coverage.float.push(FloatNode { name, op, reason: reason.clone(), macs });
            }
        }
        coverage.count_weights(graph, plan);
        coverage
    }

    fn count_weights(&mut self, graph: &Graph, plan: &Plan) {
        for v in graph.values() {
            let Some(t) = graph.constant(v).filter(|t| t.dtype.is_float()) else { continue };
            let in_integers = |node: NodeId, slot: u32| match plan.structure.decision(node) {
                Decision::Integer(Kind::Compute(role)) => {
                    slot as usize == role.weight || role.bias == Some(slot as usize)
                }
                _ => false,
            };
            let uses = graph.uses(v);
            let quantized = uses.iter().all(|u| matches!(u.port, Port::In(slot) if in_integers(u.node, slot)));
            self.weight_bytes.add(t.stored_bytes() as u64, quantized && !uses.is_empty());
        }
    }

    /// Reasons, with the number of nodes and their operators, most frequent first.
    pub fn reasons(&self) -> Vec<(String, Vec<(String, usize)>)> {
        let mut by_reason: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for node in &self.float {
            *by_reason.entry(&node.reason).or_default().entry(&node.op).or_default() += 1;
        }
        let mut rows: Vec<(String, Vec<(String, usize)>)> = by_reason
            .into_iter()
            .map(|(reason, ops)| (reason.to_string(), ops.into_iter().map(|(op, n)| (op.to_string(), n)).collect()))
            .collect();
        rows.sort_by_key(|(reason, ops)| {
            (std::cmp::Reverse(ops.iter().map(|(_, n)| n).sum::<usize>()), reason.clone())
        });
        rows
    }
}
