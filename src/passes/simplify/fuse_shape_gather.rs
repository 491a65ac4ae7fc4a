//! Gather from a Shape becomes a part of the Shape.

use crate::error::Result;
use crate::ir::{Graph, NodeId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// The operator set in which Shape has `start` and `end`.
const OPSET: i64 = 15;

/// Before: `y = Gather(Shape(x), [i, i + 1, ..., j])`. After: `y = Shape<start = i, end = j + 1>(x)`.
///
/// When: the indices are a constant vector of consecutive axes of `x`, whose rank is known; nothing else uses the Shape,
/// which has no `start` and `end` of its own; operator set 15.
/// Why it is equal: both are these dimensions, as a vector.
pub struct FuseShapeGather;

impl Rewrite for FuseShapeGather {
    fn name(&self) -> &'static str {
        "fuse_shape_gather"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Gather")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        if cx.opset < OPSET {
            return Ok(None);
        }
        Ok(fuse(graph, id, cx))
    }
}

fn fuse(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let dims = graph.input(id, 0).filter(|&d| graph.only_use(d).is_some())?;
    let (shape, _) = graph.producer(dims)?;
    let x = graph.input(shape, 0)?;
    let plain = graph.node(shape).op.is("Shape") && graph.node(shape).attributes.is_empty();
    let rank = graph.ty(x)?.shape()?.len();
    let indices = cx.constant(graph, graph.input(id, 1)?).filter(|t| t.rank() == 1)?.to_i64().ok()?;
    let from_front = |i: &i64| usize::try_from(if *i < 0 { i + rank as i64 } else { *i }).ok().filter(|&k| k < rank);
    let axes: Vec<usize> = indices.iter().map(from_front).collect::<Option<_>>()?;
    let start = *axes.first()?;
    if !plain || !axes.iter().enumerate().all(|(k, &axis)| axis == start + k) {
        return None;
    }
    let mut node = graph.node(shape).clone();
    node.set("start", (start as i64).into());
    node.set("end", ((start + axes.len()) as i64).into());
    let mut patch = Patch::default();
    patch.replace_node(graph, id, node, &[Some(x.into())]);
    Some(patch)
}
