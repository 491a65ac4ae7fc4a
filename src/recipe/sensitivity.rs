//! How much each layer's precision costs.

use super::layers::Trial;
use super::progress::Progress;
use super::schema::{QuantizeStep, ValidateStep};
use crate::error::{Context, Result};
use crate::io;
use crate::passes::quantize::Precision;
use serde::Serialize;
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
}

/// Measures the sensitivity of every layer of a model file.
///
/// # Errors
/// As quantization and comparison.
pub fn sensitivity_file(
    path: &Path,
    step: &QuantizeStep,
    judge: &ValidateStep,
    progress: &dyn Progress,
) -> Result<SensitivityReport> {
    let model = io::load(path)?;
    let trial = Trial::new(&model, step, judge).context(|| path.display().to_string())?;
    trial.check()?;
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
            share: if all > 0.0 { 100.0 * (all - left_out) / all } else { 0.0 },
        });
    }
    progress.finish();
    let (samples, random) = trial.samples();
    let model = path.display().to_string();
    Ok(SensitivityReport { model, samples, random, all: all.sqrt(), layers, unnamed: trial.unnamed })
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
        let _ = writeln!(
            out,
            "{:<width$}  {:<8}  {:>12}  {:>10}  {:>10}  share of error",
            "layer", "operator", "MACs", "alone", "left out"
        );
        let mut rows: Vec<&SensitivityRow> = self.layers.iter().collect();
        rows.sort_by(|a, b| b.alone.total_cmp(&a.alone));
        for l in rows {
            let macs = l.macs.map_or("?".into(), |m| m.to_string());
            let _ = writeln!(
                out,
                "{:<width$}  {:<8}  {macs:>12}  {:>10.3e}  {:>10.3e}  {:>5.1}%",
                l.name, l.op, l.alone, l.left_out, l.share
            );
        }
        out
    }
}
