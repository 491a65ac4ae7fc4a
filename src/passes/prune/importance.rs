//! How much a channel matters.

use crate::analysis::axis_groups::{AxisGroups, Group, Place, Role};
use crate::error::{Context, Result};
use crate::ir::{Graph, Model, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Scores channels: higher is more important. Scores are compared within a group as they are, and between groups after a
/// division by their mean over the group.
pub trait Importance {
    /// One score per class of `group`.
    ///
    /// # Errors
    /// Weights that are no numbers.
    fn scores(&self, model: &Model, groups: &AxisGroups, group: &Group) -> Result<Vec<f64>>;

    /// Whether scores of different groups are in one unit already.
    fn comparable(&self) -> bool {
        false
    }
}

/// What the command line can ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Sum of magnitudes of the coupled weights.
    L1,
    /// Euclidean norm of the coupled weights.
    L2,
    /// Magnitude of the scale of BatchNormalization (Liu et al., Learning Efficient Convolutional Networks through Network
    /// Slimming, 2017); L2 where there is none.
    BnScale,
    /// Distance to the other filters (He et al., Filter Pruning via Geometric Median, 2019).
    Fpgm,
    /// Nothing but chance: what others must beat.
    Random,
    /// Root mean square of the channel's activations on data.
    Activation,
    /// What the outputs of the layers that take the channel lose without it on data, after the best refit of the weights
    /// that stay (Hassibi and Stork, Optimal Brain Surgeon, 1993).
    Hessian,
    /// Sum of `R(w) = E[(dL/dw)^2]` over the coupled weights.
    Fisher,
    /// Sum of `w^2 R(w)` over the coupled weights.
    WeightedFisher,
    /// `E[(sum of w dL/dw)^2]` of the coupled weights (Liu et al., Group Fisher Pruning, 2021).
    GroupFisher,
    /// `E|sum of w dL/dw|` of the coupled weights (Molchanov et al., Importance Estimation for Neural Network Pruning, 2019).
    Taylor,
}

impl Measure {
    /// Whether it is measured with gradients of a loss: scores are handed in as [`ParameterScores`].
    pub fn is_gradient(self) -> bool {
        matches!(self, Self::Fisher | Self::WeightedFisher | Self::GroupFisher | Self::Taylor)
    }
}

/// Importance that was computed from gradients: for constants by name and axis, what the loss loses with each element of the
/// axis. Groups that it knows nothing of go last.
pub struct ParameterScores {
    /// Scores of the elements of an axis.
    pub values: BTreeMap<(String, usize), Vec<f64>>,
}

impl Importance for ParameterScores {
    fn scores(&self, model: &Model, _: &AxisGroups, group: &Group) -> Result<Vec<f64>> {
        let (mut total, mut known) = (vec![0f64; group.classes.len()], false);
        for (at, place) in group.axes.iter().enumerate() {
            let key = (model.graph.name(place.value).to_string(), place.axis);
            let Some(elements) = self.values.get(&key) else { continue };
            total.iter_mut().zip(by_class(group, at, elements)).for_each(|(t, s)| *t += s);
            known = true;
        }
        Ok(if known { total } else { vec![f64::INFINITY; total.len()] })
    }

    fn comparable(&self) -> bool {
        true
    }
}

/// Importance from the weights alone.
pub struct Norm {
    /// Which one; [`Measure::Activation`] needs data ([`ChannelMagnitudes`]) and counts as L2 here.
    pub measure: Measure,
    /// For [`Measure::Random`].
    pub seed: u64,
}

/// Importance from the data: a magnitude per channel of activations, by value name.
pub struct ChannelMagnitudes {
    /// Channel axis and magnitudes of each observed value.
    pub values: HashMap<String, (usize, Vec<f64>)>,
    /// Whether magnitudes of different values are in one unit.
    pub comparable: bool,
}

/// A weight of the group: the constant, the axis, its position among the group's axes, and what it does there.
struct Weight<'a> {
    at: usize,
    place: Place,
    tensor: &'a Tensor,
    role: Role,
}

fn weights<'a>(graph: &'a Graph, groups: &AxisGroups, group: &Group) -> Vec<Weight<'a>> {
    let roles: HashMap<Place, Role> = groups.tied.iter().map(|t| (t.place, t.role)).collect();
    let weight = |(at, &place): (usize, &Place)| {
        let tensor = graph.constant(place.value).filter(|t| t.dtype.is_float())?;
        Some(Weight { at, place, tensor, role: roles.get(&place).copied().unwrap_or(Role::Makes) })
    };
    group.axes.iter().enumerate().filter_map(weight).collect()
}

/// Per element of the axis, the sum of `f` over everything else.
fn along(t: &Tensor, axis: usize, f: impl Fn(f32) -> f64) -> Result<Vec<f64>> {
    let (size, inner) = (t.dims[axis], t.dims[axis + 1..].iter().product::<usize>());
    let mut sums = vec![0f64; size];
    for (k, x) in t.to_f32()?.into_iter().enumerate() {
        sums[k / inner.max(1) % size] += f(x);
    }
    Ok(sums)
}

