//! Options of learned rounding.

use clap::Args;
use sardonyx::recover::DistillOptions;

/// How long rounding is learned.
#[derive(Args)]
pub struct LearningArgs {
    /// Passes over the calibration data in which --rounding adaround or block learns.
    #[arg(long, value_name = "N")]
    rounding_epochs: Option<usize>,
    /// End learning the rounding after this many minutes. The result then depends on how fast the machine is.
    #[arg(long, value_name = "N")]
    rounding_minutes: Option<f64>,
}

impl LearningArgs {
    /// The options as the recipe has them.
    pub fn options(&self) -> Option<DistillOptions> {
        if self.rounding_epochs.is_none() && self.rounding_minutes.is_none() {
            return None;
        }
        let usual = DistillOptions::for_rounding();
        let epochs = self.rounding_epochs.or(usual.epochs.filter(|_| self.rounding_minutes.is_none()));
        Some(DistillOptions { epochs, minutes: self.rounding_minutes, ..usual })
    }
}
