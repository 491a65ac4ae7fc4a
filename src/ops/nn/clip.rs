//! Clip: bounds are attributes before operator set 11, inputs as of it.

use crate::error::Result;
use crate::ir::{AttributeValue, Tensor};
use crate::math::{Array, elementwise2, sum};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::legacy::scalar;
use crate::ops::rules::{is_f32, same_as, without};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// `min(max(x, low), high)`.
pub struct Clip;

/// A bound that may be absent; `Err` where it exists but is not known.
fn bound(cx: &InferContext, attribute: &str, slot: usize) -> Result<Option<f32>, ()> {
    if cx.opset < 11 {
        return match cx.node.attribute(attribute) {
            None => Ok(None),
            Some(AttributeValue::Float(x)) => Ok(Some(*x)),
            Some(_) => Err(()),
        };
    }
    if !cx.present(slot) {
        return Ok(None);
    }
    cx.constant(slot).and_then(Tensor::scalar_f32).map(Some).ok_or(())
}

impl OpSpec for Clip {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Clip", &[1, 6, 11, 12, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        match (bound(cx, "min", 1), bound(cx, "max", 2)) {
            (Ok(low), Ok(high)) if is_f32(cx, 0) => QuantRole::Activation { low, high },
            _ => QuantRole::Opaque,
        }
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        match (bound(cx, "min", 1), bound(cx, "max", 2)) {
            (Ok(None | Some(0.0)), Ok(None)) => ChannelRole::same(axis),
            (Ok(low @ (None | Some(0.0))), Ok(Some(high))) => ChannelRole::Clamps { from_zero: low.is_some(), high },
            _ => ChannelRole::Barrier,
        }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset >= 11 || to < 11 {
            return Upgrade::Same;
        }
        let (Ok(low), Ok(high)) = (bound(cx, "min", 1), bound(cx, "max", 2)) else {
            return Upgrade::Impossible("its bounds are not float attributes".into());
        };
        let bounds = [(1, low), (2, high)].into_iter().filter_map(|(k, b)| b.map(|b| (k, scalar(cx.elem(0), b))));
        let new_inputs: Option<Vec<_>> = bounds.map(|(k, t)| Some((k, t?))).collect();
        match new_inputs {
            Some(new_inputs) => Upgrade::Changed { node: Box::new(without(cx.node, &["min", "max"])), new_inputs },
            None => Upgrade::Impossible("the element type of its input is not known".into()),
        }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        elementwise_links(cx, 0)
    }
}

fn bounds<T: Element>(cx: &InferContext, read: impl Fn(usize) -> Option<T>) -> (T, T) {
    let of =
        |name: &str, slot: usize| if cx.opset < 11 { cx.node.float(name).map(|x| T::of(x.into())) } else { read(slot) };
    (of("min", 1).unwrap_or(T::neg_infinity()), of("max", 2).unwrap_or(T::infinity()))
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (low, high) = bounds(f.cx, |k| f.optional(k)?.data().first().copied());
    // NaN stays NaN.
    let clip = |x: T| if x < low { low } else { x };
    Ok(Computed::one(f.float(0)?.map(|x| if clip(x) > high { high } else { clip(x) })))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, dy) = (b.float(0)?, b.grad()?);
    let (low, high) = bounds(b.cx, |k| b.optional(k)?.data().first().copied());
    let of = |inside: &(dyn Fn(T) -> bool + Sync)| {
        elementwise2(x.data(), dy.data(), |x, d| if inside(x) { d } else { T::zero() })
    };
    let mut grads = vec![None; b.inputs.len()];
    if b.wants(0) {
        grads[0] = Some(Array::new(x.dims(), of(&|x| x >= low && x <= high)));
    }
    let outside: [&(dyn Fn(T) -> bool + Sync); 2] = [&|x| x < low && low <= high, &|x| x.max(low) > high];
    for (slot, outside) in [1, 2].into_iter().zip(outside).filter(|(k, _)| b.wants(*k)) {
        grads[slot] = Some(Array::full(b.float(slot)?.dims(), sum(&of(outside))));
    }
    Ok(grads)
}
