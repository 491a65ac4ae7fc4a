//! How a command compares its result with the original.

use super::validate::{GateArgs, StateArgs};
use clap::Args;
use sardonyx::recipe::ValidateStep;
use std::path::PathBuf;

/// What to compare on, and which bounds must hold.
#[derive(Args)]
pub struct JudgeArgs {
    /// Do not execute the result.
    #[arg(long, conflicts_with_all = [
        "validate_data", "validate_samples", "max_drop", "max_drift", "min_sqnr", "min_agreement",
    ])]
    no_validate: bool,
    /// Data to compare on (default: those of --data, else random input).
    #[arg(long, value_name = "FILE|FOLDER")]
    validate_data: Option<PathBuf>,
    /// Name of the array of integer class labels in the validation data: reports the accuracy of both models.
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Compare on at most this many samples.
    #[arg(long, value_name = "N")]
    validate_samples: Option<usize>,
    #[command(flatten)]
    gate: GateArgs,
}

impl JudgeArgs {
    /// The step, if there is one. `batch`: samples executed at once.
    pub fn step(&self, batch: Option<usize>, state: Option<&StateArgs>) -> Option<ValidateStep> {
        (!self.no_validate).then(|| ValidateStep {
            data: self.validate_data.clone(),
            label: self.label.clone(),
            samples: self.validate_samples,
            batch,
            state: state.map(StateArgs::state).unwrap_or_default(),
            gate: self.gate.gate(),
        })
    }
}
