//! Linear layers with constant parameters, and per-channel affine maps that they absorb.

use super::matching::{floats, tensor_of};
use crate::ir::{DType, Dim, Graph, Node, NodeId, OpId, Tensor, ValueId};
use crate::passes::{Patch, Ref, RuleContext};

/// `y = c * scale + shift`, per channel.
pub(in crate::passes::simplify) struct Affine {
    pub scale: Vec<f64>,
    pub shift: Vec<f64>,
}

impl Affine {
    fn scales(&self) -> bool {
        self.scale.iter().any(|&s| s != 1.0)
    }

    fn shifts(&self) -> bool {
        self.shift.iter().any(|&s| s != 0.0)
    }
}

/// Which axis of a layer's output is the channel's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::passes::simplify) struct ChannelAxis {
    /// Rank of the output, where it is known.
    pub rank: Option<usize>,
    /// Position of the channel axis, counted from the last axis.
    pub from_last: usize,
}

impl ChannelAxis {
    /// Elements of a constant that is combined with a value of this form, one for each of `channels`; `None` where it
    /// varies along another axis or would enlarge the value.
    pub fn spread(&self, tensor: &Tensor, channels: usize) -> Option<Vec<f64>> {
        // Without a known rank, only what has no more axes than the channel's position is sure not to add one.
        let fits = tensor.rank() <= self.rank.unwrap_or(self.from_last + 1);
        let data = floats(tensor).filter(|_| fits && channels > 0)?;
        if let [only] = data[..] {
            return Some(vec![only; channels]);
        }
        let axis = tensor.rank().checked_sub(self.from_last + 1)?;
        let along = tensor.dims.iter().enumerate().all(|(k, &d)| d == if k == axis { channels } else { 1 });
        along.then_some(data)
    }
}

/// A Conv, ConvTranspose, Gemm or MatMul.
pub(in crate::passes::simplify) struct Layer<'a> {
    graph: &'a Graph,
    id: NodeId,
    weight: ValueId,
    dims: Vec<usize>,
    bias: Option<ValueId>,
    pub channels: usize,
    pub axis: ChannelAxis,
    /// Output channel of the weight's element at a row-major position.
    channel_of: Box<dyn Fn(usize) -> usize>,
    /// So many elements in a row belong to one channel.
    run: usize,
}

impl<'a> Layer<'a> {
    /// The layer that node `id` is: an f32 weight of known shape. Gemm: alpha = 1 and beta = 1 or no bias.
    pub fn of(graph: &'a Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id);
        let weight = graph.input(id, 1)?;
        if !node.op.domain.is_empty() || graph.ty(weight)?.elem() != Some(DType::F32) {
            return None;
        }
        let dims = graph.ty(weight)?.static_shape()?;
        let inner = |from: usize| dims.get(from..).map(|d| d.iter().product::<usize>().max(1));
        let groups = usize::try_from(node.int("group").unwrap_or(1)).ok().filter(|&g| g > 0)?;
        let spatial = ChannelAxis { rank: Some(dims.len()), from_last: dims.len().saturating_sub(2) };
        let (channels, axis, run, channel_of): (usize, ChannelAxis, usize, Box<dyn Fn(usize) -> usize>) =
            match &*node.op.op_type {
                "Conv" => {
                    let per_channel = inner(1)?;
                    (*dims.first()?, spatial, per_channel, Box::new(move |k| k / per_channel))
                }
                "ConvTranspose" => {
                    // W is [C, M / group, ...]: the output channel of W[c, j] is (c / (C / group)) * (M / group) + j.
                    let (c, j, kernel) = (*dims.first()?, *dims.get(1)?, inner(2)?);
                    let per_group = (c / groups).max(1);
                    let of = move |k| (k / (j * kernel).max(1)) / per_group * j + (k / kernel) % j.max(1);
                    (j.checked_mul(groups)?, spatial, kernel, Box::new(of))
                }
                "Gemm" if plain_gemm(graph, id, node) => {
                    let [rows, columns] = dims[..] else { return None };
                    let axis = ChannelAxis { rank: Some(2), from_last: 0 };
                    if node.int("transB").unwrap_or(0) != 0 {
                        (rows, axis, columns.max(1), Box::new(move |k| k / columns.max(1)))
                    } else {
                        (columns, axis, 1, Box::new(move |k| k % columns.max(1)))
                    }
                }
                "MatMul" => {
                    let [_, columns] = dims[..] else { return None };
                    let rank = graph.ty(graph.input(id, 0)?).and_then(|t| t.shape()).map(<[Dim]>::len);
                    (columns, ChannelAxis { rank, from_last: 0 }, 1, Box::new(move |k| k % columns.max(1)))
                }
                _ => return None,
            };
        let bias = graph.input(id, 2);
        Some(Self { graph, id, weight, dims, bias, channels, axis, channel_of, run })
    }

