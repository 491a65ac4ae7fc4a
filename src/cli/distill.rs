//! `sardonyx distill`.

use super::judge::JudgeArgs;
use super::{Common, Done, apply, output};
use clap::{Args, ValueEnum};
use sardonyx::recipe::{DistillStep, Recipe};
use sardonyx::recover::{DistillOptions, LossKind, Method};
use std::path::PathBuf;

/// Train a student model on the outputs of its teacher.
///
/// The student is any model with the inputs and outputs of the teacher: a pruned or sparse copy (weights that are 0 stay 0),
/// or another, smaller architecture with random weights. No labels are needed: scores are compared by KL divergence,
/// embeddings by cosine, other outputs by squared error. A part of the data is held out, and the parameters that are best on
/// it are kept; Ctrl-C ends training with those. The report compares teacher and student.
///
/// Examples:
///   sardonyx distill teacher.onnx student.onnx -o trained.onnx --data train.npz
///   sardonyx distill teacher.onnx pruned.onnx -o trained.onnx --data train.npz --minutes 10 --flip --shift 2 \\
///       --validate-data test.npz --label label
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Distill {
    /// The model to learn from.
    teacher: PathBuf,
    /// The model to train.
    student: PathBuf,
    /// Where the trained student goes; may be the student itself.
    #[arg(short, long, value_name = "FILE", required_unless_present = "print_recipe")]
    output: Option<PathBuf>,
    /// Training data: an .npz whose arrays are named after the graph inputs (axis 0 = sample), or a folder of feeds.
    #[arg(long, value_name = "FILE|FOLDER")]
    data: PathBuf,
    /// Use at most this many training samples.
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Samples of one step.
    #[arg(long, value_name = "N", default_value_t = DistillOptions::default().batch_size())]
    batch: usize,
    /// Passes over the training data (default: as many as fit into the minutes, or 30).
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// End after this many minutes; the learning rate falls in time.
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// How gradients become steps.
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: OptimizerArg,
    /// Largest learning rate: it rises in the warm-up and falls with a cosine.
    #[arg(long, value_name = "X", default_value = "0.002")]
    learning_rate: f64,
    /// Decay of weights (not of biases and scales) per step of learning rate 1.
    #[arg(long, value_name = "X", default_value_t = DistillOptions::default().weight_decay)]
    weight_decay: f64,
    /// Share of the run in which the learning rate rises.
    #[arg(long, value_name = "SHARE", default_value_t = DistillOptions::default().warm_up)]
    warm_up: f64,
    /// Largest length of the gradient.
    #[arg(long, value_name = "X", default_value_t = DistillOptions::default().clip)]
    clip: f64,
    /// Temperature that softens scores.
    #[arg(long, value_name = "X", default_value_t = DistillOptions::default().temperature)]
    temperature: f64,
    /// Loss of an output: kl (scores of classes), probabilities, mse, relative (mse as a share of squares), cosine or none. May be repeated.
    #[arg(long, value_name = "OUTPUT=LOSS", value_parser = loss)]
    loss: Vec<(String, LossKind)>,
    /// Weight of features: intermediate values that both models have (ends of blocks) are held against each other too.
    #[arg(long, value_name = "X", default_value_t = DistillOptions::default().feature_weight)]
    feature_weight: f64,
    /// Which channels the student kept, as `prune --map` wrote it: features with fewer channels can be compared too.
    #[arg(long, value_name = "FILE.json")]
    map: Option<PathBuf>,
    /// Share of the loss that --label decides.
    #[arg(long, value_name = "SHARE", default_value_t = DistillOptions::default().label_weight)]
    label_weight: f64,
    /// Share of the data that is held out (at most 256 samples).
    #[arg(long, value_name = "SHARE", default_value_t = DistillOptions::default().held_out)]
    held_out: f64,
    /// Hold out the last samples of the data instead of random ones: for a student that was fitted (--repair) on the others.
    #[arg(long)]
    hold_out_last: bool,
    /// End after this many validations (of 30) without a better one.
    #[arg(long, value_name = "N", default_value_t = DistillOptions::default().patience)]
    patience: usize,
    /// Mirror images left to right at random.
    #[arg(long)]
    flip: bool,
    /// Shift images at random by up to this many pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = DistillOptions::default().shift)]
    shift: usize,
    /// Normalize with the stored statistics, instead of those of each batch whose averages are stored.
    #[arg(long)]
    stored_statistics: bool,
    /// Train weights that are 0 too.
    #[arg(long)]
    fill_zeros: bool,
    /// Decides the order of samples, what is held out, and augmentation.
    #[arg(long, value_name = "N", default_value_t = DistillOptions::default().seed)]
    seed: u64,
    /// A checkpoint: written while training goes on and when Ctrl-C ends it; if there is one, training goes on from it.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Write the learning curve as a web page that needs no other file.
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    #[command(flatten)]
    judge: JudgeArgs,
    #[command(flatten)]
    save: super::save::SaveArgs,
    /// Print the recipe that this command spells, and stop.
    #[arg(long)]
    print_recipe: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerArg {
    /// Adam with decoupled weight decay.
    Adamw,
    /// Gradient descent with Nesterov momentum.
    Sgd,
}

fn loss(text: &str) -> Result<(String, LossKind), String> {
    let (name, kind) = text.rsplit_once('=').ok_or("expected OUTPUT=LOSS")?;
    Ok((name.to_string(), kind.parse().map_err(|e: sardonyx::Error| e.to_string())?))
}

impl Distill {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let recipe = self.recipe();
        if self.print_recipe {
            output::print(&recipe.to_toml()?)?;
            return Ok(Done::Ok);
        }
        super::progress::stop_on_interrupt();
        sardonyx::recover::keep_freed();
        let output = self.output.as_deref().unwrap_or(&self.student);
        apply::run_training(&recipe, &self.student, output, self.html.as_deref(), common)
    }

    fn recipe(&self) -> Recipe {
        let options = DistillOptions {
            batch: Some(self.batch),
            epochs: self.epochs,
            minutes: self.minutes,
            optimizer: match self.optimizer {
                OptimizerArg::Adamw => Method::AdamW,
                OptimizerArg::Sgd => Method::Sgd,
            },
            learning_rates: vec![self.learning_rate],
            weight_decay: self.weight_decay,
            warm_up: self.warm_up,
            clip: self.clip,
            temperature: self.temperature,
            feature_weight: self.feature_weight,
            latent: Default::default(),
            label_weight: self.label_weight,
            losses: self.loss.iter().cloned().collect(),
            held_out: self.held_out,
            hold_out_last: self.hold_out_last,
            patience: self.patience,
            flip: self.flip,
            shift: self.shift,
            batch_statistics: !self.stored_statistics,
            keep_zeros: !self.fill_zeros,
            seed: self.seed,
            resume: self.resume.clone(),
        };
        // Labels of the training data are read only where they decide something.
        let label = self.judge.label.clone().filter(|_| self.label_weight > 0.0);
        let step = DistillStep {
            teacher: self.teacher.clone(),
            map: self.map.clone(),
            data: self.data.clone(),
            label,
            samples: self.samples,
            options,
        };
        Recipe {
            distill: Some(step),
            validate: self.judge.step(None, None),
            save: self.save.options(),
            ..Recipe::default()
        }
    }
}
