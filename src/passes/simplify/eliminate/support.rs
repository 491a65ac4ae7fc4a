//! What the rules of this folder share.

use crate::ir::{DType, Dim, Graph, NodeId, Tensor, ValueId};
use crate::ops::DATA_LIMIT;
use crate::passes::{Patch, RuleContext};

/// The `Rewrite` of a rule that keeps every bit: type, name, operators it starts from, and the function that decides.
macro_rules! exact_rule {
    ($rule:ident, $name:literal, [$($root:literal),+], $apply:path) => {
        impl $crate::passes::Rewrite for $rule {
            fn name(&self) -> &'static str {
                $name
            }

            fn effect(&self) -> $crate::passes::Effect {
                $crate::passes::Effect::Exact
            }

            fn roots(&self) -> &'static [$crate::ops::spec::OpKey] {
                const { &[$($crate::ops::spec::onnx($root)),+] }
            }

            fn rewrite(
                &self,
                graph: &$crate::ir::Graph,
                node: $crate::ir::NodeId,
                cx: &$crate::passes::RuleContext,
            ) -> $crate::error::Result<Option<$crate::passes::Patch>> {
                Ok($apply(graph, node, cx))
            }
        }
    };
}
pub(super) use exact_rule;

/// The node that makes `v`, if it is one of these operators of the default domain.
pub(super) fn maker(graph: &Graph, v: ValueId, ops: &[&str]) -> Option<NodeId> {
    let (id, _) = graph.producer(v)?;
    ops.iter().any(|op| graph.node(id).op.is(op)).then_some(id)
}

/// Dimensions of a value of known rank.
pub(super) fn shape(graph: &Graph, v: ValueId) -> Option<&[Dim]> {
    graph.ty(v)?.shape()
}

/// Element type of a tensor.
pub(super) fn elem(graph: &Graph, v: ValueId) -> Option<DType> {
    graph.ty(v)?.elem()
}

/// Whether two dimensions are known to be equal.
pub(super) fn equal(a: &Dim, b: &Dim) -> bool {
    a == b && *a != Dim::Unknown
}

/// Whether somebody reads the value.
pub(super) fn is_used(graph: &Graph, v: ValueId) -> bool {
    graph.is_output(v) || graph.has_uses(v)
}

/// Whether `x` can stand for `y` without an Identity: `y` is no graph output, or `x` can take over its name.
pub(super) fn can_stand_for(graph: &Graph, x: ValueId, y: ValueId) -> bool {
    !graph.is_output(y) || (graph.producer(x).is_some() && !graph.is_output(x))
}

/// Uses of the node's only used output become uses of `x`.
pub(super) fn bypass(graph: &Graph, id: NodeId, x: ValueId) -> Option<Patch> {
    let y = graph.output(id, 0)?;
    let more = graph.node_outputs(id).into_iter().skip(1).flatten().any(|v| is_used(graph, v));
    if more || x == y || !can_stand_for(graph, x, y) {
        return None;
    }
    let mut patch = Patch::default();
    patch.replace(y, x);
    Some(patch)
}

/// Elements of a small integer tensor of rank 0 or 1, symbolic ones included.
pub(super) fn dims(graph: &Graph, cx: &RuleContext, v: ValueId) -> Option<Vec<Dim>> {
    let of_constant = |t: &Tensor| {
        let small = t.rank() <= 1 && t.len() <= DATA_LIMIT;
        small.then(|| t.to_i64().ok())?.map(|v| v.into_iter().map(Dim::Known).collect())
    };
    match cx.scope {
        Some(scope) if graph.is_outer(v) => {
            let known = scope.known(graph.name(v));
            known.constant.map_or(known.data, of_constant)
        }
        _ => graph.constant(v).map_or_else(|| cx.data.get(&v).cloned(), of_constant),
    }
}

/// Elements of a small integer tensor of rank 0 or 1, where all are known.
pub(super) fn ints(graph: &Graph, cx: &RuleContext, v: ValueId) -> Option<Vec<i64>> {
    dims(graph, cx, v)?.into_iter().map(|d| if let Dim::Known(n) = d { Some(n) } else { None }).collect()
}

/// A list that newer operator sets pass as an input and older ones as an attribute.
pub(super) enum Listed {
    /// Neither attribute nor input.
    Absent,
    /// Its elements, symbolic ones included.
    Given(Vec<Dim>),
    /// Not known before execution.
    Unknown,
}

impl Listed {
    /// Reads attribute `name` before operator set `since`, input `slot` as of it.
    pub(super) fn of(graph: &Graph, cx: &RuleContext, id: NodeId, (name, slot, since): (&str, usize, i64)) -> Self {
        if cx.opset < since {
            let node = graph.node(id);
            return match (node.attribute(name), node.ints(name)) {
                (None, _) => Self::Absent,
                (_, Some(v)) => Self::Given(v.iter().copied().map(Dim::Known).collect()),
                _ => Self::Unknown,
            };
        }
        match graph.input(id, slot) {
            None => Self::Absent,
            Some(v) => dims(graph, cx, v).map_or(Self::Unknown, Self::Given),
        }
    }

    /// The integers, where all are known; `None` where the list is absent too.
    pub(super) fn ints(&self) -> Option<Vec<i64>> {
        let Self::Given(list) = self else { return None };
        list.iter().map(|d| if let Dim::Known(n) = d { Some(*n) } else { None }).collect()
    }
}

/// An integer attribute or its default; `None` where it is of another kind.
pub(super) fn int_or(graph: &Graph, id: NodeId, name: &str, default: i64) -> Option<i64> {
    let node = graph.node(id);
    if node.attribute(name).is_none() { Some(default) } else { node.int(name) }
}

/// Counts `axis` from the front.
pub(super) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let from_front = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    usize::try_from(from_front).ok().filter(|&k| k < rank)
}

/// Counts axes from the front; `None` where one is out of range or named twice.
pub(super) fn axes(list: &[i64], rank: usize) -> Option<Vec<usize>> {
    let mut seen = vec![false; rank];
    let find = |&a: &i64| axis(a, rank).filter(|&k| !std::mem::replace(&mut seen[k], true));
    list.iter().map(find).collect()
}

/// Whether broadcasting `x` with a tensor of these dimensions leaves the shape of `x` as it is.
pub(super) fn keeps_shape(graph: &Graph, x: ValueId, other: &[usize]) -> bool {
    if other.is_empty() {
        return true;
    }
    let Some(shape) = shape(graph, x) else { return false };
    let fits = |(d, &n): (&Dim, &usize)| n == 1 || d.known() == Some(n);
    other.len() <= shape.len() && shape.iter().rev().zip(other.iter().rev()).all(fits)
}
