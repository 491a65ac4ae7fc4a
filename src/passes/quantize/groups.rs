//! Scale groups: values that must share one scale and zero point.

use super::options::{Format, QuantizeOptions, Runtime, Scope};
use super::structure::{Decision, Kind, Structure};
use crate::ir::{Graph, NodeId, Port, ValueId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Values with one scale each, joined where an integer operator demands it.
pub struct ScaleGroups {
    /// Group of a value.
    group_of: HashMap<ValueId, usize>,
    /// Per group: the values whose statistics make its range.
    sources: Vec<Vec<ValueId>>,
}

impl ScaleGroups {
    /// Groups of all values that have an 8-bit form under the structure.
    pub fn of(graph: &Graph, structure: &Structure, options: &QuantizeOptions) -> Self {
        let mut sets = Sets::default();
        let mut moved = Vec::new();
        for (id, kind) in structure.integer_nodes() {
            for slot in Structure::quantized_slots(graph, id, kind) {
                if let Some(v) = graph.input(id, slot) {
                    sets.insert(v);
                }
            }
            let Some(out) = structure.delivered(graph, id) else { continue };
            if !has_output_scale(graph, structure, options, id, kind) {
                continue;
            }
            sets.insert(out);
            join(graph, options, id, kind, out, &mut sets);
            match kind {
                Kind::Move(_) | Kind::Clamp => moved.extend(graph.node_outputs(id).into_iter().flatten()),
                // What is beyond the bounds is clamped, whether it has a code or not.
                Kind::Bound(slot) => moved.extend(graph.input(id, *slot)),
                Kind::Compute(_) | Kind::Elementwise(_) | Kind::Unify => {}
            }
        }
        sets.finish(&moved)
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether nothing is quantized.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The group of a value.
    pub fn group(&self, v: ValueId) -> Option<usize> {
        self.group_of.get(&v).copied()
    }

    /// The values whose statistics make the range of a group: all but those that only move elements of others.
    pub fn sources(&self, group: usize) -> &[ValueId] {
        &self.sources[group]
    }

    /// All values to observe, each once, by group.
    pub fn observed(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.sources.iter().flatten().copied()
    }
}

/// Whether the result of an integer node is rounded to 8 bits. In QDQ a MatMul or Gemm whose result only float operators
/// take stays in float: runtimes fuse that form too, and it saves a rounding.
pub fn has_output_scale(
    graph: &Graph,
    structure: &Structure,
    options: &QuantizeOptions,
    id: NodeId,
    kind: &Kind,
) -> bool {
    if options.scope == Scope::Inputs {
        return false;
    }
    let Kind::Compute(_) = kind else { return true };
    let may_stay_float = match options.format {
        Format::Qdq => !graph.node(id).op.is("Conv"),
        Format::Qlinear => options.runtime == Runtime::Ort && graph.node(id).op.is("Gemm"),
    };
    if !may_stay_float || structure.absorbed_after(graph, id).is_some() {
        return true;
    }
    graph.output(id, 0).is_none_or(|v| taken_as_integer(graph, structure, v))
}

/// Whether an integer node takes the value in 8 bits.
pub fn taken_as_integer(graph: &Graph, structure: &Structure, v: ValueId) -> bool {
    graph.uses(v).into_iter().any(|u| match (structure.decision(u.node), u.port) {
        (Decision::Integer(kind), Port::In(slot)) => {
            Structure::quantized_slots(graph, u.node, kind).contains(&(slot as usize))
        }
        _ => false,
    })
}

fn join(graph: &Graph, options: &QuantizeOptions, id: NodeId, kind: &Kind, out: ValueId, sets: &mut Sets) {
    let one_scale = options.format == Format::Qlinear && options.runtime == Runtime::Portable;
    let slots = match kind {
        Kind::Move(slot) | Kind::Bound(slot) => vec![*slot],
        Kind::Clamp => vec![0],
        // ONNX Runtime's QLinearConcat takes a scale per input; the standard's Concat on 8 bits needs one for all.
        Kind::Unify if one_scale => (0..graph.node_inputs(id).len()).collect(),
        Kind::Unify | Kind::Compute(_) | Kind::Elementwise(_) => return,
    };
    for slot in slots {
        if let Some(v) = graph.input(id, slot) {
            sets.join(v, out);
        }
    }
    for other in graph.node_outputs(id).into_iter().flatten() {
        sets.insert(other);
        sets.join(other, out);
    }
}

/// Union-find over values in order of insertion.
#[derive(Default)]
struct Sets {
    index: HashMap<ValueId, usize>,
    values: Vec<ValueId>,
    parent: Vec<usize>,
}

impl Sets {
    fn insert(&mut self, v: ValueId) -> usize {
        if let Some(&k) = self.index.get(&v) {
            return k;
        }
        self.values.push(v);
        self.parent.push(self.parent.len());
        self.index.insert(v, self.parent.len() - 1);
        self.parent.len() - 1
    }

    fn root(&mut self, mut k: usize) -> usize {
        while self.parent[k] != k {
            self.parent[k] = self.parent[self.parent[k]];
            k = self.parent[k];
        }
        k
    }

    fn join(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.insert(a), self.insert(b));
        let (a, b) = (self.root(a), self.root(b));
        // The earlier one leads, so that groups are numbered in order of appearance.
        let (lead, follow) = (a.min(b), a.max(b));
        self.parent[follow] = lead;
    }

    fn finish(mut self, moved: &[ValueId]) -> ScaleGroups {
        let mut members: BTreeMap<usize, Vec<ValueId>> = BTreeMap::new();
        for k in 0..self.values.len() {
            let root = self.root(k);
            members.entry(root).or_default().push(self.values[k]);
        }
        let moved: HashSet<ValueId> = moved.iter().copied().collect();
        let mut groups = ScaleGroups { group_of: HashMap::new(), sources: Vec::with_capacity(members.len()) };
        for values in members.into_values() {
            let group = groups.sources.len();
            groups.group_of.extend(values.iter().map(|v| (*v, group)));
            let own: Vec<ValueId> = values.iter().copied().filter(|v| !moved.contains(v)).collect();
            groups.sources.push(if own.is_empty() { values } else { own });
        }
        groups
    }
}
