//! Rules, and the driver that sweeps them over a graph and its bodies to a fixed point.

use super::budget::Budget;
use super::{Effect, Evaluator, Note, Outcome, Pass, PassContext, Patch};
use crate::analysis::shapes::{self, Facts, Scope, ShapeData};
use crate::error::{Context, Result};
use crate::ir::{AttributeValue, Graph, Model, NodeId, OpId, Tensor, ValueId, canonical_domain};
use crate::ops;
use crate::ops::spec::OpKey;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a rule may look at beside the graph.
pub struct RuleContext<'a> {
    /// Version of the default domain.
    pub opset: i64,
    /// Elements of small integer tensors as far as they are known, symbolically too.
    pub data: &'a ShapeData,
    /// The graphs around this body; `None` in the main graph.
    pub scope: Option<&'a Scope<'a>>,
    /// The model; its own graph is not there while rules run.
    pub model: &'a Model,
    /// Computes nodes ahead of time.
    pub evaluator: Option<&'a dyn Evaluator>,
    notes: &'a RefCell<BTreeSet<Note>>,
    budget: &'a Budget,
}

impl<'a> RuleContext<'a> {
    /// The value's data, where no caller can change them; captured constants included.
    pub fn constant<'g>(&self, graph: &'g Graph, v: ValueId) -> Option<&'g Tensor>
    where
        'a: 'g,
    {
        match self.scope {
            Some(scope) if graph.is_outer(v) => scope.known(graph.name(v)).constant,
            _ => graph.constant(v),
        }
    }

    /// Whether a constant of `made` bytes may take the place of constants of `freed` bytes, so that neither the file nor
    /// memory grows without bound.
    pub fn has_room(&self, made: usize, freed: usize) -> bool {
        self.budget.has_room(made, freed)
    }

    /// Counts a constant that a rule has made: see [`RuleContext::has_room`].
    pub fn spend(&self, made: usize, freed: usize) {
        self.budget.spend(made, freed);
    }

    /// Whether `rule` may make a changed copy of a weight of so many bytes; where not, the user is told. Copies are in memory
    /// until the file is written, where a weight that no rule changes never is.
    pub fn may_copy(&self, rule: &str, subject: &str, bytes: usize) -> bool {
        let fits = self.budget.copy(bytes);
        if !fits {
            self.skip(rule, subject, "its changed weight would take more memory than rules may use; it stays as it is");
        }
        fits
    }

    /// Tells the user why a rule did not apply where they might have expected it.
    pub fn skip(&self, rule: &str, subject: &str, why: &str) {
        let note = Note { pass: rule.into(), subject: subject.into(), text: why.into() };
        self.notes.borrow_mut().insert(note);
    }
}

/// A local rule: looks at one node, returns what to change.
pub trait Rewrite {
    /// For example `fold_batch_norm`.
    fn name(&self) -> &'static str;

    /// How far it may move the outputs.
    fn effect(&self) -> Effect;

    /// The operators it starts from; none means every operator.
    fn roots(&self) -> &'static [OpKey];

    /// The change, if the rule applies at this node.
    ///
    /// # Errors
    /// The model is invalid.
    fn rewrite(&self, graph: &Graph, node: NodeId, cx: &RuleContext) -> Result<Option<Patch>>;
}

/// A rule that compares nodes with each other, so that it looks at the whole graph (or body) at once.
pub trait GraphRewrite {
    /// For example `eliminate_common_subexpression`.
    fn name(&self) -> &'static str;

    /// How far it may move the outputs.
    fn effect(&self) -> Effect;

    /// Changes that can be made one after the other.
    ///
    /// # Errors
    /// The model is invalid.
    fn rewrite(&self, graph: &Graph, cx: &RuleContext) -> Result<Vec<Patch>>;
}

/// A set of rules swept over the graph and its bodies until none applies.
pub struct RewritePass<'e> {
    name: &'static str,
    rules: Vec<Box<dyn Rewrite>>,
    graph_rules: Vec<Box<dyn GraphRewrite>>,
    evaluator: Option<&'e dyn Evaluator>,
}

/// A fixed point that is not reached after this many sweeps is a bug in a rule; the pass stops and says so.
const MAX_SWEEPS: usize = 64;

impl<'e> RewritePass<'e> {
    /// A pass of the given rules, tried in order at each node.
    pub fn new(name: &'static str, rules: Vec<Box<dyn Rewrite>>) -> Self {
        Self { name, rules, graph_rules: vec![], evaluator: None }
    }

