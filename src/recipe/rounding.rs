//! Rounding of weights with the calibration data in view: collects what it asks for, in parts that fit into memory.

use super::progress::Progress;
use super::quantize::{Calibration, DEFAULT_BATCH, open_data};
use super::schema::QuantizeStep;
use crate::calibrate::Gram;
use crate::error::{Error, Result};
use crate::ir::Model;
use crate::math::Unfold;
use crate::passes::quantize::weight_only::{GramKey, WeightPlan};
use crate::passes::quantize::{LayerPlan, Mode, Plan};
use crate::runtime;
use std::collections::HashMap;

/// Bytes that matrices may take at once; what does not fit is collected in another run over the data.
const BUDGET: usize = 768 << 20;

/// Rounds the weights of a plan for weights alone.
pub(super) fn round(
    model: &Model,
    step: &QuantizeStep,
    plan: &mut WeightPlan,
    progress: &dyn Progress,
) -> Result<Calibration> {
    let mut calibration = Calibration { samples: 0, random: false, method: "weights".into(), values: 0 };
    let wanted = plan.wanted(&model.graph);
    if step.options.rounding.has_feedback() && !wanted.is_empty() {
        calibration.values = wanted.len();
        calibration.method = "gptq".into();
        (calibration.samples, calibration.random) =
            each_part(model, step, wanted, progress, &mut |grams| plan.round(&model.graph, grams, true).map(|_| ()))?;
    }
    plan.round(&model.graph, &HashMap::new(), false)?;
    Ok(calibration)
}

/// Rounds the weights of integer layers ahead of writing them, where the nearest level of 8 bits is not what is asked for.
pub(super) fn round_weights(
    model: &Model,
    step: &QuantizeStep,
    plan: &mut Plan,
    progress: &dyn Progress,
) -> Result<()> {
    let options = &step.options;
    let feedback = options.rounding.has_feedback();
    if options.mode != Mode::Static || (!plan.has_few_bits() && !feedback) {
        return Ok(());
    }
    let layers = LayerPlan::of(model, plan);
    if feedback {
        each_part(model, step, layers.wanted(), progress, &mut |grams| layers.round(&model.graph, plan, grams))?;
    }
    layers.round(&model.graph, plan, &HashMap::new())
}

/// Collects statistics and hands them over, part by part; returns the number of samples and whether they were random.
fn each_part(
    model: &Model,
    step: &QuantizeStep,
    wanted: Vec<(GramKey, usize)>,
    progress: &dyn Progress,
    take: &mut dyn FnMut(&HashMap<GramKey, Gram>) -> Result<()>,
) -> Result<(u64, bool)> {
    let data = open_data(model, step)?;
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    for part in parts(wanted)? {
        let inputs: Vec<(String, Unfold)> = part.iter().map(|key| (key.input.clone(), key.unfold.clone())).collect();
        progress.start("collecting second-order statistics", data.batches(batch).len());
        let grams = runtime::collect_grams(model, &inputs, &data, batch, &|| progress.tick())?;
        progress.finish();
        take(&part.into_iter().zip(grams).collect())?;
    }
    Ok((data.len() as u64, data.is_random()))
}

/// Statistics in parts that fit into [`BUDGET`].
fn parts(wanted: Vec<(GramKey, usize)>) -> Result<Vec<Vec<GramKey>>> {
    let mut parts: Vec<Vec<GramKey>> = vec![];
    let mut room = 0;
    for (key, size) in wanted {
        let groups = match &key.unfold {
            Unfold::Last => 1,
            Unfold::Patches(p) => p.groups,
        };
        let bytes = Gram::bytes(groups, size);
        if bytes > BUDGET {
            let what = format!("the second-order statistics of \"{}\" take {} MB", key.input, bytes >> 20);
            return Err(Error::unsupported(format!("{what}, more than there may be: use --rounding nearest")));
        }
        match parts.last_mut().filter(|_| bytes <= room) {
            Some(part) => part.push(key),
            None => {
                room = BUDGET;
                parts.push(vec![key]);
            }
        }
        room -= bytes;
    }
    Ok(parts)
}
