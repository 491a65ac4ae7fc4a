//! `sardonyx sensitivity`.

use super::progress::Bar;
use super::validate::DataArgs;
use super::{Common, Done, output};
use clap::Args;
use sardonyx::recipe::{self, QuantizeStep, Recipe};
use std::path::PathBuf;

/// Measure how much the precision of each layer costs.
///
/// For every layer two models are quantized and executed: one where only this layer is quantized, and one where all
/// others are. The table shows by how much the outputs move, most sensitive layer first. `quantize --search` uses the same
/// measurements to choose precisions.
///
/// Example:
///   sardonyx sensitivity model.onnx --data calib.npz --samples 64
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Sensitivity {
    /// The model.
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// A recipe whose [quantize] section says how to quantize; its data are used where --data is absent.
    #[arg(long, value_name = "FILE.toml")]
    recipe: Option<PathBuf>,
    /// Also predict it from gradients: by how much rounding the weight is expected to raise the loss, from the Fisher
    /// information of each weight. The loss is that of the labels where --label names them, else the divergence from the
    /// model's own output.
    #[arg(long)]
    fisher: bool,
}

impl Sensitivity {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let mut step = match &self.recipe {
            None => QuantizeStep::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
                let recipe = Recipe::from_toml(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
                recipe.quantize.ok_or_else(|| anyhow::anyhow!("{}: it has no [quantize] section", path.display()))?
            }
        };
        let judge = self.data.step();
        step.data = judge.data.clone().or(step.data);
        step.samples = judge.samples.or(step.samples).or(Some(recipe::PROBE_SAMPLES));
        if !judge.state.is_empty() {
            step.state = judge.state.clone();
        }
        let bar = Bar::new(common.quiet);
        let report = recipe::sensitivity_file(&self.model, &step, &judge, self.fisher, &bar)?;
        if common.json {
            output::print_json(&report)?;
        } else {
            output::print(&report.render())?;
        }
        Ok(Done::Ok)
    }
}
