//! Transposes before a product become its attributes.

use super::matching::Look;
use crate::error::Result;
use crate::ir::{AttributeValue, DType, Graph, Node, NodeId, OpId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `t = Transpose<perm = [1, 0]>(a)`, `y = Gemm(t, b, c)`. After: `y = Gemm<transA = 1>(a, b, c)`, or without
/// transA where it was set. The same for the second input and transB, and for MatMul of two matrices, which becomes Gemm.
///
/// When: opset 7, floats; `a` has rank 2 and is no constant (constants are folded), `t` has no other use and is no graph
/// output.
/// Why it is equal: transA and transB mean just that.
pub struct FuseTransposeGemm;

impl Rewrite for FuseTransposeGemm {
    fn name(&self) -> &'static str {
        "fuse_transpose_gemm"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Gemm"), onnx("MatMul")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    let (a, b) = look.operands(id)?;
    let (from_a, from_b) = (transposed(look, a), transposed(look, b));
    let matrices = look.is_op(id, "Gemm") || (look.rank(a), look.rank(b)) == (Some(2), Some(2));
    if look.cx.opset < 7 || !matrices || from_a.or(from_b).is_none() {
        return None;
    }
    look.elem(a).filter(|t| [DType::F32, DType::F64, DType::F16].contains(t))?;
    let mut gemm = Node { op: OpId::onnx("Gemm"), ..graph.node(id).clone() };
    for (name, _) in [("transA", from_a), ("transB", from_b)].into_iter().filter(|(_, t)| t.is_some()) {
        let flipped = i64::from(gemm.int(name).unwrap_or(0) == 0);
        gemm.set(name, AttributeValue::Int(flipped));
    }
    let y = graph.output(id, 0)?;
    let mut inputs = vec![Some(from_a.unwrap_or(a).into()), Some(from_b.unwrap_or(b).into())];
    inputs.extend(graph.input(id, 2).map(|c| Some(c.into())));
    let mut patch = Patch::default();
    let out = patch.node(gemm, &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, out);
    Some(patch)
}

/// What `v` is the transpose of.
fn transposed(look: Look, v: ValueId) -> Option<ValueId> {
    let id = look.inner(v, "Transpose")?;
    let x = look.graph.input(id, 0)?;
    let swaps = look.graph.node(id).ints("perm").is_none_or(|perm| perm == [1, 0]);
    (swaps && look.rank(x) == Some(2) && look.constant(x).is_none()).then_some(x)
}
