//! Rounding noise at a model's outputs as a function of the factors, and the factors with the least of it.
//!
//! Rounding to steps `D` adds noise of variance `D^2 / 12`, independent of everything else (Widrow and Kollar, Quantization
//! Noise, 2008, chapter 7). With values of a channel `c` divided by `s_c`, and a gain `g_c` from errors there to the outputs:
//! ```text
//! a value:   sum over c of  g_c s_c^2 D^2 / 12,            D = (max_c high_c / s_c - min_c low_c / s_c) / levels
//! a weight:  sum over o of  g_o s_o^2 D_o^2 / 12 * P_o,    D_o = 2 max_i |W_oi| s_i / s_o / levels,  P_o = sum over i of E_i / s_i^2
//! ```
//! where `E_i` is the mean square of a weight's input. Without a scale per channel `D_o` is the largest of all. Ranges of a
//! whole tensor are set by their largest channel, so the sum has kinks; it is lowered with p-norms in the place of maxima, by
//! Rprop (Riedmiller and Braun, 1993), with `p` growing.

use super::region::{Finder, Region};
use super::{EqualizeOptions, NodeId, Ranges};
use crate::calibrate::ChannelStatistics;
use crate::error::{Error, Result};
use crate::ir::{Graph, ValueId};
use crate::ops::spec::ComputeRole;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Exponents of the norms, and steps with each.
const STAGES: [(i32, usize); 4] = [(4, 60), (8, 60), (16, 60), (32, 60)];
/// Factors stay within `exp(MOST)` of 1.
const MOST: f64 = 7.0;
/// Noise must become less by this factor for factors to be worth writing.
const WORTH: f64 = 0.97;

/// Names of the values that statistics are wanted of, and the axes of their channels: what layers around regions take and
/// give.
pub(super) fn wanted(graph: &Graph, finder: &Finder, regions: &[Region]) -> Vec<(String, usize)> {
    let mut values: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (id, role) in layers(regions) {
        let ends = [graph.input(id, role.activation), graph.output(id, 0)];
        for v in ends.into_iter().flatten() {
            if let Some(axis) = finder.channel_axis(id, v) {
                values.insert(v, axis);
            }
        }
    }
    values.into_iter().map(|(v, axis)| (graph.name(v).to_string(), axis)).collect()
}

fn layers(regions: &[Region]) -> BTreeMap<NodeId, &ComputeRole> {
    let takers = regions.iter().flat_map(|r| r.takers.iter().map(|(id, role, _)| (*id, role)));
    regions.iter().flat_map(|r| r.makers.iter().map(|(id, role)| (*id, role))).chain(takers).collect()
}

/// What a weight adds.
struct Weight<'a> {
    /// Output channel, input channel, largest magnitude.
    entries: Vec<(usize, usize, f64)>,
    /// Elements of an entry.
    kernel: f64,
    energy: &'a [f64],
    gain: &'a [f64],
    /// Region of its inputs, and how many neighbouring inputs share a factor.
    from: Option<(usize, usize)>,
    /// Region of its outputs.
    to: Option<usize>,
}

/// What a value adds.
struct Value<'a> {
    region: usize,
    repeat: usize,
    statistics: &'a ChannelStatistics,
}

/// All that adds noise.
pub(super) struct Noise<'a> {
    weights: Vec<Weight<'a>>,
    values: Vec<Value<'a>>,
    channels: Vec<usize>,
    options: EqualizeOptions,
}

/// Logarithms of factors, or derivatives by them: by region and channel.
type Factors = Vec<Vec<f64>>;

