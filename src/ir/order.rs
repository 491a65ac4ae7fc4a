//! Execution order.

use super::{Graph, NodeId, Port, ValueId};
use crate::error::{Error, Result};
use petgraph::Direction;
use petgraph::visit::EdgeRef;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

impl Graph {
    /// Nodes so that each one comes after what it uses, as close to file order as that allows.
    ///
    /// Kahn's algorithm with the file rank as priority: the order is a function of the graph alone, so runs are
    /// deterministic and a rewritten file differs from the original only where it was rewritten.
    ///
    /// # Errors
    /// A cycle, naming one of its nodes.
    pub fn order(&self) -> Result<Vec<NodeId>> {
        let mut waiting: HashMap<NodeId, usize> = HashMap::with_capacity(self.g.node_count());
        let mut ready = BinaryHeap::new();
        for id in self.nodes() {
            let missing = self.produced_inputs(id).count();
            if missing == 0 {
                ready.push(Reverse((self.node(id).rank, id)));
            }
            waiting.insert(id, missing);
        }
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(Reverse((_, id))) = ready.pop() {
            order.push(id);
            for user in self.users(id) {
                if let Some(missing) = waiting.get_mut(&user) {
                    *missing -= 1;
                    if *missing == 0 {
                        ready.push(Reverse((self.node(user).rank, user)));
                    }
                }
            }
        }
        if order.len() == waiting.len() {
            return Ok(order);
        }
        let stuck = waiting.iter().filter(|(_, n)| **n > 0).map(|(id, _)| *id).min_by_key(|id| self.node(*id).rank);
        let label = stuck.map_or_else(String::new, |id| self.node(id).label());
        Err(Error::invalid(format!("the graph has a cycle through or before {label}")))
    }

    /// Incoming edges (inputs and captures, with multiplicity) from values that a node produces.
    fn produced_inputs(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let edges = self.g.edges_directed(id.0, Direction::Incoming);
        edges.filter_map(|e| self.producer(ValueId(e.source())).map(|(p, _)| p))
    }

    /// Nodes that use the outputs of `id`, with multiplicity.
    fn users(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let outputs = self.g.edges_directed(id.0, Direction::Outgoing);
        outputs
            .filter(|e| matches!(e.weight(), Port::Out(_)))
            .flat_map(|e| self.g.edges_directed(e.target(), Direction::Outgoing).map(|u| NodeId(u.target())))
    }
}
