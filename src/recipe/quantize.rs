//! The quantization step: prepare, draft, calibrate, write.

use super::accuracy;
use super::progress::Progress;
use super::rounding::{round, round_weights};
use super::schema::QuantizeStep;
use crate::analysis::opset;
use crate::calibrate::{CalibrationTable, Method, QuantParams, RangeSpec};
use crate::error::{Context, Error, Result};
use crate::io::{self, Dataset};
use crate::ir::{DType, MICROSOFT, Model};
use crate::passes::convert::{Retype, StoreFloats, has_values_of};
use crate::passes::manager::{self, Check, PassReport};
use crate::passes::quantize::weight_only::{Reached, WeightPlan, WriteWeights};
use crate::passes::quantize::{
    Coverage, DynamicLstm, Eight, Mode, Plan, Precision, Quantization, QuantizeOptions, Reach, Selection,
    SplitGemmBias, StoreWeights, WriteDynamic, WritePlan, has_computed_weights,
};
use crate::passes::simplify::eliminate::EliminateCast;
use crate::passes::simplify::{
    EliminateIdentity, FOLD_LIMIT, FoldBatchNorm, FoldConstantOfShape, FoldConstants, FoldShapes, InlineIf,
    LiftConstants, LiftInitializerInputs,
};
use crate::passes::{Effect, Outcome, Pass, PassContext, Rewrite, RewritePass};
use crate::runtime::{self, RuntimeEvaluator, Wanted};
use std::collections::HashMap;

/// Operator set that the written operators need: per-axis DequantizeLinear, and data movement of every 8-bit type.
pub(super) const OPSET: i64 = 13;

/// Operator set that has 16-bit QuantizeLinear, types of 4 bits and blocks.
const NEWER_OPSET: i64 = 21;

/// Samples at once where the recipe does not say.
pub(super) const DEFAULT_BATCH: usize = 1;

/// Random samples where there is no data.
pub(super) const RANDOM_SAMPLES: usize = 8;

/// What quantization did, beside the model.
pub struct Quantized {
    /// What each pass did.
    pub passes: Vec<PassReport>,
    /// The plan that was written: decisions for every node of `prepared`.
    pub plan: Plan,
    /// The model that the plan was made for: the original with constants lifted and BatchNormalization folded.
    pub prepared: Model,
    /// Weights that are stored in few bits and used in float: tables, or all where only weights are quantized.
    pub weights: WeightPlan,
    /// Samples of calibration, and whether they were random.
    pub calibration: Calibration,
    /// Whether weights of layers that compute in float are stored in fewer bits.
    pub stored: bool,
}

impl Quantized {
    /// How much of the model was quantized.
    ///
    /// # Errors
    /// An invalid pattern in the options.
    pub fn coverage(&self) -> Result<Coverage> {
        if self.weights.options.mode == Mode::Weights {
            return self.weights.coverage(&self.prepared);
        }
        let mut coverage = Coverage::of(&self.prepared, &self.plan)?;
        self.weights.add_to(&self.prepared, &mut coverage);
        Ok(coverage)
    }

    /// Whether there was nothing to quantize.
    pub fn is_empty(&self) -> bool {
        self.plan.groups.is_empty() && self.weights.weights.is_empty() && !self.stored
    }
}

/// What the ranges come from.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Calibration {
    /// Number of samples.
    pub samples: u64,
    /// Whether they were random numbers for want of data.
    pub random: bool,
    /// Method, as the command line spells it.
    pub method: String,
    /// Number of values observed.
    pub values: usize,
}

