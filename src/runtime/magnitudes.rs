//! How large the channels of values are on data.

use super::{Runner, RunnerOptions};
use crate::calibrate::ChannelMeans;
use crate::error::{Context, Result};
use crate::io::{Dataset, Feed};
use crate::ir::Model;

/// Root mean square of each channel of some values (name, channel axis), over all of `data`, in that order; `None` of a
/// value that was empty throughout. Constant memory; the result does not depend on the number of threads.
///
/// # Errors
/// Operators that tract cannot run; data that do not fit.
pub fn channel_rms(
    model: &Model,
    wanted: &[(String, usize)],
    data: &Dataset,
    batch: usize,
    tick: &(dyn Fn() + Sync),
) -> Result<Vec<Option<Vec<f32>>>> {
    let moments = channel_moments(model, wanted, data, batch, tick)?;
    let root = |(_, squares): Moments| squares.into_iter().map(f32::sqrt).collect();
    Ok(moments.into_iter().map(|m| m.map(root)).collect())
}

/// Mean, and mean square, of each channel.
pub type Moments = (Vec<f32>, Vec<f32>);

/// Mean and mean square of each channel, as [`channel_rms`].
///
/// # Errors
/// As [`channel_rms`].
pub fn channel_moments(
    model: &Model,
    wanted: &[(String, usize)],
    data: &Dataset,
    batch: usize,
    tick: &(dyn Fn() + Sync),
) -> Result<Vec<Option<Moments>>> {
    let observe = wanted.iter().map(|(name, _)| name.clone()).collect();
    let runner = Runner::new(model, &RunnerOptions { observe, ..RunnerOptions::default() })?;
    let nothing = || vec![[ChannelMeans::default(), ChannelMeans::default()]; wanted.len()];
    let work = |all: &mut Vec<[ChannelMeans; 2]>, i: usize, feed: &Feed| {
        let values = runner.run(feed).context(|| format!("batch {i}"))?;
        let observed = &values[model.graph.outputs().len()..];
        for ((value, mean), (name, axis)) in observed.iter().zip(all).zip(wanted) {
            let place = || format!("value \"{name}\"");
            let x = value.as_f32()?;
            let squares: Vec<f32> = x.iter().map(|x| x * x).collect();
            mean[0].update(&x, value.shape(), *axis as i64).context(place)?;
            mean[1].update(&squares, value.shape(), *axis as i64).context(place)?;
        }
        tick();
        Ok(())
    };
    let parts = data.batches(batch).fold(nothing, work)?;
    let mut all = nothing();
    for part in parts {
        for (a, b) in all.iter_mut().zip(&part) {
            a[0].merge(&b[0])?;
            a[1].merge(&b[1])?;
        }
    }
    Ok(all.iter().map(|[mean, squares]| Some((mean.finish()?, squares.finish()?))).collect())
}
