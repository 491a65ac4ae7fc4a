//! Sequences and optionals.

use super::control::{Body, integer, integers};
use super::stack::{at, normalized, stacked};
use super::{Budget, HEADER, Sequence, Slot, Val, scalar, tensor_bytes};
use crate::error::{Context, Error, Result};
use crate::ir::Node;
use std::sync::Arc;
use tract_onnx::prelude::{IntoTValue, TValue, Tensor};

/// Whether this operator of the default domain is one of [`SequenceOp`].
pub(super) fn knows(op_type: &str) -> bool {
    matches!(
        op_type,
        "SequenceConstruct"
            | "SequenceEmpty"
            | "SequenceInsert"
            | "SequenceErase"
            | "SequenceAt"
            | "SequenceLength"
            | "SequenceMap"
            | "SplitToSequence"
            | "ConcatFromSequence"
            | "Optional"
            | "OptionalHasElement"
            | "OptionalGetElement"
    )
}

/// Whether the outputs of this interpreted operator are certainly tensors.
pub(super) fn makes_tensor(op_type: &str) -> bool {
    matches!(op_type, "Scan" | "SequenceAt" | "SequenceLength" | "ConcatFromSequence" | "OptionalHasElement")
}

/// An operator on sequences or optionals.
pub(super) enum SequenceOp {
    Construct,
    Empty,
    Insert,
    Erase,
    At,
    Length,
    Map(Box<Body>),
    Split { axis: i64, keep_axis: bool },
    Concat { axis: i64, new_axis: bool },
    Optional,
    HasElement,
    GetElement,
}

impl SequenceOp {
    /// `body` finds a body by attribute name.
    pub(super) fn new(node: &Node, body: &mut dyn FnMut(&str) -> Result<Body>) -> Result<Self> {
        let axis = node.int("axis");
        Ok(match &*node.op.op_type {
            "SequenceConstruct" => Self::Construct,
            "SequenceEmpty" => Self::Empty,
            "SequenceInsert" => Self::Insert,
            "SequenceErase" => Self::Erase,
            "SequenceAt" => Self::At,
            "SequenceLength" => Self::Length,
            "SequenceMap" => Self::Map(Box::new(body("body")?)),
            "SplitToSequence" => {
                Self::Split { axis: axis.unwrap_or(0), keep_axis: node.int("keepdims").unwrap_or(1) != 0 }
            }
            "ConcatFromSequence" => Self::Concat {
                axis: axis.ok_or_else(|| Error::invalid("it has no axis"))?,
                new_axis: node.int("new_axis").unwrap_or(0) != 0,
            },
            "Optional" => Self::Optional,
            "OptionalHasElement" => Self::HasElement,
            "OptionalGetElement" => Self::GetElement,
            other => return Err(Error::internal(format!("{other} is no operator on sequences"))),
        })
    }

    pub(super) fn captured(&self) -> Vec<Slot> {
        match self {
            Self::Map(body) => body.captured().to_vec(),
            _ => vec![],
        }
    }

    pub(super) fn run(&self, inputs: Vec<Option<Val>>, env: &[Option<Val>], budget: &Budget) -> Result<Vec<Val>> {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().flatten();
        let one = match self {
            Self::Construct => {
                let tensors = inputs.map(|v| v.ok_or_else(absent)?.tensor("an element"));
                Val::Sequence(Sequence::new(tensors.collect::<Result<_>>()?))
            }
            Self::Empty => Val::Sequence(Sequence::new(vec![])),
            Self::Insert => {
                let mut sequence = sequence(next())?;
                let element = next().ok_or_else(absent)?.tensor("an element")?;
                let place = position(next(), sequence.tensors.len(), true)?;
                sequence.bytes = sequence.bytes.saturating_add(tensor_bytes(&element));
                budget.check_bytes(sequence.bytes)?;
                Arc::make_mut(&mut sequence.tensors).insert(place, element);
                Val::Sequence(sequence)
            }
            Self::Erase => {
                let mut sequence = sequence(next())?;
                let place = position(next(), sequence.tensors.len(), false)?;
                let gone = Arc::make_mut(&mut sequence.tensors).remove(place);
                sequence.bytes = sequence.bytes.saturating_sub(tensor_bytes(&gone));
                Val::Sequence(sequence)
            }
            Self::At => {
                let sequence = sequence(next())?;
                let place = next().ok_or_else(absent)?;
                Val::Tensor(sequence.tensors[position(Some(place), sequence.tensors.len(), false)?].clone())
            }
            Self::Length => Val::Tensor(scalar(sequence(next())?.tensors.len() as i64)),
            Self::Map(body) => return map(body, inputs.collect(), env, budget),
            Self::Split { axis, keep_axis } => {
                let whole = next().ok_or_else(absent)?.tensor("what is split")?;
                split(&whole, next(), *axis, *keep_axis, budget)?
            }
            Self::Concat { axis, new_axis } => concat(&sequence(next())?, *axis, *new_axis)?,
            Self::Optional => next().unwrap_or(Val::Empty),
            Self::HasElement => Val::Tensor(scalar(!matches!(next(), None | Some(Val::Empty)))),
            Self::GetElement => match next() {
                None | Some(Val::Empty) => return Err(Error::invalid("the optional is empty")),
                Some(element) => element,
            },
        };
        Ok(vec![one])
    }
}

impl Sequence {
    fn new(tensors: Vec<TValue>) -> Self {
        let bytes = tensors.iter().map(|t| tensor_bytes(t)).fold(0, usize::saturating_add);
        Self { tensors: Arc::new(tensors), bytes }
    }
}

