//! Dead-code elimination: the only deletion there is.

use super::{Graph, NodeId, ValueId};
use crate::error::Result;

impl Graph {
    /// Removes every node whose outputs nobody needs and every value that nothing touches, in bodies too. Ids from before
    /// it must not be used after it. Graph inputs stay. Takes linear time.
    pub(crate) fn eliminate_dead(&mut self) -> Result<usize> {
        let mut live = self.live();
        let owners = self.nodes().filter(|n| live[n.0.index()] && self.node(*n).bodies().next().is_some());
        let owners: Vec<NodeId> = owners.collect();
        let mut removed = 0;
        for &owner in &owners {
            for body in self.node_mut(owner).bodies_mut() {
                removed += body.eliminate_dead()?;
            }
            self.refresh_captures(owner)?;
        }
        if !owners.is_empty() {
            live = self.live(); // what only dead nodes of a body used is dead now
        }
        let dead: Vec<NodeId> = self.nodes().filter(|n| !live[n.0.index()]).collect();
        // A node's outputs are positional, so those of a live node stay although nobody reads them.
        let keep = |v: ValueId| {
            live[v.0.index()] || self.is_input(v) || self.producer(v).is_some_and(|(node, _)| live[node.0.index()])
        };
        let unused: Vec<ValueId> = self.values().filter(|&v| !keep(v)).collect();
        removed += dead.len();
        self.delete(&dead, &unused);
        Ok(removed)
    }

    /// By vertex, whether the outputs need it.
    fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.g.node_indices().next_back().map_or(0, |last| last.index() + 1)];
        let mut stack: Vec<ValueId> = self.outputs.clone();
        stack.iter().for_each(|v| live[v.0.index()] = true);
        while let Some(v) = stack.pop() {
            let Some((node, _)) = self.producer(v) else { continue };
            if std::mem::replace(&mut live[node.0.index()], true) {
                continue;
            }
            for v in self.needed_values(node) {
                if !std::mem::replace(&mut live[v.0.index()], true) {
                    stack.push(v);
                }
            }
        }
        live
    }
}
