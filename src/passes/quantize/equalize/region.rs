//! Values whose channels are scaled together, and what borders on them.

use crate::analysis::shapes::Contexts;
use crate::ir::{DType, Dim, Graph, NodeId, Port, Tensor, ValueId};
use crate::ops;
use crate::ops::spec::{ChannelRole, ComputeRole, QuantRole};
use std::collections::BTreeMap;

/// A set of values that may be divided by one positive factor per channel without changing what the model computes, because
/// linear layers make them and linear layers take them.
#[derive(Debug)]
pub struct Region {
    /// Number of channels.
    pub channels: usize,
    /// Layers whose outputs belong to it.
    pub makers: Vec<(NodeId, ComputeRole)>,
    /// Layers that take its values, and how many neighbouring inputs one channel is there.
    pub takers: Vec<(NodeId, ComputeRole, usize)>,
    /// Constants that are added to its values: node, slot, axis of the channels counted from the last.
    pub added: Vec<(NodeId, usize, usize)>,
    /// Clamps with an upper bound: node, axis of the channels counted from the last, bound.
    pub clamps: Vec<(NodeId, usize, f32)>,
}

/// Finds regions.
pub struct Finder<'a> {
    graph: &'a Graph,
    contexts: Contexts<'a>,
}

/// Where the channels of a value are.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    axis: usize,
    repeat: usize,
}

impl<'a> Finder<'a> {
    pub fn new(graph: &'a Graph, contexts: Contexts<'a>) -> Self {
        Self { graph, contexts }
    }

