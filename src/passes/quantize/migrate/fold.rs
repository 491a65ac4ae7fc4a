//! Factors folded into what makes a value, so that migration costs nothing when the model runs.

use super::Target;
use crate::ir::{DType, Dim, Graph, NodeId, Port, Tensor, ValueId};
use crate::passes::Patch;

/// A longer way up is none of an affine map's.
const LONGEST_WAY: usize = 4;

/// A constant whose last axis (or, for a transposed Gemm weight, first one) runs over the channels.
struct Scaled {
    value: ValueId,
    node: NodeId,
    slot: usize,
    /// So many elements in a row belong to one channel.
    run: usize,
}

/// Multiplies the channels of the target's input by `factors`, by changing the constants of what makes it: the scale and bias
/// of a LayerNormalization, a Mul and Add with one constant per channel (as exporters write the former), or the weight and bias
/// of a linear layer. `None` where something else makes it, or anybody beside the target's layers takes it.
pub fn fold(graph: &Graph, target: &Target, factors: &[f32]) -> Option<Patch> {
    let takes = |u: &crate::ir::Use| target.layers.iter().any(|(id, _)| *id == u.node) && matches!(u.port, Port::In(_));
    if graph.is_output(target.input) || !graph.uses(target.input).iter().all(takes) {
        return None;
    }
    let mut found = vec![];
    climb(graph, target.input, factors.len(), &mut found)?;
    let mut patch = Patch::default();
    for scaled in found {
        let old = graph.constant(scaled.value)?;
        let data = old.to_f32().ok()?;
        let product =
            |(k, x): (usize, &f32)| (f64::from(*x) * f64::from(factors[k / scaled.run % factors.len()])) as f32;
        let data: Vec<f32> = data.iter().enumerate().map(product).collect();
        let new = patch.constant(graph.name(scaled.value), Tensor::from_f32(&old.dims, &data));
        if graph.only_use(scaled.value).is_some() {
            patch.replace(scaled.value, new);
        } else {
            patch.set_input(scaled.node, scaled.slot, Some(new));
        }
    }
    Some(patch)
}

/// Goes up from `v` and notes the constants to multiply.
fn climb(graph: &Graph, mut v: ValueId, channels: usize, found: &mut Vec<Scaled>) -> Option<()> {
    for _ in 0..LONGEST_WAY {
        let (id, 0) = graph.producer(v)? else { return None };
        let node = graph.node(id);
        let constant = |slot: usize| {
            let value = graph.input(id, slot)?;
            let t = graph.constant(value).filter(|t| t.dtype == DType::F32)?;
            (t.len() == channels && t.dims.last() == Some(&channels)).then_some(Scaled {
                value,
                node: id,
                slot,
                run: 1,
            })
        };
        if node.op.is("LayerNormalization") {
            let last_axis = last_axis_only(graph, id);
            let scale = constant(1).filter(|_| last_axis && node.output_slots == 1)?;
            found.push(scale);
            return match graph.input(id, 2) {
                Some(_) => constant(2).map(|bias| found.push(bias)),
                None => Some(()),
            };
        }
        if node.op.is("Mul") {
            return constant(0).or_else(|| constant(1)).map(|c| found.push(c));
        }
        if node.op.is("MatMul") || node.op.is("Gemm") {
            return linear(graph, id, channels, found);
        }
        if !node.op.is("Add") {
            return None;
        }
        let (c, other) = match (constant(0), constant(1)) {
            (Some(c), None) => (c, 1),
            (None, Some(c)) => (c, 0),
            _ => return None,
        };
        found.push(c);
        v = graph.input(id, other)?;
        graph.only_use(v)?;
    }
    None
}

/// Whether a LayerNormalization normalizes the last axis alone.
fn last_axis_only(graph: &Graph, id: NodeId) -> bool {
    let rank = graph.input(id, 0).and_then(|x| graph.ty(x)?.shape().map(<[Dim]>::len));
    let axis = graph.node(id).int("axis").unwrap_or(-1);
    axis == -1 || rank.is_some_and(|r| usize::try_from(axis) == Ok(r.saturating_sub(1)))
}

/// A layer with a weight of its own, whose outputs are the channels.
fn linear(graph: &Graph, id: NodeId, channels: usize, found: &mut Vec<Scaled>) -> Option<()> {
    let node = graph.node(id);
    let plain = node.float("alpha").unwrap_or(1.0) == 1.0 && node.float("beta").unwrap_or(1.0) == 1.0;
    let value = graph.input(id, 1).filter(|&w| plain && graph.only_use(w).is_some())?;
    let weight = graph.constant(value).filter(|t| t.dtype == DType::F32 && t.rank() == 2)?;
    let transposed = node.int("transB").unwrap_or(0) != 0;
    let run = if transposed { weight.dims[1] } else { 1 };
    (weight.dims[usize::from(!transposed)] == channels && run > 0).then_some(())?;
    found.push(Scaled { value, node: id, slot: 1, run });
    let Some(bias) = graph.input(id, 2) else { return Some(()) };
    let tensor = graph.constant(bias).filter(|t| t.dtype == DType::F32 && t.len() == channels)?;
    (tensor.dims.last() == Some(&channels)).then(|| found.push(Scaled { value: bias, node: id, slot: 2, run: 1 }))
}
