//! `sardonyx run`.

use super::{Common, Done, output};
use clap::Args;
use sardonyx::recipe::{self, RunStep};
use std::path::PathBuf;

/// Execute a model in tract and store its outputs.
///
/// What the runtime cannot run faithfully is refused by the name of node and operator: it never guesses. The outputs go to
/// an .npz with one array per graph output. Batches of one .npz are joined along axis 0; of a folder of feeds the first
/// one is run, or all of them where the output is a folder.
///
/// Examples:
///   sardonyx run model.onnx --data test.npz -o outputs.npz
///   sardonyx run model.onnx --data feeds/ -o outputs/
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Run {
    /// The model.
    model: PathBuf,
    /// Data: an .npz whose arrays are named after the graph inputs (axis 0 = sample), a folder of .npz files (one complete
    /// feed each), or a folder in the ONNX test layout. Without it: random input, and the report says so.
    #[arg(long, value_name = "FILE|FOLDER")]
    data: Option<PathBuf>,
    /// Where the outputs go: an .npz, or an existing folder for one .npz per feed. Without it they are only described.
    #[arg(short, long, value_name = "FILE|FOLDER")]
    output: Option<PathBuf>,
    /// Use at most this many samples.
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Samples executed at once, where the model's batch size is free.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Also return this value of the main graph; may be repeated.
    #[arg(long, value_name = "NAME")]
    observe: Vec<String>,
    #[command(flatten)]
    state: super::validate::StateArgs,
}

impl Run {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let step = RunStep {
            data: self.data.clone(),
            samples: self.samples,
            batch: self.batch,
            state: self.state.state(),
            observe: self.observe.clone(),
            output: self.output.clone(),
        };
        let report = recipe::execute_file(&self.model, &step)?;
        if common.json {
            output::print_json(&report)?;
        } else {
            output::print(&report.render())?;
        }
        Ok(Done::Ok)
    }
}
