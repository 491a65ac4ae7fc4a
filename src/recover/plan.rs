//! What a tape does for one set of input shapes: nodes in order, and where gradients flow.

use super::parameters::Parameter;
use crate::analysis::shapes::Contexts;
use crate::error::{Error, Result};
use crate::ir::{Graph, Model, Node, NodeId, Type, ValueId};
use crate::ops;
use crate::ops::gradient::{Element, Rule, Value};
use crate::ops::quant::quantize_linear::bounds;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A parameter that is not trained although it could be, and why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Frozen {
    /// Name of the parameter.
    pub parameter: String,
    /// Its number of elements.
    pub elements: usize,
    /// For example the node below it that has no backward rule.
    pub why: String,
}

/// One node.
pub(super) struct Step {
    pub node: Node,
    pub opset: i64,
    pub rule: Option<Rule>,
    pub inputs: Vec<Option<usize>>,
    pub outputs: Vec<Option<usize>>,
    pub used_outputs: usize,
    /// Which inputs' gradients are needed; empty where none is.
    pub wants: Vec<bool>,
    /// Values that nobody needs after this step, in either direction.
    pub release: Vec<usize>,
}

/// Nodes in order over numbered values.
pub(super) struct Plan<T> {
    pub steps: Vec<Step>,
    pub names: Vec<Arc<str>>,
    pub constants: Vec<(usize, Value<T>)>,
    /// Fed inputs.
    pub inputs: Vec<usize>,
    /// Per parameter: its value, and whether it gets a gradient.
    pub parameters: Vec<(Option<usize>, bool)>,
    pub outputs: Vec<usize>,
    /// Values other than parameters whose gradients are kept.
    pub observed: Vec<usize>,
    pub frozen: Vec<Frozen>,
    /// Whether every node that takes or makes floats has a rule.
    pub all_rules: bool,
}

/// What gradients are wanted of.
pub(super) struct Wanted<'a> {
    pub parameters: &'a [Parameter],
    /// Per parameter.
    pub trained: &'a [bool],
    /// Names of values: inputs and activations.
    pub observed: &'a [String],
}

impl<T: Element> Plan<T> {
    /// Plans a model that [`super::prepare::prepare`] has prepared.
    pub fn new(model: &Model, wanted: &Wanted) -> Result<Self> {
        let graph = &model.graph;
        let order = graph.order()?;
        if let Some(id) = order.iter().find(|&&id| graph.node(id).bodies().next().is_some()) {
            let label = graph.node(*id).label();
            return Err(Error::unsupported(format!("gradients through {label}: its branch or loop depends on data")));
        }
        let number: HashMap<ValueId, usize> = graph.values().enumerate().map(|(k, v)| (v, k)).collect();
        let parameter_values: Vec<Option<ValueId>> = wanted.parameters.iter().map(|p| graph.find(&p.name)).collect();
        let observed: Vec<ValueId> = wanted.observed.iter().map(|n| observable(graph, n)).collect::<Result<_>>()?;
        let contexts = Contexts::new(model, graph);
        let rule = |id: NodeId| ops::spec(&graph.node(id).op).and_then(|s| s.gradient(&contexts.of(id)));
        let rules: HashMap<NodeId, Rule> = order.iter().filter_map(|&id| Some((id, rule(id)?))).collect();
        let codes = codes(graph, &order, &rules);
        let flow = Flow { graph, order: &order, rules: &rules, codes };
        let reaches = flow.reaching_outputs();
        let all_rules = order.iter().all(|id| rules.contains_key(id) || !flow.meets_floats(*id));
        let blocked = flow.blocked(&reaches);
        let (mut sources, mut frozen) = (HashSet::new(), vec![]);
        for ((p, v), trained) in wanted.parameters.iter().zip(&parameter_values).zip(wanted.trained) {
            if !trained {
                continue;
            }
            let why = match v {
                None => Some("no output depends on it".to_string()),
                Some(v) if blocked.contains_key(v) => blocked.get(v).cloned(),
                Some(v) if !reaches.contains(v) => Some("no output depends on it differentiably".to_string()),
                Some(v) => {
                    sources.insert(*v);
                    None
                }
            };
            let elements = p.dims.iter().product();
            frozen.extend(why.map(|why| Frozen { parameter: p.name.to_string(), elements, why }));
        }
        if let Some((v, why)) = observed.iter().find_map(|v| Some((v, blocked.get(v)?))) {
            return Err(Error::unsupported(format!("the gradient of \"{}\": {why}", graph.name(*v))));
        }
        let trained: Vec<bool> = parameter_values.iter().map(|v| v.is_some_and(|v| sources.contains(&v))).collect();
        sources.extend(&observed);
        let depends = flow.depending_on(&sources);
        let mut steps: Vec<Step> = vec![];
        let mut rules = rules;
        for &id in &order {
            let node = graph.node(id);
            let (inputs, outputs) = (graph.node_inputs(id), graph.node_outputs(id));
            let used = outputs.iter().rposition(|v| v.is_some_and(|v| graph.has_uses(v) || graph.is_output(v)));
            let rule = rules.remove(&id);
            let on_path =
                rule.is_some() && outputs.iter().flatten().any(|v| depends.contains(v) && reaches.contains(v));
            let wants = inputs.iter().map(|v| on_path && v.is_some_and(|v| depends.contains(&v)));
            steps.push(Step {
                node: node.clone(),
                opset: model.opset(&node.op.domain).unwrap_or(1),
                rule,
                wants: if on_path { wants.collect() } else { vec![] },
                inputs: inputs.iter().map(|v| v.map(|v| number[&v])).collect(),
                outputs: outputs.iter().map(|v| v.map(|v| number[&v])).collect(),
                used_outputs: used.map_or(0, |k| k + 1),
                release: vec![],
            });
        }
        let mut constants = vec![];
        for v in graph.values() {
            if let Some(t) = graph.constant(v) {
                constants.push((number[&v], Value::of(t)?));
            }
        }
        let is_parameter: HashSet<ValueId> = parameter_values.iter().flatten().copied().collect();
        let fed = graph.inputs().iter().filter(|v| !is_parameter.contains(v));
        let mut plan = Self {
            names: graph.values().map(|v| graph.value(v).name.clone()).collect(),
            inputs: fed.map(|v| number[v]).collect(),
            parameters: parameter_values.iter().map(|v| v.map(|v| number[&v])).zip(trained).collect(),
            outputs: graph.outputs().iter().map(|v| number[v]).collect(),
            observed: observed.iter().map(|v| number[v]).collect(),
            steps,
            constants,
            frozen,
            all_rules,
        };
        plan.find_releases();
        Ok(plan)
    }

