//! Passes that make quantization more accurate: what they need is collected here.

use super::progress::Progress;
use super::quantize::{DEFAULT_BATCH, open_data, range_spec};
use super::schema::QuantizeStep;
use crate::calibrate::{CalibrationTable, ChannelStatistics, Method, QuantParams, RangeSpec, Sample};
use crate::error::{Error, Result};
use crate::io::Dataset;
use crate::ir::Model;
use crate::math::Unfold;
use crate::passes::manager::{self, Check, PassReport};
use crate::passes::quantize::{ClipSearch, Clipped, EqualizeChannels, EqualizeOptions, Migrate, MigrateRanges, Plan};
use crate::passes::{Effect, Note, PassContext};
use crate::recover;
use crate::runtime::{self, Wanted};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Samples that noise gains are measured on.
const EQUALIZATION_SAMPLES: usize = 64;
/// Columns of a layer's input that strengths of migration are tried on.
const MIGRATION_COLUMNS: usize = 512;
/// Least and most columns of a layer's input that ranges are tried on. The best range hangs on rare large values: with 512,
/// ranges of ResNet-20 clipped too much; in large models they are what time allows.
const CLIP_COLUMNS: (usize, usize) = (512, 2048);
/// Products of a column and a weight's element, over all layers, that each range tried may take.
const CLIP_WORK: usize = 1 << 31;

/// What changes the ranges of values, and so comes before they are collected.
pub(super) fn rescale(
    model: &mut Model,
    step: &QuantizeStep,
    cx: &PassContext,
    check: Option<&Check>,
    progress: &dyn Progress,
) -> Result<Vec<PassReport>> {
    let mut reports = vec![];
    if step.options.equalize {
        let (statistics, why) = equalization_data(model, step, progress)?;
        let equalize = EqualizeChannels { options: EqualizeOptions::of(&step.options), statistics };
        reports.extend(manager::run(model, &[&equalize], cx, check)?);
        if let (Some(report), Some(text)) = (reports.last_mut(), why) {
            report.notes.push(Note { pass: report.pass.clone(), subject: String::new(), text });
        }
    }
    if step.options.migrate != Migrate::None {
        let wanted = MigrateRanges::wanted(model, &step.options)?;
        let inputs = wanted.iter().map(|name| (name.clone(), Unfold::Last)).collect();
        let samples = collect_samples(model, step, (inputs, MIGRATION_COLUMNS), "migrate", progress)?;
        let samples = wanted.into_iter().zip(samples).collect();
        let migrate = MigrateRanges { options: step.options.clone(), samples };
        reports.extend(manager::run(model, &[&migrate], cx, check)?);
    }
    Ok(reports)
}

/// Statistics by value name.
type Channels = HashMap<String, ChannelStatistics>;

/// What equalization goes by where there are data; or why there is nothing.
fn equalization_data(
    model: &Model,
    step: &QuantizeStep,
    progress: &dyn Progress,
) -> Result<(Option<Channels>, Option<String>)> {
    let wanted = EqualizeChannels::wanted(model)?;
    if step.data.is_none() || wanted.is_empty() {
        return Ok((None, None));
    }
    let mut data = open_data(model, step)?;
    data.limit(EQUALIZATION_SAMPLES);
    progress.start("measuring noise gains", 1);
    let found = recover::channel_statistics(model, &data, &wanted);
    progress.finish();
    match found {
        Ok(found) => Ok((Some(wanted.into_iter().map(|(name, _)| name).zip(found).collect()), None)),
        Err(e) => Ok((None, Some(format!("by weights alone, without the calibration data: {e}")))),
    }
}

/// Ranges by value name.
pub(super) type Ranges = HashMap<String, (f32, f32)>;

