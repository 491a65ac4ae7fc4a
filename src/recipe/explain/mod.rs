//! Where the drift of a quantized model comes from.

mod advice;
mod html;
mod measure;
mod read;
mod text;

pub(super) use html::{SIZE, STYLE, drawing, escape};

use super::layers::PROBE_SAMPLES;
use super::progress::Progress;
use super::quantize::{DEFAULT_BATCH, prepared};
use super::run::{Fallback, open_data};
use super::schema::ValidateStep;
use crate::analysis::shapes;
use crate::drift;
use crate::error::{Context, Error, Result};
use crate::io;
use crate::ir::Model;
use crate::passes::quantize::{Format, QuantizeOptions};
use measure::Hybrids;
use read::roundings;
use serde::Serialize;
use std::path::Path;

/// Where the drift comes from.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainReport {
    /// The model as exported.
    pub original: String,
    /// The model that is explained.
    pub quantized: String,
    /// Samples.
    pub samples: usize,
    /// Whether they were random numbers for want of data.
    pub random: bool,
    /// The output whose drift is explained: the one that moved most.
    pub output: String,
    /// Its relative L2.
    pub relative_l2: f64,
    /// Its signal to quantization noise, in dB.
    pub sqnr_db: f64,
    /// Sum of the costs of all roundings over the squared relative L2 that the quantized model itself shows: 1 where the
    /// account is complete.
    pub explained: f64,
    /// The roundings, in execution order.
    pub roundings: Vec<RoundingReport>,
    /// What to do about the most expensive ones.
    pub advice: Vec<String>,
}

/// One rounding: of the weight of a layer, or of a value.
#[derive(Clone, Debug, Serialize)]
pub struct RoundingReport {
    /// `weight` or `activation`.
    pub kind: &'static str,
    /// The layer; empty for a graph input.
    pub layer: String,
    /// Its operator.
    pub op: String,
    /// Name of the weight or value.
    pub value: String,
    /// Signal to noise of this rounding alone, in dB.
    pub sqnr_db: f64,
    /// The same with all errors that arrive from before; `None` for weights.
    pub arriving_sqnr_db: Option<f64>,
    /// Share of the drift, in percent of its square: what the drift grows by when this rounding is put in, averaged over
    /// doing so from the first layer on and from the last one on. Negative where it cancels errors of others.
    pub share: f64,
    /// Share of the elements that were clipped, in percent.
    pub saturated: Option<f64>,
    /// Share of the codes that no element used, in percent.
    pub unused_range: Option<f64>,
    /// Largest magnitude over root mean square.
    pub peak: f64,
}

/// Explains a quantized model.
///
/// Every rounding that it makes is found by the names that the models share and put into the float model one by one, in
/// execution order and in the reverse order; each costs what it adds to the squared relative L2 of the output on average
/// (a Shapley value over these two orders). The costs add up to the drift of the float model with all roundings, which is
/// compared with that of the quantized model.
///
/// # Errors
/// Models that do not belong together, operators that tract cannot run, no rounding found.
pub fn explain_files(
    original: &Path,
    quantized: &Path,
    judge: &ValidateStep,
    progress: &dyn Progress,
) -> Result<ExplainReport> {
    let (a, mut b) = (io::load(original)?, io::load(quantized)?);
    shapes::infer_types(&mut b).context(|| quantized.display().to_string())?;
    let base = base(&a, &b).context(|| original.display().to_string())?;
    let found = roundings(&base, &b);
    if found.is_empty() {
        return Err(Error::data(format!(
            "{}: no rounding is found in it that belongs to a layer or value of {}; was it made from that model?",
            quantized.display(),
            original.display()
        )));
    }
    let judge = ValidateStep { samples: judge.samples.or(Some(PROBE_SAMPLES)), ..judge.clone() };
    let data = open_data(&a.graph, &judge, Fallback::default())?;
    let batch = judge.batch.unwrap_or(DEFAULT_BATCH);
    let actual = drift::compare(&a, &b, &data, batch, &|| {})?;
    let worst = (0..actual.len()).max_by(|&i, &j| actual[i].relative_l2.total_cmp(&actual[j].relative_l2));
    let worst = worst.ok_or_else(|| Error::data("the models have no outputs"))?;
    let hybrids = Hybrids { original: &a, base: &base, found: &found, data: &data, batch, output: worst };
    let shares = hybrids.shares(progress)?;
    let total = actual[worst].relative_l2.powi(2);
    let sum: f64 = shares.iter().sum();
    let mut rows = hybrids.rows()?;
    for (row, share) in rows.iter_mut().zip(&shares) {
        row.share = 100.0 * share / sum.abs().max(f64::MIN_POSITIVE);
    }
    let mut report = ExplainReport {
        original: original.display().to_string(),
        quantized: quantized.display().to_string(),
        samples: data.len(),
        random: data.is_random(),
        output: actual[worst].name.clone(),
        relative_l2: actual[worst].relative_l2,
        sqnr_db: actual[worst].sqnr_db,
        explained: if total > 0.0 { sum / total } else { 1.0 },
        roundings: rows,
        advice: vec![],
    };
    report.advice = advice::advice(&report);
    Ok(report)
}

/// The original as quantization prepares it, so that names and shapes of weights are those of the quantized model.
fn base(original: &Model, quantized: &Model) -> Result<Model> {
    let integer = |n| quantized.graph.node(n).op.op_type.starts_with("QLinear");
    let format = if quantized.graph.nodes().any(integer) { Format::Qlinear } else { Format::Qdq };
    let options = QuantizeOptions { format, ..QuantizeOptions::default() };
    prepared(original, &options)
}
