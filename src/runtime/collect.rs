//! Calibration: streams data through a model and collects statistics of its values.

use super::{RunOutput, Runner, RunnerOptions, stream};
use crate::calibrate::{ChannelMeans, Collector};
use crate::error::{Context, Result};
use crate::io::Dataset;
use crate::ir::Model;

/// What to collect.
pub struct Wanted {
    /// Values whose statistics make ranges.
    pub ranges: Vec<String>,
    /// Values whose channel means are wanted, and the axis of the channels (from the end where negative).
    pub means: Vec<(String, i64)>,
}

/// What was collected.
pub struct Collected {
    /// Statistics of [`Wanted::ranges`].
    pub statistics: Collector,
    /// Channel means of [`Wanted::means`], in that order.
    pub means: Vec<ChannelMeans>,
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
    let observe = wanted.ranges.iter().chain(wanted.means.iter().map(|(name, _)| name)).cloned().collect();
    let runner = Runner::new(model, &RunnerOptions { observe, ..RunnerOptions::default() })?;
    // One collector per thread: what they collect merges exactly, in any order.
    let work = |collected: &mut Collected, _: usize, outputs: &[Vec<RunOutput>]| {
        for values in outputs {
            collected.add(wanted, &values[model.graph.outputs().len()..])?;
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

impl Collected {
    fn nothing(wanted: &Wanted) -> Self {
        let means = vec![ChannelMeans::default(); wanted.means.len()];
        Self { statistics: Collector::new(wanted.ranges.clone()), means }
    }

    fn add(&mut self, wanted: &Wanted, values: &[RunOutput]) -> Result<()> {
        let (ranges, inputs) = values.split_at(wanted.ranges.len());
        for (k, value) in ranges.iter().enumerate() {
            self.statistics.observe(k, &value.as_f32()?)?;
        }
        for ((value, mean), (name, axis)) in inputs.iter().zip(&mut self.means).zip(&wanted.means) {
            mean.update(&value.as_f32()?, value.shape(), *axis).context(|| format!("value \"{name}\""))?;
        }
        Ok(())
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        self.statistics.merge(&other.statistics)?;
        self.means.iter_mut().zip(&other.means).try_for_each(|(a, b)| a.merge(b))
    }
}
