//! Sparsification by second-order information: how many zeros each layer gets, then layer after layer, front to back, on what
//! the layers before it make now.

use super::progress::Progress;
use super::quantize::{DEFAULT_BATCH, RANDOM_SAMPLES};
use super::schema::SparsifyStep;
use crate::analysis::shapes::Contexts;
use crate::calibrate::Gram;
use crate::error::{Context, Result};
use crate::io::Dataset;
use crate::ir::{Graph, Model};
use crate::math::Unfold;
use crate::passes::Linear;
use crate::passes::sparsify::second_order::{Curve, FitLayer, Quota, share_of, zero_rest};
use crate::passes::sparsify::{Goal, SparseLayer};
use crate::runtime::{self, Fit};

/// Bytes that second-order statistics may take at once; what does not fit is collected in another run over the data.
const BUDGET: usize = 768 << 20;

/// Largest matrix of a layer: what is larger goes by magnitude.
const MOST_BYTES: usize = BUDGET / 4;

/// At most this many runs over the data for layer after layer.
const MOST_RUNS: usize = 24;

/// What came of it.
pub(super) struct Fitted {
    /// The model with its zeros.
    pub model: Model,
    /// Layers whose weights were fitted.
    pub layers: usize,
    /// Samples, and whether they were random.
    pub samples: u64,
    pub random: bool,
    /// What went by magnitude, and why.
    pub notes: Vec<String>,
}

/// Sparsifies the weights of `layers` by what the data say.
pub(super) fn fit(
    original: &Model,
    layers: &[SparseLayer],
    goal: Goal,
    step: &SparsifyStep,
    progress: &dyn Progress,
) -> Result<Fitted> {
    let data = dataset(original, step)?;
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    let graph = &original.graph;
    let contexts = Contexts::new(original, graph);
    let mut model = original.clone();
    let mut notes = vec![];
    let (mut found, mut rest) = (vec![], vec![]);
    for layer in layers {
        let linear = Linear::of(&contexts, graph, layer.node).filter(|l| l.weight == layer.weight);
        match linear.filter(|l| Gram::bytes(l.groups(), l.columns(graph)) <= MOST_BYTES) {
            Some(linear) => found.push(FitLayer::new(graph, linear, goal, &step.options)?),
            None => {
                let why = "it is shared, too large, or no operand of a layer that can be fitted";
                notes.push(format!("\"{}\" went by magnitude: {why}", graph.name(layer.weight)));
                rest.push(*layer);
            }
        }
    }
    zero_rest(&mut model, &rest, goal, &step.options)?;
    if let (Goal::Sparsity(share), true) = (goal, step.options.global) {
        share_out(original, &mut found, share, (&data, batch), progress)?;
    }
    let stages = stages(graph, &found);
    progress.start("fitting layers", stages.len() * data.batches(batch).len());
    for stage in &stages {
        let fits: Vec<Fit> = stage.iter().map(|l| fit_of(&l.linear)).collect();
        let sums = runtime::collect_regressions(original, &model, &fits, &data, batch, &|| progress.tick())?;
        for (layer, sums) in stage.iter().zip(&sums) {
            let name = || format!("\"{}\"", graph.name(layer.linear.weight));
            layer.fit(&mut model, sums).context(name)?;
        }
    }
    progress.finish();
    Ok(Fitted { model, layers: found.len(), samples: data.len() as u64, random: data.is_random(), notes })
}

fn dataset(model: &Model, step: &SparsifyStep) -> Result<Dataset> {
    let Some(path) = &step.data else {
        return Dataset::random(&model.graph, step.samples.unwrap_or(RANDOM_SAMPLES), 0);
    };
    let mut data = Dataset::open(path, &model.graph, None)?;
    data.limit(step.samples.unwrap_or(usize::MAX));
    Ok(data)
}

/// Gives each layer its share of the zeros, by what they cost in the model as it came.
fn share_out(
    model: &Model,
    layers: &mut [FitLayer],
    share: f64,
    (data, batch): (&Dataset, usize),
    progress: &dyn Progress,
) -> Result<()> {
    let graph = &model.graph;
    let mut curves: Vec<Curve> = vec![];
    while curves.len() < layers.len() {
        let rest = &layers[curves.len()..];
        let mut room = BUDGET;
        let fits = |l: &&FitLayer| {
            let bytes = Gram::bytes(l.linear.groups(), l.linear.columns(graph));
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        let part = &rest[..rest.iter().take_while(fits).count().max(1)];
        let inputs: Vec<(String, Unfold)> =
            part.iter().map(|l| (l.linear.input.clone(), l.linear.unfold.clone())).collect();
        progress.start("collecting second-order statistics", data.batches(batch).len());
        let grams = runtime::collect_grams(model, &inputs, data, batch, &|| progress.tick())?;
        progress.finish();
        for (layer, gram) in part.iter().zip(&grams) {
            curves.push(layer.curve(graph, gram)?);
        }
    }
    for (layer, share) in layers.iter_mut().zip(share_of(&curves, share)) {
        layer.quota = Quota::Share(share);
    }
    Ok(())
}

/// Layers that are fitted at once: those that see one input, and more where there would be too many runs.
fn stages<'a>(graph: &Graph, layers: &'a [FitLayer]) -> Vec<&'a [FitLayer]> {
    let inputs: Vec<&[FitLayer]> = layers.chunk_by(|a, b| a.linear.input == b.linear.input).collect();
    let together = inputs.len().div_ceil(MOST_RUNS).max(1);
    let bytes = |l: &FitLayer| Gram::bytes(l.linear.groups(), l.linear.columns(graph));
    let (mut stages, mut start, mut end, mut held, mut count) = (vec![], 0, 0, 0, 0);
    for group in inputs {
        let more: usize = group.iter().map(bytes).sum();
        if count == together || (count > 0 && held + more > BUDGET) {
            stages.push(&layers[start..end]);
            (start, held, count) = (end, 0, 0);
        }
        (end, held, count) = (end + group.len(), held + more, count + 1);
    }
    if end > start {
        stages.push(&layers[start..end]);
    }
    stages
}

fn fit_of(linear: &Linear) -> Fit {
    let (input, unfold) = (linear.input.clone(), linear.unfold.clone());
    Fit { input, unfold, output: linear.output.clone(), kept: None }
}
