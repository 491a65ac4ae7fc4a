//! How much each layer's precision costs.

use super::gradients;
use super::layers::Trial;
use super::progress::Progress;
use super::schema::{QuantizeStep, ValidateStep};
use crate::error::{Context, Result};
use crate::io;
use crate::passes::quantize::Precision;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The table.
#[derive(Clone, Debug, Serialize)]
pub struct SensitivityReport {
    /// The model.
    pub model: String,
    /// Samples compared on.
    pub samples: usize,
    /// Whether they were random numbers for want of data.
    pub random: bool,
    /// Relative L2 with every layer quantized.
    pub all: f64,
    /// The layers, in execution order.
    pub layers: Vec<SensitivityRow>,
    /// Layers that cannot be named, so that they were quantized in every run.
    pub unnamed: usize,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub struct SensitivityRow {
    /// Node.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Multiply-accumulates of a sample.
    pub macs: Option<u64>,
    /// Relative L2 of the worst output where only this layer is quantized.
    pub alone: f64,
    /// The same where all layers but this one are.
    pub left_out: f64,
    /// Share of the squared error of the fully quantized model that goes with this layer left in float, in percent.
    pub share: f64,
    /// By how much rounding the layer's weight alone is expected to raise the loss: half the sum of `R(w) (q(w) - w)^2`, with
    /// the Fisher information `R(w)`. The loss is cross-entropy where there are labels, else the KL divergence from the
    /// model's own output, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fisher: Option<f64>,
}

/// Measures the sensitivity of every layer of a model file; `fisher`: also predicts it from gradients.
///
/// # Errors
/// As quantization and comparison; as [`crate::recover::importance`].
pub fn sensitivity_file(
    path: &Path,
    step: &QuantizeStep,
    judge: &ValidateStep,
    fisher: bool,
    progress: &dyn Progress,
) -> Result<SensitivityReport> {
    let model = io::load(path)?;
    let trial = Trial::new(&model, step, judge).context(|| path.display().to_string())?;
    trial.check()?;
    let expected = if fisher { expected(&trial, progress)? } else { BTreeMap::new() };
    progress.start("measuring layers", 2 * trial.layers.len());
    let all = trial.measure(&Default::default())?.energy();
    let mut layers = vec![];
    for layer in &trial.layers {
        let alone = trial.measure(&trial.only(Precision::F32, &layer.name, Precision::Eight))?.energy();
        progress.tick();
        let left_out = trial.measure(&[(layer.name.clone(), Precision::F32)].into())?.energy();
        progress.tick();
        layers.push(SensitivityRow {
            name: layer.name.clone(),
            op: layer.op.clone(),
            macs: layer.macs,
            alone: alone.sqrt(),
            left_out: left_out.sqrt(),
            fisher: expected.get(&layer.name).copied(),
            share: if all > 0.0 { 100.0 * (all - left_out) / all } else { 0.0 },
        });
    }
    progress.finish();
    let (samples, random) = trial.samples();
    let model = path.display().to_string();
    Ok(SensitivityReport { model, samples, random, all: all.sqrt(), layers, unnamed: trial.unnamed })
}

/// Expected growth of the loss by layer.
fn expected(trial: &Trial, progress: &dyn Progress) -> Result<BTreeMap<String, f64>> {
    let found = gradients::importance(&trial.prepared, trial.data(), progress)?;
    let mut expected = BTreeMap::new();
    for error in trial.rounding_errors()? {
        if let Some(i) = found.list.iter().find(|i| *i.parameter.name == *error.parameter) {
            let terms = i.fisher.iter().zip(&error.squares).map(|(r, e)| f64::from(r * e));
            expected.insert(error.layer, 0.5 * terms.sum::<f64>());
        }
    }
    Ok(expected)
}

impl SensitivityReport {
    /// The table for people, most sensitive layer first.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let kind = if self.random { "RANDOM samples (no data were given)" } else { "samples" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{}: relative L2 {:.3e} with all layers quantized, {} {kind}",
            self.model, self.all, self.samples
        );
        if self.unnamed > 0 {
            let _ =
                writeln!(out, "{} layers have no name of their own: they were quantized in every run", self.unnamed);
        }
        let width = self.layers.iter().map(|l| l.name.len()).max().unwrap_or(0).max(5);
        let with_fisher = self.layers.iter().any(|l| l.fisher.is_some());
        let title = if with_fisher { "  expected loss" } else { "" };
        let _ = writeln!(
            out,
            "{:<width$}  {:<8}  {:>12}  {:>10}  {:>10}  share of error{title}",
            "layer", "operator", "MACs", "alone", "left out"
        );
        let mut rows: Vec<&SensitivityRow> = self.layers.iter().collect();
        rows.sort_by(|a, b| b.alone.total_cmp(&a.alone));
        for l in rows {
            let macs = l.macs.map_or("?".into(), |m| m.to_string());
            let fisher = l.fisher.map_or(String::new(), |f| format!("          {f:>10.3e}"));
            let _ = writeln!(
                out,
                "{:<width$}  {:<8}  {macs:>12}  {:>10.3e}  {:>10.3e}  {:>5.1}%{fisher}",
                l.name, l.op, l.alone, l.left_out, l.share
            );
        }
        out
    }
}
