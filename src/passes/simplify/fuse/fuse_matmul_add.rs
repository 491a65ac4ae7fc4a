//! MatMul and Add, or Gemm without a bias and Add, become Gemm.

use super::matching::Look;
use crate::error::Result;
use crate::ir::{DType, Dim, Graph, Node, NodeId, OpId, Type, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `p = MatMul(a, b)`, `y = Add(p, c)`. After: `y = Gemm(a, b, c)`. The same for a Gemm without a bias.
///
/// When: opset 7. `a` and `b` have rank 2, `c` has at most rank 2 and each of its dimensions is 1 or provably that of `p`
/// (so that it broadcasts to `p` and not the other way round); floats; `p` has no other use and is no graph output.
/// Why it is equal: Gemm adds C, broadcast to the product, last. Runtimes may round once instead of twice.
pub struct FuseMatMulAdd;

impl Rewrite for FuseMatMulAdd {
    fn name(&self) -> &'static str {
        "fuse_matmul_add"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Add")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    if look.cx.opset < 7 {
        return None;
    }
    look.either_way(id).into_iter().flatten().find_map(|(p, c)| fuse(look, id, p, c))
}

fn fuse(look: Look, id: NodeId, p: ValueId, c: ValueId) -> Option<Patch> {
    let graph = look.graph;
    let product = look.inner(p, "MatMul").or_else(|| look.inner(p, "Gemm"))?;
    let floats = [DType::F32, DType::F64, DType::F16];
    look.elem(c).filter(|t| floats.contains(t))?;
    let (a, b) = look.operands(product)?;
    let ranks = (look.rank(a)?, look.rank(b)?) == (2, 2);
    let shape = graph.ty(p)?.shape().filter(|s| s.len() == 2 && ranks)?;
    broadcasts(look, c, shape).then_some(())?;
    let mut gemm = graph.node(product).clone();
    if gemm.op.is("Gemm") {
        let unbiased = graph.input(product, 2).is_none();
        unbiased.then(|| gemm.attributes.retain(|a| &*a.name != "beta"))?;
    } else {
        gemm = Node { op: OpId::onnx("Gemm"), ..gemm };
    }
    gemm.rank = graph.node(id).rank;
    let y = graph.output(id, 0)?;
    let mut patch = Patch::default();
    let inputs = [Some(a.into()), Some(b.into()), Some(c.into())];
    let out = patch.node(gemm, &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, out);
    Some(patch)
}

/// Whether `c` provably broadcasts to `shape` without enlarging it.
fn broadcasts(look: Look, c: ValueId, shape: &[Dim]) -> bool {
    let constant = look.constant(c).map(|t| Type::tensor(t.dtype, &t.dims));
    let Some(dims) = constant.as_ref().or_else(|| look.graph.ty(c)).and_then(Type::shape) else { return false };
    let Some(missing) = shape.len().checked_sub(dims.len()) else { return false };
    let fits = |(d, full): (&Dim, &Dim)| *d == Dim::Known(1) || (*d != Dim::Unknown && d == full);
    dims.iter().zip(&shape[missing..]).all(fits)
}
