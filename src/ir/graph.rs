//! The graph: nodes and values as the two sides of a bipartite petgraph, and how to read it.

use super::{Node, Tensor, Type, Value};
use crate::proto;
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, IntoNodeReferences};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Identifies a node within one graph, until the next dead-code elimination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub(super) NodeIndex);

/// Identifies a value within one graph, until the next dead-code elimination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ValueId(pub(super) NodeIndex);

/// What a vertex is.
#[derive(Clone, Debug)]
pub(super) enum Entity {
    Node(Box<Node>),
    Value(Box<Value>),
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
    pub(super) g: StableDiGraph<Entity, Port>,
    pub(super) inputs: Vec<ValueId>,
    pub(super) outputs: Vec<ValueId>,
    pub(super) by_name: HashMap<Arc<str>, ValueId>,
    /// Names inside the bodies of nodes: SSA form forbids them here too.
    pub(super) inner_names: HashSet<Arc<str>>,
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
        match &self.g[id.0] {
            Entity::Node(n) => n,
            Entity::Value(_) => unreachable!("a NodeId points at a node"),
        }
    }

    /// The value; see [`Graph::node`] on stale ids.
    pub fn value(&self, id: ValueId) -> &Value {
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
        let mut slots = vec![None; self.node(id).input_slots as usize];
        for e in self.g.edges_directed(id.0, Direction::Incoming) {
            if let Port::In(k) = e.weight() {
                slots[*k as usize] = Some(ValueId(e.source()));
            }
        }
        slots
    }

    /// Outputs by slot; `None` where an optional one is absent.
    pub fn node_outputs(&self, id: NodeId) -> Vec<Option<ValueId>> {
        let mut slots = vec![None; self.node(id).output_slots as usize];
        for e in self.g.edges_directed(id.0, Direction::Outgoing) {
            if let Port::Out(k) = e.weight() {
                slots[*k as usize] = Some(ValueId(e.target()));
            }
        }
        slots
    }

    /// One input of a node, where it is present.
    pub fn input(&self, id: NodeId, slot: usize) -> Option<ValueId> {
        let mut edges = self.g.edges_directed(id.0, Direction::Incoming);
        edges.find(|e| *e.weight() == Port::In(slot as u32)).map(|e| ValueId(e.source()))
    }

    /// One output of a node, where it is present.
    pub fn output(&self, id: NodeId, slot: usize) -> Option<ValueId> {
        let mut edges = self.g.edges_directed(id.0, Direction::Outgoing);
        edges.find(|e| *e.weight() == Port::Out(slot as u32)).map(|e| ValueId(e.target()))
    }

    /// Outer values that the node's bodies use, in capture order.
    pub fn captures(&self, id: NodeId) -> Vec<ValueId> {
        let edges = self.g.edges_directed(id.0, Direction::Incoming);
        let mut found: Vec<(Port, ValueId)> = edges
            .filter(|e| matches!(e.weight(), Port::Capture(_)))
            .map(|e| (*e.weight(), ValueId(e.source())))
            .collect();
        found.sort();
        found.into_iter().map(|(_, v)| v).collect()
    }

    /// The node that makes the value, and its output slot.
    pub fn producer(&self, id: ValueId) -> Option<(NodeId, usize)> {
        self.g.edges_directed(id.0, Direction::Incoming).find_map(|e| match e.weight() {
            Port::Out(k) => Some((NodeId(e.source()), *k as usize)),
            _ => None,
        })
    }

    /// Every use of the value by a node, in file order. A graph output is not a use: see [`Graph::is_output`].
    pub fn uses(&self, id: ValueId) -> Vec<Use> {
        let edges = self.g.edges_directed(id.0, Direction::Outgoing);
        let mut uses: Vec<Use> = edges.map(|e| Use { node: NodeId(e.target()), port: *e.weight() }).collect();
        uses.sort_by_key(|u| (self.node(u.node).rank, u.node, u.port));
        uses
    }

    /// Whether a node uses the value.
    pub fn has_uses(&self, id: ValueId) -> bool {
        self.g.edges_directed(id.0, Direction::Outgoing).next().is_some()
    }

    /// The only use, where there is exactly one and the value is not a graph output.
    pub fn only_use(&self, id: ValueId) -> Option<Use> {
        if self.is_output(id) {
            return None;
        }
        let mut edges = self.g.edges_directed(id.0, Direction::Outgoing);
        let first = edges.next()?;
        if edges.next().is_some() {
            return None;
        }
        Some(Use { node: NodeId(first.target()), port: *first.weight() })
    }

    /// Whether the value is a graph input.
    pub fn is_input(&self, id: ValueId) -> bool {
        self.inputs.contains(&id)
    }

    /// Whether the value is a graph output.
    pub fn is_output(&self, id: ValueId) -> bool {
        self.outputs.contains(&id)
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
        let used = |v: &ValueId| self.g.edges(v.0).next().is_some() || self.is_output(*v);
        self.values().filter(|&v| self.is_outer(v)).filter(used).collect()
    }
}
