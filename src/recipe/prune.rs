//! The pruning step: prepare, group, score, select, cut.

use super::distill::{Recovered, left_for_fit, recover as train_again};
use super::gradients;
use super::in_order::{BUDGET, SAMPLES, Source, bytes, is_small};
use super::latency;
use super::progress::Progress;
use super::quantize::{DEFAULT_BATCH, RANDOM_SAMPLES};
use super::repair;
use super::schema::PruneStep;
use crate::analysis::axis_groups::{AxisGroups, Group, Place, Role, axis_groups};
use crate::analysis::opset;
use crate::calibrate::Gram;
use crate::error::{Context, Result};
use crate::io::{self, Dataset};
use crate::ir::Model;
use crate::math::Unfold;
use crate::passes::manager::{self, Check, PassReport};
use crate::passes::prune::{
    Budget, ChannelMagnitudes, ChannelMap, Cut, EliminateZeroState, Importance, Measure, Norm, ParameterScores,
    PruneOptions, Saliencies, Selected, Slice, Target, has_norm_scale, removal_scores, select, takers,
};
use crate::passes::simplify::{
    EliminateIdentity, FOLD_LIMIT, FoldConstantOfShape, FoldConstants, FoldShapes, LiftConstants, LiftInitializerInputs,
};
use crate::passes::{Effect, Linear, Outcome, Pass, PassContext, RewritePass};
use crate::recover::{self, Teacher};
use crate::runtime::{self, RuntimeEvaluator};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeSet;

/// Operator set that pruning needs: sizes and axes as inputs.
const OPSET: i64 = 13;

/// What pruning did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PruneReport {
    /// Channels of each group before and after; groups that stayed whole with the reason.
    pub layers: Vec<PrunedLayer>,
    /// Multiply-accumulates before and after.
    pub macs: (u64, u64),
    /// Parameters before and after.
    pub params: (u64, u64),
    /// Layers whose weights were refitted.
    pub refitted: usize,
    /// BatchNormalizations whose statistics were re-estimated.
    pub reestimated: usize,
    /// Samples that scores and repair come from; 0 where no data were needed.
    pub samples: u64,
    /// Whether they were random numbers for want of data.
    pub random: bool,
    /// Time of one sample in tract on one thread before and after, where a share of it was asked for, in milliseconds, as it
    /// was measured then: it varies from run to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<(f64, f64)>,
    /// What else a user should know.
    pub notes: Vec<String>,
}

