//! A model whose gradients can be asked for.

use super::parameters::{Parameter, Parameters, Role, parameters_of};
use super::plan::{Frozen, Plan, Wanted};
use super::prepare::{Signature, prepare};
use super::tape::Tape;
use crate::error::{Error, Result};
use crate::io::Feed;
use crate::ir::Model;
use crate::ops::gradient::Element;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What gradients are wanted of.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// Names of initializers; `None`: all that [`parameters_of`] finds trainable.
    pub parameters: Option<Vec<String>>,
    /// Names of other values: graph inputs and activations.
    pub observe: Vec<String>,
}

/// Plans that are kept, each for one set of input shapes.
const MOST_PLANS: usize = 16;

/// A model and what is trained in it. Runs may go on in several threads at once.
pub struct Network<T> {
    model: Model,
    list: Arc<Vec<Parameter>>,
    trained: Vec<bool>,
    observe: Vec<String>,
    plans: Mutex<HashMap<Signature, Arc<Plan<T>>>>,
}

impl<T: Element> Network<T> {
    /// Looks for the parameters of `model`.
    ///
    /// # Errors
    /// A name that is no float initializer.
    pub fn new(model: &Model, options: &NetworkOptions) -> Result<Self> {
        let mut list = parameters_of(model);
        if let Some(names) = &options.parameters {
            for name in names {
                if !list.iter().any(|p| *p.name == **name) {
                    list.push(named(model, name)?);
                }
            }
        }
        let chosen = |p: &Parameter| match &options.parameters {
            Some(names) => names.iter().any(|n| **n == *p.name),
            None => p.role == Role::Trained,
        };
        let trained = list.iter().map(chosen).collect();
        let (list, observe) = (Arc::new(list), options.observe.clone());
        Ok(Self { model: model.clone(), list, trained, observe, plans: Mutex::default() })
    }

    /// The parameters as the model has them.
    ///
    /// # Errors
    /// Data that are missing or damaged.
    pub fn parameters(&self) -> Result<Parameters<T>> {
        Parameters::read(&self.model, self.list.clone())
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Runs forward on one feed. In `training`, normalization goes by the statistics of the batch.
    ///
    /// # Errors
    /// Inputs that do not fit; an operator that nobody can compute, named.
    pub fn forward(&self, parameters: &Parameters<T>, feed: &Feed, training: bool) -> Result<Tape<T>> {
        Tape::run(self.plan(feed)?, parameters, feed, training)
    }

    /// Parameters that are not trained for want of a backward rule, for inputs of the shapes of `feed`.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn frozen(&self, feed: &Feed) -> Result<Vec<Frozen>> {
        Ok(self.plan(feed)?.frozen.clone())
    }

    /// Which parameters get a gradient, for inputs of the shapes of `feed`.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn trained(&self, feed: &Feed) -> Result<Vec<bool>> {
        Ok(self.plan(feed)?.parameters.iter().map(|p| p.1).collect())
    }

    /// Whether every operator that takes or makes floats has a rule, and so a kernel here, for inputs of the shapes of `feed`.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub(super) fn has_all_rules(&self, feed: &Feed) -> Result<bool> {
        Ok(self.plan(feed)?.all_rules)
    }

    fn plan(&self, feed: &Feed) -> Result<Arc<Plan<T>>> {
        let signature: Signature = feed.iter().map(|(name, t)| (name.clone(), t.dims.clone())).collect();
        let lock = || self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = lock().get(&signature) {
            return Ok(plan.clone());
        }
        let prepared = prepare(&self.model, &self.list, &signature)?;
        let wanted = Wanted { parameters: &self.list, trained: &self.trained, observed: &self.observe };
        let plan = Arc::new(Plan::new(&prepared, &wanted)?);
        let mut plans = lock();
        if plans.len() >= MOST_PLANS {
            plans.clear();
        }
        plans.insert(signature, plan.clone());
        Ok(plan)
    }
}

fn named(model: &Model, name: &str) -> Result<Parameter> {
    let value = model.graph.find(name).map(|v| model.graph.value(v));
    let found = value.and_then(|v| Some((v.name.clone(), v.init.as_ref().filter(|t| t.dtype.is_float())?)));
    let (name, t) = found.ok_or_else(|| Error::usage(format!("the model has no float initializer \"{name}\"")))?;
    Ok(Parameter { name, dims: t.dims.clone(), dtype: t.dtype, role: Role::Trained })
}
