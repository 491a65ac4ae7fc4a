//! A graph as steps: segments that tract runs, and the control flow between them, which is interpreted here.

mod control;
mod partition;
mod scan;
mod sequence;
mod stack;

use super::segment::Segment;
use super::tensor::to_tract;
use crate::error::{Context, Error, Result};
use crate::ir::{DType, Graph, Model, Node, NodeId, Type, ValueId};
use control::{Body, Control};
use sequence::SequenceOp;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use tract_onnx::prelude::{IntoTValue, TValue, TVec, Tensor as TractTensor};

/// What a value can be at run time. An optional that holds something is that something.
#[derive(Clone, Debug)]
pub(super) enum Val {
    Tensor(TValue),
    Sequence(Sequence),
    /// An optional that holds nothing.
    Empty,
}

/// A sequence of tensors, shared until it is changed.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    tensors: Arc<Vec<TValue>>,
    bytes: usize,
}

/// Bounds of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Iterations of all loops together.
    pub(super) iterations: u64,
    /// Bytes that one loop's state, or a sequence, may take.
    pub(super) loop_bytes: usize,
}

/// What all parts of one model have in common.
pub(super) struct Scope {
    /// The model without its graph and functions.
    pub(super) model: Model,
    limits: Limits,
}

impl Scope {
    pub(super) fn new(model: &Model, limits: Limits) -> Self {
        let mut shell = model.shell.clone();
        // What only training reads would be copied into every segment.
        shell.training_info.clear();
        let model = Model { opsets: model.opsets.clone(), shell, ..Model::default() };
        Self { model, limits }
    }
}

/// What one run has left.
pub(super) struct Budget {
    iterations: Cell<u64>,
    loop_bytes: usize,
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        Self { iterations: Cell::new(limits.iterations), loop_bytes: limits.loop_bytes }
    }

    /// Counts an iteration.
    fn iterate(&self) -> Result<()> {
        let left = self.iterations.get().checked_sub(1);
        let error = || Error::unsupported("more iterations in one run than the runtime takes (max_iterations)");
        self.iterations.set(left.ok_or_else(error)?);
        Ok(())
    }

    /// Checks what a loop or a sequence holds.
    fn check_bytes(&self, bytes: usize) -> Result<()> {
        if bytes <= self.loop_bytes {
            return Ok(());
        }
        let limit = self.loop_bytes;
        Err(Error::unsupported(format!("a loop or sequence that holds more than {limit} bytes (max_loop_bytes)")))
    }
}

/// A place in the environment of a run.
type Slot = usize;

/// A graph that is ready to run.
pub(super) struct Program {
    slots: usize,
    inputs: Vec<Slot>,
    /// Outer values by name, where the graph is a body.
    outer: Vec<(Arc<str>, Slot)>,
    constants: Vec<(Slot, Arc<TractTensor>)>,
    steps: Vec<Step>,
    outputs: Vec<Slot>,
}

/// One thing to do.
struct Step {
    /// For messages.
    label: String,
    inputs: Vec<Option<Read>>,
    outputs: Vec<Option<Slot>>,
    action: Action,
    /// Slots that nothing reads after this step.
    done: Vec<Slot>,
}

/// How a step reads a slot.
#[derive(Clone, Copy)]
struct Read {
    slot: Slot,
    /// Nothing reads it afterwards, so the value may be taken out.
    last: bool,
}

enum Action {
    Segment(Box<Segment>),
    Control(Box<Control>),
    Sequence(SequenceOp),
}

/// Whether the node is interpreted, not given to tract.
pub(super) fn interprets(node: &Node) -> bool {
    node.op.domain.is_empty() && (control::is_control(&node.op.op_type) || sequence::knows(&node.op.op_type))
}

impl Program {
    /// Prepares `graph`: as few segments as its control flow allows.
    ///
    /// # Errors
    /// Operators that tract cannot run; malformed bodies.
    pub(super) fn new(graph: &Graph, scope: &Arc<Scope>) -> Result<Self> {
        Self::build(graph, scope, partition::levels(graph)?)
    }

    /// Prepares `graph` with a segment for every node.
    pub(super) fn node_by_node(graph: &Graph, scope: &Arc<Scope>) -> Result<Self> {
        Self::build(graph, scope, partition::singles(graph)?)
    }

    fn build(graph: &Graph, scope: &Arc<Scope>, units: partition::Units) -> Result<Self> {
        let mut builder = Builder { graph, scope, slots: HashMap::new(), constants: vec![] };
        for (alias, of) in &units.aliases {
            let slot = builder.slot(*of)?;
            builder.slots.insert(*alias, slot);
        }
        let inputs: Vec<ValueId> = graph.required_inputs().collect();
        let inputs = inputs.into_iter().map(|v| builder.slot(v)).collect::<Result<_>>()?;
        let outer = graph.outer_values().into_iter();
        let outer = outer.map(|v| Ok((graph.value(v).name.clone(), builder.slot(v)?))).collect::<Result<_>>()?;
        let mut steps = units.units.iter().map(|u| builder.step(u)).collect::<Result<Vec<_>>>()?;
        let outputs: Vec<Slot> = graph.outputs().iter().map(|&v| builder.slot(v)).collect::<Result<_>>()?;
        let slots = builder.slots.values().max().map_or(0, |&s| s + 1);
        mark_last_reads(&mut steps, slots, &outputs);
        Ok(Self { slots, inputs, outer, constants: builder.constants, steps, outputs })
    }

