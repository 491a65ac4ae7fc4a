//! Identity nodes of initializers become initializers of their own.

use super::{Effect, Patch, Rewrite, RuleContext};
use crate::error::Result;
use crate::ir::{Graph, NodeId};
use crate::ops::spec::{OpKey, onnx};

/// Before: `y = Identity(w)`, `w` a float initializer. After: initializer `y`, equal to `w`.
///
/// When: `y` is no graph output. Only where constants are about to change (training): exporters store equal tensors once
/// and name the others by Identity nodes, so the scales of all normalizations of a new model are one tensor in the file.
/// They are equal, not the same.
/// Why it is equal: Identity copies.
pub struct UntieIdentity;

impl Rewrite for UntieIdentity {
    fn name(&self) -> &'static str {
        "untie_identity"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        &const { [onnx("Identity")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, _: &RuleContext) -> Result<Option<Patch>> {
        let (Some(x), Some(y)) = (graph.input(id, 0), graph.output(id, 0)) else { return Ok(None) };
        let Some(t) = graph.constant(x).filter(|t| t.dtype.is_float()) else { return Ok(None) };
        if graph.is_output(y) {
            return Ok(None);
        }
        let mut patch = Patch::default();
        let own = patch.constant(graph.name(y), t.clone());
        patch.replace(y, own);
        Ok(Some(patch))
    }
}
