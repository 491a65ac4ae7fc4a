//! The roundings of a quantized model, put one by one into the float model that it was made from.

use crate::error::Result;
use crate::ir::{DType, Graph, Model, Node, OpId, Port, Tensor, ValueId};
use crate::passes::{Effect, Outcome, Pass, PassContext, Patch};

/// One rounding.
#[derive(Clone, Debug)]
pub enum Rounded {
    /// Constants of a layer: its weight as it is after rounding, and the bias that goes with it. By input slot.
    Weight {
        /// Node name.
        node: String,
        /// Slots and what they hold.
        inputs: Vec<(usize, Tensor)>,
    },
    /// A value goes through QuantizeLinear and DequantizeLinear.
    Activation {
        /// Value name.
        value: String,
        /// Step.
        scale: f32,
        /// Code of zero, of the type that the codes have.
        zero_point: Tensor,
        /// Nodes, by name, that take the value as it was.
        spared: Vec<String>,
        /// Whether the graph output of that name is as it was.
        spared_output: bool,
    },
}

/// Puts roundings into a model.
pub struct Simulate {
    /// Which.
    pub roundings: Vec<Rounded>,
}

impl Pass for Simulate {
    fn name(&self) -> &'static str {
        "simulate"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, model: &mut Model, _: &PassContext) -> Result<Outcome> {
        let graph = &mut model.graph;
        let (mut patch, mut outputs) = (Patch::default(), vec![]);
        for rounding in &self.roundings {
            match rounding {
                Rounded::Weight { node, inputs } => weight(graph, node, inputs, &mut patch),
                Rounded::Activation { value, scale, zero_point, spared, spared_output } => {
                    if let Some(v) = graph.find(value) {
                        activation(graph, v, (*scale, zero_point), spared, &mut patch);
                        if graph.is_output(v) && !spared_output {
                            outputs.push(v);
                        }
                    }
                }
            }
        }
        patch.apply(graph)?;
        for v in outputs {
            output(graph, v)?;
        }
        Ok(Outcome { changes: self.roundings.len(), ..Outcome::default() })
    }
}

fn weight(graph: &Graph, name: &str, inputs: &[(usize, Tensor)], patch: &mut Patch) {
    let Some(id) = graph.nodes().find(|&n| *graph.node(n).name == *name) else { return };
    for (slot, tensor) in inputs {
        let hint = graph.input(id, *slot).map_or("bias", |v| graph.name(v));
        let constant = patch.constant(&format!("{hint}_rounded"), tensor.clone());
        patch.set_input(id, *slot, Some(constant));
    }
}

fn activation(graph: &Graph, v: ValueId, (scale, zero_point): (f32, &Tensor), spared: &[String], patch: &mut Patch) {
    let name = graph.name(v);
    let rank = graph.producer(v).map_or(0, |(p, _)| graph.node(p).rank);
    let scale = patch.constant(&format!("{name}_s"), Tensor::from_f32(&[], &[scale]));
    let zero = patch.constant(&format!("{name}_zp"), zero_point.clone());
    let node = |op: &str| Node { rank, ..Node::new(OpId::onnx(op)) };
    let codes = patch.node(node("QuantizeLinear"), &[Some(v.into()), Some(scale), Some(zero)], name, None);
    let inputs = [Some(codes), Some(scale), Some(zero)];
    let hint = rounded_name(name);
    let rounded = patch.node(node("DequantizeLinear"), &inputs, &hint, graph.ty(v).cloned());
    for u in graph.uses(v) {
        let user = graph.node(u.node);
        if let Port::In(slot) = u.port
            && !spared.iter().any(|s| **s == *user.name)
        {
            patch.set_input(u.node, slot as usize, Some(rounded));
        }
    }
}

/// Makes the rounded form of a value the graph output of its name.
fn output(graph: &mut Graph, v: ValueId) -> Result<()> {
    let public = graph.name(v).to_string();
    let Some(rounded) = graph.find(&rounded_name(&public)) else { return Ok(()) };
    let spare = graph.fresh_name(&format!("{public}_exact"));
    graph.rename(v, &spare)?;
    graph.rename(rounded, &public)?;
    let outputs = graph.outputs().iter().map(|&o| if o == v { rounded } else { o }).collect();
    graph.set_outputs(outputs);
    Ok(())
}

/// What the rounded form of a value is called; that of an output has the output's name.
pub fn rounded_name(value: &str) -> String {
    format!("{value}_rounded")
}

/// The zero point of codes of this type.
pub fn zero_point(dtype: DType, code: i64) -> Option<Tensor> {
    Some(match dtype {
        DType::U8 => Tensor::from_u8(&[], &[u8::try_from(code).ok()?]),
        DType::I8 => Tensor::from_i8(&[], &[i8::try_from(code).ok()?]),
        DType::U16 => Tensor::raw(dtype, &[], u16::try_from(code).ok()?.to_le_bytes().to_vec()),
        DType::I16 => Tensor::raw(dtype, &[], i16::try_from(code).ok()?.to_le_bytes().to_vec()),
        _ => return None,
    })
}
