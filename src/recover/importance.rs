//! How much a loss depends on each weight: Fisher information and first-order Taylor.

use super::loss::{cross_entropy, fisher_seed};
use super::random::Random;
use super::samples::Samples;
use super::tape::{Seed, Tape};
use super::{Frozen, Network, NetworkOptions, Parameter};
use crate::error::{Error, Result};
use crate::io::Dataset;
use crate::ir::Model;
use crate::math::{Array, Blocks};
use rayon::prelude::*;

/// How importance is measured.
#[derive(Clone, Debug, Default)]
pub struct ImportanceOptions {
    /// Names of initializers; `None`: all that are trained.
    pub parameters: Option<Vec<String>>,
    /// Whether to go by the labels of the data; else by the model's own output.
    pub labels: bool,
    /// Which graph output the loss is of.
    pub output: usize,
}

/// Which measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// `R(w) = E[(dL/dw)^2]`: the diagonal of the Fisher information.
    Fisher,
    /// `w^2 R(w)`: what the loss is expected to change by when `w` becomes 0, to second order.
    WeightedFisher,
    /// `E[(sum of w dL/dw)^2]` of a channel: the same with what its weights do together (Liu et al. 2021, "Group Fisher
    /// Pruning"); of a single weight, `w^2 R(w)`.
    GroupFisher,
    /// `E|w dL/dw|`: the same, to first order (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning").
    Taylor,
}

/// Importance of the elements of one parameter.
#[derive(Clone, Debug)]
pub struct Importance {
    /// Of what.
    pub parameter: Parameter,
    /// `E[(dL/dw)^2]` per weight.
    pub fisher: Vec<f32>,
    /// `E[w^2 (dL/dw)^2]` per weight.
    pub weighted: Vec<f32>,
    /// `E|w dL/dw|` per weight.
    pub taylor: Vec<f32>,
    /// Per axis and per position along it: `E|sum of w dL/dw|`, the first-order change when all of it becomes 0.
    pub taylor_channels: Vec<Vec<f32>>,
    /// Per axis and per position along it: `E[(sum of w dL/dw)^2]`, the second-order change when all of it becomes 0.
    pub fisher_channels: Vec<Vec<f32>>,
}

impl Importance {
    /// The measure of each weight.
    pub fn weights(&self, measure: Measure) -> &[f32] {
        match measure {
            Measure::Fisher => &self.fisher,
            Measure::WeightedFisher | Measure::GroupFisher => &self.weighted,
            Measure::Taylor => &self.taylor,
        }
    }

    /// The measure of each position along an axis: what its weights are together.
    pub fn channels(&self, measure: Measure, axis: usize) -> Vec<f32> {
        match measure {
            Measure::Taylor => self.taylor_channels.get(axis).cloned().unwrap_or_default(),
            Measure::GroupFisher => self.fisher_channels.get(axis).cloned().unwrap_or_default(),
            _ => along(&Array::new(&self.parameter.dims, self.weights(measure).to_vec()), axis),
        }
    }
}

/// Sums per position along `axis`.
fn along(x: &Array<f32>, axis: usize) -> Vec<f32> {
    let mut reduced = vec![true; x.rank()];
    if let Some(kept) = reduced.get_mut(axis) {
        *kept = false;
    }
    Blocks::new(x.dims(), &reduced).sum(x).data().to_vec()
}

/// Feeds whose gradients are held at once.
const BLOCK: usize = 8;

