//! The conversion step: floats in half precision.

use super::progress::Progress;
use super::quantize::{DEFAULT_BATCH, OPSET, RequireOpset};
use super::schema::{ConvertStep, HalfType};
use crate::analysis::shapes;
use crate::error::Result;
use crate::io::Dataset;
use crate::ir::{DType, Model};
use crate::passes::convert::{FloatRange, Keep, Kept, Retype, StoreFloats};
use crate::passes::manager::{self, Check, PassReport};
use crate::passes::simplify::{EliminateIdentity, LiftConstants, LiftInitializerInputs};
use crate::passes::{Pass, PassContext, RewritePass};
use crate::runtime::{RunOutput, Runner, RunnerOptions, stream};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the conversion did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Conversion {
    /// The type, as recipes spell it.
    pub to: String,
    /// Nodes that compute in it.
    pub converted: usize,
    /// Nodes that stay in f32, and why.
    pub kept: Vec<Kept>,
    /// Samples on which ranges were observed; 0 where there were no data.
    pub samples: usize,
    /// Whether weights only were converted.
    pub weights_only: bool,
}

impl Conversion {
    /// Reasons for f32, with the number of nodes by operator, most frequent first.
    pub fn reasons(&self) -> Vec<(String, BTreeMap<String, usize>)> {
        let mut by_reason: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
        for node in &self.kept {
            *by_reason.entry(&node.reason).or_default().entry(node.op.clone()).or_default() += 1;
        }
        let mut rows: Vec<_> = by_reason.into_iter().map(|(reason, ops)| (reason.to_string(), ops)).collect();
        rows.sort_by_key(|(reason, ops)| (std::cmp::Reverse(ops.values().sum::<usize>()), reason.clone()));
        rows
    }
}

/// Converts `model` in place.
///
/// # Errors
/// Data that do not fit, operators that tract cannot run (where there are data), patterns that match nothing.
pub fn convert(
    model: &mut Model,
    step: &ConvertStep,
    cx: &PassContext,
    check: Option<&Check>,
    progress: &dyn Progress,
) -> Result<(Conversion, Vec<PassReport>)> {
    shapes::infer_types(model)?;
    let weights_only = step.weights_only || step.to == HalfType::Bf16;
    let to = if step.to == HalfType::Bf16 { "bf16" } else { "f16" };
    let mut conversion = Conversion { to: to.into(), weights_only, ..Conversion::default() };
    let lift = RewritePass::new("lift_constants", vec![Box::new(LiftConstants)]);
    let identity = RewritePass::new("eliminate_identity", vec![Box::new(EliminateIdentity)]);
    let opset = RequireOpset(OPSET);
    let mut passes: Vec<&dyn Pass> = vec![&LiftInitializerInputs, &lift, &identity];
    if step.to == HalfType::Bf16 {
        passes.push(&opset); // Cast knows bf16 since 13
    }
    let mut reports = manager::run(model, &passes, cx, check)?;
    if weights_only {
        let rule = StoreFloats { to: step.to.dtype(), exact: false };
        let store = RewritePass::new("store_floats", vec![]).with_graph_rules(vec![Box::new(rule)]);
        reports.extend(manager::run(model, &[&store], cx, check)?);
        return Ok((conversion, reports));
    }
    let ranges = match &step.data {
        Some(_) => observe(model, step, &mut conversion.samples, progress)?,
        None => BTreeMap::new(),
    };
    let keep = Keep::new(&model.graph, &step.exclude, ranges)?;
    let mut retype = Retype::new(DType::F32, DType::F16, Some(&keep));
    retype.interface = step.io;
    reports.extend(manager::run(model, &[&retype], cx, check)?);
    conversion.kept = retype.kept.take();
    conversion.converted = retype.converted.take();
    Ok((conversion, reports))
}

/// Smallest and largest finite element of every f32 value of the main graph.
fn observe(
    model: &Model,
    step: &ConvertStep,
    samples: &mut usize,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, FloatRange>> {
    let Some(path) = &step.data else { return Ok(BTreeMap::new()) };
    let graph = &model.graph;
    let computed = |v: &crate::ir::ValueId| graph.ty(*v).and_then(|t| t.elem()) == Some(DType::F32);
    let names: Vec<String> = graph
        .values()
        .filter(computed)
        .filter(|&v| graph.value(v).init.is_none() && (graph.has_uses(v) || graph.is_output(v)))
        .map(|v| graph.name(v).to_string())
        .collect();
    let mut data = Dataset::open_stateful(path, graph, None, &step.state)?;
    data.limit(step.samples.unwrap_or(usize::MAX));
    *samples = data.len();
    let runner = Runner::new(model, &RunnerOptions { observe: names.clone(), ..RunnerOptions::default() })?;
    let first = graph.outputs().len();
    let none = || vec![(0f32, 0f32); names.len()];
    let work = |ranges: &mut Vec<FloatRange>, _: usize, outputs: &[Vec<RunOutput>]| {
        for values in outputs {
            for (range, value) in ranges.iter_mut().zip(&values[first..]) {
                let data = value.as_f32()?;
                let finite = data.iter().filter(|x| x.is_finite());
                *range = finite.fold(*range, |(low, high), &x| (low.min(x), high.max(x)));
            }
        }
        progress.tick();
        Ok(())
    };
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    progress.start("observing ranges", data.batches(batch).len());
    let parts = stream(&[("observation", &runner)], &data, batch, none, work)?;
    progress.finish();
    let mut all = none();
    for part in parts {
        for (a, b) in all.iter_mut().zip(part) {
            *a = (a.0.min(b.0), a.1.max(b.1));
        }
    }
    Ok(names.into_iter().zip(all).collect())
}
