//! DynamicQuantizeLSTM for our kernel: its weights as floats, laid out as LSTM has them.

use super::super::kernels;
use crate::error::{Error, Result};
use crate::ir::{Graph, NodeId, OpId, Tensor, Type, Value, ValueId};

/// Number of inputs that LSTM has.
const LSTM_INPUTS: usize = 8;

/// Makes `W` and `R`, `[directions, inputs, 4 * hidden]` in 8 bits, floats `[directions, 4 * hidden, inputs]`. What is
/// rounded as the node runs, the kernel rounds.
pub(super) fn rewrite(graph: &mut Graph, id: NodeId) -> Result<()> {
    for (slot, scale, zero) in [(1, 8, 9), (2, 10, 11)] {
        let constant = |slot: usize| -> Result<&Tensor> {
            let t = graph.input(id, slot).and_then(|v| graph.constant(v));
            t.ok_or_else(|| Error::unsupported(format!("its input {slot} is not a constant")))
        };
        let tensor = dequantized(constant(slot)?, constant(scale)?, constant(zero)?)?;
        let hint = graph.input(id, slot).map(|v| graph.name(v).to_string()).unwrap_or_default();
        let float = add(graph, &format!("{hint}.float"), tensor)?;
        graph.set_input(id, slot, Some(float));
    }
    for slot in LSTM_INPUTS..graph.node_inputs(id).len() {
        graph.set_input(id, slot, None);
    }
    let node = graph.node_mut(id);
    node.input_slots = LSTM_INPUTS as u32;
    node.op = OpId::onnx(kernels::DYNAMIC_LSTM);
    Ok(())
}

fn add(graph: &mut Graph, hint: &str, tensor: Tensor) -> Result<ValueId> {
    let mut value = Value::named(graph.fresh_name(hint));
    value.ty = Some(Type::tensor(tensor.dtype, &tensor.dims));
    value.init = Some(tensor);
    graph.add_value(value)
}

/// With scales and zero points `[directions]` or `[directions, 4 * hidden]`.
fn dequantized(codes: &Tensor, scale: &Tensor, zero: &Tensor) -> Result<Tensor> {
    let [directions, inputs, width] = codes.dims[..] else {
        return Err(Error::invalid(format!("a weight of shape {:?}", codes.dims)));
    };
    let (q, s, z) = (codes.to_i64()?, scale.to_f32()?, zero.to_i64()?);
    let per_row = s.len() == directions * width && directions * width != directions;
    if z.len() != s.len() || !(per_row || s.len() == directions) {
        return Err(Error::invalid(format!("scales of shape {:?} for a weight of shape {:?}", scale.dims, codes.dims)));
    }
    let mut out = vec![0f32; q.len()];
    for d in 0..directions {
        for i in 0..inputs {
            for k in 0..width {
                let at = if per_row { d * width + k } else { d };
                out[(d * width + k) * inputs + i] = s[at] * (q[(d * inputs + i) * width + k] - z[at]) as f32;
            }
        }
    }
    Ok(Tensor::from_f32(&[directions, width, inputs], &out))
}
