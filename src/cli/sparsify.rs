//! `sardonyx sparsify`.

use super::judge::JudgeArgs;
use super::quantize::DebugArgs;
use super::recover::RecoverArgs;
use super::save::SaveArgs;
use super::validate::StateArgs;
use super::{Common, Done, apply, output};
use clap::{Args, ValueEnum};
use sardonyx::passes::sparsify::{Block, Goal, Measure, Pattern, SparsifyOptions};
use sardonyx::recipe::{Recipe, SparsifyStep};
use std::path::PathBuf;

/// Set weights to zero, store sparsely what is smaller that way, and measure what it cost.
///
/// The smallest magnitudes go, or with --importance hessian those weights for which the others can best make up, and those
/// are fitted to the original's outputs on --data, layer after layer, without labels. Weights that are mostly zero are
/// written as sparse_initializer (never larger than dense); every command reads those. ONNX Runtime and tract make dense
/// tensors of them: zeros save bytes in the file, not time.
///
/// Examples:
///   sardonyx sparsify model.onnx -o sparse.onnx --sparsity 0.7 --global
///   sardonyx sparsify model.onnx -o sparse.onnx --sparsity 0.7 --global --importance hessian --data calib.npz
///   sardonyx sparsify model.onnx -o sparse.onnx --pattern 2:4 --exclude Gemm
///   sardonyx sparsify model.onnx -o sparse.onnx --sparsity 0.6 --block 4x1 --fold
///   sardonyx sparsify model.onnx -o sparse.onnx --sparsity 0.9 --global --importance hessian --data train.npz \
///       --recover distill --minutes 10
///   sardonyx sparsify sparse.onnx -o dense.onnx --densify
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Sparsify {
    /// The exported model.
    input: PathBuf,
    /// Where the result goes; may be the input itself.
    #[arg(short, long, value_name = "FILE", required_unless_present = "print_recipe")]
    output: Option<PathBuf>,
    /// Set this share of the weights to zero (of each layer, or of all together with --global).
    #[arg(long, value_name = "SHARE", group = "goal")]
    sparsity: Option<f64>,
    /// Set weights to zero whose importance (magnitude, or what --importance measures) is below.
    #[arg(long, value_name = "X", group = "goal")]
    threshold: Option<f32>,
    /// Keep N of every M weights in a row along the input channels.
    #[arg(long, value_name = "N:M", group = "goal")]
    pattern: Option<Pattern>,
    /// How much a weight matters.
    #[arg(long, value_enum, default_value = "magnitude")]
    importance: MeasureArg,
    /// Class labels in --data, by array name: --importance by gradients is then of the loss on them. Without: of the
    /// model's own output.
    #[arg(long, value_name = "NAME", requires = "data")]
    importance_label: Option<String>,
    /// Set blocks of this size to zero, outputs by inputs: with --sparsity.
    #[arg(long, value_name = "OUTPUTSxINPUTS", requires = "sparsity")]
    block: Option<Block>,
    /// Rank the weights of all layers together, instead of taking the same share of each.
    #[arg(long)]
    global: bool,
    /// Only layers that match: a name, a glob over names, or an operator type. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave layers that match. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Remove channels that zeros make superfluous: nobody takes them, or they hold one number, which goes into biases.
    #[arg(long)]
    fold: bool,
    /// Leave the zeros in dense tensors.
    #[arg(long)]
    dense: bool,
    /// Write sparse initializers as dense ones, bit for bit.
    #[arg(long, conflicts_with = "dense")]
    densify: bool,
    /// Data for --importance and --recover: as --data of quantize. Without it: random input, and the report says so.
    #[arg(long, value_name = "FILE|FOLDER")]
    data: Option<PathBuf>,
    /// Use at most this many samples of --data.
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Samples executed at once, where the model's batch size is free.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    #[command(flatten)]
    recover: RecoverArgs,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    judge: JudgeArgs,
    #[command(flatten)]
    save: SaveArgs,
    #[command(flatten)]
    debug: DebugArgs,
    /// Print the recipe that this command spells, and stop.
    #[arg(long)]
    print_recipe: bool,
}

/// Spelling of [`Measure`].
#[derive(Clone, Copy, ValueEnum)]
pub enum MeasureArg {
    /// Its magnitude; needs no data.
    Magnitude,
    /// What zeroing it does to the layer's outputs on --data; the weights that stay are fitted again.
    Hessian,
    /// Its mean squared gradient on --data.
    Fisher,
    /// The same, times the squared weight.
    WeightedFisher,
    /// Mean magnitude of the loss's first-order change without it, on --data.
    Taylor,
}

impl From<MeasureArg> for Measure {
    fn from(m: MeasureArg) -> Self {
        match m {
            MeasureArg::Magnitude => Measure::Magnitude,
            MeasureArg::Hessian => Measure::Hessian,
            MeasureArg::Fisher => Measure::Fisher,
            MeasureArg::WeightedFisher => Measure::WeightedFisher,
            MeasureArg::Taylor => Measure::Taylor,
        }
    }
}

impl Sparsify {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let recipe = self.recipe();
        if self.print_recipe {
            output::print(&recipe.to_toml()?)?;
            return Ok(Done::Ok);
        }
        self.recover.prepare();
        let output = self.output.as_deref().unwrap_or(&self.input);
        apply::run_training(&recipe, &self.input, output, self.recover.html.as_deref(), common)
    }

    fn recipe(&self) -> Recipe {
        let goal = match (self.sparsity, self.threshold, self.pattern) {
            (Some(share), ..) => Some(Goal::Sparsity(share)),
            (_, Some(limit), _) => Some(Goal::Threshold(limit)),
            (.., pattern) => pattern.map(Goal::Pattern),
        };
        let options = SparsifyOptions {
            goal,
            importance: self.importance.into(),
            block: self.block,
            global: self.global,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            fold: self.fold,
            store: !self.dense,
        };
        let validate = self.judge.step(self.batch, Some(&self.state));
        let (passes, save) = (self.debug.options(), self.save.options());
        let sparsify = Some(SparsifyStep {
            data: self.data.clone(),
            samples: self.samples,
            batch: self.batch,
            label: self.importance_label.clone(),
            densify: self.densify,
            recover: self.recover.step(),
            options,
        });
        Recipe { sparsify, validate, passes, save, ..Recipe::default() }
    }
}
