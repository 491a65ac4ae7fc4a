//! The plan spelled as float operators between QuantizeLinear and DequantizeLinear, placed as ONNX Runtime fuses them.

use super::emit::Emitter;
use super::structure::{Kind, Structure};
use crate::error::Result;
use crate::ir::{DType, Node, NodeId, OpId, Tensor, Type, ValueId};
use crate::ops::spec::ComputeRole;
use crate::passes::Ref;

/// Writes one node: its quantized inputs come from DequantizeLinear, its result goes through QuantizeLinear.
pub(super) fn write(e: &mut Emitter, id: NodeId, kind: &Kind) -> Result<()> {
    let mut inputs: Vec<Option<Ref>> = e.graph.node_inputs(id).into_iter().map(|v| v.map(Ref::Old)).collect();
    for slot in Structure::quantized_slots(e.graph, id, kind) {
        let v = e.input(id, slot)?;
        inputs[slot] = Some(e.rounded(v)?);
    }
    if let Kind::Compute(role) = kind {
        weight(e, id, role, &mut inputs)?;
    }
    let old = e.graph.node(id);
    let mut node = e.like(id, old.op.clone());
    node.attributes = old.attributes.clone();
    let outputs = e.graph.node_outputs(id);
    if let [Some(_)] = outputs[..] {
        return single(e, id, kind, node, &inputs);
    }
    let hints = outputs.iter().map(|v| v.map(|v| (float_name(e, v), e.graph.ty(v).cloned()))).collect();
    let floats = e.patch.node_with(node, &inputs, hints);
    let rank = e.graph.node(id).rank;
    for (v, float) in outputs.into_iter().zip(floats) {
        if let (Some(v), Some(float)) = (v, float) {
            let code = e.quantize(v, float, rank)?;
            e.deliver(v, code)?;
        }
    }
    Ok(())
}

fn single(e: &mut Emitter, id: NodeId, kind: &Kind, node: Node, inputs: &[Option<Ref>]) -> Result<()> {
    let y = e.delivered(id)?;
    let ty = e.graph.ty(y).cloned();
    let hint = float_name(e, y);
    let mut float = e.patch.node(node, inputs, &hint, ty.clone());
    let rounds = e.rounds_output(id, kind);
    if let Some(activation) = e.plan.structure.absorbed_after(e.graph, id)
        && (!rounds || e.clamp_codes(activation, y)?.is_some())
    {
        let old = e.graph.node(activation);
        let mut node = e.like(activation, old.op.clone());
        node.attributes = old.attributes.clone();
        let mut inputs: Vec<Option<Ref>> =
            e.graph.node_inputs(activation).into_iter().map(|v| v.map(Ref::Old)).collect();
        inputs[0] = Some(float);
        float = e.patch.node(node, &inputs, &hint, ty);
    }
    if !rounds {
        e.patch.replace(y, float);
        return Ok(());
    }
    let rank = e.graph.node(id).rank;
    let code = e.quantize(y, float, rank)?;
    e.deliver(y, code)
}

/// Points the weight and bias inputs at DequantizeLinear of their integers.
fn weight(e: &mut Emitter, id: NodeId, role: &ComputeRole, inputs: &mut Vec<Option<Ref>>) -> Result<()> {
    let (x, w) = (e.input(id, role.activation)?, e.input(id, role.weight)?);
    let x_scale = e.quantization(x)?.scale;
    let quantized = e.weight(id, role, false)?;
    let per_channel = e.plan.options.per_channel;
    let rank = e.graph.node(id).rank;
    let mut node = Node::new(OpId::onnx("DequantizeLinear"));
    node.rank = rank;
    if per_channel {
        node.set("axis", (role.weight_axis as i64).into());
    }
    let operands = [Some(quantized.data), Some(quantized.scale), Some(quantized.zero_point)];
    let name = format!("{}_dequantized", e.graph.name(w));
    inputs[role.weight] = Some(e.patch.node(node, &operands, &name, e.graph.ty(w).cloned()));
    let (Some(bias), Some(slot)) = (quantized.bias, role.bias) else { return Ok(()) };
    let scale: Vec<f32> = quantized.scales.iter().map(|s| x_scale * s).collect();
    let dims: &[usize] = if per_channel { &[scale.len()] } else { &[] };
    // A node without a bias gets one where rounding the weight shifts its mean output.
    let name = e.graph.input(id, slot).map_or_else(|| format!("{}_bias", e.graph.name(w)), |b| e.graph.name(b).into());
    let scale = e.patch.constant(&format!("{name}_s"), Tensor::from_f32(dims, &scale));
    let mut node = Node::new(OpId::onnx("DequantizeLinear"));
    node.rank = rank;
    if per_channel {
        node.set("axis", 0i64.into());
    }
    let ty = Some(Type::tensor(DType::F32, &[quantized.channels]));
    let float = e.patch.node(node, &[Some(bias), Some(scale)], &format!("{name}_dequantized"), ty);
    inputs.resize(inputs.len().max(slot + 1), None);
    inputs[slot] = Some(float);
    Ok(())
}

fn float_name(e: &Emitter, v: ValueId) -> String {
    format!("{}_float", e.graph.name(v))
}
