//! Identity, and Dropout at inference, go.

use crate::error::Result;
use crate::ir::{Graph, NodeId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = Identity(x)` or `y = Dropout(x)`. After: uses of `y` use `x`.
///
/// When: `y` is not a graph output, or it is and `x` can take over its name (a node makes `x`, and `x` is no output
/// itself). Dropout: no mask output, no `training_mode` input (whose absence means inference).
/// Why it is equal: both ops return their input.
pub struct EliminateIdentity;

impl Rewrite for EliminateIdentity {
    fn name(&self) -> &'static str {
        "eliminate_identity"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Identity"), onnx("Dropout")] }
    }

    fn rewrite(&self, graph: &Graph, node: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        let (Some(x), Some(y)) = (graph.input(node, 0), graph.output(node, 0)) else { return Ok(None) };
        if graph.node(node).op.is("Dropout") {
            let mask = graph.output(node, 1).is_some_and(|m| graph.is_output(m) || !graph.uses(m).is_empty());
            let may_train = graph.input(node, 2).is_some() || cx.opset < 7;
            if mask || may_train {
                return Ok(None);
            }
        }
        if graph.is_output(y) && (graph.producer(x).is_none() || graph.is_output(x)) {
            return Ok(None);
        }
        let mut patch = Patch::default();
        patch.replace(y, x);
        Ok(Some(patch))
    }
}