    /// Runs a main graph.
    pub(super) fn run_main(&self, inputs: Vec<Val>, scope: &Scope) -> Result<Vec<Val>> {
        self.run(inputs, vec![], &Budget::new(&scope.limits))
    }

    /// Runs a graph whose inputs and outputs are all tensors.
    pub(super) fn run_tensors(&self, inputs: &[TValue], scope: &Scope) -> Result<TVec<TValue>> {
        let outputs = self.run_main(inputs.iter().cloned().map(Val::Tensor).collect(), scope)?;
        outputs.into_iter().map(|v| v.tensor("a segment's output")).collect()
    }

    /// Runs with the required inputs, in order, and the values of [`Program::outer`], in order.
    fn run(&self, inputs: Vec<Val>, outer: Vec<Val>, budget: &Budget) -> Result<Vec<Val>> {
        if inputs.len() != self.inputs.len() || outer.len() != self.outer.len() {
            return Err(Error::internal("a graph was given another number of values than it takes"));
        }
        let mut env: Vec<Option<Val>> = vec![None; self.slots];
        let outer_slots = self.outer.iter().map(|(_, slot)| *slot);
        for (slot, value) in self.inputs.iter().copied().chain(outer_slots).zip(inputs.into_iter().chain(outer)) {
            env[slot] = Some(value);
        }
        for (slot, tensor) in &self.constants {
            env[*slot] = Some(Val::Tensor(TValue::from_const(tensor.clone())));
        }
        for step in &self.steps {
            step.run(&mut env, budget).context(|| &step.label)?;
        }
        let output = |&slot: &Slot| env[slot].clone().ok_or_else(|| Error::internal("a graph output was not computed"));
        self.outputs.iter().map(output).collect()
    }
}

impl Step {
    fn run(&self, env: &mut [Option<Val>], budget: &Budget) -> Result<()> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for read in &self.inputs {
            inputs.push(match read {
                None => None,
                Some(Read { slot, last: true }) => Some(env[*slot].take().ok_or_else(not_there)?),
                Some(Read { slot, last: false }) => Some(env[*slot].clone().ok_or_else(not_there)?),
            });
        }
        let outputs = match &self.action {
            Action::Segment(segment) => {
                let tensor = |v: Option<Val>| v.ok_or_else(not_there)?.tensor("the input of an operator on tensors");
                let tensors: Vec<TValue> = inputs.into_iter().map(tensor).collect::<Result<_>>()?;
                segment.run(&tensors)?.into_iter().map(Val::Tensor).collect()
            }
            Action::Control(control) => control.run(inputs, env, budget)?,
            Action::Sequence(op) => op.run(inputs, env, budget)?,
        };
        if outputs.len() < self.outputs.len() {
            let (got, want) = (outputs.len(), self.outputs.len());
            return Err(Error::invalid(format!("it has {want} outputs, but only {got} were computed")));
        }
        for (slot, value) in self.outputs.iter().zip(outputs) {
            if let Some(slot) = slot {
                env[*slot] = Some(value);
            }
        }
        for &slot in &self.done {
            env[slot] = None;
        }
        Ok(())
    }
}

fn not_there() -> Error {
    Error::internal("a step ran before what it needs")
}

/// Gives values their slots, and units their steps.
struct Builder<'g> {
    graph: &'g Graph,
    scope: &'g Arc<Scope>,
    slots: HashMap<ValueId, Slot>,
    constants: Vec<(Slot, Arc<TractTensor>)>,
}

