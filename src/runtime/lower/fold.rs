//! Dequantized constants become constants, whatever their size: tract folds only small ones, and an f32 kernel with a
//! weight that is computed anew in every run is a slow one.

use super::super::custom::Kernel;
use super::super::kernels::{DEQUANTIZE, Dequantize};
use super::super::tensor::{from_tract, to_tract, tract_error};
use crate::error::{Context, Result};
use crate::ir::{DType, Graph, Node, NodeId, OpId, Tensor, Type, Value};

/// Makes initializers of Constant nodes that hold tensors, so that what follows sees them.
pub(super) fn constants(graph: &mut Graph) -> Result<()> {
    for id in graph.order()? {
        let node = graph.node(id);
        if !node.op.is("Constant") {
            continue;
        }
        let (Some(tensor), Some(out)) = (node.tensor("value").cloned(), graph.output(id, 0)) else { continue };
        if graph.is_output(out) {
            continue;
        }
        let mut value = Value::named(graph.fresh_name(&format!("{}.constant", graph.name(out))));
        value.ty = Some(Type::tensor(tensor.dtype, &tensor.dims));
        value.init = Some(tensor);
        let new = graph.add_value(value)?;
        graph.replace_uses(out, new)?;
    }
    Ok(())
}

/// Makes constants of Cast nodes that widen constants of under 8 bits, of which tract has no tensors.
pub(super) fn casts(graph: &mut Graph) -> Result<()> {
    for id in graph.order()? {
        let node = graph.node(id);
        let (Some(x), Some(out), true) = (graph.input(id, 0), graph.output(id, 0), node.op.is("Cast")) else {
            continue;
        };
        let to = node.int("to").and_then(|t| i32::try_from(t).ok()).and_then(DType::from_onnx);
        let Some(narrow) = graph.value(x).init.as_ref().map(unpacked).transpose()?.flatten() else { continue };
        let wide = match to {
            Some(to) if to == narrow.dtype => narrow,
            Some(DType::F32) => {
                let floats: Vec<f32> = narrow.to_i64()?.into_iter().map(|x| x as f32).collect();
                Tensor::from_f32(&narrow.dims, &floats)
            }
            _ => continue,
        };
        if graph.is_output(out) {
            continue;
        }
        let mut value = Value::named(graph.fresh_name(&format!("{}.wide", graph.name(out))));
        value.ty = Some(Type::tensor(wide.dtype, &wide.dims));
        value.init = Some(wide);
        let new = graph.add_value(value)?;
        graph.replace_uses(out, new)?;
    }
    Ok(())
}

/// Folds every DequantizeLinear of constants.
pub(super) fn dequantize(graph: &mut Graph) -> Result<()> {
    unpack(graph)?;
    let mut folded = false;
    for id in graph.order()? {
        if &*graph.node(id).op.op_type != DEQUANTIZE {
            continue;
        }
        let label = graph.node(id).label();
        folded |= fold(graph, id).context(|| label)?;
    }
    if folded {
        graph.eliminate_dead()?;
    }
    Ok(())
}

fn fold(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let inputs = graph.node_inputs(id);
    let constants: Option<Vec<Option<Tensor>>> =
        inputs.iter().map(|v| v.map_or(Some(None), |v| graph.value(v).init.clone().map(Some))).collect();
    let (Some(constants), Some(out)) = (constants, graph.output(id, 0)) else { return Ok(false) };
    let node = graph.node(id);
    let kernel = Dequantize { axis: node.int("axis").unwrap_or(1), block: node.int("block_size").unwrap_or(0) };
    let tensors: Result<Vec<_>> = constants.iter().map(|t| t.as_ref().map(to_tract).transpose()).collect();
    let tensors = tensors?;
    let slots: Vec<_> = tensors.iter().map(Option::as_ref).collect();
    let result = kernel.eval(&slots).map_err(tract_error)?;
    let Some(result) = result.first() else { return Ok(false) };
    let name = graph.fresh_name(&format!("{}.folded", graph.name(out)));
    let mut value = Value::named(name);
    value.init = Some(from_tract(result)?);
    let new = graph.add_value(value)?;
    if graph.is_output(out) {
        // The output keeps its name and its producer.
        let mut identity = Node::new(OpId::onnx("Identity"));
        std::mem::swap(graph.node_mut(id), &mut identity);
        let node = graph.node_mut(id);
        (node.name, node.rank, node.output_slots) = (identity.name, identity.rank, identity.output_slots);
        node.input_slots = identity.input_slots;
        for slot in 0..inputs.len() {
            graph.set_input(id, slot, (slot == 0).then_some(new));
        }
    } else {
        graph.replace_uses(out, new)?;
    }
    Ok(true)
}

/// Constants of under 8 bits as 8-bit ones: tract has no such tensors, and DequantizeLinear means the same on both.
fn unpack(graph: &mut Graph) -> Result<()> {
    for v in graph.values().collect::<Vec<_>>() {
        let value = graph.value_mut(v);
        let Some(tensor) = value.init.as_ref().map(unpacked).transpose()?.flatten() else { continue };
        value.ty = None;
        value.init = Some(tensor);
    }
    Ok(())
}

/// A tensor of under 8 bits as one of 8 bits; `None` for all others.
fn unpacked(t: &Tensor) -> Result<Option<Tensor>> {
    let (bits, signed) = match t.dtype {
        DType::I4 => (4, true),
        DType::U4 => (4, false),
        DType::I2 => (2, true),
        DType::U2 => (2, false),
        _ => return Ok(None),
    };
    let bytes = t.bytes()?;
    let per_byte = 8 / bits;
    let element = |i: usize| {
        let raw = (bytes[i / per_byte] >> (bits * (i % per_byte))) << (8 - bits);
        if signed { ((raw as i8) >> (8 - bits)) as u8 } else { raw >> (8 - bits) }
    };
    let elements: Vec<u8> = (0..t.len()).map(element).collect();
    Ok(Some(Tensor::raw(if signed { DType::I8 } else { DType::U8 }, &t.dims, elements)))
}
