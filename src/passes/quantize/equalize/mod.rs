//! Cross-layer equalization: ranges of channels spread evenly over the layers that make and take them.

mod apply;
mod noise;
mod region;

use super::options::QuantizeOptions;
use crate::analysis::shapes::Contexts;
use crate::calibrate::ChannelStatistics;
use crate::error::Result;
use crate::ir::{Graph, Model, NodeId};
use crate::ops::spec::ComputeRole;
use crate::passes::{Effect, Note, Outcome, Pass, PassContext};
use apply::patch;
use noise::Noise;
use region::{Finder, Region};
use std::collections::{BTreeSet, HashMap};

/// Rounds over all regions; a layer between two of them makes each depend on the other.
const ROUNDS: usize = 50;
/// Factors that change by less are settled.
const SETTLED: f64 = 1e-3;
/// Regions whose factors differ by less from 1 are even already.
const WORTH: f64 = 1e-2;

/// Before: `y = f(x * W)`, `z = y * V`. After: `y' = f(x * W / s)`, `z = y' * (s V)`, with `s` per channel such that the
/// channels of `W / s` and `s V` have equal ranges (Nagel et al., Data-Free Quantization through Weight Equalization and Bias
/// Correction, 2019, section 4.1): `s_c = sqrt(range(W_c) / range(V_c))`, repeated until it settles.
///
/// When: all that borders on the values in between is linear layers with weights of their own, and what they go through is
/// positively homogeneous (Relu, LeakyRelu, PRelu, pools, residual Add, ...). A clamp at an upper bound becomes a
/// clamp at one bound per channel, `Min`. No value in between is a graph output.
/// Why it is equal: factors are positive, so they pass through what is homogeneous; sums are of terms with equal factors.
///
/// With statistics of the values around, the factors are instead those with the least rounding noise at the model's outputs,
/// where the ranges of values count as much as those of weights: see the documentation of the module `noise`.
#[derive(Default)]
pub struct EqualizeChannels {
    /// What quantization makes of weights and values.
    pub options: EqualizeOptions,
    /// Statistics of what [`EqualizeChannels::wanted`] names, by name; absent: evened ranges of weights are all there is to go
    /// by.
    pub statistics: Option<HashMap<String, ChannelStatistics>>,
}

/// What noise depends on.
#[derive(Clone, Copy, Debug)]
pub struct EqualizeOptions {
    /// Whether each output channel of a weight has its own scale.
    pub per_channel: bool,
    /// Steps from the least code of a weight to the largest.
    pub weight_levels: f64,
    /// Steps from the least code of a value to the largest.
    pub activation_levels: f64,
}

impl Default for EqualizeOptions {
    fn default() -> Self {
        Self::of(&QuantizeOptions::default())
    }
}

impl EqualizeOptions {
    /// Those of a quantization.
    pub fn of(options: &QuantizeOptions) -> Self {
        Self {
            per_channel: options.per_channel,
            weight_levels: f64::from((1u32 << options.weight_bits) - 1),
            activation_levels: f64::from((1u32 << options.activations.bits()) - 1),
        }
    }
}

impl Pass for EqualizeChannels {
    fn name(&self) -> &'static str {
        "equalize_channels"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let graph = &model.graph;
        let finder = Finder::new(graph, Contexts::new(model, graph));
        let regions = regions(graph, &finder, &mut outcome.notes)?;
        let Some((factors, text)) = self.factors(graph, &regions)? else { return Ok(outcome) };
        let moved = |f: &[f64]| f.iter().any(|s| (s - 1.0).abs() > WORTH);
        let done = factors.iter().filter(|f| moved(f)).count();
        if done == 0 || !cx.burn(self.name()) {
            return Ok(outcome);
        }
        let clamps: usize = regions.iter().map(|r| r.clamps.len()).sum();
        let patch = patch(graph, &finder, &regions, &factors)?;
        patch.apply(&mut model.graph)?;
        outcome.changes = done;
        outcome.notes.push(note("", format!("{done} groups of channels: {text}")));
        if clamps > 0 {
            outcome.notes.push(note("", format!("{clamps} Clip became Min with one bound per channel")));
        }
        Ok(outcome)
    }
}

impl EqualizeChannels {
    /// Values that statistics are wanted of: name, and axis of the channels.
    ///
    /// # Errors
    /// A graph with a cycle.
    pub fn wanted(model: &Model) -> Result<Vec<(String, usize)>> {
        let graph = &model.graph;
        let finder = Finder::new(graph, Contexts::new(model, graph));
        Ok(noise::wanted(graph, &finder, &regions(graph, &finder, &mut vec![])?))
    }

