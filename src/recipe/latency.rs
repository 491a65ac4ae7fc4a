//! Pruning to a share of the time, as tract takes it here and now.

use crate::analysis::axis_groups::AxisGroups;
use crate::error::Result;
use crate::io::{Dataset, Feed};
use crate::ir::Model;
use crate::passes::PassContext;
use crate::passes::manager;
use crate::passes::prune::{Importance, PruneOptions, Slice, Target, select};
use crate::runtime::{Runner, RunnerOptions};
use std::time::{Duration, Instant};

/// Runs of each model, alternating, of which the median counts.
const RUNS: usize = 21;

/// Halvings of the interval that the ratio lies in.
const STEPS: usize = 7;

/// A ratio of channels, and the times before and after, in milliseconds.
pub(super) struct Found {
    pub ratio: f64,
    pub milliseconds: (f64, f64),
}

/// The least ratio of channels without which one sample takes at most `share` of the time, found by bisection.
pub(super) fn ratio_for(
    model: &Model,
    groups: &AxisGroups,
    importance: &dyn Importance,
    options: &PruneOptions,
    share: f64,
) -> Result<Found> {
    let data = Dataset::random(&model.graph, 1, 0)?;
    let original = Runner::new(model, &RunnerOptions::default())?;
    let (mut low, mut high) = (0.0, 1.0);
    let mut found = Found { ratio: 1.0, milliseconds: (0.0, 0.0) };
    for _ in 0..STEPS {
        let ratio = (low + high) / 2.0;
        let options = PruneOptions { target: Target::Ratio(ratio), ..options.clone() };
        let cut = select(model, groups, importance, &options)?.cut;
        let mut pruned = model.clone();
        manager::run(&mut pruned, &[&Slice { cut }], &PassContext::default(), None)?;
        let pruned = Runner::new(&pruned, &RunnerOptions::default())?;
        let times = times(&original, &pruned, &data)?;
        if times.1 <= share * times.0 {
            high = ratio;
            found = Found { ratio, milliseconds: times };
        } else {
            low = ratio;
        }
    }
    Ok(found)
}

/// Median milliseconds of both.
fn times(a: &Runner, b: &Runner, data: &Dataset) -> Result<(f64, f64)> {
    let (mut of_a, mut of_b) = (vec![], vec![]);
    data.batches(1).in_order(|_, feed| {
        let timed = |runner: &Runner, feed: &Feed| -> Result<Duration> {
            let start = Instant::now();
            runner.run(feed)?;
            Ok(start.elapsed())
        };
        for k in 0..RUNS + 2 {
            let (x, y) = (timed(a, &feed)?, timed(b, &feed)?);
            // The first runs prepare plans and fill caches.
            if k >= 2 {
                of_a.push(x);
                of_b.push(y);
            }
        }
        Ok(())
    })?;
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    Ok((median(&mut of_a), median(&mut of_b)))
}
