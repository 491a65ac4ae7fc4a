//! Options of commands that can train their own result.

use clap::{Args, ValueEnum};
use sardonyx::recipe::{RecoverMethod, RecoverStep};
use sardonyx::recover::DistillOptions;
use std::path::PathBuf;

/// How what was lost is recovered.
#[derive(Args)]
pub struct RecoverArgs {
    /// Train the result afterwards, with the model as it came as the teacher: no labels needed. Ctrl-C ends it early, with
    /// the best so far. A recipe (--print-recipe) has every option of `distill`.
    #[arg(long, value_enum, value_name = "METHOD")]
    recover: Option<MethodArg>,
    /// Minutes that --recover may take.
    #[arg(long, value_name = "N", default_value_t = 5.0, requires = "recover")]
    minutes: f64,
    /// Data for --recover (default: those of --data): the more, the better.
    #[arg(long, value_name = "FILE|FOLDER", requires = "recover")]
    recover_data: Option<PathBuf>,
    /// Samples of one step of --recover (default: 64, or 32 where no BatchNormalization needs more).
    #[arg(long, value_name = "N", requires = "recover")]
    recover_batch: Option<usize>,
    /// Largest learning rate of --recover (default: what helps most in short trials, between 0.0001 and 0.003).
    #[arg(long, value_name = "X", requires = "recover")]
    learning_rate: Option<f64>,
    /// Weight of the values between blocks in the loss of --recover (default: 50).
    #[arg(long, value_name = "X", requires = "recover")]
    feature_weight: Option<f64>,
    /// Write the learning curve of --recover as a web page that needs no other file.
    #[arg(long, value_name = "FILE.html", requires = "recover")]
    pub html: Option<PathBuf>,
    /// A checkpoint of --recover: written while training goes on; if there is one, training goes on from it.
    #[arg(long, value_name = "FILE", requires = "recover")]
    resume: Option<PathBuf>,
    /// In --recover, mirror images left to right at random.
    #[arg(long, requires = "recover")]
    flip: bool,
    /// In --recover, shift images at random by up to this many pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 0, requires = "recover")]
    shift: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum MethodArg {
    /// Train on the outputs, and on the values between blocks, of the model as it came.
    Distill,
}

impl RecoverArgs {
    /// The step, if there is one.
    pub fn step(&self) -> Option<RecoverStep> {
        let MethodArg::Distill = self.recover?;
        let usual = DistillOptions::for_recovery();
        let options = DistillOptions {
            batch: self.recover_batch,
            minutes: Some(self.minutes),
            flip: self.flip,
            shift: self.shift,
            resume: self.resume.clone(),
            learning_rates: self.learning_rate.map_or_else(|| usual.learning_rates.clone(), |rate| vec![rate]),
            feature_weight: self.feature_weight.unwrap_or(usual.feature_weight),
            ..usual
        };
        Some(RecoverStep {
            method: RecoverMethod::Distill,
            data: self.recover_data.clone(),
            samples: None,
            label: None,
            options,
        })
    }

    /// Makes Ctrl-C end training early, where there is any.
    pub fn prepare(&self) {
        if self.recover.is_some() {
            super::progress::stop_on_interrupt();
            sardonyx::recover::keep_freed();
        }
    }
}