impl Builder<'_> {
    /// The slot of a value; a constant is put into it.
    fn slot(&mut self, v: ValueId) -> Result<Slot> {
        if let Some(&slot) = self.slots.get(&v) {
            return Ok(slot);
        }
        let slot = self.slots.len();
        self.slots.insert(v, slot);
        if let Some(tensor) = partition::constant(self.graph, v) {
            let name = self.graph.name(v);
            let tensor = to_tract(tensor).context(|| format!("constant \"{name}\""))?;
            self.constants.push((slot, Arc::new(tensor)));
        }
        Ok(slot)
    }

    fn read(&mut self, v: Option<ValueId>) -> Result<Option<Read>> {
        v.map(|v| Ok(Read { slot: self.slot(v)?, last: false })).transpose()
    }

    fn step(&mut self, unit: &partition::Unit) -> Result<Step> {
        match unit {
            partition::Unit::Plain(nodes) => self.segment(nodes),
            partition::Unit::Control(id) => {
                let label = self.graph.node(*id).label();
                self.control(*id).context(|| label)
            }
        }
    }

    fn segment(&mut self, nodes: &[NodeId]) -> Result<Step> {
        let part = partition::extract(self.graph, nodes)?;
        let inputs = part.inputs.iter().map(|&v| self.read(Some(v))).collect::<Result<_>>()?;
        let outputs = part.outputs.iter().map(|&v| self.slot(v).map(Some)).collect::<Result<_>>()?;
        let label = match nodes {
            [one] => self.graph.node(*one).label(),
            [first, ..] => format!("{} nodes from {}", nodes.len(), self.graph.node(*first).label()),
            [] => String::new(),
        };
        let segment = Segment::new(part.graph, self.scope).context(|| &label)?;
        Ok(Step { label, inputs, outputs, action: Action::Segment(Box::new(segment)), done: vec![] })
    }

    fn control(&mut self, id: NodeId) -> Result<Step> {
        let node = self.graph.node(id);
        let inputs = self.graph.node_inputs(id).into_iter().map(|v| self.read(v)).collect::<Result<_>>()?;
        let slots = self.graph.node_outputs(id).into_iter();
        let outputs: Vec<_> = slots.map(|v| v.map(|v| self.slot(v)).transpose()).collect::<Result<_>>()?;
        let opset = self.scope.model.default_opset();
        let mut body = |name: &str| -> Result<Body> {
            let body = node.body(name).ok_or_else(|| Error::invalid(format!("it has no {name}")))?;
            Body::new(body, self.scope, |name| {
                let v = self.graph.find(name).ok_or_else(|| Error::invalid(format!("nothing defines \"{name}\"")))?;
                self.slot(v)
            })
        };
        let action = match &*node.op.op_type {
            op if control::is_control(op) => Action::Control(Box::new(Control::new(node, opset, &mut body)?)),
            _ => Action::Sequence(SequenceOp::new(node, &mut body)?),
        };
        Ok(Step { label: node.label(), inputs, outputs, action, done: vec![] })
    }
}

/// Marks, for each slot, the step that reads it last, so that what nobody needs any more is freed or reused.
fn mark_last_reads(steps: &mut [Step], slots: usize, outputs: &[Slot]) {
    let mut needed = vec![false; slots];
    outputs.iter().for_each(|&slot| needed[slot] = true);
    for step in steps.iter_mut().rev() {
        // Made, but never read.
        step.done = step.outputs.iter().flatten().copied().filter(|&slot| !needed[slot]).collect();
        for slot in step.action.captured() {
            if !std::mem::replace(&mut needed[slot], true) {
                step.done.push(slot);
            }
        }
        for read in step.inputs.iter_mut().rev().flatten() {
            read.last = !std::mem::replace(&mut needed[read.slot], true);
        }
    }
}

impl Action {
    /// Slots that bodies read.
    fn captured(&self) -> Vec<Slot> {
        match self {
            Action::Segment(_) => vec![],
            Action::Control(control) => control.captured(),
            Action::Sequence(op) => op.captured(),
        }
    }
}

impl Val {
    /// The tensor that this is.
    fn tensor(self, what: &str) -> Result<TValue> {
        match self {
            Val::Tensor(t) => Ok(t),
            Val::Sequence(_) => Err(Error::invalid(format!("{what} is a sequence, not a tensor"))),
            Val::Empty => Err(Error::invalid(format!("{what} is an empty optional, not a tensor"))),
        }
    }

    /// Memory that it takes.
    fn bytes(&self) -> usize {
        match self {
            Val::Tensor(t) => tensor_bytes(t),
            Val::Sequence(s) => s.bytes,
            Val::Empty => 0,
        }
    }
}

/// Memory that a tensor takes beside its elements, about.
const HEADER: usize = 256;

/// Memory that a tensor takes.
fn tensor_bytes(t: &TractTensor) -> usize {
    t.len().saturating_mul(t.datum_type().size_of()).saturating_add(HEADER)
}

/// The element type of a tensor or of an optional tensor: what can be fed as a tensor.
pub(super) fn fed_type(ty: Option<&Type>) -> Option<DType> {
    use crate::proto::type_proto::Value;
    match ty? {
        Type::Tensor(t) => Some(t.elem),
        Type::Other(p) => match p.value.as_ref()? {
            Value::OptionalType(o) => match o.elem_type.as_deref()?.value.as_ref()? {
                Value::TensorType(t) => DType::from_onnx(t.elem_type?),
                _ => None,
            },
            _ => None,
        },
    }
}

/// A tensor of one element.
fn scalar<T: tract_onnx::prelude::Datum>(x: T) -> TValue {
    tract_onnx::prelude::tensor0(x).into_tvalue()
}
