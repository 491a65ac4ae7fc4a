//! The edges of a graph, and how they change in constant time.
//!
//! petgraph keeps each vertex' edges in a linked list, so removing one takes as long as the list: quadratic where one
//! value has 100,000 uses, or one Concat 100,000 inputs. So an edge that is cut stays in its lists without a meaning
//! until the cut edges outnumber the others; then all lists are built anew. Every edit takes amortized constant time.

use super::graph::Entity;
use super::{Graph, NodeId, Port, ValueId};
use petgraph::Direction;
use petgraph::stable_graph::{EdgeIndex, NodeIndex};
use petgraph::visit::EdgeRef;
use std::sync::Arc;

/// Cut edges of which there are fewer than this are not worth building the lists anew.
const FEW: usize = 1024;

impl Graph {
    /// Uses of the value as edges: who uses it, and how.
    pub(super) fn use_edges(&self, id: ValueId) -> impl Iterator<Item = (EdgeIndex, NodeId, Port)> + '_ {
        let live = self.value_cell(id).uses as usize;
        let edges = self.g.edges_directed(id.0, Direction::Outgoing);
        edges.filter_map(|e| e.weight().map(|port| (e.id(), NodeId(e.target()), port))).take(live)
    }

    /// Values that the node needs: inputs and captures, with multiplicity.
    pub(super) fn needed_values(&self, id: NodeId) -> impl Iterator<Item = ValueId> + '_ {
        let cell = self.node_cell(id);
        cell.inputs.iter().chain(&cell.captures).flatten().map(|&e| self.source(e))
    }

    /// The value at the start of a use.
    pub(super) fn source(&self, edge: EdgeIndex) -> ValueId {
        ValueId(self.g.edge_endpoints(edge).map_or_else(Default::default, |ends| ends.0))
    }

    /// The value at the end of an output edge.
    pub(super) fn target(&self, edge: EdgeIndex) -> ValueId {
        ValueId(self.g.edge_endpoints(edge).map_or_else(Default::default, |ends| ends.1))
    }

    /// Makes `node` use `value` as `port`, which is free.
    pub(super) fn add_use(&mut self, value: ValueId, node: NodeId, port: Port) {
        let edge = self.g.add_edge(value.0, node.0, Some(port));
        self.value_cell_mut(value).uses += 1;
        self.enter(node, port, edge);
    }

    /// Makes `node` produce `value` as output `slot`.
    pub(super) fn add_output(&mut self, node: NodeId, value: ValueId, slot: u32) {
        let edge = self.g.add_edge(node.0, value.0, Some(Port::Out(slot)));
        self.enter(node, Port::Out(slot), edge);
    }

    /// Writes an edge into the node's table of slots.
    fn enter(&mut self, node: NodeId, port: Port, edge: EdgeIndex) {
        let cell = self.node_cell_mut(node);
        let (table, slot) = match port {
            Port::In(k) => (&mut cell.inputs, k as usize),
            Port::Out(k) => (&mut cell.outputs, k as usize),
            Port::Capture(k) => (&mut cell.captures, k as usize),
        };
        if table.len() <= slot {
            table.resize(slot + 1, None);
        }
        table[slot] = Some(edge);
    }

    /// Ends what is at an input slot, if anything is.
    pub(super) fn cut_input(&mut self, node: NodeId, slot: usize) {
        let edge = self.node_cell(node).inputs.get(slot).copied().flatten();
        if let Some(edge) = edge {
            self.node_cell_mut(node).inputs[slot] = None;
            self.cut(edge);
        }
    }

    /// Ends what is at an output slot, if anything is.
    pub(super) fn cut_output(&mut self, node: NodeId, slot: usize) {
        let edge = self.node_cell(node).outputs.get(slot).copied().flatten();
        if let Some(edge) = edge {
            self.node_cell_mut(node).outputs[slot] = None;
            self.cut_edges += usize::from(self.g.edge_weight_mut(edge).and_then(Option::take).is_some());
        }
    }

    /// Ends all captures of a node.
    pub(super) fn cut_captures(&mut self, node: NodeId) {
        if !self.node_cell(node).captures.is_empty() {
            let all = std::mem::take(&mut self.node_cell_mut(node).captures);
            all.into_iter().flatten().for_each(|e| self.cut(e));
        }
    }

    /// Moves a use of one value to another one.
    pub(super) fn move_use(&mut self, edge: EdgeIndex, node: NodeId, port: Port, to: ValueId) {
        self.cut(edge);
        self.add_use(to, node, port);
    }

    fn cut(&mut self, edge: EdgeIndex) {
        let source = self.source(edge);
        if let Some(weight) = self.g.edge_weight_mut(edge)
            && weight.take().is_some()
        {
            self.cut_edges += 1;
            self.value_cell_mut(source).uses -= 1;
        }
    }

    /// Builds the lists anew where most of what they hold is cut. Ids of edges change, those of nodes and values do not.
    pub(super) fn tidy(&mut self) {
        if self.cut_edges > FEW && self.cut_edges * 2 > self.g.edge_count() {
            self.rebuild_edges(|_, _| true);
        }
    }

    /// Removes nodes and values, with whatever edges they have.
    pub(super) fn delete(&mut self, nodes: &[NodeId], values: &[ValueId]) {
        if nodes.is_empty() && values.is_empty() {
            return;
        }
        let gone: Vec<NodeIndex> = nodes.iter().map(|n| n.0).chain(values.iter().map(|v| v.0)).collect();
        let mut is_gone = vec![false; self.g.node_indices().next_back().map_or(0, |last| last.index() + 1)];
        gone.iter().for_each(|v| is_gone[v.index()] = true);
        for v in values {
            let name = self.value(*v).name.clone();
            self.by_name.remove(&name);
        }
        self.rebuild_edges(|from, to| !is_gone[from.index()] && !is_gone[to.index()]);
        // Without edges, each of these takes constant time.
        gone.into_iter().for_each(|v| drop(self.g.remove_node(v)));
    }

    fn rebuild_edges(&mut self, keep: impl Fn(NodeIndex, NodeIndex) -> bool) {
        let live = |e: EdgeIndex| Some((self.g.edge_endpoints(e)?, (*self.g.edge_weight(e)?)?));
        let edges: Vec<_> = self.g.edge_indices().filter_map(live).filter(|((from, to), _)| keep(*from, *to)).collect();
        self.g.clear_edges();
        self.cut_edges = 0;
        for entity in self.g.node_weights_mut() {
            if let Entity::Value(cell) = entity
                && cell.uses > 0
            {
                Arc::make_mut(cell).uses = 0;
            }
        }
        for ((from, to), port) in edges {
            match port {
                Port::Out(slot) => self.add_output(NodeId(from), ValueId(to), slot),
                Port::In(_) | Port::Capture(_) => self.add_use(ValueId(from), NodeId(to), port),
            }
        }
    }
}
