//! What is learnt of a quantized model: its rounding, and recovery.

use super::distill::{Recovered, recover, train};
use super::progress::Progress;
use super::quantize::{Quantized, open_data};
use super::schema::QuantizeStep;
use crate::error::{Context, Error, Result};
use crate::ir::{Model, Type, ValueId};
use crate::passes::quantize::Rounding;
use crate::recover::{DistillOptions, Distillation, Latent, LossKind, Teacher};

/// Learns the rounding of `model`, which `done` tells about, and trains it on, as far as the step asks for it. The first is
/// what the rounding did, the second what recovery did.
///
/// # Errors
/// Data that do not fit; see [`crate::recover::distill`].
pub(super) fn learn(
    model: &mut Model,
    original: &Model,
    done: &Quantized,
    step: &QuantizeStep,
    progress: &dyn Progress,
) -> Result<(Option<Distillation>, Option<Recovered>)> {
    let rounded = match step.options.rounding {
        Rounding::Nearest | Rounding::Gptq => None,
        Rounding::Adaround => Some(round(model, done, step, Latent::Rectified, progress)?),
        Rounding::Block => Some(round(model, done, step, Latent::StraightThrough, progress)?),
    };
    let teacher = Teacher { model: original, kept: None, exact: Some(&done.prepared) };
    let recovered = step
        .recover
        .as_ref()
        .map(|recovery| recover(model, teacher, recovery, (step.data.as_deref(), false), progress));
    Ok((rounded, recovered.transpose()?))
}

fn round(
    model: &mut Model,
    done: &Quantized,
    step: &QuantizeStep,
    latent: Latent,
    progress: &dyn Progress,
) -> Result<Distillation> {
    if step.data.is_none() {
        return Err(Error::usage("learned rounding learns from calibration data: give --data"));
    }
    let data = open_data(model, step)?;
    let graph = &model.graph;
    let is_float = |v: &&ValueId| graph.ty(**v).and_then(Type::elem).is_none_or(|e| e.is_float());
    let outputs = graph.outputs().iter().filter(is_float).map(|&v| (graph.name(v).to_string(), LossKind::Relative));
    let losses = outputs.collect();
    let options =
        DistillOptions { latent, losses, ..step.learning.clone().unwrap_or_else(DistillOptions::for_rounding) };
    // The model that was rounded, whose values are those of the result.
    let teacher = Teacher { model: &done.prepared, kept: None, exact: Some(&done.prepared) };
    train(model, teacher, &data, &options, progress).context(|| "learned rounding")
}
