//! How much of a model a plan reaches, and why not more.

use super::options::QuantizeOptions;
use super::plan::Plan;
use super::selection::Selection;
use super::stored::{Source, layer, stored_source};
use super::structure::{Decision, Kind, NO_FORM};
use crate::analysis::cost;
use crate::analysis::shapes::Contexts;
use crate::error::Result;
use crate::ir::{Graph, Model, NodeId, Port, Tensor, Use, ValueId};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// Shares of the original that compute in integers, or in float on weights that are stored in fewer bits.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// Nodes that compute in float or integers, and how many of them in integers (absorbed activations count).
    pub nodes: Share,
    /// Multiply-accumulates of one sample.
    pub macs: Share,
    /// Bytes of float constants.
    pub weight_bytes: Share,
    /// Of the quantized nodes, those that compute in float on weights that are stored in fewer bits.
    pub stored_nodes: u64,
    /// Multiply-accumulates of these.
    pub stored_macs: u64,
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
    /// See [`Coverage::skipped`].
    pub skipped: bool,
}

/// Why what has no weights stays in float in a body.
const IN_BODY: &str = "in bodies of If, Loop and Scan only weights are quantized";

impl Coverage {
    /// The coverage of `plan` on the model that it was made for, bodies included (what is in a body counts once, however
    /// often it runs).
    ///
    /// # Errors
    /// An invalid pattern in the plan's options.
    pub fn of(model: &Model, plan: &Plan) -> Result<Self> {
        let mut coverage = Self::default();
        let mut count = Count { model, selection: Selection::new(&plan.options)?, coverage: &mut coverage };
        count.main(plan);
        Ok(coverage)
    }

    /// Adds the layers that [`super::StoreWeights`] took care of, or could not: those of the main graph that are not
    /// `known` otherwise, and all in bodies.
    ///
    /// # Errors
    /// An invalid pattern in the options.
    pub fn add_stored(&mut self, model: &Model, options: &QuantizeOptions, known: &HashSet<NodeId>) -> Result<()> {
        let selection = Selection::new(options)?;
        let mut count = Count { model, selection, coverage: self };
        let graph = &model.graph;
        let contexts = Contexts::new(model, graph);
        let none = |_: &str| Source::Other;
        for id in graph.order()? {
            count.bodies(graph, id, &none);
            let layer = layer(graph, &contexts, id, &none);
            if known.contains(&id) || layer.float.is_empty() && layer.stored.is_empty() {
                continue;
            }
            let reason = count.selection.refuses(graph.node(id)).unwrap_or(NO_FORM);
            let is = if layer.float.is_empty() { Is::Stored } else { Is::Float(reason) };
            count.node(graph, &contexts, id, &is, &none);
        }
        count.stored_bytes(graph);
        Ok(())
    }

    /// Layers that could be quantized and are not, although nobody asked for that: linear and recurrent layers with
    /// constant float weights that are not excluded, and whatever else --include names. `--strict` refuses them.
    pub fn skipped(&self) -> impl Iterator<Item = &FloatNode> {
        self.float.iter().filter(|n| n.skipped)
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

/// What a node is.
enum Is<'a> {
    Integer,
    Stored,
    Float(&'a str),
}

/// Whether the node belongs to the storage of a weight: what makes a float of a constant in fewer bits.
fn is_storage(graph: &Graph, id: NodeId) -> bool {
    let constant = |slot| graph.input(id, slot).and_then(|v| graph.constant(v)).is_some();
    let cast = graph.node(id).op.is("Cast") && constant(0);
    cast || graph.output(id, 0).is_some_and(|v| stored_source(graph, v).is_some())
}

/// Counts a model.
struct Count<'a> {
    model: &'a Model,
    selection: Selection,
    coverage: &'a mut Coverage,
}

impl Count<'_> {
    fn main(&mut self, plan: &Plan) {
        let graph = &self.model.graph;
        let contexts = Contexts::new(self.model, graph);
        let none = |_: &str| Source::Other;
        for &id in &plan.structure.order {
            self.bodies(graph, id, &none);
            if is_storage(graph, id) {
                continue;
            }
            match plan.structure.decision(id) {
                Decision::NotFloat => {}
                Decision::Integer(_) | Decision::Absorbed => self.node(graph, &contexts, id, &Is::Integer, &none),
                Decision::Stored => self.node(graph, &contexts, id, &Is::Stored, &none),
                Decision::Float(reason) => self.node(graph, &contexts, id, &Is::Float(reason), &none),
            }
        }
        self.weights(graph, &|node, slot| match plan.structure.decision(node) {
            Decision::Integer(Kind::Compute(role)) => slot as usize == role.weight || role.bias == Some(slot as usize),
            _ => false,
        });
    }

