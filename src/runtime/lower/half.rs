//! Half precision in single precision, as ONNX Runtime computes it: every operator in f32, rounded to f16 only where the model
//! says so and at its outputs. tract sums up in f16.

use super::super::kernels::WIDEN;
use crate::error::Result;
use crate::ir::{Attribute, AttributeValue, DType, Graph, Node, NodeId, OpId, Tensor, Type, Value, ValueId};
use std::collections::HashSet;

/// Attributes that name an element type.
const TYPES: [&str; 2] = ["dtype", "output_datatype"];

/// Whether any value of the graph, or of a body, is known to be f16, or a constant is bf16.
pub(in crate::runtime) fn has_half(graph: &Graph) -> bool {
    let f16 = Some(DType::F16);
    let of_value = |v: ValueId| {
        let value = graph.value(v);
        let stored = value.init.as_ref().map(|t| t.dtype);
        value.ty.as_ref().and_then(|t| t.elem()) == f16 || stored == f16 || stored == Some(DType::BF16)
    };
    let of_node = |id: NodeId| {
        let node = graph.node(id);
        node.int("to") == Some(DType::F16.onnx().into())
            || node.tensor("value").map(|t| t.dtype) == f16
            || node.bodies().any(has_half)
    };
    graph.values().any(of_value) || graph.nodes().any(of_node)
}

/// Makes every f16 of the main graph f32. Inputs may still be fed as f16, and outputs that are declared so are.
pub(in crate::runtime) fn to_single(graph: &mut Graph) -> Result<()> {
    let elem = |graph: &Graph, v: ValueId| graph.ty(v).and_then(|t| t.elem());
    let inputs: Vec<ValueId> =
        graph.required_inputs().filter(|&v| elem(graph, v).is_none_or(|t| t == DType::F16)).collect();
    let half: Vec<bool> = graph.outputs().iter().map(|&v| elem(graph, v) == Some(DType::F16)).collect();
    widen(graph)?;
    for v in inputs {
        widen_after(graph, v, 0)?;
    }
    let mut narrowed = vec![];
    for (v, half) in graph.outputs().to_vec().into_iter().zip(half) {
        narrowed.push(if half { cast(graph, v)? } else { v });
    }
    graph.set_outputs(narrowed);
    Ok(())
}

/// Constants and attributes of a graph and its bodies.
fn widen(graph: &mut Graph) -> Result<()> {
    let mut half = HashSet::new();
    for v in graph.values().collect::<Vec<_>>() {
        let value = graph.value_mut(v);
        // Constants in bf16 are weights that a Cast makes f32; tract has no such tensors.
        if let Some(t) = value.init.as_mut().filter(|t| matches!(t.dtype, DType::F16 | DType::BF16)) {
            *t = single(t)?;
            value.ty = None;
            half.insert(v);
        }
        if let Some(Type::Tensor(t)) = &mut value.ty
            && t.elem == DType::F16
        {
            t.elem = DType::F32;
            half.insert(v);
        }
    }
    for id in graph.order()? {
        // From f16 to f16 is no rounding.
        let of_half = |slot: usize| graph.input(id, slot).is_some_and(|v| half.contains(&v));
        let (from_half, like_half) = (of_half(0), of_half(1));
        let node = graph.node_mut(id);
        if node.op.is("CastLike") && like_half {
            node.op = OpId::onnx("Cast");
            node.set("to", AttributeValue::Int(DType::F16.onnx().into()));
        }
        let to_half = node.int("to") == Some(DType::F16.onnx().into());
        let rounds = to_half && (node.op.is("Cast") && !from_half || node.op.is("BitCast"));
        if to_half && node.op.is("Cast") && from_half {
            node.op = OpId::onnx("Identity");
            node.attributes.clear();
        }
        // CastLike had a second input.
        if node.op.is("Cast") || node.op.is("Identity") {
            graph.set_input(id, 1, None);
        }
        let node = graph.node_mut(id);
        for a in &mut node.attributes {
            match &mut a.value {
                AttributeValue::Tensor(t) if t.dtype == DType::F16 => *t = single(t)?,
                AttributeValue::Int(code) if TYPES.contains(&&*a.name) && *code == i64::from(DType::F16.onnx()) => {
                    *code = DType::F32.onnx().into();
                }
                _ => {}
            }
        }
        for body in node.bodies_mut() {
            widen(body)?;
        }
        if rounds && let Some(rounded) = graph.output(id, 0) {
            let rank = graph.node(id).rank;
            widen_after(graph, rounded, rank)?;
        }
    }
    Ok(())
}

/// What is f16 goes on as f32.
fn widen_after(graph: &mut Graph, half: ValueId, rank: u32) -> Result<()> {
    let wide = new_value(graph, half, "wide")?;
    let node = named(graph, WIDEN, wide, rank);
    let id = graph.add_node(node, &[Some(half)], &[Some(wide)])?;
    graph.replace_uses(half, wide)?;
    graph.set_input(id, 0, Some(half));
    Ok(())
}

fn cast(graph: &mut Graph, v: ValueId) -> Result<ValueId> {
    let half = new_value(graph, v, "half")?;
    let rank = graph.producer(v).map_or(0, |(id, _)| graph.node(id).rank);
    let mut node = named(graph, "Cast", half, rank);
    node.attributes = vec![Attribute::new("to", AttributeValue::Int(DType::F16.onnx().into()))];
    graph.add_node(node, &[Some(v)], &[Some(half)])?;
    Ok(half)
}

fn new_value(graph: &mut Graph, near: ValueId, hint: &str) -> Result<ValueId> {
    let name = graph.fresh_name(&format!("{}.{hint}", graph.name(near)));
    graph.add_value(Value::named(name))
}

/// A node that is called as its output.
fn named(graph: &Graph, op: &str, output: ValueId, rank: u32) -> Node {
    let mut node = Node::new(OpId::onnx(op));
    (node.name, node.rank) = (graph.name(output).into(), rank);
    node
}

fn single(t: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_f32(&t.dims, &t.to_f32()?))
}
