//! `sardonyx inspect`.

use super::{Common, Done, output};
use clap::Args;
use sardonyx::recipe;
use std::path::PathBuf;

/// Show what a model is: inputs, outputs, operator sets, operators, parameters, MACs, bytes per type, what is quantized,
/// and what tract cannot run.
#[derive(Args)]
pub struct Inspect {
    /// The model.
    model: PathBuf,
}

impl Inspect {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let report = recipe::inspect_file(&self.model)?;
        if common.json {
            output::print_json(&report)?;
        } else {
            output::print(&report.render())?;
        }
        Ok(Done::Ok)
    }
}