/// One group.
#[derive(Clone, Debug, Serialize)]
pub struct PrunedLayer {
    /// Name of the group.
    pub name: String,
    /// Channels before.
    pub before: usize,
    /// Channels after.
    pub after: usize,
    /// Why it was left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Prunes `model` in place.
///
/// # Errors
/// Patterns that match nothing, data that do not fit, a model that is invalid or cannot be moved to operator set 13.
pub fn prune(
    model: &mut Model,
    step: &PruneStep,
    cx: &PassContext,
    check: Option<&Check>,
    progress: &dyn Progress,
) -> Result<(Vec<PassReport>, PruneReport, Option<Recovered>)> {
    step.options.check()?;
    let mut passes = prepare(model, cx, check)?;
    let mut report = PruneReport::default();
    report.macs.0 = Budget::new(model).macs(&Cut::default());
    report.params.0 = Budget::new(model).params(&Cut::default());
    let mut data = if step.options.repair { Some(dataset(model, step, usize::MAX)?) } else { None };
    if let Some(data) = &mut data {
        data.limit(left_for_fit(step.recover.as_ref(), step.data.as_deref(), data.len()));
    }
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    let source = data.as_ref().map(|data| Source { data, batch, progress });
    let original = model.clone();
    let mut cut = Cut::default();
    let mut target = step.options.target;
    for round in 0..step.options.iterations {
        let groups = axis_groups(model, step.options.allow_inexact)?;
        refuse_not_finite(model, &groups)?;
        let importance = importance(model, step, &groups, progress, &mut report)?;
        if let Target::Latency(share) = target {
            let found = latency::ratio_for(model, &groups, &*importance, &step.options, share)?;
            target = Target::Ratio(found.ratio);
            report.milliseconds = Some(found.milliseconds);
        }
        let options = PruneOptions { target: target.of_round(round, step.options.iterations), ..step.options.clone() };
        let selected = select(model, &groups, &*importance, &options)?;
        report.add(&groups, &selected);
        if let Some(source) = &source {
            report.refitted = repair::refit_weights(model, &groups, &selected.cut, source)?;
        }
        let before = model.clone();
        passes.extend(manager::run(model, &[&Slice { cut: selected.cut.clone() }], cx, check)?);
        cut = cut.then(&original.graph, &before.graph, &selected.cut);
        if let Some(source) = &source {
            (report.samples, report.random) = (source.data.len() as u64, source.data.is_random());
            let fitted = repair::refit_in_order(&original, model, &cut, source)?;
            report.refitted = report.refitted.max(fitted.len());
            report.reestimated = repair::reestimate_statistics(&original, model, &cut, &fitted, source)?;
        }
    }
    if let Some(path) = &step.map {
        let map: ChannelMap = cut.map(&original.graph);
        let json = serde_json::to_string(&map).map_err(|e| crate::Error::internal(format!("map: {e}")))?;
        io::write_atomically(path, (json + "\n").as_bytes()).context(|| path.display().to_string())?;
    }
    report.macs.1 = Budget::new(model).macs(&Cut::default());
    report.params.1 = Budget::new(model).params(&Cut::default());
    let recovered = step.recover.as_ref().map(|recovery| {
        let kept = cut.map(&original.graph).0;
        let teacher = Teacher { model: &original, kept: Some(&kept), exact: None };
        train_again(model, teacher, recovery, (step.data.as_deref(), step.options.repair), progress)
    });
    Ok((passes, report, recovered.transpose()?))
}

/// Weights that no score can rank are an error.
fn refuse_not_finite(model: &Model, groups: &AxisGroups) -> Result<()> {
    let free: BTreeSet<Place> =
        groups.groups.iter().filter(|g| g.barrier.is_none()).flat_map(|g| g.axes.iter().copied()).collect();
    let mut seen = BTreeSet::new();
    for t in groups.tied.iter().filter(|t| free.contains(&t.place) && seen.insert(t.place.value)) {
        let Some(c) = model.graph.constant(t.place.value).filter(|c| c.dtype.is_float()) else { continue };
        if c.to_f32()?.iter().any(|x| !x.is_finite()) {
            let (name, node) = (model.graph.name(t.place.value), model.graph.node(t.node).label());
            return Err(crate::Error::data(format!(
                "\"{name}\" of {node} holds NaN or infinity: its channels cannot be ranked"
            )));
        }
    }
    Ok(())
}

/// The rules that pruning needs, and no more: constants where shapes are known, so that they can be cut.
///
/// # Errors
/// As [`prune`].
pub fn prepare(model: &mut Model, cx: &PassContext, check: Option<&Check>) -> Result<Vec<PassReport>> {
    crate::analysis::shapes::infer_types(model)?;
    let fold = RewritePass::new(
        "fold_constants",
        vec![
            Box::new(LiftConstants),
            Box::new(FoldShapes),
            Box::new(FoldConstantOfShape::for_weights()),
            Box::new(FoldConstants { limit: FOLD_LIMIT }),
            Box::new(EliminateIdentity),
            Box::new(EliminateZeroState),
        ],
    )
    .with_evaluator(&RuntimeEvaluator);
    let passes: [&dyn Pass; 3] = [&LiftInitializerInputs, &RequireOpset, &fold];
    manager::run(model, &passes, cx, check)
}

/// Raises the operator set to what cutting needs.
struct RequireOpset;

impl Pass for RequireOpset {
    fn name(&self) -> &'static str {
        "upgrade_opset"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, model: &mut Model, _: &PassContext) -> Result<Outcome> {
        if model.default_opset() >= OPSET {
            return Ok(Outcome::default());
        }
        opset::require(model, OPSET)?;
        Ok(Outcome { changes: 1, ..Outcome::default() })
    }
}

fn importance(
    model: &Model,
    step: &PruneStep,
    groups: &AxisGroups,
    progress: &dyn Progress,
    report: &mut PruneReport,
) -> Result<Box<dyn Importance>> {
    let options = &step.options;
    if options.importance == Measure::BnScale {
        let free: Vec<&Group> = groups.groups.iter().filter(|g| g.barrier.is_none() && g.classes.len() > 1).collect();
        let without = free.iter().filter(|g| !has_norm_scale(&model.graph, g)).count();
        if without > 0 {
            report.note(Some(format!(
                "{without} of {} layers have no BatchNormalization (or it is folded into them, as simplify does): they went by l2",
                free.len()
            )));
        }
    }
    if options.importance == Measure::Activation {
        let wanted = observed(model, groups);
        let data = dataset(model, step, usize::MAX)?;
        (report.samples, report.random) = (data.len() as u64, data.is_random());
        let batch = step.batch.unwrap_or(DEFAULT_BATCH);
        progress.start("collecting activations", data.batches(batch).len());
        let rms = runtime::channel_rms(model, &wanted, &data, batch, &|| progress.tick())?;
        progress.finish();
        let known = |((name, axis), rms): ((String, usize), Option<Vec<f32>>)| {
            Some((name, (axis, rms?.into_iter().map(f64::from).collect())))
        };
        let values = wanted.into_iter().zip(rms).filter_map(known).collect();
        return Ok(Box::new(ChannelMagnitudes { values, comparable: false }));
    }
    if options.importance == Measure::Hessian {
        let data = dataset(model, step, SAMPLES)?;
        (report.samples, report.random) = (data.len() as u64, data.is_random());
        let source = Source { data: &data, batch: step.batch.unwrap_or(DEFAULT_BATCH), progress };
        return Ok(Box::new(saliencies(model, groups, &source)?));
    }
    if let Some(measure) = gradient_measure(options.importance) {
        let data = gradients::open(model, step.data.as_deref(), step.label.as_deref(), step.samples)?;
        (report.samples, report.random) = (data.len() as u64, data.is_random());
        let all = gradients::importance(model, &data, progress)?;
        report.note(all.note);
        let axes = all.list.iter().flat_map(|i| (0..i.parameter.dims.len()).map(move |axis| (i, axis)));
        let scores = axes.map(|(i, axis)| {
            let channels = i.channels(measure, axis).into_iter().map(f64::from).collect();
            ((i.parameter.name.to_string(), axis), channels)
        });
        return Ok(Box::new(ParameterScores { values: scores.collect() }));
    }
    Ok(Box::new(Norm { measure: options.importance, seed: options.seed }))
}

