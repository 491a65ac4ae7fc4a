//! Which nodes run in one piece.

use super::{interprets, sequence};
use crate::error::Result;
use crate::ir::{AttributeValue, Graph, NodeId, Tensor, Type, Value, ValueId};
use std::collections::{HashMap, HashSet};

/// In the order in which they run.
pub(super) struct Units {
    pub(super) units: Vec<Unit>,
    /// Values that are others: what Identity makes of a value that tract never sees. In the order of the graph.
    pub(super) aliases: Vec<(ValueId, ValueId)>,
}

/// Nodes that run in one piece.
pub(super) enum Unit {
    /// For tract.
    Plain(Vec<NodeId>),
    /// Interpreted.
    Control(NodeId),
}

/// A unit for tract as a graph of its own, and what its inputs and outputs are in the graph around it.
pub(super) struct Part {
    pub(super) graph: Graph,
    pub(super) inputs: Vec<ValueId>,
    pub(super) outputs: Vec<ValueId>,
}

/// The value's data, where no caller and no run changes them. A default that callers might override counts: the runner
/// refuses feeds that do.
pub(super) fn constant(graph: &Graph, v: ValueId) -> Option<&Tensor> {
    if let Some(t) = &graph.value(v).init {
        return Some(t);
    }
    let node = graph.node(graph.producer(v)?.0);
    match node.attribute("value")? {
        AttributeValue::Tensor(t) if node.op.is("Constant") => Some(t),
        _ => None,
    }
}

/// As few units as possible. The level of a value is the number of interpreted nodes on the longest path to it; all plain
/// nodes of one level run together, and before the interpreted ones, which lead to the next.
pub(super) fn levels(graph: &Graph) -> Result<Units> {
    let mut level: HashMap<ValueId, usize> = HashMap::new();
    let mut loose = Loose::new(graph);
    let mut plain: Vec<Vec<NodeId>> = vec![];
    let mut control: Vec<Vec<NodeId>> = vec![];
    for id in graph.order()? {
        let inputs = graph.node_inputs(id).into_iter().flatten().chain(graph.captures(id));
        let mut at = inputs.filter_map(|v| level.get(&v).copied()).max().unwrap_or(0);
        if plain.len() <= at {
            plain.resize_with(at + 1, Vec::new);
            control.resize_with(at + 1, Vec::new);
        }
        match loose.sort(id) {
            Sort::Nothing => {}
            Sort::Plain => plain[at].push(id),
            Sort::Control => {
                control[at].push(id);
                at += 1;
            }
        }
        level.extend(graph.node_outputs(id).into_iter().flatten().map(|v| (v, at)));
    }
    let mut units = vec![];
    for (plain, control) in plain.into_iter().zip(control) {
        if !plain.is_empty() {
            units.push(Unit::Plain(plain));
        }
        units.extend(control.into_iter().map(Unit::Control));
    }
    Ok(Units { units, aliases: loose.aliases })
}

/// A unit for every node.
pub(super) fn singles(graph: &Graph) -> Result<Units> {
    let mut loose = Loose::new(graph);
    let unit = |id| match loose.sort(id) {
        Sort::Nothing => None,
        Sort::Plain => Some(Unit::Plain(vec![id])),
        Sort::Control => Some(Unit::Control(id)),
    };
    let units = graph.order()?.into_iter().filter_map(unit).collect();
    Ok(Units { units, aliases: loose.aliases })
}

enum Sort {
    /// A constant or another name for a value.
    Nothing,
    Plain,
    Control,
}

/// Tells tensors from values that may be something else, which tract must not see.
struct Loose<'g> {
    graph: &'g Graph,
    loose: HashSet<ValueId>,
    aliases: Vec<(ValueId, ValueId)>,
}

impl<'g> Loose<'g> {
    fn new(graph: &'g Graph) -> Self {
        let from_outside = graph.required_inputs().chain(graph.outer_values());
        let loose = from_outside.filter(|&v| !matches!(graph.ty(v), Some(Type::Tensor(_)))).collect();
        Self { graph, loose, aliases: vec![] }
    }

    /// For nodes in execution order.
    fn sort(&mut self, id: NodeId) -> Sort {
        let node = self.graph.node(id);
        let outputs = self.graph.node_outputs(id);
        if outputs.first().copied().flatten().is_some_and(|v| constant(self.graph, v).is_some()) {
            return Sort::Nothing;
        }
        if interprets(node) {
            if !sequence::makes_tensor(&node.op.op_type) {
                self.loose.extend(outputs.into_iter().flatten());
            }
            return Sort::Control;
        }
        let input = self.graph.input(id, 0).filter(|v| node.op.is("Identity") && self.loose.contains(v));
        if let (Some(input), Some(Some(output))) = (input, outputs.first()) {
            self.loose.insert(*output);
            self.aliases.push((*output, input));
            return Sort::Nothing;
        }
        Sort::Plain
    }
}

/// Copies a unit's nodes into a graph of their own, together with the constants that they use.
pub(super) fn extract(graph: &Graph, nodes: &[NodeId]) -> Result<Part> {
    let members: HashSet<NodeId> = nodes.iter().copied().collect();
    let results: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    let mut part = Part { graph: Graph::default(), inputs: vec![], outputs: vec![] };
    let mut here: HashMap<ValueId, ValueId> = HashMap::new();
    let (mut inputs, mut outputs) = (vec![], vec![]);
    for &id in nodes {
        let mut ends = [graph.node_inputs(id), graph.node_outputs(id)];
        for (v, is_output) in ends.iter_mut().zip([false, true]).flat_map(|(e, o)| e.iter_mut().map(move |v| (v, o))) {
            let Some(outer) = *v else { continue };
            if let Some(&known) = here.get(&outer) {
                *v = Some(known);
                continue;
            }
            let Value { name, ty, .. } = graph.value(outer).clone();
            let init = constant(graph, outer).cloned();
            let inside = graph.producer(outer).is_some_and(|(p, _)| members.contains(&p));
            let comes_in = init.is_none() && !inside;
            let copy = part.graph.add_value(Value { name, ty, init, shell: None })?;
            here.insert(outer, copy);
            *v = Some(copy);
            if comes_in {
                part.inputs.push(outer);
                inputs.push(copy);
            }
            let leaves = || results.contains(&outer) || graph.uses(outer).iter().any(|u| !members.contains(&u.node));
            if is_output && leaves() {
                part.outputs.push(outer);
                outputs.push(copy);
            }
        }
        let [from, to] = ends;
        part.graph.add_node(graph.node(id).clone(), &from, &to)?;
    }
    part.graph.set_inputs(inputs);
    part.graph.set_outputs(outputs);
    Ok(part)
}