    /// Adds rules that are tried at the end of each sweep.
    pub fn with_graph_rules(mut self, rules: Vec<Box<dyn GraphRewrite>>) -> Self {
        self.graph_rules = rules;
        self
    }

    /// Lets rules compute nodes ahead of time.
    pub fn with_evaluator(mut self, evaluator: &'e dyn Evaluator) -> Self {
        self.evaluator = Some(evaluator);
        self
    }

    /// Names and effects of the rules, in the order in which they are tried.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, Effect)> {
        let local = self.rules.iter().map(|r| (r.name(), r.effect()));
        local.chain(self.graph_rules.iter().map(|r| (r.name(), r.effect())))
    }

    fn to_fixed_point(&self, model: &mut Model, cx: &PassContext, outcome: &mut Outcome) -> Result<()> {
        let notes = RefCell::new(BTreeSet::new());
        let budget = Budget::default();
        for _ in 0..MAX_SWEEPS {
            budget.next_sweep();
            let facts = shapes::infer(model)?;
            let mut graph = std::mem::take(&mut model.graph);
            let mut sweep = Sweep::new(self, model, cx, &notes, &budget);
            let swept = sweep.graph(&mut graph, &facts, None);
            let rules = sweep.applied;
            model.graph = graph;
            let changes = swept?;
            model.graph.eliminate_dead()?;
            outcome.changes += changes;
            for (rule, n) in rules {
                *outcome.rules.entry(rule).or_default() += n;
            }
            if changes == 0 {
                outcome.notes.extend(facts.corrected.into_iter().map(|text| self.note(text)));
                outcome.notes.extend(notes.take());
                return Ok(());
            }
        }
        outcome.notes.extend(notes.take());
        outcome.notes.push(self.note(format!("stopped after {MAX_SWEEPS} sweeps without reaching a fixed point")));
        Ok(())
    }

    fn note(&self, text: String) -> Note {
        Note { pass: self.name.into(), subject: String::new(), text }
    }
}

impl Pass for RewritePass<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn effect(&self) -> Effect {
        self.rules().map(|(_, effect)| effect).max().unwrap_or(Effect::Exact)
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        if let Some(why) = reason_to_leave(model) {
            outcome.notes.push(self.note(format!("left as it is: {why}")));
            return Ok(outcome);
        }
        self.to_fixed_point(model, cx, &mut outcome)?;
        if outcome.changes > 0 && model.ir_version() < FIRST_IR_WITH_CONSTANTS && has_constants(&model.graph) {
            model.require_ir_version(FIRST_IR_WITH_CONSTANTS);
        }
        Ok(outcome)
    }
}

/// Before this IR version, an initializer had to be listed as a graph input too.
const FIRST_IR_WITH_CONSTANTS: i64 = 4;

fn has_constants(graph: &Graph) -> bool {
    let own = graph.values().any(|v| graph.constant(v).is_some());
    own || graph.nodes().any(|n| graph.node(n).bodies().any(has_constants))
}

/// What makes it impossible to say that a rewritten model means the same.
fn reason_to_leave(model: &Model) -> Option<String> {
    if !model.shell.training_info.is_empty() {
        return Some("its training information names tensors that rules would merge or rename".into());
    }
    redefined_operator(model).map(|op| format!("a model-local function gives {op} another meaning"))
}

/// An operator that we have facts about and that a model-local function redefines: no rule may rely on the facts then.
fn redefined_operator(model: &Model) -> Option<OpId> {
    let functions = model.functions.iter().map(|f| OpId::new(canonical_domain(f.domain()), f.name()));
    functions.into_iter().find(|op| ops::spec(op).is_some())
}

/// One sweep over a model.
struct Sweep<'a> {
    pass: &'a RewritePass<'a>,
    model: &'a Model,
    cx: &'a PassContext,
    notes: &'a RefCell<BTreeSet<Note>>,
    budget: &'a Budget,
    /// Positions of the rules that start from an operator.
    by_root: HashMap<(&'static str, &'static str), Vec<usize>>,
    /// Positions of the rules that start from any.
    any: Vec<usize>,
    applied: BTreeMap<&'static str, usize>,
}

