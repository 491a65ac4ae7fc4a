//! Layers that are fitted to the outputs of the original, front to back, each on what the layers before it make by then.

use super::progress::Progress;
use crate::calibrate::Gram;
use crate::error::{Context, Result};
use crate::io::Dataset;
use crate::ir::{Graph, Model};
use crate::passes::Linear;
use crate::passes::sparsify::second_order::FitLayer;
use crate::runtime::{self, Fit};

/// Bytes that second-order statistics may take at once; what does not fit is collected in another run over the data.
pub(super) const BUDGET: usize = 768 << 20;

/// Largest matrix of a layer that is fitted.
const MOST_BYTES: usize = BUDGET / 4;

/// At most this many runs over the data.
const MOST_RUNS: usize = 24;

/// Samples that are used where nothing else is said: more hardly make a fit better.
pub(super) const SAMPLES: usize = 512;

/// The data, and how they are run.
pub(super) struct Source<'a> {
    pub data: &'a Dataset,
    pub batch: usize,
    pub progress: &'a dyn Progress,
}

/// Bytes of the statistics of a layer's inputs.
pub(super) fn bytes(graph: &Graph, linear: &Linear) -> usize {
    Gram::bytes(linear.groups(), linear.columns(graph))
}

/// Whether the statistics of a layer are small enough to be collected.
pub(super) fn is_small(graph: &Graph, linear: &Linear) -> bool {
    bytes(graph, linear) <= MOST_BYTES
}

/// Fits `layers` of `model`, in execution order, to what `original` gives there; `kept` says which channels of the original's
/// value a layer still gives, and their axis.
pub(super) fn fit_in_order(
    original: &Model,
    model: &mut Model,
    layers: &[FitLayer],
    kept: impl Fn(&Linear) -> Option<(i64, Vec<usize>)>,
    source: &Source,
) -> Result<()> {
    let stages = stages(&model.graph, layers);
    let batches = source.data.batches(source.batch).len();
    source.progress.start("fitting layers", stages.len() * batches);
    for stage in stages {
        let fit = |l: &FitLayer| {
            let (input, unfold) = (l.linear.input.clone(), l.linear.unfold.clone());
            Fit { input, unfold, output: l.linear.output.clone(), kept: kept(&l.linear) }
        };
        let fits: Vec<Fit> = stage.iter().map(fit).collect();
        let tick = || source.progress.tick();
        let sums = runtime::collect_regressions(original, model, &fits, source.data, source.batch, &tick)?;
        for (layer, sums) in stage.iter().zip(&sums) {
            layer.fit(model, sums).context(|| format!("the layer that gives \"{}\"", layer.linear.output))?;
        }
    }
    source.progress.finish();
    Ok(())
}

/// Layers that are fitted at once: those that see one input, and more where there would be too many runs.
fn stages<'a>(graph: &Graph, layers: &'a [FitLayer]) -> Vec<&'a [FitLayer]> {
    let inputs: Vec<&[FitLayer]> = layers.chunk_by(|a, b| a.linear.input == b.linear.input).collect();
    let together = inputs.len().div_ceil(MOST_RUNS).max(1);
    let (mut stages, mut start, mut end, mut held, mut count) = (vec![], 0, 0, 0, 0);
    for group in inputs {
        let more: usize = group.iter().map(|l| bytes(graph, &l.linear)).sum();
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
