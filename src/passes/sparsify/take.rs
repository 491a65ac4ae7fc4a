//! Weights that were worked out elsewhere.

use crate::error::Result;
use crate::ir::Model;
use crate::passes::{Effect, Outcome, Pass, PassContext, Patch};

/// Takes over the constants in which another version of the same model differs.
pub struct TakeWeights<'a> {
    /// A clone of the model, with other constants.
    pub from: &'a Model,
}

impl Pass for TakeWeights<'_> {
    fn name(&self) -> &'static str {
        "sparsify"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        let (graph, from) = (&model.graph, &self.from.graph);
        let mut patch = Patch::default();
        let mut changes = 0;
        for v in graph.values().filter(|&v| graph.value(v).init.is_some()) {
            let Some(new) = from.find(graph.name(v)).and_then(|v| from.value(v).init.as_ref()) else { continue };
            if graph.value(v).init.as_ref() != Some(new) && cx.burn(self.name()) {
                patch.set_value(v, graph.ty(v).cloned(), Some(new.clone()));
                changes += 1;
            }
        }
        patch.apply(&mut model.graph)?;
        Ok(Outcome { changes, ..Outcome::default() })
    }
}
