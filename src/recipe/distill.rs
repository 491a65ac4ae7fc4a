//! The distillation step.

use super::progress::Progress;
use super::schema::{DistillStep, RecoverMethod, RecoverStep};
use crate::error::{Context, Error, Result};
use crate::io::{self, Dataset};
use crate::ir::Model;
use crate::recover::{self, DistillOptions, Distillation, KeptElements, Status, Teacher};
use std::fmt::Write;
use std::path::Path;

/// Steps of the progress bar.
const TICKS: usize = 1000;

/// Trains the model in place on its teacher's outputs.
///
/// # Errors
/// Data that do not fit; models that do not match; see [`recover::distill`].
pub(super) fn distill(model: &mut Model, step: &DistillStep, progress: &dyn Progress) -> Result<Distillation> {
    let teacher = io::load(&step.teacher)?;
    let mut data = Dataset::open(&step.data, &model.graph, step.label.as_deref())?;
    data.limit(step.samples.unwrap_or(usize::MAX));
    let kept = step.map.as_deref().map(read_map).transpose()?;
    let teacher = Teacher { model: &teacher, kept: kept.as_ref(), exact: None };
    train(model, teacher, &data, &step.options, progress)
        .context(|| format!("distillation from {}", step.teacher.display()))
}

/// A model before training, and what training did.
pub struct Recovered {
    /// The model.
    pub untrained: Model,
    /// What training did.
    pub report: Distillation,
}

/// Samples of one step where no BatchNormalization needs more: more steps are worth more than better ones.
const FEW: usize = 32;

/// How many of `samples` a model may be fitted on before it is trained on the same data: the others are held out.
pub(super) fn left_for_fit(step: Option<&RecoverStep>, own: Option<&Path>, samples: usize) -> usize {
    let same = step.filter(|s| s.data.as_deref().is_none_or(|d| Some(d) == own));
    same.map_or(samples, |s| samples - s.options.held_out_of(samples.min(s.samples.unwrap_or(samples))))
}

/// Trains `model` in place with the model that it was made of as the teacher; `data` are those of the step, and whether the
/// model was fitted on the first of them.
///
/// # Errors
/// As [`recover::distill`].
pub(super) fn recover(
    model: &mut Model,
    original: Teacher,
    step: &RecoverStep,
    (data, fitted): (Option<&Path>, bool),
    progress: &dyn Progress,
) -> Result<Recovered> {
    let RecoverMethod::Distill = step.method;
    let path = step.data.as_deref().or(data);
    let path = path.ok_or_else(|| Error::usage("recovery trains on data: give --data"))?;
    let mut data = Dataset::open(path, &model.graph, step.label.as_deref())?;
    data.limit(step.samples.unwrap_or(usize::MAX));
    let untrained = model.clone();
    let normalized = recover::parameters_of(model).iter().any(|p| p.role == recover::Role::Statistic);
    let options = DistillOptions {
        batch: step.options.batch.or(if normalized { None } else { Some(FEW) }),
        hold_out_last: step.options.hold_out_last || fitted,
        ..step.options.clone()
    };
    let report = train(model, original, &data, &options, progress).context(|| "recovery")?;
    Ok(Recovered { untrained, report })
}

fn read_map(path: &Path) -> Result<KeptElements> {
    let place = || path.display().to_string();
    let text = std::fs::read(path).map_err(Error::from).context(place)?;
    serde_json::from_slice(&text).map_err(|e| Error::usage(format!("not a map of kept channels: {e}"))).context(place)
}

/// Trains the model in place and shows how it goes.
pub(super) fn train(
    model: &mut Model,
    teacher: Teacher,
    data: &Dataset,
    options: &DistillOptions,
    progress: &dyn Progress,
) -> Result<Distillation> {
    progress.start("distilling", TICKS);
    let mut ticks = 0;
    let mut watch = |s: &Status| {
        let now = ((s.done * TICKS as f64) as usize).min(TICKS);
        (ticks..now).for_each(|_| progress.tick());
        ticks = now.max(ticks);
        progress.status(&format!("step {}, loss {:.4}, best validation {:.4}", s.step, s.loss, s.best));
        !progress.is_stopped()
    };
    let done = recover::distill(teacher, model, data, options, &mut watch);
    progress.finish();
    done
}

/// The report for people.
pub(super) fn render(d: &Distillation, out: &mut String) {
    // Writing to a String cannot fail.
    let (parameters, elements) = d.trained;
    let _ = writeln!(
        out,
        "trained {parameters} parameters ({elements} numbers) on {} samples for {} steps, {:.0} s; {} samples held out",
        d.training_samples, d.steps, d.seconds, d.held_out_samples
    );
    let kinds: Vec<String> = d.losses.iter().map(|(name, kind)| format!("{name} {}", kind.name())).collect();
    let _ =
        writeln!(out, "loss: {}; held out {:.5} -> {:.5} (step {})", kinds.join(", "), d.before, d.after, d.best_step);
    if !d.tried_rates.is_empty() {
        let tried: Vec<String> = d.tried_rates.iter().map(|t| format!("{} {:.5}", t.rate, t.validation)).collect();
        let _ = writeln!(out, "learning rate {}: held out after a trial {}", d.learning_rate, tried.join(", "));
    }
    if !d.features.is_empty() {
        let _ = writeln!(out, "features: {}", d.features.join(", "));
    }
    if d.curve.len() > 1 {
        let _ = writeln!(out, "validation {}", sparkline(&d.curve.iter().map(|p| p.validation).collect::<Vec<_>>()));
    }
    if d.best_step == 0 {
        out.push_str("NOTHING was learnt: no step was better than the student as it came\n");
    }
    if let Some(why) = &d.stopped {
        let _ = writeln!(out, "ended early: {why}; the best parameters so far were kept");
    }
    if d.kept_zeros > 0 {
        let _ = writeln!(out, "{} weights were 0 and stayed so", d.kept_zeros);
    }
    let frozen: usize = d.frozen.iter().map(|f| f.elements).sum();
    if frozen > 0 {
        let share = 100.0 * frozen as f64 / (frozen + elements).max(1) as f64;
        let _ =
            writeln!(out, "NOT trained: {} parameters, {share:.1}% of all numbers (--json names each)", d.frozen.len());
        let mut reasons: Vec<&str> = d.frozen.iter().map(|f| &*f.why).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons.iter().for_each(|why| {
            let _ = writeln!(out, "  {why}");
        });
    }
}

/// Values as a line of bars, on a logarithmic scale.
fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] =
        ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
    let logs: Vec<f64> = values.iter().map(|v| v.max(1e-12).ln()).collect();
    let (low, high) = logs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
    let span = (high - low).max(1e-12);
    let bar = |x: &f64| BARS[(((x - low) / span * 7.0).round().clamp(0.0, 7.0)) as usize];
    logs.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_span_all_bars() {
        assert_eq!(sparkline(&[1.0, 0.1, 0.01]), "\u{2588}\u{2585}\u{2581}");
        assert_eq!(sparkline(&[0.5, 0.5]), "\u{2581}\u{2581}");
        assert_eq!(sparkline(&[]), "");
    }
}
