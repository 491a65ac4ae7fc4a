//! All mutation of a graph. Visible inside the crate only: decoders build with it, and the pass driver applies patches
//! with it; a rule never touches it.

use super::graph::Entity;
use super::{Graph, Node, NodeId, Port, Value, ValueId};
use crate::error::{Error, Result};
use petgraph::Direction;
use petgraph::visit::EdgeRef;
use std::collections::HashSet;
use std::sync::Arc;

impl Graph {
    /// Adds a value.
    ///
    /// # Errors
    /// The name is taken.
    pub(crate) fn add_value(&mut self, value: Value) -> Result<ValueId> {
        if self.by_name.contains_key(&value.name) {
            return Err(Error::invalid(format!("duplicate value name \"{}\"", value.name)));
        }
        let name = value.name.clone();
        let id = ValueId(self.g.add_node(Entity::Value(Box::new(value))));
        self.by_name.insert(name, id);
        Ok(id)
    }

    /// The value with this name, added with nothing known where there is none.
    pub(crate) fn value_or_new(&mut self, name: &str) -> Result<ValueId> {
        match self.find(name) {
            Some(id) => Ok(id),
            None => self.add_value(Value::named(name)),
        }
    }

    /// A name that no value has, here or in a body: `hint`, or `hint_1`, `hint_2`, ...
    pub(crate) fn fresh_name(&self, hint: &str) -> Arc<str> {
        let free = |name: &str| !self.by_name.contains_key(name) && !self.inner_names.contains(name);
        if free(hint) && !hint.is_empty() {
            return hint.into();
        }
        let names = (1u32..).map(|k| format!("{hint}_{k}"));
        names.map(Arc::from).find(|n: &Arc<str>| free(n)).unwrap_or_else(|| hint.into())
    }

    /// Adds a node with its edges. Absent optional inputs and outputs are `None`; trailing ones count as slots.
    ///
    /// # Errors
    /// An output that another node produces already.
    pub(crate) fn add_node(
        &mut self,
        mut node: Node,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
    ) -> Result<NodeId> {
        node.input_slots = inputs.len() as u32;
        node.output_slots = outputs.len() as u32;
        let label = node.label();
        let id = NodeId(self.g.add_node(Entity::Node(Box::new(node))));
        for (k, v) in inputs.iter().enumerate() {
            if let Some(v) = v {
                self.g.add_edge(v.0, id.0, Port::In(k as u32));
            }
        }
        for (k, v) in outputs.iter().enumerate() {
            let Some(v) = v else { continue };
            if self.producer(*v).is_some() || self.value(*v).init.is_some() || self.is_input(*v) {
                let name = self.name(*v);
                return Err(Error::invalid(format!("duplicate value name \"{name}\": {label} produces it again")));
            }
            self.g.add_edge(id.0, v.0, Port::Out(k as u32));
        }
        self.connect_captures(id)?;
        Ok(id)
    }

    /// Makes the node's `Capture` edges those that its bodies need now.
    pub(crate) fn refresh_captures(&mut self, id: NodeId) -> Result<()> {
        self.drop_stale_captures(id);
        self.connect_captures(id)
    }

    /// Adds a `Capture` edge for each outer value that the node's bodies use and that has none yet.
    pub(crate) fn connect_captures(&mut self, id: NodeId) -> Result<()> {
        let wanted: Vec<Arc<str>> = {
            let bodies = self.node(id).bodies();
            bodies.flat_map(|b| b.outer_values().into_iter().map(|v| b.value(v).name.clone())).collect()
        };
        let mut have: HashSet<ValueId> = self.captures(id).into_iter().collect();
        let mut inner = HashSet::new();
        self.node(id).bodies().for_each(|b| b.collect_names(&mut inner));
        self.inner_names.extend(inner);
        for name in wanted {
            let v = self.value_or_new(&name)?;
            if have.insert(v) {
                self.g.add_edge(v.0, id.0, Port::Capture(have.len() as u32 - 1));
            }
        }
        Ok(())
    }

    /// Names of all values of the graph and of the bodies in it.
    pub(super) fn collect_names(&self, names: &mut HashSet<Arc<str>>) {
        names.extend(self.by_name.keys().cloned());
        names.extend(self.inner_names.iter().cloned());
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        match &mut self.g[id.0] {
            Entity::Node(n) => n,
            Entity::Value(_) => unreachable!("a NodeId points at a node"),
        }
    }

