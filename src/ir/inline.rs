//! Moving the nodes of a body into the graph around it.

use super::{Graph, NodeId, Value, ValueId};
use crate::error::{Error, Result};
use std::collections::HashMap;

impl Graph {
    /// Copies the nodes and initializers of the body in attribute `attribute` of `owner` into this graph and makes the
    /// uses of the owner's outputs uses of the body's. Values keep their names where those are free. The owner is left
    /// without uses, for dead-code elimination.
    ///
    /// # Errors
    /// No such body, a body with inputs, or one with another number of outputs than the owner.
    pub(crate) fn inline(&mut self, owner: NodeId, attribute: &str) -> Result<()> {
        let body = self.node(owner).body(attribute).cloned();
        let mut body = body.ok_or_else(|| Error::internal(format!("inlining {attribute}, which is no body")))?;
        let outputs = self.node_outputs(owner);
        if !body.inputs().is_empty() || outputs.len() != body.outputs().len() {
            return Err(Error::internal(format!("inlining {attribute}, whose interface is not the node's")));
        }
        self.rename_apart(owner, &mut body)?;
        let rank = self.node(owner).rank;
        let mut here: HashMap<ValueId, ValueId> = HashMap::new();
        for v in body.values() {
            let value = body.value(v);
            let id = if body.is_outer(v) {
                self.value_or_new(&value.name)?
            } else {
                let Value { name, ty, init, shell: _ } = value.clone();
                self.add_value(Value { name, ty, init, shell: None })?
            };
            here.insert(v, id);
        }
        let find = |v: Option<ValueId>| v.and_then(|v| here.get(&v).copied());
        for id in body.order()? {
            let mut node = body.node(id).clone();
            node.rank = rank;
            let inputs: Vec<_> = body.node_inputs(id).into_iter().map(find).collect();
            let outputs: Vec<_> = body.node_outputs(id).into_iter().map(find).collect();
            self.add_node(node, &inputs, &outputs)?;
        }
        for (old, new) in outputs.into_iter().zip(body.outputs().to_vec()) {
            if let (Some(old), Some(new)) = (old, find(Some(new))) {
                self.replace_uses(old, new)?;
            }
        }
        Ok(())
    }

    /// Gives the body's own values names that nothing in this graph has, the owner's bodies aside.
    fn rename_apart(&mut self, owner: NodeId, body: &mut Graph) -> Result<()> {
        let mut aside = HashMap::new();
        self.node(owner).bodies().for_each(|b| b.count_names(&mut aside));
        let others = |g: &Graph, name: &str| g.names.takers(name) > aside.get(name).copied().unwrap_or_default();
        let taken = |name: &str| self.find(name).is_some() || others(self, name);
        let clashes: Vec<ValueId> = body.values().filter(|&v| !body.is_outer(v) && taken(body.name(v))).collect();
        body.lend_names(self.take_names());
        for v in clashes {
            let hint = body.name(v).to_string();
            let name = body.fresh_name(&hint);
            body.rename(v, &name)?;
        }
        self.lend_names(body.take_names());
        Ok(())
    }
}
