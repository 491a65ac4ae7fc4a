//! One forward pass, and gradients by going back over it.

use super::parameters::Parameters;
use super::plan::{Plan, Step};
use crate::error::{Context, Error, Result};
use crate::io::Feed;
use crate::ir::{Tensor, Type};
use crate::math::Array;
use crate::ops::gradient::{Backward, Computed, Element, Forward, Rule, Saved, Value};
use crate::ops::spec::{InferContext, Known};
use crate::passes::Evaluator;
use crate::runtime::RuntimeEvaluator;
use std::sync::Arc;

/// The gradient of a loss by output `0`-based: where going back begins.
pub struct Seed<T> {
    /// Which graph output.
    pub output: usize,
    /// Gradient of the loss by its elements.
    pub gradient: Array<T>,
}

/// Gradients of a loss.
pub struct Gradients<T> {
    /// By the parameters, in their order; `None` where it is not asked for, or 0.
    pub parameters: Vec<Option<Array<T>>>,
    /// By the observed values, in the order asked for; `None` where 0.
    pub observed: Vec<Option<Array<T>>>,
}

/// What a forward pass computed, and what going back over it needs.
pub struct Tape<T> {
    plan: Arc<Plan<T>>,
    values: Vec<Option<Value<T>>>,
    saved: Vec<Saved<T>>,
    training: bool,
    /// Parameters (by position) that are statistics, and what they are in this batch.
    statistics: Vec<(usize, Array<T>)>,
}

/// What the functions of a step see of its inputs.
struct Seen<T> {
    inputs: Vec<Option<Value<T>>>,
    types: Vec<Option<Type>>,
}

impl<T: Element> Seen<T> {
    fn of(step: &Step, values: &[Option<Value<T>>]) -> Self {
        let inputs: Vec<_> = step.inputs.iter().map(|k| k.and_then(|k| values[k].clone())).collect();
        let types = inputs.iter().map(|v| v.as_ref().map(Value::ty)).collect();
        Self { inputs, types }
    }

    fn context<'a>(&'a self, step: &'a Step) -> InferContext<'a> {
        let known = |(value, ty): (&'a Option<Value<T>>, &'a Option<Type>)| {
            let constant = value.as_ref().and_then(|v| if let Value::Other(t) = v { Some(t) } else { None });
            ty.as_ref().map(|ty| Known { ty: Some(ty), constant, data: None })
        };
        let inputs = self.inputs.iter().zip(&self.types).map(known).collect();
        InferContext { node: &step.node, opset: step.opset, inputs, used_outputs: step.used_outputs }
    }
}

impl<T: Element> Tape<T> {
    /// Runs forward.
    pub(super) fn run(plan: Arc<Plan<T>>, parameters: &Parameters<T>, feed: &Feed, training: bool) -> Result<Self> {
        let mut values: Vec<Option<Value<T>>> = vec![None; plan.names.len()];
        for &k in &plan.inputs {
            let name = &plan.names[k];
            let t = feed.get(&**name).ok_or_else(|| Error::data(format!("the feed has no \"{name}\"")))?;
            values[k] = Some(Value::of(t)?);
        }
        plan.constants.iter().for_each(|(k, v)| values[*k] = Some(v.clone()));
        for ((k, _), value) in plan.parameters.iter().zip(parameters.values()) {
            k.iter().for_each(|&k| values[k] = Some(Value::Float(value.clone())));
        }
        let mut tape = Self { saved: vec![], values, plan: plan.clone(), training, statistics: vec![] };
        for step in &plan.steps {
            let saved = tape.step(step).context(|| step.node.label())?;
            tape.saved.push(if step.wants.is_empty() { Saved { arrays: vec![], positions: vec![] } } else { saved });
            step.release.iter().for_each(|&k| tape.values[k] = None);
        }
        Ok(tape)
    }

    fn step(&mut self, step: &Step) -> Result<Saved<T>> {
        let seen = Seen::of(step, &self.values);
        let rule: Option<&Rule> =
            step.rule.as_ref().filter(|_| seen.inputs.iter().flatten().any(|v| v.float().is_some()));
        let Some(rule) = rule else {
            for (k, value) in step.outputs.iter().zip(evaluate(step, &seen.inputs)?) {
                k.iter().for_each(|&k| self.values[k] = Some(value.clone()));
            }
            return Ok(Saved { arrays: vec![], positions: vec![] });
        };
        let cx = seen.context(step);
        let forward = Forward { cx: &cx, inputs: &seen.inputs, training: self.training };
        let Computed { outputs, saved, statistics } = (T::kernel(rule).forward)(&forward)?;
        for (k, value) in step.outputs.iter().zip(outputs) {
            if let Some(k) = k {
                self.values[*k] = value.map(Value::Float);
            }
        }
        for (slot, value) in statistics {
            let target = step.inputs.get(slot).copied().flatten();
            let position = target.and_then(|v| self.plan.parameters.iter().position(|(k, _)| *k == Some(v)));
            self.statistics.extend(position.map(|p| (p, value)));
        }
        Ok(saved)
    }

    /// The graph outputs.
    ///
    /// # Errors
    /// An output that holds no floats.
    pub fn outputs(&self) -> Result<Vec<&Array<T>>> {
        (0..self.plan.outputs.len()).map(|k| self.output(k)).collect()
    }

