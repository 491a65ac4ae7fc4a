//! A run of distillation: steps, validations, the best parameters.

mod trial;

pub use trial::TriedRate;

use super::augment::Augment;
use super::checkpoint::{self, Checkpoint, State, fingerprint};
use super::codes::Forms;
use super::distill::{Distillation, Point, Status};
use super::distill_options::DistillOptions;
use super::features::Feature;
use super::optimizer::{Optimizer, Rates, clip, rate_at};
use super::random::Random;
use super::samples::Samples;
use super::tape::{Seed, Tape};
use super::target::Targets;
use super::training_form::TrainingForm;
use super::{Network, Parameters, Role};
use crate::error::{Error, Result};
use crate::io::Feed;
use crate::ir::Model;
use crate::math::Array;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::time::Instant;

/// Validations of a run.
const VALIDATIONS: usize = 30;

/// What a step moves stored statistics by, as in PyTorch.
const STATISTICS_MOMENTUM: f32 = 0.1;

/// Samples of a part of a batch: parts run side by side, and what a layer makes of one stays in the cache for the next.
const PART: usize = 8;

/// Fewer rows than this make no statistics of a batch.
const LEAST_ROWS: usize = 8;

/// A run of distillation.
pub(super) struct Run<'a> {
    network: &'a Network<f32>,
    samples: &'a Samples,
    options: &'a DistillOptions,
    targets: Targets,
    training: Vec<usize>,
    held_out: Vec<usize>,
    parameters: Parameters<f32>,
    /// What the parameters stand for.
    forms: Forms,
    optimizer: Optimizer,
    random: Random,
    batch_statistics: bool,
    /// The best parameters so far.
    best: Parameters<f32>,
    state: State,
    /// Of the models, the data and the options: a checkpoint of another run is refused.
    fingerprint: String,
    report: Distillation,
    start: Instant,
    /// Seconds before the checkpoint.
    earlier: f64,
}

impl<'a> Run<'a> {
    /// Prepares it: runs the teacher over all samples.
    pub fn new(
        network: &'a Network<f32>,
        teacher: &Model,
        form: &TrainingForm,
        features: Vec<Feature>,
        samples: &'a Samples,
        options: &'a DistillOptions,
    ) -> Result<Self> {
        let start = Instant::now();
        if samples.len() < 2 {
            let n = samples.len();
            return Err(Error::data(format!(
                "distillation needs a sample to train on and one to validate on, there is {n}"
            )));
        }
        let mut random = Random::new(options.seed);
        let mut order: Vec<usize> = (0..samples.len()).collect();
        if !options.hold_out_last {
            random.shuffle(&mut order);
        }
        let mut held_out = order.split_off(samples.len() - options.held_out_of(samples.len()));
        held_out.sort_unstable();
        let mut parameters = network.parameters()?;
        let forms = form.forms(&mut parameters, options.latent);
        let augment = Augment { flip: options.flip, shift: options.shift };
        if !augment.is_nothing() && !samples.feed(0).values().any(Augment::takes) {
            return Err(Error::usage("flip and shift are for images: no input is float32 of rank 4"));
        }
        let names = features.iter().map(|f| f.name.clone()).collect();
        let targets = Targets::new(teacher, &form.model, features, samples, augment, options)?;
        let trained = network.trained(samples.feed(0))?;
        let mut weights = parameters.list().iter().zip(parameters.values()).zip(&trained);
        if let Some(((p, _), _)) = weights.find(|((_, w), trained)| **trained && !w.is_finite()) {
            return Err(Error::data(format!(
                "\"{}\" of the student holds NaN or infinity: there is no training from there",
                p.name
            )));
        }
        let sizes = trained.iter().zip(parameters.list()).filter(|(t, _)| **t);
        let elements = sizes.map(|(_, p)| p.dims.iter().product::<usize>());
        let report = Distillation {
            training_samples: order.len(),
            held_out_samples: held_out.len(),
            trained: (trained.iter().filter(|t| **t).count(), elements.sum()),
            frozen: network.frozen(samples.feed(0))?,
            features: names,
            ..Distillation::default()
        };
        if report.trained.0 == 0 {
            let why =
                report.frozen.first().map_or("it has no weights".into(), |f| format!("{}: {}", f.parameter, f.why));
            return Err(Error::usage(format!("nothing in the student can be trained ({why})")));
        }
        let rates = |k: usize, w: &Array<f32>| Rates {
            rate: forms.rate(k),
            decays: forms.is_plain(k),
            keeps_zeros: options.keep_zeros && forms.keeps_zeros(k, w.data()),
        };
        let optimizer = Optimizer::new(options.optimizer, options.weight_decay as f32, &parameters, &rates);
        let has_statistics = parameters.list().iter().any(|p| p.role == Role::Statistic);
        let batch_statistics = options.batch_statistics
            && has_statistics
            && samples.joinable()
            && options.batch_size().min(order.len()) >= LEAST_ROWS;
        Ok(Self {
            best: parameters.clone(),
            state: State { next_validation: 1.0 / VALIDATIONS as f64, ..State::default() },
            fingerprint: String::new(),
            earlier: 0.0,
            network,
            samples,
            options,
            targets,
            training: order,
            held_out,
            parameters,
            forms,
            optimizer,
            random,
            batch_statistics,
            report,
            start,
        })
    }

