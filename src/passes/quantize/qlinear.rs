//! The plan spelled in QLinear operators, with 8-bit tensors between them.

use super::emit::Emitter;
use super::options::Runtime;
use super::structure::Kind;
use crate::error::{Error, Result};
use crate::ir::{Attribute, AttributeValue, Node, NodeId, OpId, ValueId};
use crate::ops::spec::ComputeRole;
use crate::passes::Ref;

/// Writes one node.
pub(super) fn write(e: &mut Emitter, id: NodeId, kind: &Kind) -> Result<()> {
    match kind {
        Kind::Compute(role) => compute(e, id, role, kind),
        Kind::Elementwise(slots) => elementwise(e, id, slots),
        Kind::Move(slot) => movement(e, id, *slot),
        Kind::Bound(_) => Err(Error::internal("a bound per channel is written in QDQ form only")),
        Kind::Unify => unify(e, id),
        Kind::Clamp => {
            let (x, y) = (e.input(id, 0)?, e.delivered(id)?);
            let code = e.code(x)?;
            let clamped = clamp(e, id, y, code)?;
            e.deliver(y, clamped)
        }
    }
}

fn compute(e: &mut Emitter, id: NodeId, role: &ComputeRole, kind: &Kind) -> Result<()> {
    let x = e.input(id, role.activation)?;
    let y = e.delivered(id)?;
    let code = e.code(x)?;
    let (x_scale, x_zero) = e.parameters(x)?;
    if e.graph.node(id).op.is("Gemm") && e.plan.options.runtime == Runtime::Ort {
        return gemm(e, id, role, kind);
    }
    if e.graph.node(id).op.is("Conv") {
        let (y_scale, y_zero) = e.parameters(y)?;
        let w = e.weight(id, role, false)?;
        let mut node = e.like(id, OpId::onnx("QLinearConv"));
        node.attributes = telling_attributes(e.graph.node(id));
        let mut inputs = vec![code, x_scale, x_zero, w.data, w.scale, w.zero_point, y_scale, y_zero];
        inputs.extend(w.bias);
        return finish(e, id, y, node, &inputs);
    }
    let has_bias = role.bias.is_some_and(|slot| e.graph.input(id, slot).is_some());
    if has_bias {
        return Err(Error::internal("QLinearMatMul has no bias; it is split off before"));
    }
    let (y_scale, y_zero) = e.parameters(y)?;
    // QLinearMatMul wants [K, N].
    let transpose = role.weight_axis == 0;
    let w = e.weight(id, role, transpose)?;
    let node = e.like(id, OpId::onnx("QLinearMatMul"));
    finish(e, id, y, node, &[code, x_scale, x_zero, w.data, w.scale, w.zero_point, y_scale, y_zero])
}

/// `com.microsoft.QGemm`: 32-bit bias inside, and a float result where only float operators take it.
fn gemm(e: &mut Emitter, id: NodeId, role: &ComputeRole, kind: &Kind) -> Result<()> {
    let (x, y) = (e.input(id, role.activation)?, e.delivered(id)?);
    let code = e.code(x)?;
    let (x_scale, x_zero) = e.parameters(x)?;
    let w = e.weight(id, role, false)?;
    let mut node = e.like(id, OpId::microsoft("QGemm"));
    node.attributes =
        e.graph.node(id).attributes.iter().filter(|a| &*a.name == "transA" || &*a.name == "transB").cloned().collect();
    let mut inputs: Vec<Option<Ref>> = [code, x_scale, x_zero, w.data, w.scale, w.zero_point].map(Some).to_vec();
    inputs.push(w.bias);
    if e.rounds_output(id, kind) {
        let (y_scale, y_zero) = e.parameters(y)?;
        inputs.extend([Some(y_scale), Some(y_zero)]);
        let (name, ty) = (e.code_name(y), e.code_type(y));
        let raw = e.patch.node(node, &inputs, &name, ty);
        let out = absorbed(e, id, y, raw)?;
        return e.deliver(y, out);
    }
    let float = e.patch.node(node, &inputs, &format!("{}_float", e.graph.name(y)), e.graph.ty(y).cloned());
    e.patch.replace(y, float);
    Ok(())
}

fn finish(e: &mut Emitter, id: NodeId, y: ValueId, node: Node, inputs: &[Ref]) -> Result<()> {
    let inputs: Vec<Option<Ref>> = inputs.iter().copied().map(Some).collect();
    let (name, ty) = (e.code_name(y), e.code_type(y));
    let raw = e.patch.node(node, &inputs, &name, ty);
    let out = absorbed(e, id, y, raw)?;
    e.deliver(y, out)
}

/// The absorbed activation, where the saturation of the type does not compute it.
fn absorbed(e: &mut Emitter, id: NodeId, y: ValueId, raw: Ref) -> Result<Ref> {
    match e.plan.structure.absorbed_after(e.graph, id) {
        Some(activation) => clamp(e, activation, y, raw),
        None => Ok(raw),
    }
}

