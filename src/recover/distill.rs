//! Distillation: a student is trained on what its teacher makes of the same data.

use super::distill_options::DistillOptions;
use super::features::{Feature, KeptElements, features, features_of_teacher};
use super::samples::Samples;
use super::target::LossKind;
use super::training::{Run, TriedRate};
use super::training_form::TrainingForm;
use super::{Frozen, Network, NetworkOptions};
use crate::error::Result;
use crate::io::Dataset;
use crate::ir::Model;
use crate::passes::{PassContext, RewritePass, UntieIdentity, manager};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
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
    /// The largest learning rate.
    pub learning_rate: f64,
    /// Those that were tried, where none was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried_rates: Vec<TriedRate>,
    /// Loss on what is held out before the first step.
    pub before: f64,
    /// The same of the parameters that were kept: the best.
    pub after: f64,
    /// Steps that a checkpoint had done already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<usize>,
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

/// Trains `student` in place on the outputs that `teacher` has on `data`, which is opened for the student.
///
/// `watch` is called after each step; training ends, with the best parameters so far, when it says false.
///
/// # Errors
/// Inputs or outputs of teacher and student that do not match; fewer than two samples; a student without a trainable
/// parameter; a checkpoint of another run; NaN before anything was learnt, with the node that made it. The student is as
/// before then.
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
    let wanted = NetworkOptions { parameters: form.is_quantized().then(|| form.trained()), observe: vec![] };
    let network = Network::<f32>::new(&with_outputs(&form.model, &features), &wanted)?;
    let mut run = Run::new(&network, teacher.model, &form, features, &samples, options)?;
    run.train(watch)?;
    let (best, forms, report) = run.finish()?;
    forms.write(&best, &mut model)?;
    *student = model;
    Ok(report)
}

/// The model with features as outputs after its own.
pub(super) fn with_outputs(model: &Model, features: &[Feature]) -> Model {
    let mut model = model.clone();
    let more = features.iter().filter_map(|f| model.graph.find(&f.name));
    let outputs = model.graph.outputs().iter().copied().chain(more).collect();
    model.graph.set_outputs(outputs);
    model
}
