//! The pass that writes a plan into the model.

use super::emit::emit;
use super::plan::WeightPlan;
use crate::error::Result;
use crate::ir::{MICROSOFT, Model};
use crate::passes::{Effect, Outcome, Pass, PassContext};

/// Stores the weights of a plan in few bits. The plan must have been made for this very model.
pub struct WriteWeights {
    /// What to write, rounded.
    pub plan: WeightPlan,
}

impl Pass for WriteWeights {
    fn name(&self) -> &'static str {
        "quantize_weights"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        if self.plan.weights.is_empty() || !cx.burn(self.name()) {
            return Ok(Outcome::default());
        }
        let patch = emit(&model.graph, &self.plan)?;
        patch.apply(&mut model.graph)?;
        model.graph.eliminate_dead()?;
        model.import_if_used(MICROSOFT, 1);
        Ok(Outcome { changes: self.plan.weights.len(), ..Outcome::default() })
    }
}
