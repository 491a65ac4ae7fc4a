//! `sardonyx apply`, and what every command that rewrites a model shares.

use super::progress::Bar;
use super::{Common, Done, output};
use anyhow::Context;
use clap::Args;
use sardonyx::io;
use sardonyx::recipe::{self, Recipe};
use std::path::{Path, PathBuf};

/// Run a recipe (a TOML file, as `--print-recipe` prints it) on a model.
///
/// Example:
///   sardonyx quantize model.onnx --data calib.npz --print-recipe > recipe.toml
///   sardonyx apply recipe.toml model.onnx -o model.int8.onnx
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Apply {
    /// The recipe.
    recipe: PathBuf,
    /// The exported model.
    input: PathBuf,
    /// Where the result goes; may be the input itself.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Apply {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let place = || self.recipe.display().to_string();
        let text = std::fs::read_to_string(&self.recipe).with_context(place);
        let text = text.map_err(|e| anyhow::anyhow!("{e:#}"))?;
        let recipe = Recipe::from_toml(&text).map_err(|e| anyhow::anyhow!("{}: {e}", place()))?;
        run_recipe(&recipe, &self.input, &self.output, common)
    }
}

/// Runs a recipe from file to file and prints the report. Where a bound does not hold, nothing is written.
pub fn run_recipe(recipe: &Recipe, input: &Path, output: &Path, common: &Common) -> anyhow::Result<Done> {
    run_training(recipe, input, output, None, common)
}

/// The same; `html`: where the learning curve goes.
pub fn run_training(
    recipe: &Recipe,
    input: &Path,
    output: &Path,
    html: Option<&Path>,
    common: &Common,
) -> anyhow::Result<Done> {
    if let Some(path) = html {
        io::check_writable(path)?;
    }
    let bar = Bar::new(common.quiet);
    let report = recipe::run_files(recipe, input, output, &bar)?;
    if let Some(path) = html {
        io::write_atomically(path, report.curve_html()?.as_bytes())?;
    }
    if common.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.render())?;
    }
    Ok(if report.written { Done::Ok } else { Done::GateFailed })
}
