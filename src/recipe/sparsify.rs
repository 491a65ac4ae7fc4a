//! The sparsification step.

use super::progress::Progress;
use super::schema::SparsifyStep;
use super::sparse_fit;
use crate::analysis::shapes;
use crate::error::Result;
use crate::ir::{Graph, Model, Tensor, TensorData};
use crate::passes::manager::{self, Check, PassReport};
use crate::passes::simplify::{LiftConstants, LiftInitializerInputs};
use crate::passes::sparsify::{Densify, Measure, Sparsify, StoreSparse, TakeWeights, layers};
use crate::passes::{Pass, PassContext, RewritePass};
use serde::Serialize;

/// What sparsification did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SparsifyReport {
    /// Weights of products, in execution order.
    pub layers: Vec<SparseWeight>,
    /// Bytes of all constants of the main graph, before and after.
    pub bytes: (u64, u64),
    /// Constants that are stored sparsely, before and after.
    pub sparse: (usize, usize),
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
) -> Result<(Vec<PassReport>, SparsifyReport)> {
    step.options.check()?;
    shapes::infer_types(model)?;
    let before = totals(&model.graph);
    let lift = RewritePass::new("lift_constants", vec![Box::new(LiftConstants)]);
    let mut passes = manager::run(model, &[&LiftInitializerInputs, &lift], cx, check)?;
    let mut report = SparsifyReport::default();
    let weights = layers(model, &step.options)?;
    for layer in &weights {
        let Some(t) = model.graph.constant(layer.weight) else { continue };
        let (name, nonzero) = (model.graph.name(layer.weight).to_string(), t.count_nonzero()?);
        report.layers.push(SparseWeight { name, elements: t.len(), nonzero: (nonzero, nonzero) });
    }
    let fitted = match step.options.goal {
        Some(goal) if step.options.importance == Measure::Hessian => {
            Some(sparse_fit::fit(model, &weights, goal, step, progress)?)
        }
        _ => None,
    };
    let by_magnitude = Sparsify { options: step.options.clone() };
    let by_fit = fitted.as_ref().map(|f| TakeWeights { from: &f.model });
    let zeros: &dyn Pass = by_fit.as_ref().map_or(&by_magnitude, |p| p);
    let mut rest: Vec<&dyn Pass> = vec![zeros];
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
    if let Some(f) = fitted {
        (report.fitted, report.samples, report.random, report.notes) = (f.layers, f.samples, f.random, f.notes);
    }
    let after = totals(&model.graph);
    (report.bytes, report.sparse) = ((before.0, after.0), (before.1, after.1));
    Ok((passes, report))
}

/// Bytes of the constants, and how many of them are sparse.
fn totals(graph: &Graph) -> (u64, usize) {
    let constants = || graph.values().filter_map(|v| graph.value(v).init.as_ref());
    let bytes = constants().map(|t| t.stored_bytes() as u64).sum();
    (bytes, constants().filter(|t| matches!(t.data, TensorData::Sparse(_))).count())
}