    /// What each channel of each region is divided by, and what that does; `None` where it is not worth it.
    fn factors(&self, graph: &Graph, regions: &[Region]) -> Result<Option<(Vec<Vec<f64>>, String)>> {
        let Settled { factors, before, after } = settle(graph, regions)?;
        let Some(statistics) = &self.statistics else {
            let text = format!(
                "evened ranges, which between two channels of one weight differed up to {before:.0} times, now {after:.1}"
            );
            return Ok(Some((factors, text)));
        };
        let ranges = Ranges::of(graph, regions)?;
        let settled = Noise::of(graph, regions, &ranges, statistics, self.options)?.settle(&factors);
        Ok(settled.map(|(factors, left)| {
            (factors, format!("rounding noise at the outputs is expected to be {:+.1} dB", 10.0 * left.log10()))
        }))
    }
}

fn note(subject: &str, text: String) -> Note {
    Note { pass: "equalize_channels".into(), subject: subject.into(), text }
}

/// All regions, in the order of execution; what is none is noted.
fn regions(graph: &Graph, finder: &Finder, notes: &mut Vec<Note>) -> Result<Vec<Region>> {
    let (mut regions, mut seen) = (vec![], BTreeSet::new());
    for id in graph.order()? {
        if seen.contains(&id) || finder.layer(id).is_err() {
            continue;
        }
        match finder.around(id) {
            Ok(region) => {
                seen.extend(region.makers.iter().map(|m| m.0));
                if !region.takers.is_empty() && region.channels > 1 {
                    regions.push(region);
                }
            }
            Err((why, v)) => {
                notes.push(note(&graph.node(id).label(), format!("not equalized: {why} (\"{}\")", graph.name(v))));
            }
        }
    }
    Ok(regions)
}

/// Largest magnitudes of a layer's weight, for each output channel or each input channel.
struct Ranges {
    layers: HashMap<NodeId, Elements>,
}

/// A weight's elements with their output and input channel.
struct Elements {
    data: Vec<f64>,
    channels: Vec<(u32, u32)>,
}

impl Elements {
    /// Output channel, input channel and largest magnitude of each run of elements that have them in common.
    fn entries(&self) -> Vec<(usize, usize, f64)> {
        let mut entries: Vec<(usize, usize, f64)> = vec![];
        for (x, &(o, i)) in self.data.iter().zip(&self.channels) {
            match entries.last_mut() {
                Some(last) if (last.0, last.1) == (o as usize, i as usize) => last.2 = last.2.max(x.abs()),
                _ => entries.push((o as usize, i as usize, x.abs())),
            }
        }
        entries
    }
}

impl Ranges {
    fn of(graph: &Graph, regions: &[Region]) -> Result<Self> {
        let mut layers = HashMap::new();
        let all = regions.iter().flat_map(|r| {
            let takers = r.takers.iter().map(|(id, role, _)| (*id, role));
            r.makers.iter().map(|(id, role)| (*id, role)).chain(takers)
        });
        for (id, role) in all {
            if layers.contains_key(&id) {
                continue;
            }
            let Some(w) = graph.input(id, role.weight).and_then(|w| graph.constant(w)) else { continue };
            let data = w.to_f32()?.into_iter().map(f64::from).collect();
            layers.insert(id, Elements { data, channels: channels(graph, id, role, &w.dims) });
        }
        Ok(Self { layers })
    }

    fn maxima(&self, id: NodeId, channels: usize, of: impl Fn(&(u32, u32)) -> u32) -> Vec<f64> {
        let mut maxima = vec![0f64; channels];
        let Some(e) = self.layers.get(&id) else { return maxima };
        for (x, c) in e.data.iter().zip(&e.channels) {
            let m = &mut maxima[of(c) as usize];
            *m = m.max(x.abs());
        }
        maxima
    }

    fn scale(&mut self, id: NodeId, factor: impl Fn(&(u32, u32)) -> f64) {
        if let Some(e) = self.layers.get_mut(&id) {
            e.data.iter_mut().zip(&e.channels).for_each(|(x, c)| *x *= factor(c));
        }
    }
}

