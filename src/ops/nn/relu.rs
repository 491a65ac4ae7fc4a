//! Relu.

use crate::error::Result;
use crate::math::{Array, elementwise2};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{is_f32, same_as};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// `max(x, 0)`.
pub struct Relu;

impl OpSpec for Relu {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Relu", &[1, 6, 13, 14])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::Activation { low: Some(0.0), high: None } } else { QuantRole::Opaque }
    }

    fn channels(&self, _cx: &InferContext, axis: usize) -> ChannelRole {
        ChannelRole::same(axis)
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        elementwise_links(cx, 0)
    }
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    // NaN stays NaN.
    Ok(Computed::one(f.float(0)?.map(|x| if x < T::zero() { T::zero() } else { x })))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (y, dy) = (b.output()?, b.grad()?);
    let dx = elementwise2(y.data(), dy.data(), |y, dy| if y > T::zero() { dy } else { T::zero() });
    Ok(b.first(Array::new(y.dims(), dx)))
}
