//! `sardonyx groups`.

use super::{Common, Done, output};
use clap::Args;
use sardonyx::recipe;
use std::path::PathBuf;

/// Show which channels can be pruned, with everything that they are coupled to, and which cannot, and why.
///
/// Example:
///   sardonyx groups model.onnx
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Groups {
    /// The model.
    model: PathBuf,
    /// Take axes for prunable too that are normalized or reduced over.
    #[arg(long)]
    allow_inexact: bool,
}

impl Groups {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let report = recipe::groups_file(&self.model, self.allow_inexact)?;
        if common.json {
            output::print_json(&report)?;
        } else {
            output::print(&report.render())?;
        }
        Ok(Done::Ok)
    }
}
