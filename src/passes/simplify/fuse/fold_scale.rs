//! Multiplication by a number folds into a linear op further up.

use super::matching::{Look, floats, tensor_of};
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `m = MatMul(x, W)`, `a = Add(m, b)`, `t = Transpose(Reshape(a))`, `s = MatMul(t, k)`, `y = Div(s, c)`, as
/// attention has it. After: `W / c` and `b / c`, and no Div. Between may be Transpose, Reshape, Unsqueeze, Squeeze, Flatten,
/// products (the way goes up one operand) and Add of a constant.
///
/// When: opset 7. `c` has one element and adds no axis. Each value on the way has no other use and is no graph output. The
/// way ends at a MatMul, Gemm (alpha 1, beta 1), Conv or ConvTranspose with an f32 weight that has no other use, and a bias
/// that is an f32 constant, or absent. The new parameters are finite.
/// Why it is equal: all of it is linear, so the number may be multiplied anywhere. It is computed in f64.
pub struct FoldScale;

impl Rewrite for FoldScale {
    fn name(&self) -> &'static str {
        "fold_scale"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Mul"), onnx("Div")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

/// A longer way is not worth the search, which is repeated for every node.
const LONGEST_WAY: usize = 16;

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    if look.cx.opset < 7 {
        return None;
    }
    let (a, b) = look.operands(id)?;
    let (v, c) = match look.scalar(b) {
        Some(c) => (a, c),
        None if look.is_op(id, "Mul") => (b, look.scalar(a)?),
        None => return None,
    };
    if c.dtype != DType::F32 || !look.keeps_shape(v, c.rank) {
        return None;
    }
    let factor = if look.is_op(id, "Div") { 1.0 / c.value } else { c.value };
    if !factor.is_normal() {
        return None;
    }
    let constants = way_up(look, v)?;
    let mut patch = Patch::default();
    for scaled in constants {
        let old = graph.constant(scaled.value).or_else(|| look.constant(scaled.value))?;
        let data: Vec<f64> = floats(old)?.into_iter().map(|x| x * factor).collect();
        let new = patch.constant(graph.name(scaled.value), tensor_of(DType::F32, &old.dims, &data)?);
        if scaled.replaced {
            patch.replace(scaled.value, new);
        } else {
            patch.set_input(scaled.node, scaled.slot, Some(new));
        }
    }
    patch.replace(graph.output(id, 0)?, v);
    Some(patch)
}

/// A constant that the number is multiplied into.
struct Scaled {
    value: ValueId,
    node: NodeId,
    slot: usize,
    /// Whether the node is its only use, so that the new one takes its place and name.
    replaced: bool,
}

/// The constants that scale `v`: a weight, and what is added to its product on the way down to `v`.
fn way_up(look: Look, v: ValueId) -> Option<Vec<Scaled>> {
    let mut found = vec![];
    let mut steps = 0;
    climb(look, v, &mut steps, &mut found).then_some(found)
}

/// Goes up from `v`; the depth is bounded by the number of steps.
fn climb(look: Look, v: ValueId, steps: &mut usize, found: &mut Vec<Scaled>) -> bool {
    let graph = look.graph;
    *steps += 1;
    let Some((id, 0)) = graph.only_use(v).and_then(|_| graph.producer(v)) else { return false };
    let node = graph.node(id);
    if *steps > LONGEST_WAY || !node.op.domain.is_empty() {
        return false;
    }
    match &*node.op.op_type {
        "Transpose" | "Reshape" | "Unsqueeze" | "Squeeze" | "Flatten" => {
            graph.input(id, 0).is_some_and(|x| climb(look, x, steps, found))
        }
        "Add" => {
            let Some((a, b)) = look.operands(id) else { return false };
            let (x, slot) = if look.constant(b).is_some() { (a, 1) } else { (b, 0) };
            add_constant(look, id, slot, found) && climb(look, x, steps, found)
        }
        "MatMul" | "Gemm" | "Conv" | "ConvTranspose" => linear(look, id, steps, found),
        _ => false,
    }
}

fn linear(look: Look, id: NodeId, steps: &mut usize, found: &mut Vec<Scaled>) -> bool {
    let graph = look.graph;
    let node = graph.node(id);
    let Some((a, b)) = look.operands(id) else { return false };
    if look.constant(b).is_some() {
        let plain = node.float("alpha").unwrap_or(1.0) == 1.0 && node.float("beta").unwrap_or(1.0) == 1.0;
        let own = graph.constant(b).is_some_and(|t| t.dtype == DType::F32) && graph.only_use(b).is_some();
        if !plain || !own {
            return false;
        }
        found.push(Scaled { value: b, node: id, slot: 1, replaced: true });
        return graph.input(id, 2).is_none() || add_constant(look, id, 2, found);
    }
    let mark = found.len();
    let mut up = |x, found: &mut Vec<Scaled>| {
        found.truncate(mark);
        climb(look, x, steps, found)
    };
    node.op.is("MatMul") && (up(a, found) || up(b, found))
}

/// Notes input `slot` of a node as a constant that is added.
fn add_constant(look: Look, id: NodeId, slot: usize, found: &mut Vec<Scaled>) -> bool {
    let constant = look.graph.input(id, slot);
    let constant = constant.filter(|&c| look.constant(c).is_some_and(|t| t.dtype == DType::F32));
    let Some(value) = constant else { return false };
    let replaced = look.graph.only_use(value).is_some() && look.graph.constant(value).is_some();
    found.push(Scaled { value, node: id, slot, replaced });
    true
}