    /// Replaces the layer and the affine map `last` behind it by one layer. `None` where a parameter that must change
    /// is no constant, the weight that must change is shared or too large to copy, or a new parameter would not be finite.
    pub fn absorb(&self, affine: &Affine, last: NodeId, rule: &str, cx: &RuleContext) -> Option<Patch> {
        let y = self.graph.output(last, 0)?;
        let mut patch = Patch::default();
        let mut weight = Ref::Old(self.weight);
        if affine.scales() {
            let bytes = self.graph.constant(self.weight)?.stored_bytes();
            cx.may_copy(rule, &self.graph.node(self.id).label(), bytes).then_some(())?;
            let scaled = self.scaled_weight(affine)?;
            weight = patch.constant(self.graph.name(self.weight), scaled);
            // The old weight's only use is the layer that goes, so its name is free.
            patch.replace(self.weight, weight);
        }
        let mut inputs = vec![Some(Ref::Old(self.graph.input(self.id, 0)?)), Some(weight)];
        let mut node = self.graph.node(self.id).clone();
        if self.bias.is_some() && !affine.scales() && !affine.shifts() {
            inputs.push(self.bias.map(Ref::Old));
        } else if self.bias.is_some() || affine.shifts() {
            let tensor = self.shifted_bias(affine)?;
            let hint = self.bias.map_or_else(|| format!("{}_bias", self.graph.name(y)), |b| self.graph.name(b).into());
            inputs.push(Some(patch.constant(&hint, tensor)));
            node = self.with_bias(node)?;
        }
        node.rank = self.graph.node(last).rank;
        let out = patch.node(node, &inputs, self.graph.name(y), self.graph.ty(y).cloned());
        patch.replace(y, out);
        Some(patch)
    }

    /// The node as one that takes a bias: MatMul of rank 2 is Gemm.
    fn with_bias(&self, node: Node) -> Option<Node> {
        if !node.op.is("MatMul") {
            return Some(node);
        }
        (self.axis.rank == Some(2)).then(|| Node { op: OpId::onnx("Gemm"), ..node })
    }

    fn scaled_weight(&self, affine: &Affine) -> Option<Tensor> {
        self.graph.only_use(self.weight)?;
        let old = self.graph.constant(self.weight)?.bytes().ok()?;
        let mut new = vec![0u8; old.len()];
        let mut finite = true;
        let rows = new.chunks_mut(4 * self.run).zip(old.chunks(4 * self.run));
        for (k, (new, old)) in rows.enumerate() {
            let scale = *affine.scale.get((self.channel_of)(k * self.run))?;
            for (new, old) in new.chunks_exact_mut(4).zip(old.chunks_exact(4)) {
                let w = f32::from_le_bytes([old[0], old[1], old[2], old[3]]);
                let scaled = (f64::from(w) * scale) as f32;
                finite &= scaled.is_finite();
                new.copy_from_slice(&scaled.to_le_bytes());
            }
        }
        finite.then(|| Tensor::raw(DType::F32, &self.dims, new))
    }

    fn shifted_bias(&self, affine: &Affine) -> Option<Tensor> {
        let old = match self.bias {
            Some(b) => {
                let tensor = self.graph.constant(b).filter(|t| t.dtype == DType::F32)?;
                let dims = &tensor.dims;
                (dims[..] == [self.channels] || dims[..] == [1, self.channels]).then_some(())?;
                floats(tensor)?
            }
            None => vec![0.0; self.channels],
        };
        let map = |(c, b): (usize, &f64)| b * affine.scale[c] + affine.shift[c];
        let bias: Vec<f64> = old.iter().enumerate().map(map).collect();
        tensor_of(DType::F32, &[self.channels], &bias)
    }
}

fn plain_gemm(graph: &Graph, id: NodeId, node: &Node) -> bool {
    let no_bias = graph.input(id, 2).is_none();
    node.float("alpha").unwrap_or(1.0) == 1.0 && (no_bias || node.float("beta").unwrap_or(1.0) == 1.0)
}
