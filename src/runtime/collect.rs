//! Calibration: streams data through a model and collects statistics of its values.

use super::{RunOutput, Runner, RunnerOptions, stream};
use crate::calibrate::{ChannelMeans, Collector, Gram, QuantParams, RangeSpec, Sample};
use crate::error::{Context, Result};
use crate::io::{Dataset, Feed};
use crate::ir::Model;
use crate::math::Unfold;
use rayon::prelude::*;

/// What to collect.
#[derive(Default)]
pub struct Wanted {
    /// Values whose statistics make ranges.
    pub ranges: Vec<String>,
    /// Values whose channel means are wanted, and the axis of the channels (from the end where negative).
    pub means: Vec<(String, i64)>,
    /// Values of which it is wanted what rounding adds to the means of their channels, the axis of those, and how they are
    /// rounded.
    pub drifts: Vec<(String, i64, QuantParams, RangeSpec)>,
    /// Inputs of linear layers to sample columns of, and how the layer sees them.
    pub samples: Vec<(String, Unfold)>,
    /// Columns of each sample.
    pub sample_size: usize,
}

/// What was collected.
pub struct Collected {
    /// Statistics of [`Wanted::ranges`].
    pub statistics: Collector,
    /// Channel means of [`Wanted::means`], in that order.
    pub means: Vec<ChannelMeans>,
    /// What rounding adds to channel means of [`Wanted::drifts`], in that order.
    pub drifts: Vec<ChannelMeans>,
    /// Samples of [`Wanted::samples`], in that order.
    pub samples: Vec<Sample>,
}

/// Collects over all of `data`, batches of `batch` samples in parallel. The result does not depend on the number of
/// threads, and memory does not grow with the number of samples.
///
/// `tick` is called after each batch.
///
/// # Errors
/// Operators that tract cannot run; data that do not fit; NaN or infinity in a value, named.
pub fn collect(
    model: &Model,
    wanted: &Wanted,
    data: &Dataset,
    batch: usize,
    tick: &(dyn Fn() + Sync),
) -> Result<Collected> {
    let (means, samples) = (wanted.means.iter().map(|(name, _)| name), wanted.samples.iter().map(|(name, _)| name));
    let drifts = wanted.drifts.iter().map(|d| &d.0);
    let observe = wanted.ranges.iter().chain(means).chain(drifts).chain(samples).cloned().collect();
    let runner = Runner::new(model, &RunnerOptions { observe, ..RunnerOptions::default() })?;
    // One collector per thread: what they collect merges exactly, in any order.
    let work = |collected: &mut Collected, i: usize, outputs: &[Vec<RunOutput>]| {
        for values in outputs {
            collected.add(wanted, i, &values[model.graph.outputs().len()..])?;
        }
        tick();
        Ok(())
    };
    let parts = stream(&[("calibration", &runner)], data, batch, || Collected::nothing(wanted), work)?;
    let mut all = Collected::nothing(wanted);
    for part in parts {
        all.merge(&part)?;
    }
    Ok(all)
}

/// Gram matrices of what layers see over all of `data`: for each of `inputs`, a value of the main graph and how a layer
/// sees it. The result does not depend on the number of threads; memory grows with the matrices, not with the samples.
///
/// `tick` is called after each batch.
///
/// # Errors
/// Operators that tract cannot run; data that do not fit; a value that the layer cannot take.
pub fn collect_grams(
    model: &Model,
    inputs: &[(String, Unfold)],
    data: &Dataset,
    batch: usize,
    tick: &(dyn Fn() + Sync),
) -> Result<Vec<Gram>> {
    let observe = inputs.iter().map(|(name, _)| name.clone()).collect();
    let runner = Runner::new(model, &RunnerOptions { observe, ..RunnerOptions::default() })?;
    let skip = model.graph.outputs().len();
    let mut grams: Vec<Gram> = inputs.iter().map(|(_, unfold)| Gram::new(unfold.clone())).collect();
    if !data.state().is_empty() {
        let take = |grams: &mut Vec<Gram>, _: usize, outputs: &[Vec<RunOutput>]| {
            outputs.iter().try_for_each(|values| add_values(grams, inputs, &[&values[skip..]]))?;
            tick();
            Ok(())
        };
        let parts = stream(&[("calibration", &runner)], data, batch, || grams.clone(), take)?;
        grams = parts.into_iter().next().unwrap_or(grams);
        grams.par_iter_mut().for_each(Gram::finish);
        return Ok(grams);
    }
    let work = |i: usize, feed: &Feed| {
        let mut values = runner.run(feed).context(|| format!("calibration batch {i}"))?;
        tick();
        Ok(values.split_off(skip))
    };
    data.batches(batch).waves(work, |wave| {
        let values: Vec<&[RunOutput]> = wave.iter().map(Vec::as_slice).collect();
        add_values(&mut grams, inputs, &values)
    })?;
    grams.par_iter_mut().for_each(Gram::finish);
    Ok(grams)
}

/// Adds the values of some feeds, each matrix in the order of the feeds; different matrices go on at once.
fn add_values(grams: &mut [Gram], inputs: &[(String, Unfold)], feeds: &[&[RunOutput]]) -> Result<()> {
    grams.par_iter_mut().enumerate().try_for_each(|(k, gram)| {
        feeds.iter().try_for_each(|values| {
            let value = &values[k];
            gram.add(&value.as_f32()?, value.shape()).context(|| format!("value \"{}\"", inputs[k].0))
        })
    })
}

impl Collected {
    fn nothing(wanted: &Wanted) -> Self {
        let means = vec![ChannelMeans::default(); wanted.means.len()];
        let sample = |(_, unfold): &(_, Unfold)| Sample::new(unfold.clone(), wanted.sample_size);
        let samples = wanted.samples.iter().map(sample).collect();
        let drifts = vec![ChannelMeans::default(); wanted.drifts.len()];
        Self { statistics: Collector::new(wanted.ranges.clone()), means, drifts, samples }
    }

    fn add(&mut self, wanted: &Wanted, batch: usize, values: &[RunOutput]) -> Result<()> {
        let (ranges, inputs) = values.split_at(wanted.ranges.len());
        let (inputs, sampled) = inputs.split_at(wanted.means.len());
        let (rounded, sampled) = sampled.split_at(wanted.drifts.len());
        for (k, value) in ranges.iter().enumerate() {
            self.statistics.observe(k, &value.as_f32()?)?;
        }
        for ((value, mean), (name, axis)) in inputs.iter().zip(&mut self.means).zip(&wanted.means) {
            mean.update(&value.as_f32()?, value.shape(), *axis).context(|| format!("value \"{name}\""))?;
        }
        for ((value, drift), (name, axis, params, spec)) in rounded.iter().zip(&mut self.drifts).zip(&wanted.drifts) {
            let added: Vec<f32> = value.as_f32()?.iter().map(|&x| params.rounded(x, spec) - x).collect();
            drift.update(&added, value.shape(), *axis).context(|| format!("value \"{name}\""))?;
        }
        for ((value, sample), (name, _)) in sampled.iter().zip(&mut self.samples).zip(&wanted.samples) {
            sample.add(batch, &value.as_f32()?, value.shape()).context(|| format!("value \"{name}\""))?;
        }
        Ok(())
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        self.statistics.merge(&other.statistics)?;
        self.samples.iter_mut().zip(&other.samples).try_for_each(|(a, b)| a.merge(b))?;
        self.drifts.iter_mut().zip(&other.drifts).try_for_each(|(a, b)| a.merge(b))?;
        self.means.iter_mut().zip(&other.means).try_for_each(|(a, b)| a.merge(b))
    }
}