    fn steps_per_epoch(&self) -> usize {
        self.training.len().div_ceil(self.options.batch_size())
    }

    fn seconds(&self) -> f64 {
        self.earlier + self.start.elapsed().as_secs_f64()
    }

    /// Share of the run that is done, by steps or by time.
    fn done(&self, steps: usize) -> f64 {
        let began = self.state.began;
        let timed = self.options.minutes.map_or(0.0, |m| (self.seconds() - began) / (60.0 * m - began).max(1e-9));
        (self.state.step as f64 / steps as f64).max(timed).min(1.0)
    }

    /// Trains to the end of the steps, the minutes, or patience.
    pub fn train(&mut self, watch: &mut dyn FnMut(&Status) -> bool) -> Result<()> {
        self.begin()?;
        let steps = self.options.passes().map_or(usize::MAX, |n| n.saturating_mul(self.steps_per_epoch()));
        if self.report.resumed_at.is_none() && !self.choose_rate(steps, watch)? {
            return Ok(());
        }
        self.report.learning_rate = self.state.rate;
        while self.state.step < steps && self.done(steps) < 1.0 && !self.out_of_patience() {
            let batch = self.next_batch();
            let done = self.done(steps);
            let rate = self.state.rate * rate_at(done, self.options.warm_up);
            match self.step(&batch, rate as f32, done)? {
                Some(loss) => self.state.losses.push(loss),
                None => {
                    let error = self.not_finite(&batch, &format!("the loss of step {}", self.state.step + 1));
                    if self.state.best_step == 0 {
                        return Err(error);
                    }
                    self.report.stopped = Some(error.to_string());
                    return Ok(());
                }
            }
            self.state.step += 1;
            let done = self.done(steps);
            if done >= self.state.next_validation || self.state.step == steps {
                self.state.next_validation = done + 1.0 / VALIDATIONS as f64;
                self.judge()?;
                self.store()?;
            }
            let lately = self.state.losses.iter().rev().take(20);
            let loss = lately.clone().sum::<f64>() / lately.count().max(1) as f64;
            let (step, seconds, best) = (self.state.step, self.seconds(), self.state.best);
            if !watch(&Status { step, steps, done, seconds, loss, best }) {
                self.report.stopped = (step < steps).then(|| "interrupted".to_string());
                return self.store();
            }
        }
        if self.out_of_patience() && self.state.step < steps {
            self.report.stopped = Some(format!("no better in {} validations", self.state.since_best));
        } else if self.state.step < steps && self.options.epochs.is_some() {
            self.report.stopped = Some("its minutes were over".to_string());
        }
        Ok(())
    }

    fn out_of_patience(&self) -> bool {
        self.state.since_best >= self.options.patience
    }

    /// Judges the student as it came, or goes on from a checkpoint.
    fn begin(&mut self) -> Result<()> {
        self.report.losses = self.targets.kinds();
        self.report.kept_zeros = self.optimizer.kept_zeros();
        self.fingerprint = fingerprint(&self.parameters, self.targets.cached(), self.options)?;
        if let Some(path) = self.options.resume.as_deref().filter(|p| p.exists()) {
            let saved = Checkpoint::read(path, &self.fingerprint, &self.parameters)?;
            (self.state, self.parameters, self.best) = (saved.state, saved.parameters, saved.best);
            self.optimizer.restore(self.state.step, saved.moments);
            self.random = Random::new(self.state.random);
            self.earlier = self.state.seconds;
            self.report.resumed_at = Some(self.state.step);
            return Ok(());
        }
        let before = self.validate(&self.parameters)?;
        if !before.is_finite() {
            return Err(self.not_finite(&self.held_out[..1], "the student's loss"));
        }
        (self.state.before, self.state.best) = (before, before);
        Ok(())
    }

