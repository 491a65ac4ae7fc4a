//! Scale and bias behind a normalization fold into its own.

use super::matching::{Look, floats, tensor_of};
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, Tensor, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `n = LayerNormalization(x, s, b)`, `y = Mul(n, k)`. After: `y = LayerNormalization(x, s * k, b * k)`. With Add:
/// `y = LayerNormalization(x, s, b + k)`. RMSNormalization, which has no bias: Mul only.
///
/// When: opset 17. `s`, `b` and `k` are f32 constants; `k` has one element or the shape of the normalized axes, behind any
/// number of ones, and adds no axis; `n` has no other use and is no graph output, and the further outputs are absent. The
/// new constants are finite.
/// Why it is equal: scale and bias are applied last. The constants are computed in f64.
pub struct FoldLayerNormAffine;

impl Rewrite for FoldLayerNormAffine {
    fn name(&self) -> &'static str {
        "fold_layer_norm_affine"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Mul"), onnx("Add")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    look.either_way(id).into_iter().flatten().find_map(|(n, k)| fold(look, id, n, k))
}

fn fold(look: Look, id: NodeId, n: ValueId, k: ValueId) -> Option<Patch> {
    let graph = look.graph;
    let constant = look.constant(k).filter(|t| t.dtype == DType::F32)?;
    let norm = look.inner(n, "LayerNormalization").or_else(|| look.inner(n, "RMSNormalization"))?;
    let layer = look.is_op(norm, "LayerNormalization");
    let multiplies = look.is_op(id, "Mul");
    let more_outputs = graph.node_outputs(norm).len() > 1;
    if more_outputs || !(layer || multiplies) || look.rank(n)? < constant.rank() {
        return None;
    }
    let scale = look.constant(graph.input(norm, 1)?).filter(|t| t.dtype == DType::F32)?;
    let k = spread(constant, &scale.dims)?;
    let old_bias = match graph.input(norm, 2) {
        Some(b) => Some((b, look.constant(b).filter(|t| t.dtype == DType::F32 && t.dims == scale.dims)?)),
        None => None,
    };
    let y = graph.output(id, 0)?;
    let mut patch = Patch::default();
    let mut new_constant = |hint: &str, tensor: Tensor| patch.constant(hint, tensor);
    let mut inputs = vec![Some(graph.input(norm, 0)?.into())];
    let bias = old_bias.map(|(_, t)| floats(t)).unwrap_or_else(|| Some(vec![0.0; k.len()]))?;
    let bias_hint = old_bias.map_or_else(|| format!("{}_bias", graph.name(y)), |(b, _)| graph.name(b).to_string());
    if multiplies {
        let s = graph.input(norm, 1)?;
        inputs.push(Some(new_constant(graph.name(s), product(&floats(scale)?, &k, &scale.dims)?)));
        if old_bias.is_some() {
            inputs.push(Some(new_constant(&bias_hint, product(&bias, &k, &scale.dims)?)));
        }
    } else {
        let sum: Vec<f64> = bias.iter().zip(&k).map(|(b, k)| b + k).collect();
        inputs.push(graph.input(norm, 1).map(Into::into));
        inputs.push(Some(new_constant(&bias_hint, tensor_of(DType::F32, &scale.dims, &sum)?)));
    }
    let mut node = graph.node(norm).clone();
    node.rank = graph.node(id).rank;
    let out = patch.node(node, &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, out);
    Some(patch)
}

fn product(a: &[f64], b: &[f64], dims: &[usize]) -> Option<Tensor> {
    let data: Vec<f64> = a.iter().zip(b).map(|(a, b)| a * b).collect();
    tensor_of(DType::F32, dims, &data)
}

/// Elements of `tensor`, one for each of the normalized axes' elements.
fn spread(tensor: &Tensor, dims: &[usize]) -> Option<Vec<f64>> {
    let data = floats(tensor)?;
    if let [only] = data[..] {
        return Some(vec![only; dims.iter().product()]);
    }
    let (ones, rest) = tensor.dims.split_at(tensor.rank().checked_sub(dims.len())?);
    (rest == dims && ones.iter().all(|&d| d == 1)).then_some(data)
}