/// Quantizes `model` in place.
///
/// # Errors
/// Data that do not fit, operators that tract cannot run, NaN in weights or data, an operator set that cannot be
/// upgraded; each names its place.
pub fn quantize(
    model: &mut Model,
    step: &QuantizeStep,
    cx: &PassContext,
    check: Option<&Check>,
    progress: &dyn Progress,
) -> Result<Quantized> {
    let mut hash = fingerprint(model);
    // Against the model as the user knows it: preparation folds nodes away.
    Selection::new(&step.options)?.check(&model.graph)?;
    let half = widen(model, cx, check)?;
    let mut passes = half.clone();
    passes.extend(prepare(model, &step.options, cx, check)?);
    if step.options.mode == Mode::Weights {
        let mut done = weights_only(model, step, cx, check, progress, passes)?;
        finish_half(model, &half, &mut done, cx, check)?;
        return Ok(done);
    }
    let rescaled = accuracy::rescale(model, step, cx, check, progress)?;
    if rescaled.iter().any(|p| p.changes > 0) {
        // The values have other ranges now.
        hash = fingerprint(model);
    }
    passes.extend(rescaled);
    let stores = store_weights(model, &step.options, cx, check)?;
    let stored = stores.iter().any(|p| p.pass != "fold_weights" && p.changes > 0);
    passes.extend(stores);
    let mut plan = Plan::draft(model, &step.options)?;
    if step.options.mode == Mode::Dynamic {
        let mut done = dynamic(model, step, cx, check, passes, plan)?;
        done.stored = stored;
        finish_half(model, &half, &mut done, cx, check)?;
        return Ok(done);
    }
    let means = plan.mean_inputs(&model.graph).into_iter().map(|(name, axis)| (name.to_string(), axis)).collect();
    let ranges: Vec<String> = plan.observed(&model.graph).into_iter().map(str::to_string).collect();
    let prepared = model.clone();
    let method = step.method.0;
    let mut calibration = Calibration { samples: 0, random: false, method: method.to_string(), values: ranges.len() };
    if ranges.is_empty() {
        let weights = write_tables(model, step, cx, check, &mut passes)?;
        let mut done = Quantized { passes, plan, prepared, weights, calibration, stored };
        finish_half(model, &half, &mut done, cx, check)?;
        return Ok(done);
    }
    let table = table(model, step, &Wanted { ranges, means, ..Wanted::default() }, &hash, progress)?;
    for (name, mean) in &table.channel_means {
        plan.set_input_mean(&model.graph, name, mean.clone());
    }
    (calibration.samples, calibration.random) = (table.samples, table.random);
    let spec = range_spec(step.options.activations, &step.options)?;
    let (clipped, report) = accuracy::clip(model, step, &plan, &table, &spec, progress)?;
    passes.extend(report);
    plan.set_scales(&model.graph, |names, reach, eight| {
        let spec = range_spec(eight, &step.options)?;
        // The largest results decide (a class, a box): no method may clip them.
        let method = if reach == Reach::Last { Method::MinMax } else { method };
        let mut union: Option<(f32, f32)> = None;
        for name in names {
            let (low, high) = table.range(name, method, &spec).ok_or_else(|| {
                Error::data(format!("the calibration table has no value \"{name}\": calibrate again"))
            })?;
            union = Some(union.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
        }
        let found = names.first().and_then(|n| clipped.get(*n)).filter(|_| eight == step.options.activations);
        let union = found.copied().or(union);
        // Always zero in the data: a scale as for 0 to 1, so that biases that depend on it keep their digits.
        let (low, high) = union.filter(|r| *r != (0.0, 0.0)).unwrap_or((0.0, 1.0));
        let QuantParams { scale, zero_point } = QuantParams::from_range(low, high, &spec);
        Ok(Quantization { scale, zero_point, eight })
    })?;
    accuracy::measure_drifts(model, step, &mut plan, progress)?;
    round_weights(model, step, &mut plan, progress)?;
    let write = WritePlan { plan };
    passes.extend(manager::run(model, &[&write], cx, check)?);
    let weights = write_tables(model, step, cx, check, &mut passes)?;
    let mut done = Quantized { passes, plan: write.plan, prepared, weights, calibration, stored };
    finish_half(model, &half, &mut done, cx, check)?;
    Ok(done)
}

/// The rules that quantization needs, and no more: users who want the whole simplifier run it before.
fn prepare(
    model: &mut Model,
    options: &QuantizeOptions,
    cx: &PassContext,
    check: Option<&Check>,
) -> Result<Vec<PassReport>> {
    crate::analysis::shapes::infer_types(model)?;
    let lift =
        RewritePass::new("lift_constants", vec![Box::new(LiftConstants), Box::new(FoldConstantOfShape::for_weights())]);
    let identity = RewritePass::new("eliminate_identity", vec![Box::new(EliminateIdentity)]);
    let fold = RewritePass::new("fold_batch_norm", vec![Box::new(FoldBatchNorm)]);
    let split = SplitGemmBias { options: options.clone() };
    let blocks = options.mode == Mode::Weights && options.needs_blocks();
    let single = options.gives(Precision::Four) || options.gives(Precision::Sixteen);
    let newer = options.weight_bits < 8 || blocks || options.activations.bits() > 8 || single;
    let opset = RequireOpset(if newer { NEWER_OPSET } else { OPSET });
    let passes: [&dyn Pass; 6] = [&LiftInitializerInputs, &lift, &opset, &identity, &fold, &split];
    manager::run(model, &passes, cx, check)
}

/// The model as quantization with these options prepares it: what its names and weights refer to.
///
/// # Errors
/// As [`quantize`].
pub(super) fn prepared(model: &Model, options: &QuantizeOptions) -> Result<Model> {
    let (mut model, cx) = (model.clone(), PassContext::default());
    widen(&mut model, &cx, None)?;
    prepare(&mut model, options, &cx, None)?;
    fold_weights(&mut model, &cx, None)?;
    Ok(model)
}

/// A model that computes in f16 becomes one that computes in f32, with the interface as it was. Runtimes for CPUs compute
/// f16 in f32 too, and integer kernels want f32 scales. Nothing happens to other models.
fn widen(model: &mut Model, cx: &PassContext, check: Option<&Check>) -> Result<Vec<PassReport>> {
    crate::analysis::shapes::infer_types(model)?;
    if !has_values_of(&model.graph, DType::F16) {
        return Ok(vec![]);
    }
    let lift = RewritePass::new("lift_constants", vec![Box::new(LiftConstants)]);
    let retype = Retype::new(DType::F16, DType::F32, None);
    let cast = RewritePass::new("eliminate_cast", vec![Box::new(EliminateCast)]);
    manager::run(model, &[&LiftInitializerInputs, &lift, &retype, &cast], cx, check)
}

/// Puts the constants that a model had in f16, and that are still float, back.
fn finish_half(
    model: &mut Model,
    half: &[PassReport],
    done: &mut Quantized,
    cx: &PassContext,
    check: Option<&Check>,
) -> Result<()> {
    if !half.is_empty() {
        done.passes.extend(narrow(model, cx, check)?);
    }
    Ok(())
}

/// What is left of a model's f16 constants goes back into f16, which loses nothing.
fn narrow(model: &mut Model, cx: &PassContext, check: Option<&Check>) -> Result<Vec<PassReport>> {
    let rule = StoreFloats { to: DType::F16, exact: true };
    let store = RewritePass::new("store_floats", vec![]).with_graph_rules(vec![Box::new(rule)]);
    manager::run(model, &[&store], cx, check)
}

/// Stores the weights of what no plan reaches in fewer bits: before calibration, so that ranges are those of the result.
fn store_weights(
    model: &mut Model,
    options: &QuantizeOptions,
    cx: &PassContext,
    check: Option<&Check>,
) -> Result<Vec<PassReport>> {
    let mut reports = fold_weights(model, cx, check)?;
    let dynamic = RewritePass::new("dynamic_lstm", vec![Box::new(DynamicLstm::new(options)?)]);
    reports.extend(manager::run(model, &[&dynamic], cx, check)?);
    model.import_if_used(MICROSOFT, 1);
    let rule = StoreWeights::new(model, options)?;
    let store = RewritePass::new("store_weights", vec![]).with_graph_rules(vec![Box::new(rule)]);
    reports.extend(manager::run(model, &[&store], cx, check)?);
    Ok(reports)
}

/// Computes weights that the graph computes from constants, so that they can be rounded.
fn fold_weights(model: &mut Model, cx: &PassContext, check: Option<&Check>) -> Result<Vec<PassReport>> {
    if !has_computed_weights(model) {
        return Ok(vec![]);
    }
    let rules: Vec<Box<dyn Rewrite>> = vec![
        Box::new(LiftConstants),
        Box::new(FoldShapes),
        Box::new(FoldConstants { limit: FOLD_LIMIT }),
        Box::new(InlineIf),
    ];
    let fold = RewritePass::new("fold_weights", rules).with_evaluator(&RuntimeEvaluator);
    manager::run(model, &[&fold], cx, check)
}

/// Raises the operator set to what quantized operators need.
pub(super) struct RequireOpset(pub(super) i64);

impl Pass for RequireOpset {
    fn name(&self) -> &'static str {
        "upgrade_opset"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, model: &mut Model, _: &PassContext) -> Result<Outcome> {
        let before = model.default_opset();
        if before >= self.0 {
            return Ok(Outcome::default());
        }
        opset::require(model, self.0)?;
        Ok(Outcome { changes: 1, ..Outcome::default() })
    }
}

