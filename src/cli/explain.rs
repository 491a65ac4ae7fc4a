//! `sardonyx explain`.

use super::progress::Bar;
use super::validate::DataArgs;
use super::{Common, Done, output};
use clap::Args;
use sardonyx::{io, recipe};
use std::path::PathBuf;

/// Show where the drift of a quantized model comes from.
///
/// Finds every rounding that the quantized model makes (of each weight and of each value), puts them into the original one
/// by one and executes it each time. Per rounding: its share of the drift (the shares add up to what all of them cause),
/// its own signal to noise and that of the value with all errors from before, how many elements are clipped, how much of
/// the codes is not used, how far the largest element is above the rest. Then what to do about the worst ones.
///
/// Examples:
///   sardonyx explain model.onnx model.int8.onnx --data test.npz
///   sardonyx explain model.onnx model.int8.onnx --data test.npz --html drift.html
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Explain {
    /// The model as exported.
    original: PathBuf,
    /// The model that was made of it.
    quantized: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Also write the account as a web page that needs no other file.
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
}

impl Explain {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let bar = Bar::new(common.quiet);
        let report = recipe::explain_files(&self.original, &self.quantized, &self.data.step(), &bar)?;
        if let Some(path) = &self.html {
            io::write_atomically(path, report.html()?.as_bytes())?;
        }
        if common.json {
            output::print_json(&report)?;
        } else {
            output::print(&report.render())?;
        }
        Ok(Done::Ok)
    }
}
