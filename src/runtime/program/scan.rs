//! Scan.

use super::control::{Body, integers};
use super::stack::{Stack, at, normalized, stacked};
use super::{Budget, Val};
use crate::error::{Context, Error, Result};
use crate::ir::Node;
use tract_onnx::prelude::{IntoTValue, TValue, Tensor};

/// First operator set whose Scan has axes instead of a batch.
const WITH_AXES: i64 = 9;

/// Specification: Scan. The body takes the state and one slice of each scanned tensor, and yields the next state and
/// slices of the scan outputs.
pub(super) struct Scan {
    body: Body,
    /// Number of scanned inputs.
    scanned: usize,
    /// Before operator set 9: the first input holds sequence lengths, axis 0 is a batch and axis 1 the sequence.
    batched: bool,
    input_axes: Vec<i64>,
    input_reverse: Vec<bool>,
    output_axes: Vec<i64>,
    output_reverse: Vec<bool>,
}

impl Scan {
    pub(super) fn new(node: &Node, opset: i64, body: Body) -> Result<Self> {
        let (takes, makes) = body.arity();
        let scanned =
            node.int("num_scan_inputs").and_then(|n| usize::try_from(n).ok()).filter(|&n| n >= 1 && n <= takes);
        let scanned = scanned.ok_or_else(|| Error::invalid("num_scan_inputs does not fit the body"))?;
        let stacked = makes.checked_sub(takes - scanned);
        let stacked = stacked.ok_or_else(|| Error::invalid("its body yields fewer values than its state has"))?;
        let list = |name: &str, n: usize| match node.ints(name) {
            None => Ok(vec![0; n]),
            Some(v) if v.len() == n => Ok(v.to_vec()),
            Some(v) => Err(Error::invalid(format!("{name} has {} elements, expected {n}", v.len()))),
        };
        let flags = |v: Vec<i64>| v.into_iter().map(|x| x != 0).collect();
        let batched = opset < WITH_AXES;
        let directions = if batched { "directions" } else { "scan_input_directions" };
        Ok(Self {
            scanned,
            batched,
            input_axes: list("scan_input_axes", scanned)?,
            input_reverse: flags(list(directions, scanned)?),
            output_axes: list("scan_output_axes", stacked)?,
            output_reverse: flags(list("scan_output_directions", stacked)?),
            body,
        })
    }

    pub(super) fn body(&self) -> &Body {
        &self.body
    }

    pub(super) fn run(&self, inputs: Vec<Option<Val>>, env: &[Option<Val>], budget: &Budget) -> Result<Vec<Val>> {
        let outer = self.body.outer(env)?;
        let mut inputs = inputs.into_iter();
        let lengths = if self.batched { inputs.next().flatten() } else { None };
        let tensor = |v: Option<Val>| v.ok_or_else(|| Error::invalid("an input is absent"))?.tensor("an input of Scan");
        let inputs: Vec<TValue> = inputs.map(tensor).collect::<Result<_>>()?;
        let takes = self.body.arity().0;
        if inputs.len() != takes {
            return Err(Error::invalid(format!("it has {} inputs, its body takes {takes}", inputs.len())));
        }
        if self.batched {
            return self.run_batch(lengths, &inputs, &outer, budget);
        }
        let state = inputs[..takes - self.scanned].to_vec();
        let outputs = self.run_one(state, &inputs[takes - self.scanned..], None, &outer, budget)?;
        Ok(outputs.into_iter().map(Val::Tensor).collect())
    }

