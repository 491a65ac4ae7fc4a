//! Multiplication by and addition of constants per channel fold into the linear op before them.

use super::linear::{Affine, ChannelAxis, Layer};
use super::matching::Look;
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `c = Conv(x, W, b)`, `y = Mul(c, k)`. After: `y = Conv(x, W * k, b * k)`, per output channel. The same for
/// Div by `k`, for Add and Sub of `k` (which change `b` only), for `k - c`, and for ConvTranspose, Gemm and MatMul (which
/// becomes Gemm where it gets a bias).
///
/// When: opset 7 (before it, broadcasting was an attribute's matter). `k` is an f32 constant that varies along the
/// channel axis only, or not at all, and adds no axis; `c` has no other use and is no graph output. The parameters that
/// change are f32 constants, the weight has no other use, and the new ones are finite. MatMul with an Add: operands of
/// rank 2.
/// Why it is equal: both are affine per channel. The new parameters are computed in f64, so the effect is rounding.
pub struct FoldAffine;

impl Rewrite for FoldAffine {
    fn name(&self) -> &'static str {
        "fold_affine"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Mul"), onnx("Div"), onnx("Add"), onnx("Sub")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    if look.cx.opset < 7 {
        return None;
    }
    let (a, b) = look.operands(id)?;
    fold(look, id, a, b, false).or_else(|| fold(look, id, b, a, true))
}

/// Folds node `id`, which combines what a layer makes, `c`, with the constant `k`.
fn fold(look: Look, id: NodeId, c: ValueId, k: ValueId, constant_first: bool) -> Option<Patch> {
    let graph = look.graph;
    let constant = look.constant(k).filter(|t| t.dtype == DType::F32)?;
    graph.only_use(c)?;
    let (linear, _) = graph.producer(c)?;
    let layer = Layer::of(graph, linear)?;
    let axis: ChannelAxis = layer.axis;
    let k = axis.spread(constant, layer.channels)?;
    layer.absorb(&affine(&graph.node(id).op.op_type, k, constant_first)?, id, "fold_affine", look.cx)
}

/// What an operator with the constant `k`, as its first operand or its second, does to each channel.
pub(super) fn affine(op: &str, k: Vec<f64>, constant_first: bool) -> Option<Affine> {
    let (ones, zeros) = (vec![1.0; k.len()], vec![0.0; k.len()]);
    Some(match (op, constant_first) {
        ("Mul", _) => Affine { scale: k, shift: zeros },
        ("Div", false) => Affine { scale: k.iter().map(|k| 1.0 / k).collect(), shift: zeros },
        ("Add", _) => Affine { scale: ones, shift: k },
        ("Sub", false) => Affine { scale: ones, shift: k.iter().map(|k| -k).collect() },
        ("Sub", true) => Affine { scale: vec![-1.0; k.len()], shift: k },
        _ => return None,
    })
}
