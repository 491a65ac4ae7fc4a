//! Distillation: a student is trained on what its teacher makes of the same data.

use super::augment::Augment;
use super::codes::Forms;
use super::distill_options::DistillOptions;
use super::features::{Feature, KeptElements, features, features_of_teacher};
use super::optimizer::{Optimizer, Rates, clip, rate_at};
use super::random::Random;
use super::samples::Samples;
use super::tape::{Seed, Tape};
use super::target::{LossKind, Targets};
use super::training_form::TrainingForm;
use super::{Frozen, Network, NetworkOptions, Parameters, Role};
use crate::error::{Error, Result};
use crate::io::{Dataset, Feed};
use crate::ir::Model;
use crate::math::Array;
use crate::passes::{PassContext, RewritePass, UntieIdentity, manager};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// What a student learns from.
#[derive(Clone, Copy)]
pub struct Teacher<'a> {
    /// The model.
    pub model: &'a Model,
    /// Which elements of its values the student kept; `None`: all, where names are the same.
    pub kept: Option<&'a KeptElements>,
    /// The model with the weights that a quantized student's were before they were rounded.
    pub exact: Option<&'a Model>,
}

impl<'a> From<&'a Model> for Teacher<'a> {
    fn from(model: &'a Model) -> Self {
        Self { model, kept: None, exact: None }
    }
}

/// How far a run is.
pub struct Status {
    /// Steps done.
    pub step: usize,
    /// Steps that there are.
    pub steps: usize,
    /// Share of the run that is done, by steps or by time.
    pub done: f64,
    /// Seconds since it began.
    pub seconds: f64,
    /// Mean training loss lately.
    pub loss: f64,
    /// The best validation so far.
    pub best: f64,
}

/// A point of the learning curve.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Point {
    /// Steps done.
    pub step: usize,
    /// Mean training loss since the point before.
    pub training: f64,
    /// Loss on what is held out.
    pub validation: f64,
}

/// What a run did.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Distillation {
    /// Samples that were trained on.
    pub training_samples: usize,
    /// Samples that were held out.
    pub held_out_samples: usize,
    /// Parameters that were trained, and their elements.
    pub trained: (usize, usize),
    /// Parameters that were not, and why.
    pub frozen: Vec<Frozen>,
    /// Elements of weights that were 0 and stayed so.
    pub kept_zeros: usize,
    /// Loss of each output.
    pub losses: BTreeMap<String, LossKind>,
    /// Intermediate values that were held against the teacher's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Loss on what is held out before the first step.
    pub before: f64,
    /// The same of the parameters that were kept: the best.
    pub after: f64,
    /// Steps done.
    pub steps: usize,
    /// Steps after which the kept parameters were found.
    pub best_step: usize,
    /// The learning curve.
    pub curve: Vec<Point>,
    /// Why it ended before its last step.
    pub stopped: Option<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Validations of a run.
const VALIDATIONS: usize = 30;

/// Most samples that are held out.
const MOST_HELD_OUT: usize = 1024;

/// What a step moves stored statistics by, as in PyTorch.
const STATISTICS_MOMENTUM: f32 = 0.1;

/// Fewer rows than this make no statistics of a batch.
const LEAST_ROWS: usize = 8;

/// Trains `student` in place on the outputs that `teacher` has on `data`, which is opened for the student.
///
/// `watch` is called after each step; training ends, with the best parameters so far, when it says false.
///
/// # Errors
/// Inputs or outputs of teacher and student that do not match; fewer than two samples; a student without a trainable
/// parameter; NaN before anything was learnt, with the node that made it. The student is as before then.
pub fn distill<'a>(
    teacher: impl Into<Teacher<'a>>,
    student: &mut Model,
    data: &Dataset,
    options: &DistillOptions,
    watch: &mut dyn FnMut(&Status) -> bool,
) -> Result<Distillation> {
    options.check()?;
    let mut model = student.clone();
    let untie = RewritePass::new("untie_identity", vec![Box::new(UntieIdentity)]);
    manager::run(&mut model, &[&untie], &PassContext::default(), None)?;
    let samples = Samples::read(data)?;
    let teacher = teacher.into();
    let form = TrainingForm::of(&model, teacher.exact)?;
    let features = match options.feature_weight > 0.0 {
        true if form.is_quantized() => features_of_teacher(teacher.model, &form.model)?,
        true => features(teacher.model, &model, teacher.kept.unwrap_or(&KeptElements::new()))?,
        false => vec![],
    };
    if features.is_empty() && options.feature_weight > 0.0 {
        return Err(Error::usage(
            "teacher and student have no intermediate value in common to match: leave features out",
        ));
    }
    let wanted = NetworkOptions { parameters: form.is_quantized().then(|| form.trained()), observe: vec![] };
    let network = Network::<f32>::new(&with_outputs(&form.model, &features), &wanted)?;
    let mut run = Run::new(&network, teacher.model, &form, features, &samples, options)?;
    run.train(watch)?;
    run.finish()?;
    run.forms.write(&run.best.0, &mut model)?;
    *student = model;
    Ok(run.report)
}