    /// One node.
    fn node(&mut self, graph: &Graph, contexts: &Contexts, id: NodeId, is: &Is, outer: &dyn Fn(&str) -> Source) {
        let macs = cost::node_macs(contexts, graph, id);
        let quantized = !matches!(is, Is::Float(_));
        self.coverage.nodes.add(1, quantized);
        self.coverage.macs.add(macs.unwrap_or(0), quantized);
        if matches!(is, Is::Stored) {
            self.coverage.stored_nodes += 1;
            self.coverage.stored_macs += macs.unwrap_or(0);
        }
        let Is::Float(reason) = is else { return };
        let node = graph.node(id);
        let layer = layer(graph, contexts, id, outer);
        let chosen = self.selection.refuses(node).is_some();
        let skipped = !chosen && (!layer.float.is_empty() || self.selection.includes(node));
        let reason = match *reason {
            NO_FORM if !layer.float.is_empty() => "its weight is used in float too, or takes no less room in 8 bits",
            NO_FORM if node.op.is("LSTM") || node.op.is("GRU") || node.op.is("RNN") => "its weights are not constants",
            other => other,
        };
        let (name, op) = (node.name.to_string(), node.op.to_string());
        self.coverage.float.push(FloatNode { name, op, reason: reason.to_string(), macs, skipped });
    }

    /// The nodes in the bodies of a node. Only layers with weights can be quantized there.
    fn bodies(&mut self, graph: &Graph, id: NodeId, outer: &dyn Fn(&str) -> Source) {
        for body in graph.node(id).bodies() {
            let seen = |name: &str| match graph.find(name) {
                Some(v) if graph.is_outer(v) => outer(name),
                Some(v) => Source::of(graph, v),
                None => Source::Other,
            };
            let contexts = Contexts::new(self.model, body);
            for id in body.order().unwrap_or_default() {
                self.bodies(body, id, &seen);
                let elem = body.output(id, 0).and_then(|v| body.ty(v)).and_then(|t| t.elem());
                if body.node(id).bodies().next().is_some() || elem.is_some_and(|t| !t.is_float()) {
                    continue;
                }
                let layer = layer(body, &contexts, id, &seen);
                if is_storage(body, id) {
                    continue;
                }
                if !layer.stored.is_empty() && layer.float.is_empty() {
                    self.node(body, &contexts, id, &Is::Stored, &seen);
                    continue;
                }
                let refused = self.selection.refuses(body.node(id));
                let reason = refused.unwrap_or(if layer.float.is_empty() { IN_BODY } else { NO_FORM });
                self.node(body, &contexts, id, &Is::Float(reason), &seen);
            }
            self.weights(body, &|_, _| false);
        }
    }

    /// Bytes that weights took in float and that are stored in fewer.
    fn stored_bytes(&mut self, graph: &Graph) {
        for v in graph.values() {
            let dynamic =
                |u: &Use| &*graph.node(u.node).op.op_type == "DynamicQuantizeLSTM" && matches!(u.port, Port::In(1 | 2));
            let own = |t: &&Tensor| t.dtype.is_int() && graph.uses(v).iter().any(dynamic);
            let codes = stored_source(graph, v).filter(|_| !is_step_of_stored(graph, v));
            if let Some(codes) = codes.or_else(|| graph.constant(v).filter(own)) {
                self.coverage.weight_bytes.add(4 * codes.len() as u64, true);
            }
        }
    }

    /// Bytes of the float constants of a graph, and of those that were float.
    fn weights(&mut self, graph: &Graph, in_integers: &dyn Fn(NodeId, u32) -> bool) {
        self.stored_bytes(graph);
        for v in graph.values() {
            let Some(t) = graph.constant(v).filter(|t| t.dtype.is_float()) else { continue };
            let uses = graph.uses(v);
            let is_scale = |u: &Use| graph.node(u.node).op.is("DequantizeLinear") && u.port == Port::In(1);
            if !uses.is_empty() && uses.iter().all(is_scale) {
                continue;
            }
            let quantized = uses.iter().all(|u| matches!(u.port, Port::In(slot) if in_integers(u.node, slot)));
            self.coverage.weight_bytes.add(t.stored_bytes() as u64, quantized && !uses.is_empty());
        }
    }
}

/// Whether the value only becomes a dequantized weight by a Reshape, so that it would be counted twice.
fn is_step_of_stored(graph: &Graph, v: ValueId) -> bool {
    graph.only_use(v).is_some_and(|u| graph.node(u.node).op.is("Reshape") && u.port == Port::In(0))
        && graph.producer(v).is_some_and(|(p, _)| graph.node(p).op.is("DequantizeLinear"))
}
