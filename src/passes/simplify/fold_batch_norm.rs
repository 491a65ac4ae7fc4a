//! BatchNormalization folds into the linear op before it.

use crate::error::Result;
use crate::ir::{DType, Graph, Node, NodeId, OpId, Tensor, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Ref, Rewrite, RuleContext};

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

    fn rewrite(&self, graph: &Graph, id: NodeId, _: &RuleContext) -> Result<Option<Patch>> {
        Ok(fold(graph, id))
    }
}

fn fold(graph: &Graph, id: NodeId) -> Option<Patch> {
    let affine = Affine::of_batch_norm(graph, id)?;
    let c = graph.input(id, 0)?;
    let y = graph.output(id, 0)?;
    if graph.only_use(c)?.node != id {
        return None;
    }
    let (linear, _) = graph.producer(c)?;
    let layer = Layer::of(graph, linear)?;
    if layer.channels != affine.scale.len() {
        return None;
    }
    let (weight, bias) = layer.folded(&affine)?;
    let mut patch = Patch::default();
    let weight_name = graph.name(layer.weight);
    let new_weight = patch.constant(weight_name, weight);
    patch.replace(layer.weight, new_weight); // its only use is the layer that goes, so the name is free
    let bias_hint = layer.bias.map_or_else(|| format!("{}_bias", graph.name(y)), |b| graph.name(b).to_string());
    let new_bias = patch.constant(&bias_hint, bias);
    let mut node = layer.node;
    node.rank = graph.node(id).rank;
    let x: Ref = graph.input(linear, 0)?.into();
    let inputs = [Some(x), Some(new_weight), Some(new_bias)];
    let out = patch.node(node, &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, out);
    Some(patch)
}

/// `y = c * scale + shift`, per channel.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    fn of_batch_norm(graph: &Graph, id: NodeId) -> Option<Self> {
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
        Some(Self { scale, shift })
    }
}

/// A linear layer with constant parameters.
struct Layer {
    node: Node,
    weight: ValueId,
    weight_data: Vec<f32>,
    weight_dims: Vec<usize>,
    bias: Option<ValueId>,
    bias_data: Option<Vec<f32>>,
    channels: usize,
    /// Output channel of the weight's element at a row-major position.
    channel_of: Box<dyn Fn(usize) -> usize>,
}

impl Layer {
    fn of(graph: &Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id).clone();
        let weight = graph.input(id, 1)?;
        if graph.only_use(weight)?.node != id || !node.op.domain.is_empty() {
            return None;
        }
        let weight_data = f32_constant(graph, weight)?;
        let dims = graph.constant(weight)?.dims.clone();
        let inner = |from: usize| dims.get(from..).map(|d| d.iter().product::<usize>().max(1));
        let groups = usize::try_from(node.int("group").unwrap_or(1)).ok().filter(|&g| g > 0)?;
        let (channels, channel_of): (usize, Box<dyn Fn(usize) -> usize>) = match &*node.op.op_type {
            "Conv" => {
                let per_channel = inner(1)?;
                (*dims.first()?, Box::new(move |k| k / per_channel))
            }
            "ConvTranspose" => {
                // W is [C, M / group, ...]: the output channel of W[c, j] is (c / (C / group)) * (M / group) + j.
                let (c, j, kernel) = (*dims.first()?, *dims.get(1)?, inner(2)?);
                let per_group = (c / groups).max(1);
                (j * groups, Box::new(move |k| (k / (j * kernel)) / per_group * j + (k / kernel) % j))
            }
            "Gemm" if plain_gemm(graph, id, &node) => {
                let [rows, columns] = dims[..] else { return None };
                if node.int("transB").unwrap_or(0) != 0 {
                    (rows, Box::new(move |k| k / columns))
                } else {
                    (columns, Box::new(move |k| k % columns))
                }
            }
            "MatMul" => {
                let [_, columns] = dims[..] else { return None };
                let x = graph.ty(graph.input(id, 0)?)?.shape()?;
                (x.len() == 2).then_some(())?;
                (columns, Box::new(move |k| k % columns))
            }
            _ => return None,
        };
        let node = if node.op.is("MatMul") { Node { op: OpId::onnx("Gemm"), ..node } } else { node };
        let bias = graph.input(id, 2);
        let bias_data = match bias {
            Some(b) => {
                let dims = &graph.constant(b)?.dims;
                (dims[..] == [channels] || dims[..] == [1, channels]).then_some(())?;
                Some(f32_constant(graph, b)?)
            }
            None => None,
        };
        Some(Self { node, weight, weight_data, weight_dims: dims, bias, bias_data, channels, channel_of })
    }

    /// Weight and bias with the affine map applied behind; `None` where one would not be finite.
    fn folded(&self, affine: &Affine) -> Option<(Tensor, Tensor)> {
        let scaled = |(k, w): (usize, &f32)| (f64::from(*w) * affine.scale[(self.channel_of)(k)]) as f32;
        let weight: Vec<f32> = self.weight_data.iter().enumerate().map(scaled).collect();
        let old = |c: usize| self.bias_data.as_ref().map_or(0.0, |b| f64::from(b[c]));
        let bias: Vec<f32> = (0..self.channels).map(|c| (old(c) * affine.scale[c] + affine.shift[c]) as f32).collect();
        let finite = weight.iter().chain(&bias).all(|x| x.is_finite());
        finite.then(|| (Tensor::from_f32(&self.weight_dims, &weight), Tensor::from_f32(&[self.channels], &bias)))
    }
}

fn plain_gemm(graph: &Graph, id: NodeId, node: &Node) -> bool {
    let no_bias = graph.input(id, 2).is_none();
    node.float("alpha").unwrap_or(1.0) == 1.0 && (no_bias || node.float("beta").unwrap_or(1.0) == 1.0)
}

fn f32_constant(graph: &Graph, v: ValueId) -> Option<Vec<f32>> {
    let tensor = graph.constant(v).filter(|t| t.dtype == DType::F32)?;
    tensor.to_f32().ok()
}
