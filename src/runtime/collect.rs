//! Calibration: streams data through a model and collects statistics of its values.

use super::{Runner, RunnerOptions};
use crate::calibrate::Collector;
use crate::error::{Context, Result};
use crate::io::Dataset;
use crate::ir::Model;
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Statistics of the values `names` over all of `data`, batches of `batch` samples in parallel. The result does not
/// depend on the number of threads, and memory does not grow with the number of samples.
///
/// `tick` is called after each batch.
///
/// # Errors
/// Operators that tract cannot run; data that do not fit; NaN or infinity in a value, named.
pub fn collect(
    model: &Model,
    names: &[String],
    data: &Dataset,
    batch: usize,
    tick: &(dyn Fn() + Sync),
) -> Result<Collector> {
    let runner = Runner::new(model, &RunnerOptions { observe: names.to_vec() })?;
    let outputs = model.graph.outputs().len();
    let batches = data.batches(batch);
    let next = AtomicUsize::new(0);
    // One collector per thread, each taking the next batch: statistics merge exactly, in any order.
    let work = |_| -> Result<Collector> {
        let mut collector = Collector::new(names.to_vec());
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= batches.len() {
                return Ok(collector);
            }
            let values = runner.run(&batches.feed(i)?).context(|| format!("calibration batch {i}"))?;
            for (k, value) in values.iter().skip(outputs).enumerate() {
                collector.observe(k, &value.as_f32()?)?;
            }
            tick();
        }
    };
    let parts: Vec<Result<Collector>> = (0..rayon::current_num_threads()).into_par_iter().map(work).collect();
    let mut all = Collector::new(names.to_vec());
    for part in parts {
        all.merge(&part?)?;
    }
    Ok(all)
}
