//! Running a model in tract.

use super::lower::lower;
use super::tensor::{from_tract, to_tract, tract_error};
use crate::error::{Context, Error, Result};
use crate::io::Feed;
use crate::ir::{DType, Model, Tensor, ValueId};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tract_onnx::prelude::{IntoTValue, TValue, TVec, Tensor as TractTensor, TypedSimplePlan};
use tract_onnx::tract_hir::internal::{InferenceFact, InferenceModel, InferenceModelExt, OutletId, SimplePlan};
use tract_onnx::tract_hir::tract_core::ops::konst::Const;

/// Plans that a runner keeps at once, one per set of input shapes. Each may hold its own packed copy of the weights.
const KEPT_PLANS: usize = 8;

/// Inputs of up to this many elements can become part of a plan.
const BAKED_ELEMENTS: usize = 64;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct RunnerOptions {
    /// Values of the main graph, by name, to return after the graph outputs.
    pub observe: Vec<String>,
}

/// A model that is ready to run, from several threads at once.
///
/// tract wants concrete shapes: the first run with new input shapes builds a plan for them, and the last few plans are
/// kept. Memory does not grow with the number of runs.
pub struct Runner {
    template: InferenceModel,
    inputs: Vec<Input>,
    defaults: Vec<String>,
    /// For each graph output and then each observed value: which output of the plan.
    slots: Vec<usize>,
    plans: Mutex<VecDeque<(Key, Arc<TypedSimplePlan>)>>,
    bake: AtomicBool,
}

struct Input {
    name: String,
    dtype: Option<DType>,
}

/// What a plan depends on: of each input the type, the shape, and where it is baked in, the elements.
type Key = Vec<KeyPart>;

/// Of one input: type, shape, baked elements.
type KeyPart = (DType, Vec<usize>, Option<Vec<u8>>);

impl Runner {
    /// Prepares `model`.
    ///
    /// # Errors
    /// Operators that tract cannot run faithfully, by name; an observed value that the main graph does not have.
    pub fn new(model: &Model, options: &RunnerOptions) -> Result<Self> {
        let graph = &model.graph;
        let mut wanted: Vec<ValueId> = graph.outputs().to_vec();
        for name in &options.observe {
            let found = graph.find(name);
            wanted.push(found.ok_or_else(|| Error::usage(format!("the model has no value \"{name}\" to observe")))?);
        }
        let mut outputs: Vec<ValueId> = vec![];
        let mut position = std::collections::HashMap::new();
        let mut slots = vec![];
        for v in wanted {
            slots.push(*position.entry(v).or_insert_with(|| {
                outputs.push(v);
                outputs.len() - 1
            }));
        }
        let input = |v| Input { name: graph.name(v).to_string(), dtype: graph.ty(v).and_then(|t| t.elem()) };
        let inputs = graph.required_inputs().map(input).collect();
        let has_default = |v: &ValueId| graph.value(*v).init.is_some();
        let defaults = graph.inputs().iter().copied().filter(has_default).map(|v| graph.name(v).to_string()).collect();
        let template = guarded("loading the model", || lower(model, &outputs))?;
        Ok(Self { template, inputs, defaults, slots, plans: Mutex::default(), bake: AtomicBool::new(false) })
    }

    /// Runs once: the graph outputs in order, then the observed values in the order asked for.
    ///
    /// # Errors
    /// A missing input or one of another type; whatever tract reports.
    pub fn run(&self, feed: &Feed) -> Result<Vec<RunOutput>> {
        let tensors = self.arrange(feed)?;
        let plain = self.key(&tensors, false)?;
        let first = match self.bake.load(Ordering::Relaxed) {
            false => self.run_keyed(plain.clone(), &tensors),
            true => Err(Error::internal("not tried")),
        };
        let values = match first {
            Ok(values) => values,
            Err(e) => {
                // Shapes, axes, trip counts and conditions that are fed: with their values known, tract can plan.
                let baked = self.key(&tensors, true)?;
                if baked == plain {
                    return Err(e);
                }
                let values = self.run_keyed(baked, &tensors)?;
                self.bake.store(true, Ordering::Relaxed);
                values
            }
        };
        Ok(self.slots.iter().map(|&k| RunOutput(values[k].clone())).collect())
    }

    fn run_keyed(&self, key: Key, tensors: &[&Tensor]) -> Result<TVec<TValue>> {
        let fed: Result<TVec<TValue>> = tensors
            .iter()
            .zip(&key)
            .filter(|(_, (_, _, baked))| baked.is_none())
            .map(|(t, _)| Ok(to_tract(t)?.into_tvalue()))
            .collect();
        let plan = self.plan(key, tensors)?;
        guarded("running the model", || plan.run(fed?).map_err(tract_error))
    }