    fn next_batch(&mut self) -> Vec<usize> {
        if self.state.queue.is_empty() {
            self.state.queue = self.training.clone();
            self.random.shuffle(&mut self.state.queue);
        }
        let rest = self.state.queue.len().saturating_sub(self.options.batch_size());
        self.state.queue.split_off(rest)
    }

    /// Validates, and keeps the parameters where they are better than any before.
    fn judge(&mut self) -> Result<()> {
        let validation = self.validate(&self.parameters)?;
        let losses = std::mem::take(&mut self.state.losses);
        let training = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        self.state.curve.push(Point { step: self.state.step, training, validation });
        self.state.since_best += 1;
        if validation < self.state.best {
            self.best = self.parameters.clone();
            (self.state.best, self.state.best_step, self.state.since_best) = (validation, self.state.step, 0);
        }
        Ok(())
    }

    /// Writes the checkpoint, where one is wanted.
    fn store(&mut self) -> Result<()> {
        let Some(path) = &self.options.resume else { return Ok(()) };
        (self.state.random, self.state.seconds) = (self.random.state(), self.seconds());
        let (state, moments) = (&self.state, self.optimizer.moments());
        checkpoint::write(path, &self.fingerprint, state, [&self.parameters, &self.best], moments)
    }

    /// The last validation, where the run ended between two, and averages of statistics over whole batches; returns the best
    /// parameters, and what they stand for.
    pub fn finish(mut self) -> Result<(Parameters<f32>, Forms, Distillation)> {
        let last = self.state.curve.last().map_or(0, |p| p.step);
        let is_sound = self.report.stopped.as_ref().is_none_or(|s| !s.contains("NaN"));
        if self.state.step > last && is_sound {
            self.judge()?;
        }
        if self.batch_statistics && self.state.best_step > 0 {
            let estimated = self.re_estimated(&self.best)?;
            let validation = self.validate(&estimated)?;
            if validation < self.state.best {
                (self.best, self.state.best) = (estimated, validation);
            }
        }
        let State { step, before, best, best_step, curve, .. } = self.state;
        let seconds = self.earlier + self.start.elapsed().as_secs_f64();
        let report = Distillation { before, after: best, steps: step, best_step, curve, seconds, ..self.report };
        Ok((self.best, self.forms, report))
    }

    /// Samples as feeds that the model takes: parts of a batch, or the whole where normalization goes by its statistics.
    fn feeds(&self, which: &[usize]) -> Result<Vec<(Feed, Vec<usize>)>> {
        let size = match self.samples.joinable() {
            true if self.batch_statistics => which.len(),
            true => PART,
            false => return Ok(which.iter().map(|&i| (self.samples.feed(i).clone(), vec![i])).collect()),
        };
        which.chunks(size).map(|part| Ok((self.samples.joined(part)?, part.to_vec()))).collect()
    }

    /// One step; `None` where the loss, or a gradient, is not finite.
    fn step(&mut self, batch: &[usize], rate: f32, done: f64) -> Result<Option<f64>> {
        let mut feeds = self.feeds(batch)?;
        for (feed, _) in &mut feeds {
            *feed = self.targets.augment.apply(feed, &mut self.random)?;
        }
        let values = self.forms.values(&self.parameters, false);
        let part = |(feed, which): &(Feed, Vec<usize>)| {
            self.gradient(&values, feed, which, which.len() as f64 / batch.len() as f64)
        };
        let found: Result<Vec<_>> = feeds.par_iter().map(part).collect();
        let (mut total, mut loss) = (None::<Vec<Option<Array<f32>>>>, 0.0);
        for (part, gradients, statistics) in found? {
            loss += part;
            match &mut total {
                None => total = Some(gradients),
                Some(total) => add_all(total, gradients),
            }
            for (k, new) in statistics {
                let moved = |old: f32, new: f32| old + STATISTICS_MOMENTUM * (new - old);
                let old = &mut self.parameters.values_mut()[k];
                *old = Array::new(old.dims(), crate::math::elementwise2(old.data(), new.data(), moved));
            }
        }
        let mut gradients = total.unwrap_or_default();
        self.forms.chain(&self.parameters, &mut gradients, done);
        let length = clip(&mut gradients, self.options.clip);
        if !(loss.is_finite() && length.is_finite()) {
            return Ok(None);
        }
        self.optimizer.step(&mut self.parameters, &gradients, rate);
        Ok(Some(loss))
    }

