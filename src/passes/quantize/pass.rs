//! The pass that writes a plan into the model.

use super::emit::emit;
use super::plan::Plan;
use crate::error::Result;
use crate::ir::{MICROSOFT, Model};
use crate::passes::{Effect, Note, Outcome, Pass, PassContext};

/// Rewrites the nodes of a plan to integers. The plan must have been made for this very model.
pub struct WritePlan {
    /// What to write, with scales.
    pub plan: Plan,
}

impl Pass for WritePlan {
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
        let (patch, notes) = emit(&model.graph, &self.plan)?;
        let changes = self.plan.structure.integer_nodes().count();
        patch.apply(&mut model.graph)?;
        model.graph.eliminate_dead()?;
        model.import_if_used(MICROSOFT, 1);
        let note = |text| Note { pass: self.name().into(), subject: String::new(), text };
        Ok(Outcome { changes, notes: notes.into_iter().map(note).collect(), ..Outcome::default() })
    }
}