/// Quantizes weights alone: no ranges, and data only for rounding with feedback.
fn weights_only(
    model: &mut Model,
    step: &QuantizeStep,
    cx: &PassContext,
    check: Option<&Check>,
    progress: &dyn Progress,
    mut passes: Vec<PassReport>,
) -> Result<Quantized> {
    let stores = store_weights(model, &step.options, cx, check)?;
    let stored = stores.iter().any(|p| p.pass != "fold_weights" && p.changes > 0);
    passes.extend(stores);
    let mut weights = WeightPlan::draft(model, &step.options, Reached::All)?;
    let prepared = model.clone();
    let calibration = round(model, step, &mut weights, progress)?;
    let write = WriteWeights { plan: weights };
    passes.extend(manager::run(model, &[&write], cx, check)?);
    let plan = Plan::empty(&step.options);
    Ok(Quantized { passes, plan, prepared, weights: write.plan, calibration, stored })
}

/// Writes layers whose inputs get their ranges when the model runs.
fn dynamic(
    model: &mut Model,
    step: &QuantizeStep,
    cx: &PassContext,
    check: Option<&Check>,
    mut passes: Vec<PassReport>,
    mut plan: Plan,
) -> Result<Quantized> {
    let prepared = model.clone();
    let write = WriteDynamic { structure: plan.structure, options: step.options.clone() };
    passes.extend(manager::run(model, &[&write], cx, check)?);
    plan.structure = write.structure;
    let weights = write_tables(model, step, cx, check, &mut passes)?;
    let calibration = Calibration { samples: 0, random: false, method: "dynamic".into(), values: 0 };
    Ok(Quantized { passes, plan, prepared, weights, calibration, stored: false })
}