/// Importance of the weights of `model` on `data`, from the gradient of each sample on its own: of its cross-entropy with
/// the label, or, without labels, of the model's own predictive distribution (outputs that are scores of classes) or of
/// the output itself (others). Also returns what no gradient reaches.
///
/// `tick` is called after each sample.
///
/// # Errors
/// Operators that nobody can compute; labels that do not fit; NaN, with the node that made it.
pub fn importance(
    model: &Model,
    data: &Dataset,
    options: &ImportanceOptions,
    tick: &(dyn Fn() + Sync),
) -> Result<(Vec<Importance>, Vec<Frozen>)> {
    let network =
        Network::<f32>::new(model, &NetworkOptions { parameters: options.parameters.clone(), observe: vec![] })?;
    let (samples, parameters) = (Samples::read(data)?, network.parameters()?);
    if options.labels && samples.labels(&[]).is_none() {
        return Err(Error::usage("importance by labels needs labels in the data"));
    }
    let trained = network.trained(samples.feed(0))?;
    let chosen: Vec<usize> = (0..trained.len()).filter(|&k| trained[k]).collect();
    let mut all: Vec<Importance> = chosen.iter().map(|&k| Importance::nothing(&parameters.list()[k])).collect();
    let one = |i: usize| -> Result<Vec<Vec<Option<Array<f32>>>>> {
        let tape = network.forward(&parameters, samples.feed(i), false)?;
        let labels = if options.labels { samples.labels(&[i]) } else { None };
        let seeds = seeds(&tape, options.output, labels.as_deref(), i)?;
        let grads = seeds.into_iter().map(|gradient| {
            let grads = tape.backward(vec![Seed { output: options.output, gradient }])?.parameters;
            match grads.iter().flatten().all(Array::is_finite) {
                true => Ok(grads),
                false => Err(not_finite(&tape, i)),
            }
        });
        let grads = grads.collect();
        tick();
        grads
    };
    let indices: Vec<usize> = (0..samples.len()).collect();
    let mut rows = 0usize;
    for block in indices.chunks(BLOCK) {
        let found: Result<Vec<_>> = block.par_iter().map(|&i| one(i)).collect();
        for grads in found?.into_iter().flatten() {
            rows += 1;
            let each = all.par_iter_mut().zip(&chosen);
            each.for_each(|(total, &k)| {
                if let Some(g) = &grads[k] {
                    total.add(parameters.values()[k].data(), g);
                }
            });
        }
    }
    all.iter_mut().for_each(|total| total.scale(1.0 / rows.max(1) as f32));
    Ok((all, network.frozen(samples.feed(0))?))
}

fn not_finite(tape: &Tape<f32>, sample: usize) -> Error {
    let node = tape.first_not_finite().unwrap_or_else(|| "a backward function".into());
    Error::data(format!("the gradient of sample {sample} is not finite; {node} made the first NaN or infinity"))
}

/// Gradients by the output, one per sample of the feed, each of that sample's loss alone.
fn seeds(tape: &Tape<f32>, output: usize, labels: Option<&[i64]>, feed: usize) -> Result<Vec<Array<f32>>> {
    let y = tape.output(output)?;
    let whole = match labels {
        Some(labels) => {
            // Of the mean over rows: the rows' own losses are as many times larger.
            let rows = labels.len() as f32;
            cross_entropy(y, labels)?.gradient.map(|g| g * rows)
        }
        None => {
            let base = Random::new(feed as u64).next();
            let sign = |k: usize| Random::new(base.wrapping_add(k as u64)).next() & 1 == 1;
            match y.rank() {
                2.. if y.dims()[1] > 1 => fisher_seed(y, sign)?,
                _ => Array::new(y.dims(), (0..y.len()).map(|k| if sign(k) { 1.0 } else { -1.0 }).collect()),
            }
        }
    };
    let samples = whole.dims().first().copied().unwrap_or(1);
    if samples <= 1 {
        return Ok(vec![whole]);
    }
    let row = whole.len() / samples;
    let only = |s: usize| {
        let keep = |k: usize| if k / row == s { whole.data()[k] } else { 0.0 };
        Array::new(whole.dims(), (0..whole.len()).map(keep).collect())
    };
    Ok((0..samples).map(only).collect())
}

impl Importance {
    fn nothing(parameter: &Parameter) -> Self {
        let n = parameter.dims.iter().product();
        Self {
            parameter: parameter.clone(),
            fisher: vec![0.0; n],
            weighted: vec![0.0; n],
            taylor: vec![0.0; n],
            taylor_channels: parameter.dims.iter().map(|&d| vec![0.0; d]).collect(),
            fisher_channels: parameter.dims.iter().map(|&d| vec![0.0; d]).collect(),
        }
    }

    fn add(&mut self, w: &[f32], gradient: &Array<f32>) {
        let products: Vec<f32> = w.iter().zip(gradient.data()).map(|(w, g)| w * g).collect();
        self.fisher.iter_mut().zip(gradient.data()).for_each(|(r, g)| *r += g * g);
        self.weighted.iter_mut().zip(&products).for_each(|(r, p)| *r += p * p);
        self.taylor.iter_mut().zip(&products).for_each(|(r, p)| *r += p.abs());
        let products = Array::new(gradient.dims(), products);
        let channels = self.taylor_channels.iter_mut().zip(&mut self.fisher_channels);
        for (axis, (taylor, fisher)) in channels.enumerate() {
            for ((t, f), s) in taylor.iter_mut().zip(fisher).zip(along(&products, axis)) {
                *t += s.abs();
                *f += s * s;
            }
        }
    }

    fn scale(&mut self, by: f32) {
        let all = [&mut self.fisher, &mut self.weighted, &mut self.taylor];
        let channels = self.taylor_channels.iter_mut().chain(&mut self.fisher_channels);
        all.into_iter().chain(channels).flatten().for_each(|x| *x *= by);
    }
}
