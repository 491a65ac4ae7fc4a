//! Which channels can be removed, and what goes with them.
//!
//! Every element of every axis of every value starts as a class of its own; operators join those that exist together only
//! ([`crate::ops::axes`]), through residuals, concatenations, splits, reshapes and shared weights, to a closure. A class
//! that touches an operator without facts, a body, a graph input or a graph output stays. Classes that touch the same
//! axes form a group: the channels of one layer, with everything that they are coupled to.

mod atoms;
mod build;
mod choose;

pub use atoms::Barrier;

use super::shapes::{self, Facts};
use crate::error::Result;
use crate::ir::{Graph, Model, NodeId, ValueId};
use build::Builder;
use std::collections::{BTreeMap, HashMap};

/// One axis of a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The value.
    pub value: ValueId,
    /// From the front.
    pub axis: usize,
}

/// What a weight does with the elements of an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// They are rows that make output channels (or scales, biases and statistics of them).
    Makes,
    /// They are columns that take input channels.
    Takes,
}

/// A constant whose axis goes with an axis of another input or of the output of its node.
#[derive(Clone, Copy, Debug)]
pub struct Tied {
    /// The node.
    pub node: NodeId,
    /// Slot of the constant.
    pub slot: usize,
    /// Axis of the constant.
    pub place: Place,
    /// The axis that it is tied to.
    pub partner: Place,
    /// What the constant does there.
    pub role: Role,
}

/// Elements that exist together only: one channel.
#[derive(Clone, Debug)]
pub struct Class {
    /// Elements of each axis of the group, in the group's order; ascending.
    pub members: Vec<Vec<u32>>,
}

/// Channels that touch the same axes.
#[derive(Clone, Debug)]
pub struct Group {
    /// After the node whose weight makes the channels.
    pub name: String,
    /// That node, where there is one.
    pub node: Option<NodeId>,
    /// The axes.
    pub axes: Vec<Place>,
    /// The channels, by ascending first element.
    pub classes: Vec<Class>,
    /// Why none may go.
    pub barrier: Option<Barrier>,
}

/// All groups that touch a constant, in execution order of their nodes.
#[derive(Clone, Debug)]
pub struct AxisGroups {
    /// The groups.
    pub groups: Vec<Group>,
    /// Which constants are tied to what.
    pub tied: Vec<Tied>,
}

impl Group {
    /// Largest number of elements of one axis that a channel takes: 2 where every channel is there twice.
    pub fn multiplicity(&self, graph: &Graph) -> usize {
        let weights = self.axes.iter().enumerate().filter(|(_, p)| graph.constant(p.value).is_none());
        let per_axis = weights.map(|(k, _)| self.classes.first().map_or(1, |c| c.members[k].len()));
        per_axis.min().unwrap_or(1).max(1)
    }
}

/// Finds the groups of the main graph. Types are inferred on the way.
///
/// `allow_inexact` lifts barriers of operators that compute something else, but sensible, on fewer elements, such as a
/// normalization over them.
///
/// # Errors
/// A model that is invalid, or whose axes are absurdly long.
pub fn axis_groups(model: &mut Model, allow_inexact: bool) -> Result<AxisGroups> {
    let facts = shapes::infer(model)?;
    of_facts(model, &facts, allow_inexact)
}

fn of_facts(model: &Model, facts: &Facts, allow_inexact: bool) -> Result<AxisGroups> {
    let mut builder = Builder::new(model, facts, allow_inexact)?;
    choose::choose(&mut builder);
    let graph = &model.graph;
    let mut groups = collect(&mut builder);
    let ranks = name_groups(graph, &builder.tied, &mut groups)?;
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&k| (ranks[k], groups[k].axes.first().copied(), k));
    let groups = order.into_iter().map(|k| groups[k].clone()).collect();
    Ok(AxisGroups { groups, tied: builder.tied })
}

