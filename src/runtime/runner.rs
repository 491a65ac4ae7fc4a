//! Running a model: feeds in, tensors out.

use super::lower;
use super::program::{Limits, Program, Scope, Val, fed_type};
use super::tensor::{from_tract, to_tract, tract_error};
use crate::analysis::shapes::infer_types;
use crate::error::{Error, Result};
use crate::io::Feed;
use crate::ir::{DType, Model, Tensor, ValueId};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use tract_onnx::prelude::{IntoTValue, TValue, Tensor as TractTensor};

/// How to run.
#[derive(Clone, Debug)]
pub struct RunnerOptions {
    /// Values of the main graph, by name, to return after the graph outputs.
    pub observe: Vec<String>,
    /// Compute nothing but what is observed: the graph outputs are left out.
    pub observed_only: bool,
    /// Iterations that all loops of one run may take together; a run that needs more is an error.
    pub max_iterations: u64,
    /// Bytes that the state, the collected outputs or the sequences of one loop may take; a run that needs more is an
    /// error.
    pub max_loop_bytes: usize,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self { observe: vec![], observed_only: false, max_iterations: 1_000_000, max_loop_bytes: 2 << 30 }
    }
}

/// A model that is ready to run, from several threads at once.
///
/// What lies between control flow runs as one tract plan per set of input shapes; If, Loop, Scan and the sequence
/// operators are interpreted around it. Memory does not grow with the number of runs.
pub struct Runner {
    program: Program,
    scope: Arc<Scope>,
    inputs: Vec<Input>,
    defaults: Vec<String>,
    /// For each graph output and then each observed value: its name, and which output of the program it is.
    slots: Vec<(String, usize)>,
}

struct Input {
    name: String,
    dtype: Option<DType>,
}

impl Runner {
    /// Prepares `model`.
    ///
    /// # Errors
    /// Operators that the runtime cannot run faithfully, by name, in bodies and model-local functions too; an observed
    /// value that the main graph does not have.
    pub fn new(model: &Model, options: &RunnerOptions) -> Result<Self> {
        let mut copy = lower::prepared(model)?;
        let refused = lower::findings(&copy);
        if !refused.is_empty() {
            return Err(Error::unsupported(refused.join("; ")));
        }
        let half = lower::has_half(&copy.graph);
        if half {
            // What it finds helps; what it cannot infer is no error here.
            let _ = infer_types(&mut copy);
        }
        let mut wanted = if options.observed_only { vec![] } else { copy.graph.outputs().to_vec() };
        for name in &options.observe {
            let found = copy.graph.find(name);
            wanted.push(found.ok_or_else(|| Error::usage(format!("the model has no value \"{name}\" to observe")))?);
        }
        let mut outputs: Vec<ValueId> = vec![];
        let mut position = HashMap::new();
        let mut slots = vec![];
        for v in wanted {
            let slot = *position.entry(v).or_insert_with(|| {
                outputs.push(v);
                outputs.len() - 1
            });
            slots.push((copy.graph.name(v).to_string(), slot));
        }
        copy.graph.set_outputs(outputs);
        copy.graph.eliminate_dead()?;
        let input = |v| Input { name: copy.graph.name(v).to_string(), dtype: fed_type(copy.graph.ty(v)) };
        let inputs = copy.graph.required_inputs().map(input).collect();
        if half {
            lower::to_single(&mut copy.graph)?;
        }
        let graph = &copy.graph;
        let has_default = |v: &ValueId| graph.value(*v).init.is_some();
        let defaults = graph.inputs().iter().copied().filter(has_default).map(|v| graph.name(v).to_string()).collect();
        let limits = Limits { iterations: options.max_iterations, loop_bytes: options.max_loop_bytes };
        let scope = Arc::new(Scope::new(&copy, limits));
        let program = Program::new(graph, &scope)?;
        Ok(Self { program, scope, inputs, defaults, slots })
    }

    /// Runs once: the graph outputs in order (unless they are left out), then the observed values in the order asked for.
    ///
    /// # Errors
    /// A missing input or one of another type; whatever tract reports; loops that go beyond [`RunnerOptions`].
    pub fn run(&self, feed: &Feed) -> Result<Vec<RunOutput>> {
        let values = self.program.run_main(self.arrange(feed)?, &self.scope)?;
        let output = |(name, k): &(String, usize)| match &values[*k] {
            Val::Tensor(t) => Ok(RunOutput(t.clone())),
            _ => Err(Error::unsupported(format!("returning \"{name}\", which is no tensor"))),
        };
        self.slots.iter().map(output).collect()
    }

    /// The feed in the order of the graph inputs.
    fn arrange(&self, feed: &Feed) -> Result<Vec<Val>> {
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
                _ => Ok(Val::Tensor(to_tract(t)?.into_tvalue())),
            }
        };
        self.inputs.iter().map(find).collect()
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
