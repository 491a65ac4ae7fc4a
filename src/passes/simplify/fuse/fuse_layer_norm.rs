//! The formula of layer normalization becomes LayerNormalization.

use super::matching::{Look, replace_node};
use super::mean::{Normalizer, last_axes, mean_square, reduce_mean};
use crate::error::Result;
use crate::ir::{AttributeValue, DType, Graph, NodeId, Tensor, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `d = Sub(x, ReduceMean(x))`, `v = ReduceMean(d * d)`, `y = d / Sqrt(v + e)`, or times the Reciprocal.
/// After: `y = LayerNormalization<epsilon = e>(x, ones)`. A scale and a bias behind it join by `fold_layer_norm_affine`.
///
/// When: opset 17, f32. Both means are over the same last axes, of known size and kept; `e` is a constant of one element,
/// not negative. Every value between is used in the formula only and is no graph output.
/// Why it is equal: the specification defines LayerNormalization so; its scale must be there, and 1 changes nothing.
pub struct FuseLayerNorm;

impl Rewrite for FuseLayerNorm {
    fn name(&self) -> &'static str {
        "fuse_layer_norm"
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
    if look.cx.opset < 17 {
        return None;
    }
    let Normalizer { value: d, variance, epsilon } = Normalizer::of(look, id)?;
    let sub = look.made_by(d, "Sub")?;
    let (x, mean) = look.operands(sub)?;
    if look.elem(x) != Some(DType::F32) {
        return None;
    }
    let (square, axes) = mean_square(look, variance, d)?;
    let centre = look.inner(mean, "ReduceMean")?;
    let (of, mean_axes) = reduce_mean(look, centre)?;
    let needed = square + 1;
    let only_here = !graph.is_output(d) && graph.count_uses(d, needed + 1) == needed;
    if of != x || !only_here {
        return None;
    }
    let dims = last_axes(look, x, &axes)?;
    (last_axes(look, x, &mean_axes)? == dims).then_some(())?;
    let y = graph.output(id, 0)?;
    let mut patch = Patch::default();
    let count = dims.iter().product();
    let ones = patch.constant(&format!("{}_scale", graph.name(y)), Tensor::from_f32(&dims, &vec![1.0; count]));
    let axis = AttributeValue::Int(-(dims.len() as i64));
    let attributes = [("axis", axis), ("epsilon", AttributeValue::Float(epsilon))];
    let x: ValueId = x;
    replace_node(graph, &mut patch, id, "LayerNormalization", &attributes, &[Some(x.into()), Some(ones)])?;
    Some(patch)
}