    /// Scans the first `length` slices, or all.
    fn run_one(
        &self,
        state: Vec<TValue>,
        scanned: &[TValue],
        length: Option<usize>,
        outer: &[Val],
        budget: &Budget,
    ) -> Result<Vec<TValue>> {
        let axes = scanned.iter().zip(&self.input_axes).map(|(t, &axis)| normalized(axis, t.rank()));
        let axes: Vec<usize> = axes.collect::<Result<_>>()?;
        let sizes = || scanned.iter().zip(&axes).map(|(t, &axis)| t.shape()[axis]);
        let whole = sizes().next().unwrap_or(0);
        if sizes().any(|n| n != whole) {
            return Err(Error::invalid("its scanned inputs differ in length"));
        }
        let length = length.unwrap_or(whole);
        if length > whole {
            return Err(Error::invalid(format!("a sequence length of {length}, beyond the {whole} there are")));
        }
        let states = state.len();
        let mut state: Vec<Val> = state.into_iter().map(Val::Tensor).collect();
        let mut stacks: Vec<Stack> = self
            .output_axes
            .iter()
            .zip(&self.output_reverse)
            .map(|(&axis, &reverse)| Stack::new(axis, reverse))
            .collect();
        for k in 0..length {
            budget.iterate()?;
            let place = || format!("iteration {k}");
            let mut given = std::mem::take(&mut state);
            for ((t, &axis), &reverse) in scanned.iter().zip(&axes).zip(&self.input_reverse) {
                given.push(Val::Tensor(at(t, axis, if reverse { length - 1 - k } else { k })?));
            }
            let mut made = self.body.run(given, outer.to_vec(), budget).context(place)?.into_iter();
            state = made.by_ref().take(states).collect();
            for (stack, value) in stacks.iter_mut().zip(made) {
                stack.push(value.tensor("a scan output")?).context(place)?;
            }
            let held = state.iter().map(Val::bytes).chain(stacks.iter().map(Stack::bytes));
            budget.check_bytes(held.fold(0, usize::saturating_add)).context(place)?;
        }
        let mut outputs: Vec<TValue> = state.into_iter().map(|v| v.tensor("a state")).collect::<Result<_>>()?;
        for (stack, ty) in stacks.into_iter().zip(self.body.output_types(states)) {
            outputs.push(stack.finish(ty)?);
        }
        Ok(outputs)
    }

    /// Operator set 8: every sample on its own, shorter ones padded with zeros.
    fn run_batch(&self, lengths: Option<Val>, inputs: &[TValue], outer: &[Val], budget: &Budget) -> Result<Vec<Val>> {
        let batch = inputs.first().and_then(|t| t.shape().first().copied()).unwrap_or(0);
        if batch == 0 || inputs.iter().any(|t| t.shape().first() != Some(&batch)) {
            return Err(Error::invalid("its inputs differ in their batch, or it is empty"));
        }
        let lengths = lengths.map(|v| v.tensor("the sequence lengths")).transpose()?;
        let lengths = lengths.map(|t| integers(&t)).transpose()?;
        if lengths.as_ref().is_some_and(|l| l.len() != batch) {
            return Err(Error::invalid("its sequence lengths differ in number from the batch"));
        }
        let states = inputs.len() - self.scanned;
        let sequence = inputs[states..].iter().find_map(|t| t.shape().get(1).copied());
        let mut samples: Vec<Vec<TValue>> = vec![];
        for k in 0..batch {
            budget.iterate()?;
            let mut sample: Vec<TValue> = inputs.iter().map(|t| at(t, 0, k)).collect::<Result<_>>()?;
            let length = lengths.as_ref().map(|l| usize::try_from(l[k])).transpose();
            let length = length.map_err(|_| Error::invalid("a negative sequence length"))?;
            let scanned = sample.split_off(states);
            let mut outputs =
                self.run_one(sample, &scanned, length, outer, budget).context(|| format!("sample {k}"))?;
            for t in outputs.iter_mut().skip(states) {
                *t = padded(t, sequence.unwrap_or(0))?;
            }
            samples.push(outputs);
        }
        let count = samples.first().map_or(0, Vec::len);
        let output = |i: usize| {
            let parts: Vec<TValue> = samples.iter().filter_map(|s| s.get(i).cloned()).collect();
            if parts.iter().any(|t| t.shape() != parts[0].shape()) {
                return Err(Error::invalid("its samples differ in shape"));
            }
            stacked(&parts, 0).map(Val::Tensor)
        };
        (0..count).map(output).collect()
    }
}

/// Zeros behind the first axis of `t`, up to `length`.
fn padded(t: &TValue, length: usize) -> Result<TValue> {
    let missing = t.shape().first().and_then(|&n| length.checked_sub(n)).unwrap_or(0);
    if missing == 0 {
        return Ok(t.clone());
    }
    let mut shape = t.shape().to_vec();
    shape[0] = missing;
    let error = super::super::tensor::tract_error;
    let zeros = Tensor::zero_dt(t.datum_type(), &shape).map_err(error)?.into_tvalue();
    Ok(Tensor::stack_tensors(0, &[t.clone(), zeros]).map_err(error)?.into_tvalue())
}
