//! Executing one model.

use super::quantize::DEFAULT_BATCH;
use crate::error::{Context, Error, Result};
use crate::io::{self, Dataset, Feed, State};
use crate::ir::{Model, Tensor};
use crate::runtime::{RunOutput, Runner, RunnerOptions, stream};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What to execute a model on, and where the outputs go.
#[derive(Clone, Debug, Default)]
pub struct RunStep {
    /// Data; random input where absent.
    pub data: Option<PathBuf>,
    /// At most this many samples.
    pub samples: Option<usize>,
    /// Samples executed at once.
    pub batch: Option<usize>,
    /// Inputs that take an output of the feed before, by name.
    pub state: State,
    /// Values of the main graph to return beside the outputs.
    pub observe: Vec<String>,
    /// An `.npz`, or a folder for one `.npz` per feed.
    pub output: Option<PathBuf>,
}

/// What was executed.
#[derive(Clone, Debug, Serialize)]
pub struct ExecuteReport {
    /// The model.
    pub model: PathBuf,
    /// Feeds that were run.
    pub feeds: usize,
    /// Feeds that there were.
    pub available: usize,
    /// Whether the input was made up.
    pub random: bool,
    /// Name, element type and shape of each output (of the first feed, where they were not joined).
    pub outputs: Vec<(String, String, Vec<usize>)>,
    /// Files that were written.
    pub written: Vec<PathBuf>,
}

/// Executes a model file.
///
/// # Errors
/// One line that names the file: data that do not fit, operators that the runtime cannot run faithfully, by name.
pub fn execute_file(path: &Path, step: &RunStep) -> Result<ExecuteReport> {
    let model = io::load(path)?;
    let place = || path.display().to_string();
    let runner = Runner::new(&model, &RunnerOptions { observe: step.observe.clone(), ..RunnerOptions::default() });
    let runner = runner.context(place)?;
    let outputs = model.graph.outputs().iter().map(|&v| model.graph.name(v).to_string());
    let names: Vec<String> = outputs.chain(step.observe.iter().cloned()).collect();
    let mut report = ExecuteReport {
        model: path.to_path_buf(),
        feeds: 0,
        available: 1,
        random: false,
        outputs: vec![],
        written: vec![],
    };
    if model.graph.required_inputs().next().is_none() {
        let arrays = named(&names, &runner.run(&Feed::new()).context(place)?)?;
        return finish(report, step, vec![arrays]);
    }
    let mut data = dataset(&model, step)?;
    report.random = data.is_random();
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    report.available = data.batches(batch).len();
    let folder = step.output.as_deref().is_some_and(Path::is_dir);
    let first_only = data.feeds_are_complete() && !folder && step.state.is_empty();
    if first_only {
        data.limit(1);
    }
    let results = std::sync::Mutex::new(vec![]);
    let work = |_: &mut (), i: usize, outputs: &[Vec<RunOutput>]| {
        for outputs in outputs {
            let arrays = named(&names, outputs)?;
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, arrays));
        }
        Ok(())
    };
    stream(&[(&place(), &runner)], &data, batch, || (), work)?;
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    let results: Vec<Vec<(String, Tensor)>> = results.into_iter().map(|(_, arrays)| arrays).collect();
    if folder || results.len() < 2 {
        return finish(report, step, results);
    }
    report.feeds = results.len();
    let joined = join(results)?;
    let feeds = report.feeds;
    let mut report = finish(report, step, vec![joined])?;
    report.feeds = feeds;
    Ok(report)
}

fn dataset(model: &Model, step: &RunStep) -> Result<Dataset> {
    if step.samples == Some(0) || step.batch == Some(0) {
        return Err(Error::usage("samples and batch must be at least 1"));
    }
    let Some(path) = &step.data else {
        let mut data = Dataset::random(&model.graph, step.samples.unwrap_or(1), 0)?;
        data.link(&model.graph, &step.state)?;
        return Ok(data);
    };
    let mut data = Dataset::open_stateful(path, &model.graph, None, &step.state)?;
    data.limit(step.samples.unwrap_or(usize::MAX));
    Ok(data)
}

fn named(names: &[String], outputs: &[RunOutput]) -> Result<Vec<(String, Tensor)>> {
    names.iter().zip(outputs).map(|(name, o)| Ok((name.clone(), o.to_tensor()?))).collect()
}

/// Batches of each output joined along axis 0.
fn join(batches: Vec<Vec<(String, Tensor)>>) -> Result<Vec<(String, Tensor)>> {
    let mut batches = batches.into_iter();
    let first = batches.next().unwrap_or_default();
    let rest: Vec<_> = batches.collect();
    let one = |(k, (name, first)): (usize, (String, Tensor))| {
        let parts = || rest.iter().filter_map(|b| b.get(k)).map(|(_, t)| t);
        let fits = |t: &Tensor| t.dtype == first.dtype && t.rank() > 0 && t.dims[1..] == first.dims[1..];
        if first.rank() == 0 || !parts().all(fits) {
            return Err(Error::usage(format!(
                "output \"{name}\" of several batches cannot be joined along axis 0; give --batch the number of samples"
            )));
        }
        let mut dims = first.dims.clone();
        let mut data = first.bytes()?.into_owned();
        for t in parts() {
            dims[0] += t.dims[0];
            data.extend_from_slice(&t.bytes()?);
        }
        Ok((name, Tensor::raw(first.dtype, &dims, data)))
    };
    first.into_iter().enumerate().map(one).collect()
}

fn finish(mut report: ExecuteReport, step: &RunStep, feeds: Vec<Vec<(String, Tensor)>>) -> Result<ExecuteReport> {
    report.feeds = feeds.len();
    let describe = |(name, t): &(String, Tensor)| (name.clone(), t.dtype.to_string(), t.dims.clone());
    report.outputs = feeds.iter().take(1).flatten().map(describe).collect();
    let Some(path) = &step.output else { return Ok(report) };
    for (k, arrays) in feeds.iter().enumerate() {
        let file = if path.is_dir() { path.join(format!("output_{k}.npz")) } else { path.clone() };
        io::write_npz(&file, arrays)?;
        report.written.push(file);
    }
    Ok(report)
}

impl ExecuteReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        for (name, dtype, dims) in &self.outputs {
            let _ = writeln!(out, "{name}  {dtype}{dims:?}");
        }
        if self.random {
            out.push_str("on RANDOM input (no data were given)\n");
        }
        if self.feeds < self.available {
            let _ = writeln!(out, "ran the first of {} feeds; an existing folder as output runs all", self.available);
        }
        for file in &self.written {
            let _ = writeln!(out, "wrote {}", file.display());
        }
        out
    }
}