/// Second-order scores of all groups that may be cut, collected in parts that fit into memory.
fn saliencies(model: &Model, groups: &AxisGroups, source: &Source) -> Result<Saliencies> {
    let mut found = Saliencies::default();
    let free = groups.groups.iter().filter(|g| g.barrier.is_none() && g.classes.len() > 1);
    let small = |g| takers(model, groups, g).into_iter().filter(|l| is_small(&model.graph, l)).collect();
    let all: Vec<(&Group, Vec<Linear>)> = free.map(|g| (g, small(g))).collect();
    let mut rest = &all[..];
    while !rest.is_empty() {
        let mut room = BUDGET;
        let fits = |(_, layers): &&(&Group, Vec<Linear>)| {
            let bytes: usize = layers.iter().map(|l| bytes(&model.graph, l)).sum();
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        let (part, after) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = after;
        let layers = part.iter().flat_map(|(_, layers)| layers);
        let inputs: Vec<(String, Unfold)> = layers.map(|l| (l.input.clone(), l.unfold.clone())).collect();
        source.progress.start("collecting second-order statistics", source.data.batches(source.batch).len());
        let tick = || source.progress.tick();
        let mut grams = runtime::collect_grams(model, &inputs, source.data, source.batch, &tick)?.into_iter();
        source.progress.finish();
        let with_grams: Vec<(&Group, Vec<(Linear, Gram)>)> =
            part.iter().map(|(group, layers)| (*group, layers.iter().cloned().zip(grams.by_ref()).collect())).collect();
        let scores: Result<Vec<Option<Vec<f64>>>> =
            with_grams.par_iter().map(|(group, layers)| removal_scores(model, group, layers)).collect();
        for ((group, _), scores) in with_grams.iter().zip(scores?) {
            scores.into_iter().for_each(|s| found.insert(group, s));
        }
    }
    Ok(found)
}

fn gradient_measure(measure: Measure) -> Option<recover::Measure> {
    Some(match measure {
        Measure::Fisher => recover::Measure::Fisher,
        Measure::WeightedFisher => recover::Measure::WeightedFisher,
        Measure::GroupFisher => recover::Measure::GroupFisher,
        Measure::Taylor => recover::Measure::Taylor,
        _ => return None,
    })
}

/// What the layers take that channels could be removed from: (value, channel axis), each value once.
fn observed(model: &Model, groups: &AxisGroups) -> Vec<(String, usize)> {
    let free: BTreeSet<Place> =
        groups.groups.iter().filter(|g| g.barrier.is_none()).flat_map(|g| g.axes.iter().copied()).collect();
    let taken = groups.tied.iter().filter(|t| t.role == Role::Takes).map(|t| t.partner);
    let places: BTreeSet<Place> = taken.filter(|p| free.contains(p)).collect();
    let mut seen = BTreeSet::new();
    let once = places.into_iter().filter(|p| seen.insert(p.value));
    once.map(|p| (model.graph.name(p.value).to_string(), p.axis)).collect()
}

fn dataset(model: &Model, step: &PruneStep, most: usize) -> Result<Dataset> {
    let Some(path) = &step.data else {
        return Dataset::random(&model.graph, step.samples.unwrap_or(RANDOM_SAMPLES), 0);
    };
    let mut data = Dataset::open(path, &model.graph, None)?;
    data.limit(step.samples.unwrap_or(most));
    Ok(data)
}

impl PruneReport {
    /// Says something, once.
    fn note(&mut self, note: Option<String>) {
        self.notes.extend(note.filter(|n| !self.notes.contains(n)));
    }

    /// Adds what a round selected.
    fn add(&mut self, groups: &AxisGroups, selected: &Selected) {
        for (group, removed) in groups.groups.iter().zip(&selected.removed) {
            let after = group.classes.len() - removed.len();
            match self.layers.iter_mut().find(|l| l.name == group.name) {
                Some(layer) => layer.after = after,
                None => self.layers.push(PrunedLayer {
                    name: group.name.clone(),
                    before: group.classes.len(),
                    after,
                    reason: group.barrier.as_ref().map(|b| b.reason.clone()),
                }),
            }
        }
        self.note(selected.note.clone());
    }
}