    /// One graph output.
    ///
    /// # Errors
    /// An output that holds no floats.
    pub fn output(&self, k: usize) -> Result<&Array<T>> {
        let v = self.plan.outputs.get(k).copied();
        let value = v.and_then(|v| self.values[v].as_ref()).and_then(Value::float);
        let name = || v.map_or_else(|| k.to_string(), |v| format!("\"{}\"", self.plan.names[v]));
        value.ok_or_else(|| Error::unsupported(format!("output {} holds no floats", name())))
    }

    /// One of the values whose gradients are asked for; `None` where it holds no floats.
    pub(super) fn observed(&self, k: usize) -> Option<&Array<T>> {
        self.values[*self.plan.observed.get(k)?].as_ref().and_then(Value::float)
    }

    /// In training, the parameters (by position) that are statistics, and what they are in this batch.
    pub fn statistics(&self) -> &[(usize, Array<T>)] {
        &self.statistics
    }

    /// The first node that made a NaN or an infinity of finite inputs, where values are still there.
    pub fn first_not_finite(&self) -> Option<String> {
        let finite = |v: &Option<Value<T>>| v.as_ref().and_then(Value::float).is_none_or(Array::is_finite);
        let all = |slots: &[Option<usize>]| slots.iter().flatten().all(|&k| finite(&self.values[k]));
        let made = |s: &&Step| !all(&s.outputs) && all(&s.inputs);
        self.plan.steps.iter().find(made).map(|s| s.node.label())
    }

    /// Goes back: the gradients of a loss whose gradients by the outputs are `seeds`. May be called any number of times.
    ///
    /// # Errors
    /// A seed of another shape than its output; what a backward function reports, with its node.
    pub fn backward(&self, seeds: Vec<Seed<T>>) -> Result<Gradients<T>> {
        let plan = &self.plan;
        let mut grads: Vec<Option<Array<T>>> = vec![None; plan.names.len()];
        for Seed { output, gradient } in seeds {
            if gradient.dims() != self.output(output)?.dims() {
                return Err(Error::internal(format!("a seed of shape {:?} for output {output}", gradient.dims())));
            }
            add(&mut grads[plan.outputs[output]], gradient);
        }
        let mut kept = vec![false; plan.names.len()];
        let observed = plan.observed.iter().chain(plan.parameters.iter().filter_map(|(k, _)| k.as_ref()));
        observed.for_each(|&k| kept[k] = true);
        for (step, saved) in plan.steps.iter().zip(&self.saved).rev().filter(|(s, _)| !s.wants.is_empty()) {
            let take = |k: &Option<usize>| k.and_then(|k| if kept[k] { grads[k].clone() } else { grads[k].take() });
            let from: Vec<Option<Array<T>>> = step.outputs.iter().map(take).collect();
            if from.iter().all(Option::is_none) {
                continue;
            }
            let found = self.step_back(step, saved, from).context(|| format!("gradient of {}", step.node.label()))?;
            for ((k, grad), _) in step.inputs.iter().zip(found).zip(&step.wants).filter(|(_, wanted)| **wanted) {
                if let (Some(k), Some(grad)) = (k, grad) {
                    add(&mut grads[*k], grad);
                }
            }
        }
        let take = |k: usize| grads[k].clone();
        let parameters = plan.parameters.iter().map(|&(k, wanted)| k.filter(|_| wanted).and_then(take)).collect();
        Ok(Gradients { parameters, observed: plan.observed.iter().map(|&k| take(k)).collect() })
    }

    fn step_back(
        &self,
        step: &Step,
        saved: &Saved<T>,
        mut from: Vec<Option<Array<T>>>,
    ) -> Result<Vec<Option<Array<T>>>> {
        let Some(rule) = &step.rule else { return Err(Error::internal("a step on the path has no rule")) };
        let seen = Seen::of(step, &self.values);
        let outputs: Vec<Option<Value<T>>> =
            step.outputs.iter().map(|k| k.and_then(|k| self.values[k].clone())).collect();
        // Most rules look at output 0 alone: where only another one has a gradient, its own is 0.
        if let (Some(None), Some(Some(Value::Float(y)))) = (from.first(), outputs.first()) {
            from[0] = Some(Array::zeros(y.dims()));
        }
        let (cx, inputs) = (seen.context(step), &seen.inputs[..]);
        let training = self.training;
        let backward =
            Backward { cx: &cx, inputs, outputs: &outputs, saved, grads: &from, wants: &step.wants, training };
        (T::kernel(rule).backward)(&backward)
    }
}

fn add<T: Element>(sum: &mut Option<Array<T>>, more: Array<T>) {
    match sum {
        Some(sum) => sum.add(&more),
        None => *sum = Some(more),
    }
}

/// A node without a rule, or one that computes on no floats.
fn evaluate<T: Element>(step: &Step, inputs: &[Option<Value<T>>]) -> Result<Vec<Value<T>>> {
    let tensor = |v: &Value<T>| match v {
        Value::Other(t) => t.clone(),
        Value::Float(a) => Tensor::from_f32(a.dims(), &a.data().iter().map(|x| x.wide() as f32).collect::<Vec<_>>()),
    };
    let inputs: Vec<Option<Tensor>> = inputs.iter().map(|v| v.as_ref().map(tensor)).collect();
    let outputs = RuntimeEvaluator.evaluate(&step.node, step.opset, &inputs, step.used_outputs)?;
    outputs.iter().map(Value::of).collect()
}
