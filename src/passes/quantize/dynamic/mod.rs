//! Dynamic quantization: weights in 8 bits, inputs of linear layers too, with a range that is computed for each input when
//! the model runs. Nothing is calibrated.

mod contrib;
mod portable;

use super::options::{QuantizeOptions, Runtime};
use super::structure::{Kind, Structure};
use super::weights::quantize_weight;
use crate::error::{Context, Error, Result};
use crate::ir::{DType, Graph, MICROSOFT, Model, Node, NodeId, OpId, Tensor, ValueId};
use crate::ops::spec::ComputeRole;
use crate::passes::{Effect, Outcome, Pass, PassContext, Patch, Ref};
use std::collections::{BTreeMap, HashMap};

/// Before: `y = MatMul(x, W)` (or Gemm, or Conv). After, in standard operators:
/// `q, s, z = DynamicQuantizeLinear(x)`, `y = Cast(MatMulInteger(q, W_q, z)) * (s * W_s) + b`. Layers that share `x` share
/// `q`. With ONNX Runtime's: `DynamicQuantizeMatMul`, or `MatMulIntegerToFloat` behind a shared `DynamicQuantizeLinear`.
pub struct WriteDynamic {
    /// Which nodes: made for this very model.
    pub structure: Structure,
    /// The options that it was made with.
    pub options: QuantizeOptions,
}

impl Pass for WriteDynamic {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        if !cx.burn(self.name()) {
            return Ok(Outcome::default());
        }
        let mut writer = Writer::new(&model.graph, self);
        let mut changes = 0;
        for (id, kind) in self.structure.integer_nodes() {
            let Kind::Compute(role) = kind else { continue };
            writer.layer(id, role).context(|| model.graph.node(id).label())?;
            changes += 1;
        }
        writer.patch.apply(&mut model.graph)?;
        model.graph.eliminate_dead()?;
        model.import_if_used(MICROSOFT, 1);
        Ok(Outcome { changes, ..Outcome::default() })
    }
}

/// State of the writing.
struct Writer<'a> {
    graph: &'a Graph,
    options: &'a QuantizeOptions,
    patch: Patch,
    /// Codes, scale and zero point of an input.
    inputs: HashMap<ValueId, [Ref; 3]>,
    /// Layers that take an input.
    takers: BTreeMap<ValueId, usize>,
    /// Quantized weights by value and layout.
    weights: HashMap<(ValueId, bool), Weight>,
}

/// A weight in the graph.
#[derive(Clone)]
struct Weight {
    data: Ref,
    /// One number, or one per output channel.
    scale: Ref,
    /// Absent where it is zero.
    zero_point: Option<Ref>,
}

impl<'a> Writer<'a> {
    fn new(graph: &'a Graph, pass: &'a WriteDynamic) -> Self {
        let mut takers = BTreeMap::new();
        for (id, kind) in pass.structure.integer_nodes() {
            if let Kind::Compute(role) = kind
                && let Some(x) = graph.input(id, role.activation)
            {
                *takers.entry(x).or_default() += 1;
            }
        }
        let (inputs, weights) = (HashMap::new(), HashMap::new());
        Self { graph, options: &pass.options, patch: Patch::default(), inputs, takers, weights }
    }

    fn layer(&mut self, id: NodeId, role: &ComputeRole) -> Result<()> {
        let conv = self.graph.node(id).op.is("Conv");
        match self.options.runtime {
            Runtime::Ort if !conv => self.contrib(id, role),
            Runtime::Ort | Runtime::Portable => self.portable(id, role),
        }
    }

    fn input(&self, id: NodeId, slot: usize) -> Result<ValueId> {
        self.graph.input(id, slot).ok_or_else(|| Error::internal(format!("input {slot} is absent")))
    }

    fn output(&self, id: NodeId) -> Result<ValueId> {
        self.graph.output(id, 0).ok_or_else(|| Error::internal("a quantized node without an output"))
    }

