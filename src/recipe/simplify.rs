//! The simplification step: interface, operator set, rules, and the check by execution.

use super::interface;
use super::progress::Progress;
use super::schema::{Overridable, SimplifyStep};
use crate::analysis::{opset, shapes};
use crate::drift::{Agreement, Reference};
use crate::error::{Error, Result};
use crate::io;
use crate::ir::{Graph, Model};
use crate::passes::manager::{self, Check, PassReport};
use crate::passes::simplify::{LiftInitializerInputs, simplify as rules};
use crate::passes::{Effect, Note, Outcome, Pass, PassContext};
use crate::runtime::RuntimeEvaluator;
use std::collections::BTreeSet;

/// What the step did.
pub struct Simplified {
    /// What each pass did.
    pub passes: Vec<PassReport>,
    /// What executing both showed; `None` where the step was told not to.
    pub agreement: Option<Agreement>,
}

/// Models whose constants take more bytes are not executed unasked: the runtime holds copies of them.
const MOST_EXECUTED_BYTES: u64 = 1 << 30;

/// Sizes of open axes, in the order in which they are tried: a model of sound or signals does not take short ones.
const OPEN_SIZES: [usize; 2] = [16, 576];

/// How a run of the rules may differ from the plain one.
#[derive(Default)]
struct Run {
    fuel: Option<usize>,
    disabled: BTreeSet<String>,
}

/// Simplifies the model.
///
/// # Errors
/// Unknown rule, dimension or value names; an operator set that cannot be reached; an invalid model.
pub fn simplify(
    model: &mut Model,
    step: &SimplifyStep,
    fuel: Option<usize>,
    check: Option<&Check>,
    progress: &dyn Progress,
) -> Result<Simplified> {
    let mut run = Run { fuel, disabled: disabled(step)? };
    interface::apply(model, step)?;
    let reference = step.check.then(|| reference(model));
    let original = model.clone();
    let mut passes = rewrite(model, step, &run, check)?;
    let reference = match reference {
        None => return Ok(Simplified { passes, agreement: None }),
        Some(Err(e)) => {
            let agreement = Some(Agreement::not_executed(e.to_string()));
            return Ok(Simplified { passes, agreement });
        }
        Some(Ok(reference)) => reference,
    };
    let mut blamed = vec![];
    let mut agreement = reference.compare(model);
    while let Some(how) = agreement.disagreement.clone() {
        let rule = culprit(&original, step, &run, &passes, &reference, progress)?;
        let text = format!("taken back: with it, {how}. Please report this");
        blamed.push(Note { pass: rule.clone(), subject: String::new(), text });
        run.disabled.insert(rule);
        *model = original.clone();
        passes = rewrite(model, step, &run, check)?;
        agreement = reference.compare(model);
    }
    if let Some(last) = passes.last_mut() {
        last.notes.extend(blamed);
    }
    Ok(Simplified { passes, agreement: Some(agreement) })
}

/// Names and effects of all rules, in the order in which they are tried.
pub fn rule_table() -> Vec<(&'static str, Effect)> {
    rules(&RuntimeEvaluator, 0).rules().collect()
}

/// The rules that the step leaves out.
fn disabled(step: &SimplifyStep) -> Result<BTreeSet<String>> {
    let table = rule_table();
    let known = |name: &String| table.iter().any(|(rule, _)| rule == name);
    if let Some(name) = step.only.iter().chain(&step.skip).find(|n| !known(n)) {
        return Err(Error::usage(format!("there is no rule \"{name}\"; --list-rules shows them")));
    }
    let all = table.iter().map(|(rule, _)| rule.to_string());
    let out = |rule: &String| step.skip.contains(rule) || !step.only.is_empty() && !step.only.contains(rule);
    Ok(all.filter(out).collect())
}

fn rewrite(model: &mut Model, step: &SimplifyStep, run: &Run, check: Option<&Check>) -> Result<Vec<PassReport>> {
    let mut cx = PassContext::with_fuel(run.fuel);
    cx.disabled = run.disabled.clone();
    let mut passes: Vec<&dyn Pass> = vec![];
    if lifts_inputs(model, step.overridable) {
        passes.push(&LiftInitializerInputs);
    }
    let upgrade = step.target_opset.map(|version| UpgradeOpset { version });
    if let Some(upgrade) = &upgrade {
        passes.push(upgrade);
    }
    let simplification = rules(&RuntimeEvaluator, step.fold_limit);
    passes.push(&simplification);
    manager::run(model, &passes, &cx, check)
}

