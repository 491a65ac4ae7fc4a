//! Operators that tract has but gets wrong, rewritten to what is right.

use super::super::kernels::{BARRIER, RELU};
use super::emit::Emit;
use crate::error::Result;
use crate::ir::{Graph, NodeId, Tensor, ValueId};

/// Makes scalars of a Range's inputs: exporters and the standard's own function bodies also give tensors of shape `[1]`.
pub(super) fn range(graph: &mut Graph, id: NodeId) -> Result<()> {
    for (slot, v) in graph.node_inputs(id).into_iter().enumerate() {
        let scalar = |v| graph.value(v).init.as_ref().is_some_and(|t| t.rank() == 0);
        if v.is_none_or(scalar) {
            continue;
        }
        let mut emit = Emit { graph, node: id };
        let shape = emit.constant("scalar", Tensor::from_i64(&[0], &[]))?;
        let flat = emit.node("Reshape", &[v, Some(shape)], &[])?;
        graph.set_input(id, slot, Some(flat));
    }
    Ok(())
}

/// Swish as `x * Sigmoid(alpha * x)`: tract ignores alpha.
pub(super) fn swish(graph: &mut Graph, id: NodeId) -> Result<()> {
    let x = graph.input(id, 0);
    let alpha = graph.node(id).float("alpha").unwrap_or(1.0);
    let mut emit = Emit { graph, node: id };
    let alpha = emit.constant("alpha", Tensor::from_f32(&[], &[alpha]))?;
    let alpha = emit.node("CastLike", &[Some(alpha), x], &[])?;
    let scaled = emit.node("Mul", &[x, Some(alpha)], &[])?;
    let gate = emit.node("Sigmoid", &[Some(scaled)], &[])?;
    emit.become_op("Mul", &[x, Some(gate)], &[])
}

/// Celu as `max(0, x) - alpha * max(0, 1 - exp(x / alpha))`: tract leaves the outer alpha out.
pub(super) fn celu(graph: &mut Graph, id: NodeId) -> Result<()> {
    let x = graph.input(id, 0);
    let alpha = graph.node(id).float("alpha").unwrap_or(1.0);
    let mut emit = Emit { graph, node: id };
    let number = |emit: &mut Emit, value: f32| -> Result<Option<ValueId>> {
        let number = emit.constant("number", Tensor::from_f32(&[], &[value]))?;
        Ok(Some(emit.node("CastLike", &[Some(number), x], &[])?))
    };
    let (alpha, one) = (number(&mut emit, alpha)?, number(&mut emit, 1.0)?);
    let scaled = emit.node("Div", &[x, alpha], &[])?;
    let exp = emit.node("Exp", &[Some(scaled)], &[])?;
    let below = emit.node("Sub", &[one, Some(exp)], &[])?;
    let below = emit.node(RELU, &[Some(below)], &[])?;
    let below = emit.node("Mul", &[Some(below), alpha], &[])?;
    let above = emit.node(RELU, &[x], &[])?;
    emit.become_op("Sub", &[Some(above), Some(below)], &[])
}

/// Softplus as `max(0, x) + log(1 + exp(-|x|))`: tract's overflows from 89 on.
pub(super) fn softplus(graph: &mut Graph, id: NodeId) -> Result<()> {
    let x = graph.input(id, 0);
    let mut emit = Emit { graph, node: id };
    let one = emit.constant("one", Tensor::from_f32(&[], &[1.0]))?;
    let one = emit.node("CastLike", &[Some(one), x], &[])?;
    let size = emit.node("Abs", &[x], &[])?;
    let below = emit.node("Neg", &[Some(size)], &[])?;
    let exp = emit.node("Exp", &[Some(below)], &[])?;
    let sum = emit.node("Add", &[Some(exp), Some(one)], &[])?;
    let log = emit.node("Log", &[Some(sum)], &[])?;
    let above = emit.node(RELU, &[x], &[])?;
    emit.become_op("Add", &[Some(above), Some(log)], &[])
}

