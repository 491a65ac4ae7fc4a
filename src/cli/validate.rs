//! `sardonyx validate`.

use super::progress::Bar;
use super::{Common, Done, output};
use clap::Args;
use sardonyx::drift::Gate;
use sardonyx::io::State;
use sardonyx::recipe::{self, ValidateStep};
use std::path::PathBuf;

/// Execute two models in tract on the same data and report how far the outputs moved.
///
/// Per output: largest and mean absolute difference, relative L2, cosine, SQNR, agreement of the first and of the five
/// highest classes, and with --label the accuracy of both with a confidence interval of the difference. Bounds make it
/// a gate: exit status 3 where one does not hold.
///
/// Example:
///   sardonyx validate model.onnx model.int8.onnx --data test.npz --label label --max-drop 0.5 --min-sqnr 30
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Validate {
    /// The model as exported.
    original: PathBuf,
    /// The model to judge.
    rewritten: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    gate: GateArgs,
}

/// What to compare on.
#[derive(Args)]
pub struct DataArgs {
    /// Data: an .npz whose arrays are named after the graph inputs (axis 0 = sample), a folder of .npz files (one complete
    /// feed each), or a folder in the ONNX test layout. Without it: random input, and the report says so.
    #[arg(long, value_name = "FILE|FOLDER")]
    pub data: Option<PathBuf>,
    /// Name of the array of integer class labels.
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Use at most this many samples.
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Samples executed at once, where the model's batch size is free.
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    #[command(flatten)]
    pub state: StateArgs,
}

impl DataArgs {
    /// The step without bounds.
    pub fn step(&self) -> ValidateStep {
        let (data, label, state) = (self.data.clone(), self.label.clone(), self.state.state());
        ValidateStep { data, label, samples: self.samples, batch: self.batch, state, gate: Gate::default() }
    }
}

/// State of recurrent models.
#[derive(Args, Clone)]
pub struct StateArgs {
    /// Output OUT of each feed is input IN of the next: feeds run in order, the data give the first state. May be repeated.
    #[arg(long, value_name = "OUT=IN", value_parser = state_link)]
    pub state: Vec<(String, String)>,
}

impl StateArgs {
    /// By input, the output that it takes.
    pub fn state(&self) -> State {
        self.state.iter().map(|(output, input)| (input.clone(), output.clone())).collect()
    }
}

fn state_link(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((output, input)) if !output.is_empty() && !input.is_empty() => Ok((output.into(), input.into())),
        _ => Err("expected OUT=IN, an output and the input that it becomes".into()),
    }
}

/// Bounds.
#[derive(Args)]
pub struct GateArgs {
    /// Fail (status 3) if accuracy drops by more than this many percentage points (needs --label).
    #[arg(long, value_name = "POINTS")]
    max_drop: Option<f64>,
    /// Fail (status 3) if an output moves by more: relative L2, in percent with % behind, else as a fraction.
    #[arg(long, value_name = "X%", value_parser = share)]
    max_drift: Option<f64>,
    /// Fail (status 3) if the signal-to-quantization-noise ratio of an output is lower.
    #[arg(long, value_name = "DB")]
    min_sqnr: Option<f64>,
    /// Fail (status 3) if the highest class agrees on fewer samples (a fraction, or percent above 1).
    #[arg(long, value_name = "SHARE")]
    min_agreement: Option<f64>,
}

fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |n| (n, 0.01));
    match number.trim().parse::<f64>() {
        Ok(x) if x >= 0.0 => Ok(x * scale),
        _ => Err("expected a share such as 0.5% or 0.005".into()),
    }
}

impl GateArgs {
    /// The bounds as the recipe has them.
    pub fn gate(&self) -> Gate {
        Gate {
            max_drop: self.max_drop,
            max_drift: self.max_drift,
            min_sqnr: self.min_sqnr,
            min_agreement: self.min_agreement,
        }
    }
}

impl Validate {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let step = ValidateStep { gate: self.gate.gate(), ..self.data.step() };
        let bar = Bar::new(common.quiet);
        let report = recipe::validate_files(&self.original, &self.rewritten, &step, &bar)?;
        if common.json {
            output::print_json(&report)?;
        } else {
            output::print(&report.render())?;
        }
        Ok(if report.violations.is_empty() { Done::Ok } else { Done::GateFailed })
    }
}
