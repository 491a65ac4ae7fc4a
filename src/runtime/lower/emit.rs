//! Adding nodes to the runtime's private copy of a graph.

use crate::error::{Error, Result};
use crate::ir::{Attribute, AttributeValue, Graph, Node, NodeId, OpId, Tensor, Type, Value, ValueId};

/// Adds nodes around one that is being rewritten.
pub(super) struct Emit<'g> {
    pub(super) graph: &'g mut Graph,
    /// The node that is rewritten; new ones take its rank and the start of its name.
    pub(super) node: NodeId,
}

impl Emit<'_> {
    /// A constant.
    pub(super) fn constant(&mut self, hint: &str, tensor: Tensor) -> Result<ValueId> {
        let name = self.graph.fresh_name(&format!("{}.{hint}", self.graph.node(self.node).name));
        let mut value = Value::named(name);
        value.ty = Some(Type::tensor(tensor.dtype, &tensor.dims));
        value.init = Some(tensor);
        self.graph.add_value(value)
    }

    /// A new node with one output, which is returned.
    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        attributes: &[(&str, AttributeValue)],
    ) -> Result<ValueId> {
        let base = self.graph.node(self.node);
        let (hint, rank) = (format!("{}.{op}", base.name), base.rank);
        let name = self.graph.fresh_name(&hint);
        let mut node = Node::new(OpId::onnx(op));
        (node.name, node.rank) = (name.clone(), rank);
        node.attributes = attributes.iter().map(|(k, v)| Attribute::new(k, v.clone())).collect();
        let out = self.graph.add_value(Value::named(name))?;
        self.graph.add_node(node, inputs, &[Some(out)])?;
        Ok(out)
    }

    /// A new node with several outputs and no attributes.
    pub(super) fn nodes<const N: usize>(&mut self, op: &str, inputs: &[Option<ValueId>]) -> Result<[ValueId; N]> {
        let base = self.graph.node(self.node);
        let (hint, rank) = (format!("{}.{op}", base.name), base.rank);
        let mut node = Node::new(OpId::onnx(op));
        (node.name, node.rank) = (self.graph.fresh_name(&hint), rank);
        let mut outputs = vec![];
        for _ in 0..N {
            let name = self.graph.fresh_name(&hint);
            outputs.push(self.graph.add_value(Value::named(name))?);
        }
        let slots: Vec<Option<ValueId>> = outputs.iter().copied().map(Some).collect();
        self.graph.add_node(node, inputs, &slots)?;
        outputs.try_into().map_err(|_| Error::internal("as many outputs as were made"))
    }

    /// Makes the rewritten node itself an `op` of these inputs. Its outputs, and so their names, stay.
    pub(super) fn become_op(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        attributes: &[(&str, AttributeValue)],
    ) -> Result<()> {
        let slots = self.graph.node_inputs(self.node).len().max(inputs.len());
        for slot in 0..slots {
            self.graph.set_input(self.node, slot, inputs.get(slot).copied().flatten());
        }
        let node = self.graph.node_mut(self.node);
        node.op = OpId::onnx(op);
        node.attributes = attributes.iter().map(|(k, v)| Attribute::new(k, v.clone())).collect();
        Ok(())
    }
}
