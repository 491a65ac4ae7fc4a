//! If and Loop.

use super::scan::Scan;
use super::stack::Stack;
use super::{Budget, Program, Scope, Slot, Val, not_there, scalar};
use crate::error::{Context, Error, Result};
use crate::ir::{Graph, Node, Type};
use std::sync::{Arc, OnceLock};
use tract_onnx::prelude::{TValue, TVec};

/// Whether this operator of the default domain is one of [`Control`].
pub(super) fn is_control(op_type: &str) -> bool {
    matches!(op_type, "If" | "Loop" | "Scan")
}

/// A node with bodies.
pub(super) enum Control {
    /// `then_branch` and `else_branch`. Of a constant condition, only the branch that it chooses is there.
    If(Box<[Option<Body>; 2]>),
    Loop(Body),
    Scan(Scan),
}

/// A body, prepared when it first runs: a branch that is never taken costs nothing.
pub(super) struct Body {
    pub(super) graph: Graph,
    scope: Arc<Scope>,
    program: OnceLock<Program>,
    /// Where the environment of the node has the values of [`Program::outer`].
    captured: Vec<Slot>,
}

impl Body {
    /// `slot` finds what the body captures by name.
    pub(super) fn new(graph: &Graph, scope: &Arc<Scope>, mut slot: impl FnMut(&str) -> Result<Slot>) -> Result<Self> {
        let captured = graph.outer_values().into_iter().map(|v| slot(graph.name(v))).collect::<Result<_>>()?;
        Ok(Self { graph: graph.clone(), scope: scope.clone(), program: OnceLock::new(), captured })
    }

    pub(super) fn captured(&self) -> &[Slot] {
        &self.captured
    }

    /// Declared types of the outputs from `first` on.
    pub(super) fn output_types(&self, first: usize) -> Vec<Option<&Type>> {
        self.graph.outputs().iter().skip(first).map(|&v| self.graph.ty(v)).collect()
    }

    /// Number of inputs and outputs.
    pub(super) fn arity(&self) -> (usize, usize) {
        (self.graph.inputs().len(), self.graph.outputs().len())
    }

    /// What the body captures, from the environment of its node.
    pub(super) fn outer(&self, env: &[Option<Val>]) -> Result<Vec<Val>> {
        self.captured.iter().map(|&slot| env[slot].clone().ok_or_else(not_there)).collect()
    }

    pub(super) fn run(&self, inputs: Vec<Val>, outer: Vec<Val>, budget: &Budget) -> Result<Vec<Val>> {
        let program = match self.program.get() {
            Some(program) => program,
            None => {
                let program = Program::new(&self.graph, &self.scope)?;
                self.program.get_or_init(|| program)
            }
        };
        program.run(inputs, outer, budget)
    }
}

impl Control {
    /// `body` finds a body by attribute name.
    pub(super) fn new(node: &Node, opset: i64, body: &mut dyn FnMut(&str) -> Result<Body>) -> Result<Self> {
        Ok(match &*node.op.op_type {
            "If" => {
                let mut branch = |name: &str| node.body(name).map(|_| body(name)).transpose();
                Control::If(Box::new([branch("then_branch")?, branch("else_branch")?]))
            }
            "Loop" => Control::Loop(body("body")?),
            _ => Control::Scan(Scan::new(node, opset, body("body")?)?),
        })
    }

    pub(super) fn captured(&self) -> Vec<Slot> {
        let bodies = match self {
            Control::If(branches) => [branches[0].as_ref(), branches[1].as_ref()],
            Control::Loop(body) => [Some(body), None],
            Control::Scan(scan) => [Some(scan.body()), None],
        };
        bodies.into_iter().flatten().flat_map(|b| b.captured().iter().copied()).collect()
    }

    pub(super) fn run(&self, inputs: Vec<Option<Val>>, env: &[Option<Val>], budget: &Budget) -> Result<Vec<Val>> {
        match self {
            Control::If(branches) => {
                let condition = inputs.into_iter().next().flatten();
                let condition = flag(condition.ok_or_else(|| Error::invalid("it has no condition"))?)?;
                let (branch, name) =
                    if condition { (&branches[0], "then_branch") } else { (&branches[1], "else_branch") };
                let branch = branch.as_ref().ok_or_else(|| Error::invalid(format!("it has no {name}")))?;
                branch.run(vec![], branch.outer(env)?, budget).context(|| name)
            }
            Control::Loop(body) => run_loop(body, inputs, env, budget),
            Control::Scan(scan) => scan.run(inputs, env, budget),
        }
    }
}