/// The model with features as outputs after its own.
fn with_outputs(model: &Model, features: &[Feature]) -> Model {
    let mut model = model.clone();
    let more = features.iter().filter_map(|f| model.graph.find(&f.name));
    let outputs = model.graph.outputs().iter().copied().chain(more).collect();
    model.graph.set_outputs(outputs);
    model
}

struct Run<'a> {
    network: &'a Network<f32>,
    samples: &'a Samples,
    options: &'a DistillOptions,
    targets: Targets,
    training: Vec<usize>,
    held_out: Vec<usize>,
    parameters: Parameters<f32>,
    /// What the parameters stand for.
    forms: Forms,
    /// Share of the run that is done.
    done: f64,
    optimizer: Optimizer,
    random: Random,
    batch_statistics: bool,
    /// The best parameters so far, and their validation loss.
    best: (Parameters<f32>, f64),
    report: Distillation,
    start: Instant,
}

impl<'a> Run<'a> {
    fn new(
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
        random.shuffle(&mut order);
        let count = ((samples.len() as f64 * options.held_out).round() as usize).clamp(1, MOST_HELD_OUT);
        let mut held_out = order.split_off(samples.len() - count.min(samples.len() - 1));
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
        let rules = |k: usize, w: &Array<f32>| Rates {
            rate: forms.rate(k),
            decays: forms.is_plain(k),
            keeps_zeros: options.keep_zeros && forms.keeps_zeros(k, w.data()),
        };
        let optimizer = Optimizer::new(options.optimizer, options.weight_decay as f32, &parameters, &rules);
        let has_statistics = parameters.list().iter().any(|p| p.role == Role::Statistic);
        let batch_statistics = options.batch_statistics
            && has_statistics
            && samples.joinable()
            && options.batch.min(order.len()) >= LEAST_ROWS;
        let best = (parameters.clone(), f64::INFINITY);
        Ok(Self {
            network,
            samples,
            options,
            targets,
            training: order,
            held_out,
            parameters,
            forms,
            done: 0.0,
            optimizer,
            random,
            batch_statistics,
            best,
            report,
            start,
        })
    }

    fn steps_per_epoch(&self) -> usize {
        self.training.len().div_ceil(self.options.batch)
    }

    fn train(&mut self, watch: &mut dyn FnMut(&Status) -> bool) -> Result<()> {
        let before = self.validate(&self.parameters)?;
        self.report.losses = self.targets.kinds();
        self.report.kept_zeros = self.optimizer.kept_zeros();
        if !before.is_finite() {
            return Err(self.not_finite(&self.held_out[..1], "the student's loss"));
        }
        (self.report.before, self.best.1) = (before, before);
        let steps = self.options.epochs * self.steps_per_epoch();
        let limit = self.options.minutes.map(|m| m * 60.0);
        let mut next_validation = 1.0 / VALIDATIONS as f64;
        let (mut losses, mut since_best) = (vec![], 0);
        let mut queue: Vec<usize> = vec![];
        for step in 1..=steps {
            if queue.is_empty() {
                queue = self.training.clone();
                self.random.shuffle(&mut queue);
            }
            let batch = queue.split_off(queue.len().saturating_sub(self.options.batch));
            let seconds = self.start.elapsed().as_secs_f64();
            let timed = limit.map_or(0.0, |l| seconds / l);
            let done = ((step - 1) as f64 / steps as f64).max(timed);
            self.done = done;
            let rate = self.options.learning_rate * rate_at(done, self.options.warm_up);
            match self.step(&batch, rate as f32)? {
                Some(loss) => losses.push(loss),
                None => {
                    let error = self.not_finite(&batch, &format!("the loss of step {step}"));
                    if self.report.best_step == 0 {
                        return Err(error);
                    }
                    self.report.stopped = Some(error.to_string());
                    break;
                }
            }
            self.report.steps = step;
            let seconds = self.start.elapsed().as_secs_f64();
            let done = (step as f64 / steps as f64).max(limit.map_or(0.0, |l| seconds / l));
            if done >= next_validation || step == steps {
                next_validation = done + 1.0 / VALIDATIONS as f64;
                let validation = self.validate(&self.parameters)?;
                let training = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
                losses.clear();
                self.report.curve.push(Point { step, training, validation });
                since_best += 1;
                if validation < self.best.1 {
                    self.best = (self.parameters.clone(), validation);
                    (self.report.best_step, since_best) = (step, 0);
                }
            }
            let lately = losses.iter().rev().take(20);
            let loss = lately.clone().sum::<f64>() / lately.count().max(1) as f64;
            let status = Status { step, steps, done, seconds, loss, best: self.best.1 };
            let ended = match () {
                () if !watch(&status) => "interrupted".to_string(),
                () if limit.is_some_and(|l| seconds >= l) => "its minutes were over".to_string(),
                () if since_best >= self.options.patience => format!("no better in {since_best} validations"),
                () => continue,
            };
            if step < steps {
                self.report.stopped = Some(ended);
            }
            break;
        }
        Ok(())
    }

