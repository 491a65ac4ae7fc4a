//! Joins elements as the operators say.

use super::atoms::{Atoms, Barrier};
use super::{Place, Role, Tied};
use crate::analysis::shapes::{Contexts, Facts};
use crate::error::{Error, Result};
use crate::ir::{Dim, Graph, Model, NodeId, Port, Type, ValueId};
use crate::ops;
use crate::ops::axes::{Axis, AxisFact, AxisLinks, AxisMap, LinkContext};
use std::collections::HashSet;

/// An axis that runs over combinations of others, of which one can be cut.
pub(super) struct Choice {
    pub flat: Place,
    /// With the number of elements of `flat` in a row that belong to one of theirs.
    pub factors: Vec<(Place, usize)>,
    pub label: String,
}

/// What the nodes say, before choices are made.
pub(super) struct Builder<'a> {
    pub graph: &'a Graph,
    pub atoms: Atoms,
    pub choices: Vec<Choice>,
    /// Axes over independent problems.
    pub batches: Vec<Place>,
    pub tied: Vec<Tied>,
    contexts: Contexts<'a>,
    allow_inexact: bool,
}

impl<'a> Builder<'a> {
    pub fn new(model: &'a Model, facts: &'a Facts, allow_inexact: bool) -> Result<Self> {
        let graph = &model.graph;
        let atoms = Atoms::new(graph).ok_or_else(|| Error::unsupported("axes of more than 134 million elements"))?;
        let contexts = Contexts::with_data(model, graph, &facts.data);
        let mut builder =
            Self { graph, atoms, choices: vec![], batches: vec![], tied: vec![], contexts, allow_inexact };
        builder.interface();
        for id in graph.order()? {
            builder.node(id);
        }
        Ok(builder)
    }

    fn hard(&mut self, value: ValueId, reason: &str) {
        let barrier = Barrier { reason: reason.to_string(), inexact: false };
        for axis in 0..self.atoms.rank(value).unwrap_or(0) {
            self.atoms.bar(Place { value, axis }, None, &barrier);
        }
    }

    /// Inputs and outputs keep their shape.
    fn interface(&mut self) {
        let graph = self.graph;
        for &v in graph.inputs() {
            self.hard(v, &format!("\"{}\" is a graph input", graph.name(v)));
        }
        for &v in graph.outputs() {
            self.hard(v, &format!("\"{}\" is a graph output", graph.name(v)));
        }
        for id in graph.nodes() {
            for v in graph.captures(id) {
                self.hard(v, &format!("a body of {} uses \"{}\"", graph.node(id).label(), graph.name(v)));
            }
        }
    }

    fn value(&self, id: NodeId, port: Port) -> Option<ValueId> {
        match port {
            Port::In(k) => self.graph.input(id, k as usize),
            Port::Out(k) => self.graph.output(id, k as usize),
            Port::Capture(_) => None,
        }
    }

    fn place(&self, id: NodeId, axis: Axis) -> Option<Place> {
        Some(Place { value: self.value(id, axis.port)?, axis: axis.axis })
    }

    fn node(&mut self, id: NodeId) {
        let graph = self.graph;
        let node = graph.node(id);
        let outputs = graph.node_outputs(id);
        let types: Vec<Option<&Type>> = outputs.iter().map(|v| graph.ty((*v)?)).collect();
        let cx = self.contexts.of(id);
        let spec = ops::spec(&node.op).filter(|_| node.bodies().next().is_none());
        let links = spec.and_then(|spec| spec.axis_links(&LinkContext { cx: &cx, outputs: &types }));
        let label = node.label();
        let Some(AxisLinks(facts)) = links else {
            for v in graph.node_inputs(id).into_iter().chain(outputs).flatten() {
                self.hard(v, &format!("{label} says nothing about its axes"));
            }
            return;
        };
        let mut mentioned: HashSet<Axis> = HashSet::new();
        for fact in facts {
            self.fact(id, &label, fact, &mut mentioned);
        }
        let ports = (0..node.input_slots).map(Port::In).chain((0..node.output_slots).map(Port::Out));
        let barrier = Barrier { reason: format!("{label} needs all of it"), inexact: false };
        for port in ports {
            let Some(value) = self.value(id, port) else { continue };
            for axis in 0..self.atoms.rank(value).unwrap_or(0) {
                if !mentioned.contains(&Axis { port, axis }) {
                    self.atoms.bar(Place { value, axis }, None, &barrier);
                }
            }
        }
        self.sizes_read(id, &label);
    }

    fn fact(&mut self, id: NodeId, label: &str, fact: AxisFact, mentioned: &mut HashSet<Axis>) {
        match fact {
            AxisFact::Link { a, b, map } => {
                mentioned.extend([a, b]);
                self.link(id, label, a, b, &map);
            }
            AxisFact::Tie { axis, inner, count } => {
                mentioned.insert(axis);
                let Some((first, size)) = self.place(id, axis).and_then(|p| self.atoms.axis(p)) else { return };
                let class = |k: u32| k as usize / inner.max(1) % count.max(1);
                let mut firsts = vec![None; count];
                for k in 0..size {
                    let other = *firsts[class(k)].get_or_insert(first + k);
                    self.atoms.join(first + k, other);
                }
            }
            AxisFact::Factors { flat, factors } => {
                mentioned.insert(flat);
                mentioned.extend(factors.iter().copied());
                self.choice(id, label, flat, &factors);
            }
            AxisFact::Free(axis) => {
                mentioned.insert(axis);
            }
            AxisFact::Barrier { axis, reason, elements, inexact } => {
                mentioned.insert(axis);
                let Some(place) = self.place(id, axis).filter(|_| !(inexact && self.allow_inexact)) else { return };
                let barrier = Barrier { reason: format!("{label} {reason}"), inexact };
                self.atoms.bar(place, elements.as_deref(), &barrier);
            }
            AxisFact::Takes(axis) => {
                mentioned.insert(axis);
                let Some(place) = self.place(id, axis) else { return };
                let mine = |t: &&mut Tied| t.node == id && t.place == place;
                self.tied.iter_mut().rev().filter(mine).for_each(|t| t.role = Role::Takes);
            }
            AxisFact::Batch(axis) => self.batches.extend(self.place(id, axis)),
        }
    }

