//! The formula of root mean square normalization becomes RMSNormalization.

use super::matching::{Look, replace_node};
use super::mean::{Normalizer, last_axes, mean_square};
use crate::error::Result;
use crate::ir::{AttributeValue, DType, Graph, NodeId, Tensor};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = x / Sqrt(ReduceMean(x * x) + e)`, or times the Reciprocal. After: `y = RMSNormalization<epsilon = e>(x,
/// ones)`. A scale behind it joins by `fold_layer_norm_affine`.
///
/// When: opset 23, f32. The mean is over the last axes, of known size and kept; `e` is a constant of one element, not
/// negative. Every value between is used in the formula only and is no graph output; `x` is not, so a layer normalization,
/// whose middle looks the same, is tried first.
/// Why it is equal: the specification defines RMSNormalization so; its scale must be there, and 1 changes nothing.
pub struct FuseRmsNorm;

impl Rewrite for FuseRmsNorm {
    fn name(&self) -> &'static str {
        "fuse_rms_norm"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Div"), onnx("Mul")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    if look.cx.opset < 23 {
        return None;
    }
    let Normalizer { value: x, variance, epsilon } = Normalizer::of(look, id)?;
    if look.elem(x) != Some(DType::F32) {
        return None;
    }
    let (_, axes) = mean_square(look, variance, x)?;
    let dims = last_axes(look, x, &axes)?;
    let y = graph.output(id, 0)?;
    let mut patch = Patch::default();
    let count = dims.iter().product();
    let ones = patch.constant(&format!("{}_scale", graph.name(y)), Tensor::from_f32(&dims, &vec![1.0; count]));
    let axis = AttributeValue::Int(-(dims.len() as i64));
    let attributes = [("axis", axis), ("epsilon", AttributeValue::Float(epsilon))];
    replace_node(graph, &mut patch, id, "RMSNormalization", &attributes, &[Some(x.into()), Some(ones)])?;
    Some(patch)
}