    /// Values that are used last by a step, and that no backward function looks at.
    fn find_releases(&mut self) {
        let mut kept: HashSet<usize> = self.outputs.iter().chain(&self.observed).copied().collect();
        kept.extend(self.constants.iter().map(|c| c.0));
        for step in self.steps.iter().filter(|s| !s.wants.is_empty()) {
            kept.extend(step.inputs.iter().chain(&step.outputs).flatten());
        }
        for step in self.steps.iter_mut().rev() {
            let values = step.inputs.iter().chain(&step.outputs).flatten();
            step.release = values.copied().filter(|v| kept.insert(*v)).collect();
        }
    }
}

fn observable(graph: &Graph, name: &str) -> Result<ValueId> {
    let v = graph
        .find(name)
        .ok_or_else(|| Error::usage(format!("the model has no value \"{name}\" to differentiate by")))?;
    if graph.ty(v).and_then(Type::elem).is_some_and(|e| !e.is_float()) {
        return Err(Error::usage(format!("\"{name}\" holds no floats, so nothing can be differentiated by it")));
    }
    Ok(v)
}

/// Integers that QuantizeLinear makes, and what else has a rule makes of them: on the tape they are floats.
fn codes(graph: &Graph, order: &[NodeId], rules: &HashMap<NodeId, Rule>) -> HashSet<ValueId> {
    let mut found = HashSet::new();
    for &id in order.iter().filter(|id| rules.contains_key(id)) {
        let makes = graph.node(id).op.is("QuantizeLinear");
        if makes || graph.node_inputs(id).first().copied().flatten().is_some_and(|v| found.contains(&v)) {
            let of_codes = |v: &ValueId| graph.ty(*v).and_then(Type::elem).is_some_and(|e| bounds(e).is_some());
            found.extend(graph.node_outputs(id).into_iter().flatten().filter(of_codes));
        }
    }
    found
}

/// Which values gradients pass through.
struct Flow<'a> {
    graph: &'a Graph,
    order: &'a [NodeId],
    rules: &'a HashMap<NodeId, Rule>,
    /// Integers that stand for floats.
    codes: HashSet<ValueId>,
}

impl Flow<'_> {
    fn is_float(&self, v: ValueId) -> bool {
        self.codes.contains(&v) || self.graph.ty(v).and_then(Type::elem).is_none_or(|e| e.is_float())
    }

    fn floats(&self, values: Vec<Option<ValueId>>) -> Vec<ValueId> {
        values.into_iter().flatten().filter(|&v| self.is_float(v)).collect()
    }

    fn meets_floats(&self, id: NodeId) -> bool {
        let (inputs, outputs) = (self.graph.node_inputs(id), self.graph.node_outputs(id));
        inputs.into_iter().chain(outputs).flatten().any(|v| self.is_float(v))
    }

    /// Values that an output depends on by way of floats only.
    fn reaching_outputs(&self) -> HashSet<ValueId> {
        let mut found: HashSet<ValueId> = self.graph.outputs().iter().copied().filter(|&v| self.is_float(v)).collect();
        for &id in self.order.iter().rev() {
            if self.graph.node_outputs(id).into_iter().flatten().any(|v| found.contains(&v)) {
                found.extend(self.floats(self.graph.node_inputs(id)));
            }
        }
        found
    }

    /// Values whose gradient is not whole, since a node between them and an output has no rule; and why.
    fn blocked(&self, reaches: &HashSet<ValueId>) -> BTreeMap<ValueId, String> {
        let mut found: BTreeMap<ValueId, String> = BTreeMap::new();
        for &id in self.order.iter().rev() {
            let outputs = self.graph.node_outputs(id);
            let mut outputs = outputs.into_iter().flatten().filter(|v| reaches.contains(v));
            let (first, below) = (outputs.clone().next(), outputs.find_map(|v| found.get(&v).cloned()));
            let why = match (first, below) {
                (None, _) => continue,
                (_, Some(why)) => why,
                _ if self.rules.contains_key(&id) => continue,
                _ => format!("{} has no backward rule", self.graph.node(id).label()),
            };
            for v in self.floats(self.graph.node_inputs(id)) {
                found.entry(v).or_insert_with(|| why.clone());
            }
        }
        found
    }

    /// Values that depend on one of `sources` by way of rules.
    fn depending_on(&self, sources: &HashSet<ValueId>) -> HashSet<ValueId> {
        let mut found = sources.clone();
        for &id in self.order {
            let any = self.rules.contains_key(&id)
                && self.graph.node_inputs(id).into_iter().flatten().any(|v| found.contains(&v));
            if any {
                found.extend(self.floats(self.graph.node_outputs(id)));
            }
        }
        found
    }
}