    /// What a part that is this share of its batch adds to the loss and its gradients.
    #[allow(clippy::type_complexity)] // loss, gradients, statistics
    fn gradient(
        &self,
        values: &Parameters<f32>,
        feed: &Feed,
        which: &[usize],
        share: f64,
    ) -> Result<(f64, Vec<Option<Array<f32>>>, Vec<(usize, Array<f32>)>)> {
        let tape = self.network.forward(values, feed, self.batch_statistics)?;
        let (loss, mut seeds) = self.loss(&tape, feed, which, false)?;
        seeds.iter_mut().for_each(|s| s.gradient = s.gradient.map(|g| g * share as f32));
        let statistics = tape.statistics().to_vec();
        let gradients = if loss.is_finite() { tape.backward(seeds)?.parameters } else { vec![] };
        Ok((loss * share, gradients, statistics))
    }

    fn loss(&self, tape: &Tape<f32>, feed: &Feed, which: &[usize], plain: bool) -> Result<(f64, Vec<Seed<f32>>)> {
        let labels = self.samples.labels(which).filter(|_| self.options.label_weight > 0.0);
        self.targets.loss(tape, feed, which, labels.as_deref(), plain, self.options)
    }

    /// Mean loss on what is held out, without augmentation, with stored statistics.
    fn validate(&self, parameters: &Parameters<f32>) -> Result<f64> {
        let (mut total, values) = (0.0, self.forms.values(parameters, true));
        for piece in self.held_out.chunks(self.options.batch_size()) {
            let of = |(feed, which): &(Feed, Vec<usize>)| {
                let tape = self.network.forward(&values, feed, false)?;
                Ok(self.loss(&tape, feed, which, true)?.0 * which.len() as f64)
            };
            let losses: Result<Vec<f64>> = self.feeds(piece)?.par_iter().map(of).collect();
            total += losses?.iter().sum::<f64>();
        }
        Ok(total / self.held_out.len() as f64)
    }

    /// The parameters with statistics averaged over training batches.
    fn re_estimated(&self, parameters: &Parameters<f32>) -> Result<Parameters<f32>> {
        const BATCHES: usize = 16;
        let mut sums: BTreeMap<usize, Array<f32>> = BTreeMap::new();
        let whole = self.training.chunks(self.options.batch_size()).filter(|b| b.len() >= LEAST_ROWS);
        let batches: Vec<&[usize]> = whole.take(BATCHES).collect();
        let values = self.forms.values(parameters, true);
        for batch in &batches {
            let tape = self.network.forward(&values, &self.samples.joined(batch)?, true)?;
            for (k, value) in tape.statistics() {
                sums.entry(*k).and_modify(|s| s.add(value)).or_insert_with(|| value.clone());
            }
        }
        let (mut estimated, by) = (parameters.clone(), 1.0 / batches.len().max(1) as f32);
        for (k, sum) in sums {
            estimated.values_mut()[k] = sum.map(|x| x * by);
        }
        Ok(estimated)
    }

    /// Finds the node to blame by running the batch again.
    fn not_finite(&self, batch: &[usize], what: &str) -> Error {
        let blame = |feed: &Feed| {
            let values = self.forms.values(&self.parameters, false);
            let tape = self.network.forward(&values, feed, self.batch_statistics).ok()?;
            tape.first_not_finite()
        };
        let node = self.feeds(batch).ok().and_then(|feeds| feeds.iter().find_map(|(feed, _)| blame(feed)));
        let node = node.unwrap_or_else(|| "no node: it is the loss or a gradient".into());
        Error::data(format!("{what} is NaN or infinite; first made by {node}; a smaller learning rate may help"))
    }
}

fn add_all(total: &mut [Option<Array<f32>>], more: Vec<Option<Array<f32>>>) {
    for (sum, more) in total.iter_mut().zip(more) {
        match (sum, more) {
            (Some(sum), Some(more)) => sum.add(&more),
            (sum, more @ Some(_)) => *sum = more,
            _ => {}
        }
    }
}
