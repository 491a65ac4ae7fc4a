//! The sparsification step.

use super::distill::{Recovered, recover as train_again};
use super::gradients;
use super::progress::Progress;
use super::prune::prepare;
use super::schema::SparsifyStep;
use super::sparse_fit;
use crate::analysis::shapes;
use crate::error::{Error, Result};
use crate::ir::{Graph, Model, Tensor, TensorData};
use crate::passes::manager::{self, Check, PassReport};
use crate::passes::prune::{Budget, Cut};
use crate::passes::simplify::{LiftConstants, LiftInitializerInputs};
use crate::passes::sparsify::{
    Densify, EliminateZeroChannels, FoldConstantChannels, Measure, Sparsify, StoreSparse, TakeWeights, layers,
};
use crate::passes::{Pass, PassContext, RewritePass};
use crate::recover::{self, Teacher};
use crate::runtime::RuntimeEvaluator;
use serde::Serialize;
use std::collections::HashMap;

/// What sparsification did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SparsifyReport {
    /// Weights of products, in execution order.
    pub layers: Vec<SparseWeight>,
    /// Bytes of all constants of the main graph, before and after.
    pub bytes: (u64, u64),
    /// Constants that are stored sparsely, before and after.
    pub sparse: (usize, usize),
    /// Multiply-accumulates before and after: zeros save none, channels that are folded do.
    pub macs: (u64, u64),
    /// Layers whose weights were fitted after zeros were made.
    pub fitted: usize,
    /// Samples that they were fitted on; 0 where no data were needed.
    pub samples: u64,
    /// Whether they were random numbers for want of data.
    pub random: bool,
    /// What else a user should know.
    pub notes: Vec<String>,
}

/// One weight.
#[derive(Clone, Debug, Serialize)]
pub struct SparseWeight {
    /// Name.
    pub name: String,
    /// Elements.
    pub elements: usize,
    /// Elements that are not zero, before and after.
    pub nonzero: (usize, usize),
}

/// Sparsifies `model` in place.
///
/// # Errors
/// Patterns that match nothing, weights that are no numbers.
pub fn sparsify(
    model: &mut Model,
    step: &SparsifyStep,
    cx: &PassContext,
    check: Option<&Check>,
    progress: &dyn Progress,
) -> Result<(Vec<PassReport>, SparsifyReport, Option<Recovered>)> {
    step.options.check()?;
    shapes::infer_types(model)?;
    let before = totals(&model.graph);
    let lift = RewritePass::new("lift_constants", vec![Box::new(LiftConstants)]);
    let mut passes = manager::run(model, &[&LiftInitializerInputs, &lift], cx, check)?;
    let mut report = SparsifyReport::default();
    report.macs.0 = Budget::new(model).macs(&Cut::default());
    let weights = layers(model, &step.options)?;
    for layer in &weights {
        let Some(t) = model.graph.constant(layer.weight) else { continue };
        if step.options.goal.is_some() && t.to_f32()?.iter().any(|x| !x.is_finite()) {
            let (name, node) = (model.graph.name(layer.weight), model.graph.node(layer.node).label());
            return Err(Error::data(format!(
                "\"{name}\" of {node} holds NaN or infinity: its weights cannot be ranked"
            )));
        }
        let (name, nonzero) = (model.graph.name(layer.weight).to_string(), t.count_nonzero()?);
        report.layers.push(SparseWeight { name, elements: t.len(), nonzero: (nonzero, nonzero) });
    }
    let original = model.clone();
    let fitted = match step.options.goal {
        Some(goal) if step.options.importance == Measure::Hessian => {
            Some(sparse_fit::fit(model, &weights, goal, step, progress)?)
        }
        _ => None,
    };
    if let Some(f) = &fitted {
        passes.extend(manager::run(model, &[&TakeWeights { from: &f.model }], cx, check)?);
        (report.fitted, report.samples, report.random) = (f.layers, f.samples, f.random);
        report.notes.extend(f.notes.iter().cloned());
    } else {
        let scores = scores(model, step, progress, &mut report)?;
        passes.extend(manager::run(model, &[&Sparsify { options: step.options.clone(), scores }], cx, check)?);
    }
    let on = (step.data.as_deref(), fitted.is_some());
    let recovered =
        step.recover.as_ref().map(|recovery| train_again(model, Teacher::from(&original), recovery, on, progress));
    let recovered = recovered.transpose()?;
    if step.options.fold {
        passes.extend(fold(model, cx, check)?);
    }
    report.macs.1 = Budget::new(model).macs(&Cut::default());
    let mut rest: Vec<&dyn Pass> = vec![];
    if step.densify {
        rest.push(&Densify);
    } else if step.options.store {
        rest.push(&StoreSparse);
    }
    passes.extend(manager::run(model, &rest, cx, check)?);
    for layer in &mut report.layers {
        let weight = model.graph.find(&layer.name).and_then(|v| model.graph.constant(v));
        layer.nonzero.1 = weight.map_or(Ok(0), Tensor::count_nonzero)?;
    }
    let after = totals(&model.graph);
    (report.bytes, report.sparse) = ((before.0, after.0), (before.1, after.1));
    Ok((passes, report, recovered))
}

/// At most this many rounds of folding: what one removes may make more superfluous.
const ROUNDS: usize = 16;

/// Removes channels that zeros make superfluous.
fn fold(model: &mut Model, cx: &PassContext, check: Option<&Check>) -> Result<Vec<PassReport>> {
    let mut passes = prepare(model, cx, check)?;
    let constants = FoldConstantChannels { evaluator: &RuntimeEvaluator };
    for _ in 0..ROUNDS {
        let done = manager::run(model, &[&constants, &EliminateZeroChannels], cx, check)?;
        let changes: usize = done.iter().map(|p| p.changes).sum();
        passes.extend(done);
        if changes == 0 {
            break;
        }
    }
    Ok(passes)
}

/// Importance by gradients, where it is asked for.
fn scores(
    model: &Model,
    step: &SparsifyStep,
    progress: &dyn Progress,
    report: &mut SparsifyReport,
) -> Result<HashMap<String, Vec<f32>>> {
    let measure = match step.options.importance {
        Measure::Fisher => recover::Measure::Fisher,
        Measure::WeightedFisher => recover::Measure::WeightedFisher,
        Measure::Taylor => recover::Measure::Taylor,
        Measure::Magnitude | Measure::Hessian => return Ok(HashMap::new()),
    };
    let data = gradients::open(model, step.data.as_deref(), step.label.as_deref(), step.samples)?;
    if data.is_random() {
        report.notes.push("importance was measured on RANDOM samples (no data were given)".into());
    }
    let found = gradients::importance(model, &data, progress)?;
    report.notes.extend(found.note);
    let scores = found.list.into_iter().map(|i| (i.parameter.name.to_string(), i.weights(measure).to_vec()));
    Ok(scores.collect())
}

/// Bytes of the constants, and how many of them are sparse.
fn totals(graph: &Graph) -> (u64, usize) {
    let constants = || graph.values().filter_map(|v| graph.value(v).init.as_ref());
    let bytes = constants().map(|t| t.stored_bytes() as u64).sum();
    (bytes, constants().filter(|t| matches!(t.data, TensorData::Sparse(_))).count())
}
