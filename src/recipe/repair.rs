//! Repair after pruning: collects statistics, refits weights, re-estimates BatchNormalization.

use super::in_order::{BUDGET, Source, fit_in_order, is_small};
use crate::analysis::axis_groups::{AxisGroups, Place};
use crate::calibrate::Gram;
use crate::error::Result;
use crate::ir::{Graph, Model};
use crate::math::Unfold;
use crate::passes::prune::{Anchor, Cut, Moments, anchors, reestimate, refit, refit_layers};
use crate::passes::sparsify::second_order::FitLayer;
use crate::passes::{Linear, linear_layers};
use crate::runtime;
use std::collections::BTreeSet;

/// At most this many runs over the data for re-estimation.
const MOST_RUNS: usize = 24;

/// Refits the weights that lose inputs, in the model before the cut; returns how many.
pub(super) fn refit_weights(model: &mut Model, groups: &AxisGroups, cut: &Cut, source: &Source) -> Result<usize> {
    // Every fit is to the activations of the model as it came.
    let original = model.clone();
    let layers = refit_layers(&original, groups, cut);
    let mut rest = &layers[..];
    while !rest.is_empty() {
        let mut room = BUDGET;
        let fits = |l: &&Linear| {
            let bytes = Gram::bytes(1, l.columns(&original.graph));
            let fits = bytes <= room || room == BUDGET;
            room = room.saturating_sub(bytes);
            fits
        };
        let n = rest.iter().take_while(fits).count().max(1);
        let (part, after) = rest.split_at(n);
        rest = after;
        let inputs: Vec<(String, Unfold)> = part.iter().map(|l| (l.input.clone(), l.unfold.clone())).collect();
        let batches = source.data.batches(source.batch).len();
        source.progress.start("collecting second-order statistics", batches);
        let tick = || source.progress.tick();
        let grams = runtime::collect_grams(&original, &inputs, source.data, source.batch, &tick)?;
        source.progress.finish();
        for (layer, gram) in part.iter().zip(&grams) {
            refit(model, layer, gram, cut)?;
        }
    }
    Ok(layers.len())
}

/// Fits the layers of the model after the cut, front to back, to what the original gave where they still give anything:
/// each makes up for what the layers before it do otherwise. Zeros stay. Returns their outputs, by name.
pub(super) fn refit_in_order(
    original: &Model,
    pruned: &mut Model,
    cut: &Cut,
    source: &Source,
) -> Result<BTreeSet<String>> {
    if !source.data.state().is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut layers = vec![];
    for linear in linear_layers(pruned)? {
        let same =
            |kept: Option<(i64, Vec<usize>)>| kept.is_none_or(|(_, k)| Some(k.len()) == linear.outputs(&pruned.graph));
        if original.graph.find(&linear.output).is_some()
            && is_small(&pruned.graph, &linear)
            && same(kept(original, cut, &linear))
        {
            layers.push(FitLayer::with_its_zeros(&pruned.graph, linear)?);
        }
    }
    fit_in_order(original, pruned, &layers, |l| kept(original, cut, l), source)?;
    Ok(layers.into_iter().map(|l| l.linear.output).collect())
}

/// The channels of the original's value that a layer still gives, and their axis.
fn kept(original: &Model, cut: &Cut, linear: &Linear) -> Option<(i64, Vec<usize>)> {
    let value = original.graph.find(&linear.output)?;
    let rank = original.graph.ty(value)?.shape()?.len();
    let axis = if matches!(linear.unfold, Unfold::Last) { rank.checked_sub(1)? } else { 1 };
    Some((axis as i64, cut.kept.get(&Place { value, axis })?.clone()))
}

/// Lets the statistics of each BatchNormalization follow its input, except where that is in `fitted`: there the refit has
/// seen to the mean. Returns how many.
pub(super) fn reestimate_statistics(
    original: &Model,
    pruned: &mut Model,
    cut: &Cut,
    fitted: &BTreeSet<String>,
    source: &Source,
) -> Result<usize> {
    let all: Vec<Anchor> = anchors(&pruned.graph)?.into_iter().filter(|a| !fitted.contains(&a.value.0)).collect();
    let values: Vec<(String, usize)> = all.iter().map(|a| a.value.clone()).collect();
    if values.is_empty() {
        return Ok(0);
    }
    let per_run = all.len().div_ceil(MOST_RUNS);
    let batches = source.data.batches(source.batch).len();
    source.progress.start("re-estimating statistics", batches * (1 + all.len().div_ceil(per_run)));
    let tick = || source.progress.tick();
    let before = runtime::channel_moments(original, &values, source.data, source.batch, &tick)?;
    for (part, before) in all.chunks(per_run).zip(before.chunks(per_run)) {
        let values: Vec<(String, usize)> = part.iter().map(|a| a.value.clone()).collect();
        let after = runtime::channel_moments(pruned, &values, source.data, source.batch, &tick)?;
        for ((anchor, before), after) in part.iter().zip(before).zip(&after) {
            let own = [&anchor.statistics.0, &anchor.statistics.1].map(|name| constant(original, name));
            if let (Some(before), Some(after), [Some(mean), Some(var)]) = (before, after, own) {
                let own = (mean?, var?);
                let before = stayed(&original.graph, cut, &anchor.value, before);
                let own = stayed(&original.graph, cut, &(anchor.statistics.0.clone(), 0), &own);
                reestimate(pruned, anchor, &own, (&before, after))?;
            }
        }
    }
    source.progress.finish();
    Ok(all.len())
}

fn constant(model: &Model, name: &str) -> Option<Result<Vec<f32>>> {
    Some(model.graph.constant(model.graph.find(name)?)?.to_f32())
}

/// The moments of the channels that stay.
fn stayed(graph: &Graph, cut: &Cut, (name, axis): &(String, usize), all: &Moments) -> Moments {
    let place = graph.find(name).map(|value| Place { value, axis: *axis });
    match place.and_then(|p| cut.kept.get(&p)) {
        None => all.clone(),
        Some(kept) => {
            let pick = |v: &[f32]| kept.iter().filter_map(|&k| v.get(k).copied()).collect();
            (pick(&all.0), pick(&all.1))
        }
    }
}
