//! What a distillation can be told.

use super::codes::Latent;
use super::optimizer::Method;
use super::target::LossKind;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a student is trained.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DistillOptions {
    /// Samples of one step; absent: 64, in recovery fewer where no BatchNormalization needs as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Passes over the training samples; absent: as many as fit into the minutes, or 30 where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Minutes after which training ends, whatever is left of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// The optimizer.
    pub optimizer: Method,
    /// Largest learning rates, ascending: short trials decide which.
    pub learning_rates: Vec<f64>,
    /// Share of each weight that a step of learning rate 1 takes away.
    pub weight_decay: f64,
    /// Share of the run in which the learning rate rises.
    pub warm_up: f64,
    /// Largest length of the gradient of all parameters together.
    pub clip: f64,
    /// Temperature of the softmax of scores.
    pub temperature: f64,
    /// Weight of the mean relative squared error of features: intermediate values that teacher and student have in common.
    pub feature_weight: f64,
    /// What is learnt of the codes of a quantized student.
    pub latent: Latent,
    /// Share of the loss that the labels decide, where there are labels.
    pub label_weight: f64,
    /// Losses of outputs, by name, where not the usual one.
    pub losses: BTreeMap<String, LossKind>,
    /// Share of the samples that is held out to validate on.
    pub held_out: f64,
    /// Hold out the last samples of the data instead of random ones: for a student that was fitted on the others.
    pub hold_out_last: bool,
    /// End after this many validations without a better one.
    pub patience: usize,
    /// Mirror images at random.
    pub flip: bool,
    /// Shift images at random by up to this many pixels.
    pub shift: usize,
    /// Whether normalization learns with the statistics of each batch (and stores their averages), or with those stored.
    pub batch_statistics: bool,
    /// Whether elements of weights that are 0 stay 0.
    pub keep_zeros: bool,
    /// Decides the order of samples, what is held out, and augmentation.
    pub seed: u64,
    /// A checkpoint: written at each validation and when training is interrupted; where there is one already, training goes
    /// on from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<PathBuf>,
}

/// Most samples that are held out.
const MOST_HELD_OUT: usize = 256;

/// Samples of one step, where nothing else is said.
pub const BATCH: usize = 64;

/// Passes over the training samples, where nothing else is said.
pub const EPOCHS: usize = 30;

/// The largest learning rate of a student from anywhere, where nothing else is said.
pub const LEARNING_RATE: f64 = 2e-3;

/// Largest learning rates of a student that starts close to its teacher, to choose from where none is given.
pub const RECOVERY_RATES: [f64; 4] = [1e-4, 3e-4, 1e-3, 3e-3];

impl Default for DistillOptions {
    fn default() -> Self {
        Self {
            batch: None,
            epochs: None,
            minutes: None,
            optimizer: Method::AdamW,
            learning_rates: vec![LEARNING_RATE],
            weight_decay: 1e-4,
            warm_up: 0.05,
            clip: 5.0,
            temperature: 3.0,
            feature_weight: 0.0,
            latent: Latent::StraightThrough,
            label_weight: 0.0,
            losses: BTreeMap::new(),
            held_out: 0.1,
            hold_out_last: false,
            patience: 30,
            flip: false,
            shift: 0,
            batch_statistics: true,
            keep_zeros: true,
            seed: 0,
            resume: None,
        }
    }
}

impl DistillOptions {
    /// What recovers a model from pruning or sparsification best: it starts close to its teacher.
    pub fn for_recovery() -> Self {
        Self { feature_weight: 50.0, learning_rates: RECOVERY_RATES.to_vec(), ..Self::default() }
    }

    /// Samples of one step.
    pub fn batch_size(&self) -> usize {
        self.batch.unwrap_or(BATCH)
    }

    /// How many of `samples` are held out: at least one, and not all.
    pub fn held_out_of(&self, samples: usize) -> usize {
        let count = (samples as f64 * self.held_out).round() as usize;
        count.clamp(1, MOST_HELD_OUT).min(samples.saturating_sub(1))
    }

    /// Those of learned rounding: few samples, and a good start.
    pub fn for_rounding() -> Self {
        Self {
            batch: Some(32),
            epochs: Some(8),
            learning_rates: vec![1e-3],
            weight_decay: 0.0,
            feature_weight: 1.0,
            patience: usize::MAX,
            ..Self::default()
        }
    }

    /// Passes over the training samples; `None`: the minutes decide.
    pub fn passes(&self) -> Option<usize> {
        self.epochs.or(if self.minutes.is_none() { Some(EPOCHS) } else { None })
    }

    /// Checks what the types of the fields do not.
    ///
    /// # Errors
    /// Numbers that mean nothing.
    pub fn check(&self) -> Result<()> {
        let positive = [("temperature", self.temperature), ("clip", self.clip)];
        let rates = self.learning_rates.iter().map(|&x| ("learning-rates", x));
        let positive = positive.into_iter().chain(rates).chain(self.minutes.map(|x| ("minutes", x)));
        if let Some((name, x)) = positive.into_iter().find(|(_, x)| !(x.is_finite() && *x > 0.0)) {
            return Err(Error::usage(format!("{name} must be above 0, not {x}")));
        }
        if self.learning_rates.is_empty() || !self.learning_rates.is_sorted() {
            return Err(Error::usage("learning-rates: at least one, in ascending order"));
        }
        let shares = [("warm-up", self.warm_up), ("label-weight", self.label_weight), ("held-out", self.held_out)];
        if let Some((name, x)) = shares.into_iter().find(|(_, x)| !(0.0..=1.0).contains(x)) {
            return Err(Error::usage(format!("{name} must lie between 0 and 1, not {x}")));
        }
        let weights = [("weight-decay", self.weight_decay), ("feature-weight", self.feature_weight)];
        if let Some((name, x)) = weights.into_iter().find(|(_, x)| !(x.is_finite() && *x >= 0.0)) {
            return Err(Error::usage(format!("{name} must not be negative, not {x}")));
        }
        let counts = [("batch", self.batch_size()), ("epochs", self.epochs.unwrap_or(1)), ("patience", self.patience)];
        match counts.into_iter().find(|(_, n)| *n == 0) {
            Some((name, _)) => Err(Error::usage(format!("{name} must be at least 1"))),
            None => Ok(()),
        }
    }
}
