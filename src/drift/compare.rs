//! Executes the original and the rewritten model on the same data.

use super::{Comparison, OutputDrift};
use crate::error::{Context, Error, Result};
use crate::io::Dataset;
use crate::ir::{Graph, Model};
use crate::runtime::{Runner, RunnerOptions};
use rayon::prelude::*;

/// The distance of every output, over all of `data`, batches of `batch` samples in parallel.
///
/// `tick` is called after each batch. The figures do not depend on the number of threads.
///
/// # Errors
/// Models whose inputs or outputs differ in name, operators that tract cannot run, outputs that changed type or shape.
pub fn compare(
    original: &Model,
    rewritten: &Model,
    data: &Dataset,
    batch: usize,
    tick: &(dyn Fn() + Sync),
) -> Result<Vec<OutputDrift>> {
    let names = same_interface(&original.graph, &rewritten.graph)?;
    let reference = Runner::new(original, &RunnerOptions::default()).context(|| "the original")?;
    let candidate = Runner::new(rewritten, &RunnerOptions::default()).context(|| "the rewritten model")?;
    let batches = data.batches(batch);
    let one = |i: usize| -> Result<Vec<Comparison>> {
        let feed = batches.feed(i)?;
        let u = reference.run(&feed).context(|| "the original")?;
        let v = candidate.run(&feed).context(|| "the rewritten model")?;
        let labels = data.labels().and_then(|l| l.get(batches.samples(i)));
        let compared = u.iter().zip(&v).zip(&names).map(|((u, v), name)| {
            let mut comparison = Comparison::new();
            let update = comparison.update_tensors(&u.to_tensor()?, &v.to_tensor()?, labels);
            update.context(|| format!("output \"{name}\""))?;
            Ok(comparison)
        });
        let compared = compared.collect();
        tick();
        compared
    };
    // Collected in batch order and merged in that order: sums of floats depend on it.
    let parts: Vec<Result<Vec<Comparison>>> = (0..batches.len()).into_par_iter().map(one).collect();
    let mut all = vec![Comparison::new(); names.len()];
    for part in parts {
        for (sum, batch) in all.iter_mut().zip(part?) {
            sum.merge(&batch);
        }
    }
    Ok(all.iter().zip(&names).map(|(c, name)| c.finish(name)).collect())
}

/// Output names, where both models have the same required inputs and the same outputs.
fn same_interface(a: &Graph, b: &Graph) -> Result<Vec<String>> {
    let inputs = |g: &Graph| -> Vec<String> {
        let mut names: Vec<String> = g.required_inputs().map(|v| g.name(v).to_string()).collect();
        names.sort();
        names
    };
    let outputs = |g: &Graph| -> Vec<String> { g.outputs().iter().map(|&v| g.name(v).to_string()).collect() };
    let differ = |what: &str, a: &[String], b: &[String]| {
        Error::data(format!("the models differ in their {what}: [{}] and [{}]", a.join(", "), b.join(", ")))
    };
    let (x, y) = (inputs(a), inputs(b));
    if x != y {
        return Err(differ("inputs", &x, &y));
    }
    let (x, y) = (outputs(a), outputs(b));
    if x != y {
        return Err(differ("outputs", &x, &y));
    }
    Ok(x)
}