    pub(crate) fn value_mut(&mut self, id: ValueId) -> &mut Value {
        match &mut self.g[id.0] {
            Entity::Value(v) => v,
            Entity::Node(_) => unreachable!("a ValueId points at a value"),
        }
    }

    pub(crate) fn set_inputs(&mut self, inputs: Vec<ValueId>) {
        self.inputs = inputs;
    }

    pub(crate) fn set_outputs(&mut self, outputs: Vec<ValueId>) {
        self.outputs = outputs;
    }

    /// Points input `slot` at `value`, or clears it; grows the node's slots where needed.
    pub(crate) fn set_input(&mut self, id: NodeId, slot: usize, value: Option<ValueId>) {
        let port = Port::In(slot as u32);
        let old = self.g.edges_directed(id.0, Direction::Incoming).find(|e| *e.weight() == port).map(|e| e.id());
        if let Some(e) = old {
            self.g.remove_edge(e);
        }
        if let Some(v) = value {
            self.g.add_edge(v.0, id.0, port);
        }
        let node = self.node_mut(id);
        node.input_slots = node.input_slots.max(slot as u32 + 1);
    }

    /// Takes the value from the node that makes it, which keeps an unused output slot in its place.
    pub(crate) fn detach(&mut self, id: ValueId) {
        let made = self.g.edges_directed(id.0, Direction::Incoming).find(|e| matches!(e.weight(), Port::Out(_)));
        if let Some(e) = made.map(|e| e.id()) {
            self.g.remove_edge(e);
        }
    }

    /// Whether something needs the value and nothing gives it.
    pub(crate) fn is_dangling(&self, id: ValueId) -> bool {
        let exists = matches!(self.g.node_weight(id.0), Some(Entity::Value(_)));
        exists && self.is_outer(id) && (self.has_uses(id) || self.is_output(id))
    }

    /// Points every use of `old`, captures and graph outputs included, at `new`.
    ///
    /// Graph outputs keep their name: where `old` is one, `new` takes its name (and its declaration) and `old` gets a
    /// fresh one. A `new` that cannot give up its own name (a graph input, an initializer, an outer value or another
    /// graph output) is passed through an Identity.
    pub(crate) fn replace_uses(&mut self, old: ValueId, new: ValueId) -> Result<()> {
        if old == new {
            return Ok(());
        }
        let target = if self.is_output(old) { self.take_over_output(old, new)? } else { new };
        let edges: Vec<_> = self.g.edges(old.0).map(|e| (e.id(), NodeId(e.target()), *e.weight())).collect();
        for (edge, node, port) in edges {
            if target != new && self.producer(target).map(|p| p.0) == Some(node) {
                continue; // the Identity itself
            }
            self.g.remove_edge(edge);
            self.g.add_edge(new.0, node.0, port);
            if matches!(port, Port::Capture(_)) {
                let (from, to) = (self.value(old).name.clone(), self.value(new).name.clone());
                self.rename_captured(node, &from, &to)?;
            }
        }
        Ok(())
    }

    /// Makes the outputs that are `old` come from `new` under `old`'s name; returns the value that is the output now.
    fn take_over_output(&mut self, old: ValueId, new: ValueId) -> Result<ValueId> {
        let fixed_name = self.producer(new).is_none() || self.is_output(new);
        let target = if fixed_name {
            let name = self.fresh_name(&format!("{}_copy", self.name(old)));
            let copy = self.add_value(Value::named(name))?;
            let mut identity = Node::new(super::OpId::onnx("Identity"));
            identity.rank = u32::MAX;
            self.add_node(identity, &[Some(new)], &[Some(copy)])?;
            copy
        } else {
            new
        };
        let spare = self.fresh_name(&format!("{}_replaced", self.name(old)));
        let public = self.value(old).name.clone();
        self.rename(old, &spare)?;
        self.rename(target, &public)?;
        let shell = self.value_mut(old).shell.take();
        let ty = self.value(old).ty.clone();
        let value = self.value_mut(target);
        value.shell = shell;
        if value.ty.is_none() {
            value.ty = ty;
        }
        for o in &mut self.outputs {
            if *o == old {
                *o = target;
            }
        }
        Ok(target)
    }

