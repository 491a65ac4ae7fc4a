//! Moving nodes of a body into the graph around it.

use super::{Graph, NodeId, Value, ValueId};
use crate::error::{Error, Result};
use std::collections::HashMap;

impl Graph {
    /// Moves nodes of the body in attribute `attribute` of `owner` into this graph, given in execution order; the body
    /// captures what they make. Their inputs are outer values, initializers of the body (copied) or made by nodes before
    /// them. The body's nodes are left without uses, for dead-code elimination.
    ///
    /// # Errors
    /// No such body; an input that changes from one iteration to the next.
    pub(crate) fn lift(&mut self, owner: NodeId, attribute: &str, nodes: &[NodeId]) -> Result<()> {
        let body = self.node(owner).body(attribute).cloned();
        let mut body = body.ok_or_else(|| Error::internal(format!("lifting out of {attribute}, which is no body")))?;
        let rank = self.node(owner).rank;
        let mut here: HashMap<ValueId, ValueId> = HashMap::new();
        let mut made = vec![];
        for &id in nodes {
            let mut inputs = Vec::with_capacity(body.node_inputs(id).len());
            for v in body.node_inputs(id) {
                inputs.push(v.map(|v| self.outside(&body, v, &mut here)).transpose()?);
            }
            let mut outputs = vec![];
            for v in body.node_outputs(id) {
                outputs.push(v.map(|v| self.twin(&body, v, &mut here)).transpose()?);
                made.extend(v);
            }
            let mut node = body.node(id).clone();
            node.rank = rank;
            self.add_node(node, &inputs, &outputs)?;
        }
        for v in made {
            body.detach(v);
            let name = here.get(&v).map(|&outer| self.value(outer).name.clone());
            body.rename(v, &name.ok_or_else(|| Error::internal("a lifted value without a twin"))?)?;
        }
        if let Some(place) = self.node_mut(owner).attributes.iter_mut().find(|a| &*a.name == attribute) {
            place.value = super::AttributeValue::Graph(Box::new(body));
        }
        self.refresh_captures(owner)
    }

    /// What an input of a lifted node is in this graph.
    fn outside(&mut self, body: &Graph, v: ValueId, here: &mut HashMap<ValueId, ValueId>) -> Result<ValueId> {
        if let Some(&known) = here.get(&v) {
            return Ok(known);
        }
        if body.is_outer(v) {
            return self.value_or_new(body.name(v));
        }
        if body.constant(v).is_none() {
            return Err(Error::internal(format!("lifting a node that needs \"{}\" of the body", body.name(v))));
        }
        self.twin(body, v, here)
    }

    /// A value of this graph with the type and data of one of the body, under a name that nothing has.
    fn twin(&mut self, body: &Graph, v: ValueId, here: &mut HashMap<ValueId, ValueId>) -> Result<ValueId> {
        let Value { name, ty, init, shell: _ } = body.value(v).clone();
        let name = self.fresh_name(&name);
        let id = self.add_value(Value { name, ty, init, shell: None })?;
        here.insert(v, id);
        Ok(id)
    }
}
