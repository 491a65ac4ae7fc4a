//! `sardonyx convert`.

use super::validate::{DataArgs, GateArgs};
use super::{Common, Done, apply};
use clap::{Args, ValueEnum};
use sardonyx::recipe::{ConvertStep, HalfType, Recipe, ValidateStep};
use std::path::PathBuf;

/// Convert floats to half precision.
///
/// f16: weights and values become f16. A node stays in f32, between Casts, where the standard has no f16 for its operator,
/// where a weight or, with --data, an observed value is beyond 65504 or so small that f16 would lose its digits, and where
/// --exclude says so; the report counts them by reason. bf16: weights are stored in bf16 behind a Cast and everything is
/// computed in f32, because no CPU runtime computes in bf16; --weights-only does the same for f16. Inputs and outputs keep
/// their type unless --io. The result is executed against the original.
///
/// Examples:
///   sardonyx convert model.onnx -o model.f16.onnx --to f16 --data calib.npz
///   sardonyx convert model.onnx -o model.bf16.onnx --to bf16 --min-sqnr 40
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Convert {
    /// The exported model.
    input: PathBuf,
    /// Where the result goes; may be the input itself.
    #[arg(short, long, value_name = "FILE", required_unless_present = "print_recipe")]
    output: Option<PathBuf>,
    /// The type.
    #[arg(long, value_enum)]
    to: ToArg,
    /// Store only weights in it, and compute in f32.
    #[arg(long)]
    weights_only: bool,
    /// Give graph inputs and outputs the type too.
    #[arg(long)]
    io: bool,
    /// Leave nodes that match (a name, a glob over names, or an operator type) in f32. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    #[command(flatten)]
    data: DataArgs,
    /// Do not execute the result.
    #[arg(long)]
    no_validate: bool,
    #[command(flatten)]
    gate: GateArgs,
    #[command(flatten)]
    save: super::save::SaveArgs,
    /// Print the recipe that this command spells, and stop.
    #[arg(long)]
    print_recipe: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ToArg {
    F16,
    Bf16,
}

impl Convert {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let recipe = self.recipe();
        if self.print_recipe {
            super::output::print(&recipe.to_toml()?)?;
            return Ok(Done::Ok);
        }
        let output = self.output.as_deref().unwrap_or(&self.input);
        apply::run_recipe(&recipe, &self.input, output, common)
    }

    fn recipe(&self) -> Recipe {
        let step = self.data.step();
        let convert = ConvertStep {
            to: match self.to {
                ToArg::F16 => HalfType::F16,
                ToArg::Bf16 => HalfType::Bf16,
            },
            weights_only: self.weights_only,
            io: self.io,
            exclude: self.exclude.clone(),
            data: step.data.clone(),
            samples: step.samples,
            batch: step.batch,
            state: step.state.clone(),
        };
        // Inputs of another type cannot be fed with the same data.
        let executes = !self.no_validate && !self.io;
        let validate = executes.then(|| ValidateStep { gate: self.gate.gate(), ..step });
        Recipe { convert: Some(convert), validate, save: self.save.options(), ..Recipe::default() }
    }
}