impl<'a> Noise<'a> {
    /// # Errors
    /// Statistics that are missing or of another model.
    pub fn of(
        graph: &Graph,
        regions: &[Region],
        ranges: &Ranges,
        statistics: &'a HashMap<String, ChannelStatistics>,
        options: EqualizeOptions,
    ) -> Result<Self> {
        let known = |v: Option<ValueId>| {
            let name = v.map(|v| graph.name(v)).unwrap_or_default();
            statistics.get(name).ok_or_else(|| Error::internal(format!("no statistics of \"{name}\"")))
        };
        let (mut weights, mut values) = (vec![], vec![]);
        for (id, role) in layers(regions) {
            let Some(elements) = ranges.layers.get(&id) else { continue };
            let (input, output) = (known(graph.input(id, role.activation))?, known(graph.output(id, 0))?);
            let taker = |r: &Region| r.takers.iter().find(|t| t.0 == id).map(|t| t.2);
            let from = regions.iter().enumerate().find_map(|(k, r)| Some((k, taker(r)?)));
            let to = regions.iter().position(|r| r.makers.iter().any(|m| m.0 == id));
            let entries = elements.entries();
            let kernel = elements.data.len() as f64 / entries.len().max(1) as f64;
            let fits = |&(o, i, _): &(usize, usize, f64)| o < output.gain.len() && i < input.energy.len();
            if !entries.iter().all(fits) {
                return Err(Error::internal("statistics of other channels"));
            }
            weights.push(Weight { entries, kernel, energy: &input.energy, gain: &output.gain, from, to });
        }
        for (region, r) in regions.iter().enumerate() {
            let mut seen = BTreeSet::new();
            for (id, role, repeat) in &r.takers {
                let v = graph.input(*id, role.activation);
                if seen.insert(v) {
                    values.push(Value { region, repeat: *repeat, statistics: known(v)? });
                }
            }
        }
        Ok(Self { weights, values, channels: regions.iter().map(|r| r.channels).collect(), options })
    }

    /// The factors with the least noise, starting from `start`; `None` where they are hardly better than none.
    pub fn settle(&self, start: &Factors) -> Option<(Factors, f64)> {
        let none: Factors = self.channels.iter().map(|&n| vec![0.0; n]).collect();
        let start: Factors = start.iter().map(|f| f.iter().map(|s| s.ln()).collect()).collect();
        let without = self.value(&none);
        let mut best = (self.value(&start), start);
        if without < best.0 {
            best = (without, none);
        }
        let mut at = best.1.clone();
        for (p, steps) in STAGES {
            self.descend(&mut at, p, steps);
            let found = self.value(&at);
            if found < best.0 {
                best = (found, at.clone());
            }
        }
        let factors = best.1.into_iter().map(|f| f.into_iter().map(f64::exp).collect()).collect();
        (best.0 < WORTH * without).then_some((factors, best.0 / without))
    }

    fn descend(&self, at: &mut Factors, p: i32, steps: usize) {
        let zero: Factors = at.iter().map(|f| vec![0.0; f.len()]).collect();
        let mut step: Factors = at.iter().map(|f| vec![0.05; f.len()]).collect();
        let mut before = zero.clone();
        for _ in 0..steps {
            let mut slope = zero.clone();
            self.noise(at, Some(p), &mut slope);
            for (((at, step), before), slope) in at.iter_mut().zip(&mut step).zip(&mut before).zip(&slope) {
                for (((x, step), before), &slope) in at.iter_mut().zip(step).zip(before).zip(slope) {
                    let turned = *before * slope;
                    *step = if turned < 0.0 { *step * 0.5 } else { (*step * 1.2).min(0.5) };
                    *before = if turned < 0.0 { 0.0 } else { slope };
                    let sign = if slope == 0.0 { 0.0 } else { slope.signum() };
                    *x = (*x - sign * *step).clamp(-MOST, MOST);
                }
            }
        }
    }

    /// The noise with factors `exp(at)`.
    fn value(&self, at: &Factors) -> f64 {
        self.noise(at, None, &mut vec![])
    }

    /// The noise with factors `exp(at)`: with maxima, or with `p`-norms in their place and derivatives added to `slope`.
    fn noise(&self, at: &Factors, p: Option<i32>, slope: &mut Factors) -> f64 {
        let weights: f64 = self.weights.iter().map(|w| self.of_weight(w, at, p, slope)).sum();
        weights + self.values.iter().map(|v| self.of_value(v, at, p, slope)).sum::<f64>()
    }