/// Specification: Loop. Inputs are a trip count, a condition (both may be absent) and the state; outputs the state after
/// the last iteration, and what the body yields in addition, stacked along a new first axis.
fn run_loop(body: &Body, inputs: Vec<Option<Val>>, env: &[Option<Val>], budget: &Budget) -> Result<Vec<Val>> {
    let mut inputs = inputs.into_iter();
    let (trips, condition) = (inputs.next().flatten(), inputs.next().flatten());
    let trips = trips.map(integer).transpose()?;
    let mut go_on = condition.map(flag).transpose()?.unwrap_or(true);
    let absent = || Error::invalid("a loop-carried value is absent");
    let mut state: Vec<Val> = inputs.map(|v| v.ok_or_else(absent)).collect::<Result<_>>()?;
    let (takes, makes) = body.arity();
    if takes != state.len() + 2 || makes < state.len() + 1 {
        let carried = state.len();
        return Err(Error::invalid(format!(
            "its body has {takes} inputs and {makes} outputs, which does not fit {carried} loop-carried values"
        )));
    }
    let types = body.output_types(1 + state.len());
    let mut stacks: Vec<Stack> = types.iter().map(|_| Stack::new(0, false)).collect();
    let ranked = |slot: usize| body.graph.inputs().get(slot).and_then(|&v| body.graph.ty(v)?.shape().map(<[_]>::len));
    let (count_is_1d, condition_is_1d) = (ranked(0) == Some(1), ranked(1) == Some(1));
    let outer = body.outer(env)?;
    let mut iteration: i64 = 0;
    while go_on && trips.is_none_or(|n| iteration < n) {
        budget.iterate()?;
        let mut given = vec![
            Val::Tensor(one_element(scalar(iteration), count_is_1d)?),
            Val::Tensor(one_element(scalar(go_on), condition_is_1d)?),
        ];
        given.append(&mut state);
        let place = || format!("iteration {iteration}");
        let mut made = body.run(given, outer.clone(), budget).context(place)?.into_iter();
        go_on = flag(made.next().ok_or_else(not_there)?).context(place)?;
        state = made.by_ref().take(takes - 2).collect();
        for (stack, value) in stacks.iter_mut().zip(made) {
            stack.push(value.tensor("a scan output")?).context(place)?;
        }
        let held = state.iter().map(Val::bytes).chain(stacks.iter().map(Stack::bytes));
        budget.check_bytes(held.fold(0, usize::saturating_add)).context(place)?;
        iteration += 1;
    }
    for (stack, ty) in stacks.into_iter().zip(types) {
        state.push(Val::Tensor(stack.finish(ty)?));
    }
    Ok(state)
}

fn one_element(t: TValue, one_d: bool) -> Result<TValue> {
    if !one_d {
        return Ok(t);
    }
    let shaped = (*t).clone().into_shape(&[1]).map_err(super::super::tensor::tract_error)?;
    Ok(shaped.into())
}

/// The only element of a tensor of bool.
pub(super) fn flag(value: Val) -> Result<bool> {
    let t = value.tensor("a condition")?;
    let view = t.try_as_plain_ram().map_err(super::super::tensor::tract_error)?;
    match view.as_slice::<bool>() {
        Ok([flag]) => Ok(*flag),
        _ => Err(Error::invalid(format!("a condition must be one bool, this is {:?}{:?}", t.datum_type(), t.shape()))),
    }
}

/// The only element of an integer tensor.
pub(super) fn integer(value: Val) -> Result<i64> {
    let t = value.tensor("a number")?;
    match integers(&t)?.as_slice() {
        [n] => Ok(*n),
        _ => Err(Error::invalid(format!("one integer is expected, this is {:?}{:?}", t.datum_type(), t.shape()))),
    }
}

/// The elements of an int32 or int64 tensor.
pub(super) fn integers(t: &TValue) -> Result<TVec<i64>> {
    let view = t.try_as_plain_ram().map_err(super::super::tensor::tract_error)?;
    if let Ok(v) = view.as_slice::<i64>() {
        return Ok(v.into());
    }
    match view.as_slice::<i32>() {
        Ok(v) => Ok(v.iter().map(|&x| x.into()).collect()),
        Err(_) => Err(Error::invalid(format!("integers are expected, this is {:?}{:?}", t.datum_type(), t.shape()))),
    }
}
