//! Ranges of layer inputs, chosen by the error of the layers' outputs: what is clipped and what is rounded counts as much as
//! the layer makes of it.

use super::options::QuantizeOptions;
use super::plan::Plan;
use super::structure::{Decision, Kind};
use super::trial::{Layer, Trial};
use crate::analysis::shapes::Contexts;
use crate::calibrate::Sample;
use crate::error::{Context, Result};
use crate::ir::{Graph, Model, NodeId, Port, Tensor, ValueId};
use crate::math::Unfold;
use crate::ops;
use crate::ops::spec::{ComputeRole, Purpose};
use rayon::prelude::*;
use std::collections::HashMap;

/// Shares of an end of the range that are tried.
const SHARES: [f32; 14] = [1.0, 0.97, 0.94, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1];

/// The layer inputs whose ranges are to be found, as the layers see them.
pub struct ClipSearch {
    inputs: Vec<Input>,
}

struct Input {
    value: ValueId,
    unfold: Unfold,
    layers: Vec<(NodeId, ComputeRole)>,
}

/// Ranges that were found.
#[derive(Default)]
pub struct Clipped {
    /// By scale group.
    pub ranges: HashMap<usize, (f32, f32)>,
    /// Sums, over those groups, of the relative squared errors of layer outputs, under the ranges that the search began with
    /// and under those that it found.
    pub errors: (f64, f64),
}

impl ClipSearch {
    /// The inputs of a plan's linear layers.
    pub fn of(model: &Model, plan: &Plan) -> Self {
        let graph = &model.graph;
        let contexts = Contexts::new(model, graph);
        let mut inputs: Vec<Input> = vec![];
        for (id, kind) in plan.structure.integer_nodes() {
            let Kind::Compute(role) = kind else { continue };
            let purpose = ops::spec(&graph.node(id).op).and_then(|s| s.weight(&contexts.of(id))).map(|w| w.purpose);
            let (Some(Purpose::Product(Some((_, unfold)))), Some(value)) = (purpose, graph.input(id, role.activation))
            else {
                continue;
            };
            let layer = (id, role.clone());
            match inputs.iter_mut().find(|i| i.value == value && i.unfold == unfold) {
                Some(input) => input.layers.push(layer),
                None => inputs.push(Input { value, unfold, layers: vec![layer] }),
            }
        }
        Self { inputs }
    }

    /// What to sample, in the order in which [`ClipSearch::search`] takes it.
    pub fn wanted(&self, graph: &Graph) -> Vec<(String, Unfold)> {
        self.inputs.iter().map(|i| (graph.name(i.value).to_string(), i.unfold.clone())).collect()
    }

    /// Elements of the weights that each column tried goes through.
    pub fn work(&self, graph: &Graph) -> usize {
        let weight = |(id, role): &(NodeId, ComputeRole)| {
            graph.input(*id, role.weight).and_then(|w| graph.constant(w)).map_or(0, Tensor::len)
        };
        self.inputs.iter().flat_map(|i| &i.layers).map(weight).sum()
    }

    /// The range of each scale group with the least error of the outputs of the layers that take its values. `ranges` gives
    /// the range of a group to begin with, and all that was observed.
    ///
    /// # Errors
    /// Samples of other values.
    pub fn search(
        &self,
        graph: &Graph,
        plan: &Plan,
        samples: &[Sample],
        ranges: impl Fn(usize) -> Result<[(f32, f32); 2]>,
    ) -> Result<Clipped> {
        let mut by_group: Vec<(usize, Vec<usize>)> = vec![];
        for (k, input) in self.inputs.iter().enumerate() {
            let Some(group) = plan.groups.group(input.value).filter(|&g| only_layers_take(graph, plan, g)) else {
                continue;
            };
            match by_group.iter_mut().find(|(g, _)| *g == group) {
                Some((_, members)) => members.push(k),
                None => by_group.push((group, vec![k])),
            }
        }
        let mut clipped = Clipped::default();
        for (group, members) in by_group {
            let layers: Result<Vec<Vec<Layer>>> = members.iter().map(|&k| self.inputs[k].layers(graph)).collect();
            let layers = layers?;
            let trials: Result<Vec<Option<Trial>>> = members
                .iter()
                .zip(&layers)
                .map(|(&k, l)| self.inputs[k].trial(graph, l, &samples[k], &plan.options))
                .collect();
            let trials: Vec<Trial> = trials?.into_iter().flatten().collect();
            let [start, observed] = ranges(group)?;
            if trials.is_empty() || observed == (0.0, 0.0) {
                continue;
            }
            let (range, before, after) = least(&trials, start, observed);
            clipped.ranges.insert(group, range);
            clipped.errors = (clipped.errors.0 + before, clipped.errors.1 + after);
        }
        Ok(clipped)
    }
}

impl Input {
    fn layers(&self, graph: &Graph) -> Result<Vec<Layer>> {
        self.layers.iter().map(|(id, role)| Layer::of(graph, *id, role)).collect()
    }

    fn trial<'a>(
        &self,
        graph: &Graph,
        layers: &'a [Layer],
        sample: &'a Sample,
        options: &QuantizeOptions,
    ) -> Result<Option<Trial<'a>>> {
        Trial::new(layers, sample, options).context(|| graph.name(self.value).to_string())
    }
}

/// Whether linear layers alone take what the group's range is made from: a residual Add, say, would see more of what is
/// clipped than they do.
fn only_layers_take(graph: &Graph, plan: &Plan, group: usize) -> bool {
    let layer = |u: crate::ir::Use| match (plan.structure.decision(u.node), u.port) {
        (Decision::Integer(Kind::Compute(role)), Port::In(slot)) => role.activation == slot as usize,
        _ => false,
    };
    let alone = |&v: &ValueId| !graph.is_output(v) && graph.uses(v).into_iter().all(layer);
    matches!(plan.groups.sources(group), [v] if alone(v))
}

/// The best range, and the errors of the first and of the best one. Both ends are shrunk together first, then each alone.
fn least(trials: &[Trial], start: (f32, f32), (low, high): (f32, f32)) -> ((f32, f32), f64, f64) {
    let error = |range: (f32, f32)| trials.iter().map(|t| t.error(None, range)).sum::<f64>();
    let before = error(start);
    let mut best = (before, start);
    let mut try_all = |candidates: Vec<(f32, f32)>| {
        let errors: Vec<f64> = candidates.par_iter().map(|&r| error(r)).collect();
        for found in errors.into_iter().zip(candidates) {
            if found.0 < best.0 {
                best = found;
            }
        }
        best.1
    };
    let (l, _) = try_all(SHARES.iter().map(|s| (low * s, high * s)).collect());
    let (_, h) = try_all(SHARES.iter().map(|s| (l, high * s)).collect());
    try_all(SHARES.iter().map(|s| (low * s, h)).collect());
    (best.1, before, best.0)
}
