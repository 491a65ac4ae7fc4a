//! Small models for this layer's tests.

use crate::ir::{AttributeValue, Dim, Graph, Model, Node, OpId, Tensor, TensorType, Type, Value, ValueId};
use crate::proto::OperatorSetIdProto;

/// Builds a graph value by value; names make values.
#[derive(Default)]
pub struct Builder {
    pub graph: Graph,
    nodes: u32,
}

impl Builder {
    fn value(&mut self, name: &str) -> Option<ValueId> {
        (!name.is_empty()).then(|| self.graph.value_or_new(name).unwrap())
    }

    pub fn input(mut self, name: &str, dims: &[&str]) -> Self {
        let dim = |d: &&str| d.parse().map_or_else(|_| Dim::Sym((*d).into()), Dim::Known);
        let ty = TensorType { elem: crate::ir::DType::F32, shape: Some(dims.iter().map(dim).collect()) };
        let id = self.value(name).unwrap();
        self.graph.value_mut(id).ty = Some(Type::Tensor(ty));
        let inputs = self.graph.inputs().iter().copied().chain([id]).collect();
        self.graph.set_inputs(inputs);
        self
    }

    pub fn constant(mut self, name: &str, t: Tensor) -> Self {
        let mut value = Value::named(name);
        value.ty = Some(Type::tensor(t.dtype, &t.dims));
        value.init = Some(t);
        self.graph.add_value(value).unwrap();
        self
    }

    pub fn node(mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, AttributeValue)]) -> Self {
        let mut node = Node::new(OpId::onnx(op));
        node.name = format!("n{}", self.nodes).into();
        node.rank = self.nodes;
        self.nodes += 1;
        attributes.iter().for_each(|(name, value)| node.set(name, value.clone()));
        let inputs: Vec<_> = inputs.iter().map(|n| self.value(n)).collect();
        let outputs: Vec<_> = outputs.iter().map(|n| self.value(n)).collect();
        self.graph.add_node(node, &inputs, &outputs).unwrap();
        self
    }

    pub fn outputs(mut self, names: &[&str]) -> Graph {
        let outputs = names.iter().map(|n| self.value(n).unwrap()).collect();
        self.graph.set_outputs(outputs);
        self.graph
    }

    pub fn model(self, opset: i64, outputs: &[&str]) -> Model {
        let import = |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
        let opsets = vec![import("", opset), import("com.microsoft", 1)];
        let mut model = Model { opsets, graph: self.outputs(outputs), ..Default::default() };
        model.require_ir_version(7);
        model
    }
}

pub fn type_of(model: &Model, name: &str) -> String {
    let id = model.graph.find(name).unwrap();
    model.graph.ty(id).map_or("unknown".into(), Type::to_string)
}