    fn of_weight(&self, w: &Weight, at: &Factors, p: Option<i32>, slope: &mut Factors) -> f64 {
        let outputs = w.gain.len();
        let input = |i: usize| w.from.map_or(0.0, |(r, repeat)| at[r][i / repeat]);
        let output = |o: usize| w.to.map_or(0.0, |r| at[r][o]);
        let own = |o: usize| if self.options.per_channel { o } else { 0 };
        let scaled: Vec<f64> = w.entries.iter().map(|&(o, i, x)| x * (input(i) - output(o)).exp()).collect();
        let mut norms = vec![Norm::default(); if self.options.per_channel { outputs } else { 1 }];
        w.entries.iter().zip(&scaled).for_each(|(&(o, ..), &x)| norms[own(o)].see(x));
        w.entries.iter().zip(&scaled).for_each(|(&(o, ..), &x)| norms[own(o)].add(x, p));
        let mut taken = vec![0.0; outputs]; // P_o
        let part = |i: usize| w.kernel * w.energy[i] * (-2.0 * input(i)).exp();
        w.entries.iter().for_each(|&(o, i, _)| taken[o] += part(i));
        let step = 2.0 / self.options.weight_levels;
        let unit: Vec<f64> = (0..outputs)
            .map(|o| w.gain[o] * (2.0 * output(o)).exp() * (step * norms[own(o)].value(p)).powi(2) / 12.0)
            .collect();
        let noise: Vec<f64> = unit.iter().zip(&taken).map(|(u, p)| u * p).collect();
        let total = noise.iter().sum();
        if p.is_none() {
            return total;
        }
        let mut by_norm = vec![0.0; norms.len()];
        noise.iter().enumerate().for_each(|(o, n)| by_norm[own(o)] += 2.0 * n);
        if let Some(r) = w.to {
            noise.iter().enumerate().for_each(|(o, n)| slope[r][o] += 2.0 * n);
        }
        for (&(o, i, _), &x) in w.entries.iter().zip(&scaled) {
            let share = by_norm[own(o)] * norms[own(o)].share(x, p);
            if let Some(r) = w.to {
                slope[r][o] -= share;
            }
            if let Some((r, repeat)) = w.from {
                slope[r][i / repeat] += share - 2.0 * unit[o] * part(i);
            }
        }
        total
    }

    fn of_value(&self, v: &Value, at: &Factors, p: Option<i32>, slope: &mut Factors) -> f64 {
        let (s, at) = (v.statistics, &at[v.region]);
        let scaled = |x: &[f32], sign: f64| -> Vec<f64> {
            x.iter().enumerate().map(|(c, &x)| sign * f64::from(x) * (-at[c / v.repeat]).exp()).collect()
        };
        let ends = [scaled(&s.high, 1.0), scaled(&s.low, -1.0)].map(|end| {
            let mut norm = Norm::default();
            end.iter().for_each(|&x| norm.see(x));
            end.iter().for_each(|&x| norm.add(x, p));
            (norm, end)
        });
        let range: f64 = ends.iter().map(|(norm, _)| norm.value(p)).sum();
        let unit = (range / self.options.activation_levels).powi(2) / 12.0;
        let noise: Vec<f64> =
            s.gain.iter().enumerate().map(|(c, g)| unit * g * (2.0 * at[c / v.repeat]).exp()).collect();
        let total: f64 = noise.iter().sum();
        if p.is_none() || range == 0.0 {
            return total;
        }
        for (c, n) in noise.iter().enumerate() {
            let pulled: f64 = ends.iter().map(|(norm, end)| norm.value(p) * norm.share(end[c], p)).sum();
            slope[v.region][c / v.repeat] += 2.0 * n - 2.0 * total / range * pulled;
        }
        total
    }
}

/// The largest of non-negative numbers, or their p-norm.
#[derive(Clone, Default)]
struct Norm {
    largest: f64,
    sum: f64,
}

impl Norm {
    fn see(&mut self, x: f64) {
        self.largest = self.largest.max(x);
    }

    fn power(&self, x: f64, p: i32) -> f64 {
        if self.largest > 0.0 { (x / self.largest).powi(p) } else { 0.0 }
    }

    fn add(&mut self, x: f64, p: Option<i32>) {
        self.sum += p.map_or(0.0, |p| self.power(x, p));
    }

    fn value(&self, p: Option<i32>) -> f64 {
        self.largest * p.map_or(1.0, |p| self.sum.powf(1.0 / f64::from(p)))
    }

