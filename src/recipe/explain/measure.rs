//! Models between the original and the quantized one, executed.

use super::super::progress::Progress;
use super::RoundingReport;
use super::read::Found;
use crate::drift;
use crate::error::Result;
use crate::io::Dataset;
use crate::ir::{DType, Model, Tensor};
use crate::passes::quantize::{Rounded, Simulate, rounded_name};
use crate::passes::{Pass, PassContext, manager};
use crate::runtime::{RunOutput, Runner, RunnerOptions, stream};
use std::collections::BTreeSet;

/// More roundings than this are put in from one side only.
const BOTH_WAYS: usize = 160;

/// The original, the model with the weights' final shapes, and what can be rounded in it.
pub(super) struct Hybrids<'a> {
    pub original: &'a Model,
    pub base: &'a Model,
    pub found: &'a [Found],
    pub data: &'a Dataset,
    pub batch: usize,
    /// Position of the output that counts.
    pub output: usize,
}

impl Hybrids<'_> {
    fn model(&self, chosen: &[usize]) -> Result<Model> {
        let mut model = self.base.clone();
        let roundings = chosen.iter().map(|&k| self.found[k].rounded.clone()).collect();
        let pass = Simulate { roundings };
        manager::run(&mut model, &[&pass as &dyn Pass], &PassContext::default(), None)?;
        Ok(model)
    }

    /// Squared relative L2 of the output with these roundings.
    fn energy(&self, chosen: &[usize]) -> Result<f64> {
        let model = self.model(chosen)?;
        let outputs = drift::compare(self.original, &model, self.data, self.batch, &|| {})?;
        Ok(outputs[self.output].relative_l2.powi(2))
    }

    /// What each rounding adds, on average over both orders.
    pub fn shares(&self, progress: &dyn Progress) -> Result<Vec<f64>> {
        let n = self.found.len();
        let both = n <= BOTH_WAYS;
        progress.start("putting roundings in", if both { 2 * n } else { n });
        let mut shares = self.one_way(&(0..n).collect::<Vec<_>>(), progress)?;
        if both {
            let reverse: Vec<usize> = (0..n).rev().collect();
            let other = self.one_way(&reverse, progress)?;
            shares.iter_mut().zip(other).for_each(|(a, b)| *a = (*a + b) / 2.0);
        }
        progress.finish();
        Ok(shares)
    }

    fn one_way(&self, order: &[usize], progress: &dyn Progress) -> Result<Vec<f64>> {
        let mut shares = vec![0.0; order.len()];
        let mut before = 0.0;
        for k in 0..order.len() {
            let after = self.energy(&order[..=k])?;
            shares[order[k]] = after - before;
            before = after;
            progress.tick();
        }
        Ok(shares)
    }

    /// Everything but the shares.
    pub fn rows(&self) -> Result<Vec<RoundingReport>> {
        let observed = self.observe()?;
        let mut observed = observed.into_iter();
        let row = |f: &Found| match &f.rounded {
            Rounded::Weight { inputs, .. } => weight_row(f, inputs),
            Rounded::Activation { .. } => Ok(activation_row(f, &observed.next().unwrap_or_default())),
        };
        self.found.iter().map(row).collect()
    }

    /// What each activation looks like, in the float model and in the one with all roundings.
    fn observe(&self) -> Result<Vec<Observed>> {
        let names: Vec<&Found> =
            self.found.iter().filter(|f| matches!(f.rounded, Rounded::Activation { .. })).collect();
        let all: Vec<usize> = (0..self.found.len()).collect();
        let rounded = self.model(&all)?;
        let exact: Vec<String> = names.iter().map(|f| f.value.clone()).collect();
        let outputs: BTreeSet<&str> = rounded.graph.outputs().iter().map(|&v| rounded.graph.name(v)).collect();
        // The rounded form of an output has its name.
        let arrived = |f: &&Found| match rounded.graph.find(&rounded_name(&f.value)) {
            Some(_) => rounded_name(&f.value),
            None if outputs.contains(&*f.value) => f.value.clone(),
            None => f.value.clone(),
        };
        let arriving: Vec<String> = names.iter().map(arrived).collect();
        let runner = |model: &Model, observe: Vec<String>| {
            Runner::new(model, &RunnerOptions { observe, ..RunnerOptions::default() })
        };
        let (a, b) = (runner(self.base, exact)?, runner(&rounded, arriving)?);
        let first = self.base.graph.outputs().len();
        let work = |sums: &mut Vec<Observed>, _: usize, outputs: &[Vec<RunOutput>]| {
            let [u, v] = outputs else { return Ok(()) };
            for (k, f) in names.iter().enumerate() {
                sums[k].add(&f.rounded, &u[first + k].as_f32()?, &v[first + k].as_f32()?);
            }
            Ok(())
        };
        let models = [("the original", &a), ("the model with all roundings", &b)];
        let parts = stream(&models, self.data, self.batch, || vec![Observed::default(); names.len()], work)?;
        let mut total = vec![Observed::default(); names.len()];
        for part in parts {
            total.iter_mut().zip(&part).for_each(|(a, b)| a.merge(b));
        }
        Ok(total)
    }
}

