//! How constants with many zeros are stored.

use crate::error::{Context, Result};
use crate::ir::{Model, Tensor};
use crate::passes::{Effect, Outcome, Pass, PassContext, Patch};

/// Stores as `sparse_initializer` what takes fewer bytes that way. Runtimes make dense tensors of them when they load
/// the model: it saves bytes, not time.
pub struct StoreSparse;

/// Stores every constant with all of its elements, bit for bit what the sparse one means.
pub struct Densify;

/// Sparse initializers came with this IR version.
const FIRST_IR_WITH_SPARSE: i64 = 5;

impl Pass for StoreSparse {
    fn name(&self) -> &'static str {
        "store_sparse"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, model: &mut Model, _: &PassContext) -> Result<Outcome> {
        let changes = store(model, Tensor::sparse)?;
        if changes > 0 {
            model.require_ir_version(FIRST_IR_WITH_SPARSE);
        }
        Ok(Outcome { changes, ..Outcome::default() })
    }
}

impl Pass for Densify {
    fn name(&self) -> &'static str {
        "densify"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, model: &mut Model, _: &PassContext) -> Result<Outcome> {
        Ok(Outcome { changes: store(model, Tensor::densify)?, ..Outcome::default() })
    }
}

/// Applies `form` to the constants of the main graph; returns how many it changed.
fn store(model: &mut Model, form: impl Fn(&Tensor) -> Result<Option<Tensor>>) -> Result<usize> {
    let graph = &model.graph;
    let mut patch = Patch::default();
    let mut changes = 0;
    for v in graph.values() {
        let Some(t) = graph.value(v).init.as_ref().filter(|t| t.dtype.bits() >= 8) else { continue };
        if let Some(stored) = form(t).context(|| format!("\"{}\"", graph.name(v)))? {
            patch.set_value(v, graph.ty(v).cloned(), Some(stored));
            changes += 1;
        }
    }
    patch.apply(&mut model.graph)?;
    Ok(changes)
}
