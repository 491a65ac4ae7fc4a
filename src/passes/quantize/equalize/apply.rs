//! Writes factors into the constants around regions.

use super::region::{Finder, Region};
use super::{NodeId, channels};
use crate::error::{Error, Result};
use crate::ir::{Graph, Node, OpId, Tensor};
use crate::ops::spec::ComputeRole;
use crate::passes::Patch;
use std::collections::BTreeMap;

/// What happens to a layer.
#[derive(Default)]
struct Change<'a> {
    role: Option<&'a ComputeRole>,
    /// What outputs are divided by.
    outputs: Option<&'a [f64]>,
    /// What inputs are multiplied by, and how many neighbouring ones share a factor.
    inputs: Option<(&'a [f64], usize)>,
}

/// The changes of all layers, added constants and clamps.
pub(super) fn patch(graph: &Graph, finder: &Finder, regions: &[Region], factors: &[Vec<f64>]) -> Result<Patch> {
    let mut changes: BTreeMap<NodeId, Change> = BTreeMap::new();
    let mut patch = Patch::default();
    for (region, factors) in regions.iter().zip(factors) {
        for (id, role) in &region.makers {
            let change = changes.entry(*id).or_default();
            (change.role, change.outputs) = (Some(role), Some(factors.as_slice()));
        }
        for (id, role, repeat) in &region.takers {
            let change = changes.entry(*id).or_default();
            (change.role, change.inputs) = (Some(role), Some((factors.as_slice(), *repeat)));
        }
        for (id, slot, from_last) in &region.added {
            let Some(v) = graph.input(*id, *slot) else { continue };
            let Some(t) = graph.constant(v) else { continue };
            let new = patch.constant(graph.name(v), divided(t, factors, *from_last)?);
            patch.set_input(*id, *slot, Some(new));
        }
        for (id, from_last, _) in &region.clamps {
            clamp(graph, finder, *id, factors, *from_last, &mut patch)?;
        }
    }
    for (id, change) in changes {
        let Some(role) = change.role else { continue };
        write(graph, id, role, &change, &mut patch)?;
    }
    Ok(patch)
}

fn write(graph: &Graph, id: NodeId, role: &ComputeRole, change: &Change, patch: &mut Patch) -> Result<()> {
    let missing = || Error::internal("a layer without a constant weight");
    let w = graph.input(id, role.weight).ok_or_else(missing)?;
    let tensor = graph.constant(w).ok_or_else(missing)?;
    let factor = |(output, input): &(u32, u32)| {
        let out = change.outputs.map_or(1.0, |f| 1.0 / f[*output as usize]);
        out * change.inputs.map_or(1.0, |(f, repeat)| f[*input as usize / repeat])
    };
    let places = channels(graph, id, role, &tensor.dims);
    let data: Vec<f32> =
        tensor.to_f32()?.iter().zip(&places).map(|(&x, place)| (f64::from(x) * factor(place)) as f32).collect();
    let new = patch.constant(graph.name(w), Tensor::from_f32(&tensor.dims, &data));
    patch.replace(w, new);
    let (Some(b), Some(factors)) = (role.bias.and_then(|slot| graph.input(id, slot)), change.outputs) else {
        return Ok(());
    };
    let bias = graph.constant(b).ok_or_else(missing)?;
    let data: Vec<f32> = bias.to_f32()?.iter().zip(factors).map(|(&x, f)| (f64::from(x) / f) as f32).collect();
    let new = patch.constant(graph.name(b), Tensor::from_f32(&bias.dims, &data));
    patch.replace(b, new);
    Ok(())
}

/// A constant divided by the factors of the channels, spread over them where it has one element.
fn divided(t: &Tensor, factors: &[f64], from_last: usize) -> Result<Tensor> {
    let data = t.to_f32()?;
    if let [only] = data[..] {
        let data: Vec<f32> = factors.iter().map(|f| (f64::from(only) / f) as f32).collect();
        return Ok(Tensor::from_f32(&column(factors.len(), from_last), &data));
    }
    let inner: usize = t.dims[t.rank() - from_last..].iter().product();
    let factor = |k: usize| factors[k / inner.max(1) % factors.len()];
    let data: Vec<f32> = data.iter().enumerate().map(|(k, &x)| (f64::from(x) / factor(k)) as f32).collect();
    Ok(Tensor::from_f32(&t.dims, &data))
}

/// Dimensions of what varies along one axis only.
fn column(channels: usize, from_last: usize) -> Vec<usize> {
    std::iter::once(channels).chain(std::iter::repeat_n(1, from_last)).collect()
}

/// `Clip(x, 0, high)` becomes `Min(Relu(x), high / s)`.
fn clamp(
    graph: &Graph,
    finder: &Finder,
    id: NodeId,
    factors: &[f64],
    from_last: usize,
    patch: &mut Patch,
) -> Result<()> {
    let Some((from_zero, high)) = finder.bounds(id) else { return Err(Error::internal("a clamp without a bound")) };
    let (Some(x), Some(y)) = (graph.input(id, 0), graph.output(id, 0)) else { return Ok(()) };
    let bounds: Vec<f32> = factors.iter().map(|f| (f64::from(high) / f) as f32).collect();
    let bounds = patch
        .constant(&format!("{}_bound", graph.name(y)), Tensor::from_f32(&column(bounds.len(), from_last), &bounds));
    let named = |op: &str| {
        let mut node = Node::new(OpId::onnx(op));
        (node.name, node.rank) = (graph.node(id).name.clone(), graph.node(id).rank);
        node
    };
    let mut low = x.into();
    if from_zero {
        low = patch.node(named("Relu"), &[Some(low)], &format!("{}_unbounded", graph.name(y)), graph.ty(y).cloned());
    }
    let out = patch.node(named("Min"), &[Some(low), Some(bounds)], graph.name(y), graph.ty(y).cloned());
    patch.replace(y, out);
    Ok(())
}
