//! All mutation of a graph. Visible inside the crate only: decoders build with it, and the pass driver applies patches
//! with it; a rule never touches it.

use super::graph::{Entity, NodeCell, ValueCell};
use super::names::Names;
use super::{Graph, Node, NodeId, Port, Value, ValueId};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};
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
        self.names.take(&name);
        let cell = ValueCell { value, uses: 0, is_input: false, outputs: vec![] };
        let id = ValueId(self.g.add_node(Entity::Value(Arc::new(cell))));
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

    /// A name that no value has, here, in a body, or (see [`Graph::lend_names`]) around this body: `hint`, or `hint_1`,
    /// `hint_2`, ... The same one is not given twice.
    pub(crate) fn fresh_name(&mut self, hint: &str) -> Arc<str> {
        self.names.fresh(hint)
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
        let (slots, captures) = (Vec::with_capacity(inputs.len()), vec![]);
        let cell = NodeCell { node, inputs: slots, outputs: Vec::with_capacity(outputs.len()), captures };
        let id = NodeId(self.g.add_node(Entity::Node(Arc::new(cell))));
        for (k, v) in inputs.iter().enumerate() {
            if let Some(v) = v {
                self.add_use(*v, id, Port::In(k as u32));
            }
        }
        for (k, v) in outputs.iter().enumerate() {
            let Some(v) = v else { continue };
            if self.producer(*v).is_some() || self.value(*v).init.is_some() || self.is_input(*v) {
                let name = self.name(*v);
                return Err(Error::invalid(format!("duplicate value name \"{name}\": {label} produces it again")));
            }
            self.add_output(id, *v, k as u32);
        }
        self.refresh_captures(id)?;
        Ok(id)
    }

    /// Makes the node's `Capture` edges those that its bodies need now, and takes note of the names in them.
    pub(crate) fn refresh_captures(&mut self, id: NodeId) -> Result<()> {
        if self.node(id).bodies().next().is_none() && self.node_cell(id).captures.is_empty() {
            return Ok(());
        }
        let mut wanted: Vec<Arc<str>> = vec![];
        let mut inner = vec![];
        for body in self.node_mut(id).bodies_mut() {
            wanted.extend(body.outer_values().into_iter().map(|v| body.value(v).name.clone()));
            inner.push(body.take_names());
        }
        inner.into_iter().for_each(|names| self.lend_names(names));
        let mut seen = HashSet::new();
        wanted.retain(|name| seen.insert(name.clone()));
        self.cut_captures(id);
        for (k, name) in wanted.iter().enumerate() {
            let v = self.value_or_new(name)?;
            self.add_use(v, id, Port::Capture(k as u32));
        }
        self.tidy();
        Ok(())
    }

    /// Takes the names that this graph knows, to lend them to a body of it while that is edited. Until they are back no
    /// fresh name is to be asked of this graph.
    pub(crate) fn take_names(&mut self) -> Names {
        std::mem::take(&mut self.names)
    }

    /// Adds names to those that fresh names must differ from.
    pub(crate) fn lend_names(&mut self, names: Names) {
        self.names.merge(names);
    }

    /// Counts the names of all values of the graph and of the bodies in it.
    pub(super) fn count_names(&self, counts: &mut HashMap<Arc<str>, u32>) {
        self.by_name.keys().for_each(|name| *counts.entry(name.clone()).or_default() += 1);
        for id in self.nodes() {
            self.node(id).bodies().for_each(|b| b.count_names(counts));
        }
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.node_cell_mut(id).node
    }

    pub(crate) fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.value_cell_mut(id).value
    }

    pub(super) fn node_cell_mut(&mut self, id: NodeId) -> &mut NodeCell {
        match &mut self.g[id.0] {
            Entity::Node(n) => Arc::make_mut(n),
            Entity::Value(_) => unreachable!("a NodeId points at a node"),
        }
    }

    pub(super) fn value_cell_mut(&mut self, id: ValueId) -> &mut ValueCell {
        match &mut self.g[id.0] {
            Entity::Value(v) => Arc::make_mut(v),
            Entity::Node(_) => unreachable!("a ValueId points at a value"),
        }
    }

    pub(crate) fn set_inputs(&mut self, inputs: Vec<ValueId>) {
        for v in std::mem::take(&mut self.inputs) {
            self.value_cell_mut(v).is_input = false;
        }
        inputs.iter().for_each(|&v| self.value_cell_mut(v).is_input = true);
        self.inputs = inputs;
    }

    pub(crate) fn set_outputs(&mut self, outputs: Vec<ValueId>) {
        for v in std::mem::take(&mut self.outputs) {
            self.value_cell_mut(v).outputs.clear();
        }
        outputs.iter().zip(0..).for_each(|(&v, k)| self.value_cell_mut(v).outputs.push(k));
        self.outputs = outputs;
    }

    /// Points input `slot` at `value`, or clears it; grows the node's slots where needed.
    pub(crate) fn set_input(&mut self, id: NodeId, slot: usize, value: Option<ValueId>) {
        self.cut_input(id, slot);
        if let Some(v) = value {
            self.add_use(v, id, Port::In(slot as u32));
        }
        let node = self.node_mut(id);
        node.input_slots = node.input_slots.max(slot as u32 + 1);
        self.tidy();
    }

    /// Takes the value from the node that makes it, which keeps an unused output slot in its place.
    pub(crate) fn detach(&mut self, id: ValueId) {
        if let Some((node, slot)) = self.producer(id) {
            self.cut_output(node, slot);
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
        let edges: Vec<_> = self.use_edges(old).collect();
        for (edge, node, port) in edges {
            if target != new && self.producer(target).map(|p| p.0) == Some(node) {
                continue; // the Identity itself
            }
            self.move_use(edge, node, port, new);
            if matches!(port, Port::Capture(_)) {
                let (from, to) = (self.value(old).name.clone(), self.value(new).name.clone());
                self.rename_captured(node, &from, &to)?;
            }
        }
        self.tidy();
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
        // What the interface says stays known.
        if value.ty.as_ref().is_none_or(|t| t.shape().is_none()) {
            value.ty = ty.or(value.ty.take());
        }
        let places = std::mem::take(&mut self.value_cell_mut(old).outputs);
        places.iter().for_each(|&k| self.outputs[k as usize] = target);
        self.value_cell_mut(target).outputs.extend(places);
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
        let name: Arc<str> = name.into();
        self.names.take(&name);
        self.by_name.remove(&old);
        self.by_name.insert(name.clone(), id);
        self.value_mut(id).name = name.clone();
        let owners = self.use_edges(id).filter(|(_, _, port)| matches!(port, Port::Capture(_)));
        for owner in owners.map(|(_, node, _)| node).collect::<Vec<_>>() {
            self.rename_captured(owner, &old, &name)?;
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
}
