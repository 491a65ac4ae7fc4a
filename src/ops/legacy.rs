//! What the oldest operator sets said otherwise, for the `upgrade`s of several operators.

use super::rules::{changed, without};
use super::spec::{InferContext, Source, Step, Upgrade};
use crate::ir::{AttributeValue, DType, Dim, Node, OpId, Tensor};

/// A step of a replacement with an operator of the default domain.
pub fn step(op_type: &str, inputs: Vec<Source>, attributes: &[(&str, AttributeValue)]) -> Step {
    let mut node = Node::new(OpId::onnx(op_type));
    attributes.iter().for_each(|(name, value)| node.set(name, value.clone()));
    Step { node, inputs }
}

/// Two inputs before operator set 7: equal shapes, or with `broadcast` the second one stretched after it was aligned at
/// `axis` (without it: at the last axis) of the first.
pub fn broadcast_attributes(cx: &InferContext, to: i64) -> Upgrade {
    let plain = without(cx.node, &["broadcast", "axis"]);
    let at = match (cx.node.attribute("broadcast"), cx.node.attribute("axis")) {
        (None, None) => return Upgrade::Same,
        (Some(AttributeValue::Int(1)), Some(AttributeValue::Int(at))) => *at,
        _ => return changed(plain),
    };
    let (Some(a), Some(b)) = (cx.shape(0).map(<[Dim]>::len), cx.shape(1).map(<[Dim]>::len)) else {
        return Upgrade::Impossible("the ranks of its inputs are not known".into());
    };
    let at = if at < 0 { at.saturating_add(a as i64) } else { at };
    match usize::try_from(at).ok().and_then(|at| a.checked_sub(at.checked_add(b)?)) {
        Some(behind) => stretched(plain, b, behind, to),
        None => Upgrade::Impossible(format!("its axis {at} is outside its first input")),
    }
}

/// The node with `behind` axes of size 1 after those of input 1, which has `rank`.
pub fn stretched(node: Node, rank: usize, behind: usize, to: i64) -> Upgrade {
    if behind == 0 {
        return changed(node);
    }
    let axes: Vec<i64> = (rank..rank + behind).map(|k| k as i64).collect();
    let unsqueeze = if to >= 13 {
        let axes = Source::Constant(Tensor::from_i64(&[axes.len()], &axes));
        step("Unsqueeze", vec![Source::Input(1), axes], &[])
    } else {
        step("Unsqueeze", vec![Source::Input(1)], &[("axes", AttributeValue::Ints(axes))])
    };
    Upgrade::Replaced(vec![unsqueeze, Step { node, inputs: vec![Source::Input(0), Source::Step(0)] }])
}

/// A float attribute as the scalar constant of type `elem` that newer sets want; `None` for other types than floats.
pub fn scalar(elem: Option<DType>, x: f32) -> Option<Tensor> {
    match elem? {
        DType::F32 => Some(Tensor::from_f32(&[], &[x])),
        DType::F64 => Some(Tensor::from_f64(&[], &[x.into()])),
        DType::F16 => Some(Tensor::raw(DType::F16, &[], half::f16::from_f32(x).to_le_bytes().to_vec())),
        _ => None,
    }
}

/// The exponent of an Lp pool, a float before operator set 2.
pub fn integer_exponent(cx: &InferContext) -> Upgrade {
    match cx.node.attribute("p") {
        Some(AttributeValue::Float(p)) if p.fract() == 0.0 && p.abs() < 1e6 => {
            let mut node = cx.node.clone();
            node.set("p", AttributeValue::Int(*p as i64));
            changed(node)
        }
        Some(AttributeValue::Float(p)) => Upgrade::Impossible(format!("its exponent {p} is no integer")),
        _ => Upgrade::Same,
    }
}
