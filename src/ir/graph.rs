//! The graph: nodes and values as the two sides of a bipartite petgraph, and how to read it.

use super::names::Names;
use super::{Node, Tensor, Type, Value};
use crate::proto;
use petgraph::Direction;
use petgraph::stable_graph::{EdgeIndex, NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, IntoNodeReferences};
use std::collections::HashMap;
use std::sync::Arc;

/// Identifies a node within one graph, until the next dead-code elimination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub(super) NodeIndex);

/// Identifies a value within one graph, until the next dead-code elimination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ValueId(pub(super) NodeIndex);

/// What a vertex is. Shared between a graph and its clones until one of them changes it.
#[derive(Clone, Debug)]
pub(super) enum Entity {
    Node(Arc<NodeCell>),
    Value(Arc<ValueCell>),
}

/// A node and its edges, by slot.
#[derive(Clone, Debug)]
pub(super) struct NodeCell {
    pub node: Node,
    pub inputs: Vec<Option<EdgeIndex>>,
    pub outputs: Vec<Option<EdgeIndex>>,
    pub captures: Vec<Option<EdgeIndex>>,
}

/// A value and what is asked of it most.
#[derive(Clone, Debug)]
pub(super) struct ValueCell {
    pub value: Value,
    /// Number of edges that are uses.
    pub uses: u32,
    /// Whether it is among the graph's inputs.
    pub is_input: bool,
    /// Its places among the graph's outputs.
    pub outputs: Vec<u32>,
}

/// What an edge means, seen from the node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Port {
    /// Input slot of a node.
    In(u32),
    /// Output slot of a node.
    Out(u32),
    /// The node's bodies use this outer value.
    Capture(u32),
}

/// One use of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// The node that uses it.
    pub node: NodeId,
    /// As which input, or as a capture.
    pub port: Port,
}

/// A graph: the model's own, or the body of an If, Loop or Scan.
///
/// Values and nodes are both vertices, so a value's type and data exist once and its uses are its outgoing edges. An
/// absent optional input is an absent `In(k)` edge. A body's outer values are values of the body with neither producer,
/// data nor a place among its inputs; each has a `Capture` edge from the outer value of that name to the owning node.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// An edge without a weight is cut: see [`super::edges`].
    pub(super) g: StableDiGraph<Entity, Option<Port>>,
    pub(super) cut_edges: usize,
    pub(super) inputs: Vec<ValueId>,
    pub(super) outputs: Vec<ValueId>,
    pub(super) by_name: HashMap<Arc<str>, ValueId>,
    /// Names that new values must not take.
    pub(super) names: Names,
    /// Fields that no pass reads, kept as read.
    pub shell: GraphShell,
}

/// The fields of a `GraphProto` that no pass reads.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct GraphShell {
    pub name: Option<String>,
    pub doc_string: Option<String>,
    pub quantization_annotation: Vec<proto::TensorAnnotation>,
    pub metadata_props: Vec<proto::StringStringEntryProto>,
}

impl Graph {
    /// Graph inputs in order, initializers that are also inputs included.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// Graph outputs in order; a value may appear twice.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// Graph inputs that the caller must feed: those without a default.
    pub fn required_inputs(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs.iter().copied().filter(|&v| self.value(v).init.is_none())
    }

