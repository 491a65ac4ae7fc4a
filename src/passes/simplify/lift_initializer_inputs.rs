//! Initializers that are also graph inputs become constants.

use crate::error::Result;
use crate::ir::Model;
use crate::passes::{Effect, Note, Outcome, Pass, PassContext, Patch};

/// Before: initializer `w` is also a graph input, so a caller may override it. After: it is a constant.
///
/// When: always; the pass is run only where constants are needed (quantization), and says what it did. Up to IR version
/// 3 every initializer had to be listed as an input, so exporters of that time list them all; nobody overrides weights.
/// The IR version is raised to 4, the first that allows an initializer that is not an input.
/// Why it is equal: for every caller that does not override it.
pub struct LiftInitializerInputs;

impl Pass for LiftInitializerInputs {
    fn name(&self) -> &'static str {
        "lift_initializer_inputs"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        let graph = &mut model.graph;
        let both = graph.inputs().iter().copied().filter(|&v| graph.value(v).init.is_some());
        let mut patch = Patch::default();
        let mut outcome = Outcome::default();
        for v in both.collect::<Vec<_>>() {
            if cx.burn(self.name()) {
                patch.fix_input(v);
                outcome.changes += 1;
            }
        }
        if outcome.changes == 0 {
            return Ok(outcome);
        }
        patch.apply(graph)?;
        model.require_ir_version(4);
        let text = format!("{} initializers were also graph inputs; they are constants now", outcome.changes);
        outcome.notes.push(Note { pass: self.name().into(), subject: String::new(), text });
        Ok(outcome)
    }
}