    /// The linear layer that a node is: a constant f32 weight, and a bias that is one or absent, without other uses.
    pub fn layer(&self, id: NodeId) -> Result<ComputeRole, &'static str> {
        let role = ops::spec(&self.graph.node(id).op).map(|s| s.quant(&self.contexts.of(id)));
        let Some(QuantRole::Compute(role)) = role else { return Err("an operator that factors do not pass") };
        let own = |slot: usize| {
            let v = self.graph.input(id, slot)?;
            let constant = self.graph.constant(v).filter(|t| t.dtype == DType::F32 && !t.is_empty())?;
            self.graph.only_use(v).map(|_| constant)
        };
        let channels = match own(role.weight) {
            Some(w) => w.dims.get(role.weight_axis).copied(),
            None => return Err("a weight that is not a constant of this layer alone"),
        };
        let bias = role.bias.filter(|&slot| self.graph.input(id, slot).is_some());
        let fits = |slot| own(slot).is_some_and(|b: &Tensor| Some(b.len()) == channels);
        if bias.is_some_and(|slot| !fits(slot)) {
            return Err("a bias that is not a constant of this layer alone");
        }
        Ok(role)
    }

    /// Whether a clamp has the lower bound 0, and its upper bound.
    pub fn bounds(&self, id: NodeId) -> Option<(bool, f32)> {
        match ops::spec(&self.graph.node(id).op)?.channels(&self.contexts.of(id), 1) {
            ChannelRole::Clamps { from_zero, high } => Some((from_zero, high)),
            _ => None,
        }
    }

    /// The region that the output of a layer belongs to.
    ///
    /// # Errors
    /// What keeps factors from passing, and the name of the value where.
    pub fn around(&self, maker: NodeId) -> Result<Region, (&'static str, ValueId)> {
        let Some(start) = self.graph.output(maker, 0) else {
            return Err(("a layer without an output", self.graph.inputs()[0]));
        };
        let role = self.layer(maker).map_err(|why| (why, start))?;
        let channels =
            self.graph.input(maker, role.weight).and_then(|w| self.graph.constant(w)?.dims.get(role.weight_axis));
        let (channels, axis) =
            (channels.copied().unwrap_or(0), self.output_axis(maker).ok_or(("an unknown rank", start))?);
        let mut region = Region { channels, makers: vec![], takers: vec![], added: vec![], clamps: vec![] };
        let mut places: BTreeMap<ValueId, Place> = BTreeMap::new();
        let mut open = vec![(start, Place { axis, repeat: 1 })];
        while let Some((v, place)) = open.pop() {
            match places.get(&v) {
                Some(known) if *known == place => continue,
                Some(_) => return Err(("channels that meet along different axes", v)),
                None => places.insert(v, place),
            };
            let more = self.visit(&mut region, v, place).map_err(|why| (why, v))?;
            open.extend(more);
        }
        region.sort(self.graph);
        Ok(region)
    }

    /// Axis of the channels in an input or output of a layer.
    pub fn channel_axis(&self, id: NodeId, v: ValueId) -> Option<usize> {
        if self.graph.node(id).op.is("Conv") {
            return Some(1);
        }
        self.graph.ty(v)?.shape()?.len().checked_sub(1)
    }

    /// Axis of the channels in the output of a layer.
    fn output_axis(&self, id: NodeId) -> Option<usize> {
        self.channel_axis(id, self.graph.output(id, 0)?)
    }

    /// Takes note of what makes and what takes a value; returns the values that are scaled with it.
    fn visit(&self, region: &mut Region, v: ValueId, place: Place) -> Result<Vec<(ValueId, Place)>, &'static str> {
        let graph = self.graph;
        if graph.is_output(v) {
            return Err("a graph output");
        }
        let Some((maker, slot)) = graph.producer(v) else { return Err("a graph input") };
        let mut more = vec![];
        match self.layer(maker) {
            Ok(role) => {
                let made = graph.input(maker, role.weight).and_then(|w| graph.constant(w)?.dims.get(role.weight_axis));
                if self.output_axis(maker) != Some(place.axis) || made != Some(&region.channels) || place.repeat != 1 {
                    return Err("channels that meet along different axes");
                }
                region.makers.push((maker, role));
            }
            Err(why) => more.extend(self.through(region, maker, place, true).map_err(|_| why)?),
        }
        if slot != 0 {
            return Err("an output beside the first");
        }
        for user in graph.uses(v) {
            let Port::In(slot) = user.port else { return Err("a body of control flow uses it") };
            match self.layer(user.node) {
                Ok(role) if role.activation == slot as usize => {
                    self.takes(user.node, &role, region.channels, v, place)?;
                    region.takers.push((user.node, role, place.repeat));
                }
                Ok(_) => return Err("a layer that takes it as its weight"),
                Err(why) => more.extend(self.through(region, user.node, place, false).map_err(|_| why)?),
            }
        }
        Ok(more)
    }

    /// Whether the layer's inputs are the channels.
    fn takes(
        &self,
        id: NodeId,
        role: &ComputeRole,
        channels: usize,
        v: ValueId,
        place: Place,
    ) -> Result<(), &'static str> {
        let rank = self.graph.ty(v).and_then(|t| t.shape()).map(<[Dim]>::len);
        let conv = self.graph.node(id).op.is("Conv");
        let axis = if conv { Some(1) } else { rank.and_then(|r| r.checked_sub(1)) };
        let dims = self.graph.input(id, role.weight).and_then(|w| self.graph.constant(w)).map(|t| &t.dims[..]);
        let groups = usize::try_from(self.graph.node(id).int("group").unwrap_or(1)).unwrap_or(0);
        let inputs = dims.and_then(|d| Some(d.get(1 - role.weight_axis)? * if conv { groups } else { 1 }));
        if axis == Some(place.axis) && inputs == Some(channels * place.repeat) {
            return Ok(());
        }
        Err("a layer that sums over another axis")
    }

    /// The other values around a node that passes factors.
    fn through(
        &self,
        region: &mut Region,
        id: NodeId,
        place: Place,
        backwards: bool,
    ) -> Result<Vec<(ValueId, Place)>, &'static str> {
        let graph = self.graph;
        let barrier = "an operator that factors do not pass";
        let spec = ops::spec(&graph.node(id).op).ok_or(barrier)?;
        let (inputs, out) = match spec.channels(&self.contexts.of(id), place.axis) {
            ChannelRole::Barrier => return Err(barrier),
            ChannelRole::Passes { inputs, axis, repeat } => (inputs, Place { axis, repeat: place.repeat * repeat }),
            ChannelRole::Clamps { high, .. } => {
                let rank = graph
                    .output(id, 0)
                    .and_then(|v| graph.ty(v)?.shape())
                    .map(<[Dim]>::len)
                    .ok_or("an unknown rank")?;
                if place.repeat != 1 {
                    return Err(barrier);
                }
                let from_last = rank.checked_sub(place.axis + 1).ok_or(barrier)?;
                if !region.clamps.contains(&(id, from_last, high)) {
                    region.clamps.push((id, from_last, high));
                }
                (vec![0], place)
            }
        };
        // From an output back to inputs: only where axes stay.
        if backwards && out != place {
            return Err(barrier);
        }
        let mut more: Vec<(ValueId, Place)> = vec![];
        let output = graph.output(id, 0).ok_or(barrier)?;
        for slot in inputs {
            let v = graph.input(id, slot).ok_or(barrier)?;
            match graph.constant(v) {
                Some(t) => {
                    let from_last = self.constant(t, output, out, region.channels)?;
                    if !region.added.contains(&(id, slot, from_last)) {
                        region.added.push((id, slot, from_last));
                    }
                }
                None => more.push((v, place)),
            }
        }
        more.push((output, out));
        Ok(more)
    }

    /// Axis of the channels, counted from the last, in a constant that has one element per channel, or one.
    fn constant(&self, t: &Tensor, output: ValueId, place: Place, channels: usize) -> Result<usize, &'static str> {
        let wrong = "a constant that does not vary by channel";
        let rank = self.graph.ty(output).and_then(|t| t.shape()).map(<[Dim]>::len).ok_or("an unknown rank")?;
        let from_last = rank.checked_sub(place.axis + 1).ok_or(wrong)?;
        let size = t.rank().checked_sub(from_last + 1).map(|k| t.dims[k]);
        let fits = t.dtype == DType::F32 && place.repeat == 1 && t.rank() <= rank;
        match size {
            Some(n) if fits && n == channels => Ok(from_last),
            _ if fits && t.len() == 1 => Ok(from_last),
            _ => Err(wrong),
        }
    }
}

impl Region {
    /// Everything once, in the order of the file.
    fn sort(&mut self, graph: &Graph) {
        let rank = |id: NodeId| (graph.node(id).rank, id);
        self.makers.sort_by_key(|m| rank(m.0));
        self.takers.sort_by_key(|t| rank(t.0));
        self.takers.dedup_by_key(|t| t.0);
        self.added.sort_by_key(|a| (rank(a.0), a.1));
        self.clamps.sort_by_key(|c| rank(c.0));
    }
}
