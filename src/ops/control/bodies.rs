//! If, Loop and Scan. The outputs of an If are what both branches make. State of a Loop or Scan has the type of its initial
//! value where the body keeps it; what is collected has one more axis than what the body makes.

use crate::error::Result;
use crate::ir::{Dim, Graph, TensorType, Type, ValueId};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Nodes with bodies.
pub struct Bodies;

impl OpSpec for Bodies {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("If", &[1, 11, 13, 16, 19, 21, 23, 24, 25]),
                op("Loop", &[1, 11, 13, 16, 19, 21, 23, 24, 25]),
                op("Scan", &[8, 9, 11, 16, 19, 21, 23, 24, 25]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let body = |name| cx.node.body(name);
        let types = match (&*cx.node.op.op_type, body("then_branch"), body("else_branch"), body("body")) {
            ("If", Some(one), Some(other), _) if one.outputs().len() == other.outputs().len() => {
                let pairs = one.outputs().iter().zip(other.outputs());
                pairs.map(|(&a, &b)| either(one.ty(a), other.ty(b))).collect()
            }
            ("Loop", _, _, Some(body)) => loop_types(cx, body),
            ("Scan", _, _, Some(body)) if cx.opset >= 9 => scan_types(cx, body),
            _ => vec![],
        };
        Ok(types.into_iter().map(|ty| Inferred { ty, data: None }).collect())
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset < 9 && &*cx.node.op.op_type == "Scan" {
            return Upgrade::Impossible("its form before operator set 9 is not supported".into());
        }
        Upgrade::Same
    }

    /// A body may hold random operators.
    fn deterministic(&self) -> bool {
        false
    }
}

/// What is known of a value that has one type or the other.
fn either(a: Option<&Type>, b: Option<&Type>) -> Option<Type> {
    let (a, b) = (a?.as_tensor()?, b?.as_tensor()?);
    let shape = match (&a.shape, &b.shape) {
        (Some(x), Some(y)) if x.len() == y.len() => {
            Some(x.iter().zip(y).map(|(x, y)| if x == y { x.clone() } else { Dim::Unknown }).collect())
        }
        _ => None,
    };
    (a.elem == b.elem).then_some(Type::Tensor(TensorType { elem: a.elem, shape }))
}

/// Final state, then what each iteration appends along a new first axis (specification: Loop).
fn loop_types(cx: &InferContext, body: &Graph) -> Vec<Option<Type>> {
    let state = cx.inputs.len().saturating_sub(2);
    let Some((_, made)) = body.outputs().split_first() else { return vec![] };
    let of = |(k, &v): (usize, &ValueId)| match made_type(body, v) {
        Some(ty) if k < state => kept(cx, 2 + k, &ty),
        Some(ty) => collected(ty, 0, Dim::Unknown),
        None => None,
    };
    made.iter().enumerate().map(of).collect()
}

/// Final state, then what each step puts along a new axis (specification: Scan, as of operator set 9).
fn scan_types(cx: &InferContext, body: &Graph) -> Vec<Option<Type>> {
    let scanned = cx.node.int("num_scan_inputs").and_then(|n| usize::try_from(n).ok());
    let Some(state) = scanned.and_then(|n| cx.inputs.len().checked_sub(n)) else { return vec![] };
    let axes = cx.node.ints("scan_output_axes").unwrap_or_default();
    let steps = steps(cx, state).unwrap_or(Dim::Unknown);
    let of = |(k, &v): (usize, &ValueId)| match made_type(body, v) {
        Some(ty) if k < state => kept(cx, k, &ty),
        Some(ty) => collected(ty, axes.get(k - state).copied().unwrap_or(0), steps.clone()),
        None => None,
    };
    body.outputs().iter().enumerate().map(of).collect()
}

/// Length of the first scanned input, which is at slot `first`.
fn steps(cx: &InferContext, first: usize) -> Option<Dim> {
    let shape = cx.shape(first)?;
    let axis = cx.node.ints("scan_input_axes").and_then(|a| a.first().copied()).unwrap_or(0);
    let from_front = if axis < 0 { axis + shape.len() as i64 } else { axis };
    shape.get(usize::try_from(from_front).ok()?).cloned()
}

/// The tensor type of what a body makes. A name for a size means nothing outside of the body.
fn made_type(body: &Graph, v: ValueId) -> Option<TensorType> {
    let ty = body.ty(v)?.as_tensor()?;
    let known = |d: &Dim| d.known().map_or(Dim::Unknown, |_| d.clone());
    Some(TensorType { elem: ty.elem, shape: ty.shape.as_ref().map(|s| s.iter().map(known).collect()) })
}

/// State whose initial value is input `slot`: its shape may change from one iteration to the next, and there may be none.
fn kept(cx: &InferContext, slot: usize, made: &TensorType) -> Option<Type> {
    let initial = cx.inputs.get(slot)?.as_ref()?.ty;
    either(initial, Some(&Type::Tensor(made.clone())))
}

/// The type with one more axis, counted from the end of the result where negative.
fn collected(made: TensorType, axis: i64, length: Dim) -> Option<Type> {
    let insert = |mut shape: Vec<Dim>| {
        let from_front = if axis < 0 { axis + shape.len() as i64 + 1 } else { axis };
        let at = usize::try_from(from_front).ok().filter(|&k| k <= shape.len())?;
        shape.insert(at, length);
        Some(shape)
    };
    Some(Type::Tensor(TensorType { elem: made.elem, shape: made.shape.and_then(insert) }))
}