    /// The feed in the order of the graph inputs.
    fn arrange<'f>(&self, feed: &'f Feed) -> Result<Vec<&'f Tensor>> {
        if let Some(name) = self.defaults.iter().find(|n| feed.contains_key(*n)) {
            return Err(Error::unsupported(format!("feeding \"{name}\", an input whose value the model holds")));
        }
        let find = |input: &Input| {
            let name = &input.name;
            let t = feed.get(name).ok_or_else(|| Error::Data(format!("the feed has no \"{name}\"")))?;
            match input.dtype {
                Some(want) if want != t.dtype => {
                    Err(Error::Data(format!("input \"{name}\" is {want}, the feed has {}", t.dtype)))
                }
                _ => Ok(t),
            }
        };
        self.inputs.iter().map(find).collect()
    }

    fn key(&self, tensors: &[&Tensor], bake: bool) -> Result<Key> {
        let entry = |t: &&Tensor| {
            let small = t.rank() <= 1 && t.len() <= BAKED_ELEMENTS && t.dtype != DType::String;
            let baked = if bake && small { Some(t.bytes()?.into_owned()) } else { None };
            Ok((t.dtype, t.dims.clone(), baked))
        };
        tensors.iter().map(entry).collect()
    }

    fn plan(&self, key: Key, tensors: &[&Tensor]) -> Result<Arc<TypedSimplePlan>> {
        // Built under the lock: threads that start together want the same plan.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(k, _)| *k == key) {
            return Ok(plan.clone());
        }
        let plan = guarded("planning", || self.build(&key, tensors)).context(|| shapes(&self.inputs, &key))?;
        if plans.len() == KEPT_PLANS {
            plans.pop_front();
        }
        plans.push_back((key, plan.clone()));
        Ok(plan)
    }

    fn build(&self, key: &Key, tensors: &[&Tensor]) -> Result<Arc<TypedSimplePlan>> {
        let mut model = self.template.clone();
        let mut sources: Vec<OutletId> = vec![];
        for ((outlet, (_, _, baked)), t) in model.inputs.clone().into_iter().zip(key).zip(tensors) {
            let value = to_tract(t)?;
            let fact = InferenceFact::dt_shape_from_tensor(&value);
            if baked.is_some() {
                let value = Arc::new(value);
                let node = model.node_mut(outlet.node);
                node.op = Box::new(Const::new(value.clone()).map_err(tract_error)?);
                node.outputs[0].fact = InferenceFact::from((*value).clone());
                continue;
            }
            model.set_outlet_fact(outlet, fact).map_err(tract_error)?;
            sources.push(outlet);
        }
        model.set_input_outlets(&sources).map_err(tract_error)?;
        let optimized = guarded("optimizing", || model.clone().into_optimized().map_err(tract_error));
        // tract's optimizer gives up on some graphs that it can run as they are.
        let typed = match optimized {
            Ok(typed) => typed,
            Err(e) => model.into_typed().map_err(|_| e)?,
        };
        SimplePlan::new(typed).map_err(tract_error)
    }
}

/// One tensor that a run computed. Cloning shares the data.
#[derive(Clone)]
pub struct RunOutput(TValue);

impl RunOutput {
    /// Shape.
    pub fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// The elements as f32, without a copy where they are f32.
    ///
    /// # Errors
    /// Strings.
    pub fn as_f32(&self) -> Result<Cow<'_, [f32]>> {
        let tensor: &TractTensor = &self.0;
        if let Ok(view) = tensor.try_as_plain_ram()
            && let Ok(slice) = view.as_slice::<f32>()
        {
            return Ok(Cow::Borrowed(slice));
        }
        let cast = tensor.cast_to::<f32>().map_err(tract_error)?;
        let view = cast.try_as_plain_ram().map_err(tract_error)?;
        Ok(Cow::Owned(view.as_slice::<f32>().map_err(tract_error)?.to_vec()))
    }

    /// A copy as a tensor of the IR.
    ///
    /// # Errors
    /// An element type that ONNX does not have.
    pub fn to_tensor(&self) -> Result<Tensor> {
        from_tract(&self.0)
    }
}

fn shapes(inputs: &[Input], key: &Key) -> String {
    let shape = |(i, (_, dims, _)): (&Input, &KeyPart)| format!("{}{dims:?}", i.name);
    let all: Vec<String> = inputs.iter().zip(key).map(shape).collect();
    format!("with {}", all.join(", "))
}

/// Runs `f`; a panic inside tract becomes an error.
fn guarded<T>(what: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::Execution(format!("{what} panicked: {text}")))
        }
    }
}
