//! Executes the original and the rewritten model on the same data.

use super::{Comparison, OutputDrift};
use crate::error::{Context, Error, Result};
use crate::io::Dataset;
use crate::ir::{Graph, Model};
use crate::runtime::{RunOutput, Runner, RunnerOptions, stream};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The distance of every output, over all of `data`, batches of `batch` samples in parallel (in order, where the data have
/// state, which each model then carries on by itself).
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
    let one = |i: usize, outputs: &[Vec<RunOutput>]| -> Result<Vec<Comparison>> {
        let [u, v] = outputs else { return Err(Error::internal("comparing other than two models")) };
        let labels = data.labels().and_then(|l| l.get(batches.samples(i)));
        let compared = u.iter().zip(v).zip(&names).map(|((u, v), name)| {
            let mut comparison = Comparison::new();
            let update = comparison.update_tensors(&u.to_tensor()?, &v.to_tensor()?, labels);
            update.context(|| format!("output \"{name}\""))?;
            Ok(comparison)
        });
        compared.collect()
    };
    let total = vec![Comparison::new(); names.len()];
    let sums = Mutex::new(InOrder { total, next: 0, early: BTreeMap::new() });
    let work = |_: &mut (), i: usize, outputs: &[Vec<RunOutput>]| {
        let compared = one(i, outputs)?;
        sums.lock().unwrap_or_else(PoisonError::into_inner).add(i, compared);
        tick();
        Ok(())
    };
    let models = [("the original", &reference), ("the rewritten model", &candidate)];
    stream(&models, data, batch, || (), work)?;
    let all = sums.into_inner().unwrap_or_else(PoisonError::into_inner).total;
    Ok(all.iter().zip(&names).map(|(c, name)| c.finish(name)).collect())
}

/// Merges the comparisons of batches in the order of the batches: sums of floats depend on it.
struct InOrder {
    /// Per output, of all batches before `next`.
    total: Vec<Comparison>,
    next: usize,
    /// Of batches that were done before their turn.
    early: BTreeMap<usize, Vec<Comparison>>,
}

impl InOrder {
    fn add(&mut self, batch: usize, compared: Vec<Comparison>) {
        self.early.insert(batch, compared);
        while let Some(batch) = self.early.remove(&self.next) {
            for (sum, comparison) in self.total.iter_mut().zip(&batch) {
                sum.merge(comparison);
            }
            self.next += 1;
        }
    }
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
