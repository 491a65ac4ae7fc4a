//! Passes that make quantization more accurate: what they need is collected here.

use super::progress::Progress;
use super::quantize::{DEFAULT_BATCH, calibration_data};
use super::schema::QuantizeStep;
use crate::calibrate::Sample;
use crate::error::{Error, Result};
use crate::ir::Model;
use crate::math::Unfold;
use crate::passes::PassContext;
use crate::passes::manager::{self, Check, PassReport};
use crate::passes::quantize::{Migrate, MigrateRanges};
use crate::runtime::{self, Wanted};
use std::collections::HashMap;

/// Columns of a layer's input that quantizations are tried on.
const SAMPLE_SIZE: usize = 512;

/// What changes the ranges of values, and so comes before they are collected.
pub(super) fn rescale(
    model: &mut Model,
    step: &QuantizeStep,
    cx: &PassContext,
    check: Option<&Check>,
    progress: &dyn Progress,
) -> Result<Vec<PassReport>> {
    let mut reports = vec![];
    if step.options.migrate != Migrate::None {
        let wanted = MigrateRanges::wanted(model, &step.options)?;
        let wanted = wanted.into_iter().map(|name| (name, Unfold::Last)).collect();
        let samples = samples(model, step, wanted, "migrate", progress)?;
        let migrate = MigrateRanges { options: step.options.clone(), samples };
        reports.extend(manager::run(model, &[&migrate], cx, check)?);
    }
    Ok(reports)
}

/// Samples of layer inputs by name, from the calibration data.
fn samples(
    model: &Model,
    step: &QuantizeStep,
    samples: Vec<(String, Unfold)>,
    option: &str,
    progress: &dyn Progress,
) -> Result<HashMap<String, Sample>> {
    if step.data.is_none() && step.calibration_table.as_ref().is_some_and(|p| p.exists()) {
        return Err(Error::usage(format!(
            "\"{option}\" tries quantizations on data, which a table does not hold: give --data"
        )));
    }
    if samples.is_empty() {
        return Ok(HashMap::new());
    }
    let data = calibration_data(model, step)?;
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    progress.start("sampling", data.batches(batch).len());
    let wanted = Wanted { samples, sample_size: SAMPLE_SIZE, ..Wanted::default() };
    let collected = runtime::collect(model, &wanted, &data, batch, &|| progress.tick())?;
    progress.finish();
    Ok(wanted.samples.into_iter().map(|(name, _)| name).zip(collected.samples).collect())
}