impl<'a> Sweep<'a> {
    fn new(
        pass: &'a RewritePass<'a>,
        model: &'a Model,
        cx: &'a PassContext,
        notes: &'a RefCell<BTreeSet<Note>>,
        budget: &'a Budget,
    ) -> Self {
        let enabled = |name: &str| !cx.disabled.contains(name);
        let rules = || pass.rules.iter().enumerate().filter(|(_, r)| enabled(r.name()));
        let any: Vec<usize> = rules().filter(|(_, r)| r.roots().is_empty()).map(|(k, _)| k).collect();
        let mut by_root: HashMap<_, Vec<usize>> = HashMap::new();
        for (k, rule) in rules() {
            for root in rule.roots() {
                by_root.entry((root.domain, root.op_type)).or_default().push(k);
            }
        }
        for list in by_root.values_mut() {
            list.extend(&any);
            list.sort_unstable();
        }
        Self { pass, model, cx, notes, budget, by_root, any, applied: BTreeMap::new() }
    }

    fn graph(&mut self, graph: &mut Graph, facts: &Facts, scope: Option<&Scope>) -> Result<usize> {
        let mut changes = 0;
        for id in graph.order()? {
            let in_use = |v: Option<_>| v.is_some_and(|v| graph.is_output(v) || graph.has_uses(v));
            if !graph.node_outputs(id).into_iter().any(in_use) {
                continue; // an earlier patch of this sweep left it dead
            }
            if graph.node(id).bodies().next().is_some() {
                changes += self.bodies(graph, id, facts, scope)?;
            }
            changes += usize::from(self.node(graph, id, facts, scope)?);
        }
        for rule in &self.pass.graph_rules {
            if self.cx.disabled.contains(rule.name()) {
                continue;
            }
            let patches = rule.rewrite(graph, &self.rule_context(facts, scope))?;
            for patch in patches {
                changes += usize::from(self.apply(rule.name(), patch, graph)?);
            }
        }
        Ok(changes)
    }

    fn node(&mut self, graph: &mut Graph, id: NodeId, facts: &Facts, scope: Option<&Scope>) -> Result<bool> {
        let op = &graph.node(id).op;
        // The keys are static strings, the question is not: the map's keys shorten their lifetime.
        let by_root: &HashMap<(&str, &str), Vec<usize>> = &self.by_root;
        let candidates = by_root.get(&(&*op.domain, &*op.op_type)).unwrap_or(&self.any).clone();
        for k in candidates {
            let rule = &self.pass.rules[k];
            let patch = rule.rewrite(graph, id, &self.rule_context(facts, scope));
            let patch = patch.context(|| format!("rule {} at {}", rule.name(), graph.node(id).label()))?;
            if let Some(patch) = patch
                && self.apply(rule.name(), patch, graph)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn apply(&mut self, rule: &'static str, patch: Patch, graph: &mut Graph) -> Result<bool> {
        if patch.is_empty() || !self.cx.burn(rule) {
            return Ok(false);
        }
        patch.apply(graph).context(|| format!("rule {rule}"))?;
        *self.applied.entry(rule).or_default() += 1;
        Ok(true)
    }

    fn bodies(&mut self, graph: &mut Graph, id: NodeId, facts: &Facts, parent: Option<&Scope>) -> Result<usize> {
        // The bodies are taken out of the graph that they look at.
        let mut attributes = std::mem::take(&mut graph.node_mut(id).attributes);
        let mut names = graph.take_names(); // a new name in a body must differ from those around it
        let scope = Scope::new(self.model, graph, &facts.data, parent);
        let bodies = attributes.iter_mut().flat_map(|a| match &mut a.value {
            AttributeValue::Graph(g) => std::slice::from_mut(&mut **g),
            AttributeValue::Graphs(gs) => gs,
            _ => &mut [],
        });
        let known = facts.bodies.get(&id).map_or(&[][..], Vec::as_slice);
        let sweep = |(body, facts): (&mut Graph, &Facts)| {
            body.lend_names(std::mem::take(&mut names));
            let changes = self.graph(body, facts, Some(&scope));
            names = body.take_names();
            changes
        };
        let changes: Result<usize> = bodies.zip(known).map(sweep).sum();
        graph.lend_names(names);
        graph.node_mut(id).attributes = attributes;
        graph.refresh_captures(id)?;
        changes
    }

    fn rule_context<'c>(&self, facts: &'c Facts, scope: Option<&'c Scope<'c>>) -> RuleContext<'c>
    where
        'a: 'c,
    {
        RuleContext {
            opset: self.model.default_opset(),
            data: &facts.data,
            scope,
            model: self.model,
            evaluator: self.pass.evaluator,
            notes: self.notes,
            budget: self.budget,
        }
    }
}
