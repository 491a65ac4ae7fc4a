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
    let observe = wanted.iter().map(|(name, _)| name.clone()).collect();
    let runner = Runner::new(model, &RunnerOptions { observe, ..RunnerOptions::default() })?;
    let work = |means: &mut Vec<ChannelMeans>, i: usize, feed: &Feed| {
        let values = runner.run(feed).context(|| format!("batch {i}"))?;
        let observed = &values[model.graph.outputs().len()..];
        for ((value, mean), (name, axis)) in observed.iter().zip(means).zip(wanted) {
            let squares: Vec<f32> = value.as_f32()?.iter().map(|x| x * x).collect();
            mean.update(&squares, value.shape(), *axis as i64).context(|| format!("value \"{name}\""))?;
        }
        tick();
        Ok(())
    };
    let parts = data.batches(batch).fold(|| vec![ChannelMeans::default(); wanted.len()], work)?;
    let mut all = vec![ChannelMeans::default(); wanted.len()];
    for part in parts {
        all.iter_mut().zip(&part).try_for_each(|(a, b)| a.merge(b))?;
    }
    let root = |m: &ChannelMeans| Some(m.finish()?.into_iter().map(f32::sqrt).collect());
    Ok(all.iter().map(root).collect())
}
