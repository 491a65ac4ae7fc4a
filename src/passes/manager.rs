//! Runs passes: after each one, types are inferred again and the model is verified; a pass that breaks it is rolled back.

use super::{Effect, Note, Pass, PassContext};
use crate::analysis::shapes;
use crate::error::{Context, Result};
use crate::ir::Model;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// What one pass did.
#[derive(Clone, Debug, Serialize)]
pub struct PassReport {
    /// Name of the pass.
    pub pass: String,
    /// How far it may have moved the outputs.
    pub effect: Effect,
    /// Patches applied.
    pub changes: usize,
    /// The same by rule, where the pass has several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<&'static str, usize>,
    /// The rule that applied the last patch, where fuel is limited.
    #[serde(skip)]
    pub last_rule: Option<String>,
    /// Milliseconds, verification included.
    pub milliseconds: f64,
    /// Why not more.
    pub notes: Vec<Note>,
}

/// Looks at the model before and after each pass that changed it (dumps it, executes both). An error undoes the pass
/// and is noted.
pub type Check<'a> = dyn Fn(&PassReport, &Model, &Model) -> Result<()> + 'a;

/// Runs `passes` in order.
///
/// # Errors
/// A pass that fails, or whose result does not verify, named; the model is then as before that pass.
pub fn run(
    model: &mut Model,
    passes: &[&dyn Pass],
    cx: &PassContext,
    check: Option<&Check>,
) -> Result<Vec<PassReport>> {
    let mut reports = Vec::with_capacity(passes.len());
    for pass in passes {
        let snapshot = model.clone(); // weights are shared, so this is cheap
        match run_one(model, *pass, cx) {
            Ok(mut report) => {
                if report.changes > 0
                    && let Some(check) = check
                    && let Err(e) = check(&report, &snapshot, model)
                {
                    *model = snapshot;
                    let (pass, text) = (pass.name().to_string(), format!("rolled back: {e}"));
                    report.notes.push(Note { pass, subject: String::new(), text });
                    report.changes = 0;
                }
                reports.push(report);
            }
            Err(e) => {
                *model = snapshot;
                return Err(e).context(|| format!("pass {}", pass.name()));
            }
        }
    }
    Ok(reports)
}

fn run_one(model: &mut Model, pass: &dyn Pass, cx: &PassContext) -> Result<PassReport> {
    let start = Instant::now();
    let outcome = pass.run(model, cx)?;
    if outcome.changes > 0 {
        model.graph.eliminate_dead()?;
        shapes::infer_types(model)?;
        model.verify()?;
    }
    Ok(PassReport {
        pass: pass.name().into(),
        effect: pass.effect(),
        changes: outcome.changes,
        rules: outcome.rules,
        last_rule: Some(cx.last_rule()).filter(|r| !r.is_empty()),
        milliseconds: start.elapsed().as_secs_f64() * 1e3,
        notes: outcome.notes,
    })
}