/// Clip on codes: clamping before or after rounding is the same, because the bounds are rounded too.
fn clamp(e: &mut Emitter, activation: NodeId, y: ValueId, code: Ref) -> Result<Ref> {
    let Some((low, high)) = e.clamp_codes(activation, y)? else { return Ok(code) };
    let dtype = e.quantization(y)?.eight.dtype();
    let low = e.code_constant(dtype, &[], &[low]);
    let high = e.code_constant(dtype, &[], &[high]);
    let node = e.like(activation, OpId::onnx("Clip"));
    let (name, ty) = (e.code_name(y), e.code_type(y));
    Ok(e.patch.node(node, &[Some(code), Some(low), Some(high)], &name, ty))
}

fn movement(e: &mut Emitter, id: NodeId, slot: usize) -> Result<()> {
    let x = e.input(id, slot)?;
    let mut inputs: Vec<Option<Ref>> = e.graph.node_inputs(id).into_iter().map(|v| v.map(Ref::Old)).collect();
    inputs[slot] = Some(e.code(x)?);
    if e.graph.node(id).op.is("Pad") {
        // Only modes that repeat elements are data movement: the constant is not used, and its type would be wrong.
        inputs.get_mut(2).map(Option::take);
    }
    let node = same_node(e, id);
    let outputs = e.graph.node_outputs(id);
    let hints = outputs.iter().map(|v| v.map(|v| (e.code_name(v), e.code_type(v)))).collect();
    let codes = e.patch.node_with(node, &inputs, hints);
    for (v, code) in outputs.into_iter().zip(codes) {
        if let (Some(v), Some(code)) = (v, code) {
            e.deliver(v, code)?;
        }
    }
    Ok(())
}

fn unify(e: &mut Emitter, id: NodeId) -> Result<()> {
    let y = e.delivered(id)?;
    let values: Vec<ValueId> = e.graph.node_inputs(id).into_iter().flatten().collect();
    let (name, ty) = (e.code_name(y), e.code_type(y));
    let (node, inputs) = if e.plan.options.runtime == Runtime::Portable {
        let codes: Result<Vec<_>> = values.iter().map(|&v| e.code(v).map(Some)).collect();
        (same_node(e, id), codes?)
    } else {
        let mut node = e.like(id, OpId::microsoft("QLinearConcat"));
        node.attributes = e.graph.node(id).attributes.clone();
        let (y_scale, y_zero) = e.parameters(y)?;
        let mut inputs = vec![Some(y_scale), Some(y_zero)];
        for v in values {
            let (scale, zero) = e.parameters(v)?;
            inputs.extend([Some(e.code(v)?), Some(scale), Some(zero)]);
        }
        (node, inputs)
    };
    let code = e.patch.node(node, &inputs, &name, ty);
    e.deliver(y, code)
}

/// ONNX Runtime's `QLinear<Op>`: each quantized input with its scale and zero point, the others as they are, then the
/// scale and zero point of the output.
fn elementwise(e: &mut Emitter, id: NodeId, slots: &[usize]) -> Result<()> {
    let y = e.delivered(id)?;
    let old = e.graph.node(id);
    let mut node = e.like(id, OpId::microsoft(&format!("QLinear{}", old.op.op_type)));
    node.attributes = old.attributes.clone();
    if old.op.is("Softmax") {
        // The contrib operator follows either meaning of `axis` and must be told which.
        node.set("opset", 13i64.into());
    }
    let mut inputs = vec![];
    for (slot, v) in e.graph.node_inputs(id).into_iter().enumerate() {
        match v {
            Some(v) if slots.contains(&slot) => {
                let (scale, zero) = e.parameters(v)?;
                inputs.extend([e.code(v)?, scale, zero]);
            }
            Some(v) => inputs.push(v.into()),
            None => {}
        }
    }
    let (y_scale, y_zero) = e.parameters(y)?;
    inputs.extend([y_scale, y_zero]);
    finish(e, id, y, node, &inputs)
}

/// Attributes of a Conv without those that say what their absence says (specification: QLinearConv), `kernel_shape`
/// included, which the weight's shape gives: exporters write all of them on every node.
fn telling_attributes(conv: &Node) -> Vec<Attribute> {
    let all = |v: &AttributeValue, x: i64| matches!(v, AttributeValue::Ints(v) if v.iter().all(|&i| i == x));
    let is_default = |a: &Attribute| match &*a.name {
        "group" => matches!(a.value, AttributeValue::Int(1)),
        "auto_pad" => matches!(&a.value, AttributeValue::String(s) if s == b"NOTSET"),
        "strides" | "dilations" => all(&a.value, 1),
        "pads" => all(&a.value, 0),
        "kernel_shape" => true,
        _ => false,
    };
    conv.attributes.iter().filter(|a| !is_default(a)).cloned().collect()
}

fn same_node(e: &Emitter, id: NodeId) -> Node {
    let old = e.graph.node(id);
    let mut node = e.like(id, old.op.clone());
    node.attributes = old.attributes.clone();
    node
}