    /// All nodes, in no particular order: see [`Graph::order`] for a meaningful one.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.g.node_references().filter(|(_, e)| matches!(e, Entity::Node(_))).map(|(i, _)| NodeId(i))
    }

    /// All values, by ascending id.
    pub fn values(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.g.node_references().filter(|(_, e)| matches!(e, Entity::Value(_))).map(|(i, _)| ValueId(i))
    }

    /// Number of nodes, bodies not counted.
    pub fn node_count(&self) -> usize {
        self.nodes().count()
    }

    /// The node. Ids come from this graph, so there is always one; a stale id after a deletion is a bug of the caller.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.node_cell(id).node
    }

    /// The value; see [`Graph::node`] on stale ids.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.value_cell(id).value
    }

    pub(super) fn node_cell(&self, id: NodeId) -> &NodeCell {
        match &self.g[id.0] {
            Entity::Node(n) => n,
            Entity::Value(_) => unreachable!("a NodeId points at a node"),
        }
    }

    pub(super) fn value_cell(&self, id: ValueId) -> &ValueCell {
        match &self.g[id.0] {
            Entity::Value(v) => v,
            Entity::Node(_) => unreachable!("a ValueId points at a value"),
        }
    }

    /// The value's name.
    pub fn name(&self, id: ValueId) -> &str {
        &self.value(id).name
    }

    /// The value's type, where it is known.
    pub fn ty(&self, id: ValueId) -> Option<&Type> {
        self.value(id).ty.as_ref()
    }

    /// The value with this name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.by_name.get(name).copied()
    }

    /// Inputs by slot; `None` where an optional one is absent.
    pub fn node_inputs(&self, id: NodeId) -> Vec<Option<ValueId>> {
        let cell = self.node_cell(id);
        let edge = |k: usize| cell.inputs.get(k).copied().flatten();
        (0..cell.node.input_slots as usize).map(|k| edge(k).map(|e| self.source(e))).collect()
    }

    /// Outputs by slot; `None` where an optional one is absent.
    pub fn node_outputs(&self, id: NodeId) -> Vec<Option<ValueId>> {
        let cell = self.node_cell(id);
        let edge = |k: usize| cell.outputs.get(k).copied().flatten();
        (0..cell.node.output_slots as usize).map(|k| edge(k).map(|e| self.target(e))).collect()
    }

    /// One input of a node, where it is present.
    pub fn input(&self, id: NodeId, slot: usize) -> Option<ValueId> {
        self.node_cell(id).inputs.get(slot).copied().flatten().map(|e| self.source(e))
    }

    /// One output of a node, where it is present.
    pub fn output(&self, id: NodeId, slot: usize) -> Option<ValueId> {
        self.node_cell(id).outputs.get(slot).copied().flatten().map(|e| self.target(e))
    }

    /// Outer values that the node's bodies use, in capture order.
    pub fn captures(&self, id: NodeId) -> Vec<ValueId> {
        self.node_cell(id).captures.iter().flatten().map(|&e| self.source(e)).collect()
    }

    /// The node that makes the value, and its output slot.
    pub fn producer(&self, id: ValueId) -> Option<(NodeId, usize)> {
        self.g.edges_directed(id.0, Direction::Incoming).find_map(|e| match e.weight() {
            Some(Port::Out(k)) => Some((NodeId(e.source()), *k as usize)),
            _ => None,
        })
    }

    /// Every use of the value by a node, in file order. A graph output is not a use: see [`Graph::is_output`].
    ///
    /// Takes as long as there are uses: ask [`Graph::use_count`] or [`Graph::only_use`] where that is the question.
    pub fn uses(&self, id: ValueId) -> Vec<Use> {
        let mut uses: Vec<Use> = self.use_edges(id).map(|(_, node, port)| Use { node, port }).collect();
        uses.sort_by_key(|u| (self.node(u.node).rank, u.node, u.port));
        uses
    }

    /// Number of uses of the value by nodes, in constant time.
    pub fn use_count(&self, id: ValueId) -> usize {
        self.value_cell(id).uses as usize
    }

    /// Whether a node uses the value.
    pub fn has_uses(&self, id: ValueId) -> bool {
        self.use_count(id) > 0
    }

    /// Number of uses by nodes, counted up to `limit`.
    pub fn count_uses(&self, id: ValueId, limit: usize) -> usize {
        self.g.edges_directed(id.0, Direction::Outgoing).take(limit).count()
    }

    /// The only use, where there is exactly one and the value is not a graph output.
    pub fn only_use(&self, id: ValueId) -> Option<Use> {
        if self.is_output(id) || self.use_count(id) != 1 {
            return None;
        }
        self.use_edges(id).next().map(|(_, node, port)| Use { node, port })
    }

    /// Whether the value is a graph input.
    pub fn is_input(&self, id: ValueId) -> bool {
        self.value_cell(id).is_input
    }

    /// Whether the value is a graph output.
    pub fn is_output(&self, id: ValueId) -> bool {
        !self.value_cell(id).outputs.is_empty()
    }

    /// The value's data, where no caller can change them: an initializer that is not a graph input.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.value(id).init.as_ref().filter(|_| !self.is_input(id))
    }

    /// Whether the value comes from outside: this graph is a body and captures it.
    pub fn is_outer(&self, id: ValueId) -> bool {
        self.value(id).init.is_none() && self.producer(id).is_none() && !self.is_input(id)
    }

    /// Outer values that this body uses, by ascending id.
    pub fn outer_values(&self) -> Vec<ValueId> {
        let used = |v: &ValueId| self.has_uses(*v) || self.is_output(*v);
        self.values().filter(|&v| self.is_outer(v)).filter(used).collect()
    }
}
