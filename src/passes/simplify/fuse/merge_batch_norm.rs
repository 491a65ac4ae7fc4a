//! What is affine behind a BatchNormalization folds into it.

use super::super::fold_batch_norm::batch_norm_affine;
use super::fold_affine::affine;
use super::linear::{Affine, ChannelAxis};
use super::matching::{Look, floats, tensor_of};
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `n = BatchNormalization(x, scale, B, mean, var)`, `y = Mul(n, k)`. After: `y = BatchNormalization(x, scale * k,
/// B * k, mean, var)`. The same for Div by `k`, for Add and Sub (which change `B` only), and for a BatchNormalization.
///
/// When: opset 7. All parameters are f32 constants; `k` is one that varies along the channel axis only, or not at all, and
/// adds no axis; `n` has a known rank of at least 2, no other use, and is no graph output. Inference mode, one output. The
/// new parameters are finite.
/// Why it is equal: both are affine per channel. The new parameters are computed in f64, so the effect is rounding.
pub struct MergeBatchNorm;

impl Rewrite for MergeBatchNorm {
    fn name(&self) -> &'static str {
        "merge_batch_norm"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Mul"), onnx("Div"), onnx("Add"), onnx("Sub"), onnx("BatchNormalization")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    if look.cx.opset < 7 {
        return None;
    }
    let graph = look.graph;
    if look.is_op(id, "BatchNormalization") {
        return merge(look, id, graph.input(id, 0)?, |_, _| batch_norm_affine(graph, id));
    }
    let (a, b) = look.operands(id)?;
    let constant = |c: ValueId, first: bool| {
        move |axis: &ChannelAxis, channels: usize| {
            let k = axis.spread(look.constant(c).filter(|t| t.dtype == DType::F32)?, channels)?;
            affine(&graph.node(id).op.op_type, k, first)
        }
    };
    merge(look, id, a, constant(b, false)).or_else(|| merge(look, id, b, constant(a, true)))
}

/// Folds node `id`, which maps the normalized `n` as `behind` says.
fn merge(look: Look, id: NodeId, n: ValueId, behind: impl Fn(&ChannelAxis, usize) -> Option<Affine>) -> Option<Patch> {
    let graph = look.graph;
    let norm = look.inner(n, "BatchNormalization")?;
    let channels = batch_norm_affine(graph, norm)?.scale.len();
    let rank = look.rank(n).filter(|&r| r >= 2)?;
    let map = behind(&ChannelAxis { rank: Some(rank), from_last: rank - 2 }, channels)?;
    let (s, b) = (graph.input(norm, 1)?, graph.input(norm, 2)?);
    let (old_scale, old_bias) = (floats(graph.constant(s)?)?, floats(graph.constant(b)?)?);
    if map.scale.len() != channels {
        return None;
    }
    let scale: Vec<f64> = old_scale.iter().zip(&map.scale).map(|(s, k)| s * k).collect();
    let bias: Vec<f64> = (0..channels).map(|c| old_bias[c] * map.scale[c] + map.shift[c]).collect();
    let mut patch = Patch::default();
    let scale = patch.constant(graph.name(s), tensor_of(DType::F32, &[channels], &scale)?);
    let bias = patch.constant(graph.name(b), tensor_of(DType::F32, &[channels], &bias)?);
    let mut inputs: Vec<_> = graph.node_inputs(norm).into_iter().map(|v| v.map(Into::into)).collect();
    inputs[1] = Some(scale);
    inputs[2] = Some(bias);
    let mut node = graph.node(norm).clone();
    node.rank = graph.node(id).rank;
    let y = graph.output(id, 0)?;
    let out = patch.node(node, &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, out);
    Some(patch)
}