    /// Derivative of the norm's logarithm by that of one of the numbers.
    fn share(&self, x: f64, p: Option<i32>) -> f64 {
        p.filter(|_| self.sum > 0.0).map_or(0.0, |p| self.power(x, p) / self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(scales: &[f32]) -> ChannelStatistics {
        ChannelStatistics {
            low: scales.iter().map(|s| -0.25 * s).collect(),
            high: scales.to_vec(),
            energy: scales.iter().map(|s| f64::from(s * s) / 3.0).collect(),
            gain: scales.iter().map(|s| 1.0 + f64::from(*s)).collect(),
        }
    }

    /// `x (2 channels) -> W -> region 0 (3 channels) -> V -> 2 outputs`, with region 0 seen twice side by side by `V`.
    fn noise<'a>(x: &'a ChannelStatistics, y: &'a ChannelStatistics, z: &'a ChannelStatistics, own: bool) -> Noise<'a> {
        let dense = |outputs: usize, inputs: usize, row: [f64; 3]| -> Vec<(usize, usize, f64)> {
            let at = |o: usize, i: usize| row[(o + i) % 3] * (1.0 + 0.1 * i as f64);
            (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i, at(o, i)))).collect()
        };
        let w = Weight {
            entries: dense(3, 2, [1.0, 20.0, 0.3]),
            kernel: 9.0,
            energy: &x.energy,
            gain: &y.gain[..3],
            from: None,
            to: Some(0),
        };
        let v = Weight {
            entries: dense(2, 6, [0.5, 0.1, 2.0]),
            kernel: 1.0,
            energy: &y.energy,
            gain: &z.gain,
            from: Some((0, 2)),
            to: None,
        };
        let options = EqualizeOptions { per_channel: own, weight_levels: 15.0, activation_levels: 15.0 };
        Noise {
            weights: vec![w, v],
            values: vec![Value { region: 0, repeat: 2, statistics: y }],
            channels: vec![3],
            options,
        }
    }

    #[test]
    fn slopes_are_those_of_central_differences() {
        let (x, y, z) = (statistics(&[1.0, 3.0]), statistics(&[4.0, 5.0, 0.5, 0.7, 9.0, 1.0]), statistics(&[1.0, 2.0]));
        for own in [false, true] {
            let noise = noise(&x, &y, &z, own);
            let at = vec![vec![0.3, -0.8, 0.1]];
            let mut slope = vec![vec![0.0; 3]];
            noise.noise(&at, Some(8), &mut slope);
            for c in 0..3 {
                let value = |by: f64| {
                    let mut at = at.clone();
                    at[0][c] += by;
                    noise.noise(&at, Some(8), &mut vec![vec![0.0; 3]])
                };
                let numeric = (value(1e-5) - value(-1e-5)) / 2e-5;
                assert!(
                    (slope[0][c] - numeric).abs() < 1e-6 * numeric.abs().max(1.0),
                    "{c}: {} {numeric}",
                    slope[0][c]
                );
            }
        }
    }

    #[test]
    fn factors_lower_the_noise_or_are_left_alone() {
        let (x, y, z) = (statistics(&[1.0, 3.0]), statistics(&[4.0, 5.0, 0.5, 0.7, 9.0, 1.0]), statistics(&[1.0, 2.0]));
        let noise = noise(&x, &y, &z, false);
        let (factors, left) = noise.settle(&vec![vec![1.0; 3]]).unwrap();
        let logarithms = vec![factors[0].iter().map(|f| f.ln()).collect::<Vec<f64>>()];
        let value = |at: &Factors| noise.value(at);
        let before = value(&vec![vec![0.0; 3]]);
        assert!((value(&logarithms) / before - left).abs() < 1e-9 && left < 0.85, "{left}");
        // Every other start is no better: the sum is not convex, but small.
        for k in 0..50 {
            let at = vec![(0..3).map(|c| f64::from((k * 7 + c * 5) % 11) / 2.0 - 2.5).collect::<Vec<f64>>()];
            assert!(value(&at) > 0.98 * value(&logarithms), "{at:?}");
        }
        let even = statistics(&[1.0; 6]);
        let mut noise = Noise { weights: vec![], ..noise };
        noise.values[0].statistics = &even;
        assert!(noise.settle(&vec![vec![1.0; 3]]).is_none());
    }
}
