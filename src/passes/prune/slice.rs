//! Cutting channels out of a model.

use crate::analysis::axis_groups::{AxisGroups, Place, Role};
use crate::analysis::shapes::{self, Contexts, Facts};
use crate::error::{Context, Error, Result};
use crate::ir::{Dim, Graph, Model, NodeId, Port, Tensor, TensorData, TensorType, Type, ValueId};
use crate::ops;
use crate::ops::axes::{Axis, Kept, LinkContext, Narrowed};
use crate::passes::{Effect, Outcome, Pass, PassContext, Patch};
use serde::Serialize;
use std::collections::BTreeMap;

/// What stays: kept elements of each axis that is cut, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cut {
    /// By axis.
    pub kept: BTreeMap<Place, Vec<usize>>,
}

impl Cut {
    /// Without these classes: (group, class) pairs.
    pub fn without(graph: &Graph, groups: &AxisGroups, removed: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut gone: BTreeMap<Place, Vec<bool>> = BTreeMap::new();
        for (g, c) in removed {
            let group = &groups.groups[g];
            for (place, members) in group.axes.iter().zip(&group.classes[c].members) {
                let size = size(graph, *place);
                let mask = gone.entry(*place).or_insert_with(|| vec![false; size]);
                members.iter().for_each(|&k| mask[k as usize] = true);
            }
        }
        let kept = |mask: Vec<bool>| (0..mask.len()).filter(|&k| !mask[k]).collect();
        Self { kept: gone.into_iter().map(|(place, mask)| (place, kept(mask))).collect() }
    }

    /// This cut of `original`, and then another of what it left, as one cut of `original`. Values are the same by name.
    pub fn then(&self, original: &Graph, left: &Graph, next: &Cut) -> Self {
        let mut both = self.clone();
        for (place, kept) in &next.kept {
            let Some(value) = original.find(left.name(place.value)) else { continue };
            let place = Place { value, axis: place.axis };
            let kept = match self.kept.get(&place) {
                None => kept.clone(),
                Some(before) => kept.iter().filter_map(|&k| before.get(k).copied()).collect(),
            };
            both.kept.insert(place, kept);
        }
        both
    }

    /// The kept elements by value name and axis, so that anyone can slice the original and get the same.
    pub fn map(&self, graph: &Graph) -> ChannelMap {
        let mut map = ChannelMap::default();
        for (place, kept) in &self.kept {
            let of_value = map.0.entry(graph.name(place.value).to_string()).or_default();
            of_value.insert(place.axis, kept.clone());
        }
        map
    }

    /// The type of a value after the cut.
    pub fn ty(&self, graph: &Graph, value: ValueId) -> Option<Type> {
        let Some(Type::Tensor(TensorType { elem, shape: Some(shape) })) = graph.ty(value) else {
            return graph.ty(value).cloned();
        };
        let dim = |(axis, d): (usize, &Dim)| match self.kept.get(&Place { value, axis }) {
            Some(kept) => Dim::Known(kept.len() as i64),
            None => d.clone(),
        };
        let shape = shape.iter().enumerate().map(dim).collect();
        Some(Type::Tensor(TensorType { elem: *elem, shape: Some(shape) }))
    }

    fn touches(&self, value: ValueId) -> bool {
        self.kept.range(Place { value, axis: 0 }..=Place { value, axis: usize::MAX }).next().is_some()
    }

    fn of_node(&self, graph: &Graph, id: NodeId) -> Kept {
        let mut kept = Kept::default();
        let inputs = graph.node_inputs(id).into_iter().zip(0..).map(|(v, k)| (v, Port::In(k)));
        let outputs = graph.node_outputs(id).into_iter().zip(0..).map(|(v, k)| (v, Port::Out(k)));
        for (value, port) in inputs.chain(outputs) {
            let Some(value) = value else { continue };
            for (place, left) in self.kept.range(Place { value, axis: 0 }..=Place { value, axis: usize::MAX }) {
                kept.0.insert(Axis { port, axis: place.axis }, left.clone());
            }
        }
        kept
    }
}

/// Kept elements by value name and axis.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ChannelMap(pub BTreeMap<String, BTreeMap<usize, Vec<usize>>>);

fn size(graph: &Graph, place: Place) -> usize {
    let dims = graph.ty(place.value).and_then(|t| t.shape());
    dims.and_then(|d| d.get(place.axis)).and_then(Dim::known).unwrap_or(0)
}

/// Cuts channels out: weights, biases, statistics, constants, targets of Reshape, sizes of Split, group counts and declared
/// shapes. Inputs and outputs keep name and shape, because no group touches them. The cut must have been made for this
/// very model.
pub struct Slice {
    /// What stays.
    pub cut: Cut,
}

impl Pass for Slice {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        if self.cut.kept.is_empty() || !cx.burn(self.name()) {
            return Ok(Outcome::default());
        }
        let facts = shapes::infer(model)?;
        let patch = self.patch(model, &facts)?;
        patch.apply(&mut model.graph)?;
        Ok(Outcome { changes: self.cut.kept.len(), ..Outcome::default() })
    }
}

