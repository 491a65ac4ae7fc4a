//! Multiplication by a number folds into the linear op behind it.

use super::fold_scale::worth_copying;
use super::matching::{Look, floats, tensor_of};
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `m = Mul(x, c)`, `y = MatMul(m, W)`. After: `y = MatMul(x, W * c)`. The same for Div by `c`, and for Gemm, Conv
/// and ConvTranspose, whose bias stays. Where both inputs of a MatMul are products with a number, one takes both:
/// `MatMul(a * c, b * d)` is `MatMul(a * (c * d), b)`.
///
/// When: opset 7. `c` has one element, is f32 and adds no axis; `m` has no other use and is no graph output. `W` is an f32
/// constant with no other use of at most 16 MiB, and the new one is finite. Not behind the formula of Gelu, whose last factor it would take:
/// runtimes and `fuse_gelu` recognize it whole.
/// Why it is equal: the op is linear in its first input, and padding with 0 stays padding with 0. Computed in f64.
pub struct FoldScaleAhead;

impl Rewrite for FoldScaleAhead {
    fn name(&self) -> &'static str {
        "fold_scale_ahead"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("MatMul"), onnx("Gemm"), onnx("Conv"), onnx("ConvTranspose")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    if look.cx.opset < 7 {
        return None;
    }
    let (m, w) = look.operands(id)?;
    let first = Scaling::of(look, m)?;
    let own = graph.constant(w).filter(|t| t.dtype == DType::F32 && graph.only_use(w).is_some());
    let Some(weight) = own else { return merge(look, id, &first, w) };
    worth_copying(look, first.node, "fold_scale_ahead", weight.stored_bytes()).then_some(())?;
    let data: Vec<f64> = floats(weight)?.into_iter().map(|x| x * first.factor).collect();
    let mut patch = Patch::default();
    let new = patch.constant(graph.name(w), tensor_of(DType::F32, &weight.dims, &data)?);
    patch.replace(w, new);
    patch.set_input(id, 0, Some(first.x.into()));
    Some(patch)
}

/// Moves the number of the second input of a MatMul into that of the first.
fn merge(look: Look, id: NodeId, first: &Scaling, m: ValueId) -> Option<Patch> {
    let second = Scaling::of(look, m).filter(|_| look.is_op(id, "MatMul"))?;
    let factor = first.factor * second.factor;
    (factor as f32).is_normal().then_some(())?;
    let mut patch = Patch::default();
    let name = format!("{}_factor", look.graph.name(m));
    let number = patch.constant(&name, tensor_of(DType::F32, &[], &[factor])?);
    let mut mul = crate::ir::Node::new(crate::ir::OpId::onnx("Mul"));
    mul.rank = look.graph.node(first.node).rank;
    let product = look.graph.output(first.node, 0)?;
    let ty = look.graph.ty(product).cloned();
    let out = patch.node(mul, &[Some(first.x.into()), Some(number)], look.graph.name(product), ty);
    patch.set_input(id, 0, Some(out));
    patch.set_input(id, 1, Some(second.x.into()));
    Some(patch)
}

/// A value times a number, needed by nobody else.
struct Scaling {
    node: NodeId,
    x: ValueId,
    factor: f64,
}

impl Scaling {
    fn of(look: Look, m: ValueId) -> Option<Self> {
        let node = look.inner(m, "Mul").or_else(|| look.inner(m, "Div"))?;
        let (a, b) = look.operands(node)?;
        let (x, c) = match look.scalar(b) {
            Some(c) => (a, c),
            None if look.is_op(node, "Mul") => (b, look.scalar(a)?),
            None => return None,
        };
        let factor = if look.is_op(node, "Div") { 1.0 / c.value } else { c.value };
        let fits = c.dtype == DType::F32 && look.keeps_shape(x, c.rank) && factor.is_normal();
        (fits && look.constant(x).is_none() && !ends_gelu(look, x)).then_some(Self { node, x, factor })
    }
}

/// Whether `v` is `x * (1 + Erf(...))` or the like.
fn ends_gelu(look: Look, v: ValueId) -> bool {
    let gate = |v| {
        let summands = look.made_by(v, "Add").and_then(|add| look.operands(add));
        let curve = |s| look.made_by(s, "Erf").is_some() || look.made_by(s, "Tanh").is_some();
        summands.is_some_and(|(a, b)| curve(a) || curve(b))
    };
    let factors = look.made_by(v, "Mul").and_then(|mul| look.operands(mul));
    gate(v) || factors.is_some_and(|(a, b)| gate(a) || gate(b))
}