/// Sums over the elements of each class.
fn by_class(group: &Group, at: usize, elements: &[f64]) -> Vec<f64> {
    group.classes.iter().map(|c| c.members[at].iter().map(|&k| elements[k as usize]).sum()).collect()
}

/// Divided by the mean, so that each weight of a group has one vote whatever its scale.
pub(super) fn normalized(mut scores: Vec<f64>) -> Vec<f64> {
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    if mean > 0.0 {
        scores.iter_mut().for_each(|s| *s /= mean);
    }
    scores
}

impl Importance for Norm {
    fn scores(&self, model: &Model, groups: &AxisGroups, group: &Group) -> Result<Vec<f64>> {
        let graph = &model.graph;
        let mut total = vec![0f64; group.classes.len()];
        let add = |total: &mut Vec<f64>, more: Vec<f64>| {
            total.iter_mut().zip(normalized(more)).for_each(|(t, s)| *t += s);
        };
        if self.measure == Measure::Random {
            return Ok(random(self.seed, &group.name, group.classes.len()));
        }
        let all = weights(graph, groups, group);
        let scales: Vec<&Weight> = all.iter().filter(|w| is_scale(graph, w.place)).collect();
        if self.measure == Measure::BnScale && !scales.is_empty() {
            for w in scales {
                add(&mut total, by_class(group, w.at, &along(w.tensor, 0, |x| f64::from(x.abs()))?));
            }
            return Ok(total);
        }
        for w in all.iter().filter(|w| w.tensor.rank() > 1) {
            let name = || format!("\"{}\"", graph.name(w.place.value));
            let scores = match self.measure {
                Measure::L1 => {
                    by_class(group, w.at, &along(w.tensor, w.place.axis, |x| f64::from(x.abs())).context(name)?)
                }
                Measure::Fpgm if w.role == Role::Makes => distances(group, w).context(name)?,
                Measure::Fpgm => continue,
                _ => {
                    let squares = along(w.tensor, w.place.axis, |x| f64::from(x) * f64::from(x)).context(name)?;
                    by_class(group, w.at, &squares).into_iter().map(f64::sqrt).collect()
                }
            };
            add(&mut total, scores);
        }
        Ok(total)
    }
}

/// Whether a BatchNormalization scales the group's channels, so that [`Measure::BnScale`] means anything there.
pub fn has_norm_scale(graph: &Graph, group: &Group) -> bool {
    group.axes.iter().any(|&place| is_scale(graph, place))
}

/// The scale of a BatchNormalization.
fn is_scale(graph: &Graph, place: Place) -> bool {
    let scales =
        |u: &crate::ir::Use| u.port == crate::ir::Port::In(1) && graph.node(u.node).op.is("BatchNormalization");
    graph.uses(place.value).iter().any(scales)
}

/// Sum of distances of each channel's weights to those of all others.
fn distances(group: &Group, w: &Weight) -> Result<Vec<f64>> {
    let (size, data) = (w.tensor.dims[w.place.axis], w.tensor.to_f32()?);
    let inner = w.tensor.dims[w.place.axis + 1..].iter().product::<usize>().max(1);
    let mut rows: Vec<Vec<f32>> = vec![vec![]; size];
    for (k, run) in data.chunks_exact(inner).enumerate() {
        rows[k % size].extend_from_slice(run);
    }
    let row = |c: usize| group.classes[c].members[w.at].iter().flat_map(|&k| &rows[k as usize]);
    let distance =
        |a: usize, b: usize| row(a).zip(row(b)).map(|(x, y)| f64::from(x - y) * f64::from(x - y)).sum::<f64>().sqrt();
    let n = group.classes.len();
    Ok((0..n).map(|a| (0..n).map(|b| distance(a, b)).sum()).collect())
}

/// Reproducible numbers in 0..1 that depend on the seed and the group's name.
fn random(seed: u64, name: &str, n: usize) -> Vec<f64> {
    let mut state =
        name.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    };
    (0..n).map(|_| next()).collect()
}

impl Importance for ChannelMagnitudes {
    fn scores(&self, model: &Model, _: &AxisGroups, group: &Group) -> Result<Vec<f64>> {
        let mut total = vec![0f64; group.classes.len()];
        let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
        for (at, place) in group.axes.iter().enumerate() {
            let name = model.graph.name(place.value);
            let Some((axis, magnitudes)) = self.values.get(name) else { continue };
            if *axis != place.axis || seen.insert(name, ()).is_some() {
                continue;
            }
            let scores = by_class(group, at, magnitudes);
            let scores = if self.comparable { scores } else { normalized(scores) };
            total.iter_mut().zip(scores).for_each(|(t, s)| *t += s);
        }
        Ok(total)
    }

    fn comparable(&self) -> bool {
        self.comparable
    }
}