/// Stores tables of embeddings in few bits.
fn write_tables(
    model: &mut Model,
    step: &QuantizeStep,
    cx: &PassContext,
    check: Option<&Check>,
    passes: &mut Vec<PassReport>,
) -> Result<WeightPlan> {
    let mut plan = WeightPlan::draft(model, &step.options, Reached::Tables)?;
    plan.round(&model.graph, &HashMap::new(), false)?;
    let write = WriteWeights { plan };
    passes.extend(manager::run(model, &[&write], cx, check)?);
    Ok(write.plan)
}

/// How values of a type are quantized.
pub(super) fn range_spec(eight: Eight, options: &QuantizeOptions) -> Result<RangeSpec> {
    RangeSpec::new(eight.bits(), eight.is_signed(), options.symmetric_activations)
}

/// What is wanted: from the table of the recipe where it exists, else from data (and saved there).
fn table(
    model: &Model,
    step: &QuantizeStep,
    wanted: &Wanted,
    hash: &str,
    progress: &dyn Progress,
) -> Result<CalibrationTable> {
    if let Some(path) = step.calibration_table.as_ref().filter(|p| p.exists()) {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).context(place)?;
        let table = CalibrationTable::from_json(&text).context(place)?;
        if table.model_hash != hash {
            let other = Error::data("the calibration table was made with another model; remove it to calibrate again");
            return Err(other).context(place);
        }
        return Ok(table);
    }
    let data = open_data(model, step)?;
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    progress.start("calibrating", data.batches(batch).len());
    let collected = runtime::collect(model, wanted, &data, batch, &|| progress.tick())?;
    progress.finish();
    let graph = model.graph.shell.name.clone().unwrap_or_default();
    let mut table = CalibrationTable::new(graph, hash, data.len() as u64, data.is_random());
    table.values = collected.statistics.into_statistics().collect();
    let means = wanted.means.iter().zip(&collected.means);
    table.channel_means = means.filter_map(|((name, _), m)| Some((name.clone(), m.finish()?))).collect();
    if let Some(path) = &step.calibration_table {
        io::write_atomically(path, table.to_json()?.as_bytes())?;
    }
    Ok(table)
}

/// The samples that the step names, or random ones.
pub(super) fn open_data(model: &Model, step: &QuantizeStep) -> Result<Dataset> {
    let Some(path) = &step.data else {
        let mut data = Dataset::random(&model.graph, step.samples.unwrap_or(RANDOM_SAMPLES), 0)?;
        data.link(&model.graph, &step.state)?;
        return Ok(data);
    };
    let mut data = Dataset::open_stateful(path, &model.graph, None, &step.state)?;
    data.limit(step.samples.unwrap_or(usize::MAX));
    Ok(data)
}

/// A hash of the model's operators, names and weights: the same file gives the same on every machine.
fn fingerprint(model: &Model) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    };
    let graph = &model.graph;
    for v in graph.values() {
        add(graph.name(v).as_bytes());
        if let Some(t) = &graph.value(v).init
            && let Ok(bytes) = t.bytes()
        {
            add(&bytes);
        }
    }
    for n in graph.nodes() {
        add(graph.node(n).op.op_type.as_bytes());
    }
    format!("{hash:016x}")
}
