//! Sparsification by second-order information: how many zeros each layer gets, then layer after layer, front to back, on what
//! the layers before it make now.

use super::distill::left_for_fit;
use super::in_order::{BUDGET, SAMPLES, Source, bytes, fit_in_order, is_small};
use super::progress::Progress;
use super::quantize::{DEFAULT_BATCH, RANDOM_SAMPLES};
use super::schema::SparsifyStep;
use crate::analysis::shapes::Contexts;
use crate::error::Result;
use crate::io::Dataset;
use crate::ir::Model;
use crate::math::Unfold;
use crate::passes::Linear;
use crate::passes::sparsify::second_order::{Curve, FitLayer, Quota, share_of, zero_rest};
use crate::passes::sparsify::{Goal, SparseLayer};
use crate::runtime;

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
    let source = Source { data: &data, batch: step.batch.unwrap_or(DEFAULT_BATCH), progress };
    let graph = &original.graph;
    let contexts = Contexts::new(original, graph);
    let mut model = original.clone();
    let mut notes = vec![];
    let (mut found, mut rest) = (vec![], vec![]);
    for layer in layers {
        let linear = Linear::of(&contexts, graph, layer.node).filter(|l| l.weight == layer.weight);
        match linear.filter(|l| is_small(graph, l)) {
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
        share_out(original, &mut found, share, &source)?;
    }
    fit_in_order(original, &mut model, &found, |_| None, &source)?;
    Ok(Fitted { model, layers: found.len(), samples: data.len() as u64, random: data.is_random(), notes })
}

fn dataset(model: &Model, step: &SparsifyStep) -> Result<Dataset> {
    let Some(path) = &step.data else {
        return Dataset::random(&model.graph, step.samples.unwrap_or(RANDOM_SAMPLES), 0);
    };
    let mut data = Dataset::open(path, &model.graph, None)?;
    data.limit(left_for_fit(step.recover.as_ref(), step.data.as_deref(), data.len()));
    data.limit(step.samples.unwrap_or(SAMPLES));
    Ok(data)
}

/// Gives each layer its share of the zeros, by what they cost in the model as it came.
fn share_out(model: &Model, layers: &mut [FitLayer], share: f64, source: &Source) -> Result<()> {
    let graph = &model.graph;
    let mut curves: Vec<Curve> = vec![];
    while curves.len() < layers.len() {
        let rest = &layers[curves.len()..];
        let mut room = BUDGET;
        let fits = |l: &&FitLayer| {
            let bytes = bytes(graph, &l.linear);
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        let part = &rest[..rest.iter().take_while(fits).count().max(1)];
        let inputs: Vec<(String, Unfold)> =
            part.iter().map(|l| (l.linear.input.clone(), l.linear.unfold.clone())).collect();
        let (data, batch, progress) = (source.data, source.batch, source.progress);
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
