//! BatchNormalization folds into the linear op behind it.

use super::super::fold_batch_norm::batch_norm_affine;
use super::matching::{Look, floats, tensor_of};
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, Tensor};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `n = BatchNormalization(x, ...)`, `y = Conv(n, W, b)`. After: `y = Conv(x, W', b')`: with `n = x * s + t` per
/// input channel, `W' = W * s` and `b' = b +` the sum over `W * t`. The same for Gemm.
///
/// When: all parameters, `W` and `b` are f32 constants, `W` has no other use, `n` has no other use and is no graph output.
/// Conv: without pads, because they would pad `x` with 0 where `n` was padded. Gemm: transA 0, alpha 1, beta 1, a bias of
/// one element per channel. The new parameters are finite.
/// Why it is equal: both are affine. The new parameters are computed in f64, so the effect is rounding.
pub struct FoldBatchNormAhead;

impl Rewrite for FoldBatchNormAhead {
    fn name(&self) -> &'static str {
        "fold_batch_norm_ahead"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Conv"), onnx("Gemm")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    let norm = look.inner(graph.input(id, 0)?, "BatchNormalization")?;
    let affine = batch_norm_affine(graph, norm)?;
    let node = graph.node(id);
    let w = graph.input(id, 1)?;
    let weight = graph.constant(w).filter(|t| t.dtype == DType::F32 && graph.only_use(w).is_some())?;
    let (outputs, input_of) = channels(look, id, weight, affine.scale.len())?;
    look.cx.may_copy("fold_batch_norm_ahead", &node.label(), weight.stored_bytes()).then_some(())?;
    let data = floats(weight)?;
    let mut bias = match graph.input(id, 2) {
        Some(b) => floats(look.constant(b).filter(|t| t.dtype == DType::F32 && t.dims == [outputs])?)?,
        None => vec![0.0; outputs],
    };
    let mut scaled = Vec::with_capacity(data.len());
    for (k, w) in data.iter().enumerate() {
        let (output, input) = input_of(k);
        scaled.push(w * affine.scale.get(input)?);
        *bias.get_mut(output)? += w * affine.shift.get(input)?;
    }
    let y = graph.output(id, 0)?;
    let mut patch = Patch::default();
    let new_weight = patch.constant(graph.name(w), tensor_of(DType::F32, &weight.dims, &scaled)?);
    patch.replace(w, new_weight);
    let hint = graph.input(id, 2).map_or_else(|| format!("{}_bias", graph.name(y)), |b| graph.name(b).to_string());
    let new_bias = patch.constant(&hint, tensor_of(DType::F32, &[outputs], &bias)?);
    let inputs = [graph.input(norm, 0).map(Into::into), Some(new_weight), Some(new_bias)];
    let out = patch.node(node.clone(), &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, out);
    Some(patch)
}

/// Number of output channels, and the output and input channel of the weight's element at a row-major position.
type Channels = (usize, Box<dyn Fn(usize) -> (usize, usize)>);

fn channels(look: Look, id: NodeId, weight: &Tensor, inputs: usize) -> Option<Channels> {
    let node = look.graph.node(id);
    if weight.is_empty() || inputs == 0 {
        return None;
    }
    if node.op.is("Gemm") {
        let [rows, columns] = weight.dims[..] else { return None };
        let plain = node.float("alpha").unwrap_or(1.0) == 1.0 && node.float("beta").unwrap_or(1.0) == 1.0;
        (plain && node.int("transA").unwrap_or(0) == 0).then_some(())?;
        return if node.int("transB").unwrap_or(0) != 0 {
            (columns == inputs).then(|| (rows, Box::new(move |k| (k / columns, k % columns)) as _))
        } else {
            (rows == inputs).then(|| (columns, Box::new(move |k| (k % columns, k / columns)) as _))
        };
    }
    let padded = node.ints("pads").is_some_and(|p| p.iter().any(|&p| p != 0));
    let automatic =
        node.attribute("auto_pad").is_some() && !matches!(node.string("auto_pad"), Some("NOTSET" | "VALID"));
    let groups = usize::try_from(node.int("group").unwrap_or(1)).ok().filter(|&g| g > 0)?;
    let (&outputs, &per_group) = (weight.dims.first()?, weight.dims.get(1)?);
    let consistent = per_group.checked_mul(groups) == Some(inputs) && outputs % groups == 0;
    if padded || automatic || !consistent {
        return None;
    }
    let kernel: usize = weight.dims[2..].iter().product();
    let outputs_per_group = outputs / groups;
    let of = move |k: usize| {
        let output = k / (per_group * kernel);
        (output, output / outputs_per_group * per_group + k / kernel % per_group)
    };
    Some((outputs, Box::new(of)))
}
