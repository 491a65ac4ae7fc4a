//! Constant nodes become initializers.

use crate::error::Result;
use crate::ir::{AttributeValue, Graph, Node, NodeId, Tensor};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = Constant<value = t>()`. After: initializer `y`.
///
/// When: the value is a dense numeric tensor, a number or a list of numbers, and `y` is not a graph output.
/// Why it is equal: an initializer that is not a graph input is a constant.
pub struct LiftConstants;

impl Rewrite for LiftConstants {
    fn name(&self) -> &'static str {
        "lift_constants"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Constant")] }
    }

    fn rewrite(&self, graph: &Graph, node: NodeId, _: &RuleContext) -> Result<Option<Patch>> {
        let Some(y) = graph.output(node, 0).filter(|&y| !graph.is_output(y)) else { return Ok(None) };
        let Some(tensor) = constant_value(graph.node(node)) else { return Ok(None) };
        let mut patch = Patch::default();
        let lifted = patch.constant(graph.name(y), tensor);
        patch.replace(y, lifted);
        Ok(Some(patch))
    }
}

/// The tensor that a Constant node stands for; `None` for strings, sparse tensors and references.
fn constant_value(node: &Node) -> Option<Tensor> {
    let [attribute] = node.attributes.as_slice() else { return None };
    Some(match (&*attribute.name, &attribute.value) {
        ("value", AttributeValue::Tensor(t)) => t.clone(),
        ("value_float", AttributeValue::Float(x)) => Tensor::from_f32(&[], &[*x]),
        ("value_floats", AttributeValue::Floats(v)) => Tensor::from_f32(&[v.len()], v),
        ("value_int", AttributeValue::Int(x)) => Tensor::from_i64(&[], &[*x]),
        ("value_ints", AttributeValue::Ints(v)) => Tensor::from_i64(&[v.len()], v),
        _ => return None,
    })
}