/// Ranges of layer inputs by the error of the layers' outputs, by the first name of each scale group; and what to report.
pub(super) fn clip(
    model: &Model,
    step: &QuantizeStep,
    plan: &Plan,
    table: &CalibrationTable,
    spec: &RangeSpec,
    progress: &dyn Progress,
) -> Result<(Ranges, Option<PassReport>)> {
    if !step.options.clip_search {
        return Ok((HashMap::new(), None));
    }
    let start = Instant::now();
    let graph = &model.graph;
    let search = ClipSearch::of(model, plan);
    let columns = (CLIP_WORK / search.work(graph).max(1)).clamp(CLIP_COLUMNS.0, CLIP_COLUMNS.1);
    let samples = collect_samples(model, step, (search.wanted(graph), columns), "clip-search", progress)?;
    let first = |group: usize| plan.groups.sources(group).first().map(|&v| graph.name(v).to_string());
    let found = search.search(graph, plan, &samples, |group| {
        let range = |method| {
            plan.groups.sources(group).iter().try_fold((0f32, 0f32), |(low, high), &v| {
                let missing = || Error::data(format!("the calibration table has no value \"{}\"", graph.name(v)));
                let (l, h) = table.range(graph.name(v), method, spec).ok_or_else(missing)?;
                Ok::<_, Error>((low.min(l), high.max(h)))
            })
        };
        Ok([range(step.method.0)?, range(Method::MinMax)?])
    })?;
    let ranges = found.ranges.iter().filter_map(|(group, range)| Some((first(*group)?, *range))).collect();
    Ok((ranges, Some(clip_report(&found, start))))
}

fn clip_report(found: &Clipped, start: Instant) -> PassReport {
    let count = found.ranges.len();
    let decibels = |e: f64| -10.0 * (e / count.max(1) as f64).log10();
    let (before, after) = (decibels(found.errors.0), decibels(found.errors.1));
    let text = format!("ranges of {count} layer inputs: outputs of those layers {before:.1} dB -> {after:.1} dB");
    let pass = "clip_search".to_string();
    let notes = if count > 0 { vec![Note { pass: pass.clone(), subject: String::new(), text }] } else { vec![] };
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    PassReport {
        pass,
        effect: Effect::Lossy,
        changes: count,
        rules: BTreeMap::new(),
        last_rule: None,
        milliseconds,
        notes,
    }
}

/// Measures what rounding adds to the mean of each channel of layer inputs, for biases to take up.
pub(super) fn measure_drifts(
    model: &Model,
    step: &QuantizeStep,
    plan: &mut Plan,
    progress: &dyn Progress,
) -> Result<()> {
    if !step.options.empirical_bias_correction {
        return Ok(());
    }
    let graph = &model.graph;
    let mut drifts = vec![];
    for (name, axis) in plan.layers_with_bias(graph) {
        let Some(q) = graph.find(name).and_then(|v| plan.quantization(v)) else { continue };
        let params = QuantParams { scale: q.scale, zero_point: q.zero_point };
        drifts.push((name.to_string(), axis, params, range_spec(q.eight, &step.options)?));
    }
    let data = data(model, step, "empirical-bias-correction")?;
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    progress.start("measuring shifts", data.batches(batch).len());
    let wanted = Wanted { drifts, ..Wanted::default() };
    let collected = runtime::collect(model, &wanted, &data, batch, &|| progress.tick())?;
    progress.finish();
    for ((name, ..), drift) in wanted.drifts.iter().zip(&collected.drifts) {
        if let Some(drift) = drift.finish() {
            plan.set_input_drift(graph, name, drift);
        }
    }
    Ok(())
}

/// The calibration data, which the option cannot do without.
fn data(model: &Model, step: &QuantizeStep, option: &str) -> Result<Dataset> {
    if step.data.is_none() {
        return Err(Error::usage(format!("\"{option}\" measures on calibration data: give --data")));
    }
    open_data(model, step)
}

/// Samples of layer inputs of so many columns, in the order of `samples`.
fn collect_samples(
    model: &Model,
    step: &QuantizeStep,
    (samples, columns): (Vec<(String, Unfold)>, usize),
    option: &str,
    progress: &dyn Progress,
) -> Result<Vec<Sample>> {
    let data = data(model, step, option)?;
    if samples.is_empty() {
        return Ok(vec![]);
    }
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    progress.start("sampling", data.batches(batch).len());
    let wanted = Wanted { samples, sample_size: columns, ..Wanted::default() };
    let collected = runtime::collect(model, &wanted, &data, batch, &|| progress.tick())?;
    progress.finish();
    Ok(collected.samples)
}
