//! What a pass is.

use super::Patch;
use crate::error::Result;
use crate::ir::{Graph, Model, NodeId};
use crate::ops::spec::OpKey;
use serde::Serialize;
use std::cell::Cell;

/// How far a pass may move the outputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Bit for bit the same.
    Exact,
    /// The same up to the rounding of another order of operations.
    Rounding,
    /// A declared loss (quantization, pruning).
    Lossy,
}

/// Why something was, or was not, done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Note {
    /// The pass that says it.
    pub pass: String,
    /// The node or value it is about; empty where it is about the model.
    pub subject: String,
    /// What, in words.
    pub text: String,
}

/// What a pass did.
#[derive(Clone, Default, Debug)]
pub struct Outcome {
    /// Patches applied.
    pub changes: usize,
    /// Why not more.
    pub notes: Vec<Note>,
}

/// What a pass may ask for while it runs.
#[derive(Default)]
pub struct PassContext {
    fuel: Option<Cell<usize>>,
}

impl PassContext {
    /// A context that stops applying patches after `fuel` of them, for finding the patch that breaks something.
    pub fn with_fuel(fuel: Option<usize>) -> Self {
        Self { fuel: fuel.map(Cell::new) }
    }

    /// Whether one more patch may be applied; uses up a unit of fuel.
    pub fn burn(&self) -> bool {
        let Some(fuel) = &self.fuel else { return true };
        let left = fuel.get();
        fuel.set(left.saturating_sub(1));
        left > 0
    }
}

/// A step of the pipeline.
pub trait Pass {
    /// For example `fold_batch_norm`.
    fn name(&self) -> &'static str;

    /// How far it may move the outputs.
    fn effect(&self) -> Effect;

    /// Runs it over the model.
    ///
    /// # Errors
    /// The model stays as it was: the manager rolls back.
    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome>;
}

/// What a rule may look at beside the graph.
pub struct RuleContext {
    /// Version of the default domain.
    pub opset: i64,
}

/// A local rule: looks at one node, returns what to change.
pub trait Rewrite {
    /// For example `fold_batch_norm`.
    fn name(&self) -> &'static str;

    /// How far it may move the outputs.
    fn effect(&self) -> Effect;

    /// The operators it starts from.
    fn roots(&self) -> &'static [OpKey];

    /// The change, if the rule applies at this node.
    ///
    /// # Errors
    /// The model is invalid.
    fn rewrite(&self, graph: &Graph, node: NodeId, cx: &RuleContext) -> Result<Option<Patch>>;
}

/// A set of rules swept over the graph and its bodies until none applies.
pub struct RewritePass {
    name: &'static str,
    rules: Vec<Box<dyn Rewrite>>,
}

/// A fixed point that is not reached after this many sweeps is a bug in a rule; the pass stops and says so.
const MAX_SWEEPS: usize = 64;

impl RewritePass {
    /// A pass of the given rules, tried in order at each node.
    pub fn new(name: &'static str, rules: Vec<Box<dyn Rewrite>>) -> Self {
        Self { name, rules }
    }

    fn sweep(&self, graph: &mut Graph, cx: &PassContext, rules: &RuleContext) -> Result<usize> {
        let mut changes = 0;
        for id in graph.order()? {
            if graph.node(id).bodies().next().is_some() {
                changes += self.sweep_bodies(graph, id, cx, rules)?;
            }
            changes += usize::from(self.rewrite_node(graph, id, cx, rules)?);
        }
        graph.eliminate_dead()?;
        Ok(changes)
    }

    fn rewrite_node(&self, graph: &mut Graph, id: NodeId, cx: &PassContext, rules: &RuleContext) -> Result<bool> {
        let in_use = |v: Option<_>| v.is_some_and(|v| graph.is_output(v) || !graph.uses(v).is_empty());
        if !graph.node_outputs(id).into_iter().any(in_use) {
            return Ok(false); // an earlier patch of this sweep left it dead
        }
        let op = &graph.node(id).op;
        let matches = |k: &OpKey| k.domain == &*op.domain && k.op_type == &*op.op_type;
        let candidates = self.rules.iter().filter(|r| r.roots().iter().any(matches));
        for rule in candidates {
            let patch = rule.rewrite(graph, id, rules)?;
            if let Some(patch) = patch.filter(|p| !p.is_empty())
                && cx.burn()
            {
                patch.apply(graph)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn sweep_bodies(&self, graph: &mut Graph, id: NodeId, cx: &PassContext, rules: &RuleContext) -> Result<usize> {
        let mut changes = 0;
        for body in graph.node_mut(id).bodies_mut() {
            changes += self.sweep(body, cx, rules)?;
        }
        graph.refresh_captures(id)?;
        Ok(changes)
    }
}

impl Pass for RewritePass {
    fn name(&self) -> &'static str {
        self.name
    }

    fn effect(&self) -> Effect {
        self.rules.iter().map(|r| r.effect()).max().unwrap_or(Effect::Exact)
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        let rules = RuleContext { opset: model.default_opset() };
        let mut outcome = Outcome::default();
        for _ in 0..MAX_SWEEPS {
            let changes = self.sweep(&mut model.graph, cx, &rules)?;
            outcome.changes += changes;
            if changes == 0 {
                return Ok(outcome);
            }
        }
        let text = format!("stopped after {MAX_SWEEPS} sweeps without reaching a fixed point");
        outcome.notes.push(Note { pass: self.name.into(), subject: String::new(), text });
        Ok(outcome)
    }
}
