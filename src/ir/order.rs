//! Execution order.

use super::{Graph, NodeId};
use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

impl Graph {
    /// Nodes so that each one comes after what it uses, as close to file order as that allows.
    ///
    /// Kahn's algorithm with the file rank as priority: the order is a function of the graph alone, so runs are
    /// deterministic and a rewritten file differs from the original only where it was rewritten.
    ///
    /// # Errors
    /// A cycle, naming one of its nodes.
    pub fn order(&self) -> Result<Vec<NodeId>> {
        // Indexed by vertex: the inputs that each node still waits for.
        let mut waiting = vec![0usize; self.g.node_indices().next_back().map_or(0, |last| last.index() + 1)];
        let mut ready = BinaryHeap::new();
        let mut nodes = 0;
        for id in self.nodes() {
            let missing = self.needed_values(id).filter(|&v| self.producer(v).is_some()).count();
            if missing == 0 {
                ready.push(Reverse((self.node(id).rank, id)));
            }
            waiting[id.0.index()] = missing;
            nodes += 1;
        }
        let mut order = Vec::with_capacity(nodes);
        while let Some(Reverse((_, id))) = ready.pop() {
            order.push(id);
            for user in self.users(id) {
                let missing = &mut waiting[user.0.index()];
                *missing -= 1;
                if *missing == 0 {
                    ready.push(Reverse((self.node(user).rank, user)));
                }
            }
        }
        if order.len() == nodes {
            return Ok(order);
        }
        let stuck = self.nodes().filter(|id| waiting[id.0.index()] > 0).min_by_key(|id| self.node(*id).rank);
        let label = stuck.map_or_else(String::new, |id| self.node(id).label());
        Err(Error::invalid(format!("the graph has a cycle through or before {label}")))
    }

    /// Nodes that use the outputs of `id`, with multiplicity.
    fn users(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let outputs = self.node_cell(id).outputs.iter().flatten();
        outputs.flat_map(|&e| self.use_edges(self.target(e)).map(|(_, user, _)| user))
    }
}