impl Slice {
    fn patch(&self, model: &Model, facts: &Facts) -> Result<Patch> {
        let graph = &model.graph;
        let contexts = Contexts::with_data(model, graph, &facts.data);
        let mut patch = Patch::default();
        for id in graph.order()? {
            self.node(graph, &contexts, id, &mut patch).context(|| graph.node(id).label())?;
        }
        for v in graph.values().filter(|&v| self.cut.touches(v)) {
            let name = || format!("\"{}\"", graph.name(v));
            let init = graph.value(v).init.as_ref().map(|t| self.tensor(v, t)).transpose().context(name)?;
            patch.set_value(v, self.cut.ty(graph, v), init);
        }
        Ok(patch)
    }

    fn node(&self, graph: &Graph, contexts: &Contexts, id: NodeId, patch: &mut Patch) -> Result<()> {
        let node = graph.node(id);
        let Some(spec) = ops::spec(&node.op).filter(|_| node.bodies().next().is_none()) else { return Ok(()) };
        let kept = self.cut.of_node(graph, id);
        let types: Vec<Option<&Type>> = graph.node_outputs(id).into_iter().map(|v| graph.ty(v?)).collect();
        let cx = contexts.of(id);
        let links = LinkContext { cx: &cx, outputs: &types };
        if kept.0.is_empty() && spec.axis_links(&links).is_none() {
            return Ok(());
        }
        match spec.narrow(&links, &kept) {
            Narrowed::Same => {}
            Narrowed::Impossible(why) => return Err(Error::internal(why)),
            Narrowed::Changed { node: changed, inputs } => {
                for (slot, tensor) in inputs {
                    let hint = match graph.input(id, slot) {
                        Some(v) => graph.name(v).to_string(),
                        None => format!("{}_{slot}", node.name),
                    };
                    let constant = patch.constant(&hint, tensor);
                    patch.set_input(id, slot, Some(constant));
                }
                patch.set_node(id, *changed);
            }
        }
        Ok(())
    }

    fn tensor(&self, value: ValueId, t: &Tensor) -> Result<Tensor> {
        let mut now = t.clone();
        for axis in 0..t.rank() {
            if let Some(kept) = self.cut.kept.get(&Place { value, axis }) {
                now = take(&now, axis, kept)?;
            }
        }
        Ok(now)
    }
}

/// The elements `kept` of one axis.
///
/// # Errors
/// Types of less than a byte, strings, an element that the axis does not have.
pub fn take(t: &Tensor, axis: usize, kept: &[usize]) -> Result<Tensor> {
    let bits = t.dtype.bits();
    if bits == 0 || !bits.is_multiple_of(8) {
        return Err(Error::unsupported(format!("removing channels of a tensor of {}", t.dtype)));
    }
    let inner = t.dims[axis + 1..].iter().product::<usize>() * bits / 8;
    let (size, bytes) = (t.dims[axis], t.bytes()?);
    if kept.iter().any(|&k| k >= size) {
        return Err(Error::internal("a kept element is out of range"));
    }
    let outer: usize = t.dims[..axis].iter().product();
    let mut out = Vec::with_capacity(outer * kept.len() * inner);
    for o in 0..outer {
        for &k in kept {
            let at = (o * size + k) * inner;
            out.extend_from_slice(&bytes[at..at + inner]);
        }
    }
    let mut dims = t.dims.clone();
    dims[axis] = kept.len();
    let now = Tensor { extra: t.extra.clone(), ..Tensor::raw(t.dtype, &dims, out) };
    // What was stored sparsely stays so where it is still smaller.
    let sparse = if matches!(t.data, TensorData::Sparse(_)) { now.sparse()? } else { None };
    Ok(sparse.unwrap_or(now))
}

/// The model with the weights that take removed channels set to zero there: what the pruned model must equal. For tests
/// and for whoever wants to fine-tune before cutting.
///
/// # Errors
/// Weights that are no numbers.
pub fn zero_consumers(model: &mut Model, groups: &AxisGroups, cut: &Cut) -> Result<()> {
    let mut patch = Patch::default();
    let mut constants: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    let graph = &model.graph;
    for t in groups.tied.iter().filter(|t| t.role == Role::Takes) {
        let (Some(kept), Some(original)) = (cut.kept.get(&t.place), graph.constant(t.place.value)) else { continue };
        let tensor = constants.entry(t.place.value).or_insert_with(|| original.clone());
        let inner = tensor.dims[t.place.axis + 1..].iter().product::<usize>() * tensor.dtype.bits() / 8;
        let size = tensor.dims[t.place.axis];
        let mut bytes = tensor.bytes()?.into_owned();
        for (k, run) in bytes.chunks_mut(inner.max(1)).enumerate() {
            if kept.binary_search(&(k % size)).is_err() {
                run.fill(0);
            }
        }
        *tensor = Tensor::raw(tensor.dtype, &tensor.dims, bytes);
    }
    for (v, tensor) in constants {
        patch.set_value(v, graph.ty(v).cloned(), Some(tensor));
    }
    patch.apply(&mut model.graph)
}