/// Whether initializers that are also graph inputs are taken for constants.
fn lifts_inputs(model: &Model, overridable: Overridable) -> bool {
    let graph = &model.graph;
    let any = graph.inputs().iter().any(|&v| graph.value(v).init.is_some());
    let all = || graph.values().all(|v| graph.value(v).init.is_none() || graph.is_input(v));
    match (overridable, model.ir_version()) {
        _ if !any => false,
        (Overridable::Constant, _) | (_, ..=3) => true,
        (Overridable::Auto, 4) => all(),
        _ => false,
    }
}

/// Moves the model to a newer operator set.
struct UpgradeOpset {
    version: i64,
}

impl Pass for UpgradeOpset {
    fn name(&self) -> &'static str {
        "upgrade_opset"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, model: &mut Model, _: &PassContext) -> Result<Outcome> {
        let before = model.default_opset();
        opset::require(model, self.version)?;
        let mut outcome = Outcome { changes: usize::from(before < self.version), ..Outcome::default() };
        if before > self.version {
            let text = format!("the model is in operator set {before} already; models are not moved back");
            outcome.notes.push(Note { pass: self.name().into(), subject: String::new(), text });
        }
        Ok(outcome)
    }
}

fn reference(model: &Model) -> Result<Reference> {
    let bytes = constant_bytes(&model.graph);
    if bytes > MOST_EXECUTED_BYTES {
        let gib = bytes as f64 / f64::from(1u32 << 30);
        return Err(Error::unsupported(format!(
            "its constants take {gib:.1} GiB, and the runtime copies them; `sardonyx validate` compares the files all the same"
        )));
    }
    let mut typed = model.clone();
    shapes::infer_types(&mut typed)?;
    let mut first = None;
    for usual in OPEN_SIZES {
        match Reference::new(model, io::probes(&typed.graph, usual)?) {
            Ok(reference) => return Ok(reference),
            Err(e) => first = first.or(Some(e)),
        }
    }
    Err(first.unwrap_or_else(|| Error::internal("no sizes to try")))
}

fn constant_bytes(graph: &Graph) -> u64 {
    let own = graph.values().filter_map(|v| graph.value(v).init.as_ref()).map(|t| t.stored_bytes() as u64);
    let inner = graph.nodes().flat_map(|n| graph.node(n).bodies()).map(constant_bytes);
    own.chain(inner).sum()
}

/// The rule whose patch makes the outputs differ, found by bisection on the number of patches.
fn culprit(
    original: &Model,
    step: &SimplifyStep,
    run: &Run,
    passes: &[PassReport],
    reference: &Reference,
    progress: &dyn Progress,
) -> Result<String> {
    let total: usize = passes.iter().map(|p| p.changes).sum();
    let differs = |fuel: usize| -> Result<(bool, String)> {
        let mut model = original.clone();
        let limited = Run { fuel: Some(fuel), disabled: run.disabled.clone() };
        let reports = rewrite(&mut model, step, &limited, None)?;
        progress.tick();
        let last = reports.into_iter().rev().find_map(|p| p.last_rule).unwrap_or_default();
        Ok((reference.compare(&model).disagreement.is_some(), last))
    };
    progress.start("looking for the rule that changes the outputs", total.max(2).ilog2() as usize + 2);
    let (broken_at_once, _) = differs(0)?;
    if broken_at_once {
        progress.finish();
        let what = if step.target_opset.is_some() { "the move to another operator set" } else { "no rule" };
        return Err(Error::internal(format!(
            "the outputs differ, and {what} is to blame: the model may not compute the same twice; --no-validate skips the check"
        )));
    }
    // Right with `low` patches, wrong with `high`.
    let (mut low, mut high) = (0, total);
    let mut rule = differs(total)?.1;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match differs(middle)? {
            (true, last) => (high, rule) = (middle, last),
            (false, _) => low = middle,
        }
    }
    progress.finish();
    if rule.is_empty() {
        return Err(Error::internal("the outputs differ, and no rule is to blame; --no-validate skips the check"));
    }
    Ok(rule)
}
