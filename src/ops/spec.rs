//! The vocabulary in which an operator's file states its facts. Every method defaults to "opaque": an op without a
//! fact is a barrier to the transformation that would need it, never an assumption.

use super::axes::{AxisLinks, Kept, LinkContext, Narrowed};
use super::gradient::Rule;
use crate::error::Result;
use crate::ir::{DType, Dim, Node, Tensor, TensorType, Type};
use crate::math::Unfold;

/// Domain and type of an operator, as its file claims it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct OpKey {
    /// `""` for the standard's own domain.
    pub domain: &'static str,
    /// For example `Conv`.
    pub op_type: &'static str,
}

/// An operator of the default domain.
pub const fn onnx(op_type: &'static str) -> OpKey {
    OpKey { domain: "", op_type }
}

/// An operator of ONNX Runtime's domain.
pub const fn microsoft(op_type: &'static str) -> OpKey {
    OpKey { domain: crate::ir::MICROSOFT, op_type }
}

/// An operator and the operator sets that define it.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The operator.
    pub key: OpKey,
    /// Versions of the domain that define or redefine it, ascending, up to [`crate::ir::NEWEST_OPSET`].
    pub versions: &'static [i64],
    /// First version whose floats may be f16; `None` where no version allows it, or where that is not known.
    pub f16: Option<i64>,
}

impl Schema {
    /// With f16 allowed from a later version on.
    pub const fn f16(mut self, since: i64) -> Self {
        self.f16 = Some(since);
        self
    }

    /// Without f16.
    pub const fn no_f16(mut self) -> Self {
        self.f16 = None;
        self
    }
}

/// An operator of the default domain, and the operator sets that define it (from the schemas of onnx 1.23). Nearly all of
/// them take f16 wherever they take f32; those that do not say so.
pub const fn op(op_type: &'static str, versions: &'static [i64]) -> Schema {
    Schema { key: onnx(op_type), versions, f16: Some(1) }
}

/// An operator of ONNX Runtime's domain, which has one version.
pub const fn contrib(op_type: &'static str) -> Schema {
    Schema { key: microsoft(op_type), versions: &[1], f16: None }
}

/// An operator of another domain.
pub const fn foreign(domain: &'static str, op_type: &'static str, versions: &'static [i64]) -> Schema {
    Schema { key: OpKey { domain, op_type }, versions, f16: None }
}

/// What inference knows about one node before its outputs.
pub struct InferContext<'a> {
    /// The node.
    pub node: &'a Node,
    /// Version of the operator set of the node's domain.
    pub opset: i64,
    /// Per input slot: what is known of the value; `None` where the input is absent.
    pub inputs: Vec<Option<Known<'a>>>,
    /// Number of output slots up to the last one that somebody uses.
    pub used_outputs: usize,
}

/// What is known of a value.
#[derive(Clone, Default)]
pub struct Known<'a> {
    /// Type.
    pub ty: Option<&'a Type>,
    /// The data of a constant.
    pub constant: Option<&'a Tensor>,
    /// Elements of an integer tensor of rank 0 or 1 as far as they are known, symbolically too: what `Shape`, `Gather`
    /// and `Concat` compute.
    pub data: Option<Vec<Dim>>,
}

impl<'a> InferContext<'a> {
    /// Type of input `k`, where it is a tensor.
    pub fn tensor(&self, k: usize) -> Option<&'a TensorType> {
        self.inputs.get(k)?.as_ref()?.ty?.as_tensor()
    }

    /// Element type of input `k`.
    pub fn elem(&self, k: usize) -> Option<DType> {
        self.tensor(k).map(|t| t.elem)
    }

    /// Dimensions of input `k`, where the rank is known.
    pub fn shape(&self, k: usize) -> Option<&'a [Dim]> {
        self.tensor(k)?.shape.as_deref()
    }

    /// Data of input `k`, where it is a constant.
    pub fn constant(&self, k: usize) -> Option<&'a Tensor> {
        self.inputs.get(k)?.as_ref()?.constant
    }

    /// Whether input `k` is present.
    pub fn present(&self, k: usize) -> bool {
        matches!(self.inputs.get(k), Some(Some(_)))
    }

    /// The integers of input `k`, where all of them are known.
    pub fn ints(&self, k: usize) -> Option<Vec<i64>> {
        if let Some(t) = self.constant(k) {
            return t.to_i64().ok();
        }
        let data = self.inputs.get(k)?.as_ref()?.data.as_ref()?;
        data.iter().map(|d| if let Dim::Known(n) = d { Some(*n) } else { None }).collect()
    }

    /// The integers of input `k` as dimensions, symbolic ones included.
    pub fn dims(&self, k: usize) -> Option<Vec<Dim>> {
        if let Some(t) = self.constant(k) {
            return Some(t.to_i64().ok()?.into_iter().map(Dim::Known).collect());
        }
        self.inputs.get(k)?.as_ref()?.data.clone()
    }
}

