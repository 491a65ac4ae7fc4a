//! Options of accuracy on trial: of several, those stay that bring the outputs nearer to the original's.
//!
//! Each of them lowers an error that it sees, of a weight or of one layer's output. What they do together to the outputs of
//! the model is another matter, and measured here.

use super::layers::{PROBE_SAMPLES, quantized_drift, worst};
use super::progress::Progress;
use super::quantize::{DEFAULT_BATCH, open_data};
use super::schema::QuantizeStep;
use crate::error::Result;
use crate::io::Dataset;
use crate::ir::Model;
use crate::passes::quantize::{Migrate, Mode, QuantizeOptions, Rounding};
use serde::Serialize;

/// What the trial showed.
#[derive(Clone, Debug, Serialize)]
pub struct Trials {
    /// Samples of the calibration data compared on.
    pub samples: usize,
    /// Relative L2 of the worst output without any of the options.
    pub without: f64,
    /// The options, in the order in which they were tried.
    pub options: Vec<TriedOption>,
}

/// One option.
#[derive(Clone, Debug, Serialize)]
pub struct TriedOption {
    /// As the command line spells it.
    pub name: String,
    /// Relative L2 of the worst output with it and those kept before it.
    pub relative_l2: f64,
    /// Whether it was kept.
    pub kept: bool,
}

/// An option that is to make the result more accurate, and takes its time or has side effects.
#[derive(Clone, Copy)]
enum Accuracy {
    Equalize,
    Migrate,
    Rounding,
    ClipSearch,
    EmpiricalBiasCorrection,
}

/// In the order of the pipeline, but for the ranges, which go by the weights as they are rounded.
const ALL: [Accuracy; 5] = [
    Accuracy::Equalize,
    Accuracy::Migrate,
    Accuracy::Rounding,
    Accuracy::ClipSearch,
    Accuracy::EmpiricalBiasCorrection,
];

impl Accuracy {
    fn name(self) -> &'static str {
        match self {
            Self::Equalize => "--equalize",
            Self::Migrate => "--migrate",
            Self::Rounding => "--rounding",
            Self::ClipSearch => "--clip-search",
            Self::EmpiricalBiasCorrection => "--empirical-bias-correction",
        }
    }

    /// Takes the setting of this option from other options.
    fn copy(self, from: &QuantizeOptions, to: &mut QuantizeOptions) {
        match self {
            Self::Equalize => to.equalize = from.equalize,
            Self::Migrate => to.migrate = from.migrate,
            Self::Rounding => to.rounding = from.rounding,
            Self::ClipSearch => to.clip_search = from.clip_search,
            Self::EmpiricalBiasCorrection => to.empirical_bias_correction = from.empirical_bias_correction,
        }
    }
}

/// `options` without any of the options on trial.
fn plain(options: &QuantizeOptions) -> QuantizeOptions {
    QuantizeOptions {
        equalize: false,
        migrate: Migrate::None,
        rounding: Rounding::Nearest,
        clip_search: false,
        empirical_bias_correction: false,
        ..options.clone()
    }
}

/// The step with those of its accuracy options that help, where it has several, and data to try them on. They are added one
/// by one; one that does not lower the error is left out.
///
/// # Errors
/// As quantization and comparison.
pub(super) fn keep_what_helps(
    model: &Model,
    step: &QuantizeStep,
    progress: &dyn Progress,
) -> Result<(QuantizeStep, Option<Trials>)> {
    let none = plain(&step.options);
    let changes = |option: &Accuracy| {
        let mut with = none.clone();
        option.copy(&step.options, &mut with);
        with != none
    };
    let asked: Vec<Accuracy> = ALL.into_iter().filter(changes).collect();
    if step.apply_all || step.data.is_none() || step.options.mode != Mode::Static || asked.len() < 2 {
        return Ok((step.clone(), None));
    }
    let mut data = open_data(model, step)?;
    data.limit(PROBE_SAMPLES);
    let mut kept = QuantizeStep { options: none, ..step.clone() };
    progress.start("trying accuracy options", asked.len() + 1);
    let without = error(model, &kept, &data)?;
    progress.tick();
    let (mut least, mut options) = (without, vec![]);
    for option in asked {
        let mut with = kept.clone();
        option.copy(&step.options, &mut with.options);
        let relative_l2 = error(model, &with, &data)?;
        let helps = relative_l2 < least;
        options.push(TriedOption { name: option.name().into(), relative_l2, kept: helps });
        if helps {
            (least, kept) = (relative_l2, with);
        }
        progress.tick();
    }
    progress.finish();
    Ok((kept, Some(Trials { samples: data.len(), without, options })))
}

/// Relative L2 of the worst output of the model quantized so.
fn error(model: &Model, step: &QuantizeStep, data: &Dataset) -> Result<f64> {
    let (_, outputs) = quantized_drift(model, step, data, step.batch.unwrap_or(DEFAULT_BATCH))?;
    Ok(worst(&outputs))
}
