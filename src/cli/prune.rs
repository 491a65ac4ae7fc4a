//! `sardonyx prune`.

use super::judge::JudgeArgs;
use super::quantize::DebugArgs;
use super::recover::RecoverArgs;
use super::save::SaveArgs;
use super::validate::StateArgs;
use super::{Common, Done, apply, output};
use clap::{Args, ValueEnum};
use sardonyx::passes::prune::{Measure, PruneOptions, Target};
use sardonyx::recipe::{PruneStep, Recipe};
use std::path::PathBuf;

/// Remove whole channels, with everything that they are coupled to, and measure what it cost.
///
/// Channels are removed physically: weights, biases, statistics, constants, targets of Reshape, sizes of Split and group
/// counts become smaller, and the model faster in every runtime. Inputs and outputs keep name and shape. `sardonyx groups`
/// shows what can be pruned.
///
/// Examples:
///   sardonyx prune model.onnx -o pruned.onnx --ratio 0.3
///   sardonyx prune model.onnx -o pruned.onnx --macs 0.5 --global --importance bn-scale --round-to 8
///   sardonyx prune model.onnx -o pruned.onnx --params 0.7 --exclude 'head.*' --map kept.json
///   sardonyx prune model.onnx -o pruned.onnx --macs 0.5 --global --importance group-fisher --repair --data train.npz \
///       --recover distill --minutes 10
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Prune {
    /// The exported model.
    input: PathBuf,
    /// Where the result goes; may be the input itself.
    #[arg(short, long, value_name = "FILE", required_unless_present = "print_recipe")]
    output: Option<PathBuf>,
    /// Remove this share of the channels (of each layer, or of all together with --global).
    #[arg(long, value_name = "SHARE", group = "target")]
    ratio: Option<f64>,
    /// Keep this share of the multiply-accumulates.
    #[arg(long, value_name = "SHARE", group = "target")]
    macs: Option<f64>,
    /// Keep this share of the parameters.
    #[arg(long, value_name = "SHARE", group = "target")]
    params: Option<f64>,
    /// Keep this share of the time, measured in tract on one thread.
    #[arg(long, value_name = "SHARE", group = "target")]
    latency: Option<f64>,
    /// Rank the channels of all layers together, instead of taking the same share of each.
    #[arg(long)]
    global: bool,
    /// How much a channel matters.
    #[arg(long, value_enum, default_value = "l2")]
    importance: MeasureArg,
    /// Seed of --importance random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Class labels in --data, by array name: --importance by gradients is then of the loss on them. Without: of the
    /// model's own output.
    #[arg(long, value_name = "NAME", requires = "data")]
    importance_label: Option<String>,
    /// Keep a multiple of this many channels.
    #[arg(long, value_name = "N", default_value_t = 1)]
    round_to: usize,
    /// Keep at least this many channels of each layer.
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_channels: usize,
    /// Get to the target in N rounds, each scoring (and repairing) what the one before left.
    #[arg(long, value_name = "N", default_value_t = 1)]
    iterative: usize,
    /// Cut axes too that are normalized or reduced over: the result then differs from a masked original.
    #[arg(long)]
    allow_inexact: bool,
    /// Refit the weights that lose inputs by least squares on --data (no labels needed), and re-estimate the statistics of
    /// BatchNormalization.
    #[arg(long)]
    repair: bool,
    /// Prune only layers that match: a name, a glob over names, or an operator type. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave layers that match whole. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Write which channels of each value were kept, as JSON.
    #[arg(long, value_name = "FILE.json")]
    map: Option<PathBuf>,
    /// Data for scores and repair: as --data of quantize. Without it: random input, and the report says so.
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
    /// Sum of magnitudes of the coupled weights.
    L1,
    /// Euclidean norm of the coupled weights.
    L2,
    /// Scale of BatchNormalization.
    BnScale,
    /// Distance to the other filters.
    Fpgm,
    /// Chance.
    Random,
    /// Root mean square of the activations on --data.
    Activation,
    /// What the layers behind lose on --data after their best refit.
    Hessian,
    /// Sum of the mean squared gradients of the coupled weights, on --data.
    Fisher,
    /// The same, times the squared weights.
    WeightedFisher,
    /// Mean square of the loss's first-order change without the channel, on --data: with --repair, among those that kept
    /// most where we measured.
    GroupFisher,
    /// Mean magnitude of the loss's first-order change without the channel, on --data.
    Taylor,
}

impl From<MeasureArg> for Measure {
    fn from(m: MeasureArg) -> Self {
        match m {
            MeasureArg::L1 => Measure::L1,
            MeasureArg::L2 => Measure::L2,
            MeasureArg::BnScale => Measure::BnScale,
            MeasureArg::Fpgm => Measure::Fpgm,
            MeasureArg::Random => Measure::Random,
            MeasureArg::Activation => Measure::Activation,
            MeasureArg::Hessian => Measure::Hessian,
            MeasureArg::Fisher => Measure::Fisher,
            MeasureArg::WeightedFisher => Measure::WeightedFisher,
            MeasureArg::GroupFisher => Measure::GroupFisher,
            MeasureArg::Taylor => Measure::Taylor,
        }
    }
}

impl Prune {
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
        let target = match (self.ratio, self.macs, self.params, self.latency) {
            (_, Some(left), ..) => Target::Macs(left),
            (_, _, Some(left), _) => Target::Params(left),
            (.., Some(left)) => Target::Latency(left),
            (ratio, ..) => Target::Ratio(ratio.unwrap_or(0.5)),
        };
        let options = PruneOptions {
            target,
            global: self.global,
            importance: self.importance.into(),
            seed: self.seed,
            round_to: self.round_to,
            min_channels: self.min_channels,
            allow_inexact: self.allow_inexact,
            iterations: self.iterative,
            repair: self.repair,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
        };
        let prune = PruneStep {
            data: self.data.clone(),
            samples: self.samples,
            batch: self.batch,
            label: self.importance_label.clone(),
            map: self.map.clone(),
            recover: self.recover.step(),
            options,
        };
        let validate = self.judge.step(self.batch, Some(&self.state));
        let (passes, save) = (self.debug.options(), self.save.options());
        Recipe { prune: Some(prune), validate, passes, save, ..Recipe::default() }
    }
}