/// Sums over the elements of one value.
#[derive(Clone, Debug, Default)]
struct Observed {
    count: u64,
    signal: f64,
    noise: f64,
    arriving: f64,
    clipped: u64,
    peak: f64,
    /// Smallest and largest code that an element was near.
    codes: Option<(i64, i64)>,
}

impl Observed {
    fn add(&mut self, rounded: &Rounded, exact: &[f32], arriving: &[f32]) {
        let Rounded::Activation { scale, zero_point, .. } = rounded else { return };
        let zero = zero_point.scalar_i64().unwrap_or(0);
        let (low, high) = bounds(zero_point.dtype);
        for (x, y) in exact.iter().zip(arriving) {
            let free = (x / scale).round_ties_even() as i64 + zero;
            let code = free.clamp(low, high);
            let back = scale * (code - zero) as f32;
            self.count += 1;
            self.signal += f64::from(*x).powi(2);
            self.noise += f64::from(x - back).powi(2);
            self.arriving += f64::from(x - y).powi(2);
            self.clipped += u64::from(free != code);
            self.peak = self.peak.max(f64::from(x.abs()));
            let (a, b) = self.codes.unwrap_or((code, code));
            self.codes = Some((a.min(code), b.max(code)));
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.signal += other.signal;
        self.noise += other.noise;
        self.arriving += other.arriving;
        self.clipped += other.clipped;
        self.peak = self.peak.max(other.peak);
        self.codes = match (self.codes, other.codes) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (a, b) => a.or(b),
        };
    }
}

fn bounds(dtype: DType) -> (i64, i64) {
    match dtype {
        DType::I8 => (-128, 127),
        DType::U16 => (0, 65535),
        DType::I16 => (-32768, 32767),
        _ => (0, 255),
    }
}

fn activation_row(f: &Found, o: &Observed) -> RoundingReport {
    let dtype = match &f.rounded {
        Rounded::Activation { zero_point, .. } => zero_point.dtype,
        Rounded::Weight { .. } => DType::U8,
    };
    let (low, high) = bounds(dtype);
    let levels = (high - low + 1) as f64;
    let used = o.codes.map_or(0.0, |(a, b)| (b - a + 1) as f64);
    RoundingReport {
        kind: "activation",
        layer: f.layer.clone(),
        op: f.op.clone(),
        value: f.value.clone(),
        sqnr_db: decibel(o.signal, o.noise),
        arriving_sqnr_db: Some(decibel(o.signal, o.arriving)),
        share: 0.0,
        saturated: Some(100.0 * o.clipped as f64 / o.count.max(1) as f64),
        unused_range: Some(100.0 * (1.0 - used / levels)),
        peak: o.peak / (o.signal / o.count.max(1) as f64).sqrt().max(f64::MIN_POSITIVE),
    }
}

fn weight_row(f: &Found, inputs: &[(usize, Tensor)]) -> Result<RoundingReport> {
    let exact = f.exact.as_ref().map(Tensor::to_f32).transpose()?.unwrap_or_default();
    let rounded = inputs.first().map(|(_, t)| t.to_f32()).transpose()?.unwrap_or_default();
    let (mut signal, mut noise, mut peak) = (0f64, 0f64, 0f64);
    for (x, y) in exact.iter().zip(&rounded) {
        signal += f64::from(*x).powi(2);
        noise += f64::from(x - y).powi(2);
        peak = peak.max(f64::from(x.abs()));
    }
    Ok(RoundingReport {
        kind: "weight",
        layer: f.layer.clone(),
        op: f.op.clone(),
        value: f.value.clone(),
        sqnr_db: decibel(signal, noise),
        arriving_sqnr_db: None,
        share: 0.0,
        saturated: None,
        unused_range: None,
        peak: peak / (signal / exact.len().max(1) as f64).sqrt().max(f64::MIN_POSITIVE),
    })
}

/// Signal over noise; capped so that it stays a number in JSON.
fn decibel(signal: f64, noise: f64) -> f64 {
    const MOST: f64 = 200.0;
    if noise == 0.0 || signal == 0.0 {
        return MOST;
    }
    (10.0 * (signal / noise).log10()).min(MOST)
}
