//! A part of a graph that tract runs in one piece: a cached plan per set of input shapes.

use super::lower::lower;
use super::program::{Program, Scope};
use super::tensor::{dtype_of, tract_error};
use crate::error::{Context, Error, Result};
use crate::ir::{DType, Graph};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tract_onnx::prelude::{DatumType, IntoTValue, TValue, TVec, TypedSimplePlan};
use tract_onnx::tract_hir::internal::{InferenceFact, InferenceModel, InferenceModelExt, OutletId, SimplePlan};
use tract_onnx::tract_hir::tract_core::ops::konst::Const;

/// Plans that a segment keeps at once, one per set of input shapes. Each may hold its own packed copy of the weights.
const KEPT_PLANS: usize = 8;

/// Inputs of up to this many elements can become part of a plan.
const BAKED_ELEMENTS: usize = 64;

/// Nodes without control flow among them, as a graph of their own.
///
/// tract wants concrete shapes: the first run with new input shapes builds a plan for them, and the last few plans are
/// kept. Memory does not grow with the number of runs.
pub(super) struct Segment {
    template: InferenceModel,
    inputs: Vec<String>,
    plans: Mutex<VecDeque<(Key, Arc<TypedSimplePlan>)>>,
    /// The first of [`MODES`] that did not fail so far.
    mode: AtomicU8,
    /// Where there is more than one node, each one on its own.
    single: Option<Single>,
}

/// The nodes one by one: what no plan can foresee, each node finds done when its turn comes.
struct Single {
    graph: Graph,
    scope: Arc<Scope>,
    program: OnceLock<Program>,
}

/// Ways to run a segment, fastest first.
const MODES: [Mode; 3] = [Mode::Fed, Mode::Baked, Mode::Single];

#[derive(Clone, Copy)]
enum Mode {
    /// All inputs are fed.
    Fed,
    /// Small inputs are part of the plan: shapes, axes and the like, with which tract can plan.
    Baked,
    /// Node by node.
    Single,
}

/// What a plan depends on: of each input the type, the shape, and where it is baked in, the elements.
type Key = Vec<KeyPart>;

/// Of one input: type, shape, baked elements.
type KeyPart = (DType, Vec<usize>, Option<Vec<u8>>);

impl Segment {
    /// Prepares a graph without control flow whose values are all tensors.
    ///
    /// # Errors
    /// Operators that tract cannot run faithfully, by name.
    pub(super) fn new(graph: Graph, scope: &Arc<Scope>) -> Result<Self> {
        let inputs = graph.inputs().iter().map(|&v| graph.name(v).to_string()).collect();
        let single = (graph.node_count() > 1).then(|| Single {
            graph: graph.clone(),
            scope: scope.clone(),
            program: OnceLock::new(),
        });
        let template = guarded("loading the model", || lower(graph, scope))?;
        Ok(Self { template, inputs, plans: Mutex::default(), mode: AtomicU8::new(0), single })
    }

    /// The outputs of the segment's graph.
    ///
    /// # Errors
    /// Whatever tract reports.
    pub(super) fn run(&self, values: &[TValue]) -> Result<TVec<TValue>> {
        let known = usize::from(self.mode.load(Ordering::Relaxed)).min(MODES.len() - 1);
        let mut failed = None;
        for (k, &mode) in MODES.iter().enumerate().skip(known) {
            let tried = match mode {
                Mode::Fed => self.run_planned(values, false).map(Some),
                // With nothing to bake in, it would fail again.
                Mode::Baked if k > known && !values.iter().any(can_bake) => continue,
                Mode::Baked => self.run_planned(values, true).map(Some),
                Mode::Single => self.run_single(values),
            };
            // A shape that the plan left open shows in what comes out.
            let tried = tried.and_then(|o| o.map(|o| o.into_iter().map(plain).collect()).transpose());
            match tried {
                Ok(Some(outputs)) => {
                    self.mode.fetch_max(k as u8, Ordering::Relaxed);
                    return Ok(outputs);
                }
                Ok(None) => {}
                Err(e) => failed = Some(e),
            }
        }
        Err(failed.unwrap_or_else(|| Error::internal("a segment has no way to run")))
    }

    /// `None` where there is only one node.
    fn run_single(&self, values: &[TValue]) -> Result<Option<TVec<TValue>>> {
        let Some(single) = &self.single else { return Ok(None) };
        single.program()?.run_tensors(values, &single.scope).map(Some)
    }

    fn run_planned(&self, values: &[TValue], bake: bool) -> Result<TVec<TValue>> {
        let entry = |t: &TValue| {
            let baked = (bake && can_bake(t)).then(|| t.as_bytes().to_vec());
            Ok((dtype_of(t.datum_type())?, t.shape().to_vec(), baked))
        };
        let key: Key = values.iter().map(entry).collect::<Result<_>>()?;
        let fed =
            values.iter().zip(&key).filter(|(_, (_, _, baked))| baked.is_none()).map(|(t, _)| t.clone()).collect();
        let plan = self.plan(key, values)?;
        guarded("running the model", || plan.run(fed).map_err(tract_error))
    }

    fn plan(&self, key: Key, values: &[TValue]) -> Result<Arc<TypedSimplePlan>> {
        // Built under the lock: threads that start together want the same plan.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(k, _)| *k == key) {
            return Ok(plan.clone());
        }
        let plan = guarded("planning", || self.build(&key, values)).context(|| shapes(&self.inputs, &key))?;
        if plans.len() == KEPT_PLANS {
            plans.pop_front();
        }
        plans.push_back((key, plan.clone()));
        Ok(plan)
    }

    fn build(&self, key: &Key, values: &[TValue]) -> Result<Arc<TypedSimplePlan>> {
        let mut model = self.template.clone();
        let mut sources: Vec<OutletId> = vec![];
        for ((outlet, (_, _, baked)), value) in model.inputs.clone().into_iter().zip(key).zip(values) {
            let fact = InferenceFact::dt_shape_from_tensor(value);
            if baked.is_some() {
                let value = Arc::new((**value).clone());
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

impl Single {
    fn program(&self) -> Result<&Program> {
        if let Some(program) = self.program.get() {
            return Ok(program);
        }
        let program = Program::node_by_node(&self.graph, &self.scope)?;
        Ok(self.program.get_or_init(|| program))
    }
}

/// Whether the value may become part of a plan.
fn can_bake(t: &TValue) -> bool {
    t.rank() <= 1 && t.len() <= BAKED_ELEMENTS && t.datum_type() != DatumType::String
}

/// Shapes that tract computed (`TDim`) as the int64 that ONNX has.
fn plain(value: TValue) -> Result<TValue> {
    if value.datum_type() != DatumType::TDim {
        return Ok(value);
    }
    let cast = value.cast_to::<i64>().map_err(tract_error)?;
    Ok(cast.into_owned().into_tvalue())
}

fn shapes(inputs: &[String], key: &Key) -> String {
    let shape = |(name, (_, dims, _)): (&String, &KeyPart)| format!("{name}{dims:?}");
    let all: Vec<String> = inputs.iter().zip(key).map(shape).collect();
    format!("with {}", all.join(", "))
}

/// Runs `f`; a panic inside tract becomes an error.
pub(super) fn guarded<T>(what: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::Execution(format!("{what} panicked: {text}")))
        }
    }
}
