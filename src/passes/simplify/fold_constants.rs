//! Nodes whose inputs are constants become constants.

use crate::error::Result;
use crate::ir::{AttributeValue, DType, Graph, Node, NodeId, OpId, Tensor, TensorData, ValueId};
use crate::ops;
use crate::ops::spec::OpKey;
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = op(c1, c2, ...)`, every input a constant. After: initializer `y` (a Constant node, where `y` is a graph
/// output).
///
/// When: the operator is known, deterministic and has no body, its output shapes are known, and the runtime computes it
/// faithfully. A result that takes more bytes than the constants that become unused with it is kept a node from
/// `limit` bytes on, so that files do not grow without bound. DequantizeLinear stays: it is how a quantized weight is
/// spelled. All results together may grow the model by 256 MiB.
/// Why it is equal: the same operator on the same data, computed now.
pub struct FoldConstants {
    /// Largest tensor, in bytes, by which folding may make the model larger.
    pub limit: usize,
}

const NAME: &str = "fold_constants";

impl Rewrite for FoldConstants {
    fn name(&self) -> &'static str {
        NAME
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        &[]
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        let Some(evaluator) = cx.evaluator else { return Ok(None) };
        let node = graph.node(id);
        if !foldable(node) {
            return Ok(None);
        }
        let slots = graph.node_inputs(id);
        let Some(inputs) = constants(graph, &slots, cx) else { return Ok(None) };
        let outputs = graph.node_outputs(id);
        let Some(bytes) = output_bytes(graph, &outputs) else { return Ok(None) };
        let freed = freed_bytes(graph, &slots);
        if bytes > self.limit && (bytes > freed || external(&inputs)) {
            let why = format!("its constant result takes {bytes} bytes, more than --fold-limit {}", self.limit);
            cx.skip(NAME, &node.label(), &why);
            return Ok(None);
        }
        if !cx.has_room(bytes, freed) {
            return Ok(None);
        }
        let opset = cx.model.opset(&node.op.domain).unwrap_or(1);
        let Ok(results) = evaluator.evaluate(node, opset, &inputs, outputs.len()) else { return Ok(None) };
        let patch = replace_outputs(graph, &outputs, results);
        if patch.is_some() {
            cx.spend(bytes, freed);
        }
        Ok(patch)
    }
}

fn foldable(node: &Node) -> bool {
    let spec = ops::spec(&node.op);
    let kept = node.op.is("Constant") || &*node.op.op_type == "DequantizeLinear";
    !kept && spec.is_some_and(|s| s.deterministic()) && node.bodies().next().is_none()
}

/// The inputs by slot; `None` where one is no constant, or holds strings.
fn constants(graph: &Graph, slots: &[Option<ValueId>], cx: &RuleContext) -> Option<Vec<Option<Tensor>>> {
    let constant = |v: &Option<ValueId>| match v {
        None => Some(None),
        Some(v) => cx.constant(graph, *v).filter(|t| t.dtype != DType::String).cloned().map(Some),
    };
    let inputs: Option<Vec<_>> = slots.iter().map(constant).collect();
    inputs.filter(|i| i.iter().any(Option::is_some))
}

/// Bytes of all outputs; `None` where a shape is not known.
fn output_bytes(graph: &Graph, outputs: &[Option<ValueId>]) -> Option<usize> {
    let bytes = |v: &ValueId| {
        let ty = graph.ty(*v)?;
        let count = ty.static_shape()?.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        ty.elem()?.bytes_for(count)
    };
    outputs.iter().flatten().try_fold(0usize, |sum, v| sum.checked_add(bytes(v)?))
}

/// Bytes of the constants that only this node uses.
fn freed_bytes(graph: &Graph, slots: &[Option<ValueId>]) -> usize {
    let own = slots.iter().flatten().filter(|&&v| graph.only_use(v).is_some());
    own.filter_map(|&v| graph.constant(v)).map(Tensor::stored_bytes).sum()
}

/// Large weights in a file of their own are not brought into memory.
fn external(inputs: &[Option<Tensor>]) -> bool {
    inputs.iter().flatten().any(|t| matches!(t.data, TensorData::External(_)))
}

/// Makes constants of the outputs; `None` where a result is not of the type that was inferred.
fn replace_outputs(graph: &Graph, outputs: &[Option<ValueId>], results: Vec<Tensor>) -> Option<Patch> {
    let mut patch = Patch::default();
    for (v, tensor) in outputs.iter().zip(results) {
        let Some(v) = *v else { continue };
        let ty = graph.ty(v)?;
        if ty.elem() != Some(tensor.dtype) || ty.static_shape()? != tensor.dims {
            return None;
        }
        replace_by_constant(&mut patch, graph, v, tensor);
    }
    Some(patch)
}

/// Makes `v` a constant: an initializer, or for a graph output, which must come from a node, a Constant node.
pub(super) fn replace_by_constant(patch: &mut Patch, graph: &Graph, v: ValueId, tensor: Tensor) {
    if !graph.is_output(v) {
        let constant = patch.constant(graph.name(v), tensor);
        patch.replace(v, constant);
        return;
    }
    let ty = graph.ty(v).cloned();
    let mut node = Node::new(OpId::onnx("Constant"));
    node.rank = graph.producer(v).map_or(0, |(p, _)| graph.node(p).rank);
    node.set("value", AttributeValue::Tensor(tensor));
    let constant = patch.node(node, &[], graph.name(v), ty);
    patch.replace(v, constant);
}