fn absent() -> Error {
    Error::invalid("an input is absent")
}

fn sequence(value: Option<Val>) -> Result<Sequence> {
    match value {
        Some(Val::Sequence(s)) => Ok(s),
        _ => Err(Error::invalid("its input is not a sequence")),
    }
}

/// A position from either end; without one, the last element, or for an insertion the place behind it.
fn position(value: Option<Val>, len: usize, insertion: bool) -> Result<usize> {
    let end = if insertion { len + 1 } else { len };
    let Some(value) = value else { return end.checked_sub(1).ok_or_else(|| Error::invalid("the sequence is empty")) };
    let given = integer(value)?;
    // An insertion counts from the last element too: the place before it is -1.
    let place = if given < 0 { given.checked_add(len as i64) } else { Some(given) };
    let place = place.and_then(|p| usize::try_from(p).ok()).filter(|&p| p < end);
    place.ok_or_else(|| Error::invalid(format!("position {given} in a sequence of {len}")))
}

/// Specification: SplitToSequence. Without `sizes`, one element per index.
fn split(whole: &TValue, sizes: Option<Val>, axis: i64, keep_axis: bool, budget: &Budget) -> Result<Val> {
    let axis = normalized(axis, whole.rank())?;
    let n = whole.shape()[axis];
    // Elements without elements take memory too.
    budget.check_bytes(n.saturating_mul(HEADER))?;
    let Some(sizes) = sizes else {
        let part = |k: usize| match keep_axis {
            false => at(whole, axis, k),
            true => Ok(whole.slice(axis, k, k + 1).map_err(super::super::tensor::tract_error)?.into_tvalue()),
        };
        return Ok(Val::Sequence(Sequence::new((0..n).map(part).collect::<Result<_>>()?)));
    };
    let sizes = sizes.tensor("the sizes")?;
    let given = integers(&sizes)?;
    let positive = || Error::invalid(format!("sizes {given:?} do not split {n}"));
    let ends: Vec<usize> = match given.as_slice() {
        [size] if sizes.rank() == 0 => {
            let size = usize::try_from(*size).ok().filter(|&s| s > 0).ok_or_else(positive)?;
            (0..n.div_ceil(size)).map(|k| ((k + 1) * size).min(n)).collect()
        }
        list => {
            let mut end = 0usize;
            let add = |&size: &i64| {
                end = usize::try_from(size)
                    .ok()
                    .and_then(|s| end.checked_add(s))
                    .filter(|&e| e <= n)
                    .ok_or_else(positive)?;
                Ok(end)
            };
            list.iter().map(add).collect::<Result<_>>()?
        }
    };
    if ends.last().copied().unwrap_or(0) != n {
        return Err(positive());
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let part = |(start, &end): (usize, &usize)| {
        Ok(whole.slice(axis, start, end).map_err(super::super::tensor::tract_error)?.into_tvalue())
    };
    let parts = starts.zip(&ends).map(part).collect::<Result<_>>()?;
    Ok(Val::Sequence(Sequence::new(parts)))
}

fn concat(sequence: &Sequence, axis: i64, new_axis: bool) -> Result<Val> {
    let first = sequence.tensors.first().ok_or_else(|| Error::invalid("the sequence is empty"))?;
    if new_axis {
        let fits = |t: &TValue| t.shape() == first.shape() && t.datum_type() == first.datum_type();
        if !sequence.tensors.iter().all(fits) {
            return Err(Error::invalid("its elements differ in shape"));
        }
        return stacked(&sequence.tensors, normalized(axis, first.rank() + 1)?).map(Val::Tensor);
    }
    let axis = normalized(axis, first.rank())?;
    let joined = Tensor::stack_tensors(axis, &sequence.tensors).map_err(super::super::tensor::tract_error)?;
    Ok(Val::Tensor(joined.into_tvalue()))
}

/// Specification: SequenceMap. The body once for each element; further sequences go along, tensors stay.
fn map(body: &Body, inputs: Vec<Option<Val>>, env: &[Option<Val>], budget: &Budget) -> Result<Vec<Val>> {
    let inputs: Vec<Val> = inputs.into_iter().map(|v| v.ok_or_else(absent)).collect::<Result<_>>()?;
    let Some(Val::Sequence(first)) = inputs.first() else { return Err(Error::invalid("its input is not a sequence")) };
    if body.arity().0 != inputs.len() {
        return Err(Error::invalid(format!("it has {} inputs, its body takes {}", inputs.len(), body.arity().0)));
    }
    let outer = body.outer(env)?;
    let mut results: Vec<Vec<TValue>> = vec![vec![]; body.arity().1];
    let mut bytes = 0usize;
    for k in 0..first.tensors.len() {
        budget.iterate()?;
        let place = || format!("element {k}");
        let element = |v: &Val| match v {
            Val::Sequence(s) => {
                let found = s.tensors.get(k).cloned();
                found.map(Val::Tensor).ok_or_else(|| Error::invalid("its sequences differ in length"))
            }
            other => Ok(other.clone()),
        };
        let given = inputs.iter().map(element).collect::<Result<_>>().context(place)?;
        let made = body.run(given, outer.clone(), budget).context(place)?;
        for (result, value) in results.iter_mut().zip(made) {
            let tensor = value.tensor("an element")?;
            bytes = bytes.saturating_add(tensor_bytes(&tensor));
            result.push(tensor);
        }
        budget.check_bytes(bytes).context(place)?;
    }
    Ok(results.into_iter().map(|tensors| Val::Sequence(Sequence::new(tensors))).collect())
}
