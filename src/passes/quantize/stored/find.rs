//! Which constants are weights, and of which layers.

use super::super::options::Precision;
use super::super::selection::Selection;
use crate::analysis::shapes::Contexts;
use crate::ir::{DType, Graph, Model, NodeId, Port, Tensor, Use, ValueId};
use crate::ops;
use crate::ops::spec::StoredRole;
use std::collections::HashSet;

/// What is to become of a constant.
pub enum Wanted {
    /// It is no weight, or not wanted in fewer bits.
    No,
    /// As a weight with these rows, in this precision.
    As(Vec<usize>, Precision),
    /// Its users do not agree.
    Differently,
}

/// Looks at the users of constants.
pub struct Finder<'a> {
    model: &'a Model,
    selection: &'a Selection,
}

impl<'a> Finder<'a> {
    pub fn new(model: &'a Model, selection: &'a Selection) -> Self {
        Self { model, selection }
    }

    /// What the users of a constant of `graph` want of it; `planned` nodes are quantized by other means.
    pub fn wanted(&mut self, graph: &Graph, v: ValueId, planned: &HashSet<NodeId>) -> Wanted {
        let mut all = vec![];
        self.collect(graph, v, planned, &mut all);
        let first = all.iter().flatten().next().cloned();
        match first {
            None => Wanted::No,
            Some(first) if all.iter().all(|w| w.as_ref() == Some(&first)) => Wanted::As(first.0, first.1),
            // Without any that is planned, there would be one copy more.
            Some(_) => Wanted::Differently,
        }
    }

    fn collect(
        &mut self,
        graph: &Graph,
        v: ValueId,
        planned: &HashSet<NodeId>,
        all: &mut Vec<Option<(Vec<usize>, Precision)>>,
    ) {
        if graph.is_output(v) {
            all.push(None);
        }
        let contexts = Contexts::new(self.model, graph);
        for Use { node, port } in graph.uses(v) {
            let Port::In(slot) = port else {
                let name = graph.name(v);
                for body in graph.node(node).bodies() {
                    if let Some(inner) = body.find(name).filter(|&i| body.is_outer(i)) {
                        self.collect(body, inner, &HashSet::new(), all);
                    }
                }
                continue;
            };
            let found = graph.node(node);
            let roles = ops::spec(&found.op).map(|s| s.stored_weights(&contexts.of(node))).unwrap_or_default();
            let role = roles.into_iter().find(|r| r.slot == slot as usize);
            let precision = match self.selection.precision(found) {
                Some(p @ (Precision::F16 | Precision::W8)) if self.selection.wants(found) => Some(p),
                _ if self.selection.refuses(found).is_some() || planned.contains(&node) => None,
                _ => Some(Precision::Eight),
            };
            all.push(role.zip(precision).map(|(role, precision)| (role.rows, precision)));
        }
    }
}

/// What is known of a node as a layer with weights.
pub struct Layer {
    /// Constants in float at its weight slots.
    pub float: Vec<ValueId>,
    /// Weight slots whose values come from weights in fewer bits.
    pub stored: Vec<ValueId>,
}

/// The weights of a node of `graph`, whose contexts these are; captured ones are looked up by `outer`.
pub fn layer(graph: &Graph, contexts: &Contexts, id: NodeId, outer: &dyn Fn(&str) -> Source) -> Layer {
    let mut found = Layer { float: vec![], stored: vec![] };
    let Some(spec) = ops::spec(&graph.node(id).op) else { return found };
    for StoredRole { slot, .. } in spec.stored_weights(&contexts.of(id)) {
        let Some(v) = graph.input(id, slot) else { continue };
        let kind = if graph.is_outer(v) { outer(graph.name(v)) } else { Source::of(graph, v) };
        match kind {
            Source::Float => found.float.push(v),
            Source::Stored => found.stored.push(v),
            Source::Other => {}
        }
    }
    found
}

/// What a value is, seen from a body or by a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A constant in float.
    Float,
    /// A constant in fewer bits, dequantized.
    Stored,
    /// Anything else.
    Other,
}

impl Source {
    /// Of a value of its own graph.
    pub fn of(graph: &Graph, v: ValueId) -> Self {
        match graph.constant(v) {
            Some(t) if t.dtype.is_float() => Self::Float,
            Some(t) if t.dtype.is_int() && t.dtype.bits() <= 8 => Self::Stored,
            Some(_) => Self::Other,
            None if stored_source(graph, v).is_some() => Self::Stored,
            None => Self::Other,
        }
    }
}

/// The integers behind a dequantized constant, seen through the Reshape that its rows may need.
pub fn stored_source(graph: &Graph, v: ValueId) -> Option<&Tensor> {
    let (mut id, _) = graph.producer(v)?;
    if graph.node(id).op.is("Reshape") {
        id = graph.producer(graph.input(id, 0)?)?.0;
    }
    if !graph.node(id).op.is("DequantizeLinear") {
        return None;
    }
    graph.constant(graph.input(id, 0)?).filter(|t| t.dtype != DType::String && !t.dtype.is_float())
}