/// Classes that touch a constant, by the axes that they touch.
fn collect(b: &mut Builder) -> Vec<Group> {
    let graph = b.graph;
    let places = || {
        let rank = |v: ValueId| graph.ty(v).and_then(|t| t.shape()).map_or(0, <[_]>::len);
        graph.values().flat_map(move |value| (0..rank(value)).map(move |axis| Place { value, axis }))
    };
    // Roots that touch a constant of floats along an axis that is longer than 1.
    let mut wanted: HashMap<u32, Vec<(Place, Vec<u32>)>> = HashMap::new();
    for place in places() {
        let weight = graph.constant(place.value).is_some_and(|t| t.dtype.is_float() || t.dtype.bits() <= 8);
        if let Some((first, size)) = b.atoms.axis(place).filter(|(_, size)| weight && *size > 1) {
            for atom in first..first + size {
                wanted.entry(b.atoms.find(atom)).or_default();
            }
        }
    }
    for place in places() {
        let Some((first, size)) = b.atoms.axis(place) else { continue };
        for k in 0..size {
            let Some(members) = wanted.get_mut(&b.atoms.find(first + k)) else { continue };
            match members.last_mut() {
                Some((last, elements)) if *last == place => elements.push(k),
                _ => members.push((place, vec![k])),
            }
        }
    }
    let mut roots: Vec<u32> = wanted.keys().copied().collect();
    roots.sort_unstable();
    let mut groups: BTreeMap<(Vec<Place>, bool), Group> = BTreeMap::new();
    for root in roots {
        let Some(members) = wanted.remove(&root) else { continue };
        let barrier = b.atoms.barrier(root).cloned();
        let (axes, members): (Vec<Place>, Vec<Vec<u32>>) = members.into_iter().unzip();
        let group = groups.entry((axes.clone(), barrier.is_some())).or_insert_with(|| Group {
            name: String::new(),
            node: None,
            axes,
            classes: vec![],
            barrier,
        });
        group.classes.push(Class { members });
    }
    // Without an activation there is nothing that a channel could be: kernels, tables.
    let activation = |g: &Group| g.axes.iter().any(|p| graph.constant(p.value).is_none());
    let several = |g: &Group| g.barrier.is_none() || g.classes.len() > 1;
    groups.into_values().filter(|g| activation(g) && several(g)).collect()
}

/// Names each group after the first node whose matrix makes its channels, else after the first that takes them; returns
/// that node's position in execution order.
fn name_groups(graph: &Graph, tied: &[Tied], groups: &mut [Group]) -> Result<Vec<usize>> {
    let order: HashMap<NodeId, usize> = graph.order()?.into_iter().enumerate().map(|(k, n)| (n, k)).collect();
    let mut by_place: HashMap<Place, Vec<&Tied>> = HashMap::new();
    for t in tied {
        by_place.entry(t.place).or_default().push(t);
    }
    let position = |n: NodeId| order.get(&n).copied().unwrap_or(usize::MAX);
    let mut ranks = vec![];
    for group in groups.iter_mut() {
        let candidates = group.axes.iter().filter_map(|p| by_place.get(p)).flatten();
        let matrix = |t: &Tied| graph.constant(t.place.value).is_some_and(|c| c.rank() > 1);
        let best = candidates.min_by_key(|t| (t.role != Role::Makes || !matrix(t), position(t.node)));
        ranks.push(best.map_or(usize::MAX, |t| position(t.node)));
        group.node = best.map(|t| t.node);
        group.name = match best {
            Some(t) if !graph.node(t.node).name.is_empty() => graph.node(t.node).name.to_string(),
            Some(t) => graph.name(t.place.value).to_string(),
            None => group.axes.first().map_or_else(String::new, |p| graph.name(p.value).to_string()),
        };
    }
    // Groups of one name are told apart by a number.
    let mut seen: HashMap<String, usize> = HashMap::new();
    for group in groups.iter_mut() {
        let n = seen.entry(group.name.clone()).or_default();
        *n += 1;
        if *n > 1 {
            group.name = format!("{}#{n}", group.name);
        }
    }
    Ok(ranks)
}
