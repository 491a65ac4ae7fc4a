//! Concat of all that a Split makes is the value that was split.

use super::matching::Look;
use crate::error::Result;
use crate::ir::{Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `a, b = Split<axis = 1>(x)`, `y = Concat<axis = 1>(a, b)`. After: uses of `y` use `x`.
///
/// When: the Concat takes all outputs of the Split, in order, along the same axis. `y` is not a graph output, or it is and
/// `x` can take over its name (a node makes `x`, and `x` is no output itself).
/// Why it is equal: the parts of a Split cover its axis without gap or overlap.
pub struct EliminateSplitConcat;

impl Rewrite for EliminateSplitConcat {
    fn name(&self) -> &'static str {
        "eliminate_split_concat"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Concat")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    let parts: Option<Vec<ValueId>> = graph.node_inputs(id).into_iter().collect();
    let parts = parts?;
    let split = look.made_by(*parts.first()?, "Split")?;
    (graph.node(split).output_slots as usize == parts.len()).then_some(())?;
    let outputs: Option<Vec<ValueId>> = graph.node_outputs(split).into_iter().collect();
    let x = graph.input(split, 0).filter(|_| outputs == Some(parts))?;
    let y = graph.output(id, 0)?;
    let rank = look.rank(x).or_else(|| look.rank(y)).and_then(|r| i64::try_from(r).ok());
    let axis = |node: NodeId, default: Option<i64>| {
        let a = graph.node(node).int("axis").or(default)?;
        Some(if a < 0 { rank.map_or(a, |r| a + r) } else { a })
    };
    (axis(split, Some(0))? == axis(id, None)?).then_some(())?;
    if graph.is_output(y) && (graph.producer(x).is_none() || graph.is_output(x)) {
        return None;
    }
    let mut patch = Patch::default();
    patch.replace(y, x);
    Some(patch)
}