/// What inference found out about one output.
#[derive(Clone, Default, Debug)]
pub struct Inferred {
    /// Type.
    pub ty: Option<Type>,
    /// See [`Known::data`].
    pub data: Option<Vec<Dim>>,
}

impl Inferred {
    /// A tensor whose rank may be unknown.
    pub fn tensor(elem: Option<DType>, shape: Option<Vec<Dim>>) -> Self {
        Self { ty: elem.map(|elem| Type::Tensor(TensorType { elem, shape })), data: None }
    }
}

/// How an operator takes part in quantization. Bits, symmetry and skip lists are the recipe's, never the op's.
#[derive(Clone, PartialEq, Debug)]
pub enum QuantRole {
    /// Computes in float only.
    Opaque,
    /// A linear layer: products of an activation and a weight, accumulated in 32 bits.
    Compute(ComputeRole),
    /// An own kernel on 8-bit inputs with an output range of its own (ONNX Runtime has one in `com.microsoft` for each).
    Elementwise {
        /// Slots of the inputs that are quantized.
        inputs: Vec<usize>,
    },
    /// Moves or selects elements of the input at this slot: the output has the input's scale.
    PassThrough {
        /// Slot of the data input.
        input: usize,
    },
    /// Joins inputs that must have one scale, which is the output's too.
    Unify,
    /// Clamps the input at this slot by constants that need not be equal for all elements: what is beyond the output's range
    /// does not matter, so the input has the output's scale.
    Bound {
        /// Slot of the data input.
        input: usize,
    },
    /// Clamps: its bounds become the range of the value that it clamps.
    Activation {
        /// Lower bound, where there is one.
        low: Option<f32>,
        /// Upper bound, where there is one.
        high: Option<f32>,
    },
}

/// How positive factors, one per channel, get through an operator.
#[derive(Clone, PartialEq, Debug)]
pub enum ChannelRole {
    /// They do not.
    Barrier,
    /// `f(k x) = k f(x)`, where every input at these slots is multiplied by `k`.
    Passes {
        /// Slots of the inputs; all have their channels along the same axis.
        inputs: Vec<usize>,
        /// Axis of the channels in the output.
        axis: usize,
        /// Elements of that axis that one channel of the input becomes: more than 1 where axes behind it are joined to it.
        repeat: usize,
    },
    /// `k f(x)` clamps `k x` between 0 (or nothing) and this bound times `k`.
    Clamps {
        /// Whether there is a lower bound, which is 0.
        from_zero: bool,
        /// The upper bound.
        high: f32,
    },
}

impl ChannelRole {
    /// Passes the factors of input 0, whose axes stay as they are.
    pub fn same(axis: usize) -> Self {
        Self::Passes { inputs: vec![0], axis, repeat: 1 }
    }
}

/// The slots of a linear layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComputeRole {
    /// Slot of the activation.
    pub activation: usize,
    /// Slot of the weight.
    pub weight: usize,
    /// Slot of the bias, if the op has one (it may be absent in a node).
    pub bias: Option<usize>,
    /// Axis of the weight that runs over output channels.
    pub weight_axis: usize,
}

/// An input that holds a weight: a constant whose elements can be stored in fewer bits, whatever the node computes in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRole {
    /// Slot of the input.
    pub slot: usize,
    /// Axes of the weight that run over output channels, ascending: the elements at one position along them are a row,
    /// which has a scale of its own.
    pub rows: Vec<usize>,
}

/// A weight that may be stored in few bits while the node computes in float.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WeightRole {
    /// Slot of the weight.
    pub slot: usize,
    /// Axis whose indices have a scale each: output channels of a layer, rows of a table.
    pub channel_axis: usize,
    /// Axis along which blocks that share a scale may run: inputs of a layer, elements of a row.
    pub block_axis: usize,
    /// What the weight is for.
    pub purpose: Purpose,
}

/// What a weight is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// It is multiplied with the input at this slot, as columns of this form; `None` where no form is known for it.
    Product(Option<(usize, Unfold)>),
    /// The indices at this slot pick whole rows.
    Table {
        /// Slot of the indices.
        indices: usize,
    },
}

