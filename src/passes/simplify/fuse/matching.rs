//! What the rules of this folder ask about the neighbourhood of a node.

use crate::ir::{Attribute, AttributeValue, DType, Graph, Node, NodeId, OpId, Tensor, ValueId};
use crate::passes::{Patch, Ref, RuleContext};

/// A graph, and what inference and the surrounding graphs add to it.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub graph: &'a Graph,
    pub cx: &'a RuleContext<'a>,
}

/// A constant with one element.
#[derive(Clone, Copy)]
pub(super) struct Scalar {
    pub value: f64,
    pub dtype: DType,
    pub rank: usize,
}

impl<'a> Look<'a> {
    pub fn new(graph: &'a Graph, cx: &'a RuleContext<'a>) -> Self {
        Self { graph, cx }
    }

    /// The data of a constant, captured ones included: they may be read, but not replaced.
    pub fn constant(&self, v: ValueId) -> Option<&'a Tensor> {
        self.cx.constant(self.graph, v)
    }

    /// A float constant with one element.
    pub fn scalar(&self, v: ValueId) -> Option<Scalar> {
        let tensor = self.constant(v).filter(|t| t.len() == 1)?;
        let value = *floats(tensor)?.first()?;
        Some(Scalar { value, dtype: tensor.dtype, rank: tensor.rank() })
    }

    /// The node of the default domain and of type `op` that makes `v` as its first output.
    pub fn made_by(&self, v: ValueId, op: &str) -> Option<NodeId> {
        let (id, slot) = self.graph.producer(v)?;
        (slot == 0 && self.graph.node(id).op.is(op)).then_some(id)
    }

    /// The same, where nothing else needs `v`: it disappears with its user.
    pub fn inner(&self, v: ValueId, op: &str) -> Option<NodeId> {
        self.graph.only_use(v)?;
        self.made_by(v, op)
    }

    pub fn is_op(&self, id: NodeId, op: &str) -> bool {
        self.graph.node(id).op.is(op)
    }

    /// Both inputs of a binary operator.
    pub fn operands(&self, id: NodeId) -> Option<(ValueId, ValueId)> {
        Some((self.graph.input(id, 0)?, self.graph.input(id, 1)?))
    }

    /// The two operands, once in each order.
    pub fn either_way(&self, id: NodeId) -> [Option<(ValueId, ValueId)>; 2] {
        let pair = self.operands(id);
        [pair, pair.map(|(a, b)| (b, a))]
    }

    /// The operand of a commutative node beside one that is the scalar `value`.
    pub fn beside(&self, id: NodeId, value: f64) -> Option<ValueId> {
        let pairs = self.either_way(id).into_iter().flatten();
        let is = |v| self.scalar(v).is_some_and(|s| near(s.value, value, s.dtype) && self.keeps_shape(v, s.rank));
        pairs.into_iter().find(|&(_, c)| is(c)).map(|(x, _)| x)
    }

    /// Rank of a value, where it is known.
    pub fn rank(&self, v: ValueId) -> Option<usize> {
        self.constant(v).map(Tensor::rank).or_else(|| Some(self.graph.ty(v)?.shape()?.len()))
    }

    /// Whether a constant with one element and of rank `rank` leaves the shape of `x` as it is when combined with it.
    pub fn keeps_shape(&self, x: ValueId, rank: usize) -> bool {
        rank == 0 || self.rank(x).is_some_and(|r| rank <= r)
    }

    /// Element type of a value.
    pub fn elem(&self, v: ValueId) -> Option<DType> {
        self.constant(v).map(|t| t.dtype).or_else(|| self.graph.ty(v)?.elem())
    }
}

/// Whether two numbers are the same up to the rounding of `dtype`.
pub(super) fn near(a: f64, b: f64, dtype: DType) -> bool {
    let epsilon = match dtype {
        DType::BF16 => 8e-3,
        DType::F16 => 1e-3,
        _ => 1e-6,
    };
    (a - b).abs() <= epsilon * b.abs()
}

/// Elements of a float constant.
pub(super) fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    if tensor.dtype == DType::F64 {
        let bytes = tensor.bytes().ok()?;
        return Some(bytes.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b)).collect());
    }
    Some(tensor.to_f32().ok()?.into_iter().map(f64::from).collect())
}

/// A constant of type f32 or f64; `None` for another type, and where rounding to it makes an element infinite.
pub(super) fn tensor_of(dtype: DType, dims: &[usize], data: &[f64]) -> Option<Tensor> {
    let tensor = match dtype {
        DType::F64 => Tensor::from_f64(dims, data),
        DType::F32 => Tensor::from_f32(dims, &data.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        _ => return None,
    };
    floats(&tensor)?.iter().all(|x| x.is_finite()).then_some(tensor)
}

/// Puts `op` with `attributes` in the place of node `id`, whose first output becomes the new node's.
pub(super) fn replace_node(
    graph: &Graph,
    patch: &mut Patch,
    id: NodeId,
    op: &str,
    attributes: &[(&str, AttributeValue)],
    inputs: &[Option<Ref>],
) -> Option<()> {
    let y = graph.output(id, 0)?;
    let old = graph.node(id);
    let mut node = Node::new(OpId::onnx(op));
    node.name = old.name.clone();
    node.rank = old.rank;
    node.attributes = attributes.iter().map(|(name, value)| Attribute::new(name, value.clone())).collect();
    let new = patch.node(node, inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, new);
    Some(())
}