    fn link(&mut self, id: NodeId, label: &str, a: Axis, b: Axis, map: &AxisMap) {
        let (Some(from), Some(to)) = (self.place(id, a), self.place(id, b)) else { return };
        let (Some((first_a, size_a)), Some((first_b, size_b))) = (self.atoms.axis(from), self.atoms.axis(to)) else {
            let barrier = Barrier { reason: format!("{label} ties it to an axis of unknown size"), inexact: false };
            self.atoms.bar(from, None, &barrier);
            self.atoms.bar(to, None, &barrier);
            return;
        };
        if *map == AxisMap::Same && size_a != size_b {
            let barrier = Barrier { reason: format!("{label} ties it to an axis of another size"), inexact: false };
            self.atoms.bar(from, None, &barrier);
            self.atoms.bar(to, None, &barrier);
            return;
        }
        for i in 0..size_a {
            let j = match map {
                AxisMap::Same => Some(i64::from(i)),
                AxisMap::Offset { start, step } => start.checked_add(i64::from(i).saturating_mul(*step)),
                AxisMap::Stride { inner } => Some((i as usize / (*inner).max(1)) as i64 % i64::from(size_b.max(1))),
                AxisMap::Select(list) => list.get(i as usize).map(|&j| j as i64),
            };
            if let Some(j) = j.filter(|j| (0..i64::from(size_b)).contains(j)) {
                self.atoms.join(first_a + i, first_b + j as u32);
            }
        }
        self.note_role(id, (a, from), (b, to));
    }

    /// Which weights make and which take the elements of an axis.
    fn note_role(&mut self, id: NodeId, a: (Axis, Place), b: (Axis, Place)) {
        for ((axis, place), (other, partner)) in [(a, b), (b, a)] {
            let Port::In(slot) = axis.port else { continue };
            if self.graph.constant(place.value).is_none() {
                continue;
            }
            let role = match other.port {
                Port::In(_) if self.graph.constant(partner.value).is_none() => Role::Takes,
                _ => Role::Makes,
            };
            self.tied.push(Tied { node: id, slot: slot as usize, place, partner, role });
        }
    }

    fn choice(&mut self, id: NodeId, label: &str, flat: Axis, factors: &[Axis]) {
        let places: Option<Vec<Place>> = factors.iter().map(|&f| self.place(id, f)).collect();
        let (Some(flat), Some(places)) = (self.place(id, flat), places) else { return };
        let mut inner = 1;
        let mut with_inner = vec![];
        for place in places.into_iter().rev() {
            with_inner.push((place, inner));
            inner *= self.atoms.axis(place).map_or(1, |(_, size)| size as usize);
        }
        with_inner.reverse();
        self.choices.push(Choice { flat, factors: with_inner, label: label.to_string() });
    }

    /// A size that somebody reads and that is not made anew where the axis is cut must stay. Only `Shape` has an axis
    /// whose elements are free and an output that is not tied to it, so this asks for shape arithmetic, not for names.
    fn sizes_read(&mut self, id: NodeId, label: &str) {
        let graph = self.graph;
        let (Some(x), Some(sizes)) = (graph.input(id, 0), graph.output(id, 0)) else { return };
        if !graph.node(id).op.is("Shape") {
            return;
        }
        let dims = graph.ty(x).and_then(|t| t.shape()).map(<[Dim]>::len).unwrap_or(0);
        let mut read: HashSet<usize> = HashSet::new();
        for user in graph.uses(sizes) {
            let spec = ops::spec(&graph.node(user.node).op);
            let cx = self.contexts.of(user.node);
            if let (Some(spec), Port::In(slot)) = (spec, user.port) {
                if let (0, Some(some)) = (slot, spec.selects(&cx)) {
                    read.extend(some);
                    continue;
                }
                if self.made_anew(user.node, slot as usize) {
                    continue;
                }
            }
            read.extend(0..dims);
        }
        // Positions count from `start`; a Shape of a part is read as a whole.
        let part = ["start", "end"].iter().any(|a| graph.node(id).attribute(a).is_some());
        let barrier = Barrier { reason: format!("{label} reads its size"), inexact: false };
        for axis in if part && !read.is_empty() { (0..dims).collect() } else { read } {
            self.atoms.bar(Place { value: x, axis }, None, &barrier);
        }
    }

    /// Whether the operator writes a new constant to this slot where its axes are cut.
    fn made_anew(&self, id: NodeId, slot: usize) -> bool {
        let types: Vec<Option<&Type>> = self.graph.node_outputs(id).into_iter().map(|v| self.graph.ty(v?)).collect();
        let cx = self.contexts.of(id);
        let links = ops::spec(&self.graph.node(id).op)
            .and_then(|spec| spec.axis_links(&LinkContext { cx: &cx, outputs: &types }));
        let axis = ops::axes::input(slot, 0);
        links.is_some_and(|AxisLinks(facts)| facts.contains(&AxisFact::Free(axis)))
    }
}
