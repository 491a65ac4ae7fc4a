//! Running models over data: feeds in parallel, or one after another where a model's state connects them.

use super::{RunOutput, Runner};
use crate::error::{Context, Result};
use crate::io::{Dataset, Feed};

/// Runs every model on every feed of `data` (batches of `batch` samples) and gives the outputs, by model, to `work`, with
/// the number of the feed. Each thread folds into a state of its own, made by `init`; they combine in any order.
///
/// Where the data have [state](Dataset::state), feeds run in order on one thread, and each model takes its own outputs of
/// the feed before: what quantization does to a state accumulates as it would in use.
///
/// `models` are runners with what they are called in messages.
///
/// # Errors
/// A feed that cannot be read, a model that does not run on it, what `work` reports.
pub fn stream<S: Send>(
    models: &[(&str, &Runner)],
    data: &Dataset,
    batch: usize,
    init: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize, &[Vec<RunOutput>]) -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let batches = data.batches(batch);
    let run = |k: usize, feed: &Feed| models[k].1.run(feed).context(|| models[k].0);
    if data.state().is_empty() {
        return batches.fold(init, |state, i, feed| {
            let outputs = (0..models.len()).map(|k| run(k, feed)).collect::<Result<Vec<_>>>();
            work(state, i, &outputs.context(|| format!("batch {i}"))?)
        });
    }
    let mut state = init();
    let mut carried: Vec<Feed> = vec![Feed::new(); models.len()];
    batches.in_order(|i, feed| {
        let mut all = Vec::with_capacity(models.len());
        for (k, carried) in carried.iter_mut().enumerate() {
            let mut feed = feed.clone();
            feed.append(carried);
            let outputs = run(k, &feed).context(|| format!("batch {i}"))?;
            for link in data.state() {
                carried.insert(link.input.clone(), outputs[link.output].to_tensor()?);
            }
            all.push(outputs);
        }
        work(&mut state, i, &all)
    })?;
    Ok(vec![state])
}