/// Gives an LSTM initial states of its own: tract merges the two where both are zero, and then cannot run.
pub(super) fn lstm(graph: &mut Graph, id: NodeId) -> Result<()> {
    const INITIAL_H: usize = 5;
    const INITIAL_C: usize = 6;
    let inputs = graph.node_inputs(id);
    let (x, r) = (inputs.first().copied().flatten(), inputs.get(2).copied().flatten());
    let shape = r.and_then(|r| graph.value(r).init.as_ref()).map(|t| t.dims.clone());
    let at = |k: usize| inputs.get(k).copied().flatten();
    let (h, c) = (at(INITIAL_H), at(INITIAL_C));
    let batch_axis = if graph.node(id).int("layout").unwrap_or(0) == 0 { 1 } else { 0 };
    let mut emit = Emit { graph, node: id };
    let c = match (c, shape.as_deref()) {
        (Some(c), _) => c,
        (None, Some(&[directions, _, hidden])) if batch_axis == 1 => {
            let number = |emit: &mut Emit, n: usize| emit.constant("size", Tensor::from_i64(&[1], &[n as i64]));
            let (directions, hidden) = (number(&mut emit, directions)?, number(&mut emit, hidden)?);
            let dims = emit.node("Shape", &[x], &[])?;
            let one = emit.constant("axis", Tensor::from_i64(&[1], &[1]))?;
            let batch = emit.node("Gather", &[Some(dims), Some(one)], &[("axis", 0.into())])?;
            let dims = emit.node("Concat", &[Some(directions), Some(batch), Some(hidden)], &[("axis", 0.into())])?;
            emit.node("ConstantOfShape", &[Some(dims)], &[("value", Tensor::from_f32(&[1], &[0.0]).into())])?
        }
        _ => return Ok(()),
    };
    let apart = emit.node(BARRIER, &[Some(c)], &[])?;
    emit.graph.set_input(id, INITIAL_H, h);
    emit.graph.set_input(id, INITIAL_C, Some(apart));
    Ok(())
}

/// Puts a barrier before a Slice with steps, and before a Conv of which tract makes a smaller one behind a downsampling
/// (stride > 1 that divides the reach of the kernel). tract moves downsampling up through the graph, and is wrong about
/// what it moves it through: a Conv with `SAME` padding keeps that name although its padding changes, and a Softmax over
/// the downsampled axis loses terms of its sum.
pub(super) fn hold_stride(graph: &mut Graph, id: NodeId) -> Result<()> {
    let node = graph.node(id);
    let downsamples = if node.op.is("Slice") {
        graph.input(id, 4).is_some_and(|steps| {
            let steps = graph.constant(steps).and_then(|t| t.to_i64().ok());
            steps.is_none_or(|s| s.iter().any(|s| s.unsigned_abs() > 1))
        })
    } else {
        let weight = graph.input(id, 1).and_then(|w| graph.constant(w));
        let kernel = weight.and_then(|w| w.dims.get(2..)).unwrap_or(&[]);
        let at = |name: &str, k: usize| node.ints(name).and_then(|v| v.get(k).copied()).unwrap_or(1);
        let axes = node.ints("strides").map_or(0, <[i64]>::len);
        (0..axes).any(|k| {
            let reach = kernel.get(k).map_or(0, |&n| n as i64 - 1).saturating_mul(at("dilations", k));
            at("strides", k) > 1 && reach % at("strides", k) == 0
        })
    };
    if downsamples && let Some(x) = graph.input(id, 0) {
        let apart = Emit { graph, node: id }.node(BARRIER, &[Some(x)], &[])?;
        graph.set_input(id, 0, Some(apart));
    }
    Ok(())
}

/// Puts a barrier between what repeats elements (Tile, Expand) and what sums products over them: tract takes the
/// repetition out of the sum, and with it all but one of the terms.
pub(super) fn hold_repetition(graph: &mut Graph, id: NodeId) -> Result<()> {
    for (slot, v) in graph.node_inputs(id).into_iter().enumerate() {
        let op = v.and_then(|v| graph.producer(v)).map(|(p, _)| &graph.node(p).op);
        if op.is_some_and(|op| op.is("Tile") || op.is("Expand")) {
            let apart = Emit { graph, node: id }.node(BARRIER, &[v], &[])?;
            graph.set_input(id, slot, Some(apart));
        }
    }
    Ok(())
}

/// `SAME` padding of windows of one element is none; tract's is negative where the stride is larger than the window.
pub(super) fn unpadded(graph: &mut Graph, id: NodeId) -> Result<()> {
    let node = graph.node(id);
    let single = node.ints("kernel_shape").is_some_and(|k| k.iter().all(|&k| k == 1));
    if single && node.string("auto_pad").is_some_and(|p| p.starts_with("SAME_")) {
        graph.node_mut(id).attributes.retain(|a| &*a.name != "auto_pad");
    }
    Ok(())
}
