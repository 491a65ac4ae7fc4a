//! BatchNormalization folds into the linear op before it.

use super::fuse::linear::{Affine, Layer};
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `c = Conv(x, W, b)`, `y = BatchNormalization(c, scale, B, mean, var)`. After: `y = Conv(x, W', b')`, with
/// `s = scale / sqrt(var + epsilon)`, `W' = W * s` per output channel and `b' = (b - mean) * s + B`. The same for
/// ConvTranspose, Gemm and MatMul (which becomes Gemm).
///
/// When: all parameters and the weight are f32 constants, the weight has no other use, `c` has no other use and is no
/// graph output, and BatchNormalization is in inference mode with one output. Gemm: alpha = 1 and beta = 1 or no bias,
/// a bias of one element per channel. MatMul: operands of rank 2.
/// Why it is equal: both are affine per channel. The new parameters are computed in f64, so the effect is rounding.
pub struct FoldBatchNorm;

impl Rewrite for FoldBatchNorm {
    fn name(&self) -> &'static str {
        "fold_batch_norm"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("BatchNormalization")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(fold(graph, id, cx))
    }
}

fn fold(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let affine = batch_norm_affine(graph, id)?;
    let c = graph.input(id, 0)?;
    graph.only_use(c).filter(|u| u.node == id)?;
    let (linear, _) = graph.producer(c)?;
    let layer = Layer::of(graph, linear).filter(|l| l.channels == affine.scale.len())?;
    // A product of rank 3 and more has its channels behind axis 1, which is the one that is normalized.
    let matmul_of_other_rank = graph.node(linear).op.is("MatMul") && layer.axis.rank != Some(2);
    (!matmul_of_other_rank).then(|| layer.absorb(&affine, id, "fold_batch_norm", cx))?
}

/// What BatchNormalization with constant f32 parameters computes at inference.
pub(super) fn batch_norm_affine(graph: &Graph, id: NodeId) -> Option<Affine> {
    let node = graph.node(id);
    let more_outputs = graph.node_outputs(id).into_iter().skip(1).flatten().next().is_some();
    if more_outputs || node.int("training_mode").unwrap_or(0) != 0 || node.int("spatial").unwrap_or(1) != 1 {
        return None;
    }
    let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
    let parameter = |slot| f32_constant(graph, graph.input(id, slot)?);
    let (gamma, beta) = (parameter(1)?, parameter(2)?);
    let (mean, variance) = (parameter(3)?, parameter(4)?);
    let n = gamma.len();
    if beta.len() != n || mean.len() != n || variance.len() != n {
        return None;
    }
    let scale: Vec<f64> = (0..n).map(|k| f64::from(gamma[k]) / (f64::from(variance[k]) + epsilon).sqrt()).collect();
    let shift = (0..n).map(|k| f64::from(beta[k]) - f64::from(mean[k]) * scale[k]).collect();
    Some(Affine { scale, shift })
}

fn f32_constant(graph: &Graph, v: ValueId) -> Option<Vec<f32>> {
    let tensor = graph.constant(v).filter(|t| t.dtype == DType::F32)?;
    tensor.to_f32().ok()
}