/// Output and input channel of each element of a layer's weight; inputs of grouped convolutions are counted over all groups.
fn channels(graph: &Graph, id: NodeId, role: &ComputeRole, dims: &[usize]) -> Vec<(u32, u32)> {
    let [rows, columns, inner @ ..] = dims else { return vec![] };
    let inner: usize = inner.iter().product();
    let groups = usize::try_from(graph.node(id).int("group").unwrap_or(1)).unwrap_or(1).max(1);
    let place = |k: usize| {
        let (row, column) = (k / inner / columns, k / inner % columns);
        if role.weight_axis == 0 {
            let group = row / (rows / groups).max(1);
            (row as u32, (group * columns + column) as u32)
        } else {
            (column as u32, row as u32)
        }
    };
    (0..rows * columns * inner).map(place).collect()
}

/// What [`settle`] found.
struct Settled {
    /// What each channel of each region is divided by.
    factors: Vec<Vec<f64>>,
    /// See [`spread`].
    before: f64,
    after: f64,
}

/// What each channel of each region is divided by.
fn settle(graph: &Graph, regions: &[Region]) -> Result<Settled> {
    let mut ranges = Ranges::of(graph, regions)?;
    let mut factors: Vec<Vec<f64>> = regions.iter().map(|r| vec![1.0; r.channels]).collect();
    let before = spread(&ranges, regions);
    for _ in 0..ROUNDS {
        let mut largest = 0f64;
        for (region, total) in regions.iter().zip(&mut factors) {
            let step = step(&ranges, region, total);
            for (id, _) in &region.makers {
                ranges.scale(*id, |c| 1.0 / step[c.0 as usize]);
            }
            for (id, _, repeat) in &region.takers {
                ranges.scale(*id, |c| step[c.1 as usize / repeat]);
            }
            for (total, s) in total.iter_mut().zip(&step) {
                *total *= s;
                largest = largest.max((s - 1.0).abs());
            }
        }
        if largest < SETTLED {
            break;
        }
    }
    Ok(Settled { factors, before, after: spread(&ranges, regions) })
}

/// Largest ratio between the ranges of two output channels of a layer that makes a region.
fn spread(ranges: &Ranges, regions: &[Region]) -> f64 {
    let of_layer = |id: NodeId, channels: usize| {
        let maxima = ranges.maxima(id, channels, |c| c.0);
        let (least, most) =
            maxima.iter().filter(|m| **m > 0.0).fold((f64::MAX, 0f64), |(l, h), &m| (l.min(m), h.max(m)));
        if most > 0.0 { most / least } else { 1.0 }
    };
    let makers = regions.iter().flat_map(|r| r.makers.iter().map(|(id, _)| (*id, r.channels)));
    makers.map(|(id, channels)| of_layer(id, channels)).fold(1.0, f64::max)
}

/// What the channels of a region are to be divided by next. Without a clamp, `sqrt(makers / takers)`: their ranges become
/// equal. With one, the ranges of the values themselves, which are its bounds and so equal at first, count as well:
/// `cbrt(makers * bounds / takers)` makes all three as even as one factor can (least squares of the logarithms).
/// Of several layers the geometric mean; 1 where a channel is all zero on either side.
fn step(ranges: &Ranges, region: &Region, total: &[f64]) -> Vec<f64> {
    let mean = |all: Vec<Vec<f64>>| {
        let n = all.len().max(1) as f64;
        let logarithm = |c: usize| all.iter().map(|m| m[c].ln()).sum::<f64>() / n;
        (0..region.channels).map(logarithm).collect::<Vec<f64>>()
    };
    let makers = mean(region.makers.iter().map(|(id, _)| ranges.maxima(*id, region.channels, |c| c.0)).collect());
    let joined = |(id, _, repeat): &(NodeId, ComputeRole, usize)| {
        let wide = ranges.maxima(*id, region.channels * repeat, |c| c.1);
        wide.chunks(*repeat).map(|part| part.iter().copied().fold(0.0, f64::max)).collect::<Vec<f64>>()
    };
    let takers = mean(region.takers.iter().map(joined).collect());
    let high = region.clamps.iter().map(|c| f64::from(c.2)).fold(0.0, f64::max);
    let logarithm = |c: usize| match high > 0.0 {
        true => (makers[c] + (high / total[c]).ln() - takers[c]) / 3.0,
        false => (makers[c] - takers[c]) / 2.0,
    };
    let usable = |s: f64| if s.is_normal() { s } else { 1.0 };
    (0..region.channels).map(|c| usable(logarithm(c).exp())).collect()
}
