//! `sardonyx simplify`.

use super::quantize::DebugArgs;
use super::save::SaveArgs;
use super::validate::DataArgs;
use super::{Common, Done, apply, output};
use anyhow::Context;
use clap::{Args, ValueEnum};
use sardonyx::recipe::{self, Overridable, Recipe, SimplifyStep};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Rewrite a model into a smaller one that computes the same.
///
/// Folds constants and shape arithmetic, removes what does nothing, merges what is there twice, and fuses what one
/// operator can do, bodies of If, Loop and Scan included. Rewrites are exact or differ by rounding only. By default the
/// result is executed against the original in tract on made-up input (negative, zero and large values, odd sizes); a
/// rule that breaks it is found, taken back and named.
///
/// Examples:
///   sardonyx simplify model.onnx -o model.simple.onnx
///   sardonyx simplify model.onnx -o model.simple.onnx --set-dim batch=1 --target-opset 21
///   sardonyx simplify model.onnx -o head.onnx --extract-inputs features --extract-outputs logits
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Simplify {
    /// The exported model.
    #[arg(required_unless_present = "list_rules")]
    input: Option<PathBuf>,
    /// Where the result goes; may be the input itself.
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["list_rules", "print_recipe"])]
    output: Option<PathBuf>,
    /// Move the model to this operator set first, if it is in an older one. What cannot be moved is refused by name.
    #[arg(long, value_name = "N")]
    target_opset: Option<i64>,
    /// Give a symbolic dimension a size; may be repeated.
    #[arg(long, value_name = "NAME=SIZE", value_parser = dimension)]
    set_dim: Vec<(String, i64)>,
    /// Make these values the graph inputs, and drop what comes before them.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    extract_inputs: Vec<String>,
    /// Make these values the graph outputs, and drop what comes after them.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    extract_outputs: Vec<String>,
    /// Use only these rules.
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    only: Vec<String>,
    /// Do not use these rules.
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    skip: Vec<String>,
    /// Print the rules in the order in which they are tried, and end.
    #[arg(long)]
    list_rules: bool,
    /// Largest tensor, in bytes, by which constant folding may make the model larger.
    #[arg(long, value_name = "BYTES", default_value_t = sardonyx::passes::simplify::FOLD_LIMIT)]
    fold_limit: usize,
    /// What initializers that are also graph inputs are: defaults that callers override (keep), or constants. `auto`
    /// takes them for constants up to IR version 3, and in IR version 4 where every initializer is listed.
    #[arg(long, value_enum, default_value = "auto")]
    overridable: OverridableArg,
    /// Do not execute the result against the original.
    #[arg(long)]
    no_validate: bool,
    /// Also compare both models on data, and report the drift.
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    save: SaveArgs,
    #[command(flatten)]
    debug: DebugArgs,
    /// Print the recipe that these options spell, and end.
    #[arg(long)]
    print_recipe: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum OverridableArg {
    Auto,
    Keep,
    Constant,
}

fn dimension(text: &str) -> Result<(String, i64), String> {
    let (name, size) = text.split_once('=').ok_or("expected NAME=SIZE")?;
    let size = size.parse().map_err(|_| format!("\"{size}\" is not a size"))?;
    Ok((name.to_string(), size))
}

impl Simplify {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        if self.list_rules {
            return list_rules(common);
        }
        let recipe = self.recipe();
        if self.print_recipe {
            output::print(&recipe.to_toml()?)?;
            return Ok(Done::Ok);
        }
        let input = self.input.as_deref().context("no model was given")?;
        apply::run_recipe(&recipe, input, self.output.as_deref().unwrap_or(input), common)
    }

    fn recipe(&self) -> Recipe {
        let step = SimplifyStep {
            target_opset: self.target_opset,
            set_dims: BTreeMap::from_iter(self.set_dim.iter().cloned()),
            extract_inputs: self.extract_inputs.clone(),
            extract_outputs: self.extract_outputs.clone(),
            only: self.only.clone(),
            skip: self.skip.clone(),
            fold_limit: self.fold_limit,
            overridable: match self.overridable {
                OverridableArg::Auto => Overridable::Auto,
                OverridableArg::Keep => Overridable::Keep,
                OverridableArg::Constant => Overridable::Constant,
            },
            check: !self.no_validate,
        };
        let validate = self.data.data.is_some().then(|| self.data.step());
        let (passes, save) = (self.debug.options(), self.save.options());
        Recipe { simplify: Some(step), validate, passes, save, ..Recipe::default() }
    }
}

fn list_rules(common: &Common) -> anyhow::Result<Done> {
    let table = recipe::rule_table();
    if common.json {
        output::print_json(&table)?;
        return Ok(Done::Ok);
    }
    let lines = table.iter().map(|(name, effect)| format!("{name:<36} {effect:?}\n").to_lowercase());
    output::print(&lines.collect::<String>())?;
    Ok(Done::Ok)
}