    /// The last validation, where the run ended between two, and averages of statistics over whole batches.
    fn finish(&mut self) -> Result<()> {
        let last = self.report.curve.last().map_or(0, |p| p.step);
        if self.report.steps > last && self.report.stopped.as_ref().is_none_or(|s| !s.contains("NaN")) {
            let validation = self.validate(&self.parameters)?;
            if validation < self.best.1 {
                self.best = (self.parameters.clone(), validation);
                self.report.best_step = self.report.steps;
            }
        }
        if self.batch_statistics && self.report.best_step > 0 {
            let estimated = self.re_estimated(&self.best.0)?;
            let validation = self.validate(&estimated)?;
            if validation < self.best.1 {
                self.best = (estimated, validation);
            }
        }
        self.report.after = self.best.1;
        self.report.seconds = self.start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Batches of samples as feeds that the model takes.
    fn feeds(&self, which: &[usize]) -> Result<Vec<(Feed, Vec<usize>)>> {
        if self.samples.joinable() {
            return Ok(vec![(self.samples.joined(which)?, which.to_vec())]);
        }
        Ok(which.iter().map(|&i| (self.samples.feed(i).clone(), vec![i])).collect())
    }

    /// One step; `None` where the loss, or a gradient, is not finite.
    fn step(&mut self, batch: &[usize], rate: f32) -> Result<Option<f64>> {
        let mut feeds = self.feeds(batch)?;
        for (feed, _) in &mut feeds {
            *feed = self.targets.augment.apply(feed, &mut self.random)?;
        }
        let count = feeds.len();
        let values = self.forms.values(&self.parameters, false);
        let found: Result<Vec<_>> = feeds.par_iter().map(|(feed, which)| self.gradient(&values, feed, which)).collect();
        let (mut total, mut loss) = (None::<Vec<Option<Array<f32>>>>, 0.0);
        for (part, gradients, statistics) in found? {
            loss += part / count as f64;
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
        if count > 1 {
            let by = 1.0 / count as f32;
            gradients.iter_mut().flatten().for_each(|g| *g = g.map(|x| x * by));
        }
        self.forms.chain(&self.parameters, &mut gradients, self.done);
        let length = clip(&mut gradients, self.options.clip);
        if !(loss.is_finite() && length.is_finite()) {
            return Ok(None);
        }
        self.optimizer.step(&mut self.parameters, &gradients, rate);
        Ok(Some(loss))
    }

    #[allow(clippy::type_complexity)] // loss, gradients, statistics
    fn gradient(
        &self,
        values: &Parameters<f32>,
        feed: &Feed,
        which: &[usize],
    ) -> Result<(f64, Vec<Option<Array<f32>>>, Vec<(usize, Array<f32>)>)> {
        let tape = self.network.forward(values, feed, self.batch_statistics)?;
        let (loss, seeds) = self.loss(&tape, feed, which, false)?;
        let statistics = tape.statistics().to_vec();
        let gradients = if loss.is_finite() { tape.backward(seeds)?.parameters } else { vec![] };
        Ok((loss, gradients, statistics))
    }

    fn loss(&self, tape: &Tape<f32>, feed: &Feed, which: &[usize], plain: bool) -> Result<(f64, Vec<Seed<f32>>)> {
        let labels = self.samples.labels(which).filter(|_| self.options.label_weight > 0.0);
        self.targets.loss(tape, feed, which, labels.as_deref(), plain, self.options)
    }

    /// Mean loss on what is held out, without augmentation, with stored statistics.
    fn validate(&self, parameters: &Parameters<f32>) -> Result<f64> {
        let (mut total, values) = (0.0, self.forms.values(parameters, true));
        for piece in self.held_out.chunks(self.options.batch) {
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
        let whole = self.training.chunks(self.options.batch).filter(|b| b.len() >= LEAST_ROWS);
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
