//! What refitting layers of a changed model to the original's outputs asks of the data.

use super::{RunOutput, Runner, RunnerOptions};
use crate::calibrate::Regression;
use crate::error::{Context, Error, Result};
use crate::io::{Dataset, Feed};
use crate::ir::Model;
use crate::math::Unfold;
use rayon::prelude::*;

/// A layer that is to be fitted.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Its input, in the changed model.
    pub input: String,
    /// How it sees it.
    pub unfold: Unfold,
    /// The value that it should give, in the original.
    pub output: String,
    /// Which channels of that the layer still gives, and their axis (from the end where negative); all, where absent.
    pub kept: Option<(i64, Vec<usize>)>,
}

/// For each layer, the sums of a regression of the original's outputs on what the changed model feeds the layer. Both models
/// run on the same samples, each up to the values that are asked for. Memory does not grow with the number of samples; the
/// result does not depend on the number of threads.
///
/// `tick` is called after each batch.
///
/// # Errors
/// Data with state, which the models would have to carry from feed to feed; operators that tract cannot run; data or
/// values that do not fit.
pub fn collect_regressions(
    original: &Model,
    changed: &Model,
    fits: &[Fit],
    data: &Dataset,
    batch: usize,
    tick: &(dyn Fn() + Sync),
) -> Result<Vec<Regression>> {
    if !data.state().is_empty() {
        return Err(Error::unsupported("refitting layers on data whose feeds carry state"));
    }
    let runner = |model: &Model, observe: Vec<String>| {
        Runner::new(model, &RunnerOptions { observe, observed_only: true, ..RunnerOptions::default() })
    };
    let wants = runner(original, fits.iter().map(|f| f.output.clone()).collect())?;
    let gives = runner(changed, fits.iter().map(|f| f.input.clone()).collect())?;
    let mut sums: Vec<Regression> = fits.iter().map(|f| Regression::new(f.unfold.clone())).collect();
    let work = |i: usize, feed: &Feed| {
        let both = gives.run(feed).and_then(|x| Ok((x, wants.run(feed)?)));
        tick();
        both.context(|| format!("calibration batch {i}"))
    };
    data.batches(batch).waves(work, |wave| {
        // Each regression in the order of the feeds; different ones go on at once.
        sums.par_iter_mut().enumerate().try_for_each(|(k, sum)| {
            wave.iter()
                .try_for_each(|(x, y)| add(sum, &fits[k], &x[k], &y[k]).context(|| format!("\"{}\"", fits[k].output)))
        })
    })?;
    sums.par_iter_mut().for_each(Regression::finish);
    Ok(sums)
}

fn add(sum: &mut Regression, fit: &Fit, x: &RunOutput, y: &RunOutput) -> Result<()> {
    let (x_data, y_data) = (x.as_f32()?, y.as_f32()?);
    let Some((axis, kept)) = &fit.kept else { return sum.add((&x_data, x.shape()), (&y_data, y.shape())) };
    let rank = y.shape().len();
    let axis = if *axis < 0 { rank.checked_add_signed(*axis as isize) } else { usize::try_from(*axis).ok() };
    let Some(axis) = axis.filter(|&a| a < rank && kept.iter().all(|&k| k < y.shape()[a])) else {
        return Err(Error::internal("channels that the value does not have"));
    };
    let (size, inner) = (y.shape()[axis], y.shape()[axis + 1..].iter().product::<usize>());
    let blocks = y_data.chunks((size * inner).max(1));
    let rest: Vec<f32> =
        blocks.flat_map(|b| kept.iter().flat_map(move |k| &b[k * inner..][..inner])).copied().collect();
    let mut dims = y.shape().to_vec();
    dims[axis] = kept.len();
    sum.add((&x_data, x.shape()), (&rest, &dims))
}