/// Result of moving a node to a newer operator set.
pub enum Upgrade {
    /// Nothing to do: the node means the same.
    Same,
    /// The node with other attributes, and inputs that were attributes before: (slot, constant).
    Changed {
        /// The node as the newer set spells it.
        node: Box<Node>,
        /// Constants that become inputs.
        new_inputs: Vec<(usize, Tensor)>,
    },
    /// Several nodes in its place, in execution order; the last one makes the outputs.
    Replaced(Vec<Step>),
    /// It cannot be expressed, and why.
    Impossible(String),
}

/// One node of a replacement.
pub struct Step {
    /// The node; its inputs are `inputs`.
    pub node: Node,
    /// Per input slot.
    pub inputs: Vec<Source>,
}

/// Where an input of a [`Step`] comes from.
pub enum Source {
    /// The value at this input slot of the replaced node (absent where that is).
    Input(usize),
    /// The first output of an earlier step.
    Step(usize),
    /// A constant.
    Constant(Tensor),
}

/// Every fact about one operator, or about a family whose facts are identical.
pub trait OpSpec: Sync {
    /// The operators that this file describes.
    fn schemas(&self) -> &'static [Schema];

    /// Types (and data, for shape arithmetic) of the outputs, by slot; fewer than the node has means unknown.
    ///
    /// # Errors
    /// Inputs that the specification forbids: the model is invalid.
    fn infer(&self, _cx: &InferContext) -> Result<Vec<Inferred>> {
        Ok(vec![])
    }

    /// Role in quantization.
    fn quant(&self, _cx: &InferContext) -> QuantRole {
        QuantRole::Opaque
    }

    /// Inputs that are weights where they are constants.
    fn stored_weights(&self, cx: &InferContext) -> Vec<StoredRole> {
        match self.quant(cx) {
            QuantRole::Compute(role) => vec![StoredRole { slot: role.weight, rows: vec![role.weight_axis] }],
            _ => vec![],
        }
    }

    /// Whether the standard lets the node compute in f16 where it computes in f32, and its other outputs follow its first
    /// input's type.
    fn allows_f16(&self, cx: &InferContext) -> bool {
        let op = &cx.node.op;
        let own = |s: &&Schema| s.key.domain == &*op.domain && s.key.op_type == &*op.op_type;
        self.schemas().iter().find(own).and_then(|s| s.f16).is_some_and(|since| cx.opset >= since)
    }

    /// Inputs that stay f32 where the node computes in f16.
    fn f32_slots(&self) -> &'static [usize] {
        &[]
    }

    /// What becomes of positive factors on the channels of its inputs, which run along `axis`.
    fn channels(&self, _cx: &InferContext, _axis: usize) -> ChannelRole {
        ChannelRole::Barrier
    }

    /// The weight that quantization of weights alone may store in few bits.
    fn weight(&self, _cx: &InferContext) -> Option<WeightRole> {
        None
    }

    /// Multiply-accumulate operations, given the output types; `None` where they are unknown. A symbolic or unknown
    /// dimension counts as 1.
    fn macs(&self, _cx: &InferContext, _outputs: &[Option<&Type>]) -> Option<u64> {
        Some(0)
    }

    /// Which elements of the axes of its inputs and outputs exist together only; `None`: nothing may be removed. Ports
    /// whose rank is 0 need no mention.
    fn axis_links(&self, _cx: &LinkContext) -> Option<AxisLinks> {
        None
    }

    /// What becomes of the node when elements of its axes are removed as its links say. The inputs themselves are cut
    /// by the caller.
    fn narrow(&self, _cx: &LinkContext, _kept: &Kept) -> Narrowed {
        Narrowed::Same
    }

    /// Which elements of input 0, a vector, appear in the outputs; `None`: all of them, or it is not known.
    fn selects(&self, _cx: &InferContext) -> Option<Vec<usize>> {
        None
    }

    /// Moves the node from operator set `cx.opset` to `to`. The default is for ops that no version changed in meaning;
    /// an op whose meaning changed overrides it.
    fn upgrade(&self, _cx: &InferContext, _to: i64) -> Upgrade {
        Upgrade::Same
    }

    /// The backward rule of this node, and the forward function that goes with it; `None`: gradients end here.
    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        None
    }

    /// Whether equal inputs give equal outputs.
    fn deterministic(&self) -> bool {
        true
    }
}