    /// Renames a value, in the bodies that capture it too.
    pub(crate) fn rename(&mut self, id: ValueId, name: &str) -> Result<()> {
        let old = self.value(id).name.clone();
        if &*old == name {
            return Ok(());
        }
        if self.by_name.contains_key(name) {
            return Err(Error::internal(format!("renaming \"{old}\" to \"{name}\", which is taken")));
        }
        self.by_name.remove(&old);
        self.by_name.insert(name.into(), id);
        self.value_mut(id).name = name.into();
        let owners = self.uses(id).into_iter().filter(|u| matches!(u.port, Port::Capture(_)));
        for owner in owners.collect::<Vec<_>>() {
            self.rename_captured(owner.node, &old, name)?;
        }
        Ok(())
    }

    /// In the bodies of `owner`, makes uses of the outer value `from` uses of the outer value `to`.
    fn rename_captured(&mut self, owner: NodeId, from: &str, to: &str) -> Result<()> {
        for body in self.node_mut(owner).bodies_mut() {
            let Some(v) = body.find(from).filter(|&v| body.is_outer(v)) else { continue };
            if let Some(clash) = body.find(to) {
                if body.is_outer(clash) {
                    body.replace_uses(v, clash)?;
                    continue;
                }
                // The body shadows the new name with a value of its own: give that one another.
                let spare = body.fresh_name(&format!("{to}_inner"));
                body.rename(clash, &spare)?;
            }
            body.rename(v, to)?;
        }
        Ok(())
    }

    /// Removes every node whose outputs nobody needs and every value that nothing touches, in bodies too. The only
    /// deletion there is: ids from before it must not be used after it. Graph inputs stay.
    pub(crate) fn eliminate_dead(&mut self) -> Result<usize> {
        let mut live: HashSet<NodeId> = HashSet::new();
        let mut stack: Vec<ValueId> = self.outputs.clone();
        let mut needed: HashSet<ValueId> = stack.iter().copied().collect();
        while let Some(v) = stack.pop() {
            let Some((node, _)) = self.producer(v) else { continue };
            if live.insert(node) {
                let incoming = self.g.edges_directed(node.0, Direction::Incoming);
                let inputs: Vec<ValueId> = incoming.map(|e| ValueId(e.source())).collect();
                stack.extend(inputs.into_iter().filter(|v| needed.insert(*v)));
            }
        }
        let dead: Vec<NodeId> = self.nodes().filter(|n| !live.contains(n)).collect();
        for node in &dead {
            self.g.remove_node(node.0);
        }
        self.drop_unused_values(&needed);
        let mut removed = dead.len();
        let owners: Vec<NodeId> = live.into_iter().filter(|&n| self.node(n).bodies().next().is_some()).collect();
        for node in owners {
            for body in self.node_mut(node).bodies_mut() {
                removed += body.eliminate_dead()?;
            }
            self.drop_stale_captures(node);
        }
        Ok(removed)
    }

    fn drop_unused_values(&mut self, needed: &HashSet<ValueId>) {
        // A node's outputs are positional, so those of a live node stay although nobody reads them.
        let keep = |g: &Self, v: ValueId| needed.contains(&v) || g.is_input(v) || g.producer(v).is_some();
        let unused: Vec<ValueId> = self.values().filter(|&v| !keep(self, v)).collect();
        for v in unused {
            let name = self.value(v).name.clone();
            self.by_name.remove(&name);
            self.g.remove_node(v.0);
        }
    }

    fn drop_stale_captures(&mut self, node: NodeId) {
        let wanted: HashSet<Arc<str>> = {
            let bodies = self.node(node).bodies();
            bodies.flat_map(|b| b.outer_values().into_iter().map(|v| b.value(v).name.clone())).collect()
        };
        let edges = self.g.edges_directed(node.0, Direction::Incoming);
        let stale: Vec<_> = edges
            .filter(|e| matches!(e.weight(), Port::Capture(_)))
            .filter(|e| !wanted.contains(&self.value(ValueId(e.source())).name))
            .map(|e| e.id())
            .collect();
        for e in stale {
            self.g.remove_edge(e);
        }
    }
}