    /// Codes, scale and zero point of a value: one DynamicQuantizeLinear for all who take it.
    fn codes(&mut self, x: ValueId) -> [Ref; 3] {
        if let Some(&found) = self.inputs.get(&x) {
            return found;
        }
        let mut node = Node::new(OpId::onnx("DynamicQuantizeLinear"));
        node.rank = self.graph.producer(x).map_or(0, |(p, _)| self.graph.node(p).rank);
        let hints = ["q", "s", "z"].map(|part| Some((format!("{}_{part}", self.graph.name(x)), None)));
        let made: Vec<Ref> =
            self.patch.node_with(node, &[Some(x.into())], hints.to_vec()).into_iter().flatten().collect();
        let found = [made[0], made[1], made[2]];
        self.inputs.insert(x, found);
        found
    }

    /// The weight in 8 bits: as a matrix `[K, N]`, or a convolution's as it is. Its scale has `trailing` axes of size 1
    /// behind that of the channels.
    fn weight(&mut self, w: ValueId, role: &ComputeRole, trailing: usize) -> Result<Weight> {
        let transpose = role.weight_axis == 0 && trailing == 0;
        if let Some(found) = self.weights.get(&(w, transpose)) {
            return Ok(found.clone());
        }
        let tensor = self.graph.constant(w).ok_or_else(|| Error::internal("a weight that is not constant"))?;
        let quantized = quantize_weight(tensor, role.weight_axis, None, 1.0, self.options)?;
        let data = if transpose { super::weights::transpose8(&quantized.data)? } else { quantized.data };
        let (name, dtype) = (self.graph.name(w), data.dtype);
        let new = self.patch.constant(&format!("{name}_q"), data);
        if self.graph.only_use(w).is_some() {
            self.patch.replace(w, new);
        }
        let dims: Vec<usize> = match self.options.per_channel {
            true => std::iter::once(quantized.scale.len()).chain(std::iter::repeat_n(1, trailing)).collect(),
            false => vec![],
        };
        let scale = self.patch.constant(&format!("{name}_s"), Tensor::from_f32(&dims, &quantized.scale));
        let zero = Tensor::raw(dtype, &[], vec![quantized.zero_point as u8]);
        let zero_point = (quantized.zero_point != 0).then(|| self.patch.constant("zp", zero));
        let made = Weight { data: new, scale, zero_point };
        self.weights.insert((w, transpose), made.clone());
        Ok(made)
    }

    /// A node of another operator under the name, and in the place, of the node that it replaces.
    fn like(&self, id: NodeId, op: OpId) -> Node {
        let old = self.graph.node(id);
        let mut node = Node::new(op);
        node.name = old.name.clone();
        node.rank = old.rank;
        node
    }

    /// The bias of a layer, as a constant that broadcasts against its output.
    fn bias(&mut self, id: NodeId, role: &ComputeRole, trailing: usize) -> Result<Option<Ref>> {
        let Some(b) = role.bias.and_then(|slot| self.graph.input(id, slot)) else { return Ok(None) };
        if trailing == 0 {
            return Ok(Some(b.into()));
        }
        let tensor = self.graph.constant(b).ok_or_else(|| Error::internal("a bias that is not constant"))?;
        let dims: Vec<usize> = std::iter::once(tensor.len()).chain(std::iter::repeat_n(1, trailing)).collect();
        let new = self.patch.constant(self.graph.name(b), Tensor { dims, ..tensor.clone() });
        if self.graph.only_use(b).is_some() {
            self.patch.replace(b, new);
        }
        Ok(Some(new))
    }
}

/// A type with the shape of `v`.
fn shaped(graph: &Graph, v: ValueId, elem: DType) -> Option<crate::ir::Type> {
    let shape = graph.ty(v)?.as_tensor()?.shape.clone();
    Some(crate::ir::Type::Tensor(crate::ir::TensorType { elem, shape }))
}
